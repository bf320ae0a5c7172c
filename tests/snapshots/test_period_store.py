"""The period files of a directory: they appear whole, are never written twice, and few of them stay open."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from itertools import count
from pathlib import Path
from threading import Event, Thread

import pytest

from engine.disk import FileMissing, RealFile
from engine.errors import SnapshotDamaged, WriteFailed
from snapshots.period_file import PeriodHead, PeriodReader, PeriodRow, verify
from snapshots.period_store import PeriodStore
from tests.engine.faulty_disk import Crash, FaultyDisk
from tests.sim.disk import Crash as PowerCut
from tests.sim.disk import Machine, Moment
from tests.sim.storage import Everything, Fate, Nothing
from tests.snapshots.directories import InlineDisk, flip


def rows_of(seq: int) -> list[PeriodRow]:
    """Two rows that show which period they are from."""
    return [PeriodRow(1, "ann", 10 * seq, seq, seq), PeriodRow(2, "bob", 5, 1, 1)]


def head_of(seq: int, count: int = 2) -> PeriodHead:
    """The head of the period that this seq ended."""
    return PeriodHead("main", f"period {seq}", seq - 1, seq, seq, count, bytes(16))


def write(store: PeriodStore, *seqs: int) -> None:
    """Write the files of these periods."""
    for seq in seqs:
        assert store.write(head_of(seq), rows_of(seq))


class CountingDisk(InlineDisk):
    """A disk that knows which files are open for reading, and calls `meanwhile` before each read."""

    def __init__(self) -> None:
        self.files: list[CountedFile] = []
        self.meanwhile: Callable[[], None] = lambda: None

    def open(self, path: str, *, write: bool = False) -> RealFile:
        """Open a file that is counted."""
        real = super().open(path, write=write)
        file = CountedFile(path, real._descriptor)
        file.disk = self
        self.files.append(file)
        return file

    def open_seqs(self) -> list[int]:
        """List the seqs of the files that are open."""
        return sorted(int(Path(file.path).stem) for file in self.files if file.is_open())


class CountedFile(RealFile):
    """A file of a `CountingDisk`."""

    disk: CountingDisk

    def is_open(self) -> bool:
        """Tell whether it was not closed yet."""
        return self._descriptor >= 0

    def read_at(self, offset: int, length: int) -> bytes:
        """Let something happen, then read."""
        self.disk.meanwhile()
        return super().read_at(offset, length)


@pytest.fixture
def counting() -> CountingDisk:
    """A disk that counts."""
    return CountingDisk()


@pytest.fixture
def store(counting: CountingDisk, tmp_path: Path) -> Iterator[PeriodStore]:
    """A store that keeps two files open."""
    store = PeriodStore(counting, str(tmp_path), open_max=2)
    yield store
    store._check()
    store.close()
    assert counting.open_seqs() == []


def test_a_directory_without_periods_has_none(store: PeriodStore) -> None:
    """A new directory, which has no folder for periods yet, lists none and has nothing to remove."""
    assert store.list() == []
    assert not store.has(1)
    assert list(store.remove_other(set())) == []
    with pytest.raises(FileMissing):
        store.open(1)


def test_what_was_written_is_listed_and_read(store: PeriodStore, tmp_path: Path) -> None:
    """Three periods, written in any order: listed by seq, each with its own rows, for the owner alone."""
    write(store, 20, 300, 1)
    assert store.list() == [1, 20, 300]
    for seq in store.list():
        assert store.has(seq)
        reader = store.open(seq)
        assert reader.head == head_of(seq)
        assert reader.top(9) == rows_of(seq)
        assert reader.find("bob") == (1, rows_of(seq)[1])
    path = tmp_path / "periods" / f"{300:020}.period"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_exists_is_not_written_again(store: PeriodStore) -> None:
    """The rows are not even read."""

    def never() -> Iterator[PeriodRow]:
        raise AssertionError
        yield

    write(store, 5)
    assert not store.write(head_of(5), never())
    assert store.open(5).top(9) == rows_of(5)


def test_a_file_that_exists_is_durable_when_it_is_not_written_again(tmp_path: Path) -> None:
    """The process was killed before it synced the name: the next write of the same period does that."""
    disk = FaultyDisk()
    store = PeriodStore(disk, str(tmp_path))

    def before(step: str, path: str) -> None:
        if step == "sync_directory":
            raise Crash

    disk.before = before
    with pytest.raises(Crash):
        write(store, 5)
    disk.before = None
    disk.steps.clear()
    assert not PeriodStore(disk, str(tmp_path)).write(head_of(5), [])
    assert disk.steps == [("sync_directory", "periods")]


def test_what_interrupted_writes_left_goes_with_what_was_made_of_corrections(tmp_path: Path) -> None:
    """It may name a user who is erased. Another file stays."""
    store = PeriodStore(InlineDisk(), str(tmp_path))
    write(store, 5)
    directory = Path(store.directory)
    made = [f"{5:020}-{7:016x}.corrected", f"{5:020}-{8:016x}.corrected.tmp", f"{6:020}.period.tmp"]
    for name in [*made, "notes.tmp"]:
        (directory / name).write_bytes(b"ann")
    assert sorted(store.remove_corrected()) == sorted(str(directory / name) for name in made)
    assert sorted(path.name for path in directory.iterdir()) == [f"{5:020}.period", "notes.tmp"]
    store.close()


def test_a_crash_before_the_rename_leaves_only_a_file_that_is_removed(tmp_path: Path) -> None:
    """Whatever step it comes before: no half file is listed, and after tidying nothing is left of it."""
    crashes = 0
    for number in range(100):
        disk = FaultyDisk()
        directory = tmp_path / str(number)
        write(PeriodStore(disk, str(directory)), 4)
        disk.crash_at(number)
        try:
            write(PeriodStore(disk, str(directory)), 5)
        except Crash:
            crashes += 1
        else:
            break
        disk.before = None
        store = PeriodStore(disk, str(directory))
        if store.list() == [4]:
            unfinished = f"{directory}/periods/{5:020}.period.tmp"
            assert list(store.remove_other({4, 5})) == ([unfinished] if number else [])
            write(store, 5)
        assert store.list() == [4, 5]
        assert store.open(5).top(9) == rows_of(5)
        assert len(list(Path(store.directory).iterdir())) == 2
        store.close()
    assert crashes > 5


@pytest.mark.parametrize("fate", [Nothing(), Everything()], ids=["nothing", "everything"])
def test_a_power_cut_leaves_a_whole_file_or_none(fate: Fate) -> None:
    """At each step, whether all or nothing stays that was not synced. What `write` returned for stays in any case."""
    path = f"/data/periods/{5:020}.period"
    for number in count():
        machine = Machine(fate)
        left = number

        def cut(moment: Moment, name: str, path: str, machine: Machine = machine) -> None:
            nonlocal left
            left -= moment is Moment.BEFORE
            if left < 0:
                machine.cut_power()

        machine.on_step = cut
        returned = False
        with suppress(PowerCut):
            returned = PeriodStore(machine.boot(), "/data").write(head_of(5), rows_of(5))
        machine.on_step = lambda moment, name, path: None
        machine.cut_power()
        disk = machine.boot()
        store = PeriodStore(disk, "/data")
        assert store.list() == ([5] if store.has(5) else [])
        assert store.has(5) or not returned
        if store.has(5):
            with closing(disk.open(path)) as file:
                assert verify(file, path) == head_of(5)
        store.remove_other({5})
        store.write(head_of(5), rows_of(5))
        machine.cut_power()
        assert PeriodStore(machine.boot(), "/data").open(5).top(9) == rows_of(5)
        assert list(machine.files()) == [path]
        if returned:
            break
    assert number > 8


@pytest.mark.parametrize("step", ["create", "write", "sync", "rename"])
def test_a_failed_write_leaves_no_period(tmp_path: Path, step: str) -> None:
    """The disk fails: the error reaches the caller, and the next attempt succeeds."""
    disk = FaultyDisk()
    store = PeriodStore(disk, str(tmp_path))
    disk.fail(step, ".period" if step == "rename" else ".tmp")
    with pytest.raises(WriteFailed):
        write(store, 5)
    assert store.list() == []
    disk.before = None
    write(store, 5)
    assert store.list() == [5]


def test_rows_that_end_early_leave_nothing(store: PeriodStore) -> None:
    """A bug in the caller: the file does not appear."""
    with pytest.raises(AssertionError):
        store.write(head_of(5, count=3), rows_of(5))
    assert list(Path(store.directory).iterdir()) == []


def test_others_are_removed_and_strange_files_stay(store: PeriodStore) -> None:
    """What is not kept goes, and what interrupted writes left; what somebody else put there does not."""
    write(store, 1, 2, 3)
    directory = Path(store.directory)
    others = [directory / "README", directory / "3.period", directory / f"{3:020}.period.old"]
    unfinished = directory / f"{4:020}.period.tmp"
    for path in [*others, unfinished]:
        path.write_bytes(b"half")
    store.open(1)
    removed = store.remove_other({2, 9})
    assert sorted(removed) == [f"{directory}/{1:020}.period", f"{directory}/{3:020}.period", str(unfinished)]
    assert store.list() == [2]
    assert sorted(directory.iterdir()) == sorted([directory / f"{2:020}.period", *others])
    with pytest.raises(FileMissing):
        store.open(1)


class OrderedDisk(InlineDisk):
    """A disk that notes when a file was written and when the directory is listed."""

    def __init__(self) -> None:
        self.order: list[str] = []

    def write_whole(self, path: str, chunks: Iterable[bytes], mode: int = 0o600, paced: bool = False) -> int:
        """Write, then note it."""
        length = super().write_whole(path, chunks, mode, paced)
        self.order.append("written")
        return length

    def list_directory(self, path: str) -> list[str]:
        """Note it, then list."""
        self.order.append("listed")
        return super().list_directory(path)


def test_a_removal_waits_for_a_file_that_is_being_written(tmp_path: Path) -> None:
    """A thread removes what is not kept, in the middle of a write: the unfinished file is not taken away."""
    disk = OrderedDisk()
    store = PeriodStore(disk, str(tmp_path))
    thread = Thread(target=store.remove_other, args=({5},))

    def meanwhile() -> Iterator[PeriodRow]:
        thread.start()
        yield from rows_of(5)

    assert store.write(head_of(5), meanwhile())
    thread.join(10)
    assert disk.order[:2] == ["written", "listed"]
    assert store.list() == [5]


# Damage


def test_a_damaged_file_says_which_and_where(store: PeriodStore, counting: CountingDisk) -> None:
    """When it is opened, or when its rows are read. A file that could not be opened is closed."""
    write(store, 7)
    path = Path(store.directory) / f"{7:020}.period"
    whole = path.read_bytes()
    for offset in range(len(whole)):
        flip(path, offset)
        with pytest.raises(SnapshotDamaged, match="from the log") as caught:
            _read(store.open(7))
        assert caught.value.path == str(path)
        assert caught.value.offset is not None
        store.close()
        assert counting.open_seqs() == []
        path.write_bytes(whole)


def _read(reader: PeriodReader) -> None:
    reader.top(9)
    reader.find("ann")


def test_a_file_under_another_ones_name_is_refused(store: PeriodStore, counting: CountingDisk) -> None:
    """It proves itself, but not to be what it is called."""
    write(store, 5, 9)
    directory = Path(store.directory)
    (directory / f"{9:020}.period").write_bytes((directory / f"{5:020}.period").read_bytes())
    with pytest.raises(SnapshotDamaged, match="seq 5 ended, under the name of another"):
        store.open(9)
    assert counting.open_seqs() == []


# Open files


def test_only_the_last_used_files_stay_open(store: PeriodStore, counting: CountingDisk) -> None:
    """With room for two, the one that was asked for longest ago is closed. An open one is not opened again."""
    write(store, 1, 2, 3)
    first = store.open(1)
    store.open(2)
    assert store.open(1) is first
    store.open(3)
    assert counting.open_seqs() == [1, 3]
    assert len(counting.files) == 3
    store._check()


def test_a_reader_whose_file_was_closed_still_serves(store: PeriodStore, counting: CountingDisk) -> None:
    """It opens the file for each read, and closes it after that. If the file is removed it is missing."""
    write(store, 1, 2, 3)
    reader = store.open(1)
    store.open(2)
    store.open(3)
    assert reader.find("ann") == (0, rows_of(1)[0])
    assert counting.open_seqs() == [2, 3]
    store.remove_other({2, 3})
    with pytest.raises(FileMissing):
        reader.top(1)


class Held:
    """A thread that reads the top of a period, and is held within the first of its reads until `go_on`."""

    def __init__(self, counting: CountingDisk, reader: PeriodReader) -> None:
        self._counting = counting
        self._reader = reader
        self._within, self._go_on = Event(), Event()
        self.result: list[PeriodRow] | FileMissing = []
        counting.meanwhile = self._hold
        self._thread = Thread(target=self._run)
        self._thread.start()
        assert self._within.wait(10)

    def _hold(self) -> None:
        self._counting.meanwhile = lambda: None
        self._within.set()
        assert self._go_on.wait(10)

    def _run(self) -> None:
        try:
            self.result = self._reader.top(9)
        except FileMissing as error:
            self.result = error

    def go_on(self) -> None:
        """Let the read end, and wait for the thread."""
        self._go_on.set()
        self._thread.join(10)


def test_a_file_is_closed_only_after_the_reads_that_go_on(store: PeriodStore, counting: CountingDisk) -> None:
    """Another thread is within a read when the file falls out: the read ends well, and closes the file then."""
    write(store, 1, 2, 3)
    held = Held(counting, store.open(1))
    store.open(2)
    store.open(3)
    assert counting.open_seqs() == [1, 2, 3]
    held.go_on()
    assert held.result == rows_of(1)
    assert counting.open_seqs() == [2, 3]


def test_a_file_that_is_removed_while_it_is_read_is_missing_not_damaged(
    store: PeriodStore, counting: CountingDisk
) -> None:
    """The read that goes on ends well; the next one of the same reader finds nothing."""
    write(store, 1, 2)
    held = Held(counting, store.open(1))
    store.remove_other({2})
    assert counting.open_seqs() == [1]
    held.go_on()
    assert isinstance(held.result, FileMissing)
    assert counting.open_seqs() == []


def test_many_threads_read_while_files_are_closed_and_opened(store: PeriodStore, counting: CountingDisk) -> None:
    """Six threads over five periods, with room for two open files: each finds what it must."""
    seqs = [1, 2, 3, 4, 5]
    write(store, *seqs)
    wrong: list[BaseException] = []

    def use(turn: int) -> None:
        try:
            for step in range(60):
                seq = seqs[(step * turn) % len(seqs)]
                assert store.open(seq).top(9) == rows_of(seq)
        except BaseException as error:  # the thread's own report would fail no test
            wrong.append(error)

    threads = [Thread(target=use, args=(turn,)) for turn in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not wrong
    assert len(counting.open_seqs()) <= 2
