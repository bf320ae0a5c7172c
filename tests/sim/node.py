"""A node of a simulated run: a machine with a disk, and on it one process after the other, a leader's or a replica's.

`Node.live` starts the next process when the last one has ended, as a machine does that ends it: by a power cut or a
kill, at a step of the disk or at any moment, by a disk that fails, by an operator who stops it. What comes of it is
judged by the books.

    leader      its directory is all there is: what rotted on it is put back from a backup
    replica     follows another node; what rotted is put back, or an operator empties the directory and it begins anew
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

import trio

from engine.actor import Applied
from engine.disk import Disk
from engine.errors import DiskFault, LogDamaged, SnapshotDamaged
from engine.recovery import Finding
from server.node import Core, Role
from server.replica import WholeRole
from server.replication.bootstrap import Bootstrap, prepare_directory
from server.replication.follower import Follower, State
from server.replication.link import Endpoint
from server.replication.replicas import Replica
from server.shipping import timing_of
from snapshots.opening import Opened, open_directory
from snapshots.promotion import MARKER_FILE, Marker, read_marker, write_marker
from tests.sim.books import Books, Broken
from tests.sim.disk import Crash, SimulatedDisk
from tests.sim.hardware import Hardware
from tests.sim.lines import End
from tests.sim.plain import RULES
from tests.sim.process import DATA, Process, leader_role
from tests.sim.profile import START_MS
from tests.sim.trace import Trace

LAST_ANSWERS_S = 0.1
"""After the disk failed, for the answers to those in flight."""

AWAY = 0.3
AWAY_S = 6.0
"""So often a replica is away for longer than a moment, for about so long: what it needs may be gone then."""


class Node:
    """Lives again and again until `close`. `wrap` and `opened` are for variants that are broken on purpose."""

    def __init__(
        self,
        name: str,
        hardware: Hardware,
        books: Books,
        trace: Trace,
        dice: random.Random,
        *,
        follows: str | None = None,
        wrap: Callable[[SimulatedDisk], Disk] = lambda disk: disk,
        opened: Callable[[Opened], None] = lambda _opened: None,
    ) -> None:
        self.name = name
        self.follows = follows
        self.process: Process | None = None
        self.starts = 0
        self._hardware = hardware
        self._profile = hardware.profile
        self._books = books
        self._trace = trace
        self._dice = dice
        self._wrap = wrap
        self._opened = opened
        self._prefix = "" if follows is None else f"{name} "
        self._disk: SimulatedDisk | None = None
        self._ends: list[End] = []
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
            self._hang_up()
            self._hardware.process_ended()
            if self.follows is not None and not self._hardware.calm and self._dice.random() < AWAY:
                await trio.sleep(self._dice.expovariate(1 / AWAY_S))
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
        """The time of the wall, which may be set back while the node is down."""
        return START_MS + int(trio.current_time() * 1000) + self._clock_off_ms

    async def _live_once(self) -> None:
        disk = self._disk = self._hardware.machine.boot()
        self._note("start", self.starts)
        opened = await self.recover(disk)
        if opened is None:
            return
        make = leader_role(disk, opened) if self.follows is None else self._replica_role(disk, opened)
        process = Process(disk, opened, self._profile, self.name, self, make)
        # No `finally` around this: whatever raises through it ends the process without a word, as a crash does.
        async with trio.open_nursery() as nursery:
            self.process = process
            try:
                process.begin(nursery)
                nursery.start_soon(self._end_some_time, process)
                await process.ending.wait()
                if process.alive:
                    await process.stop()
                    self._hardware.machine.kill()
            finally:
                self.process = None
                process.end()
                nursery.cancel_scope.cancel()

    async def recover(self, disk: SimulatedDisk) -> Opened | None:
        """Open the directory; None if it could not be, which must have its reason in what was done to the disk."""
        given = self._wrap(disk)
        try:
            given.make_directory(f"{DATA}/snapshots")
            given.lock(f"{DATA}/lock")
            if self.follows is not None and not await self._prepare(given):
                return None
            opened = open_directory(
                given,
                DATA,
                RULES,
                tell=self.tell,
                random_bytes=self._random_bytes,
                segment_bytes=self._profile.segment_bytes,
            )
            if self.follows is None:
                self._books.recovered(opened, may_be_damaged=self._hardware.flipped)
            else:
                self._books.recovered_replica(self.name, opened, may_be_damaged=self._hardware.flipped)
            self._opened(opened)
        except DiskFault as fault:
            if isinstance(fault, LogDamaged) or (fault.path == f"{DATA}/{MARKER_FILE}" and not self._hardware.ailing):
                self._refused(fault)
                return None
            if not self._hardware.ailing:
                raise Broken(f"a start of {self.name} failed, and nothing was wrong with the disk: {fault}") from fault
            self._note("start failed", fault)
            self._books.counts["starts that failed"] += 1
            return None
        self._hardware.opened()
        return opened

    def _refused(self, damage: DiskFault) -> None:
        if not self._hardware.flipped:
            raise Broken(f"a start of {self.name} was refused, and no bit had flipped: {damage}") from damage
        self._note("refused", damage)
        self._books.counts["refused after a flip"] += 1
        if self.follows is not None and self._dice.random() < 0.5:
            self._note("emptied")
            self._books.counts["replicas that began anew"] += 1
            self._hardware.replace_disk()
            self._books.emptied(self.name)
        else:
            self._hardware.mend()

    def _random_bytes(self, count: int) -> bytes:
        return self._dice.randbytes(count)

    def _note(self, what: str, *details: object) -> None:
        self._trace.note(self._prefix + what, *details)

    # What a process tells

    def tell(self, what: Finding | DiskFault) -> None:
        """See `Witness`."""
        self._note("told", what.situation.name if isinstance(what, Finding) else what)
        if isinstance(what, Finding):
            self._books.counts[what.situation.name] += 1
        elif isinstance(what, LogDamaged | SnapshotDamaged):
            if not self._hardware.flipped:
                raise Broken(f"{self.name} told of damage, and no bit had flipped: {what}")
            self._books.counts["damage told"] += 1
        elif not self._hardware.ailing:
            raise Broken(f"{self.name} told of a fault, and nothing was wrong with the disk: {what}")

    def applied(self, applied: Applied) -> None:
        """See `Witness`."""
        self._note("applied", applied.events[-1].seq, len(applied.events))
        if self.follows is None:
            self._books.applied(applied)
        else:
            self._books.followed(self.name, applied)

    async def disk_failed(self, fault: DiskFault) -> None:
        """See `Witness`."""
        if not self._hardware.ailing:
            raise Broken(f"{self.name} could not write, and nothing was wrong with the disk: {fault}") from fault
        process = self.process
        assert process is not None
        self._note("disk failed", fault)
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
        self._note(kind)
        self._books.counts[f"{self._prefix and 'replica '}ended by {kind}"] += 1
        if kind == "cut":
            self._hardware.cut_power()
        elif kind == "kill":
            self._hardware.machine.kill()
        process.ending.set()

    # Among others

    def is_alive(self) -> bool:
        """See `Called`."""
        return self._disk is not None and self._disk.alive

    def take_call(self, end: End, caller: str) -> bool:
        """See `Called`."""
        process = self.process
        if process is None or not process.alive or process.tasks is None or process.ending.is_set():
            return False
        self.remember(end)
        process.tasks.start_soon(process.serve, end, caller)
        return True

    def remember(self, end: End) -> None:
        """See `Called`."""
        self._ends.append(end)

    def _hang_up(self) -> None:
        """Let the others notice that the process has ended, if they can."""
        for end in self._ends:
            if self._hardware.was_cut:
                end.vanish()
            else:
                end.close()
        self._ends.clear()

    # Following

    def _leader(self) -> Endpoint:
        return Endpoint(f"{self.follows}.{self.name}", 80, False, "")

    def _bootstrap(self, disk: Disk) -> Bootstrap:
        return Bootstrap(
            self._leader(), disk, DATA, token=str, uniform=self._dice.uniform, tell=partial(self._note, "bootstrap")
        )

    def _fetched(self, done: int, total: int) -> None:
        if done == total:
            self._note("fetched a snapshot", total)
            self._books.counts["snapshots fetched"] += 1

    async def _prepare(self, disk: Disk) -> bool:
        """Do what a start of a replica does before it opens its log; False if the process was ended meanwhile."""
        if read_marker(disk, DATA) is None:
            write_marker(disk, DATA, Marker(self._leader().url("")))
        patience_s = float("inf") if self._hardware.calm else self._dice.expovariate(1 / self._profile.ends_every_s)
        with trio.move_on_after(patience_s):
            await prepare_directory(
                disk,
                DATA,
                self._bootstrap(disk),
                tell=self.tell,
                progress=self._fetched,
                segment_bytes=self._profile.segment_bytes,
            )
            return True
        self._note("killed before it served")
        self._hardware.machine.kill()
        return False

    def _replica_role(self, disk: SimulatedDisk, opened: Opened) -> Callable[[Core], Role]:
        def make(core: Core, replica: Replica, on_state: Callable[[State, str], None]) -> Follower:
            def told(state: State, reason: str) -> None:
                self._note("is", state, reason)
                self._books.counts[f"replica {state}"] += 1
                if state == "failed":
                    raise Broken(f"{self.name} can follow no more: {reason}")
                on_state(state, reason)

            return Follower(
                replica, self._leader(), self._bootstrap(disk), token=str, clock_ms=self.clock_ms,
                uniform=self._dice.uniform, blocks=False, timing=timing_of(core), on_progress=self._fetched,
                on_state=told,
            )  # fmt: skip

        def role(core: Core) -> Role:
            marker = read_marker(disk, DATA)
            vouched = marker is not None and marker.caught_up
            return WholeRole(
                core, disk, opened, self._leader(), str, partial(make, core), durable=True, vouched=vouched
            )

        return role
