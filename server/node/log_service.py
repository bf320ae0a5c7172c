"""The log service of a node: ship the log to followers, take snapshots, and serve them to new replicas.

    StateMachine ──► feed (a ring of frames) ──► shipper ══► followers
         └────────── checkpointer ──► snapshots ──► snapshot server ══► new replicas

A leader and a relay have the same one, and a promotion does not change it. The shipper asks the role each time whether
it ships as a leader or as a relay.

Rules:
- A frame is added to the feed right after it was applied, without an await in between. So on the event loop state, log
  and feed always agree.
- The log that a replica still reads is pinned. A mark stands in the feed exactly where a snapshot was captured.
- A relay that does not hear its leader can't be followed: its followers must become stale too. It answers them with the
  path that it knows.
- Followers hear a newer word of the leader at once, not with the next heartbeat of a relay.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import structlog
import trio

from engine.errors import DiskFault, NoSpace
from engine.forgetful_log import ForgetfulLedger
from engine.ledger import Ledger
from engine.machine import StateMachine
from server.api.dependencies import StorageState
from server.api.role_checks import RoleChecks
from server.http.connection import Connection
from server.lanes.listener import Lane
from server.node.erasure_keeper import ErasureKeeper
from server.node.period_keeper import PeriodKeeper
from server.node.shutdown import Task, unless
from server.node.storage_watch import StorageWatch
from server.node.surroundings import Surroundings
from server.replication.feed import FrameFeed
from server.replication.followers import Followers
from server.replication.messages import LOG_TARGET, Hello
from server.replication.paths import lengthened
from server.replication.progress import Progress
from server.replication.shipment import NodeInfo
from server.replication.shipper import Authorize, Shipper
from server.replication.snapshot_server import TARGETS, SnapshotServer
from server.role import CurrentRole, Role, State
from snapshots.action_store import ActionStore
from snapshots.checkpoint import Checkpointer
from snapshots.opening import Opened
from snapshots.promotion import Successor
from snapshots.sealing import Sealer
from snapshots.store import SnapshotInfo, Store

log = structlog.get_logger()


class LogService:
    """The shipper and the snapshots of one node. `followers` are the open links, `ledger` reads of users."""

    def __init__(
        self,
        world: Surroundings,
        opened: Opened,
        machine: StateMachine,
        feed: FrameFeed,
        role: CurrentRole,
        checks: RoleChecks,
        watch: StorageWatch,
        progress: Progress | None,
        periods: PeriodKeeper,
        erasures: ErasureKeeper,
        sealer: Sealer,
        *,
        authorize: Authorize,
        on_deposed: Callable[[Successor], None],
        on_newer: Callable[[Hello], None],
    ) -> None:
        """`progress` is that of a replica, None on a leader."""
        config = world.config
        self._world = world
        self._log = opened.log
        self._machine = machine
        self._feed = feed
        self._role = role
        self._checks = checks
        self._watch = watch
        self._progress = progress
        self._erasures = erasures
        self._sealer = sealer
        self._woken_s = -math.inf
        self.followers = Followers()
        self.ledger = ForgetfulLedger(Ledger(world.disk, opened.log), erasures.unsettled)
        store = Store(world.disk, config.data_dir)
        self._checkpointer = self._make_checkpointer(opened, store)
        self._shipper = Shipper(
            opened.log,
            feed,
            self.followers,
            marks=machine.scoreboard,
            authorize=authorize,
            clock_ms=world.clock.now_ms,
            node=self._node_info,
            successor=self._successor,
            on_deposed=on_deposed,
            on_newer=on_newer,
            tell=world.tell,
            snapshot_seq=lambda: self._checkpointer.statistics().last_seq,
            erased_seq=lambda: erasures.rewritten_seq,
            timing=world.link_timing,
        )
        self._snapshots = SnapshotServer(
            world.disk, store, periods.store, ActionStore(world.disk, config.data_dir), opened.log, machine.scoreboard,
            self.followers, authorize=authorize, tell=world.tell, on_damage=sealer.damaged, on_missing=sealer.wanted,
        )  # fmt: skip
        role.on_change(self._role_changed)

    def _make_checkpointer(self, opened: Opened, store: Store) -> Checkpointer:
        config = self._world.config
        return Checkpointer(
            self._machine,
            store,
            opened,
            every_events=config.snapshots.every_events,
            keep=config.snapshots.keep,
            log_keep_seconds=config.log.keep_seconds,
            clock=self._world.clock,
            tell=self._world.tell,
            on_removed=self._world.removed,
            pinned_seq=self.followers.pinned_seq,
            on_capture=self._feed.mark,
            on_saved=lambda info, digests: self._feed.digest(info.seq, digests),
            before_capture=self._before_snapshot,
            settle=self._settle,
        )

    def _node_info(self) -> NodeInfo:
        """Describe this node to followers. A relay passes on what it knows of its leader."""
        role, replication, progress = self._role.now, self._world.config.replication, self._progress
        us, key = self._world.node, self._world.key_exchange.shared()
        if not role.is_replica or progress is None:
            url = replication.public_url or self._world.url
            return NodeInfo(replication.node_name, replication.public_url or None, path=(us,), leader_url=url, key=key)
        unfit = ""
        if not role.vouches:
            unfit = role.reason
        elif role.state is State.STALE:
            unfit = progress.loop or "it does not hear its leader"
        return NodeInfo(
            replication.node_name,
            role.public_url,
            relays=True,
            path=lengthened(us, progress.path),
            word_s=progress.heard_at_s,
            leader_seq=progress.leader_seq,
            unfit=unfit,
            leader_url=role.public_url or role.leader,
            key=key,
        )

    def _successor(self) -> Successor | None:
        """Give what is known of an epoch that outranks ours: the one that deposed us, or that a relay heard of."""
        role = self._role.now
        return self._progress.successor if role.is_replica and self._progress is not None else role.successor

    def depose(self, successor: Successor) -> None:
        """Depose this leader: its epoch is outranked."""
        if self._role.now.state in (State.LEADING, State.DEPOSED):
            self._shipper.depose(successor)

    def leader_heard(self) -> None:
        """Have the links pass on a newer word of the leader, about once a heartbeat."""
        word_s = self._progress.heard_at_s if self._progress is not None else None
        if word_s is not None and word_s - self._woken_s >= self._world.config.replication.heartbeat_seconds / 2:
            self._woken_s = word_s
            self._feed.wake()

    def _role_changed(self, before: Role, now: Role) -> None:
        # Followers come again, and are judged anew by a leader or by a relay that hears its leader.
        if now.state is not before.state and now.state in (State.STALE, State.LEADING):
            self._shipper.end_links()

    def lanes(self) -> tuple[Lane, ...]:
        return (Lane(TARGETS, self._snapshots.serve),)

    def websocket_lanes(self) -> tuple[Lane, ...]:
        return (Lane(frozenset({LOG_TARGET}), self._serve_link),)

    async def _serve_link(self, connection: Connection) -> bool:
        if self._role.now.state is State.FAILED:
            self._checks.check_read()
        return await self._shipper.serve(connection)

    def close_links(self) -> None:
        self._shipper.close()

    async def _before_snapshot(self) -> None:
        await self._sealer.seal()
        await self._erasures.before_snapshot()  # last: nothing may be awaited between what it looks at and the capture

    async def _settle(self, info: SnapshotInfo) -> None:
        try:
            await self._sealer.forget()
            await self._erasures.settle(info, self._shipper.end_links, self._sealer.tidy)
        except DiskFault as fault:
            self._world.tell(fault)

    def damaged(self, fault: DiskFault) -> None:
        """Note that a file of older actions is damaged: it is made anew."""
        self._sealer.damaged(fault)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What runs as long as the node serves."""
        return (self._run_checkpointer, self._sealer.run, self._run_erasures)

    async def _run_erasures(self, *, task_status: trio.TaskStatus[None]) -> None:
        await self._erasures.run(self._checkpointer.take, task_status=task_status)

    async def _run_checkpointer(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await self._checkpointer.run()

    async def checkpoint(self) -> None:
        """Take a last snapshot, unless the end is hurried: it makes the next start quick."""
        shutdown = self._world.shutdown
        if shutdown.fault is None and not shutdown.hurried.is_set() and self._machine.tail.seq > 0:
            await unless(shutdown.hurried, self._take)

    async def _take(self) -> None:
        try:
            info = await self._checkpointer.take()
        except NoSpace as fault:
            self._world.tell(fault)  # the next start takes longer, and that is all
        except DiskFault as fault:
            self._world.guard.disk_failed(fault)
        else:
            log.info("checkpoint", seq=info.seq, path=info.path, bytes=info.bytes)

    def storage(self) -> StorageState:
        on_disk, last = self._log.statistics(), self._checkpointer.statistics()
        return StorageState(
            on_disk.bytes,
            on_disk.segments,
            last.last_seq,
            last.last_time_ms,
            last.failed,
            free_bytes=self._watch.free_bytes,
            warning=self._watch.warning(),
            erasures_pending=len(self._erasures.unsettled),
            erasure_age_ms=self._erasures.age_ms,
        )
