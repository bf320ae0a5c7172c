"""The leader of a simulated run: the real service, actor, log, recovery and checkpoints, over a simulated disk.

Only what is nearest to the outside is made up: the disk below and the network above. `Process` is one life of it and is
wired here and nowhere else. `Leader` starts one process after the other, and ends them as a machine does: by a power
cut or a kill, at a step of the disk or at any moment, by a disk that fails, by an operator who stops it.

A node that follows the leader would be one more of these: `process` to send requests and viewers to (None while it is
down), and `live` as a task of its own. Network, clients, viewers and books know nothing else of a leader.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from functools import cache

import structlog
import trio

from engine.actor import Actor, Applied
from engine.disk import Disk
from engine.errors import DiskFault, LogDamaged, SnapshotDamaged, WriteFailed
from engine.events import Incremented
from engine.recovery import Finding
from server.access.auth import Principal
from server.access.rates import Rates
from server.metrics import Metrics
from server.protocol import Request, Response
from server.service.audit import Audit
from server.service.parts import Parts, StorageState
from server.service.service import Service
from snapshots.checkpoint import Checkpointer
from snapshots.opening import Opened, open_directory
from snapshots.store import Store
from tests.sim.books import Books, Broken
from tests.sim.disk import Crash, SimulatedDisk
from tests.sim.hardware import Hardware
from tests.sim.plain import RULES
from tests.sim.profile import START_MS, Profile
from tests.sim.screens import Channels
from tests.sim.trace import Trace

DATA = "/data"
LAST_ANSWERS_S = 0.1
"""After the disk failed, for the answers to those in flight."""

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


@cache
def _metrics() -> Metrics:
    """The counters of all runs: nobody reads them."""
    return Metrics()


def _silent(_logger: object, _method: str, _event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    raise structlog.DropEvent


class Process:
    """One life of the leader, from the moment when it serves."""

    def __init__(
        self,
        disk: SimulatedDisk,
        opened: Opened,
        profile: Profile,
        clock_ms: Callable[[], int],
        on_applied: Callable[[Applied], None],
        tell: Callable[[Finding | DiskFault], None],
    ) -> None:
        self.disk = disk
        self.ending = trio.Event()
        self.tasks: trio.Nursery | None = None
        self.log = opened.log
        self.actor = Actor(opened.scoreboard, opened.log, clock_ms=clock_ms, on_applied=on_applied)
        self.channels = Channels(opened.scoreboard, clock_ms)
        self.checkpointer = Checkpointer(
            self.actor,
            Store(disk, DATA),
            opened,
            every_events=profile.every_events,
            keep=profile.keep,
            log_keep_seconds=profile.log_keep_s,
            clock_ms=clock_ms,
            tell=tell,
        )
        logger = structlog.wrap_logger(
            None, processors=[_silent], wrapper_class=structlog.make_filtering_bound_logger("critical")
        )
        self._request_ids = 0
        self.service = Service(
            Parts(
                writer=self.actor,
                log=opened.log,
                authenticator=Anybody(),
                caller_rates=Rates(PER_MINUTE, 1_000),
                user_rates=Rates(PER_MINUTE, 1_000),
                metrics=_metrics(),
                audit=Audit(logger, trio.current_time),
                storage=lambda: StorageState(log_bytes=0, log_segments=0, snapshot_seq=None, snapshot_ms=None),
                not_ready=lambda: None,
                public_reads=True,
                origins=None,
                clock_ms=clock_ms,
                clock_s=trio.current_time,
                new_request_id=self._new_request_id,
            )
        )

    @property
    def alive(self) -> bool:
        """Whether it can still say anything."""
        return self.tasks is not None and self.disk.alive

    async def answer(self, request: Request) -> Response:
        """Answer a request."""
        return await self.service.answer(request, "simulated")

    def _new_request_id(self) -> str:
        self._request_ids += 1
        return f"request-{self._request_ids}"


class Leader:
    """Lives again and again until `close`. `wrap` and `opened` are for variants that are broken on purpose."""

    def __init__(
        self,
        hardware: Hardware,
        books: Books,
        trace: Trace,
        dice: random.Random,
        *,
        wrap: Callable[[SimulatedDisk], Disk],
        opened: Callable[[Opened], None],
    ) -> None:
        self.process: Process | None = None
        self.starts = 0
        self._hardware = hardware
        self._profile = hardware.profile
        self._books = books
        self._trace = trace
        self._dice = dice
        self._wrap = wrap
        self._opened = opened
        self._clock_off_ms = 0
        self._closing = trio.Event()
        self._closed = trio.Event()

    async def live(self) -> None:
        """Start, serve, end, and start again."""
        while not self._closing.is_set():
            self.starts += 1
            self._clock_off_ms = self._dice.randint(-self._profile.clock_jump_ms, self._profile.clock_jump_ms)
            try:
                await self._live_once()
            except* Crash:
                pass
            self._hardware.process_ended()
            await trio.sleep(self._dice.uniform(0.01, 0.5))
        self._closed.set()

    async def close(self) -> None:
        """Stop in good order, and stay so."""
        self._closing.set()
        while not self._closed.is_set():
            if self.process is not None:
                self.process.ending.set()
            with trio.move_on_after(0.1):
                await self._closed.wait()

    def clock_ms(self) -> int:
        """The time of the wall, which may be set back while the leader is down."""
        return START_MS + int(trio.current_time() * 1000) + self._clock_off_ms

    async def _live_once(self) -> None:
        disk = self._hardware.machine.boot()
        self._trace.note("start", self.starts)
        opened = self.recover(disk)
        if opened is None:
            return
        process = Process(disk, opened, self._profile, self.clock_ms, self._applied, self._tell)
        # No `finally` around this: whatever raises through it ends the process without a word, as a crash does.
        async with trio.open_nursery() as nursery:
            process.tasks = nursery
            self.process = process
            try:
                nursery.start_soon(self._run_actor, process)
                nursery.start_soon(process.checkpointer.run)
                nursery.start_soon(process.channels.run)
                nursery.start_soon(self._end_some_time, process)
                await process.ending.wait()
                if process.alive:
                    await self._stop(process)
            finally:
                self.process, process.tasks = None, None
                process.channels.close()
                nursery.cancel_scope.cancel()

    def recover(self, disk: SimulatedDisk) -> Opened | None:
        """Open the directory; None if it could not be, which must have its reason in what was done to the disk."""
        given = self._wrap(disk)
        try:
            given.make_directory(f"{DATA}/snapshots")
            given.lock(f"{DATA}/lock")
            opened = open_directory(
                given,
                DATA,
                RULES,
                tell=self._tell,
                random_bytes=self._random_bytes,
                segment_bytes=self._profile.segment_bytes,
            )
            self._books.recovered(opened, may_be_damaged=self._hardware.flipped)
            self._opened(opened)
        except LogDamaged as damage:
            if not self._hardware.flipped:
                raise Broken(f"a start was refused, and no bit had flipped: {damage}") from damage
            self._trace.note("refused", damage)
            self._books.counts["refused after a flip"] += 1
            self._hardware.mend()
            return None
        except DiskFault as fault:
            if not self._hardware.ailing:
                raise Broken(f"a start failed, and nothing was wrong with the disk: {fault}") from fault
            self._trace.note("start failed", fault)
            self._books.counts["starts that failed"] += 1
            return None
        self._hardware.opened()
        return opened

    def _random_bytes(self, count: int) -> bytes:
        return self._dice.randbytes(count)

    def _tell(self, what: Finding | DiskFault) -> None:
        self._trace.note("told", what.situation.name if isinstance(what, Finding) else what)
        if isinstance(what, Finding):
            self._books.counts[what.situation.name] += 1
        elif isinstance(what, LogDamaged | SnapshotDamaged):
            if not self._hardware.flipped:
                raise Broken(f"damage was told, and no bit had flipped: {what}")
            self._books.counts["damage told"] += 1
        elif not self._hardware.ailing:
            raise Broken(f"a fault was told, and nothing was wrong with the disk: {what}")

    def _applied(self, applied: Applied) -> None:
        assert self.process is not None
        self._trace.note("applied", applied.events[-1].seq, len(applied.events))
        self._books.applied(applied)
        boards = {event.board_id for event in applied.events if isinstance(event, Incremented)}
        if len(boards) == 0 or any(not isinstance(event, Incremented) for event in applied.events):
            boards = set(RULES.points)
        self.process.channels.board_changed(sorted(boards))

    async def _run_actor(self, process: Process) -> None:
        try:
            await process.actor.run()
        except WriteFailed as fault:
            if not self._hardware.ailing:
                raise Broken(f"a write failed, and nothing was wrong with the disk: {fault}") from fault
            self._trace.note("disk failed", fault)
            self._books.counts["writes that failed"] += 1
            await trio.sleep(LAST_ANSWERS_S)
            self._hardware.machine.kill()
            process.ending.set()

    async def _end_some_time(self, process: Process) -> None:
        """End the process from outside."""
        await trio.sleep(self._dice.expovariate(1 / self._profile.ends_every_s))
        if self._hardware.calm:
            return
        kind = self._dice.choice(["cut", "kill", "stop"])
        self._trace.note(kind)
        self._books.counts[f"ended by {kind}"] += 1
        if kind == "cut":
            self._hardware.cut_power()
        elif kind == "kill":
            self._hardware.machine.kill()
        process.ending.set()

    async def _stop(self, process: Process) -> None:
        """End in good order: what waits is answered, and a snapshot is left."""
        await process.actor.drain()
        if process.alive:
            try:
                await process.checkpointer.take()
            except DiskFault as fault:
                self._tell(fault)
            process.log.close()
            self._hardware.machine.kill()
