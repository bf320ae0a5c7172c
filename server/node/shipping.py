"""What a node that has a log serves to replicas, and the snapshots that it takes: the same for a leader and a relay.

Rules:
- `applied` puts a frame into the feed right when it is applied, with no await in between: whoever looks at state, log
  and feed from the event loop sees one moment.
- What a replica still reads is pinned; a mark stands in the feed exactly where a snapshot was captured.
- A relay that is promoted ships on as a leader: `lead` makes a new shipper, and followers come again to be judged anew.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import structlog
import trio

from engine.actor import Applied
from engine.disk import Disk
from engine.errors import DiskFault
from server.api.dependencies import StorageState
from server.http.admission import overloaded
from server.http.connection import Connection
from server.lanes.listener import Lane
from server.node.core import Core, unless
from server.replication.feed import FrameFeed
from server.replication.followers import Followers
from server.replication.link import LinkTiming
from server.replication.messages import SCOPE, Hello
from server.replication.shipper import NodeInfo, Shipper
from server.replication.snapshot_server import SnapshotServer
from snapshots.checkpoint import Captured, Checkpointer
from snapshots.opening import Opened
from snapshots.promotion import Successor
from snapshots.store import Store

log = structlog.get_logger()


def timing_of(core: Core) -> LinkTiming:
    """Give the times of the links of a node; a link is dead after ten heartbeats that did not come."""
    seconds = core.config.replication.heartbeat_seconds
    return LinkTiming(heartbeat_seconds=seconds, silence_seconds_max=10.0 * seconds)


class Shipping:
    """Feed, followers, shipper, snapshots. `captured` is whoever owns the state now."""

    def __init__(
        self,
        core: Core,
        disk: Disk,
        opened: Opened,
        captured: Captured,
        on_deposed: Callable[[Successor], None],
        on_newer: Callable[[Hello], None] = lambda _hello: None,
    ) -> None:
        """`on_newer` is called while we ship as a replica: a follower has seen a newer epoch than we have."""
        config = core.config
        self._core = core
        self._log = opened.log
        self._on_deposed = on_deposed
        self._on_newer = on_newer
        self.feed = FrameFeed(opened.log.tail.seq)
        self.registry = Followers()
        store = Store(disk, config.data_dir)
        self.checkpointer = Checkpointer(
            captured,
            store,
            opened,
            every_events=config.snapshots.every_events,
            keep=config.snapshots.keep,
            log_keep_seconds=config.log.keep_seconds,
            clock_ms=core.clock_ms,
            tell=core.tell,
            pinned_seq=self.registry.pinned_seq,
            on_capture=self.feed.mark,
            on_saved=lambda info, digests: self.feed.digest(info.seq, digests),
        )
        self._captured = captured
        self._shipper = self._make(relays=False, public_url=config.replication.public_url)
        authorize = partial(core.authorize, (SCOPE,))
        self._lane = SnapshotServer(
            disk, store, opened.log, core.scoreboard, self.registry, authorize=authorize, tell=core.tell
        )

    def _make(self, *, relays: bool, public_url: str | None) -> Shipper:
        return Shipper(
            self._log,
            self.feed,
            self.registry,
            authorize=partial(self._core.authorize, (SCOPE,)),
            clock_ms=self._core.clock_ms,
            node=NodeInfo(self._core.config.replication.node_name, public_url or None, relays),
            on_deposed=self._on_deposed,
            on_newer=self._on_newer,
            tell=self._core.tell,
            snapshot_seq=lambda: self.checkpointer.statistics().last_seq,
            timing=timing_of(self._core),
        )

    def relay(self, public_url: str | None) -> None:
        """Ship as a replica; `public_url` is the leader's."""
        self._shipper.introduce(NodeInfo(self._core.config.replication.node_name, public_url, relays=True))

    def lead(self) -> None:
        """Ship as a leader from now on."""
        self._shipper.close()
        self._shipper = self._make(relays=False, public_url=self._core.config.replication.public_url)

    def applied(self, applied: Applied) -> None:
        """Ship a frame that was applied."""
        self.feed.append(applied.synced.frame)

    def lanes(self) -> list[Lane]:
        """The lane of plain requests."""
        return [Lane(self._lane.takes, self._lane.serve)]

    def websocket_lanes(self) -> list[Lane]:
        """The lane of links. The shipper is looked up for each: a promotion makes another one."""
        return [Lane(Shipper.takes, self._serve_link)]

    async def _serve_link(self, connection: Connection) -> bool:
        # A relay that does not hear its leader would pass for fresh: whoever follows it must grow stale as well.
        standing = self._core.standing
        standing.check_read()
        if standing.view is not None and standing.stale_ms() is not None:
            raise overloaded("This replica does not hear its leader, so it can't be followed.")
        return await self._shipper.serve(connection)

    def end_links(self) -> None:
        """End all links; followers come again, and are judged anew."""
        self._shipper.end_links()

    def close_links(self) -> None:
        """End all links, and take no new ones."""
        self._shipper.close()

    async def run_checkpointer(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Take snapshots."""
        task_status.started()
        await self.checkpointer.run()

    async def checkpoint(self) -> None:
        """Leave a snapshot behind, so that the next start is quick. Nothing is lost without it."""
        shutdown = self._core.shutdown
        if shutdown.fault is None and not shutdown.hurried.is_set() and self._captured.tail.seq > 0:
            await unless(shutdown.hurried, self._take)

    async def _take(self) -> None:
        try:
            info = await self.checkpointer.take()
        except DiskFault as fault:
            self._core.disk_failed(fault)
        else:
            log.info("checkpoint", seq=info.seq, path=info.path, bytes=info.bytes)

    def storage(self) -> StorageState:
        """Tell what is on disk."""
        on_disk, last = self._log.statistics(), self.checkpointer.statistics()
        return StorageState(on_disk.bytes, on_disk.segments, last.last_seq, last.last_time_ms, last.failed)
