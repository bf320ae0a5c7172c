"""A scoreboard that follows a part of the log: its boards and the users are those of one that has everything."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.batch import Batch
from engine.board_rules import BoardRules, Rules, rules_of_points
from engine.commands import Command, Increment, PutBoard, PutUser
from engine.events import BoardPut, EpochBegun, Event, Incremented, UserPut
from engine.scoreboard import Scoreboard

RULES = rules_of_points({"a": {"WON": 10}, "b": {"WON": 1}})

commands = st.lists(
    st.one_of(
        st.builds(
            lambda user, board, n: Increment(f"user-{user}", f"action-{n}", "WON", board, "backend"),
            st.integers(0, 5),
            st.sampled_from("ab"),
            st.integers(0, 10**6),
        ),
        st.builds(
            lambda user, name, active: PutUser(f"user-{user}", name, active, "backend"),
            st.integers(0, 5),
            st.sampled_from(["Ann", "Bob", None]),
            st.booleans(),
        ),
    ),
    max_size=40,
)


def played(row: list[Command], boards: Sequence[PutBoard] = ()) -> tuple[Scoreboard, list[Event]]:
    """Perform the boards as one submission, and then each command as one."""
    whole = Scoreboard(Rules({}) if boards else RULES)
    events: list[Event] = []
    for submission in [list(boards)] * bool(boards) + [[command] for command in row]:
        batch = Batch(whole, 1000 * (whole.seq + 1))
        batch.decide(submission)
        batch.settle()
        events += batch.events
    return whole, events


@given(commands)
def test_the_boards_that_are_held_are_those_of_the_whole(row: list[Command]) -> None:
    """And so are the users; actions are not indexed at all."""
    whole, events = played(row)
    part = Scoreboard(RULES)
    for event in events:
        if isinstance(event, Incremented) and event.board_id == "b":
            part.advance(event.seq, event.time_ms)
        else:
            part.follow(event, 1, "a".__eq__)
        part._check()
    assert (part.seq, part.time_ms, part.epoch) == (whole.seq, whole.time_ms, whole.epoch)
    assert part.boards["a"].capture() == whole.boards["a"].capture()
    assert part.users.capture() == whole.users.capture()
    assert (len(part.actions), len(part.boards["b"])) == (0, 0)


def boards_of(event: Event) -> set[str]:
    """The boards that an event is about."""
    assert isinstance(event, Incremented | BoardPut)
    fed = event.fed if isinstance(event, Incremented) else ()
    return {event.board_id, *(each.board_id for each in fed)}


@given(commands, st.sampled_from(["a", "b", "ab"]))
def test_boards_that_are_fed_are_those_of_the_whole(row: list[Command], held: str) -> None:
    """An action of a board that is not held counts on the held board that it feeds, and on no other."""
    boards = [
        PutBoard("b", BoardRules({"WON": 1}, score="count", ranks="dense"), "configuration"),
        PutBoard("a", BoardRules({"WON": 10}, feeds=("b",)), "configuration"),
    ]
    whole, events = played(row, boards)
    part = Scoreboard(Rules({}))
    for event in events:
        if isinstance(event, UserPut) or boards_of(event) & set(held):
            part.follow(event, 1, held.__contains__)
        else:
            part.advance(event.seq, event.time_ms)
        part._check()
    assert part.served() == sorted(held)
    for board_id in held:
        assert part.boards[board_id].capture() == whole.boards[board_id].capture()
        assert part.boards[board_id].top(9) == whole.boards[board_id].top(9)


def test_an_epoch_that_begins_is_followed_over_a_gap() -> None:
    """The events before it were for other boards."""
    part = Scoreboard(RULES)
    part.follow(EpochBegun(5, 1000, 2, "promoted"), 2, "a".__eq__)
    assert (part.epoch, part.seq, part.epoch_of(4), part.epoch_of(5)) == (2, 5, 1, 2)
    assert part.epoch_after(1) == (5, 2)
    assert part.epoch_after(0) == (1, 1)
    assert part.epoch_after(2) is None


def test_what_was_passed_does_not_come_again() -> None:
    """A seq that was passed over, or followed, is the past."""
    part = Scoreboard(RULES)
    part.advance(5, 1000)
    with pytest.raises(AssertionError):
        part.follow(EpochBegun(5, 1000, 2, "late"), 2, "a".__eq__)
    with pytest.raises(AssertionError):
        part.advance(4, 1000)


def test_a_scoreboard_becomes_another_for_all_who_read_it() -> None:
    """What a replica that fell too far behind does with the state of a snapshot."""
    whole, _ = played([Increment("user", "action", "WON", "a", "backend"), PutUser("user", "Ann", True, "backend")])
    image = whole.capture()
    reader = Scoreboard(RULES)
    other = Scoreboard.from_image(RULES, image)
    other.end_replay()
    reader.take_over(other)
    reader._check()
    assert reader.capture() == image
    assert [row.user_id for row in reader.boards["a"].top(5)] == ["user"]
