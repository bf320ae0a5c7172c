"""Reversals, case by case: what a score falls back to, ties, users who leave and come back, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from engine.board_rules import BoardRules, Range, ScoreMode
from engine.commands import (
    ImportRow,
    ImportRows,
    Increment,
    Outcome,
    Rejection,
    ResetBoard,
    ReversalReceipt,
    Reverse,
    UserChange,
)
from engine.events import Incremented, Rescored, Reversed
from engine.recount import Recount, Span, Unknown
from engine.schedule import Schedule
from tests.engine.games import Game
from tests.engine.logs import segment_of
from tests.engine.model import put

GOLDEN = Path(__file__).parent / "golden" / "reversals" / "00000000000000000001.log"
LOG_ID = bytes(range(16))
ALL = Span(0, 1000)


def reverse(
    game: Game, *seqs: int, name: str = "undo", of: int | None = None, preview: bool = False, asked: int = 1
) -> Outcome:
    """Reverse the actions with these seqs; past periods are looked up as their files have them."""
    events = {event.seq: event for event in game.events() if isinstance(event, Incremented)}
    recount = Recount({seq: events[seq] for seq in seqs}, again=of is not None)
    for event in game.events():
        recount.take(event)
    rows = {}
    for ended in game.ended:
        found = {row.user_id: row for row in ended.ranking.all_rows()}
        rows[ended.ranking.board_id, ended.past.seq] = {
            user: None
            if (row := found.get(user)) is None
            else Rescored(user, row.score, row.reached_seq, row.updated_ms)
            for user in recount.users
        }
    return game.write(Reverse(name, "cheated", "ref", asked, recount, of, rows, preview))[0]


def laps(game: Game, user: str, *values: int) -> list[int]:
    """Count laps; give their seqs."""
    outcomes = [
        game.write(Increment(user, f"{user}-{value}", "LAP", "cup", "game", value=value))[0] for value in values
    ]
    return [outcome.seq for outcome in outcomes if not isinstance(outcome, Rejection)]


@pytest.mark.parametrize(
    ("score", "expected"), [("sum", 30), ("best", 20), ("last", 20), ("count", 2)]
)  # of 10, 50 and 20 the second is taken back
def test_a_score_falls_back_to_what_counts_then(score: ScoreMode, expected: int) -> None:
    """By the rules of the board."""
    game = Game("2026-11-30 12:00")
    game.put(BoardRules({"LAP": Range(1, 90)}, score=score))
    _, second, _ = laps(game, "ann", 10, 50, 20)
    assert isinstance(reverse(game, second), ReversalReceipt)
    assert game.board().score("ann") == expected


def test_a_score_that_was_held_at_zero_is_counted_again() -> None:
    """Without the win the loss takes nothing away, and the last win counts in full."""
    game = Game("2026-11-30 12:00")
    game.put(BoardRules({"WIN": 10, "LATE": -20}))
    assert [game.win("ann", reason) for reason in ("WIN", "LATE", "WIN")] == [10, 0, 10]
    reverse(game, 2)
    assert game.board().score("ann") == 10
    reverse(game, 3, name="undo-2")
    assert game.board().score("ann") == 10


def test_ties_are_those_that_would_have_been() -> None:
    """Who reached the score first is ahead again."""
    game = Game("2026-11-30 12:00")
    game.put(BoardRules({"WIN": 10}))
    for user in ("ann", "bob", "ann"):
        game.win(user)
    reverse(game, 4)
    assert [(row.user_id, row.score) for row in game.board().top(9)] == [("ann", 10), ("bob", 10)]
    reverse(game, 2, name="undo-2")
    assert [(row.user_id, row.score) for row in game.board().top(9)] == [("bob", 10)]
    assert game.board().score("ann") is None
    assert isinstance(reverse(game, 2, name="redo", of=6), ReversalReceipt)
    assert [row.user_id for row in game.board().top(9)] == ["ann", "bob"]


def test_an_inactive_user_who_comes_back_is_not_shown() -> None:
    """As every score of such a user."""
    game = Game("2026-11-30 12:00")
    game.put(BoardRules({"WIN": 10}))
    game.win("ann")
    undone = reverse(game, 2)
    assert isinstance(undone, ReversalReceipt)
    game.write(put("ann", "Ann", False))
    redone = reverse(game, 2, name="redo", of=undone.seq)
    assert isinstance(redone, ReversalReceipt)
    assert redone.changes[0].top == ()
    assert (game.board().score("ann"), game.board().rank("ann")) == (10, None)


def test_a_preview_says_what_would_change() -> None:
    """And changes nothing."""
    game = Game("2026-11-30 12:00")
    game.put(BoardRules({"WIN": 10}, ranks="dense"))
    for user in ("ann", "ann", "bob"):
        game.win(user)
    frames = len(game.frames)
    outcome = reverse(game, 2, 3, preview=True)
    assert isinstance(outcome, ReversalReceipt)
    assert not outcome.applied
    [change] = outcome.changes
    assert change.users == (UserChange("ann", 20, None),)
    assert [(row.rank, row.user_id) for row in change.top] == [(1, "bob")]
    assert len(game.frames) == frames
    assert game.board().score("ann") == 20


def test_a_past_period_is_corrected_while_it_is_kept() -> None:
    """Its corrected rows stand in the state. A period that is forgotten takes them along."""
    game = Game("2026-11-27 12:00")
    game.put(BoardRules({"WIN": 10}, schedule=Schedule("day"), keep_periods=1))
    for user in ("ann", "ann", "bob"):
        game.win(user)
    game.reach("2026-11-28 12:00")
    game.win("ann")
    outcome = reverse(game, 2, 3)
    assert isinstance(outcome, ReversalReceipt)
    [change] = outcome.changes
    assert (change.period, change.users) == ("2026-11-27", (UserChange("ann", 20, None),))
    ended_seq = game.definition().past[0].seq
    corrected = game.scoreboard.reversals.of_period("cup", ended_seq)
    assert corrected is not None
    assert (corrected.seq, corrected.count) == (outcome.seq, 1)
    assert game.board().score("ann") == 10
    game.reach("2026-11-29 12:00")
    game.alarm()
    assert game.scoreboard.reversals.of_period("cup", ended_seq) is None
    forgotten = reverse(game, 4, name="late")
    assert isinstance(forgotten, ReversalReceipt)
    assert (forgotten.changes, forgotten.forgotten) == ((), 1)


@pytest.mark.parametrize("keeps", [1, 2])
def test_what_a_forgotten_period_counted_counts_in_no_other(keeps: int) -> None:
    """Also where both periods had their actions in one millisecond, and where more are kept since."""
    game = Game("2026-11-27 12:00")
    rules = BoardRules({"WIN": 10, "BONUS": 20}, schedule=Schedule("day"), keep_periods=1)
    game.put(rules)
    for reason in ("WIN", "BONUS"):
        game.win("ann", reason)
        game.write(ResetBoard("cup", "ops", None))
    game.put(replace(rules, keep_periods=keeps))
    [_, _, _, second, *_] = game.events()
    outcome = reverse(game, second.seq)
    assert isinstance(outcome, ReversalReceipt)
    [change] = outcome.changes
    assert change.users == (UserChange("ann", 20, None),)


def test_what_came_before_the_first_period_counts_in_it() -> None:
    """A board that had no periods gets them: the first one ends with all scores, also those of before it began."""
    game = Game("2026-11-27 12:00")
    rules = BoardRules({"WIN": 10, "BONUS": 20}, keep_periods=1)
    game.put(rules)
    game.win("ann", "BONUS")
    game.now_ms += 86_400_000
    game.put(replace(rules, schedule=Schedule("day")))
    game.win("ann")
    game.write(ResetBoard("cup", "ops", None))
    outcome = reverse(game, 2)
    assert isinstance(outcome, ReversalReceipt)
    [change] = outcome.changes
    assert (change.users, outcome.forgotten) == ((UserChange("ann", 30, 10),), 0)


def test_what_can_not_be_reversed_is_refused() -> None:
    """An action twice, a reversalId of an action, a reversal that was taken back already."""
    game = Game("2026-11-30 12:00")
    game.put(BoardRules({"WIN": 10}))
    game.win("ann")
    used = reverse(game, 2, name="action-1")
    assert isinstance(used, Rejection)
    assert used.details["field"] == "reversalId"
    undone = reverse(game, 2)
    assert isinstance(undone, ReversalReceipt)
    for outcome in (reverse(game, 2, name="undo-2"), reverse(game, 2, asked=2)):
        assert isinstance(outcome, Rejection)
        assert outcome.code == "CONFLICT"
    again = reverse(game, 2)
    assert isinstance(again, ReversalReceipt)
    assert (again.applied, again.seq) == (False, undone.seq)


def test_a_score_that_the_log_does_not_explain_is_left_alone() -> None:
    """Nobody knows what it should be."""
    game = Game("2026-11-30 12:00")
    game.put(BoardRules({"WIN": 10}))
    game.win("ann")
    game.win("ann")
    [_, first, second] = game.events()
    assert isinstance(second, Incremented)
    recount = Recount({3: second}, again=False, seq=first.seq)  # it knows nothing of the first
    recount.take(second)
    [outcome] = game.write(Reverse("undo", "cheated", "ref", 1, recount))
    assert isinstance(outcome, Rejection)
    assert "counted again" in outcome.message
    assert game.board().score("ann") == 20


def test_a_log_that_begins_late_is_enough_if_the_score_there_is_known() -> None:
    """The score before its first event stands in that event. What reached it is not known."""
    events = [Incremented(seq, seq, "cup", "ann", str(seq), 10, "WIN", "game", 10 * seq) for seq in (5, 6)]
    recount = Recount({6: events[1]}, again=False, seq=4, log_begins=5)
    for event in events:
        recount.take(event)
    rules = BoardRules({"WIN": 10})
    assert recount.of(rules, "cup", "ann", ALL, lambda _: True) == Rescored("ann", 60, 6, 6)
    assert recount.of(rules, "cup", "ann", ALL, lambda seq: seq != 6) == Rescored("ann", 50, 5, 5)
    with pytest.raises(Unknown, match="no longer"):
        recount.of(rules, "cup", "ann", ALL, lambda seq: seq not in (5, 6))


def reverse_where_the_log_begins_at(game: Game, first: int, seq: int) -> Outcome:
    """Reverse an action of a log that has lost what came before an event."""
    kept = [event for event in game.events() if event.seq >= first]
    recount = Recount(
        {each.seq: each for each in kept if isinstance(each, Incremented) and each.seq == seq},
        again=False, seq=first - 1, log_begins=first,
    )  # fmt: skip
    for event in kept:
        recount.take(event)
    return game.write(Reverse("undo", "cheated", "ref", 1, recount))[0]


def test_a_score_of_0_before_the_log_is_not_taken_for_none() -> None:
    """The first action that is kept says 0 before it, as for a newcomer. Nobody loses a row by a guess."""
    game = Game("2026-11-30 12:00")
    game.put(BoardRules({"WIN": 10, "LATE": -5}))
    assert (game.win("ann", "LATE"), game.win("ann")) == (0, 10)
    outcome = reverse_where_the_log_begins_at(game, 3, 3)
    assert isinstance(outcome, Rejection)
    assert "0 where it begins, or none" in outcome.message
    assert game.board().score("ann") == 10
    whole = reverse(game, 3)
    assert isinstance(whole, ReversalReceipt)
    assert game.board().score("ann") == 0


def test_an_imported_score_of_0_before_the_log_is_not_taken_for_none() -> None:
    """Also where the points make no 0, and an import did."""
    game = Game("2026-11-30 12:00")
    game.put(BoardRules({"WIN": 10}))
    game.write(ImportRows("cup", "season-1", 0, 1, "digest", False, [ImportRow("ann", 0)], "ops"))
    assert game.win("ann") == 10
    outcome = reverse_where_the_log_begins_at(game, 4, 4)
    assert isinstance(outcome, Rejection)
    assert game.board().score("ann") == 10


@pytest.mark.parametrize("first", [3, 4])  # the log has lost one of her two first actions, or both
def test_a_late_log_is_enough_where_what_it_lost_makes_no_difference(first: int) -> None:
    """A row stays where another action holds it up, whatever came before."""
    game = Game("2026-11-30 12:00")
    game.put(BoardRules({"WIN": 10, "LATE": -5}))
    for reason in ("LATE", "LATE", "WIN", "WIN"):
        game.win("ann", reason)
    assert isinstance(reverse_where_the_log_begins_at(game, first, 4), ReversalReceipt)
    assert game.board().score("ann") == 10


def test_a_newcomer_leaves_a_board_without_points_of_0_also_where_the_log_begins_late() -> None:
    """Its points make no 0, so 0 before the first action that is kept means none."""
    game = Game("2026-11-30 12:00")
    game.put(BoardRules({"WIN": 10}))
    game.win("bob")
    game.win("ann")
    outcome = reverse_where_the_log_begins_at(game, 3, 3)
    assert isinstance(outcome, ReversalReceipt)
    assert game.board().score("ann") is None


def golden_game() -> Game:
    """A reversal on two boards, one of a past period, and the reversal of the first."""
    game = Game("2026-11-27 12:00")
    game.put(BoardRules({"WIN": 10}, score="best"), "total")
    game.put(BoardRules({"WIN": 10}, schedule=Schedule("day"), feeds=("total",)))
    for user in ("größe-🎯", "größe-🎯", "bob"):
        game.win(user)
    reverse(game, 3, 4)
    reverse(game, 3, 4, name="redo", of=6)
    game.reach("2026-11-28 12:00")
    game.alarm()
    reverse(game, 3, 5, name="späť")
    return game


def test_the_segment_with_reversals_is_as_it_always_was() -> None:
    """Written once, read and written for ever."""
    game = golden_game()
    data = segment_of(game.frames, LOG_ID)
    reversals = [event for event in game.events() if isinstance(event, Reversed)]
    assert [(event.again, bool(event.scores), bool(event.periods)) for event in reversals] == [
        (False, True, False), (True, True, False), (False, True, True),
    ]  # fmt: skip
    assert data == GOLDEN.read_bytes()
