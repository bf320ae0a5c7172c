"""A crash at every step of a workload, and at every step of the recovery from it; and every step failing once.

    workload ──step──step──step──► …                 each step of the disk: before, within and after it
                 └► fork ─ cut the power ─ recover ─ check ─ go on, checkpoint ─ cut the power ─ recover ─ check
                                             └► fork at each step of this recovery, and the same again

The workload is the life of a leader: a new directory, appends, segments that fill up, checkpoints with compression and
retention (events are written during them, as by the other thread of a real leader), users that are renamed and removed,
boards that are put, frozen and revealed, periods that end and get their files, an end and a start, a torn frame to
recover from, a restore.

Another life seals older actions: `tests.sim.indexed_workload`.

Rules:
- A step never runs again for a crash: the storage is copied (`Machine.fork`), and the copy's power is cut. Each point
  is tried with several fates: nothing unsynced survives, all of it does, some of it by chance; or only the process is
  killed, and the power is cut after the next process has written.
- After each recovery: acknowledged ⊆ recovered ⊆ submitted, in order; the scoreboard is a plain sort of these events;
  the log has all of them from its first one on; each past period has its file; and if the newest snapshot is damaged as
  well, nothing is missing.
- Where actions are sealed, old and young ones are written again, as they were and otherwise: none is applied.
- A restore is there as a whole or not at all, and can be done again.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from msgspec import UNSET

from engine.commands import FreezeBoard, PutUser, ResetBoard, RevealRows, UnfreezeBoard
from engine.errors import DiskFault, SnapshotDamaged, WriteFailed
from engine.events import EpochBegun, Event
from engine.recovery import Finding
from snapshots.restore import UNFINISHED, restore
from tests.sim.disk import Crash, Machine, Moment, SimulatedDisk, Trouble
from tests.sim.period_files import check_all_files
from tests.sim.plain import Plain, read_events
from tests.sim.station import BEGUN_MS, DATA, SEGMENT_BYTES, Station, open_at
from tests.sim.storage import Chance, Everything, Fate, Nothing

RESTORED = "/restored"
TORN_EVENTS = 20
"""In a frame that is to be torn: enough for several sectors."""
CHANCES = 2
"""Fates by chance, for each point."""
REPEATED = 3
"""Actions from each end that are written again, where older ones are sealed."""


@dataclass(frozen=True)
class Point:
    """A moment in the workload: the storage at that moment, and what a recovery may find on it."""

    machine: Machine
    what: str
    plain: Sequence[Event]
    flying: Sequence[Event]
    epoch: int = 0
    """The epoch of a restore that has begun; 0 if there is none."""
    indexed: bool = False
    """Older actions are sealed."""
    damaged: bool = False
    """A file of actions is damaged or missing, and is made anew."""

    @property
    def step(self) -> str:
        """The step of the workload."""
        return self.what.split()[1]


@dataclass
class Tally:
    """What was tried: points by their kind of step, crashes at them, steps that failed, recoveries checked."""

    crashes: int = 0
    failures: int = 0
    recoveries: int = 0
    points: Counter[str] = field(default_factory=Counter)

    def add(self, other: Tally) -> None:
        """Add what another process tried."""
        self.crashes += other.crashes
        self.failures += other.failures
        self.recoveries += other.recoveries
        self.points += other.points


class Workload:
    """The scripted life of a leader. `points` grows while it runs.

    `fails_at`: the step with this number fails once with an error. A leader that can't write ends, and another one
    starts; such a run makes no points.
    """

    indexed = False
    written_every = 4
    """Steps of a checkpoint between two writes of events."""

    def __init__(self, *, fails_at: int | None = None) -> None:
        self.machine = Machine(Nothing(), on_step=self._on_step, trouble=self._trouble)
        self.points: list[Point] = []
        self.plain = Plain()
        self._fails_at = fails_at
        self._station: Station | None = None
        self._damaged = False
        self._interrupting = False
        self._interrupted = 0
        self.restored = 0

    async def run(self) -> None:
        """Live it."""
        self._start()
        self._write(lambda station: station.play(5))
        users = PutUser("user-1", "One", UNSET, "tests"), PutUser("user-2", UNSET, False, "tests")
        self._write(lambda station: station.write(*users))
        await self._checkpoint()
        self._write(lambda station: station.play(4))
        self._write(lambda station: station.write(PutUser("user-2", UNSET, True, "tests")))
        await self._checkpoint()
        self._write(lambda station: station.play(7))
        await self._checkpoint()
        self._write(lambda station: station.put_boards())
        self._write(lambda station: station.play_in_a_minute())
        self._write(lambda station: station.write(FreezeBoard("main", "tests", None)))
        self._write(lambda station: station.change_periods())
        self._write(lambda station: station.write(ResetBoard("weekly", "tests", None)))
        self._start()
        self._write(lambda station: station.write(RevealRows("main", 2, "tests")))
        self._write(lambda station: station.play(2))
        self._tear()
        self._start()
        self._write(lambda station: station.play(3))
        await self._checkpoint()
        self._write(lambda station: station.write(ResetBoard("main", "tests", None)))
        self._write(lambda station: station.play(9))
        await self._checkpoint()
        self._write(lambda station: station.write(UnfreezeBoard("main", "tests")))
        self._restore()

    def _start(self) -> None:
        """End the present leader, if any, and start one: in a new directory, or by recovery."""
        self.machine.kill()
        flying = () if self._station is None else self._station.flying
        try:
            self._boot(flying)
        except DiskFault:
            self._expect_failure()
            self._boot(flying)

    def _boot(self, flying: Sequence[Event]) -> None:
        disk = self.machine.boot()
        disk.make_directory(f"{DATA}/snapshots")
        disk.lock(f"{DATA}/lock")
        self._station = None
        station = Station(disk, self.plain, indexed=self.indexed)
        for event in read_events(station.log, self.plain.seq + 1):
            assert event in flying, f"{event} was never submitted"
            self.plain.take(event)
        self._station = station

    def _write(self, write: Callable[[Station], None]) -> None:
        """Write. A leader that can't write ends, and the next one goes on."""
        assert self._station is not None
        try:
            write(self._station)
        except WriteFailed:
            self._expect_failure()
            self._start()

    def _expect_failure(self) -> None:
        assert self._fails_at is not None, "nothing was wrong with the disk"

    async def _checkpoint(self) -> None:
        """Take a snapshot while the log is written. A leader that can't take one goes on without."""
        assert self._station is not None
        self._interrupting = True
        try:
            await self._station.checkpoint()
        except DiskFault:
            self._expect_failure()
        self._interrupting = False
        if self._station.flying:  # a write during the checkpoint failed
            self._start()

    def _tear(self) -> None:
        """Cut the power within a frame of several sectors, so that the next start has something to cut."""
        station = self._station
        assert station is not None

        def die(moment: Moment, name: str, path: str) -> None:
            self._on_step(moment, name, path)
            if moment is Moment.WITHIN:
                self.machine.cut_power(Everything())

        self.machine.on_step = die
        try:
            station.write(*station.increments(TORN_EVENTS))
            raise AssertionError("the power was to be cut within a frame")
        except Crash:
            assert station.flying
        except WriteFailed:
            self._expect_failure()
        self.machine.on_step = self._on_step

    def _restore(self) -> None:
        """Make another directory of everything, beside the leader that still has the source."""
        assert self._station is not None
        self.restored = self._station.scoreboard.epoch + 1
        try:
            restore_all(self._station.disk)
        except DiskFault:
            self._expect_failure()
            if not self._station.disk.exists(RESTORED):  # otherwise only the sync of its name failed
                restore_all(self._station.disk)

    def _trouble(self, _name: str, _path: str) -> Trouble | None:
        return Trouble.ERROR if self.machine.steps == self._fails_at else None

    def _on_step(self, moment: Moment, name: str, path: str) -> None:
        station = self._station
        if self._fails_at is None:
            self.points.append(
                Point(
                    machine=self.machine.fork(Nothing()),
                    what=f"{moment.value} {name} {path}",
                    plain=list(self.plain.events),
                    flying=() if station is None else station.flying,
                    epoch=self.restored,
                    indexed=self.indexed,
                    damaged=self._damaged,
                )
            )
        if self._interrupting and moment is Moment.BEFORE and station is not None and not station.flying:
            self._interrupted += 1
            if self._interrupted % self.written_every == 0 and station.log.tail.seq == station.scoreboard.seq:
                station.play(1)


def restore_all(disk: SimulatedDisk) -> None:
    """Restore everything."""
    restore(disk, DATA, RESTORED, clock_ms=lambda: BEGUN_MS, tell=_nothing_to_tell, segment_bytes=SEGMENT_BYTES)


def _nothing_to_tell(what: Finding | DiskFault) -> None:
    raise AssertionError(f"there was something to tell: {what}")


KILLED = "the cache"
"""The process alone ends at the point, and the machine goes on; the power is cut when the next one has written."""


def fates(seed: int, chances: int) -> Iterator[tuple[str, Fate]]:
    """The two extremes, a kill with a later power cut, and some fates by chance."""
    yield "nothing", Nothing()
    yield "everything", Everything()
    yield KILLED, Nothing()
    for number in range(chances):
        yield f"chance {seed}.{number}", Chance(random.Random(f"{seed}.{number}"))


async def try_point(point: Point, seed: int, tally: Tally, *, depth: int, chances: int = CHANCES) -> None:
    """Cut the power at a point, with each fate; recover, check, go on, cut again. `depth`: also within recovery."""
    tally.points["recovery" if "in recovery" in point.what else point.step] += 1
    for name, fate in fates(seed, chances):
        machine = point.machine.fork(fate)
        if name == KILLED:
            machine.kill()
        else:
            machine.cut_power()
        tally.crashes += 1
        inner: list[Point] = []
        if depth > 0:
            _record(machine, point, inner)
        try:
            await _recover_and_go_on(machine, point, tally, fate=name)
        except Exception as fault:
            raise AssertionError(f"a crash {point.what}, of the unsynced {name} survives: {fault!r}") from fault
        for number, crash in enumerate(inner):
            await try_point(crash, seed * 1000 + number, tally, depth=depth - 1, chances=1)


async def try_failure(step: int, tally: Tally, kind: type[Workload] = Workload) -> bool:
    """Live a workload on a disk that fails at one step, cut the power, look; False if there is no such step."""
    workload = kind(fails_at=step)
    await workload.run()
    machine = workload.machine
    if machine.steps < step:
        return False
    tally.failures += 1
    machine.on_step = lambda moment, name, path: None
    machine.cut_power()
    end = Point(machine, "the end", list(workload.plain.events), (), indexed=kind.indexed)
    plain, _ = _recover(machine, end, tally)
    if workload.restored:
        _check_restored(machine, plain, workload.restored)
    _check_without_newest_snapshot(machine, plain, end)
    return True


def _record(machine: Machine, point: Point, points: list[Point]) -> None:
    """Let each step of the coming recovery become a point, after which the same must be found."""

    def on_step(moment: Moment, name: str, path: str) -> None:
        if moment is not Moment.AFTER:  # the storage is the same as before the next step
            what = f"{point.what}; in recovery {moment.value} {name} {path}"
            points.append(replace(point, machine=machine.fork(Nothing()), what=what))

    machine.on_step = on_step


async def _recover_and_go_on(machine: Machine, point: Point, tally: Tally, *, fate: str) -> None:
    plain, station = _recover(machine, point, tally)
    machine.on_step = lambda moment, name, path: None
    if point.epoch:
        _check_restored(machine, plain, point.epoch)
    if fate == KILLED:
        station.play(1)
        machine.cut_power()
        plain, station = _recover(machine, _after(point, plain), tally)
    if fate == "nothing":
        _check_without_newest_snapshot(machine, plain, point)
    if point.indexed:
        station.repeat(REPEATED)
    station.play(2)
    await station.checkpoint()
    station.play(2)
    machine.cut_power()
    plain, station = _recover(machine, _after(point, plain), tally)
    if point.indexed:
        station.repeat(REPEATED)


def _after(point: Point, plain: Plain) -> Point:
    """Give what the next recovery may find: everything, and nothing damaged."""
    return replace(point, plain=list(plain.events), flying=(), damaged=False)


def _recover(machine: Machine, point: Point, tally: Tally) -> tuple[Plain, Station]:
    """Start a leader, and compare what it recovered with what it may have."""
    acknowledged, flying = point.plain, point.flying
    tally.recoveries += 1
    disk = machine.boot()
    disk.make_directory(f"{DATA}/snapshots")
    disk.lock(f"{DATA}/lock")
    plain = Plain()
    station = Station(disk, plain, indexed=point.indexed)
    faults = [told for told in station.told if isinstance(told, DiskFault)]
    assert not faults or point.damaged, f"recovery found fault with {faults}"
    for event in acknowledged:
        plain.take(event)
    seq = station.scoreboard.seq
    assert seq >= plain.seq, f"{plain.seq} events were acknowledged, {seq} recovered"
    # A frame is there as a whole or not at all.
    assert seq in {plain.seq, plain.seq + len(flying)}, f"{plain.seq} acknowledged, {len(flying)} in flight, but {seq}"
    for event in read_events(station.log, plain.seq + 1):
        assert event in flying, f"{event} was never submitted"
        plain.take(event)
    plain.check_scoreboard(station.scoreboard)
    plain.check_log(station.log)
    check_all_files(disk, DATA, station.scoreboard, plain)
    return plain, station


def _check_without_newest_snapshot(machine: Machine, plain: Plain, point: Point) -> None:
    """Damage the newest of two snapshots: the one before it and the log must still give everything."""
    machine = machine.fork(Nothing())
    snapshots = [path for path in machine.files(f"{DATA}/snapshots") if path.endswith(".snapshot")]
    if len(snapshots) >= 2:
        node = machine.files()[snapshots[-1]]
        node.flip(len(node.durable) // 2, 5)
        told: list[Finding | DiskFault] = []
        opened = open_at(machine.boot(), DATA, told.append)
        assert any(isinstance(what, SnapshotDamaged) for what in told), "the damage was not noticed"
        others = [what for what in told if isinstance(what, DiskFault) and not isinstance(what, SnapshotDamaged)]
        assert not others or point.damaged, f"with the snapshot before the newest one there is fault with {others}"
        plain.check_scoreboard(opened.scoreboard)


def _check_restored(machine: Machine, plain: Plain, epoch: int) -> None:
    """A restored directory is whole or absent. If it is absent, restore it from the same source."""
    machine = machine.fork(Nothing())
    disk = machine.boot()
    if not (disk.exists(RESTORED) and disk.list_directory(RESTORED)):
        restore_all(disk)
        assert not disk.exists(RESTORED + UNFINISHED)
    opened = open_at(disk, RESTORED, _nothing_to_tell)
    begun = read_events(opened.log, plain.seq + 1)
    assert [(event.seq, type(event)) for event in begun] == [(plain.seq + 1, EpochBegun)]
    restored = Plain()
    for event in [*plain.events, *begun]:
        restored.take(event)
    assert restored.epoch == epoch
    restored.check_scoreboard(opened.scoreboard)
    check_all_files(disk, RESTORED, opened.scoreboard, restored)
