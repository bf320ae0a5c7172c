"""A node of a simulated quorum: a machine with a disk, and on it one life of a member after the other.

Each life does what `server.node.start_member` does: it fills an empty directory, opens it, and serves the node that
production assembles. It ends by a kill, a power cut or an operator who stops it, and may be paused (SIGSTOP).
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from engine.clock import ClockBounds
from engine.errors import DiskFault
from engine.held_disk import HeldDisk
from engine.log_reader import holds_log
from engine.machine import Applied
from engine.recovery import Finding
from server.node.directories import check_member
from server.node.member_assembly import MemberPlan
from server.node.newcomer import bootstrap_of, prepare
from server.role import Role, State
from snapshots.membership import Membership
from snapshots.opening import Opened, log_directory, open_directory
from snapshots.retention import Removed
from tests.sim.boards import RULES
from tests.sim.books import Books, Broken
from tests.sim.clocks import WallClock
from tests.sim.disk import Crash, SimulatedDisk
from tests.sim.hardware import Hardware
from tests.sim.lines import End
from tests.sim.process import DATA, Process
from tests.sim.profile import START_MS, Profile
from tests.sim.quorum.cloud import Cloud, CloudStream
from tests.sim.quorum.judge import Judge
from tests.sim.quorum.pauses import Pauses
from tests.sim.trace import Trace

STOP_S = 10.0
"""An operator waits so long for a node that was told to stop, and then kills it."""


class MemberNode:
    """Lives again and again until `close`. A witness of its processes (`tests.sim.process.Witness`)."""

    def __init__(
        self, name: str, hardware: Hardware, cloud: Cloud, judge: Judge, trace: Trace, dice: random.Random,
        clock: WallClock, pauses: Pauses,
    ) -> None:  # fmt: skip
        self.name = name
        self.hardware = hardware
        self.process: Process | None = None
        self.starts = 0
        self._profile: Profile = hardware.profile
        self._cloud = cloud
        self._judge = judge
        self._books: Books = judge.books
        self._trace = trace
        self._dice = dice
        self._clock = clock
        self._clock_off_ms = 0
        self._pauses = pauses
        self._disk: SimulatedDisk | None = None
        self._starting = trio.CancelScope()
        self._ends: list[End] = []
        self._closing, self._closed = trio.Event(), trio.Event()

    @property
    def life(self) -> str:
        """The name of this life."""
        return f"{self.name} {self.starts}"

    @property
    def leads(self) -> bool:
        """Whether it takes itself for the leader."""
        return self.process is not None and self.process.node.role.latest.state is State.LEADING

    async def live(self) -> None:
        """Start, serve, end, and start again."""
        while not self._closing.is_set():
            if self._clock.steps:
                await trio.sleep(self._clock.wait_s(trio.current_time()))
            self.starts += 1
            jump_ms = 0 if self._clock.steps else self._profile.clock_jump_ms
            self._clock_off_ms = self._dice.randint(-jump_ms, jump_ms)
            self._starting = trio.CancelScope()
            try:
                with self._starting:
                    await self._live_once()
            except* Crash:
                pass
            self._cloud.leave(self.name)
            for end in self._ends:
                end.close()
            self._ends.clear()
            self.hardware.process_ended()
            await trio.sleep(self._dice.expovariate(1.0) if not self.hardware.calm else 0.1)
        self._closed.set()

    async def _live_once(self) -> None:
        disk = self._disk = self.hardware.machine.boot()
        self._trace.note("start", self.life)
        disk.make_directory(f"{DATA}/snapshots")
        stream = self._cloud.stream(self.name, self.life)
        lock = disk.lock(f"{DATA}/lock")
        opened = await self._recover(HeldDisk(disk, lock), stream)
        plan = MemberPlan(stream=stream, token=str)
        # No `finally` around this: whatever raises through it ends the process without a word, as a crash does.
        async with trio.open_nursery() as nursery:
            process = Process(
                disk, lock, opened, self._profile, self.name, self, plan, self._dice.uniform, self._dice, nursery
            )  # fmt: skip
            self.process = process
            try:
                process.node.role.on_change(partial(self._role_changed, process))
                process.begin(watched=False)
                await process.ending.wait()
                if process.alive:
                    with trio.move_on_after(STOP_S):
                        await process.stop()
                    self.hardware.machine.kill()
            finally:
                self.process = None
                self._books.counts["sealed actions read"] += process.scoreboard.actions.sealed.reads
                process.end()
                nursery.cancel_scope.cancel()

    async def _recover(self, disk: HeldDisk, stream: CloudStream) -> Opened:
        """Fill the directory if it is empty, and open it."""
        check_member(disk, DATA, Membership("scoreboard", stream.origin.tail.log_id.hex()))
        segment_bytes = self._profile.segment_bytes
        if not holds_log(disk, log_directory(DATA)):
            bootstraps = partial(
                bootstrap_of, disk=disk, data_directory=DATA, token=str, uniform=self._dice.uniform, node_id=self.life
            )  # fmt: skip
            await prepare(disk, DATA, stream, bootstraps, tell=self.tell, segment_bytes=segment_bytes)
            self._books.counts["directories filled"] += 1
        opened = open_directory(disk, DATA, RULES, tell=self.tell, segment_bytes=segment_bytes)
        self._judge.recovered(self.name, opened)
        return opened

    def _role_changed(self, process: Process, before: Role, now: Role) -> None:
        if now.state is not before.state:
            self._trace.note("is", self.life, now.state.label)
            self._books.counts[f"became {now.state.label}"] += 1
        if now.state is State.FAILED:
            raise Broken(f"{self.life} can follow no more: {now.reason}")
        if now.state is State.LEADING and before.state is not State.LEADING:
            self._judge.leads(self.life, process.scoreboard)

    # What befalls it

    def end(self, kind: str) -> None:
        """End its process: `kill`, `cut power`, or `stop`, which a paused process does not hear."""
        process = self.process
        if kind == "stop":
            if process is not None and not self.is_paused:
                process.ending.set()
            return
        if kind == "cut power":
            self.hardware.cut_power()
        else:
            self.hardware.machine.kill()
        if process is None:
            self._starting.cancel()
        else:
            process.ending.set()
            self._pauses.go_on(process._tasks)

    def empty(self) -> None:
        """Lose its disk: it begins anew with an empty one."""
        self.end("kill")
        self.hardware.replace_disk()
        self._books.emptied(self.name)

    @property
    def is_paused(self) -> bool:
        return self.process is not None and self._pauses.is_stopped(self.process._tasks)

    async def pause(self, wait: Callable[[], Awaitable[None]]) -> None:
        """Stop its process until `wait` returns."""
        process = self.process
        if process is None or self.is_paused or process.ending.is_set():
            return
        self._pauses.stop(process._tasks)
        await wait()
        self._pauses.go_on(process._tasks)

    async def close(self) -> None:
        """Stop in good order, and stay so."""
        self._closing.set()
        while not self._closed.is_set():
            if self.process is not None:
                self.process.ending.set()
            with trio.move_on_after(0.1):
                await self._closed.wait()

    # What a process asks and tells

    def clock_ms(self) -> int:
        """Give the time of the wall."""
        now_s = trio.current_time()
        return START_MS + int(now_s * 1000) + self._clock_off_ms + self._clock.off_ms(now_s)

    @property
    def clock_bounds(self) -> ClockBounds:
        """See `Witness`."""
        return self._clock.bounds

    def tell(self, what: Finding | DiskFault) -> None:
        """See `Witness`."""
        self._trace.note("told", self.name, what.situation.name if isinstance(what, Finding) else what)
        if not isinstance(what, Finding):
            raise Broken(f"{self.name} told of a fault, and nothing was wrong with the disk: {what}")

    def applied(self, applied: Applied) -> None:
        """See `Witness`."""
        if not self.is_alive():
            return  # the disk has it, and nobody saw more
        self._trace.note("applied", self.name, applied.events[-1].seq, len(applied.events))
        self._judge.applied(self.name, applied)

    def removed(self, _segment: Removed) -> None:
        """See `Witness`."""

    async def disk_failed(self, fault: DiskFault) -> None:
        """See `Witness`."""
        raise Broken(f"{self.name} could not write, and nothing was wrong with the disk: {fault}") from fault

    # Among others: `tests.sim.roads.Called`

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
