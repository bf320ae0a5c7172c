"""What is known of following: nothing is made up before the leader was heard, and what was once caught up stays so."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from engine.events import UserPut
from engine.scoreboard import Scoreboard
from server.replication.messages import Welcome
from server.replication.progress import FollowerStatus, FollowingState, Progress
from snapshots.promotion import Successor
from tests.snapshots.directories import RULES

NOW_MS = 1_765_000_000_000


def scoreboard_at(seq: int) -> Scoreboard:
    """A state that has come to a seq."""
    scoreboard = Scoreboard(RULES)
    advance(scoreboard, seq)
    return scoreboard


def advance(scoreboard: Scoreboard, seq: int) -> None:
    """Apply events up to a seq."""
    for number in range(scoreboard.seq + 1, seq + 1):
        scoreboard.apply(UserPut(number, number, f"user-{number}", None, True, "backend"), 1)


def welcome_of(seq: int, public_url: str | None = "https://public") -> Welcome:
    """The first word of a leader that has come to a seq."""
    return Welcome("00" * 16, 1, seq, 1.0, "node", public_url)


def progress_of(scoreboard: Scoreboard) -> Progress:
    """The progress of a follower that has done nothing yet."""
    return Progress(scoreboard, lambda: NOW_MS)


async def test_before_the_leader_was_heard_nothing_is_known_of_it() -> None:
    """Only our own position is."""
    status = progress_of(scoreboard_at(3)).status()
    assert (status.state, status.epoch, status.seq, status.caught_up_once) == ("connecting", 1, 3, False)
    assert (status.leader_epoch, status.heard_age_s) == (None, None)
    assert (status.lag_records, status.lag_ms, status.connected_since_ms) == (None, None, None)
    assert (status.node_name, status.public_url) == ("", None)


async def test_a_leader_that_was_heard_is_so_old(autojump_clock: trio.testing.MockClock) -> None:
    """The records that are missing, for how long, and how long ago it was heard last."""
    progress = progress_of(scoreboard_at(3))
    progress.welcomed(welcome_of(5))
    progress.heard(1, 5)
    await trio.sleep(2.0)
    progress.heard(1, 5)
    await trio.sleep(1.0)
    status = progress.status()
    assert (status.leader_epoch, status.heard_age_s) == (1, 1.0)
    assert (status.lag_records, status.lag_ms, status.connected_since_ms) == (2, 3000, NOW_MS)
    assert (status.node_name, status.public_url) == ("node", "https://public")


async def test_a_status_sees_what_is_applied_in_the_middle_of_a_row() -> None:
    """Nobody has told of it yet."""
    scoreboard = scoreboard_at(3)
    progress = progress_of(scoreboard)
    progress.heard(1, 5)
    advance(scoreboard, 4)
    assert progress.status().lag_records == 1
    advance(scoreboard, 5)
    assert (progress.status().lag_records, progress.status().lag_ms) == (0, 0)


async def test_it_has_caught_up_with_what_the_leader_had_at_the_welcome() -> None:
    """Not with what was written since: under load there is always more."""
    scoreboard = scoreboard_at(3)
    progress = progress_of(scoreboard)
    progress.welcomed(welcome_of(5))
    progress.become("catching_up", "")
    progress.heard(1, 9)
    advance(scoreboard, 4)
    assert not progress.applied()
    advance(scoreboard, 5)
    assert progress.applied()
    assert progress.caught_up_once


@pytest.mark.parametrize("state", ["connecting", "bootstrapping", "disconnected", "following"])
async def test_it_catches_up_on_a_link_only(state: FollowingState) -> None:
    """And once: what follows is no news."""
    progress = progress_of(scoreboard_at(5))
    progress.welcomed(welcome_of(5))
    progress.become(state, "")
    assert not progress.applied()


async def test_before_a_welcome_nothing_is_caught_up_with() -> None:
    """A replica that has more than nothing does not know how much the leader has."""
    progress = progress_of(scoreboard_at(5))
    progress.become("catching_up", "")
    assert not progress.applied()
    assert not progress.caught_up_once


async def test_what_was_once_caught_up_stays_so() -> None:
    """A replica that loses its link has what it had."""
    progress = progress_of(scoreboard_at(5))
    progress.welcomed(welcome_of(5))
    progress.become("catching_up", "")
    assert progress.applied()
    progress.disconnected()
    states: list[FollowingState] = ["disconnected", "connecting", "bootstrapping"]
    for state in states:
        progress.become(state, "gone")
        assert progress.status().caught_up_once
    assert progress.status().connected_since_ms is None


async def test_another_leader_is_measured_anew() -> None:
    """What the one before claimed may not be in its log."""
    progress = progress_of(scoreboard_at(5))
    progress.heard(1, 99)
    progress.welcomed(welcome_of(6, None))
    status = progress.status()
    assert (status.lag_records, status.public_url) == (None, None)
    progress.heard(1, 6)
    assert progress.status().lag_records == 1


async def test_an_epoch_that_began_elsewhere_is_remembered_if_it_is_higher() -> None:
    """A promotion here begins one above it; hearing of it is not hearing the leader."""
    progress = progress_of(scoreboard_at(0))
    for epoch, known in ((3, 3), (2, 3), (5, 5)):
        progress.heard_of(Successor(epoch))
        assert progress.leader_epoch == known
    assert progress.status().heard_age_s is None


async def test_a_change_is_one_of_state_or_reason() -> None:
    """The same again is none, so nobody is told of it twice."""
    progress = progress_of(scoreboard_at(0))
    changes = [
        progress.become("connecting", ""),
        progress.become("disconnected", "can't connect"),
        progress.become("disconnected", "can't connect"),
        progress.become("disconnected", "refused"),
    ]
    assert changes == [False, True, False, True]
    assert (progress.status().state, progress.status().reason) == ("disconnected", "refused")


async def test_who_waits_looks_again_at_each_change() -> None:
    """At a state and at what is applied; and goes on once it is true."""
    scoreboard = scoreboard_at(0)
    progress = progress_of(scoreboard)
    seen: list[FollowerStatus] = []

    def look(status: FollowerStatus) -> bool:
        seen.append(status)
        return status.seq == 2

    async with trio.open_nursery() as nursery:
        nursery.start_soon(progress.wait_until, look)
        await trio.testing.wait_all_tasks_blocked()
        progress.become("bootstrapping", "")
        await trio.testing.wait_all_tasks_blocked()
        advance(scoreboard, 2)
        progress.applied()
    states = [(status.state, status.seq) for status in seen]
    assert states == [("connecting", 0), ("bootstrapping", 0), ("bootstrapping", 2)]


async def test_what_is_true_already_is_not_waited_for() -> None:
    """The status that was looked at is given."""
    status = await progress_of(scoreboard_at(4)).wait_until(lambda status: status.seq == 4)
    assert status.seq == 4
