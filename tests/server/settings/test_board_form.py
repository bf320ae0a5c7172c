"""Boards as they are written: one form for the API and for the file, and a name for each fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.board_rules import BoardRules, Range, WatchRules
from engine.schedule import Schedule, Season
from server.settings.board_form import FIELDS, FormFault, form_of, rules_of
from server.settings.config import Config, ConfigError, load
from server.settings.effective import effective

POINTS = {"WIN": 10}
CUP: dict[str, Any] = {
    "title": "Winter cup",
    "points": {"WIN": 10, "LATE": -5, "LAP": {"min": 1, "max": 3_600_000}},
    "score": "best",
    "order": "ascending",
    "ranks": "dense",
    "period": {"every": "week", "zone": "Europe/Berlin", "at": "monday 06:00"},
    "keep_periods": 4,
    "feeds": ["all-time"],
    "watch": {"callers_per_user": 3, "outlier_z": 4, "action": "flag"},
}
CUP_RULES = BoardRules(
    points={"WIN": 10, "LATE": -5, "LAP": Range(1, 3_600_000)},
    title="Winter cup",
    score="best",
    order="ascending",
    ranks="dense",
    schedule=Schedule("week", "Europe/Berlin", "monday 06:00"),
    keep_periods=4,
    feeds=("all-time",),
    watch=WatchRules(callers_per_user=3, outlier_z=4.0),
)
CUP_FILE = """
[boards.all-time]
points = { WIN = 10 }

[boards.cup]
title = "Winter cup"
points = { WIN = 10, LATE = -5, LAP = { min = 1, max = 3600000 } }
score = "best"
order = "ascending"
ranks = "dense"
period = { every = "week", zone = "Europe/Berlin", at = "monday 06:00" }
keep_periods = 4
feeds = ["all-time"]
watch = { callers_per_user = 3, outlier_z = 4, action = "flag" }
"""


def read(directory: Path, text: str) -> Config:
    """Read a file."""
    file = directory / "scoreboard.toml"
    file.write_text(text)
    return load(file, {}, {})


def test_the_form_has_every_field(tmp_path: Path) -> None:
    """JSON and TOML come to the same rules."""
    assert set(CUP) == set(FIELDS)
    assert rules_of("cup", CUP) == CUP_RULES
    assert read(tmp_path, CUP_FILE).boards["cup"] == CUP_RULES


def test_null_is_as_if_it_was_left_out() -> None:
    """Also within a period."""
    nulls = {**dict.fromkeys(FIELDS), "points": POINTS}
    assert rules_of("cup", nulls) == rules_of("cup", {"points": POINTS}) == BoardRules(points={"WIN": 10})
    period = {**dict.fromkeys(("zone", "at", "cron", "starts", "ends")), "every": "day"}
    assert rules_of("cup", {"points": POINTS, "period": period}).schedule == Schedule("day")


@pytest.mark.parametrize(
    ("period", "schedule", "season"),
    [
        ({"every": "cron", "cron": "0 18 * * 5"}, Schedule("cron", cron="0 18 * * 5"), None),
        ({"every": "hour", "at": ":15"}, Schedule("hour", at=":15"), None),
        ({"starts": "1970-01-01T00:00:00Z"}, None, Season(0, None)),
        ({"starts": "1970-01-01T01:00:00+01:00"}, None, Season(0, None)),
        ({"ends": "1970-01-01t00:00:01.98765z"}, None, Season(None, 1_987)),
        ({"ends": "1970-01-01 00:00:01.5-00:30"}, None, Season(None, 1_801_500)),
        ({"starts": "2026-12-01T18:00:00Z", "ends": "9999-12-31T23:59:59.999Z"}, None,
         Season(1_796_148_000_000, 253_402_300_799_999)),
    ],
)  # fmt: skip
def test_periods_and_seasons(period: dict[str, str], schedule: Schedule | None, season: Season | None) -> None:
    """And what is told of them is the same form again."""
    rules = rules_of("cup", {"points": POINTS, "period": period})
    assert (rules.schedule, rules.season) == (schedule, season)
    assert rules_of("cup", msgspec.to_builtins(form_of(rules))) == rules


def test_the_form_of_rules_is_what_was_put() -> None:
    """Field by field, with the defaults; without a period there is none."""
    assert msgspec.to_builtins(form_of(CUP_RULES)) == CUP
    plain = {"title": "", "points": POINTS, "score": "sum", "order": "descending", "ranks": "unique"}
    told = msgspec.to_builtins(form_of(BoardRules(points={"WIN": 10})))
    assert told == {**plain, "keep_periods": 52, "feeds": []}


NOT_AN_INSTANT = [
    "", "now", "2026-12-01", "2026-12-01T18:00:00", "2026-12-01T18:00Z", "2026-13-01T18:00:00Z", "2026-02-29T00:00:00Z",
    "2026-12-01T24:00:00Z", "2026-12-01T18:60:00Z", "2026-12-01T18:00:00+24:00", "2026-12-01T18:00:00+01",
    "2026-12-01T18:00:00.Z", "1969-12-31T23:59:59.999Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-00:01",
    "\u0662026-12-01T18:00:00Z", 5, True, [],
]  # fmt: skip


@pytest.mark.parametrize("value", NOT_AN_INSTANT, ids=repr)
@pytest.mark.parametrize("name", ["starts", "ends"])
def test_an_instant_has_an_offset_and_is_real(name: str, value: object) -> None:
    """The fault names the field, and shows an instant."""
    with pytest.raises(FormFault) as caught:
        rules_of("cup", {"points": POINTS, "period": {name: value}})
    assert caught.value.path == ("period", name)
    assert caught.value.message.startswith(f"period.{name} must be a time from 1970 to 9999 with its offset")


FAULTS: list[tuple[object, str, str]] = [
    ([], "body", "body must be an object"),
    ({"points": POINTS, "watch": []}, "watch", "watch must be a table"),
    ({"points": POINTS, "watch": {}}, "watch.growth_per_minute", "a watch without limits sees nothing"),
    ({"points": POINTS, "watch": {"growth": 5}}, "watch.growth", "is unknown; known are growth_per_minute"),
    ({"points": POINTS, "watch": {"growth_per_hour": 1.5}}, "watch.growth_per_hour", "must be an integer"),
    ({"points": POINTS, "watch": {"growth_per_hour": True}}, "watch.growth_per_hour", "must be an integer"),
    ({"points": POINTS, "watch": {"outlier_z": "5"}}, "watch.outlier_z", "must be a number"),
    ({"points": POINTS, "watch": {"outlier_z": 1e9}}, "watch.outlier_z", "must be a number from 1 to 1000"),
    ({"points": POINTS, "watch": {"outlier_z": 3, "action": "ban"}}, "watch.action", 'must be "flag" or "hold"'),
    ({}, "points", "points is missing"),
    ({"points": None}, "points", "points is missing"),
    ({"points": []}, "points", "points must be a table of reasons"),
    ({"points": {}}, "points", "must name at least one reason"),
    ({"points": {f"r{n}": 1 for n in range(1_001)}}, "points", "must name at most 1000 reasons, not 1001"),
    ({"points": {"WIN": 0}}, "points.WIN", "points.WIN must be an integer from 1 to"),
    ({"points": {"WIN": 1.0}}, "points.WIN", "must be an integer, or a range"),
    ({"points": {"WIN": True}}, "points.WIN", "must be an integer, or a range"),
    ({"points": {"WIN": 2**53}}, "points.WIN", "must be an integer from 1 to"),
    ({"points": {"WIN": None}}, "points.WIN", "must be an integer, or a range"),
    ({"points": {"": 1}}, "points.", "has a name that must not be empty"),
    ({"points": {"LAP": {}}}, "points.LAP.min", "points.LAP.min is missing"),
    ({"points": {"LAP": {"min": 1}}}, "points.LAP.max", "points.LAP.max is missing"),
    ({"points": {"LAP": {"min": 1, "max": "9"}}}, "points.LAP.max", "must be an integer"),
    ({"points": {"LAP": {"min": True, "max": 9}}}, "points.LAP.min", "must be an integer"),
    ({"points": {"LAP": {"min": 9, "max": 1}}}, "points.LAP", "must have 0 <= min <= max"),
    ({"points": {"LAP": {"min": 1, "max": 9, "step": 2}}}, "points.LAP.step", "is unknown; known are min, max"),
    ({"points": POINTS, "keepPeriods": 5}, "keepPeriods", "keepPeriods is unknown; known are points, title"),
    ({"points": POINTS, "title": 5}, "title", "title must be a string"),
    ({"points": POINTS, "title": " "}, "title", "shows nothing"),
    ({"points": POINTS, "score": "max"}, "score", "must be one of sum, best, last, count"),
    ({"points": POINTS, "order": []}, "order", "must be one of descending, ascending"),
    ({"points": POINTS, "ranks": 1}, "ranks", "must be one of unique, shared, dense"),
    ({"points": POINTS, "keep_periods": True}, "keep_periods", "must be an integer from 1 to 1000"),
    ({"points": POINTS, "keep_periods": 0}, "keep_periods", "must be an integer from 1 to 1000"),
    ({"points": POINTS, "feeds": "all-time"}, "feeds", "must be a list of boardIds"),
    ({"points": POINTS, "feeds": [5]}, "feeds", "must be a list of boardIds"),
    ({"points": POINTS, "feeds": ["cup"]}, "feeds", "must not name the board itself"),
    ({"points": POINTS, "period": "week"}, "period", "period must be a table"),
    ({"points": POINTS, "period": {}}, "period", "must have every, or starts, ends, or both"),
    ({"points": POINTS, "period": {"every": None}}, "period", "must have every, or starts, ends, or both"),
    ({"points": POINTS, "period": {"every": "year"}}, "period.every", "must be one of hour, day, week, month, cron"),
    ({"points": POINTS, "period": {"every": 5}}, "period.every", "must be a string"),
    ({"points": POINTS, "period": {"every": "week", "day": 1}}, "period.day", "is unknown; known are every, zone"),
    ({"points": POINTS, "period": {"every": "week", "zone": "Mars/Base"}}, "period.zone", "has no zone 'Mars/Base'"),
    ({"points": POINTS, "period": {"every": "week", "zone": "../UTC"}}, "period.zone", "must be a name of the tz"),
    ({"points": POINTS, "period": {"every": "week", "at": "06:00"}}, "period.at", "must be an English weekday"),
    ({"points": POINTS, "period": {"every": "cron"}}, "period.cron", "must have five fields"),
    ({"points": POINTS, "period": {"every": "cron", "cron": "0 0 30 2 *"}}, "period.cron", "period.cron"),
    ({"points": POINTS, "period": {"every": "day", "cron": "0 0 * * *"}}, "period.cron", "must not be set if every"),
    ({"points": POINTS, "period": {"zone": "UTC"}}, "period.zone", "must not be set without every"),
    ({"points": POINTS, "period": {"every": "day", "ends": "2027-01-01T00:00:00Z"}}, "period.ends",
     "must not be set beside every"),
    ({"points": POINTS, "period": {"starts": "2027-01-01T00:00:00Z", "zone": "UTC"}}, "period.zone",
     "must not be set without every"),
    ({"points": POINTS, "period": {"starts": "2027-01-01T00:00:00Z", "ends": "2027-01-01T00:00:00Z"}}, "period.ends",
     "must be later than starts"),
]  # fmt: skip


@pytest.mark.parametrize(("form", "field", "message"), FAULTS, ids=lambda each: each if isinstance(each, str) else "")
def test_a_fault_names_its_field_and_what_is_allowed(form: object, field: str, message: str) -> None:
    """From the outside in."""
    with pytest.raises(FormFault) as caught:
        rules_of("cup", form)
    assert caught.value.field == field
    assert message in caught.value.message
    assert caught.value.message.endswith(".")


@pytest.mark.parametrize(
    ("line", "key", "told"),
    [
        ('period = { every = "week", zone = "Mars/Base" }', "boards.cup.period.zone", '"Mars/Base" is not allowed'),
        ('period = { every = "week", at = "25:00" }', "boards.cup.period.at", "English weekday"),
        ('period = { every = "week", day = 1 }', "boards.cup.period.day", "is unknown"),
        ("period = 5", "boards.cup.period", "must be a table"),
        ("period = { starts = 2026-12-01T18:00:00 }", "boards.cup.period.starts", "with its offset"),
        ("period = { starts = 2026-12-01 }", "boards.cup.period.starts", "with its offset"),
        ("score = 5", "boards.cup.score", "must be one of sum, best, last, count"),
        ('points."a.b" = 0', 'boards.cup.points."a.b"', "0 is not allowed"),
        ("points.LAP = { min = 1 }", "boards.cup.points.LAP.max", "is missing"),
    ],
)
def test_a_fault_of_the_file_has_its_key_and_its_source(tmp_path: Path, line: str, key: str, told: str) -> None:
    """And the value that is not allowed."""
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, f"[boards.cup]\npoints.WIN = 1\n{line}\n")
    assert caught.value.key == key
    assert told in caught.value.message
    assert "scoreboard.toml" in caught.value.message


@pytest.mark.parametrize("starts", ["2026-12-01T18:00:00+01:00", '"2026-12-01T17:00:00Z"', "2026-12-01 18:00:00+01:00"])
def test_instants_of_the_file_are_dates_or_texts(tmp_path: Path, starts: str) -> None:
    """Both with an offset."""
    config = read(tmp_path, f"[boards.cup]\npoints.WIN = 1\nperiod = {{ starts = {starts} }}\n")
    assert config.boards["cup"].season == Season(1_796_144_400_000, None)


def test_what_counts_is_told_in_the_form(tmp_path: Path) -> None:
    """A period as it was written, or nothing."""
    config = read(tmp_path, CUP_FILE)
    told = {each.key: msgspec.to_builtins(each.value) for each in effective(config, {})}
    assert {field: told[f"boards.cup.{field}"] for field in FIELDS} == CUP
    assert told["boards.all-time.period"] is None
