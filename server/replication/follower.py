"""The follower: keeps a replica up with its leader, through cuts and stalls, and knows how far behind it is.

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

import trio

from engine.errors import DiskFault, SnapshotDamaged
from engine.filtered_frame import FILTERED_HEADER_BYTES
from engine.limits import FRAME_BYTES_MAX
from engine.record import FrameFault, unpack_header
from server.faults import first_of
from server.replication.bootstrap import Bootstrap, ShowBytes, no_bytes
from server.replication.failure import REBUILD, FollowingFailed
from server.replication.frame_queue import DigestCheck, FrameQueue
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
from server.replication.progress import FollowingState, Progress
from server.replication.replicas import Replica
from server.replication.retry import Backoff

MESSAGE_BYTES_MAX = FILTERED_HEADER_BYTES + 2 * FRAME_BYTES_MAX
"""The longest message from a leader: a frame, or a part of one with the places of its records."""

_HEAD_OF_PART = 8


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
        progress: Progress | None = None,
        on_progress: ShowBytes = no_bytes,
        on_state: Callable[[FollowingState, str], None] = lambda _state, _reason: None,
        on_heard: Callable[[], None] = lambda: None,
        on_welcome: Callable[[Welcome], None] = lambda _welcome: None,
    ) -> None:
        """`blocks`: whether digests are worth a thread. `on_state` is told of each change of state, and why.

        `on_heard` is called whenever the leader was heard, `on_welcome` with each welcome. All must be quick, and must
        not raise.
        """
        self.replica = replica
        self._leader = leader
        self._bootstrap = bootstrap
        self._token = token
        self._uniform = uniform
        self._blocks = blocks
        self._timing = timing or LinkTiming()
        self._on_progress = on_progress
        self._on_state = on_state
        self._on_heard = on_heard
        self._on_welcome = on_welcome
        self._progress = progress or Progress(replica.scoreboard, clock_ms)
        self._needs_snapshot = replica.tail is None
        self.status = self._progress.status
        self.wait_until = self._progress.wait_until

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow until following fails, or is cancelled."""
        task_status.started()
        backoff = Backoff(self._uniform)
        while True:
            began_s = trio.current_time()
            try:
                await self._once()
            except FollowingFailed as failure:
                self._become("failed", str(failure))
                return
            except _OlderLeader as older:
                self._become("refused_older_leader", older.reason)
                backoff.to_cap()  # an operator is needed, and no second counts
            except LinkEnded as ended:
                self._become("disconnected", ended.reason)
            finally:
                self._progress.disconnected()
            if trio.current_time() - began_s >= self._timing.lived_seconds:
                backoff.reset()
            await backoff.wait()

    # One link

    async def _once(self) -> None:
        """Bootstrap if need be, open one link, and follow it to its end. Raises why it ended."""
        if self._needs_snapshot:
            await self._fetch()
        self._become("connecting", self._progress.reason)
        hello = hello_of(self.replica.tail, self.replica.shard)
        target = f"{LOG_PATH}?{hello.query}"
        async with open_link(
            self._leader, target, self._token(), message_bytes_max=MESSAGE_BYTES_MAX, timing=self._timing
        ) as link:
            first = await link.receive(self._timing.silence_seconds_max)
            welcome = self._admitted(_decode(first))
            self.replica.begin_link(bytes.fromhex(welcome.log_id))
            self._progress.welcomed(welcome)
            self._on_welcome(welcome)
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
            self._progress.heard_of_epoch(message.epoch)
            where = "" if message.leader is None else f", whose leader is at {message.leader}"
            raise _OlderLeader(f"the leader was deposed: it is of an older epoch than {message.epoch}{where}")
        if not isinstance(message, Welcome):
            raise LinkEnded("the leader did not begin with a welcome")
        if message.epoch < epoch:
            raise _OlderLeader(f"the leader is of epoch {message.epoch}, this replica has seen {epoch}")
        return message

    async def _fetch(self) -> None:
        """Fetch a snapshot and go on from it. Without one, the log is followed from its beginning."""
        self._become("bootstrapping", self._progress.reason)
        try:
            fetched = await self._bootstrap.fetch(self._fetched)
            if fetched is not None:
                await self.replica.restart(fetched.path)
        except SnapshotDamaged as damage:
            raise LinkEnded(f"the snapshot that was downloaded is damaged: {damage.what}") from damage
        self._needs_snapshot = False
        self._progress.applied()

    def _fetched(self, done: int, total: int) -> None:
        self._on_progress(done, total)
        self._progress.fetched(done, total)

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
            failure = first_of(errors)
        except* LinkEnded as errors:
            older, _ = errors.split(_OlderLeader)
            found = first_of(older or errors)
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
                    self._heard(max(head.epoch, self._progress.leader_epoch or 0), head.last_seq)
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
                self._look_whether_caught_up()
            if isinstance(said, Mark):
                comparing.mark(said.seq)
            elif isinstance(said, Digest):
                comparing.theirs(said.seq, said.digests)

    # What is known

    def _heard(self, epoch: int, seq: int) -> None:
        self._progress.heard(epoch, seq)
        self._on_heard()

    def _look_whether_caught_up(self) -> None:
        if self._progress.applied():
            self._become("following", "")

    def _become(self, state: FollowingState, reason: str) -> None:
        if self._progress.become(state, reason):
            self._on_state(state, reason)


def _decode(message: bytes | str) -> FromLeader | None:
    try:
        return decode_from_leader(message) if isinstance(message, str) else None
    except MessageFault as fault:
        raise LinkEnded(str(fault)) from fault
