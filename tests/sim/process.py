"""One life of a node in a simulated run: the node that production assembles, over a simulated disk.

Only the surroundings are made up (`server.node.surroundings`): the disk, clocks, chance, tokens, and the sockets of the
live channel. Requests are given to the pipeline directly; links to other nodes run over simulated lines.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from functools import cache
from itertools import count
from typing import Protocol, cast

import msgspec
import structlog
import trio

from engine.clock import ClockBounds
from engine.disk import Lock
from engine.errors import DiskFault
from engine.held_disk import HeldDisk
from engine.machine import Applied
from engine.recovery import Finding
from engine.scoreboard import Scoreboard
from server.access.auth import Principal
from server.api.audit import Audit
from server.api.role_checks import RoleChecks
from server.http.admission import BodyMemory
from server.http.connection import Connection, HttpBounds
from server.http.messages import Refused, Request, Response
from server.metrics import Metrics
from server.node.assembly import FollowPlan, assemble_leader, assemble_replica
from server.node.clock import NodeClock
from server.node.member_assembly import MemberPlan, assemble_member
from server.node.shutdown import Guard, Shutdown, Task
from server.node.surroundings import Surroundings
from server.replication.freshness import Freshness
from server.settings.config import Config, LimitsConfig, LogConfig, PrivacyConfig, ReplicationConfig, SnapshotsConfig
from snapshots.opening import Opened
from snapshots.retention import Removed
from tests.sim.boards import RULES
from tests.sim.clocks import UNMOVED
from tests.sim.disk import SimulatedDisk
from tests.sim.lines import End
from tests.sim.profile import Profile
from tests.sim.screens import Channels

DATA = "/data"
BEHIND_WAIT_S = 2
"""How long a read waits for its position."""

PER_MINUTE = 10_000_000
"""Rates are tested elsewhere; here they refuse nobody."""


STRANGER = "stranger"
"""The token of a caller who sees of a frozen board what the public sees."""


class Anybody:
    """Believes that everybody may do everything, but for a stranger."""

    generation = 0

    async def authenticate(self, authorization: str | None) -> Principal | Response:
        """See `Authenticator`."""
        return self.recall(authorization)

    def recall(self, authorization: str | None) -> Principal:
        """See `Authenticator`."""
        if authorization == STRANGER:
            return Principal(STRANGER, frozenset({"scores:write"}), None, math.inf)
        return Principal("backend", frozenset({"admin"}), None, math.inf)

    def is_current(self, _principal: Principal, _generation: int) -> bool:
        """See `Authenticator`."""
        return True

    def lets_stay(self, _principal: Principal, *, looked: bool) -> bool:
        """See `Authenticates`."""
        return looked


class Witness(Protocol):
    """Whoever lives this life: is told what a core is told, and judges it."""

    def clock_ms(self) -> int:
        """Give the time of the wall."""

    @property
    def clock_bounds(self) -> ClockBounds:
        """Give the bounds of the clock that the node makes of it."""

    def removed(self, segment: Removed) -> None:
        """Take the removal of a segment of the log for its age."""

    def tell(self, what: Finding | DiskFault) -> None:
        """Take what recovery or a checkpoint came upon."""

    def applied(self, applied: Applied) -> None:
        """Take a frame that was applied."""

    async def disk_failed(self, fault: DiskFault) -> None:
        """Give the last answers a moment to leave, and end."""


class _Kept(msgspec.Struct, frozen=True):
    """How long segments stay; the real configuration knows no 0."""

    keep_seconds: float | None


class SimulatedGuard(Guard):
    """Tells the witness what fails. `over`: the process has ended, though its last tasks may not have."""

    def __init__(self, witness: Witness, shutdown: Shutdown, tasks: trio.Nursery) -> None:
        super().__init__(shutdown)
        self.over = False
        self._witness = witness
        self._tasks = tasks
        self._ends = shutdown

    async def watched(self, task: Task, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """See `Guard`."""
        try:
            await task(task_status=task_status)
        except DiskFault as fault:
            await self._witness.disk_failed(fault)

    def disk_failed(self, fault: DiskFault) -> None:
        """See `Guard`."""
        if self.over:
            return  # a promotion, which nothing cancels, has come upon a disk that is gone
        if self._ends.wanted.is_set():
            self._witness.tell(fault)  # it ends anyway
        else:
            self._tasks.start_soon(self._witness.disk_failed, fault)
        self._ends.fail(fault)


class _NoMetrics:
    """Counts nothing of a clock."""

    def clock(self, steps: int, offset_seconds: float) -> None:
        """See `ClockMetrics`."""


class _Unread(Metrics):
    """The counters of all runs: nobody reads them, and parts of nodes are not kept for it."""

    def register(self, collector: object) -> None:
        """See `Metrics`."""


@cache
def _metrics() -> Metrics:
    return _Unread()


class Process:
    """One life of a node, from the moment when it serves. `plan`: of a replica or a member; None: it leads."""

    def __init__(
        self,
        disk: SimulatedDisk,
        lock: Lock,
        opened: Opened,
        profile: Profile,
        name: str,
        witness: Witness,
        plan: FollowPlan | MemberPlan | None,
        uniform: Callable[[float, float], float],
        lots: random.Random,
        tasks: trio.Nursery,
    ) -> None:
        """`lots` draws identities: those of epochs, and that of this process."""
        self.disk = disk
        self._held = HeldDisk(disk, lock)
        self.ending = trio.Event()
        self.scoreboard = opened.scoreboard
        self.log = opened.log
        self._name = name
        self._witness = witness
        self._tasks = tasks
        self._shutdown = Shutdown()
        self._guard = SimulatedGuard(witness, self._shutdown, tasks)
        self._clock = NodeClock(
            _NoMetrics(), wall_ms=witness.clock_ms, monotonic_s=trio.current_time, bounds=witness.clock_bounds
        )
        world = self._surroundings(profile, uniform, lots)
        if isinstance(plan, MemberPlan):
            self.node = assemble_member(world, opened, plan)
        else:
            self.node = assemble_leader(world, opened) if plan is None else assemble_replica(world, opened, plan)

    def _surroundings(
        self, profile: Profile, uniform: Callable[[float, float], float], lots: random.Random
    ) -> Surroundings:
        return Surroundings(
            config=Config(
                boards=RULES.boards,
                actions=profile.actions,
                data_dir=DATA,
                snapshots=SnapshotsConfig(every_events=profile.every_events, keep=profile.keep),
                log=cast(LogConfig, _Kept(profile.log_keep_s)),
                limits=LimitsConfig(caller_per_minute=PER_MINUTE, user_per_minute=PER_MINUTE),
                privacy=PrivacyConfig(erase_within_hours=profile.erase_within_hours),
                quorum=profile.quorum,
                replication=ReplicationConfig(node_name=self._name, behind_wait_seconds=BEHIND_WAIT_S),
            ),
            disk=self._held,
            check_held=self._held.check,
            tasks=self._tasks,
            shutdown=self._shutdown,
            guard=self._guard,
            url=f"http://{self._name}",
            authenticator=Anybody(),
            metrics=_metrics(),
            audit=Audit(structlog.get_logger(), trio.current_time),
            request_ids=map("request-{}".format, count(1)),
            make_live=self._make_live,
            applied=self._witness.applied,
            clock=self._clock,
            clock_s=trio.current_time,
            uniform=uniform,
            random_bytes=lots.randbytes,
            node_id=lots.randbytes(8).hex(),
            tell=self._witness.tell,
            removed=self._witness.removed,
        )

    def _make_live(self, scoreboard: Scoreboard, freshness: Freshness, checks: RoleChecks) -> Channels:
        self.channels = Channels(scoreboard, self._witness.clock_ms, freshness, checks)
        return self.channels

    @property
    def tasks(self) -> trio.Nursery | None:
        """Where its tasks run; None after its life."""
        return None if self._guard.over else self._tasks

    @property
    def alive(self) -> bool:
        """Whether it can still say anything."""
        return self.tasks is not None and self.disk.alive

    def begin(self, *, watched: bool) -> None:
        """Begin to serve. `watched`: with the watch over its directory, in a run in which that may find something."""
        assert self.node.watch is not None
        for task in reversed(self.node.tasks):
            if task == self.node.watch.run and not watched:
                continue  # a task more would change the order of all others, and so each run that once failed
            self._tasks.start_soon(self._guard.watched, task)
        self._tasks.start_soon(self.channels.run)
        if self._witness.clock_bounds is not UNMOVED:
            self._tasks.start_soon(self._clock.run)

    async def stop(self) -> None:
        """End in good order: what waits is answered, and a snapshot is left."""
        self._shutdown.wanted.set()
        self.node.begin_end()
        await self.node.end()
        if self.disk.alive:
            self.node.close()

    def end(self) -> None:
        """Be gone."""
        self._guard.over = True
        self.channels.close()

    async def answer(self, request: Request) -> Response:
        """Answer a request."""
        return await self.node.pipeline.answer(request, "simulated")

    async def serve(self, end: End, caller: str) -> None:
        """Serve a connection of another node, with the lanes that the role has for them."""
        connection = Connection(
            cast(trio.SocketStream, end), (caller, 1), (self._name, 80), "", HttpBounds(), BodyMemory(2**20, 2**20)
        )
        try:
            try:
                await self._converse(connection)
            except Refused as refusal:
                await connection.refuse(refusal)
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        except* DiskFault as faults:
            for fault in faults.exceptions:
                assert isinstance(fault, DiskFault)
                self._witness.tell(fault)
        finally:
            connection.close()

    async def _converse(self, connection: Connection) -> None:
        more = await connection.read_head()
        while more:
            inbound = connection.request
            lanes = [*self.node.lanes(), *self.node.websocket_lanes()]
            lane = next((lane for lane in lanes if (inbound.head.method, inbound.path) in lane.targets), None)
            if lane is None:
                raise Refused(404, "NOT_FOUND", "There is no such lane.")
            more = await lane.serve(connection)
