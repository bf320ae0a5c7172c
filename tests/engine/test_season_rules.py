"""New rules for a board whose season is over."""

from __future__ import annotations

from msgspec.structs import replace

from engine.board_rules import BoardRules, Rules
from engine.commands import Increment, PutBoard, Rejection
from engine.events import ClockCorrected
from engine.periods import due_changes, no_calendar
from engine.schedule import Season
from engine.scoreboard import Scoreboard
from tests.engine.model import perform

MS = 1_765_800_896_000


def test_the_last_ranking_of_a_season_stays_in_its_order() -> None:
    """How scores grow and which is better change only together with the period: then the old ranking is a past one."""
    rules = BoardRules({"WIN": 1}, season=Season(MS, MS + 1_000))
    turned = replace(rules, order="ascending")
    scoreboard = Scoreboard(Rules({}))
    perform(scoreboard, [PutBoard("cup", rules, "ops")], MS)
    perform(scoreboard, [Increment("ann", "a1", "WIN", "cup", "ops")], MS)
    [over] = due_changes(scoreboard, MS + 1_000, no_calendar)
    scoreboard.apply(over, scoreboard.epoch)
    [refused] = perform(scoreboard, [PutBoard("cup", turned, "ops")], MS + 2_000)
    assert isinstance(refused, Rejection)
    assert (refused.code, refused.details) == ("CONFLICT", {"field": "order", "boardId": "cup"})
    perform(scoreboard, [PutBoard("cup", replace(turned, season=Season(MS, MS + 9_000)), "ops")], MS + 2_000)
    definition = scoreboard.boards["cup"].definition
    assert definition is not None
    assert (definition.rules.order, len(definition.past), definition.over) == ("ascending", 1, False)


def test_a_season_of_a_wrong_clock_ended_no_later_than_now() -> None:
    """The clock was ahead, the season ended by it, and was corrected. New rules put it among the past ones of now."""
    scoreboard = Scoreboard(Rules({}))
    perform(scoreboard, [PutBoard("cup", BoardRules({"WIN": 1}, season=Season(MS, MS + 1_000)), "ops")], MS)
    [over] = due_changes(scoreboard, MS + 1_000, no_calendar)
    scoreboard.apply(over, scoreboard.epoch)
    now_ms = MS - 60_000
    scoreboard.apply(ClockCorrected(scoreboard.seq + 1, now_ms, 1, 61_000, "test"), scoreboard.epoch)
    perform(scoreboard, [PutBoard("cup", BoardRules({"WIN": 1}), "ops")], now_ms)
    definition = scoreboard.boards["cup"].definition
    assert definition is not None
    [past] = definition.past
    assert (past.period.begins_ms, past.period.ends_ms) == (now_ms, now_ms)
