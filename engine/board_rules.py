"""The rules of a board: what an action is worth, how scores grow, and how they rank. Pure values.

    rules = BoardRules(points={"WIN": 10, "LATE": -5, "LAP": Range(1, 3_600_000)}, score="best", order="ascending")
    fault = rules_fault("laps", rules)                 None, or a field and the rest of a sentence
    score = next_score(rules, 61_200, 59_800)          59800

The log has the rules of each board (`BoardPut`). So a replay, a replica and a restore count by the same rules.

Rules:
- A score is 0 to SCORE_MAX, whatever is counted. What was really added is the `delta` of an event.
- `best` keeps the first of equal scores, and so do ties: who reached a score first is ahead.
- A board feeds others directly. What it feeds does not feed further, so no action runs in a circle.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from engine.limits import (
    FEED_BYTES_MAX,
    FEEDS_MAX,
    KEEP_PERIODS_DEFAULT,
    KEEP_PERIODS_MAX,
    OUTLIER_Z_MAX,
    REASONS_MAX,
    SCORE_MAX,
    WATCH_CALLERS_MAX,
)
from engine.schedule import Period, Schedule, Season, form_fault
from engine.texts import id_fault, name_fault

ScoreMode = Literal["sum", "best", "last", "count"]
OrderMode = Literal["descending", "ascending"]
RankMode = Literal["unique", "shared", "dense"]


class Range(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The values that a request may choose from, both ends included."""

    min: int
    max: int


Worth = int | Range
"""What a reason is worth: points, or a value that the request carries."""


Decision = Literal["accept", "reverse"]
"""What may be decided of a user who was put on the queue of reviews."""

ReviewRule = Literal["growth_per_minute", "growth_per_hour", "callers_per_user", "outlier_z"]
"""What a board may be watched for."""


WatchAction = Literal["flag", "hold"]
"""What a watch does about a user who breaks one of its rules."""


class WatchRules(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What puts a user of a board on the queue of reviews (`engine.watch`). None: that is not looked for.

    `hold`: what such a user does later does not count on the board until somebody decides (`engine.holds`).
    """

    growth_per_minute: int | None = None
    growth_per_hour: int | None = None
    callers_per_user: int | None = None
    outlier_z: float | None = None
    action: WatchAction = "flag"


class BoardRules(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The rules of one board, as they are logged. `rules_fault` says what they must hold."""

    points: dict[str, Worth]
    title: str = ""
    score: ScoreMode = "sum"
    order: OrderMode = "descending"
    ranks: RankMode = "unique"
    schedule: Schedule | None = None
    season: Season | None = None
    keep_periods: int = KEEP_PERIODS_DEFAULT
    feeds: tuple[str, ...] = ()
    watch: WatchRules | None = None


class BoardDefinition(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """All that events have said of a board itself. Snapshots hold it.

    `freeze_at_ms` is when the board will be frozen. `frozen` says since when it is: the public sees what it was then.
    `begun_ms` is when the board was made, or its running period began. `period` is the running one, None for a board
    without a schedule or a season. `past` are those that are kept, the oldest first. The last one that is not kept any
    more ended with the event `forgotten_seq`; 0: there is none. `over`: the season has
    ended, and its last ranking stays. `closed`: nothing is written to the board any more.
    """

    rules: BoardRules
    begun_ms: int = 0
    period: Period | None = None
    past: tuple[PastPeriod, ...] = ()
    over: bool = False
    closed: bool = False
    freeze_at_ms: int | None = None
    frozen: Frozen | None = None
    forgotten_seq: int = 0

    @property
    def ends_ms(self) -> int | None:
        """The instant at which the running period ends, None if nothing will end by itself."""
        return None if self.period is None or self.over or self.closed else self.period.ends_ms

    @property
    def due_ms(self) -> int | None:
        """The next instant at which something happens to the board by itself, None if nothing will."""
        dues = [due_ms for due_ms in (self.ends_ms, self.freeze_at_ms) if due_ms is not None]
        return min(dues, default=None)


class Frozen(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A board is frozen since the event `seq` at `time_ms`. `revealed` rows of it were shown since."""

    seq: int
    time_ms: int
    revealed: int = 0


class PastPeriod(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A period that ended with the event `seq`, with `count` ranked users. 0 users: it has no file."""

    period: Period
    seq: int
    count: int


class Rules(msgspec.Struct, frozen=True):
    """What the operator's file says: the boards to begin with, and whether a user must be registered to score."""

    boards: dict[str, BoardRules]
    require_registered: bool = False


def rules_of_points(points: dict[str, dict[str, int]], *, require_registered: bool = False) -> Rules:
    """Make rules with nothing but points, by board and reason."""
    return Rules({board_id: BoardRules(dict(worths)) for board_id, worths in points.items()}, require_registered)


def as_logged(rules: BoardRules) -> BoardRules:
    """Give rules as a replay reads them: equal, and with the same bytes in a snapshot.

    A field is left out of the bytes if it is the default itself. A text that was read elsewhere is only equal to it.
    """
    return _as_logged(msgspec.msgpack.encode(rules))


_as_logged = msgspec.msgpack.Decoder(BoardRules).decode


def next_score(rules: BoardRules, score: int | None, value: int) -> int:
    """Give a user's score after an action of this value. The score is None before the first; the new one is 0 or more.

    It may pass SCORE_MAX: the caller refuses that.
    """
    if rules.score == "sum":
        return max(0, (score or 0) + value)
    if rules.score == "count":
        return (score or 0) + 1
    value = max(0, value)
    if score is None or rules.score == "last":
        return value
    return max(score, value) if rules.order == "descending" else min(score, value)


def score_after_row(rules: BoardRules, score: int | None, value: int) -> int:
    """Give a user's score after a row of an import: a score of its own, not an action. The rest is as `next_score`."""
    if score is None:
        return value
    return score + value if rules.score == "count" else next_score(rules, score, value)


def rules_fault(board_id: str, rules: BoardRules) -> tuple[str, str] | None:
    """Give the field at fault and the rest of a sentence about it; None if the rules are good."""
    if fault := id_fault(board_id):
        return "boardId", fault
    if rules.title and (fault := name_fault(rules.title)):
        return "title", fault
    if not rules.points:
        return "points", "must name at least one reason, such as ACTION_COMPLETED with 10 points"
    if len(rules.points) > REASONS_MAX:
        return "points", f"must name at most {REASONS_MAX} reasons, not {len(rules.points)}"
    for reason, worth in rules.points.items():
        if fault := id_fault(reason):
            return f"points.{reason}", f"has a name that {fault}"
        if fault := _worth_fault(worth):
            return f"points.{reason}", fault
    if not 1 <= rules.keep_periods <= KEEP_PERIODS_MAX:
        return "keep_periods", f"must be an integer from 1 to {KEEP_PERIODS_MAX}"
    if fault := _feeds_fault(board_id, rules.feeds):
        return "feeds", fault
    if rules.watch is not None and (fault_of_watch := _watch_fault(rules.watch, rules.order)):
        return f"watch.{fault_of_watch[0]}", fault_of_watch[1]
    return _period_fault(rules)


def _worth_fault(worth: Worth) -> str | None:
    if isinstance(worth, Range):
        if not 0 <= worth.min <= worth.max <= SCORE_MAX:
            return f"must have 0 <= min <= max <= {SCORE_MAX}"
    elif not 0 < abs(worth) <= SCORE_MAX:
        return f"must be an integer from 1 to {SCORE_MAX}, or from -{SCORE_MAX} to -1, or a range"
    return None


def _feeds_fault(board_id: str, feeds: tuple[str, ...]) -> str | None:
    if len(feeds) > FEEDS_MAX:
        return f"must name at most {FEEDS_MAX} boards, not {len(feeds)}"
    for fed in feeds:
        if fault := id_fault(fed):
            return f"names a board whose id {fault}"
        if fed == board_id:
            return "must not name the board itself"
    if len(set(feeds)) < len(feeds):
        return "must not name a board twice"
    if sum(len(fed.encode()) for fed in feeds) > FEED_BYTES_MAX:
        return f"must have ids of at most {FEED_BYTES_MAX} bytes together"
    return None


def _watch_fault(watch: WatchRules, order: OrderMode) -> tuple[str, str] | None:
    growth = {"growth_per_minute": watch.growth_per_minute, "growth_per_hour": watch.growth_per_hour}
    for name, limit in growth.items():
        if limit is not None and order == "ascending":
            return name, "must not be set on an ascending board, where a good score falls"
        if limit is not None and not 1 <= limit <= SCORE_MAX:
            return name, f"must be an integer from 1 to {SCORE_MAX}"
    if watch.callers_per_user is not None and not 1 <= watch.callers_per_user <= WATCH_CALLERS_MAX:
        return "callers_per_user", f"must be an integer from 1 to {WATCH_CALLERS_MAX}"
    if watch.outlier_z is not None and not 1 <= watch.outlier_z <= OUTLIER_Z_MAX:
        return "outlier_z", f"must be a number from 1 to {OUTLIER_Z_MAX}"
    if all(limit is None for limit in (*growth.values(), watch.callers_per_user, watch.outlier_z)):
        return "growth_per_minute", "or another limit must be set: a watch without limits sees nothing"
    return None


def _period_fault(rules: BoardRules) -> tuple[str, str] | None:
    """Check the form of a period. Whether its zone exists, and its cron expression, is for `engine.calendar`."""
    if rules.schedule is not None:
        assert rules.season is None
        found = form_fault(rules.schedule)
        return None if found is None else (f"period.{found[0]}", found[1])
    season = rules.season
    if season is not None:
        if season.begins_ms is None and season.ends_ms is None:
            return "period", "must have starts, ends, or both, if it has no every"
        if season.begins_ms is not None and season.ends_ms is not None and season.begins_ms >= season.ends_ms:
            return "period.ends", "must be later than starts"
    return None
