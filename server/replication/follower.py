"""The follower: it keeps a replica up to date with its leader, through cuts and stalls.

    follower = Follower(replica, leader, bootstrap, token=token, clock_ms=clock_ms, uniform=uniform)
    await nursery.start(follower.run)

    socket ─► receive: the leader's position counts at once ─► frame queue, bounded ─► take, in order ─► replica

Rules:
- Only proved frames are applied (`server.replication.replicas`). A fault in the data ends following for good.
- Everything else is tried again, with full jitter: the leader may be away, restarting, or replaced.
- A leader with an older epoch than ours was deposed. It is not followed, and the replica has not failed: the operator
  may bring the old leader back as a replica.
- A replica whose disk is full takes no link until there is room: it could take nothing, and its state must grow stale.
- A path from our leader that leads through this node is a loop. It is refused, and the reason names its nodes.
- Frames of a relay do not make the leader heard: they may be old. Only a relay's heartbeats do, which have the age of
  the leader's word.
- A link on which nothing is heard for `silence_seconds_max` is dead.
- At a mark the digests of our state are compared with the leader's (`server.replication.frame_queue`).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import trio

from engine.disk import FileMissing
from engine.errors import DiskFault, DiskFull, RunDamaged, SnapshotDamaged
from engine.filtered_frame import FILTERED_HEADER_BYTES
from engine.limits import FRAME_BYTES_MAX
from engine.record import FrameFault, unpack_header
from server import bounds
from server.faults import first_of
from server.replication import messages, paths
from server.replication.bootstrap import Bootstrap
from server.replication.download import ShowBytes, no_bytes
from server.replication.failure import REBUILD, FollowingFailed
from server.replication.frame_queue import DigestCheck, FrameQueue
from server.replication.link import Endpoint, Link, LinkEnded, LinkTiming, open_link
from server.replication.messages import (
    LOG_PATH,
    Digest,
    FromLeader,
    Heartbeat,
    Mark,
    NodeRef,
    Welcome,
    encode,
    hello_of,
)
from server.replication.progress import FollowingState, Progress
from server.replication.replicas import Replica
from server.replication.retry import Backoff

MESSAGE_BYTES_MAX = FILTERED_HEADER_BYTES + 2 * FRAME_BYTES_MAX
"""The longest message from a leader: a frame, or a filtered frame with the places of its records."""

_FILTERED_HEAD = 8
"""Offset of the frame's header in a filtered frame."""


class _OlderLeader(LinkEnded):
    """The leader's epoch is over."""


class _Loop(LinkEnded):
    """What we follow follows us."""


class Follower:
    """Follows one leader. `run` is called once. It returns when following has failed for good."""

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
        node_id: str = "",
        on_progress: ShowBytes = no_bytes,
        on_state: Callable[[FollowingState, str], None] = lambda _state, _reason: None,
        on_heard: Callable[[], None] = lambda: None,
        on_welcome: Callable[[Welcome], None] = lambda _welcome: None,
    ) -> None:
        """`node_id` is ours in the paths of nodes. `blocks`: digests are computed in a worker thread.

        `on_state` gets each new state and its reason, `on_welcome` each welcome. `on_heard` is called whenever the
        leader was heard. All must be quick and must not raise.
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
        self._node_id = node_id
        self._needs_snapshot = replica.tail is None
        self.status = self._progress.status
        self.wait_until = self._progress.wait_until

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow until following fails, or is cancelled. Raises `WriteFailed`."""
        task_status.started()
        backoff = Backoff(self._uniform)
        while True:
            began_s, waits_for_room = trio.current_time(), False
            try:
                await self._once()
            except FollowingFailed as failure:
                self._become("failed", str(failure))
                return
            except _OlderLeader as older:
                self._become("refused_older_leader", older.reason)
                backoff.to_cap()  # it takes an operator to change that
            except _Loop as loop:
                self._progress.loop = loop.reason
                self._become("refused_loop", loop.reason)
                backoff.to_cap()
            except LinkEnded as ended:
                self._become("disconnected", ended.reason)
            except DiskFull as full:
                self._become("disconnected", str(full))
                waits_for_room = True
            finally:
                self._progress.disconnected()
            if trio.current_time() - began_s >= self._timing.lived_seconds:
                backoff.reset()
            if waits_for_room:
                await self._wait_for_room()
            else:
                await backoff.wait()

    async def _wait_for_room(self) -> None:
        """Wait until the replica has room for what it must write next."""
        while True:
            await trio.sleep(bounds.DISK_FULL_RETRY_SECONDS)
            with suppress(DiskFull):
                return await self.replica.make_room()

    # One link

    async def _once(self) -> None:
        """Fetch a snapshot if one is needed, open a link, and follow it to its end. Always raises the reason."""
        if self._needs_snapshot:
            await self._fetch()
        self._become("connecting", self._progress.reason)
        hello = hello_of(self.replica.tail, self.replica.shard, mark=self.replica.scoreboard.mark)
        target = f"{LOG_PATH}?{hello.query}"
        async with open_link(
            self._leader, target, self._token(), message_bytes_max=MESSAGE_BYTES_MAX, timing=self._timing
        ) as link:
            welcome = self._admitted(_decode(await link.receive(self._timing.silence_seconds_max)))
            self._trace(welcome.path)
            self.replica.begin_link(bytes.fromhex(welcome.log_id))
            self._progress.welcomed(welcome)
            self._on_welcome(welcome)
            self._heard(welcome.epoch, welcome.seq, welcome.age_ms)
            self._become("catching_up", "")
            self._applied()
            await self._follow(link, welcome)

    def _admitted(self, message: FromLeader | None) -> Welcome:
        """Give the welcome; raise the meaning of any other answer."""
        seq, epoch = self.replica.scoreboard.seq, self.replica.scoreboard.epoch
        if isinstance(message, messages.SnapshotNeeded):
            self._needs_snapshot = True
            raise LinkEnded(f"a snapshot is needed: {message.reason}")
        if isinstance(message, messages.Diverged):
            raise FollowingFailed(f"the leader says: {message.reason}", epoch=epoch, seq=seq, remedy=REBUILD)
        if isinstance(message, messages.Behind):
            raise LinkEnded(f"the node that is followed is itself behind, at seq {message.seq}")
        if isinstance(message, messages.NoLeader):
            self._trace(message.path)
            raise LinkEnded(f"the node that is followed can't be followed now: {message.reason}")
        if isinstance(message, messages.Deposed):
            # A promotion here must begin an epoch above this one, or two epochs would have one number.
            self._progress.heard_of(message.successor)
            where = "" if message.leader is None else f", whose leader is at {message.leader}"
            raise _OlderLeader(f"the leader was deposed: it is of an older epoch than {message.epoch}{where}")
        if not isinstance(message, Welcome):
            raise LinkEnded("the leader did not begin with a welcome")
        if message.epoch < epoch:
            raise _OlderLeader(f"the leader is of epoch {message.epoch}, this replica has seen {epoch}")
        self._check_mark(message)
        return message

    def _check_mark(self, message: Welcome | Heartbeat) -> None:
        """Check that the leader's epoch is ours if it has the number of ours. Raises `_OlderLeader`."""
        mark = self.replica.scoreboard.mark
        if self.replica.tail is None or not message.history or message.epoch != mark.epoch or message.mark == mark:
            return
        what = f"the leader is of another history of epoch {mark.epoch}"
        raise _OlderLeader(f"{what}: {message.history}, and this replica of {mark.history}")

    def _trace(self, path: tuple[NodeRef, ...]) -> None:
        """Note the path to the leader. Raises `_Loop` if it leads through this node."""
        self._progress.path, loop = paths.cut(path, self._node_id)
        if loop:
            raise _Loop(loop)

    async def _fetch(self) -> None:
        """Fetch a snapshot and go on from it. If the leader has none, the log is followed from its beginning."""
        self._become("bootstrapping", self._progress.reason)
        try:
            fetched = await self._bootstrap.fetch(self._on_progress, actions=self.replica.shard is None)
            if fetched is not None:
                await self.replica.restart(fetched.path)
        except SnapshotDamaged as damage:
            raise LinkEnded(f"the snapshot that was downloaded is damaged: {damage.what}") from damage
        except (RunDamaged, FileMissing) as fault:
            raise LinkEnded(f"a file of older actions can't be used: {fault.what}") from fault
        self._needs_snapshot = False
        self._progress.applied()

    async def _follow(self, link: Link, welcome: Welcome) -> None:
        failure: Exception | None = None
        ended = LinkEnded("the link ended")
        try:
            async with trio.open_nursery() as nursery:
                queue = FrameQueue()
                nursery.start_soon(self._receive, link, queue)
                nursery.start_soon(self._take, queue, nursery)
                nursery.start_soon(self._report, link, min(welcome.heartbeat_seconds, self._timing.heartbeat_seconds))
        except* (FollowingFailed, DiskFault) as errors:
            failure = first_of(errors)
        except* LinkEnded as errors:
            older, _ = errors.split((_OlderLeader, _Loop))
            found = first_of(older or errors)
            assert isinstance(found, LinkEnded)
            ended = found
        raise failure or ended

    async def _receive(self, link: Link, queue: FrameQueue) -> None:
        at = 0 if self.replica.shard is None else _FILTERED_HEAD
        while True:
            message = await link.receive(self._timing.silence_seconds_max)
            if isinstance(message, bytes):
                try:
                    head = unpack_header(message, at)
                except FrameFault:
                    pass  # the replica will refuse it, and say what is wrong
                else:
                    if len(self._progress.path) > 1:
                        self._progress.arrived(head.last_seq)
                    else:
                        self._heard(max(head.epoch, self._progress.leader_epoch or 0), head.last_seq)
                await queue.put(message)
                continue
            said = _decode(message)
            if isinstance(said, Heartbeat):
                if said.epoch < self.replica.scoreboard.epoch:
                    raise _OlderLeader(f"the leader is of epoch {said.epoch}")
                self._check_mark(said)
                self._trace(said.path)
                self._heard(said.epoch, max(said.seq, said.leader_seq), said.age_ms)
                self._applied()
            elif isinstance(said, Mark | Digest):
                await queue.put(said)
            elif said is not None:
                self._admitted(said)

    async def _report(self, link: Link, seconds: float) -> None:
        """Tell the leader our position, which also shows that we are alive."""
        while True:
            tail = self.replica.tail
            if tail is not None:
                await link.send(encode(messages.Position(tail.epoch, tail.seq, self.replica.durable)))
            await trio.sleep(seconds)

    async def _take(self, queue: FrameQueue, nursery: trio.Nursery) -> None:
        check = DigestCheck(self.replica, nursery, self._blocks)
        while True:
            frames, said = await queue.take()
            if frames:
                await self.replica.take(frames)
                self._applied()
            if isinstance(said, Mark):
                check.mark(said.seq)
            elif isinstance(said, Digest):
                check.theirs(said.seq, said.digests)

    def _heard(self, epoch: int, seq: int, age_ms: int = 0) -> None:
        self._progress.heard(epoch, seq, age_ms / 1000)
        self._on_heard()

    def _applied(self) -> None:
        if self._progress.applied():
            self._become("following", "")

    def _become(self, state: FollowingState, reason: str) -> None:
        if self._progress.become(state, reason):
            self._on_state(state, reason)


def _decode(message: bytes | str) -> FromLeader | None:
    try:
        return messages.decode_from_leader(message) if isinstance(message, str) else None
    except messages.MessageFault as fault:
        raise LinkEnded(str(fault)) from fault
