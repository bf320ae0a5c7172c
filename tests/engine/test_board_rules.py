"""The rules of a board: each way to count and to rank, as a table, and each rule that a board must keep."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from msgspec.structs import replace

from engine.board_rules import (
    BoardRules,
    OrderMode,
    Range,
    ScoreMode,
    WatchRules,
    Worth,
    next_score,
    rules_fault,
    rules_of_points,
)
from engine.limits import FEED_BYTES_MAX, FEEDS_MAX, KEEP_PERIODS_MAX, REASONS_MAX, SCORE_MAX
from engine.schedule import Every, Schedule, Season

POINTS: dict[str, Worth] = {"WIN": 10, "FOUL": -5, "LAP": Range(1, 3_600_000)}

NEXT_SCORES: list[tuple[ScoreMode, OrderMode, int | None, int, int]] = [
    # mode, order, the score before, what the action is worth, the score after
    ("sum", "descending", None, 10, 10),
    ("sum", "descending", 30, 10, 40),
    ("sum", "descending", 30, -10, 20),
    ("sum", "descending", 7, -10, 0),
    ("sum", "descending", None, -10, 0),
    ("sum", "descending", 0, 0, 0),
    ("sum", "ascending", None, 10, 10),
    ("sum", "ascending", 30, 10, 40),
    ("sum", "ascending", 7, -10, 0),
    ("sum", "ascending", None, -10, 0),
    ("best", "descending", None, 10, 10),
    ("best", "descending", 30, 10, 30),
    ("best", "descending", 30, 40, 40),
    ("best", "descending", 30, 30, 30),
    ("best", "descending", 0, 10, 10),
    ("best", "descending", None, -10, 0),
    ("best", "descending", 30, -10, 30),
    ("best", "ascending", None, 10, 10),
    ("best", "ascending", 30, 10, 10),
    ("best", "ascending", 30, 40, 30),
    ("best", "ascending", 30, 30, 30),
    ("best", "ascending", 0, 10, 0),
    ("best", "ascending", None, -10, 0),
    ("best", "ascending", 30, -10, 0),
    ("last", "descending", None, 10, 10),
    ("last", "descending", 30, 10, 10),
    ("last", "descending", 30, 40, 40),
    ("last", "descending", 30, -10, 0),
    ("last", "descending", None, -10, 0),
    ("last", "ascending", None, 10, 10),
    ("last", "ascending", 30, 10, 10),
    ("last", "ascending", 30, 40, 40),
    ("last", "ascending", 30, -10, 0),
    ("count", "descending", None, 10, 1),
    ("count", "descending", 30, 10, 31),
    ("count", "descending", 30, -10, 31),
    ("count", "descending", None, -10, 1),
    ("count", "ascending", None, 10, 1),
    ("count", "ascending", 0, 10, 1),
    ("count", "ascending", 30, -10, 31),
]


@pytest.mark.parametrize(("mode", "order", "score", "value", "expected"), NEXT_SCORES)
def test_a_score_after_an_action(
    mode: ScoreMode, order: OrderMode, score: int | None, value: int, expected: int
) -> None:
    """A sum never falls below 0, the best depends on the order, the last forgets, a count ignores values."""
    assert next_score(BoardRules(POINTS, score=mode, order=order), score, value) == expected


def test_the_table_has_every_mode_in_both_orders() -> None:
    """Each of them with a first score, and with a negative value."""
    pairs = {(mode, order) for mode in ("sum", "best", "last", "count") for order in ("descending", "ascending")}
    assert {(mode, order) for mode, order, score, _, _ in NEXT_SCORES if score is None} == pairs
    assert {(mode, order) for mode, order, _, value, _ in NEXT_SCORES if value < 0} == pairs


def test_a_score_may_pass_the_largest_one_so_that_the_caller_refuses_it() -> None:
    """A sum and a count that were cut at the largest score would lose points without a word."""
    for mode, value in (("sum", 5), ("count", 1)):
        rules = replace(BoardRules(POINTS), score=mode)
        assert next_score(rules, SCORE_MAX, value) == SCORE_MAX + value


def points(**worths: Worth) -> BoardRules:
    """Make rules with these points."""
    return BoardRules({**worths})


def feeding(*board_ids: str) -> BoardRules:
    """Make rules of a board that feeds these."""
    return BoardRules(POINTS, feeds=board_ids)


def schedule(every: Every, *, at: str = "", cron: str = "", zone: str = "UTC") -> BoardRules:
    """Make rules of a board with periods."""
    return BoardRules(POINTS, schedule=Schedule(every, zone, at, cron))


def season(begins_ms: int | None, ends_ms: int | None) -> BoardRules:
    """Make rules of a board that is open once."""
    return BoardRules(POINTS, season=Season(begins_ms, ends_ms))


def watched(order: OrderMode = "descending", **limits: float) -> BoardRules:
    """Rules with a watch."""
    return BoardRules(POINTS, order=order, watch=WatchRules(**limits))  # type: ignore[arg-type]


LONG = "x" * 129
LONGEST = "x" * 128

FAULTS: list[tuple[str, str, BoardRules, str, str]] = [
    # what is wrong, board id, rules, the field at fault, a part of the sentence
    ("an empty id", "", BoardRules(POINTS), "boardId", "must"),
    ("a long id", LONG, BoardRules(POINTS), "boardId", "128"),
    ("a control character in an id", "a\nb", BoardRules(POINTS), "boardId", "must"),
    ("a long title", "cup", BoardRules(POINTS, title=LONG), "title", "128"),
    ("a control character in a title", "cup", BoardRules(POINTS, title="The\tcup"), "title", "must"),
    ("no reasons", "cup", BoardRules({}), "points", "at least one reason"),
    ("too many reasons", "cup", points(**{f"R{n}": 1 for n in range(REASONS_MAX + 1)}), "points", "at most 1000"),
    ("an empty reason", "cup", BoardRules({"": 1}), "points.", "has a name that"),
    ("a long reason", "cup", BoardRules({LONG: 1}), f"points.{LONG}", "has a name that"),
    ("no points", "cup", points(WIN=10, NONE=0), "points.NONE", "from 1 to"),
    ("too many points", "cup", points(WIN=SCORE_MAX + 1), "points.WIN", "from 1 to"),
    ("too many negative points", "cup", points(FOUL=-SCORE_MAX - 1), "points.FOUL", "to -1"),
    ("a range that begins below 0", "cup", points(LAP=Range(-1, 5)), "points.LAP", "0 <= min <= max"),
    ("a range that ends before it begins", "cup", points(LAP=Range(6, 5)), "points.LAP", "0 <= min <= max"),
    ("a range beyond the largest score", "cup", points(LAP=Range(0, SCORE_MAX + 1)), "points.LAP", "0 <= min <= max"),
    ("no periods", "cup", BoardRules(POINTS, keep_periods=0), "keep_periods", "from 1 to 1000"),
    ("too many periods", "cup", BoardRules(POINTS, keep_periods=KEEP_PERIODS_MAX + 1), "keep_periods", "from 1 to"),
    ("too many feeds", "cup", feeding(*(f"b{n}" for n in range(FEEDS_MAX + 1))), "feeds", "at most 8 boards, not 9"),
    ("an empty feed", "cup", feeding(""), "feeds", "names a board whose id"),
    ("a long feed", "cup", feeding(LONG), "feeds", "names a board whose id"),
    ("itself", "cup", feeding("year", "cup"), "feeds", "itself"),
    ("the same board twice", "cup", feeding("year", "year"), "feeds", "twice"),
    ("an unknown every", "cup", schedule("year"), "period.every", "every must be one of hour, day"),  # type: ignore
    ("a beginning of another kind", "cup", schedule("week", at="25:00"), "period.at", "at must be"),
    ("a day that some months lack", "cup", schedule("month", at="31 00:00"), "period.at", "not every month"),
    ("a cron expression without cron", "cup", schedule("day", cron="0 0 * * *"), "period.cron", "only if every"),
    ("a cron expression of four fields", "cup", schedule("cron", cron="0 0 * *"), "period.cron", "five fields"),
    ("a zone that is none", "cup", schedule("day", zone="../UTC"), "period.zone", "tz database"),
    ("a season without both ends", "cup", season(None, None), "period", "must have starts, ends, or both"),
    ("a season that ends before it begins", "cup", season(6, 5), "period.ends", "later than starts"),
    ("a season that ends as it begins", "cup", season(5, 5), "period.ends", "later than starts"),
    ("no growth", "cup", watched(growth_per_minute=0), "watch.growth_per_minute", "from 1 to"),
    ("too much growth", "cup", watched(growth_per_hour=SCORE_MAX + 1), "watch.growth_per_hour", "from 1 to"),
    ("growth on a falling board", "cup", watched("ascending", growth_per_hour=1), "watch.growth_per_hour", "falls"),
    ("no callers", "cup", watched(callers_per_user=0), "watch.callers_per_user", "from 1 to 100"),
    ("too many callers", "cup", watched(callers_per_user=101), "watch.callers_per_user", "from 1 to 100"),
    ("an outlier who is none", "cup", watched(outlier_z=0.9), "watch.outlier_z", "from 1 to 1000"),
    ("an outlier beyond all", "cup", watched(outlier_z=1_001.0), "watch.outlier_z", "from 1 to 1000"),
    ("no number", "cup", watched(outlier_z=float("nan")), "watch.outlier_z", "from 1 to 1000"),
    ("a watch for nothing", "cup", watched(), "watch.growth_per_minute", "sees nothing"),
    ("long feeds", "cup", feeding("🦊" * 127, "🦉" * 127), "feeds", f"at most {FEED_BYTES_MAX} bytes"),
]


@pytest.mark.parametrize(
    ("board_id", "rules", "field", "says"), [row[1:] for row in FAULTS], ids=[r[0] for r in FAULTS]
)
def test_a_fault_is_told_with_its_field(board_id: str, rules: BoardRules, field: str, says: str) -> None:
    """The field is as the operator writes it, and the sentence goes on after it."""
    fault = rules_fault(board_id, rules)
    assert fault is not None
    assert fault[0] == field
    assert says in fault[1]


GOOD: dict[str, BoardRules] = {
    "points, a range and negative points": BoardRules(POINTS),
    "the largest numbers": points(WIN=SCORE_MAX, FOUL=-SCORE_MAX, LAP=Range(0, SCORE_MAX)),
    "the least numbers": points(WIN=1, FOUL=-1, LAP=Range(0, 0)),
    "a range of one value": points(LAP=Range(7, 7)),
    "every reason that fits": points(**{f"R{n}": 1 for n in range(REASONS_MAX)}),
    "a week in Berlin": schedule("week", at="monday 06:30", zone="Europe/Berlin"),
    "the last day that every month has": schedule("month", at="28 00:00"),
    "a cron expression": schedule("cron", cron="0 0 * * 1"),
    "the shortest season": season(5, 6),
    "a season without a beginning": season(None, 6),
    "a season without an end": season(5, None),
    "a title": BoardRules(POINTS, title="The cup 🏆"),
    "the fewest periods": BoardRules(POINTS, keep_periods=1),
    "the most periods": BoardRules(POINTS, keep_periods=KEEP_PERIODS_MAX),
    "every feed that fits": feeding(*(f"b{n}" for n in range(FEEDS_MAX))),
    "the least of a watch": watched(growth_per_minute=1, growth_per_hour=1, callers_per_user=1, outlier_z=1.0),
    "the most of a watch": watched(
        growth_per_minute=SCORE_MAX, growth_per_hour=SCORE_MAX, callers_per_user=100, outlier_z=1_000.0
    ),
    "a watch of a falling board": watched("ascending", outlier_z=3.5),
    "feeds of just the bytes that fit": feeding("🦊" * 125, "🦉" * 125),
}


@pytest.mark.parametrize("rules", GOOD.values(), ids=GOOD)
def test_rules_just_within_their_bounds_have_no_fault(rules: BoardRules) -> None:
    """The last good value of each bound."""
    assert rules_fault(LONGEST, rules) is None


def test_every_field_has_a_row_in_the_table_of_faults() -> None:
    """The modes are left out: their type has no other values, and no decoder lets one in."""
    fields = {field.partition(".")[0] for _, _, _, field, _ in FAULTS}
    one_key = {"schedule", "season"}  # for the operator both are `period`
    assert fields == {"boardId", "period", *BoardRules.__struct_fields__} - {"score", "order", "ranks"} - one_key
    periods = [rules for _, _, rules, field, _ in FAULTS if field.startswith("period")]
    assert {name for rules in periods for name in one_key if getattr(rules, name) is not None} == one_key


def test_rules_of_points_have_the_defaults() -> None:
    """A plain catalogue adds points, and the best is the highest."""
    catalogue: Mapping[str, int] = {"WIN": 10}
    rules = rules_of_points({"main": dict(catalogue)}, require_registered=True)
    assert rules.boards == {"main": BoardRules({"WIN": 10}, score="sum", order="descending", ranks="unique")}
    assert rules.require_registered
