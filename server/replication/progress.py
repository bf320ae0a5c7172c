"""What is known of following: its state, what the leader said last, how far we are, and how old all of that is.

The follower writes here and everybody else reads: readiness, metrics, lag headers. It is built before the follower, so
whatever reads it is whole when it is built.

    state                   what it means                                                        what comes next
    ---------------------   ------------------------------------------------------------------   --------------------
    connecting              no link yet                                                          any of the others
    bootstrapping           fetching a snapshot: there is none yet, or what we need is gone      connecting
    catching_up             a link, and not yet everything that the leader had at the welcome    following
    following               a link, and everything of that applied                               disconnected
    disconnected            no link; what is served gets older                                   connecting
    refused_older_leader    the leader was deposed, or is of an older epoch than we are          connecting
    failed                  the histories differ, or something is damaged: for good              -

Rules:
- `caught_up_once` never becomes false again: a replica that loses its link has what it had.
- No number is made up. Before the leader was heard its seq and our lag are None.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec
import trio

from engine.scoreboard import Scoreboard
from server.replication.lag import Lag
from server.replication.messages import Welcome

FollowingState = Literal[
    "connecting", "bootstrapping", "catching_up", "following", "disconnected", "refused_older_leader", "failed"
]


class FollowerStatus(msgspec.Struct, frozen=True):
    """Where a follower stands. Lag is None before the leader was heard; times are of the clocks that were passed in.

    `leader_epoch` and `leader_seq` are what was heard last, `heard_age_s` is since then; of a leader that was deposed
    the epoch is the one that began instead. `reason` says why there is no link, or why it failed. `caught_up_once`: it
    has once had everything that the leader had said, since it was started.
    """

    state: FollowingState
    leader_epoch: int | None
    leader_seq: int | None
    epoch: int
    seq: int
    lag_records: int | None
    lag_ms: int | None
    connected_since_ms: int | None
    heard_age_s: float | None
    caught_up_once: bool
    reason: str
    node_name: str
    public_url: str | None
    bytes_done: int
    bytes_total: int


class Progress:
    """The progress of one follower. `begun_s` is when it began."""

    def __init__(self, scoreboard: Scoreboard, clock_ms: Callable[[], int]) -> None:
        self.begun_s = trio.current_time()
        self.state: FollowingState = "connecting"
        self.reason = ""
        self.caught_up_once = False
        self.leader_epoch: int | None = None
        self.heard_at_s: float | None = None
        self.public_url: str | None = None
        self._scoreboard = scoreboard
        self._clock_ms = clock_ms
        self._lag = Lag(scoreboard.seq)
        self._welcome: Welcome | None = None
        self._connected_since_ms: int | None = None
        self._bytes = (0, 0)
        self._changed = trio.lowlevel.ParkingLot()

    def status(self) -> FollowerStatus:
        """Tell where the follower stands."""
        now_s = trio.current_time()
        scoreboard, welcome = self._scoreboard, self._welcome
        self._lag.applied(scoreboard.seq)  # a row of frames is applied one by one, and this may be in the middle of one
        return FollowerStatus(
            state=self.state,
            leader_epoch=self.leader_epoch,
            leader_seq=self._lag.leader_seq,
            epoch=scoreboard.epoch,
            seq=scoreboard.seq,
            lag_records=self._lag.records,
            lag_ms=self._lag.ms(now_s),
            connected_since_ms=self._connected_since_ms,
            heard_age_s=None if self.heard_at_s is None else now_s - self.heard_at_s,
            caught_up_once=self.caught_up_once,
            reason=self.reason,
            node_name="" if welcome is None else welcome.node_name,
            public_url=self.public_url,
            bytes_done=self._bytes[0],
            bytes_total=self._bytes[1],
        )

    async def wait_until(self, true_of: Callable[[FollowerStatus], bool]) -> FollowerStatus:
        """Wait until something is true of the status. It is looked at when something changed, not as time goes by."""
        while not true_of(status := self.status()):
            await self._changed.park()
        return status

    # What the follower writes

    def become(self, state: FollowingState, reason: str) -> bool:
        """Note the state; tell whether that changes anything."""
        changed = (state, reason) != (self.state, self.reason)
        self.state, self.reason = state, reason
        self._changed.unpark_all()
        return changed

    def welcomed(self, welcome: Welcome) -> None:
        """Note that a link is open."""
        self._welcome = welcome
        self.public_url = welcome.public_url
        self._connected_since_ms = self._clock_ms()
        self._lag.forget()

    def disconnected(self) -> None:
        """Note that there is no link."""
        self._connected_since_ms = None

    def heard(self, epoch: int, seq: int) -> None:
        """Note that the leader's log reaches to `seq`, in `epoch`."""
        self.heard_at_s = trio.current_time()
        self.leader_epoch = epoch
        self._lag.heard(seq, self.heard_at_s)

    def heard_of_epoch(self, epoch: int) -> None:
        """Note an epoch that is used elsewhere: a promotion here must begin one above it."""
        self.leader_epoch = max(epoch, self.leader_epoch or 0)

    def applied(self) -> bool:
        """Note that the state may have moved on. Tell whether the follower has caught up by that."""
        self._lag.applied(self._scoreboard.seq)
        welcome = self._welcome
        caught_up = self.state == "catching_up" and welcome is not None and self._scoreboard.seq >= welcome.seq
        if caught_up:
            self.caught_up_once = True
        self._changed.unpark_all()
        return caught_up

    def fetched(self, done: int, total: int) -> None:
        """Note the bytes of a download."""
        self._bytes = (done, total)
        self._changed.unpark_all()
