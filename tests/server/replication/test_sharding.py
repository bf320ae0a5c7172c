"""The shards of boards: they never change, each board is in one shard, and errors are clear."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.board_rules import BoardRules
from engine.events import BoardClosed, BoardPut, EpochBegun, Fed, Incremented, UserPut
from server.replication.sharding import Shard, parse_shard, shard_of


@pytest.mark.parametrize(
    ("board_id", "shards"),
    [
        ("main", {1: 1, 2: 2, 4: 2, 1024: 826}),
        ("weekly", {1: 1, 2: 2, 4: 2, 1024: 614}),
        ("Größe", {1: 1, 2: 1, 4: 3, 1024: 235}),
    ],
)
def test_a_board_has_the_shard_that_it_always_had(board_id: str, shards: dict[int, int]) -> None:
    """Gateways route by it, so these never change. Another program computed them bit by bit."""
    assert {count: shard_of(board_id, count) for count in shards} == shards


@given(st.text(min_size=1, max_size=30), st.integers(1, 1024))
def test_each_board_is_in_exactly_one_shard(board_id: str, count: int) -> None:
    """Its number is from 1 to N."""
    assert 1 <= shard_of(board_id, count) <= count
    if count <= 8:
        holders = [number for number in range(1, count + 1) if Shard(number, count).holds(board_id)]
        assert holders == [shard_of(board_id, count)]


def test_users_and_epochs_are_for_every_shard() -> None:
    """A shard needs only the increments of its own boards, and all other events."""
    shard = Shard(3 - shard_of("main", 2), 2)
    assert not shard.wants(Incremented(1, 1, "main", "user", "action", 1, "WON", "backend", 1))
    assert shard.wants(UserPut(1, 1, "user", "Ann", True, "backend"))
    assert shard.wants(EpochBegun(1, 1, 2, "promoted"))


def test_an_action_is_for_the_shards_of_all_boards_on_which_it_counts() -> None:
    """Its own board and those that it feeds; a board's own events are for its shard."""
    count = 1024
    fed = (Fed("weekly", 1, 1, 1), Fed("Größe", 1, 1, 1))
    event = Incremented(1, 1, "main", "user", "action", 1, "WON", "backend", 1, fed=fed)
    holders = {shard_of(board_id, count) for board_id in ("main", "weekly", "Größe")}
    assert {number for number in range(1, count + 1) if Shard(number, count).wants(event)} == holders
    for board_event in (
        BoardPut(1, 1, "main", BoardRules({"WON": 1}), "configuration"),
        BoardClosed(1, 1, "main", "backend"),
    ):
        assert Shard(shard_of("main", count), count).wants(board_event)


def test_a_shard_is_read_and_written_alike() -> None:
    """As K/N."""
    assert parse_shard("2/4") == Shard(2, 4)
    assert str(Shard(2, 4)) == "2/4"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "K/N"),
        ("2", "K/N"),
        ("2/4/1", "K/N"),
        ("a/4", "K/N"),
        ("-1/4", "K/N"),
        (" 2/4", "K/N"),
        ("0/4", "no shard 0"),
        ("5/4", "no shard 5"),
        ("1/0", "not 0"),
        ("1/1025", "not 1025"),
    ],
)
def test_what_is_no_shard_is_said_clearly(text: str, says: str) -> None:
    """The error says what is wrong."""
    with pytest.raises(ValueError, match=says):
        parse_shard(text)
