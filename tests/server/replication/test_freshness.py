"""How old what a node serves is: its lag, the age of what is stale, and the reasons for which it is not ready."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from engine.scoreboard import Scoreboard
from server.replication.freshness import Freshness, LagFigures
from server.replication.progress import Progress
from server.role import CurrentRole, Role, State
from snapshots.promotion import Successor
from tests.server.replication.test_progress import scoreboard_at, welcome_of

EVENT_MS = 5
"""The time of the last event of `scoreboard_at(5)`."""

READY_AGE_S = 30.0


class Node:
    """A replica that has five events, and what is known of its freshness. `clock_ms` is ten seconds after the last."""

    def __init__(self, role: Role, scoreboard: Scoreboard | None = None) -> None:
        scoreboard = scoreboard or scoreboard_at(5)
        self.role = CurrentRole(role, trio.current_time)
        self.progress = Progress(scoreboard, self.clock_ms)
        self.freshness = Freshness(
            self.role, scoreboard, self.clock_ms, progress=self.progress, ready_age_s=READY_AGE_S
        )

    def clock_ms(self) -> int:
        """Wall-clock time."""
        return EVENT_MS + 10_000

    def catch_up(self, seq: int = 5) -> None:
        """Come to have all of a leader."""
        self.progress.welcomed(welcome_of(seq))
        self.progress.heard(1, seq)
        self.progress.caught_up_once = True


async def test_a_leader_has_no_lag_and_is_ready() -> None:
    """It is as new as can be."""
    role = CurrentRole(Role(State.LEADING), trio.current_time)
    freshness = Freshness(role, scoreboard_at(5), lambda: 0)
    assert (freshness.lag(), freshness.stale_ms(), freshness.not_ready()) == (None, None, None)


async def test_a_deposed_leader_is_as_old_as_its_deposition(autojump_clock: trio.testing.MockClock) -> None:
    """And never ready again."""
    role = CurrentRole(Role(State.LEADING), trio.current_time)
    freshness = Freshness(role, scoreboard_at(5), lambda: 0)
    await trio.sleep(5.0)
    role.become(State.DEPOSED, successor=Successor(3))
    await trio.sleep(2.0)
    assert (freshness.lag(), freshness.stale_ms()) == (None, 2000)
    assert freshness.not_ready() == "epoch 3 began elsewhere; this node is no longer the leader"


async def test_before_the_leader_was_heard_the_state_is_as_old_as_its_last_event(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The records are unknown. What is stale is at least as old as the start."""
    node = Node(Role(State.STALE))
    await trio.sleep(4.0)
    assert node.freshness.lag() == LagFigures(None, 10_000, 4000, connected=False)
    assert node.freshness.stale_ms() == 10_000
    await trio.sleep(8.0)
    assert node.freshness.stale_ms() == 12_000


async def test_without_any_event_no_age_is_made_up(autojump_clock: trio.testing.MockClock) -> None:
    """What is stale is as old as the start then."""
    node = Node(Role(State.STALE), scoreboard_at(0))
    await trio.sleep(4.0)
    assert node.freshness.lag() == LagFigures(None, None, 4000, connected=False)
    assert node.freshness.stale_ms() == 4000


async def test_a_replica_that_follows_is_behind_by_what_it_knows(autojump_clock: trio.testing.MockClock) -> None:
    """Its answers are not stale for that."""
    node = Node(Role(State.FOLLOWING))
    node.catch_up(seq=7)
    await trio.sleep(2.0)
    assert node.freshness.lag() == LagFigures(2, 2000, 2000, connected=True)
    assert node.freshness.stale_ms() is None


async def test_a_stale_replica_is_as_old_as_the_last_word_of_its_leader(autojump_clock: trio.testing.MockClock) -> None:
    """However young the last event is."""
    node = Node(Role(State.STALE))
    node.catch_up()
    node.progress.disconnected()
    await trio.sleep(7.0)
    assert node.freshness.lag() == LagFigures(0, 7000, 7000, connected=False)
    assert node.freshness.stale_ms() == 7000


@pytest.mark.parametrize("state", [State.FOLLOWING, State.NOT_CAUGHT_UP, State.FAILED, State.PROMOTING])
async def test_only_an_aged_state_is_stale(state: State) -> None:
    """The role decides that, and no figure."""
    assert Node(Role(state)).freshness.stale_ms() is None


async def test_a_replica_that_leads_now_has_no_lag_any_more() -> None:
    """Its progress is that of a follower that is gone."""
    node = Node(Role(State.PROMOTING))
    node.catch_up(seq=7)
    assert node.freshness.lag() is not None
    node.role.become(State.LEADING)
    assert (node.freshness.lag(), node.freshness.not_ready()) == (None, None)


@pytest.mark.parametrize("state", State)
async def test_a_node_that_drains_is_not_ready(state: State) -> None:
    """Whatever else is the case with it."""
    node = Node(Role(state, reason="another reason"))
    node.catch_up()
    node.role.drain()
    assert node.freshness.not_ready() == "the server is stopping"


@pytest.mark.parametrize("state", [State.NOT_CAUGHT_UP, State.FAILED])
async def test_a_replica_that_vouches_for_nothing_is_not_ready(state: State) -> None:
    """For the reason that its role has."""
    assert Node(Role(state, reason="the histories differ")).freshness.not_ready() == "the histories differ"


async def test_a_replica_is_ready_once_it_has_caught_up_since_its_start() -> None:
    """A directory that vouches for itself is served before that, but nobody should be sent there."""
    node = Node(Role(State.STALE))
    assert node.freshness.not_ready() == "this replica has not caught up since it was started (connecting)"
    node.catch_up()
    assert node.freshness.not_ready() is None


async def test_a_replica_whose_leader_is_silent_for_too_long_is_not_ready(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It stays ready until then, though it is stale."""
    node = Node(Role(State.STALE))
    node.catch_up()
    await trio.sleep(READY_AGE_S)
    assert node.freshness.not_ready() is None
    await trio.sleep(1.0)
    assert node.freshness.not_ready() == "the leader was not heard for 31 seconds"


async def test_a_replica_without_a_link_says_why_it_has_none(autojump_clock: trio.testing.MockClock) -> None:
    """Before it caught up and after. A reason of the other side's is cut; with a link there is no reason."""
    node = Node(Role(State.STALE))
    node.progress.become("disconnected", "the leader refused the token with status 401")
    said = "this replica has not caught up since it was started"
    assert node.freshness.not_ready() == f"{said} (disconnected: the leader refused the token with status 401)"
    node.catch_up()
    node.progress.become("connecting", "x" * 10_000)
    await trio.sleep(READY_AGE_S + 1.0)
    assert node.freshness.not_ready() == f"the leader was not heard for 31 seconds: {'x' * 300}"
    node.progress.become("following", "")
    assert node.freshness.not_ready() == "the leader was not heard for 31 seconds"


async def test_a_replica_that_is_too_far_behind_is_not_ready(autojump_clock: trio.testing.MockClock) -> None:
    """Though it hears its leader well."""
    node = Node(Role(State.FOLLOWING))
    node.catch_up(seq=6)
    await trio.sleep(READY_AGE_S + 1.0)
    node.progress.heard(1, 9)
    assert node.freshness.not_ready() == "this replica is 31000 ms behind"
