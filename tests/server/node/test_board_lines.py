"""What the log tells of boards that change by themselves."""

from __future__ import annotations

from structlog.testing import capture_logs

from engine.board_rules import BoardRules, Rules
from engine.events import BoardEvent, BoardFrozen, BoardPut, Incremented, PeriodChanged
from engine.schedule import Period, Schedule
from engine.scoreboard import Scoreboard
from server.node.board_lines import tell_board_events

WEEK = BoardRules({"WIN": 1}, schedule=Schedule("week", "Europe/Berlin"))
FIRST, SECOND = Period("2025-W51", 0, 10), Period("2025-W52", 10, 20)


def told(*events: BoardEvent) -> list[tuple[str, str, str]]:
    """Apply events to a weekly board, and list what was logged: level, event and period."""
    scoreboard = Scoreboard(Rules({}))
    scoreboard.apply(BoardPut(1, 1, "cup", WEEK, "ops", FIRST), 1)
    for event in events:
        scoreboard.apply(event, 1)
    with capture_logs() as logged:
        tell_board_events(events, scoreboard)
    return [(line["log_level"], line["event"], str(line.get("period", ""))) for line in logged]


def test_a_period_that_the_clock_ended_is_told_and_one_that_a_caller_ended_is_not() -> None:
    """The caller's is told where the request was answered."""
    assert told(PeriodChanged(2, 10, "cup", FIRST, SECOND, False, (), "")) == [("info", "period_ended", "2025-W51")]
    assert told(PeriodChanged(2, 10, "cup", FIRST, SECOND, False, (), "ops")) == []


def test_a_board_whose_next_period_is_unknown_is_an_error() -> None:
    """Nothing counts there until an operator acts."""
    lines = told(PeriodChanged(2, 10, "cup", FIRST, None, True, (), ""))
    assert lines == [("info", "period_ended", "2025-W51"), ("error", "period_unknown", "")]


def test_a_freeze_that_was_planned_is_told_when_it_begins() -> None:
    """The plan itself was a request."""
    assert told(BoardFrozen(2, 5, "cup", None, "")) == [("info", "board_frozen", "")]
    assert told(BoardFrozen(2, 5, "cup", 8, "ops")) == []


def test_other_frames_are_passed_over() -> None:
    """Also an empty one, as a shard gets it."""
    scoreboard = Scoreboard(Rules({}))
    with capture_logs() as logged:
        tell_board_events([], scoreboard)
        tell_board_events([Incremented(1, 1, "cup", "ann", "a", 1, "WIN", "c", 1)], scoreboard)
    assert logged == []
