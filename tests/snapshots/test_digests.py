"""Digests of a state, part by part: two nodes tell whether they hold the same, and what differs."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from engine.batch import Batch
from engine.board_rules import rules_of_points
from engine.commands import Increment, PutUser
from engine.scoreboard import Scoreboard
from snapshots.digests import difference, digests_of
from snapshots.format import file_digest, footer_digest, pack, unpack
from tests.snapshots.directories import Leader
from tests.snapshots.images import Bytes


@pytest.fixture
def leader(tmp_path: Path) -> Leader:
    leader = Leader(tmp_path / "data")
    leader.play(30)
    return leader


def test_equal_states_have_equal_digests_also_when_one_was_restored(leader: Leader) -> None:
    """A snapshot holds the state, so what is made from it has the same digests."""
    image = leader.scoreboard.capture()
    again, _ = unpack(Bytes(b"".join(pack(image, leader.tail))), "a snapshot")
    assert digests_of(again) == digests_of(image)
    assert digests_of(image).whole == file_digest(image)
    assert difference(digests_of(again), digests_of(image)) is None


@pytest.mark.parametrize(
    ("what", "command"),
    [
        ("the board 'main'", Increment("user-1", "one more", "ACTION_COMPLETED", "main", "backend")),
        ("the registered users", PutUser("somebody new", "New", True, "backend")),
    ],
)
def test_what_differs_is_named(leader: Leader, what: str, command: Increment | PutUser) -> None:
    """So that an operator knows where to look."""
    leader.write([PutUser("user-1", "Active", True, "backend")])
    before = digests_of(leader.scoreboard.capture())
    leader.write([command])
    assert difference(before, digests_of(leader.scoreboard.capture())) == what


def test_actions_and_the_whole_count_too(leader: Leader) -> None:
    """Two states may differ in what no board shows."""
    digests = digests_of(leader.scoreboard.capture())
    actions = msgspec.structs.replace(digests, actions="other")
    assert difference(actions, digests) == "the applied actions"
    whole = msgspec.structs.replace(digests, whole="other")
    assert difference(whole, digests) == "the state as a whole"


def test_one_who_holds_some_boards_compares_these(leader: Leader) -> None:
    """Its board is the same although its state as a whole is another; a wrong or missing board is found."""
    image = leader.scoreboard.capture()
    theirs = digests_of(image)

    def holds(board_id: str) -> bool:
        return board_id == "weekly"

    part, tail = unpack(Bytes(b"".join(pack(image, leader.tail))), "a snapshot", holds)
    assert tail == leader.tail
    assert [board.board_id for board in part.boards] == ["weekly"]
    assert part.actions.count == len(part.actions.seqs) == 0
    ours = digests_of(part)
    assert ours.whole != theirs.whole
    assert difference(ours, theirs, holds) is None
    assert difference(ours, theirs) is not None
    assert difference(msgspec.structs.replace(ours, boards={}), theirs, holds) == "the board 'weekly'"
    more = msgspec.structs.replace(ours, boards={**ours.boards, "main": "x"})
    assert difference(more, theirs, holds) == "the board 'main'"


def test_a_digest_does_not_hang_on_the_other_boards() -> None:
    """Where a board's chunks stand in a file depends on the boards before it; its digest must not."""
    rules = rules_of_points({"a": {"WON": 1}, "b": {"WON": 1}})
    both, one = Scoreboard(rules), Scoreboard(rules)
    for board in "ab":
        batch = Batch(both, 1000)
        batch.decide([Increment("user", f"action-{board}", "WON", board, "backend")])
        batch.settle()
        if board == "b":
            one.follow(batch.events[0], 1, "b".__eq__)
    assert digests_of(one.capture()).boards["b"] == digests_of(both.capture()).boards["b"]


def test_the_end_of_a_file_names_its_content(leader: Leader) -> None:
    """The digest in the footer is that of the state."""
    image = leader.scoreboard.capture()
    assert footer_digest(Bytes(b"".join(pack(image, leader.tail)))).hex() == file_digest(image)
