"""The role of this node: one immutable value, and the table of its transitions.

    state           writes   reads         live and links     how it ends
    --------------  -------  ------------  -----------------  ------------------------------------------------------
    LEADING         taken    answered      served             a higher epoch is heard of; in a quorum, as STALE
    DEPOSED         421      stale         stale; no links    never (more may be learnt of its successor)
    NOT_CAUGHT_UP   307/421  503           refused            all that the leader had at the welcome is applied
    FOLLOWING       307/421  answered      served             the leader is silent for too long
    STALE           307/421  stale         stale; no links    the leader is heard again
    FAILED          307/421  503           refused            never: the data is not the leader's
    PROMOTING       307/421  answered      served             the next epoch is durable; in a quorum, as LEADING

    LEADING ──► DEPOSED ⟲             ⟲ NOT_CAUGHT_UP ──► FOLLOWING ◄──► STALE      each of these three ──► FAILED
    FOLLOWING, STALE ──► PROMOTING ──► LEADING
    in a quorum too: NOT_CAUGHT_UP ──► PROMOTING; PROMOTING, LEADING ──► STALE

`307/421`: a replica redirects writers to the leader's public address, or refuses them if it does not know one. A node
may drain in any state: it goes on answering, and `draining` never ends.

    role = CurrentRole(Role(State.LEADING), trio.current_time)
    if role.now.takes_writes: ...
    role.become(State.DEPOSED, successor=successor)

Rules:
- Code that depends on the role asks `now` each time. It may keep an answer only with its `generation`. Each change
  makes the next generation, and what was kept under an older one is void.
- A transition that is not in the table is a bug of ours.
- A leader of a quorum is `unconfirmed`, and its state is stale, when no majority answered it until `fresh_until_s`.
- FOLLOWING ends by itself when `fresh_until_s` has passed. `now` checks that. So a node that slept gives no reader a
  fresh answer until its follower has read something from the leader.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable

import msgspec

from snapshots.promotion import Successor


class State(enum.Enum):
    """A row of the table, with its rights as plain values: every request asks for them."""

    # fmt: off
    #    label            takes_writes  is_replica  vouches  is_aged
    LEADING = (
         "leading",       True,         False,      True,    False)
    DEPOSED = (
         "deposed",       False,        False,      True,    True)
    NOT_CAUGHT_UP = (
         "not caught up", False,        True,       False,   False)
    FOLLOWING = (
         "following",     False,        True,       True,    False)
    STALE = (
         "stale",         False,        True,       True,    True)
    FAILED = (
         "failed",        False,        True,       False,   False)
    PROMOTING = (
         "promoting",     False,        True,       True,    False)
    # fmt: on

    def __init__(self, label: str, takes_writes: bool, is_replica: bool, vouches: bool, is_aged: bool) -> None:
        """`is_replica`: reads tell their lag. `vouches`: reads are answered. `is_aged`: the answers are stale."""
        self.label = label
        self.takes_writes = takes_writes
        self.is_replica = is_replica
        self.vouches = vouches
        self.is_aged = is_aged


TRANSITIONS: dict[State, frozenset[State]] = {
    State.LEADING: frozenset({State.DEPOSED, State.STALE}),
    State.DEPOSED: frozenset({State.DEPOSED}),
    State.NOT_CAUGHT_UP: frozenset({State.NOT_CAUGHT_UP, State.FOLLOWING, State.FAILED, State.PROMOTING}),
    State.FOLLOWING: frozenset({State.STALE, State.FAILED, State.PROMOTING}),
    State.STALE: frozenset({State.FOLLOWING, State.FAILED, State.PROMOTING}),
    State.FAILED: frozenset(),
    State.PROMOTING: frozenset({State.LEADING, State.STALE}),
}
"""From each state, the states that may come next. DEPOSED comes again when more is known of the successor."""


class Role(msgspec.Struct, frozen=True):
    """The role from one transition to the next.

    `leader` is the address that a replica follows, `public_url` the leader's address for clients. `reason` says why a
    replica may not serve its state. `unconfirmed`: no majority answers this leader; the last did at `confirmed_s`.
    `successor` is what is known of the epoch that deposed a leader. `since_s` is when
    the state began, in seconds of a clock that never goes back.
    """

    state: State
    leader: str = ""
    public_url: str | None = None
    successor: Successor | None = None
    reason: str = ""
    since_s: float = 0.0
    draining: bool = False
    unconfirmed: bool = False
    confirmed_s: float = 0.0
    generation: int = 0

    @property
    def takes_writes(self) -> bool:
        return self.state.takes_writes

    @property
    def is_replica(self) -> bool:
        return self.state.is_replica

    @property
    def vouches(self) -> bool:
        return self.state.vouches

    @property
    def is_aged(self) -> bool:
        return self.state.is_aged or self.unconfirmed


class CurrentRole:
    """Holds the role of one node. `on_change` observers are called after each transition; they must not raise.

    `latest` is the role since the last transition, `now` looks at the time too. A hot path may ask `latest` for its
    generation, and for a right that time does not change.
    """

    def __init__(self, role: Role, clock_s: Callable[[], float]) -> None:
        self.latest = role
        self._clock_s = clock_s
        self._fresh_until_s = math.inf
        self._confirmed_s = 0.0
        self._observers: list[Callable[[Role, Role], None]] = []

    @property
    def now(self) -> Role:
        if self._fresh_until_s < math.inf and self._clock_s() >= self._fresh_until_s:
            if self.latest.state is not State.LEADING:
                return self.become(State.STALE)
            self._fresh_until_s = math.inf
            return self._set(msgspec.structs.replace(self.latest, unconfirmed=True, confirmed_s=self._confirmed_s))
        return self.latest

    def become(self, state: State, *, successor: Successor | None = None, reason: str = "") -> Role:
        """Change to another state, as the table allows; give the new role."""
        old = self.latest
        assert state in TRANSITIONS[old.state], f"{old.state} never becomes {state}"
        if state is not State.FOLLOWING:
            self._fresh_until_s = math.inf
        return self._set(
            Role(
                state=state,
                leader="" if state is State.LEADING else old.leader,
                public_url=None if state is State.LEADING else old.public_url,
                successor=successor,
                reason=reason,
                since_s=old.since_s if state is old.state else self._clock_s(),
                draining=old.draining,
            )
        )

    def drain(self) -> Role:
        return self._set(msgspec.structs.replace(self.latest, draining=True))

    def confirmed(self, at_s: float, fresh_s: float) -> None:
        """Note that a majority took what this leader of a quorum sent at `at_s`. It is fresh for `fresh_s` then."""
        assert self.latest.state is State.LEADING
        self._confirmed_s = max(at_s, self._confirmed_s)
        self._fresh_until_s = self._confirmed_s + fresh_s
        if self.latest.unconfirmed and self._clock_s() < self._fresh_until_s:
            self._set(msgspec.structs.replace(self.latest, unconfirmed=False))

    def follow(self, leader: str) -> None:
        """Note the address of the leader that is followed from now on, in a quorum."""
        if self.latest.leader != leader:
            self._set(msgspec.structs.replace(self.latest, leader=leader))

    def heard_leader(self, fresh_until_s: float, public_url: str | None) -> None:
        """Note that the leader was heard: the state is fresh until `fresh_until_s` if nothing more is heard.

        That time may be over already: a relay passes on what it heard some time ago.
        """
        if self.latest.public_url != public_url:
            self._set(msgspec.structs.replace(self.latest, public_url=public_url))
        if self.latest.state is State.STALE and self._clock_s() < fresh_until_s:
            self.become(State.FOLLOWING)
        if self.latest.state is State.FOLLOWING:
            self._fresh_until_s = fresh_until_s

    def on_change(self, observer: Callable[[Role, Role], None]) -> None:
        """Call `observer` with the old and the new role after each transition."""
        self._observers.append(observer)

    def _set(self, role: Role) -> Role:
        old, self.latest = self.latest, msgspec.structs.replace(role, generation=self.latest.generation + 1)
        for observer in self._observers:
            observer(old, self.latest)
        return self.latest
