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
    refused_loop            the nodes that we follow follow this node: there is no leader        connecting
    failed                  the histories differ, or something is damaged: for good              -

Rules:
- `caught_up_once` stays true: a replica that loses its link keeps what it had.
- The leader is heard when its word was sent, not when a relay passed it on: each message has the word's age.
- `path` goes from the node that we follow to the leader, as that node told it last. `loop` says which nodes follow each
  other, from the time when that was noticed until a leader is in the path again.
- No number is made up. Before the leader was heard, the lag is None.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec
import trio

from engine.scoreboard import Scoreboard
from server.replication.lag import Lag
from server.replication.messages import NodeRef, Welcome
from snapshots.promotion import Successor, newest

FollowingState = Literal[
    "connecting",
    "bootstrapping",
    "catching_up",
    "following",
    "disconnected",
    "refused_older_leader",
    "refused_loop",
    "failed",
]


class FollowerStatus(msgspec.Struct, frozen=True):
    """The status of a follower. The lag is None before the leader was heard.

    `leader_epoch` is the last epoch that was heard of, `heard_age_s` the time since the leader's last word was sent.
    `reason` says why there is no link, or why following failed. `caught_up_once`: since the start the follower was once
    `following`. `loop` names the nodes of a loop, "" without one.
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
    loop: str = ""


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
        self.path: tuple[NodeRef, ...] = ()
        self.loop = ""
        self.successor: Successor | None = None
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
            loop=self.loop,
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
        self.loop = ""
        self._connected_since_ms = self._clock_ms()
        self._lag.forget()

    def disconnected(self) -> None:
        self._connected_since_ms = None

    def heard(self, epoch: int, seq: int, age_s: float = 0.0) -> None:
        """Note that the leader's log reached to `seq`, in `epoch`, `age_s` ago."""
        said_at_s = trio.current_time() - age_s
        self.heard_at_s = said_at_s if self.heard_at_s is None else max(self.heard_at_s, said_at_s)
        self.leader_epoch = max(epoch, self.leader_epoch or 0)
        self._lag.heard(seq, trio.current_time())

    def arrived(self, seq: int) -> None:
        """Note a frame that a relay sent. It shows how far the log reached at least, and not that a leader lives."""
        self._lag.heard(seq, trio.current_time())

    def heard_of(self, successor: Successor) -> None:
        """Note an epoch that is used elsewhere: a promotion here must begin a higher one."""
        self.leader_epoch = max(successor.epoch, self.leader_epoch or 0)
        self.successor = newest(self.successor, successor)

    @property
    def leader_seq(self) -> int:
        """The seq that the leader's log had reached when it was heard last, 0 if it was not heard yet."""
        return self._lag.leader_seq or 0

    def applied(self) -> bool:
        """Note that frames may have been applied. Tell whether the follower has now caught up."""
        self._lag.applied(self._scoreboard.seq)
        welcome = self._welcome
        caught_up = self.state == "catching_up" and welcome is not None and self._scoreboard.seq >= welcome.seq
        if caught_up:
            self.caught_up_once = True
        self._changed.unpark_all()
        return caught_up
