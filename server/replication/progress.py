"""The progress of a follower: its state, the leader's last position, our own, and their age.

The follower writes it. Readiness, metrics and lag headers read it. It is built before the follower, so its readers are
complete when they are built.

    state                   what it means                                                        what comes next
    ---------------------   ------------------------------------------------------------------   --------------------
    connecting              no link yet                                                          any of the others
    bootstrapping           a snapshot is fetched: the log that we need is not kept              connecting
    catching_up             a link; not all that the leader had at the welcome is applied        following
    following               a link; all that the leader had at the welcome is applied            disconnected
    disconnected            no link; what is served gets older                                   connecting
    refused_older_leader    the leader was deposed, or is of an older epoch than we are          connecting
    failed                  the histories differ, or something is damaged: for good              -

Rules:
- `caught_up_once` stays true: a replica that loses its link keeps what it had.
- No number is made up. Before the leader was heard, the lag is None.
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
    """The status of a follower. The lag is None before the leader was heard.

    `leader_epoch` is the last epoch that was heard of, `heard_age_s` the time since the leader was heard. `reason` says
    why there is no link, or why following failed. `caught_up_once`: since the start the follower was once `following`.
    """

    state: FollowingState
    leader_epoch: int | None
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
        self._changed = trio.lowlevel.ParkingLot()

    def status(self) -> FollowerStatus:
        now_s = trio.current_time()
        scoreboard, welcome = self._scoreboard, self._welcome
        self._lag.applied(scoreboard.seq)  # several frames are applied one by one, and this may be between two
        return FollowerStatus(
            state=self.state,
            leader_epoch=self.leader_epoch,
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
        )

    async def wait_until(self, true_of: Callable[[FollowerStatus], bool]) -> FollowerStatus:
        """Wait until `true_of` holds. It is asked after each change, not as time goes by."""
        while not true_of(status := self.status()):
            await self._changed.park()
        return status

    # Called by the follower

    def become(self, state: FollowingState, reason: str) -> bool:
        """Note the state and its reason; tell whether either changed."""
        changed = (state, reason) != (self.state, self.reason)
        self.state, self.reason = state, reason
        self._changed.unpark_all()
        return changed

    def welcomed(self, welcome: Welcome) -> None:
        self._welcome = welcome
        self.public_url = welcome.public_url
        self._connected_since_ms = self._clock_ms()
        self._lag.forget()

    def disconnected(self) -> None:
        self._connected_since_ms = None

    def heard(self, epoch: int, seq: int) -> None:
        """Note that the leader's log reaches to `seq`, in `epoch`."""
        self.heard_at_s = trio.current_time()
        self.leader_epoch = epoch
        self._lag.heard(seq, self.heard_at_s)

    def heard_of_epoch(self, epoch: int) -> None:
        """Note an epoch that is used elsewhere: a promotion here must begin a higher one."""
        self.leader_epoch = max(epoch, self.leader_epoch or 0)

    def applied(self) -> bool:
        """Note that frames may have been applied. Tell whether the follower has now caught up."""
        self._lag.applied(self._scoreboard.seq)
        welcome = self._welcome
        caught_up = self.state == "catching_up" and welcome is not None and self._scoreboard.seq >= welcome.seq
        if caught_up:
            self.caught_up_once = True
        self._changed.unpark_all()
        return caught_up
