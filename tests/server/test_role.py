"""The role of a node: each transition of the table and no other, what it keeps, and the end of freshness by itself."""

from __future__ import annotations

import itertools

import pytest

from server.role import CurrentRole, Role, State
from snapshots.promotion import Successor

LEADER = "http://leader:1"

ALLOWED = {
    (State.LEADING, State.DEPOSED),
    (State.DEPOSED, State.DEPOSED),
    (State.NOT_CAUGHT_UP, State.NOT_CAUGHT_UP),
    (State.NOT_CAUGHT_UP, State.FOLLOWING),
    (State.NOT_CAUGHT_UP, State.FAILED),
    (State.FOLLOWING, State.STALE),
    (State.FOLLOWING, State.FAILED),
    (State.FOLLOWING, State.PROMOTING),
    (State.STALE, State.FOLLOWING),
    (State.STALE, State.FAILED),
    (State.STALE, State.PROMOTING),
    (State.PROMOTING, State.LEADING),
    # in a quorum
    (State.NOT_CAUGHT_UP, State.PROMOTING),
    (State.PROMOTING, State.STALE),
    (State.LEADING, State.STALE),
}
PAIRS = list(itertools.product(State, State))


class Clock:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now_s = 10.0

    def __call__(self) -> float:
        return self.now_s


def role_of(
    state: State, clock: Clock | None = None, *, public_url: str | None = None, reason: str = ""
) -> CurrentRole:
    """A node in this state, which follows LEADER."""
    return CurrentRole(Role(state, leader=LEADER, public_url=public_url, reason=reason), clock or Clock())


@pytest.mark.parametrize(("before", "after"), [pair for pair in PAIRS if pair in ALLOWED])
def test_a_transition_of_the_table_is_made(before: State, after: State) -> None:
    """The new role is given, and is the one from now on."""
    role = role_of(before)
    became = role.become(after)
    assert became.state is after
    assert role.now is became


@pytest.mark.parametrize(("before", "after"), [pair for pair in PAIRS if pair not in ALLOWED])
def test_any_other_transition_is_a_bug_of_ours(before: State, after: State) -> None:
    """It is refused, and the role stays what it was."""
    role = role_of(before)
    was = role.now
    with pytest.raises(AssertionError, match=f"never becomes {after}"):
        role.become(after)
    assert role.now is was


@pytest.mark.parametrize(
    ("state", "takes_writes", "is_replica", "vouches", "is_aged"),
    [
        (State.LEADING, True, False, True, False),
        (State.DEPOSED, False, False, True, True),
        (State.NOT_CAUGHT_UP, False, True, False, False),
        (State.FOLLOWING, False, True, True, False),
        (State.STALE, False, True, True, True),
        (State.FAILED, False, True, False, False),
        (State.PROMOTING, False, True, True, False),
    ],
)
def test_a_state_says_what_the_node_does(
    state: State, takes_writes: bool, is_replica: bool, vouches: bool, is_aged: bool
) -> None:
    """As the table of `server.role` has it."""
    role = Role(state)
    assert (role.takes_writes, role.is_replica, role.vouches, role.is_aged) == (
        takes_writes, is_replica, vouches, is_aged
    )  # fmt: skip


def test_each_change_makes_the_next_generation() -> None:
    """Also one that keeps the state, and the beginning of draining."""
    role = role_of(State.NOT_CAUGHT_UP)
    generations = [role.now.generation]
    for change in (
        lambda: role.become(State.NOT_CAUGHT_UP, reason="connecting"),
        lambda: role.heard_leader(20.0, "https://public"),
        lambda: role.become(State.FOLLOWING),
        role.drain,
        lambda: role.become(State.PROMOTING),
        lambda: role.become(State.LEADING),
        lambda: role.become(State.DEPOSED, successor=Successor(2)),
    ):
        change()
        generations.append(role.now.generation)
    assert generations == list(range(8))


def test_what_is_known_of_the_leader_is_kept_until_the_node_leads_itself() -> None:
    """A leader follows nobody."""
    role = role_of(State.FOLLOWING, public_url="https://public")
    promoting = role.become(State.PROMOTING)
    assert (promoting.leader, promoting.public_url) == (LEADER, "https://public")
    leading = role.become(State.LEADING)
    assert (leading.leader, leading.public_url) == ("", None)


def test_a_state_that_comes_again_began_when_it_first_came() -> None:
    """A deposed leader that hears more of its successor does not become younger by that."""
    clock = Clock()
    role = role_of(State.LEADING, clock)
    clock.now_s = 20.0
    role.become(State.DEPOSED, successor=Successor(2))
    clock.now_s = 30.0
    again = role.become(State.DEPOSED, successor=Successor(2, "http://new"))
    assert (again.since_s, again.successor) == (20.0, Successor(2, "http://new"))


def test_a_reason_lasts_as_long_as_its_state() -> None:
    """What is no longer the case is not said of the next state."""
    role = role_of(State.NOT_CAUGHT_UP, reason="connecting")
    assert role.become(State.FOLLOWING).reason == ""
    assert role.become(State.FAILED, reason="damaged").reason == "damaged"


def test_a_leader_that_is_silent_is_noticed_by_asking_alone() -> None:
    """No task has to run for it: at the very time the answer is STALE, and it stays so."""
    clock = Clock()
    role = role_of(State.STALE, clock)
    seen: list[tuple[State, State]] = []
    role.on_change(lambda before, now: seen.append((before.state, now.state)))
    role.heard_leader(13.0, None)
    clock.now_s = 12.9
    assert role.now.state is State.FOLLOWING
    generation = role.now.generation
    clock.now_s = 13.0
    assert (role.now.state, role.now.generation, role.now.since_s) == (State.STALE, generation + 1, 13.0)
    assert role.now.generation == generation + 1, "asking again changes nothing"
    assert seen == [(State.STALE, State.FOLLOWING), (State.FOLLOWING, State.STALE)]


def test_a_leader_that_is_heard_again_makes_the_node_fresh_for_longer() -> None:
    """Each word counts from its own time, and a word that comes too late brings STALE back to FOLLOWING."""
    clock = Clock()
    role = role_of(State.STALE, clock)
    role.heard_leader(13.0, None)
    clock.now_s = 12.0
    role.heard_leader(15.0, None)
    states = []
    for clock.now_s in (14.9, 16.0):
        states.append(role.now.state)
    role.heard_leader(19.0, None)
    assert [*states, role.now.state] == [State.FOLLOWING, State.STALE, State.FOLLOWING]


@pytest.mark.parametrize("state", [State.LEADING, State.DEPOSED, State.NOT_CAUGHT_UP, State.FAILED, State.PROMOTING])
def test_hearing_the_leader_changes_no_other_state(state: State) -> None:
    """And none of them grows stale, however long nothing is heard."""
    clock = Clock()
    role = role_of(state, clock)
    role.heard_leader(13.0, None)
    clock.now_s = 1e9
    assert (role.now.state, role.now.generation) == (state, 0)


def test_a_promotion_that_has_begun_is_not_ended_by_silence() -> None:
    """The leader is expected to be gone."""
    clock = Clock()
    role = role_of(State.STALE, clock)
    role.heard_leader(13.0, None)
    role.become(State.PROMOTING)
    clock.now_s = 100.0
    assert role.now.state is State.PROMOTING


def test_the_public_address_of_the_leader_is_noted_when_it_changes() -> None:
    """The same one again makes no new generation, or every heartbeat would void what was remembered."""
    role = role_of(State.STALE)
    role.heard_leader(13.0, "https://public")
    generation = role.now.generation
    role.heard_leader(14.0, "https://public")
    assert (role.now.public_url, role.now.generation) == ("https://public", generation)
    role.heard_leader(15.0, None)
    assert (role.now.public_url, role.now.generation) == (None, generation + 1)


def test_draining_never_ends() -> None:
    """Whatever the node becomes; and it changes nothing else of the role."""
    role = role_of(State.STALE, public_url="https://public")
    drained = role.drain()
    assert (drained.state, drained.leader, drained.public_url) == (State.STALE, LEADER, "https://public")
    role.heard_leader(13.0, "https://public")
    for state in (State.PROMOTING, State.LEADING, State.DEPOSED):
        assert role.now.draining
        role.become(state)
    assert role.now.draining


def test_observers_are_told_in_their_order_when_the_change_is_made() -> None:
    """Each has the role before and after, and finds the one after when it asks."""
    role = role_of(State.LEADING)
    seen: list[tuple[str, State, State, State]] = []
    for name in ("first", "second"):
        role.on_change(lambda before, now, name=name: seen.append((name, before.state, now.state, role.now.state)))  # type: ignore[misc]
    role.become(State.DEPOSED)
    deposed = (State.LEADING, State.DEPOSED, State.DEPOSED)
    assert seen == [("first", *deposed), ("second", *deposed)]


def test_a_leader_that_no_majority_confirms_is_aged_and_takes_writes_all_the_same() -> None:
    """From the moment on at which the last answer is too old, also if nobody looked meanwhile; an answer ends it."""
    clock = Clock()
    role = role_of(State.LEADING, clock)
    role.confirmed(10.0, 3.0)
    clock.now_s = 12.9
    assert not role.now.is_aged
    clock.now_s = 13.0
    assert (role.now.is_aged, role.now.unconfirmed, role.now.confirmed_s) == (True, True, 10.0)
    assert role.now.takes_writes
    role.confirmed(9.0, 3.0)
    assert role.now.is_aged
    role.confirmed(12.5, 3.0)
    assert not role.now.is_aged


def test_a_member_that_loses_its_epoch_follows_the_next_leader() -> None:
    """It is stale until it hears one, and names it from then on."""
    clock = Clock()
    role = CurrentRole(Role(State.LEADING), clock)
    role.confirmed(10.0, 3.0)
    lost = role.become(State.STALE)
    assert (lost.is_replica, lost.is_aged, lost.leader) == (True, True, "")
    role.follow("http://b")
    role.heard_leader(14.0, None)
    assert (role.now.state, role.now.leader) == (State.FOLLOWING, "http://b")
