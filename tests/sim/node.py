"""A node of a simulated run: a machine with a disk, and on it one process after the other, a leader's or a replica's.

`Node.live` starts the next process when the last one has ended, as a machine does that ends it: by a power cut or a
kill, at a step of the disk or at any moment, by a disk that fails, by an operator who stops it. What comes of it is
judged by the books.

    leader      its directory is all there is: what rotted on it is put back from a backup
    replica     follows another node; what rotted is put back, or an operator empties the directory and it begins anew
    successor   a replica that has everything, and is to lead: from then on it is what the books are held against

An operator (`tests.sim.succession`) may hold a node down, and let it start again as something else.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import trio

from engine.clock import ClockBounds
from engine.disk import Disk, Lock
from engine.errors import DiskFault, LogDamaged, RunDamaged, SnapshotDamaged
from engine.events import Event
from engine.held_disk import HeldDisk
from engine.machine import Applied
from engine.recovery import Finding
from snapshots.demotion import finish_exchange
from snapshots.erasing import ErasureReport
from snapshots.mending import Mended
from snapshots.opening import Opened, open_directory
from snapshots.promotion import MARKER_FILE, promote_directory, read_marker
from snapshots.restore import RestoreRefused
from snapshots.retention import Removed
from snapshots.settling import remove_downloads
from tests.sim.boards import RULES
from tests.sim.books import Books, Broken
from tests.sim.clocks import WallClock
from tests.sim.disk import Crash, SimulatedDisk
from tests.sim.erasures import Erasures, erase_on
from tests.sim.followership import Followership
from tests.sim.hardware import RUN, Hardware
from tests.sim.indexes import lacks_runs
from tests.sim.lines import End
from tests.sim.period_files import check_files, lacks_files
from tests.sim.process import DATA, Process
from tests.sim.profile import START_MS
from tests.sim.trace import Trace

LAST_ANSWERS_S = 0.1
"""After the disk failed, for the answers to those in flight."""

TRIES = 3
"""Users that are erased before a start, at most: a replica may have to wait with some."""

AWAY = 0.3
AWAY_S = 6.0
"""So often a replica is away for longer than a moment, for about so long: what it needs may be gone then."""


class Node:
    """Lives again and again until `close`. `wrap` and `opened` are for variants that are broken on purpose.

    `apart` collects what it writes as one of two leaders (`tests.sim.aftermath`), None while the books take it.
    `erasures` says who must be erased here before it serves, in a run in which users are erased.
    `lots` draws the identities of epochs and processes: a generator of its own, so the `dice` fall as they always did.
    """

    def __init__(
        self,
        name: str,
        hardware: Hardware,
        books: Books,
        trace: Trace,
        dice: random.Random,
        lots: random.Random,
        *,
        clock: WallClock,
        follows: str | None = None,
        wrap: Callable[[SimulatedDisk], Disk] = lambda disk: disk,
        opened: Callable[[Opened], None] = lambda _opened: None,
    ) -> None:
        self.name = name
        self.succeeds = False
        self.promotes_stopped = False
        self.apart: list[Event] | None = None
        self.erasures: Erasures | None = None
        self.process: Process | None = None
        self.starts = 0
        self._hardware = hardware
        self._profile = hardware.profile
        self._books = books
        self._trace = trace
        self._dice = dice
        self._lots = lots
        self._wrap = wrap
        self._opened = opened
        self._prefix = "" if follows is None else f"{name} "
        self._followership: Followership | None = None
        if follows is not None:
            self.follow(follows)
        self._disk: SimulatedDisk | None = None
        self._lock: Lock | None = None
        self._ends: list[End] = []
        self._clock_off_ms = 0
        self._clock = clock
        self._began_s = 0.0
        self._held: trio.Event | None = None
        self._closing = trio.Event()
        self._closed = trio.Event()

    @property
    def follows(self) -> str | None:
        """Whom it follows, or is to follow when it starts next; None: it leads."""
        return None if self._followership is None else self._followership.leader

    def follow(self, leader: str) -> None:
        """Follow another node, from the next start on."""
        self._followership = Followership(self, leader, self._profile, self._dice, self._books)

    def lead(self) -> None:
        """Lead from now on."""
        self._followership = None
        self.succeeds = self.promotes_stopped = False

    def hold(self) -> None:
        """Start no more until `release`."""
        self._held = trio.Event()

    def release(self) -> None:
        """Let it start again."""
        assert self._held is not None
        self._held.set()
        self._held = None

    async def live(self) -> None:
        """Start, serve, end, and start again."""
        while not self._closing.is_set():
            if self._clock.steps:
                await trio.sleep(self._clock.wait_s(trio.current_time()))
            if self._held is not None:  # looked at last: it may have come during the wait before
                await self._held.wait()
                continue
            self.starts += 1
            self._clock_off_ms = self._dice.randint(-self._profile.clock_jump_ms, self._profile.clock_jump_ms)
            if self._clock.steps:
                self._clock_off_ms = 0
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
        """The time of the wall, which may be set back while the node is down, and may be wrong for some time."""
        now_s = trio.current_time()
        return START_MS + int(now_s * 1000) + self._clock_off_ms + self._clock.off_ms(now_s)

    @property
    def clock_bounds(self) -> ClockBounds:
        """See `Witness`."""
        return self._clock.bounds

    async def _live_once(self) -> None:
        self._hardware.lose_run()
        disk = self._disk = self._hardware.machine.boot()
        self.note("start", self.starts)
        opened = await self.recover(disk)
        if opened is None:
            return
        following = self._followership
        plan = None if following is None else following.plan(disk)
        if self._clock.wait_s(trio.current_time()):
            self._hardware.machine.kill()  # recovery took so long that the clock is wrong meanwhile
            return
        # No `finally` around this: whatever raises through it ends the process without a word, as a crash does.
        async with trio.open_nursery() as nursery:
            self._began_s = trio.current_time()
            assert self._lock is not None
            process = Process(
                disk, self._lock, opened, self._profile, self.name, self, plan, self._dice.uniform, self._lots, nursery
            )
            self.process = process
            try:
                process.begin(watched=self._hardware.mishaps.any)
                nursery.start_soon(self._end_some_time, process)
                await process.ending.wait()
                if process.alive:
                    await process.stop()
                    self._hardware.machine.kill()
            finally:
                self.process = None
                self._books.counts["sealed actions read"] += process.scoreboard.actions.sealed.reads
                process.end()
                nursery.cancel_scope.cancel()

    async def recover(self, disk: SimulatedDisk) -> Opened | None:
        """Open the directory; None if it could not be, which must have its reason in what was done to the disk."""
        given: Disk = self._wrap(disk)
        try:
            finish_exchange(given, DATA)
            if self.succeeds:
                self._succeed(given)
            elif self._followership is not None and not await self._in_time(self._followership.demote, given):
                return None
            given.make_directory(f"{DATA}/snapshots")
            self._lock = given.lock(f"{DATA}/lock")
            given = HeldDisk(given, self._lock)
            remove_downloads(given, DATA)
            if self._followership is not None and not await self._in_time(self._followership.prepare, given):
                return None
            opened = self._erase(given, self._open(given))
            self._check_files(disk, opened)
            self._opened(opened)
        except RestoreRefused as refusal:
            self.note("not demoted", refusal)
            self._books.counts["demotions refused"] += 1
            self._empty()
            return None
        except DiskFault as fault:
            derived = isinstance(fault, SnapshotDamaged | RunDamaged) and self._hardware.flipped
            damaged = isinstance(fault, LogDamaged) or derived
            if damaged or (fault.path == f"{DATA}/{MARKER_FILE}" and not self._hardware.ailing):
                self._refused(fault)
                return None
            if not self._hardware.ailing and not self._hardware.lacks_room:
                raise Broken(f"a start of {self.name} failed, and nothing was wrong with the disk: {fault}") from fault
            self.note("start failed", fault)
            self._books.counts["starts that failed"] += 1
            return None
        self._hardware.opened()
        return opened

    def _open(self, disk: Disk) -> Opened:
        """Open the directory, and let the books judge what is there."""
        opened = open_directory(
            disk,
            DATA,
            RULES,
            tell=self.tell,
            random_bytes=self._random_bytes,
            segment_bytes=self._profile.segment_bytes,
        )
        if self._followership is None or self.succeeds:
            self._books.recovered(opened, may_be_damaged=self._hardware.flipped)
            self._books.times.began(opened.scoreboard.seq)
        else:
            self._books.recovered_replica(self.name, opened, may_be_damaged=self._hardware.flipped)
        return opened

    def _erase(self, disk: Disk, opened: Opened) -> Opened:
        """Erase who must be erased here, as an operator does before the start; give what is there then."""
        erasures, leads = self.erasures, self._followership is None
        tried = 0
        while erasures is not None and tried < TRIES and erasures.has_work(self.name, leads=leads):
            opened.log.close()
            tried += 1

            def erase(user: str) -> ErasureReport:
                return erase_on(disk, user, self.clock_ms, self.tell, self._profile.segment_bytes)

            self._hardware.erases = True
            user = erasures.work(self.name, self._hardware.machine, erase, leads=leads)
            self._hardware.erases = False
            opened = self._open(disk)
            if user is not None:
                erasures.done(self.name, user)
        return opened

    def _check_files(self, disk: SimulatedDisk, opened: Opened) -> None:
        """Judge the files of past periods. A replica may not have fetched all of them yet."""
        without_room = {ended.past.seq for ended in opened.ended}
        lacking = {*lacks_files(disk, DATA, opened.scoreboard)} - without_room
        if lacking and self._followership is None:
            raise Broken(f"{self.name} leads, and lacks the files of the periods until {lacking}")
        flipped = self._hardware.flipped
        if not flipped and (runs := lacks_runs(disk, DATA, self._profile.keep)):
            raise Broken(f"the snapshots of {self.name} name files of actions that are missing: {runs}")
        compared = check_files(disk, DATA, opened.scoreboard, self._books.plain, may_be_damaged=flipped)
        self._books.counts["period files compared"] += compared

    def _succeed(self, disk: Disk) -> None:
        """Start as a successor: it may have been promoted without having lived to say so, or be promoted now."""
        if self.promotes_stopped and read_marker(disk, DATA) is not None:
            promote_directory(
                disk,
                DATA,
                now_ms=self.clock_ms(),
                tell=self.tell,
                segment_bytes=self._profile.segment_bytes,
                random_bytes=self._lots.randbytes,
            )
        if read_marker(disk, DATA) is None:
            self.lead()

    def _refused(self, damage: DiskFault) -> None:
        if not self._hardware.flipped:
            raise Broken(f"a start of {self.name} was refused, and no bit had flipped: {damage}") from damage
        self.note("refused", damage)
        self._books.counts["refused after a flip"] += 1
        if self._followership is not None and not self.succeeds and self._dice.random() < 0.5:
            self._empty()
        else:
            self._hardware.mend_for_a_start()

    def _empty(self) -> None:
        self.note("emptied")
        self._books.counts["replicas that began anew"] += 1
        self._hardware.replace_disk()
        self._books.emptied(self.name)

    async def _in_time(self, work: Callable[[Disk], Awaitable[None]], disk: Disk) -> bool:
        """Do something of a start that may wait for another node; False if the process was ended meanwhile."""
        patience_s = float("inf") if self._hardware.calm else self._dice.expovariate(1 / self._profile.ends_every_s)
        with trio.move_on_after(patience_s):
            await work(disk)
            return True
        self.note("killed before it served")
        self._hardware.machine.kill()
        return False

    def _random_bytes(self, count: int) -> bytes:
        return self._dice.randbytes(count)

    def note(self, what: str, *details: object) -> None:
        """Note what happened to it."""
        self._trace.note(self._prefix + what, *details)

    # What a process tells

    def tell(self, what: Finding | DiskFault) -> None:
        """See `Witness`."""
        self.note("told", what.situation.name if isinstance(what, Finding) else what)
        if isinstance(what, Finding):
            self._books.counts[what.situation.name] += 1
        elif isinstance(what, LogDamaged | SnapshotDamaged | RunDamaged | Mended) or _is_missing(what):
            if not self._hardware.flipped:
                raise Broken(f"{self.name} told of damage, and no bit had flipped: {what}")
            self._books.counts["damage told"] += 1
            if isinstance(what, Mended):
                self._hardware.made_anew(what.path)
        elif not self._hardware.ailing and not self._hardware.lacks_room:
            raise Broken(f"{self.name} told of a fault, and nothing was wrong with the disk: {what}")

    def applied(self, applied: Applied) -> None:
        """See `Witness`."""
        self.note("applied", applied.events[-1].seq, len(applied.events))
        if self.apart is not None:
            self.apart += applied.events
        elif self._followership is None or self.succeeds:
            self._books.applied(applied)
            if self._clock.steps:
                self._books.times.applied(self.name, self._clock, self._began_s, applied.events)
        else:
            self._books.followed(self.name, applied)

    def removed(self, segment: Removed) -> None:
        """See `Witness`."""
        keep_s = self._profile.log_keep_s
        assert keep_s is not None
        if self._clock.steps:
            self._books.times.removed(self.name, self._clock, self._began_s, keep_s, segment)

    async def disk_failed(self, fault: DiskFault) -> None:
        """See `Witness`."""
        following = self._followership is not None  # it may find no room while it exchanges its files
        lost_run = isinstance(fault, RunDamaged) and self._hardware.flipped
        if not self._hardware.ailing and not lost_run and not (following and self._hardware.lacks_room):
            raise Broken(f"{self.name} could not write, and nothing was wrong with the disk: {fault}") from fault
        process = self.process
        if process is None:
            return  # its end came first
        self.note("disk failed", fault)
        self._books.counts["writes that failed"] += 1
        await trio.sleep(LAST_ANSWERS_S)
        self._hardware.machine.kill()
        if lost_run:
            self._hardware.mend_for_a_start()
        process.ending.set()

    async def _end_some_time(self, process: Process) -> None:
        """End the process from outside."""
        await trio.sleep(self._dice.expovariate(1 / self._profile.ends_every_s))
        if self._hardware.calm:
            return
        kind = self._dice.choice(["cut", "kill", "stop"])
        self.note(kind)
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

    def is_serving(self) -> bool:
        """Whether its process serves, and was not told to end."""
        process = self.process
        return process is not None and process.alive and not process.ending.is_set()

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


def _is_missing(fault: DiskFault) -> bool:
    """Whether this tells that a file of actions is missing."""
    return type(fault) is DiskFault and fault.path.endswith(RUN)
