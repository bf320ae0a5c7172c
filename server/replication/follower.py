"""The follower: keeps a replica up with its leader, through cuts and stalls, and knows how far behind it is.

    state                   what it means                                                        what comes next
    ---------------------   ------------------------------------------------------------------   --------------------
    connecting              no link yet                                                          any of the others
    bootstrapping           fetching a snapshot: there is none yet, or what we need is gone      connecting
    catching_up             a link, and not yet everything that the leader had at the welcome    following
    following               a link, and everything of that applied                               disconnected
    disconnected            no link; what is served gets older                                   connecting
    refused_older_leader    the leader was deposed, or is of an older epoch than we are          connecting
    failed                  the histories differ, or something is damaged: for good              -

    socket ─► receive: what the leader says of itself counts at once ─► intake, bounded ─► take, in order ─► replica

Rules:
- Nothing is applied that was not proved (`server.replication.replicas`). A fault of the data ends following for good.
- Everything else is tried again, with full jitter: the leader may be away, restarting, or replaced.
- A leader whose epoch is older than ours was deposed. It is never followed, and never taken for a fault of ours either:
  an operator may yet bring it back as a replica.
- A link on which nothing is heard for `silence_seconds_max` is dead.
- At a mark the own state is captured between the same two frames as the leader's; when the leader's digests are there
  they are compared. Computing them takes a thread, and nothing waits for it; a mark that comes meanwhile is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec
import trio

from engine.errors import DiskFault, SnapshotDamaged
from engine.filtered_frame import FILTERED_HEADER_BYTES
from engine.limits import FRAME_BYTES_MAX
from engine.record import FrameFault, unpack_header
from server.replication.bootstrap import Bootstrap, ShowBytes, no_bytes
from server.replication.failure import REBUILD, FollowingFailed
from server.replication.frame_queue import DigestCheck, FrameQueue
from server.replication.lag import Lag, retry_seconds
from server.replication.link import Endpoint, Link, LinkEnded, LinkTiming, open_link
from server.replication.messages import (
    LOG_PATH,
    Behind,
    Deposed,
    Digest,
    Diverged,
    FromLeader,
    Heartbeat,
    Mark,
    MessageFault,
    Position,
    SnapshotNeeded,
    Welcome,
    decode_from_leader,
    encode,
    hello_of,
)
from server.replication.replicas import Replica

State = Literal[
    "connecting", "bootstrapping", "catching_up", "following", "disconnected", "refused_older_leader", "failed"
]

MESSAGE_BYTES_MAX = FILTERED_HEADER_BYTES + 2 * FRAME_BYTES_MAX
"""The longest message from a leader: a frame, or a part of one with the places of its records."""

_HEAD_OF_PART = 8


class FollowerStatus(msgspec.Struct, frozen=True):
    """Where a follower stands. Lag is None before the leader was heard; times are of the clocks that were passed in.

    `leader_epoch` and `leader_seq` are what was heard last, `heard_age_s` is since then; of a leader that was deposed
    the epoch is the one that began instead. `reason` says why there is no link, or why it failed. `caught_up_once`: it
    has once had everything that the leader had said, since it was started.
    """

    state: State
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


class _OlderLeader(LinkEnded):
    """The leader's epoch is over."""


class Follower:
    """Follows one leader. `run` it once; it returns when following has failed for good, and raises `WriteFailed`."""

    def __init__(
        self,
        replica: Replica,
        leader: Endpoint,
        bootstrap: Bootstrap,
        *,
        token: Callable[[], str],
        clock_ms: Callable[[], int],
        uniform: Callable[[float, float], float],
        blocks: bool = True,
        timing: LinkTiming | None = None,
        on_progress: ShowBytes = no_bytes,
        on_state: Callable[[State, str], None] = lambda _state, _reason: None,
    ) -> None:
        """`blocks`: whether digests are worth a thread. `on_state` is told of each change of state, and why."""
        self.replica = replica
        self._leader = leader
        self._bootstrap = bootstrap
        self._token = token
        self._clock_ms = clock_ms
        self._uniform = uniform
        self._blocks = blocks
        self._timing = timing or LinkTiming()
        self._on_progress = on_progress
        self._on_state = on_state
        self._state: State = "connecting"
        self._reason = ""
        self._lag = Lag(replica.scoreboard.seq)
        self._welcome: Welcome | None = None
        self._leader_epoch: int | None = None
        self._heard_at_s: float | None = None
        self._connected_since_ms: int | None = None
        self._caught_up_once = False
        self._needs_snapshot = replica.tail is None
        self._bytes = (0, 0)
        self._changed = trio.lowlevel.ParkingLot()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow until following fails, or is cancelled."""
        task_status.started()
        attempt = 0
        while True:
            began_s = trio.current_time()
            try:
                await self._once()
            except FollowingFailed as failure:
                self._become("failed", str(failure))
                return
            except _OlderLeader as older:
                self._become("refused_older_leader", older.reason)
                attempt = 32  # the cap: an operator is needed, and no second counts
            except LinkEnded as ended:
                self._become("disconnected", ended.reason)
            finally:
                self._connected_since_ms = None
            if trio.current_time() - began_s >= self._timing.lived_seconds:
                attempt = 0
            await trio.sleep(retry_seconds(attempt, self._uniform))
            attempt += 1

    def status(self) -> FollowerStatus:
        """Tell where it stands."""
        now_s = trio.current_time()
        scoreboard, welcome = self.replica.scoreboard, self._welcome
        self._lag.applied(scoreboard.seq)  # a row of frames is applied one by one, and this may be in the middle of one
        return FollowerStatus(
            state=self._state,
            leader_epoch=self._leader_epoch,
            leader_seq=self._lag.leader_seq,
            epoch=scoreboard.epoch,
            seq=scoreboard.seq,
            lag_records=self._lag.records,
            lag_ms=self._lag.ms(now_s),
            connected_since_ms=self._connected_since_ms,
            heard_age_s=None if self._heard_at_s is None else now_s - self._heard_at_s,
            caught_up_once=self._caught_up_once,
            reason=self._reason,
            node_name="" if welcome is None else welcome.node_name,
            public_url=None if welcome is None else welcome.public_url,
            bytes_done=self._bytes[0],
            bytes_total=self._bytes[1],
        )

    async def wait_until(self, true_of: Callable[[FollowerStatus], bool]) -> FollowerStatus:
        """Wait until the status is such; it is looked at when something of it changed, not as time goes by."""
        while not true_of(status := self.status()):
            await self._changed.park()
        return status

    # One link

    async def _once(self) -> None:
        """Bootstrap if need be, open one link, and follow it to its end. Raises why it ended."""
        if self._needs_snapshot:
            await self._fetch()
        self._become("connecting", self._reason)
        hello = hello_of(self.replica.tail, self.replica.shard)
        target = f"{LOG_PATH}?{hello.query}"
        async with open_link(
            self._leader, target, self._token(), message_bytes_max=MESSAGE_BYTES_MAX, timing=self._timing
        ) as link:
            first = await link.receive(self._timing.silence_seconds_max)
            welcome = self._admitted(_decode(first))
            self.replica.begin_link(bytes.fromhex(welcome.log_id))
            self._welcome = welcome
            self._connected_since_ms = self._clock_ms()
            self._lag.forget()
            self._heard(welcome.epoch, welcome.seq)
            self._become("catching_up", "")
            self._look_whether_caught_up()
            await self._follow(link, welcome)

    def _admitted(self, message: FromLeader | None) -> Welcome:
        """Give the welcome; raise what any other answer means."""
        seq = self.replica.scoreboard.seq
        epoch = self.replica.scoreboard.epoch
        if isinstance(message, SnapshotNeeded):
            self._needs_snapshot = True
            raise LinkEnded(f"a snapshot is needed: {message.reason}")
        if isinstance(message, Diverged):
            raise FollowingFailed(f"the leader says: {message.reason}", epoch=epoch, seq=seq, remedy=REBUILD)
        if isinstance(message, Behind):
            raise LinkEnded(f"the node that is followed is itself behind, at seq {message.seq}")
        if isinstance(message, Deposed):
            # Who is promoted now begins an epoch above this one, or there would be two of the same number.
            self._leader_epoch = max(message.epoch, self._leader_epoch or 0)
            where = "" if message.leader is None else f", whose leader is at {message.leader}"
            raise _OlderLeader(f"the leader was deposed: it is of an older epoch than {message.epoch}{where}")
        if not isinstance(message, Welcome):
            raise LinkEnded("the leader did not begin with a welcome")
        if message.epoch < epoch:
            raise _OlderLeader(f"the leader is of epoch {message.epoch}, this replica has seen {epoch}")
        return message

    async def _fetch(self) -> None:
        """Fetch a snapshot and go on from it. Without one, the log is followed from its beginning."""
        self._become("bootstrapping", self._reason)
        try:
            fetched = await self._bootstrap.fetch(self._progress)
            if fetched is not None:
                await self.replica.restart(fetched.path)
        except SnapshotDamaged as damage:
            raise LinkEnded(f"the snapshot that was downloaded is damaged: {damage.what}") from damage
        self._needs_snapshot = False
        self._lag.applied(self.replica.scoreboard.seq)

    def _progress(self, done: int, total: int) -> None:
        self._bytes = (done, total)
        self._on_progress(done, total)
        self._changed.unpark_all()

    async def _follow(self, link: Link, welcome: Welcome) -> None:
        failure: Exception | None = None
        ended = LinkEnded("the link ended")
        try:
            async with trio.open_nursery() as nursery:
                intake = FrameQueue()
                nursery.start_soon(self._receive, link, intake)
                nursery.start_soon(self._take, intake, nursery)
                nursery.start_soon(self._report, link, min(welcome.heartbeat_seconds, self._timing.heartbeat_seconds))
        except* (FollowingFailed, DiskFault) as errors:
            failure = _first(errors)
        except* LinkEnded as errors:
            older, _ = errors.split(_OlderLeader)
            found = _first(older or errors)
            assert isinstance(found, LinkEnded)
            ended = found
        raise failure or ended

    async def _receive(self, link: Link, intake: FrameQueue) -> None:
        at = 0 if self.replica.shard is None else _HEAD_OF_PART
        while True:
            message = await link.receive(self._timing.silence_seconds_max)
            if isinstance(message, bytes):
                try:
                    head = unpack_header(message, at)
                except FrameFault:
                    pass  # whoever takes it finds out, and says what is wrong with it
                else:
                    self._heard(max(head.epoch, self._leader_epoch or 0), head.last_seq)
                await intake.put(message)
                continue
            said = _decode(message)
            if isinstance(said, Heartbeat):
                if said.epoch < self.replica.scoreboard.epoch:
                    raise _OlderLeader(f"the leader is of epoch {said.epoch}")
                self._heard(said.epoch, said.seq)
                self._look_whether_caught_up()
            elif isinstance(said, Mark | Digest):
                await intake.put(said)
            elif said is not None:
                self._admitted(said)

    async def _report(self, link: Link, seconds: float) -> None:
        """Say where we are, which is also that we live."""
        while True:
            tail = self.replica.tail
            if tail is not None:
                await link.send(encode(Position(tail.epoch, tail.seq, self.replica.durable)))
            await trio.sleep(seconds)

    async def _take(self, intake: FrameQueue, nursery: trio.Nursery) -> None:
        comparing = DigestCheck(self.replica, nursery, self._blocks)
        while True:
            frames, said = await intake.take()
            if frames:
                await self.replica.take(frames)
                self._lag.applied(self.replica.scoreboard.seq)
                self._look_whether_caught_up()
            if isinstance(said, Mark):
                comparing.mark(said.seq)
            elif isinstance(said, Digest):
                comparing.theirs(said.seq, said.digests)

    # What is known

    def _heard(self, epoch: int, seq: int) -> None:
        self._heard_at_s = trio.current_time()
        self._leader_epoch = epoch
        self._lag.heard(seq, self._heard_at_s)

    def _look_whether_caught_up(self) -> None:
        welcome = self._welcome
        if self._state == "catching_up" and welcome is not None and self.replica.scoreboard.seq >= welcome.seq:
            self._caught_up_once = True
            self._become("following", "")
        self._changed.unpark_all()

    def _become(self, state: State, reason: str) -> None:
        changed = (state, reason) != (self._state, self._reason)
        self._state, self._reason = state, reason
        if changed:
            self._on_state(state, reason)
        self._changed.unpark_all()


def _decode(message: bytes | str) -> FromLeader | None:
    try:
        return decode_from_leader(message) if isinstance(message, str) else None
    except MessageFault as fault:
        raise LinkEnded(str(fault)) from fault


def _first(errors: BaseExceptionGroup[Exception] | Exception) -> Exception:
    """Give one of the exceptions of a group: what ended first cancels the others, so there is hardly ever another."""
    found: BaseException = errors
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    assert isinstance(found, Exception)
    return found
