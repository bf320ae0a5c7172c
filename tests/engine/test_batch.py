"""Deciding over several calls: a batch is one, however many submissions it was put together from."""

from __future__ import annotations

import pytest

from engine.batch import Batch
from engine.board_rules import rules_of_points
from engine.commands import Command, Receipt, Rejection, UserReceipt
from engine.events import Incremented, UserPut
from engine.limits import SCORE_MAX
from engine.scoreboard import Scoreboard
from tests.engine.model import increment, perform, put, rows, told

POINTS = {"main": {"ACTION_COMPLETED": 10, "MOST": SCORE_MAX - 15}, "weekly": {"ACTION_COMPLETED": 1}}


def batch_of(scoreboard: Scoreboard, *submissions: list[Command]) -> Batch:
    batch = Batch(scoreboard, 1_000)
    for commands in submissions:
        batch.decide(commands)
    return batch


SUBMISSIONS: list[list[Command]] = [
    [increment("ann", "a1"), increment("ben", "b1")],
    [increment("ann", "a1"), increment("ann", "a2", board="weekly")],
    [increment("ben", "a1"), increment("ann", "a1", board="weekly"), increment("cid", "c1", "NOPE")],
    [put("ben", active=False), increment("ben", "b2"), increment("ben", "b1")],
    [put("ben", active=True), increment("ben", "b2"), put("ann", "Ann"), put("ann", "Ann")],
]


def test_several_calls_are_as_one() -> None:
    """The same events and the same outcomes, in order, as of one call; and the same state."""
    apart, together = Scoreboard(rules_of_points(POINTS)), Scoreboard(rules_of_points(POINTS))
    several = batch_of(apart, *SUBMISSIONS)
    whole = batch_of(together, [command for commands in SUBMISSIONS for command in commands])
    assert several.events == whole.events
    outcomes = several.settle()
    assert outcomes == whole.settle()
    assert [told(outcome)[0] for outcome in outcomes] == [
        "applied", "applied",
        "duplicate", "applied",
        "CONFLICT", "CONFLICT", "INVALID_REQUEST",
        "put", "INVALID_REQUEST", "duplicate",
        "put", "applied", "put", "unchanged",
    ]  # fmt: skip
    assert rows(apart.boards["main"]) == rows(together.boards["main"]) == [(1, "ben", 20), (2, "ann", 10)]


def test_nothing_is_changed_before_it_is_settled() -> None:
    """Whoever reads while the log is written sees the state before; the events are numbered already."""
    scoreboard = Scoreboard(rules_of_points(POINTS))
    perform(scoreboard, [increment("ann", "a0")])
    batch = batch_of(scoreboard, *SUBMISSIONS)
    assert [event.seq for event in batch.events] == list(range(2, 2 + len(batch.events)))
    assert (scoreboard.seq, rows(scoreboard.boards["main"])) == (1, [(1, "ann", 10)])
    assert len(scoreboard.users) == 0
    batch.settle()
    assert scoreboard.seq == batch.events[-1].seq


def test_a_repetition_of_an_earlier_call_has_its_seq_and_the_state_of_its_turn() -> None:
    """Answered as if the commands before it had been applied, and those after it had not."""
    scoreboard = Scoreboard(rules_of_points(POINTS))
    batch = batch_of(scoreboard, [increment("ann", "a1")], [increment("ann", "a1")], [increment("ann", "a2")])
    _, again, last = batch.settle()
    assert again == Receipt("ann", 10, 0, False, "a1", "main", 1, 1, 1, 1)
    assert told(last) == ("applied", 2, 20)


def test_a_conflict_names_the_action_that_is_only_begun() -> None:
    """Its seq is that of the event in the same batch, and nothing is logged for it."""
    scoreboard = Scoreboard(rules_of_points(POINTS))
    batch = batch_of(scoreboard, [increment("ann", "a1")], [increment("ben", "a1")])
    assert len(batch.events) == 1
    conflict = batch.settle()[1]
    assert isinstance(conflict, Rejection)
    assert (conflict.code, conflict.details["seq"]) == ("CONFLICT", 1)


def test_the_largest_score_is_minded_over_several_calls() -> None:
    """The third would pass it only with the two before, which are not applied yet; on another board it may."""
    scoreboard = Scoreboard(rules_of_points(POINTS))
    batch = batch_of(
        scoreboard,
        [increment("ann", "a1", "MOST")],
        [increment("ann", "a2")],
        [increment("ann", "a3"), increment("ann", "a4", board="weekly"), increment("ben", "b1")],
    )
    assert [told(outcome)[0] for outcome in batch.settle()] == [
        "applied", "applied", "INVALID_REQUEST", "applied", "applied",
    ]  # fmt: skip
    assert scoreboard.boards["main"].score("ann") == SCORE_MAX - 5


@pytest.mark.parametrize("require_registered", [False, True])
@pytest.mark.parametrize("known_before", [False, True])
def test_users_matter_from_the_command_on_that_makes_them(require_registered: bool, known_before: bool) -> None:
    """Before the first user is put nobody is looked up, unless all must be registered; afterwards everybody is."""
    scoreboard = Scoreboard(rules_of_points(POINTS, require_registered=require_registered))
    if known_before:
        perform(scoreboard, [put("ann", active=False)])
    batch = batch_of(
        scoreboard,
        [increment("ann", "a1"), increment("ben", "b1")],
        [put("ann", active=False), increment("ann", "a2"), increment("ben", "b2")],
        [put("ann", active=True), increment("ann", "a3")],
    )
    refused, unregistered = "INVALID_REQUEST", "INVALID_REQUEST" if require_registered else "applied"
    outcomes = batch.settle()
    assert [told(outcome)[0] for outcome in outcomes] == [
        refused if known_before else unregistered, unregistered,
        "unchanged" if known_before else "put", refused, unregistered,
        "put", "applied",
    ]  # fmt: skip
    assert isinstance(outcomes[5], UserReceipt)
    assert outcomes[5].active


def test_the_time_of_a_batch_is_not_before_the_last_event() -> None:
    """A clock that was set back gives the time of the event before; increments and users alike."""
    scoreboard = Scoreboard(rules_of_points(POINTS))
    perform(scoreboard, [increment("ann", "a1")], now_ms=5_000)
    batch = batch_of(scoreboard, [increment("ann", "a2")], [put("ann", "Ann")])
    assert [(type(event), event.time_ms) for event in batch.events] == [(Incremented, 5_000), (UserPut, 5_000)]
