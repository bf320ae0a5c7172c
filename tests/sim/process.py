"""One life of a node in a simulated run: the real role, service, log, checkpoints and links, over a simulated disk.

Only what is nearest to the outside is made up: the disk below, and above it the network, the live channel's sockets and
the core that a role is wired to. `SimulatedCore` is that: what a role uses of `server.node.core.Core`, without doors,
keys and threads.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Protocol, cast

import msgspec
import structlog
import trio

from engine.actor import Applied
from engine.errors import DiskFault
from engine.events import Incremented
from engine.recovery import Finding
from engine.scoreboard import Scoreboard
from server.access.auth import Principal
from server.access.rates import Rates
from server.api.audit import Audit
from server.api.dependencies import Parts
from server.api.pipeline import Service
from server.api.standing import Gate, Standing
from server.http.admission import BodyMemory
from server.http.connection import Connection, HttpBounds
from server.http.messages import Refused, Request, Response
from server.metrics import Metrics
from server.node.core import Core, Role, Shutdown
from server.node.leader import Leader
from server.settings.config import Config, LogConfig, ReplicationConfig, SnapshotsConfig
from snapshots.opening import Opened
from tests.sim.disk import SimulatedDisk
from tests.sim.lines import End
from tests.sim.profile import Profile
from tests.sim.screens import Channels

DATA = "/data"
BEHIND_WAIT_S = 2.0
"""How long a read waits for its position."""

PER_MINUTE = 10_000_000
"""Rates are tested elsewhere; here they refuse nobody."""


class Anybody:
    """Believes that everybody may do everything."""

    generation = 0

    async def authenticate(self, authorization: str | None) -> Principal | Response:
        """See `Authenticator`."""
        return self.recall(authorization)

    def recall(self, _authorization: str | None) -> Principal:
        """See `Authenticator`."""
        return Principal("backend", frozenset({"admin"}), None, math.inf)

    def is_current(self, _principal: Principal, _generation: int) -> bool:
        """See `Authenticator`."""
        return True


class Witness(Protocol):
    """Whoever lives this life: is told what a core is told, and judges it."""

    def clock_ms(self) -> int:
        """Give the time of the wall."""

    def tell(self, what: Finding | DiskFault) -> None:
        """Take what recovery or a checkpoint came upon."""

    def applied(self, applied: Applied) -> None:
        """Take a frame that was applied."""

    async def disk_failed(self, fault: DiskFault) -> None:
        """Give the last answers a moment to leave, and end."""


class _Kept(msgspec.Struct, frozen=True):
    """How long segments stay; the real configuration knows no 0."""

    keep_seconds: float | None


class SimulatedCore:
    """See above. `url` is where it would listen; `over`: the process has ended, though its last tasks may not have."""

    def __init__(self, witness: Witness, profile: Profile, scoreboard: Scoreboard, name: str) -> None:
        self.config = Config(
            data_dir=DATA,
            snapshots=SnapshotsConfig(every_events=profile.every_events, keep=profile.keep),
            log=cast(LogConfig, _Kept(profile.log_keep_s)),
            replication=ReplicationConfig(node_name=name),
        )
        self.scoreboard = scoreboard
        self.shutdown = Shutdown()
        self.standing = Standing(wait_seconds=BEHIND_WAIT_S)
        self.gate = Gate(scoreboard, self.standing)
        self.tasks: trio.Nursery | None = None
        self.over = False
        self.url = f"http://{name}"
        self.clock_ms = witness.clock_ms
        self.tell = witness.tell
        self.live = Channels(scoreboard, witness.clock_ms, self.standing)
        self._witness = witness

    def applied(self, applied: Applied) -> None:
        """See `Core`."""
        self._witness.applied(applied)
        boards = {event.board_id for event in applied.events if isinstance(event, Incremented)}
        if any(not isinstance(event, Incremented) for event in applied.events):
            boards = set(self.scoreboard.boards)
        self.live.board_changed(sorted(boards))
        self.standing.advanced()

    async def watched(
        self, part: Callable[..., Awaitable[None]], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """See `Core`."""
        try:
            await part(task_status=task_status)
        except DiskFault as fault:
            await self._witness.disk_failed(fault)

    def disk_failed(self, fault: DiskFault) -> None:
        """See `Core`."""
        if self.over:
            return  # a promotion, which nothing cancels, has come upon a disk that is gone
        if self.shutdown.wanted.is_set():
            self.tell(fault)  # it ends anyway
        else:
            assert self.tasks is not None, "nothing is written before it serves"
            self.tasks.start_soon(self._witness.disk_failed, fault)
        self.shutdown.fail(fault)

    async def authorize(self, _scopes: tuple[str, ...], _authorization: str | None) -> Response | None:
        """Let everybody in."""
        return None


@cache
def _metrics() -> Metrics:
    """The counters of all runs: nobody reads them."""
    return Metrics()


MakeRole = Callable[[Core], Role]


def leader_role(disk: SimulatedDisk, opened: Opened) -> MakeRole:
    """Be a leader."""
    return lambda core: Leader(core, disk, opened)


class Process:
    """One life of a node, from the moment when it serves."""

    def __init__(
        self, disk: SimulatedDisk, opened: Opened, profile: Profile, name: str, witness: Witness, make: MakeRole
    ) -> None:
        self.disk = disk
        self.ending = trio.Event()
        self.scoreboard = opened.scoreboard
        self.log = opened.log
        self.core = SimulatedCore(witness, profile, opened.scoreboard, name)
        self.channels = self.core.live
        self.role = make(cast(Core, self.core))
        self._name = name
        self._request_ids = 0
        self.service = Service(
            Parts(
                writer=self.core.gate,
                log=opened.log,
                authenticator=Anybody(),
                caller_rates=Rates(PER_MINUTE, 1_000),
                user_rates=Rates(PER_MINUTE, 1_000),
                metrics=_metrics(),
                audit=Audit(structlog.get_logger(), trio.current_time),
                storage=self.role.storage,
                not_ready=self.role.not_ready,
                public_reads=True,
                origins=None,
                clock_ms=witness.clock_ms,
                clock_s=trio.current_time,
                new_request_id=self._new_request_id,
                standing=self.core.standing,
                followers=self.role.followers,
                promote=self.role.promote,
            )
        )

    @property
    def tasks(self) -> trio.Nursery | None:
        """Where its tasks run; None before and after its life."""
        return None if self.core.over else self.core.tasks

    @property
    def alive(self) -> bool:
        """Whether it can still say anything."""
        return self.tasks is not None and self.disk.alive

    def begin(self, tasks: trio.Nursery) -> None:
        """Begin to serve."""
        self.core.tasks = tasks
        for part in reversed(self.role.parts()):
            tasks.start_soon(self.core.watched, part)
        tasks.start_soon(self.channels.run)

    async def stop(self) -> None:
        """End in good order: what waits is answered, and a snapshot is left."""
        self.core.shutdown.wanted.set()
        self.role.close_links()
        await self.role.end()
        if self.disk.alive:
            self.role.close()

    def end(self) -> None:
        """Be gone."""
        self.core.over = True
        self.channels.close()

    async def answer(self, request: Request) -> Response:
        """Answer a request."""
        return await self.service.answer(request, "simulated")

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
                self.core.tell(fault)
        finally:
            connection.close()

    async def _converse(self, connection: Connection) -> None:
        more = await connection.read_head()
        while more:
            inbound = connection.request
            lanes = [*self.role.lanes(), *self.role.websocket_lanes()]
            lane = next((lane for lane in lanes if lane.takes(inbound)), None)
            if lane is None:
                raise Refused(404, "NOT_FOUND", "There is no such lane.")
            more = await lane.serve(connection)

    def _new_request_id(self) -> str:
        self._request_ids += 1
        return f"request-{self._request_ids}"
