"""Commands about boards themselves: what changes nothing, what is refused, and what the events do."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from msgspec.structs import replace

from engine.batch import Batch
from engine.board_rules import BoardDefinition, BoardRules, Range, Rules, rules_of_points
from engine.commands import (
    BoardCommand,
    BoardReceipt,
    CloseBoard,
    Command,
    Increment,
    Outcome,
    PutBoard,
    Receipt,
    Rejection,
)
from engine.event_records import decode_events, encode_events
from engine.events import BoardClosed, BoardPut, EpochBegun
from engine.scoreboard import Scoreboard
from snapshots.digests import state_digest
from tests.engine.model import increment, perform, put, rows

MS = 1_765_800_896_000
RULES = BoardRules({"ACTION_COMPLETED": 10})


def do(scoreboard: Scoreboard, *commands: BoardCommand) -> list[Outcome]:
    """Perform commands about boards as one submission."""
    outcomes = perform(scoreboard, list(commands), MS)
    scoreboard._check()
    return outcomes


def refusal(outcome: Outcome, code: str) -> Rejection:
    """The outcome, which must be a refusal of this kind."""
    assert isinstance(outcome, Rejection)
    assert outcome.code == code
    return outcome


def with_main(rules: BoardRules = RULES, scores: int = 1) -> Scoreboard:
    """A scoreboard whose board `main` is an event, with some scores."""
    scoreboard = Scoreboard(Rules({}))
    do(scoreboard, PutBoard("main", rules, "ops"))
    for number in range(scores):
        [done] = perform(scoreboard, [increment(f"user{number}", f"a{number}")], MS)
        assert isinstance(done, Receipt)
    return scoreboard


def test_a_board_is_made_by_its_event() -> None:
    """The event has all its rules, and the empty board has its seq."""
    scoreboard = Scoreboard(Rules({}))
    batch = Batch(scoreboard, MS)
    rules = BoardRules({"LAP": Range(1, 9)}, "Laps", score="best", order="ascending", ranks="dense", keep_periods=3)
    batch.decide([PutBoard("laps", rules, "ops")])
    assert batch.events == [BoardPut(1, MS, "laps", rules, "ops")]
    assert scoreboard.board("laps") is None
    assert batch.settle() == [BoardReceipt("laps", True, 1, 1)]
    board = scoreboard.boards["laps"]
    assert (board.definition, board.is_logged, board.seq) == (BoardDefinition(rules, begun_ms=MS), True, 1)
    assert scoreboard.served() == ["laps"]


def test_a_put_of_the_same_rules_changes_nothing() -> None:
    """It may be sent again: the answer has the seq and the epoch of the board, and there is no event."""
    scoreboard = with_main(scores=2)
    scoreboard.apply(EpochBegun(4, MS, 2, "promoted"), 2)
    batch = Batch(scoreboard, MS)
    batch.decide([PutBoard("main", BoardRules({"ACTION_COMPLETED": 10}), "someone else")])
    assert batch.events == []
    assert batch.settle() == [BoardReceipt("main", False, 1, 3)]
    assert scoreboard.seq == 4


def test_a_put_replaces_all_rules() -> None:
    """Scores stay, and actions count by the new rules from the next command on. What a PUT leaves out is a default."""
    scoreboard = with_main(BoardRules({"ACTION_COMPLETED": 10}, "The title", ranks="shared"))
    assert do(scoreboard, PutBoard("main", BoardRules({"WIN": 3}), "ops")) == [BoardReceipt("main", True, 1, 3)]
    perform(scoreboard, [increment("user0", "b1", "WIN")], MS)
    assert rows(scoreboard.boards["main"]) == [(1, "user0", 13)]
    assert scoreboard.boards["main"].definition == BoardDefinition(BoardRules({"WIN": 3}), begun_ms=MS)
    [refused] = perform(scoreboard, [increment("user0", "b2")], MS)
    assert refusal(refused, "INVALID_REQUEST").details == {"field": "reason", "allowed": ["WIN"]}


@pytest.mark.parametrize(
    ("field", "changed", "then", "now"),
    [
        ("score", BoardRules({"ACTION_COMPLETED": 10}, score="best"), "sum", "best"),
        ("score", BoardRules({"ACTION_COMPLETED": 10}, score="count", order="ascending"), "sum", "count"),
        ("order", BoardRules({"ACTION_COMPLETED": 10}, order="ascending"), "descending", "ascending"),
    ],
)
def test_how_scores_grow_and_which_is_better_stays_while_there_are_scores(
    field: Literal["score", "order"], changed: BoardRules, then: str, now: str
) -> None:
    """CONFLICT with the field, also if all users are hidden. A board without scores takes the change."""
    scoreboard = with_main()
    for _ in range(2):
        [refused] = do(scoreboard, PutBoard("main", changed, "ops"))
        assert refusal(refused, "CONFLICT").details == {"field": field, "boardId": "main"}
        assert f"{field} can't become {now!r}" in refusal(refused, "CONFLICT").message
        assert f"counted by {then!r}" in refusal(refused, "CONFLICT").message
        assert scoreboard.boards["main"].definition == BoardDefinition(RULES, begun_ms=MS)
        perform(scoreboard, [put("user0", active=False)], MS)
    empty = with_main(scores=0)
    assert do(empty, PutBoard("main", changed, "ops")) == [BoardReceipt("main", True, 1, 2)]
    perform(empty, [increment("ann", "a1"), increment("ben", "b1")], MS)
    empty._check()


def test_the_scores_of_an_old_log_were_counted_by_the_old_rules() -> None:
    """No event defines the board yet; its scores are sums, and the highest is the best."""
    scoreboard = Scoreboard(rules_of_points({"main": {"ACTION_COMPLETED": 10}}))
    perform(scoreboard, [increment("ann", "a1")], MS)
    [refused] = do(scoreboard, PutBoard("main", replace(RULES, order="ascending"), "ops"))
    assert refusal(refused, "CONFLICT").details["field"] == "order"
    assert do(scoreboard, PutBoard("main", RULES, "ops")) == [BoardReceipt("main", True, 1, 2)]
    assert scoreboard.boards["main"].is_logged
    assert rows(scoreboard.boards["main"]) == [(1, "ann", 10)]


def test_a_closed_board_stays_closed() -> None:
    """It can be read; actions and new rules are refused, and closing it once more changes nothing."""
    scoreboard = with_main()
    batch = Batch(scoreboard, MS)
    batch.decide([CloseBoard("main", "ops")])
    assert batch.events == [BoardClosed(3, MS, "main", "ops")]
    assert batch.settle() == [BoardReceipt("main", True, 1, 3)]
    assert do(scoreboard, CloseBoard("main", "ops")) == [BoardReceipt("main", False, 1, 3)]
    for rules in (RULES, BoardRules({"WIN": 3})):
        [refused] = do(scoreboard, PutBoard("main", rules, "ops"))
        assert refusal(refused, "BOARD_CLOSED").details == {"field": "boardId", "boardId": "main"}
    [refused] = perform(scoreboard, [increment("user0", "a9")], MS)
    refusal(refused, "BOARD_CLOSED")
    [again] = perform(scoreboard, [increment("user0", "a0")], MS)
    assert isinstance(again, Receipt)
    assert not again.applied
    assert rows(scoreboard.boards["main"]) == [(1, "user0", 10)]
    assert scoreboard.served() == ["main"]


def test_a_board_that_is_unknown_can_not_be_closed() -> None:
    """Nor one that only events name, nor one that only the operator's file has: no event made them."""
    scoreboard = Scoreboard(rules_of_points({"main": {"ACTION_COMPLETED": 10}}))
    for board_id in ("nowhere", "main"):
        [refused] = do(scoreboard, CloseBoard(board_id, "ops"))
        assert refusal(refused, "NOT_FOUND").details == {"boardId": board_id}
    assert scoreboard.seq == 0


def test_feeds_must_name_known_boards() -> None:
    """All boards of the same submission count as known, in any order; none of a later one does."""
    scoreboard = with_main()
    feeding = BoardRules({"ACTION_COMPLETED": 1}, feeds=("main", "year"))
    [refused] = do(scoreboard, PutBoard("cup", feeding, "ops"))
    assert refusal(refused, "INVALID_REQUEST").details == {"field": "feeds", "allowed": ["cup", "main"]}
    assert "feeds names an unknown board: 'year'" in refusal(refused, "INVALID_REQUEST").message
    assert scoreboard.seq == 2
    done = do(scoreboard, PutBoard("cup", feeding, "ops"), PutBoard("year", RULES, "ops"))
    assert done == [BoardReceipt("cup", True, 1, 3), BoardReceipt("year", True, 1, 4)]
    perform(scoreboard, [Increment("user0", "c1", "ACTION_COMPLETED", "cup", "tests")], MS)
    assert rows(scoreboard.boards["main"]) == [(1, "user0", 20)]


def test_a_board_of_the_file_counts_only_until_the_log_defines_one() -> None:
    """With the first board in the log the others of the file have no rules; their scores are kept, and not served."""
    scoreboard = Scoreboard(rules_of_points({"main": {"ACTION_COMPLETED": 10}, "empty": {"ACTION_COMPLETED": 1}}))
    perform(scoreboard, [increment("ann", "a1")], MS)
    assert scoreboard.served() == ["empty", "main"]
    batch = Batch(scoreboard, MS)
    batch.decide([PutBoard("cup", RULES, "configuration")])
    assert (batch.events, scoreboard.unwritten()) == ([], {"empty", "main"})
    scoreboard.apply(BoardPut(2, MS, "cup", RULES, "another version"), 1)
    scoreboard._check()
    assert scoreboard.served() == ["cup"]
    assert scoreboard.unwritten() == set()
    assert scoreboard.boards["main"].definition is scoreboard.boards["empty"].definition is None
    assert scoreboard.boards["main"].score("ann") == 10
    [refused] = perform(scoreboard, [increment("ann", "a2")], MS)
    assert refusal(refused, "INVALID_REQUEST").details == {"field": "boardId", "allowed": ["cup"]}
    do(scoreboard, PutBoard("main", RULES, "ops"))
    assert rows(scoreboard.boards["main"]) == [(1, "ann", 10)]


def test_no_board_is_put_before_those_of_the_file() -> None:
    """CONFLICT, and nothing is written: the first event would take the rules of the file away. Together they pass."""
    file = {"main": {"ACTION_COMPLETED": 10}, "year": {"ACTION_COMPLETED": 1}}
    scoreboard = Scoreboard(rules_of_points(file))
    for board_id, waiting in (("cup", "main, year"), ("main", "year")):
        [refused] = do(scoreboard, PutBoard(board_id, RULES, "ops"))
        assert refusal(refused, "CONFLICT").details == {"field": "boardId", "boardId": board_id}
        assert f"not in the log yet ({waiting})" in refusal(refused, "CONFLICT").message
    assert (scoreboard.seq, scoreboard.served()) == (0, ["main", "year"])
    done = do(scoreboard, *(PutBoard(board_id, RULES, "configuration") for board_id in ("year", "main")))
    assert done == [BoardReceipt("year", True, 1, 1), BoardReceipt("main", True, 1, 2)]
    assert do(scoreboard, PutBoard("cup", RULES, "ops")) == [BoardReceipt("cup", True, 1, 3)]


@pytest.mark.parametrize("through_image", [True, False])
def test_definitions_are_the_same_after_a_restart(through_image: bool) -> None:
    """From a snapshot and from the log alike; what the file says of them does not matter any more."""
    story = [PutBoard("main", RULES, "ops"), PutBoard("cup", replace(RULES, feeds=("main",)), "ops")]
    scoreboard = Scoreboard(Rules({}))
    do(scoreboard, *story)
    do(scoreboard, CloseBoard("main", "ops"))
    file = rules_of_points({"main": {"OTHER": 1}, "more": {"OTHER": 1}})
    if through_image:
        again = Scoreboard.from_image(file, scoreboard.capture())
    else:
        again = Scoreboard(file)
        again.begin_replay()
        for seq, command in enumerate(story, 1):
            again.apply(BoardPut(seq, MS, command.board_id, command.rules, "ops"), 1)
        again.apply(BoardClosed(3, MS, "main", "ops"), 1)
    again.end_replay()
    again._check()
    assert again.capture() == scoreboard.capture()
    assert again.served() == ["cup", "main"]
    assert again.boards["main"].definition == BoardDefinition(RULES, begun_ms=MS, closed=True)


def test_rules_that_name_defaults_give_the_state_of_a_replay() -> None:
    """A request names a default in a text of its own. A replica, which reads it from the log, has the same bytes."""
    named = {"score": "".join(["su", "m"]), "order": "".join(["desc", "ending"]), "ranks": "".join(["uni", "que"])}
    scoreboard = Scoreboard(Rules({}))
    batch = Batch(scoreboard, MS)
    batch.decide([PutBoard("main", BoardRules({"ACTION_COMPLETED": 10}, **named), "ops")])  # type: ignore[arg-type]
    replica = Scoreboard(Rules({}))
    for event in decode_events(encode_events(batch.events), 1, MS, [1]):
        replica.apply(event, 1)
    batch.settle()
    assert state_digest(scoreboard.capture()) == state_digest(replica.capture())


@pytest.mark.parametrize("more", [{"score": "best"}, {"order": "ascending"}, {"feeds": ("main",)}])
def test_a_board_of_the_file_counts_only_by_plain_sums_until_the_log_has_it(more: dict[str, Any]) -> None:
    """Else the log could not say by which rules it counted, and would refuse those of the file for ever."""
    rules = Rules({"main": BoardRules({"WIN": 1}), "cup": BoardRules({"WIN": 1}, **more)})
    scoreboard = Scoreboard(rules)
    actions: list[Command] = [Increment("ann", board_id, "WIN", board_id, "backend") for board_id in ("main", "cup")]
    plain, waits = perform(scoreboard, actions, MS)
    assert isinstance(plain, Receipt)
    assert isinstance(waits, Rejection)
    assert (waits.code, "not in the log yet" in waits.message) == ("BOARD_NOT_OPEN", True)
    do(scoreboard, *(PutBoard(board_id, each, "configuration") for board_id, each in rules.boards.items()))
    [counted] = perform(scoreboard, actions[1:], MS)
    assert isinstance(counted, Receipt)
