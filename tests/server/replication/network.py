"""A leader and its replicas on free ports of the loopback, in one process; `tests.cluster.wires` may join them.

Each node has a listener with the lanes of replication only. Disks are used from the event loop, so a step is done when
it returns. Tests wait for a status or a registry, never for a time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from engine.clock import GivenClock
from engine.commands import Command
from engine.disk import RealDisk
from engine.errors import DiskFault
from engine.local_log import LocalLog
from engine.log import Log
from engine.machine import Applied, StateMachine
from engine.record import Tail, frame_bytes
from engine.scoreboard import Scoreboard
from server.access.lease import Lease
from server.http.messages import Response, error
from server.lanes.listener import Lane, Listener, open_listeners
from server.replication.bootstrap import Bootstrap, prepare_directory
from server.replication.feed import FrameFeed
from server.replication.follower import Follower
from server.replication.followers import Followers
from server.replication.link import LinkTiming, parse_leader
from server.replication.messages import LOG_TARGET, Hello
from server.replication.replicas import ShardReplica, WholeReplica
from server.replication.sharding import Shard
from server.replication.shipment import NodeInfo
from server.replication.shipper import Shipper
from server.replication.snapshot_server import TARGETS, SnapshotServer
from snapshots.action_store import ActionStore
from snapshots.checkpoint import Checkpointer
from snapshots.opening import Opened, open_directory
from snapshots.period_store import PeriodStore
from snapshots.promotion import Successor
from snapshots.store import Store
from tests.server.access.leases import Landlord, lease_of
from tests.server.lanes.support import PATIENCE_SECONDS, Counts, Echo, Played
from tests.snapshots.directories import RULES, SEGMENT_BYTES, InlineDisk, Told
from tests.snapshots.directories import Leader as Writer

TOKEN = "a-token"
QUICK = LinkTiming(
    heartbeat_seconds=0.02, silence_seconds_max=30.0, open_seconds_max=20.0, close_seconds_max=1.0, lived_seconds=0.0
)
"""Heartbeats at once, and no end for silence but where a test wants one."""


async def authorize(authorization: str | None) -> Response | Lease:
    """Let in a request with the token."""
    if authorization == f"Bearer {TOKEN}":
        return lease_of(LANDLORD)
    return error(401, "UNAUTHENTICATED", "A token is required.")


LANDLORD = Landlord()
"""Says when the leases of links end."""


def at_once(_low: float, _high: float) -> float:
    """Wait for nothing between two attempts."""
    return 0.0


class Served:
    """What a node serves to replicas: its log, its snapshots, over a listener."""

    def __init__(
        self,
        directory: Path,
        scoreboard: Scoreboard,
        log: Log,
        feed: FrameFeed,
        *,
        relays: bool = False,
        on_newer: Callable[[Hello], None] = lambda _hello: None,
        timing: LinkTiming = QUICK,
    ) -> None:
        self.deposed: list[Successor] = []
        self.told: list[DiskFault] = []
        self.damaged: list[DiskFault] = []
        self.missing: list[str] = []
        self.feed = feed
        self.followers = Followers()
        self.counts = Counts()
        disk = InlineDisk()
        self.store = Store(disk, str(directory))
        self.shipper = Shipper(
            log,
            feed,
            self.followers,
            marks=scoreboard,
            authorize=authorize,
            clock_ms=lambda: 0,
            node=lambda: NodeInfo("test", "http://public.example", relays),
            successor=lambda: self.deposed[-1] if self.deposed else None,
            on_deposed=self.deposed.append,
            on_newer=on_newer,
            tell=self.told.append,
            snapshot_seq=self.newest_snapshot,
            erased_seq=lambda: scoreboard.erasures.last_seq,
            timing=timing,
        )
        self.lane = SnapshotServer(
            disk,
            self.store,
            PeriodStore(disk, str(directory)),
            ActionStore(disk, str(directory)),
            log,
            scoreboard,
            self.followers,
            authorize=authorize,
            tell=self.told.append,
            on_damage=self.damaged.append,
            on_missing=self.missing.append,
        )
        self.port = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Listen."""
        application: Any = Played()
        listener = Listener(
            await open_listeners("127.0.0.1", 0),
            application=application,
            live=Echo(),
            metrics=self.counts,
            lanes=[Lane(TARGETS, self.lane.serve)],
            websocket_lanes=[Lane(frozenset({LOG_TARGET}), self.shipper.serve)],
        )
        async with trio.open_nursery() as nursery:
            ((_, self.port),) = await nursery.start(listener.run)
            yield
            self.shipper.close()
            await listener.drain(0.0)

    def newest_snapshot(self) -> int | None:
        """Give the seq of the newest snapshot."""
        return next((info.seq for info in self.store.list()), None)

    @property
    def url(self) -> str:
        """Give its URL."""
        return f"http://127.0.0.1:{self.port}"


class Leader(Served):
    """A leader: a directory that is written to frame by frame."""

    def __init__(self, directory: Path, *, timing: LinkTiming = QUICK, ring_bytes: int = 2**20) -> None:
        self.writer = Writer(directory)
        feed = FrameFeed(self.writer.log.tail.seq, ring_bytes=ring_bytes)
        super().__init__(directory, self.writer.scoreboard, self.writer.log, feed, timing=timing)
        self.capture = self.writer.scoreboard.capture
        self.checkpointer = Checkpointer(
            _Captured(self.writer),
            self.writer.store,
            self.writer.opened,
            every_events=10**9,
            keep=2,
            log_keep_seconds=None,
            clock=GivenClock(lambda: 0),
            tell=lambda _: None,
            pinned_seq=self.followers.pinned_seq,
            on_capture=feed.mark,
            on_saved=lambda info, digests: feed.digest(info.seq, digests),
        )

    def play(self, frames: int, *, per_frame: int = 4) -> None:
        """Write so many frames, and ship them."""
        for _ in range(frames):
            before = self.writer.log.tail.seq
            self.writer.play(1, per_frame=per_frame)
            self._ship(before)

    def write(self, commands: list[Command]) -> None:
        """Write one frame, and ship it."""
        before = self.writer.log.tail.seq
        self.writer.write(commands)
        self._ship(before)

    def begin_epoch(self) -> None:
        """Begin the next epoch."""
        before = self.writer.log.tail.seq
        self.writer.begin_epoch()
        self._ship(before)

    def _ship(self, before: int) -> None:
        if self.writer.log.tail.seq > before:
            for frame in self.writer.log.read_from(before + 1):
                self.feed.append(frame_bytes(frame))

    @property
    def seq(self) -> int:
        """The seq of the last event."""
        return self.writer.log.tail.seq


class _Captured:
    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    @property
    def tail(self) -> Tail:
        return self._writer.tail

    def capture(self) -> Any:
        return self._writer.scoreboard.capture(), self._writer.tail


class Running:
    """A running follower, and what it told."""

    def __init__(self, follower: Follower, scope: trio.CancelScope) -> None:
        self.follower = follower
        self.scoreboard = follower.replica.scoreboard
        self.scope = scope
        self.ended = trio.Event()

    async def reaches(self, seq: int) -> None:
        """Wait until everything up to a seq is applied."""
        await self.follower.wait_until(lambda status: status.seq >= seq or status.state == "failed")
        status = self.follower.status()
        assert status.seq == seq, status

    async def fails(self) -> str:
        """Wait for the end of following; give the reason."""
        await self.follower.wait_until(lambda status: status.state == "failed")
        await self.ended.wait()
        return self.follower.status().reason

    async def is_in(self, state: str) -> None:
        """Wait for a state."""
        await self.follower.wait_until(lambda status: status.state == state)

    async def stop(self) -> None:
        """End it."""
        self.scope.cancel()
        await self.ended.wait()


class Replicated:
    """A replica with a directory: prepared, opened, with a feed of its own."""

    def __init__(
        self, directory: Path, opened: Opened, url: str, timing: LinkTiming, disk: RealDisk, *, durable: bool
    ) -> None:
        self.directory = directory
        self.applied: list[Applied] = []
        self.states: list[tuple[str, str]] = []
        self.opened = opened
        self.log = opened.log
        self.feed = FrameFeed(opened.log.tail.seq)
        machine = StateMachine(opened.scoreboard, LocalLog(opened.log), self._applied)
        self.replica = WholeReplica(disk, str(directory), machine, opened.log, self.feed, durable=durable)
        self.follower = make_follower(
            self.replica, url, directory, timing, disk, on_state=lambda state, why: self.states.append((state, why))
        )

    def _applied(self, applied: Applied) -> None:
        self.feed.append(applied.synced.frame)
        self.applied.append(applied)

    def relaying(self) -> Served:
        """Give what it serves to its own followers."""
        return Served(self.directory, self.opened.scoreboard, self.log, self.feed, relays=True)


def make_bootstrap(url: str, directory: Path, told: list[str] | None = None, disk: RealDisk | None = None) -> Bootstrap:
    """Make what fetches snapshots."""
    return Bootstrap(
        parse_leader(url),
        disk or InlineDisk(),
        str(directory),
        token=lambda: TOKEN,
        uniform=at_once,
        tell=(told if told is not None else []).append,
    )


def make_follower(
    replica: Any, url: str, directory: Path, timing: LinkTiming = QUICK, disk: RealDisk | None = None, **more: Any
) -> Follower:
    """Make a follower of a replica."""
    return Follower(
        replica,
        parse_leader(url),
        make_bootstrap(url, directory, disk=disk),
        token=lambda: TOKEN,
        clock_ms=lambda: 0,
        uniform=at_once,
        blocks=False,
        timing=timing,
        **more,
    )


async def open_replica(
    directory: Path, url: str, *, timing: LinkTiming = QUICK, disk: RealDisk | None = None, durable: bool = True
) -> Replicated:
    """Prepare a directory and open it."""
    disk = disk or InlineDisk()
    told = Told()
    await prepare_directory(disk, str(directory), make_bootstrap(url, directory, disk=disk), tell=told)
    opened = open_directory(disk, str(directory), RULES, tell=told, segment_bytes=SEGMENT_BYTES)
    return Replicated(directory, opened, url, timing, disk, durable=durable)


def open_shard(directory: Path, url: str, shard: Shard, *, timing: LinkTiming = QUICK) -> Follower:
    """Make a follower of one shard."""
    replica = ShardReplica(InlineDisk(), Scoreboard(RULES), shard, on_applied=lambda _: None)
    return make_follower(replica, url, directory, timing)


async def start(nursery: trio.Nursery, follower: Follower) -> Running:
    """Let a follower run."""
    running = Running(follower, trio.CancelScope())

    async def run() -> None:
        try:
            with running.scope:
                await follower.run()
        finally:
            running.ended.set()

    nursery.start_soon(run)
    return running


async def follow_so_far(directory: Path, leader: Leader, nursery: trio.Nursery) -> Replicated:
    """Make a replica that has everything of a leader, and follows no more."""
    replica = await open_replica(directory, leader.url)
    running = await start(nursery, replica.follower)
    await running.reaches(leader.seq)
    await running.stop()
    return replica


@asynccontextmanager
async def patience() -> AsyncIterator[trio.Nursery]:
    """A nursery for a test. A test that hangs fails, and tasks that still run at its end are cancelled."""
    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            yield nursery
            nursery.cancel_scope.cancel()
