"""A board as callers and operators write it, and the rules that come of it: one decoder for the API and for the file.

    rules = rules_of("cup", {"points": {"WIN": 10}, "period": {"every": "week"}})      raises `FormFault`
    form = form_of(rules)                                                              the same form, with its defaults

Rules:
- A form is what JSON or TOML says: tables, lists, texts, numbers. It has the fields of `BoardForm`, and no others.
- Null is as if the field was left out. `points` is the one field that must be there.
- A period comes again and again (`every`, `zone`, `at`, `cron`), or is one season (`starts`, `ends`). Never both.
- An instant is a date and a time with its offset (RFC 3339). TOML has dates of its own. They count if they have an
  offset. Fractions below a millisecond are cut off.
- A fault names its field from the outside in: `("period", "zone")`, `("points", "LAP")`.
- The tz database is asked whether a zone exists (`engine.calendar`). So a form may be good on one machine and refused
  on another. Rules that were taken once are in the log, and nobody checks them again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta

from engine.board_rules import (
    BoardRules,
    OrderMode,
    Range,
    RankMode,
    ScoreMode,
    WatchAction,
    WatchRules,
    Worth,
    rules_fault,
)
from engine.calendar import schedule_fault
from engine.limits import (
    FEEDS_MAX,
    ID_CHARACTERS_MAX,
    KEEP_PERIODS_DEFAULT,
    KEEP_PERIODS_MAX,
    NAME_CHARACTERS_MAX,
    OUTLIER_Z_MAX,
    REASONS_MAX,
    SCORE_MAX,
    WATCH_CALLERS_MAX,
)
from engine.schedule import CRON_CHARS_MAX, ZONE_CHARS_MAX, Every, Schedule, Season

Path = tuple[str, ...]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INSTANT = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,32}))?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
AN_INSTANT = 'must be a time from 1970 to 9999 with its offset, such as "2026-12-01T18:00:00Z"'
_POINTS = "must be a table of reasons and what they are worth, as { WON = 10, LAP = { min = 1, max = 90 } }"
_WORTH = "must be an integer, or a range such as { min = 1, max = 90 }"
_PERIOD = "must have every, or starts, ends, or both"

_Texts = Meta(extra_json_schema={"minLength": 1, "maxLength": ID_CHARACTERS_MAX})
_Reason = Annotated[str, _Texts]
_Points = Annotated[int, Meta(ge=-SCORE_MAX, le=SCORE_MAX)]
_Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]

# The types describe the form in the API's description. `rules_of` checks it, with better messages.


class PeriodForm(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """When a board begins anew (`every` and beside it `zone`, `at` or `cron`), or its one season (`starts`, `ends`)."""

    every: Every | None = None
    zone: Annotated[str, Meta(max_length=ZONE_CHARS_MAX, examples=["Europe/Berlin"])] | None = None
    at: Annotated[str, Meta(examples=["monday 06:00"])] | None = None
    cron: Annotated[str, Meta(max_length=CRON_CHARS_MAX, examples=["0 18 * * 5"])] | None = None
    starts: _Time | None = None
    ends: _Time | None = None


class WatchForm(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What puts a user on the queue of reviews: growth in a minute or an hour, callers in an hour, a score far out.

    With the action `hold` what the user does later does not count on the board until somebody decides.
    """

    growth_per_minute: Annotated[int, Meta(ge=1, le=SCORE_MAX)] | None = None
    growth_per_hour: Annotated[int, Meta(ge=1, le=SCORE_MAX)] | None = None
    callers_per_user: Annotated[int, Meta(ge=1, le=WATCH_CALLERS_MAX)] | None = None
    outlier_z: Annotated[float, Meta(ge=1, le=OUTLIER_Z_MAX)] | None = None
    action: WatchAction | None = None


class BoardForm(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The rules of a board."""

    points: Annotated[dict[_Reason, _Points | Range], Meta(min_length=1, max_length=REASONS_MAX)]
    title: Annotated[str, Meta(max_length=NAME_CHARACTERS_MAX)] | None = None
    score: ScoreMode | None = None
    order: OrderMode | None = None
    ranks: RankMode | None = None
    period: PeriodForm | None = None
    keep_periods: Annotated[int, Meta(ge=1, le=KEEP_PERIODS_MAX)] | None = None
    feeds: Annotated[list[_Reason], Meta(max_length=FEEDS_MAX)] | None = None
    watch: WatchForm | None = None


FIELDS = tuple(field.name for field in msgspec.structs.fields(BoardForm))
WATCH_FIELDS = tuple(field.name for field in msgspec.structs.fields(WatchForm))
PERIOD_FIELDS = tuple(field.name for field in msgspec.structs.fields(PeriodForm))


class FormFault(Exception):
    """A form that is not allowed. `path` leads to its field. `sentence` says of the field what is wrong."""

    def __init__(self, path: Path, sentence: str) -> None:
        self.path = path
        self.sentence = sentence
        super().__init__(self.message)

    @property
    def field(self) -> str:
        """The field at fault, with dots."""
        return ".".join(self.path)

    @property
    def message(self) -> str:
        """The whole sentence."""
        return f"{self.field}{' ' if self.sentence[:1].islower() else ': '}{self.sentence.rstrip('.')}."


def rules_of(board_id: str, form: object) -> BoardRules:
    """Make the rules of a form. Raises `FormFault`; at `("boardId",)` if the fault is in the id."""
    if not isinstance(form, Mapping):
        raise FormFault(("body",), "must be an object with the fields of a board")
    given = _given((), form, FIELDS)
    if "points" not in given:
        raise FormFault(("points",), f"is missing: it {_POINTS}")
    schedule, season = _period(given["period"]) if "period" in given else (None, None)
    rules = BoardRules(
        points=_points(given["points"]),
        title=_text(("title",), given.get("title", "")),
        score=_mode("score", given.get("score", "sum"), ScoreMode),
        order=_mode("order", given.get("order", "descending"), OrderMode),
        ranks=_mode("ranks", given.get("ranks", "unique"), RankMode),
        schedule=schedule,
        season=season,
        keep_periods=_keep_periods(given.get("keep_periods", KEEP_PERIODS_DEFAULT)),
        feeds=_feeds(given.get("feeds", ())),
        watch=_watch(given["watch"]) if "watch" in given else None,
    )
    if found := rules_fault(board_id, rules):
        field, fault = found
        head, is_part, part = field.partition(".")
        raise FormFault((head, part) if is_part else (head,), fault)
    return rules


def form_of(rules: BoardRules) -> BoardForm:
    """Give the form of rules. The rules of this form are equal to them."""
    period = None
    if rules.schedule is not None:
        schedule = rules.schedule
        period = PeriodForm(schedule.every, schedule.zone, schedule.at or None, schedule.cron or None)
    elif rules.season is not None:
        period = PeriodForm(starts=_written(rules.season.begins_ms), ends=_written(rules.season.ends_ms))
    return BoardForm(
        points=rules.points,
        title=rules.title,
        score=rules.score,
        order=rules.order,
        ranks=rules.ranks,
        period=period,
        keep_periods=rules.keep_periods,
        feeds=list(rules.feeds),
        watch=None if rules.watch is None else WatchForm(*msgspec.structs.astuple(rules.watch)),
    )


def _given(path: Path, table: Mapping[Any, Any], known: Iterable[str]) -> dict[str, Any]:
    """Leave out the nulls of a table. Raises `FormFault` for an unknown field."""
    for name in table:
        if name not in known:
            raise FormFault((*path, str(name)), f"is unknown; known are {', '.join(known)}")
    return {name: value for name, value in table.items() if value is not None}


def _points(value: object) -> dict[str, Worth]:
    if not isinstance(value, Mapping):
        raise FormFault(("points",), _POINTS)
    if len(value) > REASONS_MAX:
        raise FormFault(("points",), f"must name at most {REASONS_MAX} reasons, not {len(value)}")
    return {reason: _worth(reason, worth) for reason, worth in value.items()}


def _worth(reason: str, value: object) -> Worth:
    path = ("points", reason)
    if isinstance(value, Mapping):
        ends = _given(path, value, Range.__struct_fields__)
        for name in Range.__struct_fields__:
            if type(ends.get(name)) is not int:
                raise FormFault((*path, name), "must be an integer" if name in ends else "is missing")
        return Range(**ends)
    if type(value) is not int:
        raise FormFault(path, _WORTH)
    return value


def _text(path: Path, value: object) -> str:
    if not isinstance(value, str):
        raise FormFault(path, "must be a string")
    return value


def _mode(name: str, value: object, kind: Any) -> Any:
    if value not in get_args(kind):
        raise FormFault((name,), f"must be one of {', '.join(get_args(kind))}")
    return value


def _keep_periods(value: object) -> int:
    if type(value) is not int:
        raise FormFault(("keep_periods",), f"must be an integer from 1 to {KEEP_PERIODS_MAX}")
    return value


def _feeds(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
        raise FormFault(("feeds",), "must be a list of boardIds")
    return tuple(value)


def _watch(value: object) -> WatchRules:
    if not isinstance(value, Mapping):
        raise FormFault(("watch",), "must be a table, as { growth_per_minute = 500 }")
    given = _given(("watch",), value, WATCH_FIELDS)
    action = given.get("action", "flag")
    if action not in get_args(WatchAction):
        raise FormFault(("watch", "action"), 'must be "flag" or "hold"')
    for name in ("growth_per_minute", "growth_per_hour", "callers_per_user"):
        if name in given and type(given[name]) is not int:
            raise FormFault(("watch", name), "must be an integer")
    outlier_z = given.get("outlier_z")
    if outlier_z is not None:
        if type(outlier_z) not in (int, float):
            raise FormFault(("watch", "outlier_z"), "must be a number")
        given["outlier_z"] = float(min(outlier_z, OUTLIER_Z_MAX + 1))
    if action == "flag":
        given.pop("action", None)
    return WatchRules(**given)


def _period(value: object) -> tuple[Schedule | None, Season | None]:
    if not isinstance(value, Mapping):
        raise FormFault(("period",), f"must be a table: it {_PERIOD}")
    given = _given(("period",), value, PERIOD_FIELDS)
    once = [name for name in ("starts", "ends") if name in given]
    again = [name for name in ("zone", "at", "cron") if name in given]
    if "every" in given:
        if once:
            raise FormFault(("period", once[0]), "must not be set beside every: it is for one season")
        schedule = Schedule(*(_text(("period", name), given.get(name, default)) for name, default in _SCHEDULE))  # type: ignore[arg-type]  # `schedule_fault` checks `every`
        _check_schedule(schedule)
        return schedule, None
    if again:
        raise FormFault(("period", again[0]), "must not be set without every")
    if not once:
        raise FormFault(("period",), _PERIOD)
    return None, Season(*(_instant(name, given.get(name)) for name in ("starts", "ends")))


_SCHEDULE = (("every", ""), ("zone", "UTC"), ("at", ""), ("cron", ""))


def _check_schedule(schedule: Schedule) -> None:
    found = schedule_fault(schedule)
    if found is not None:
        field, sentence = found
        raise FormFault(("period", field), sentence.removeprefix(f"{field} ").rstrip("."))


def _instant(name: Literal["starts", "ends"], value: object) -> int | None:
    """Give an instant in ms since 1970, None if there is none."""
    if value is None:
        return None
    ms = instant_ms(value.isoformat() if isinstance(value, date) else value)
    if ms is None:
        raise FormFault(("period", name), AN_INSTANT)
    return ms


def instant_ms(text: object) -> int | None:
    """Read an instant, in ms since 1970; None for what is none."""
    parts = _INSTANT.fullmatch(text) if isinstance(text, str) else None
    if parts is None:
        return None
    day, clock, fraction, offset = parts.groups()
    try:
        since = datetime.fromisoformat(f"{day}T{clock}{'+00:00' if offset in 'Zz' else offset}") - _EPOCH
    except (ValueError, OverflowError):
        return None
    ms = since // timedelta(milliseconds=1) + int((fraction or "").ljust(3, "0")[:3])
    return ms if 0 <= ms <= _LAST_MS else None


_LAST_MS = 253_402_300_799_999
"""9999-12-31T23:59:59.999Z."""


def _written(ms: int | None) -> str | None:
    if ms is None:
        return None
    return (_EPOCH + timedelta(milliseconds=ms)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
