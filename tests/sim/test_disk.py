"""The simulated disk: it passes the suite for all disks, and a crash removes only what a crash may remove."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from engine.disk import Disk, RealDisk
from engine.errors import WriteFailed
from tests.engine.disk_conformance import DiskConformance
from tests.sim.disk import Crash, Machine, Moment, SimulatedDisk, Trouble
from tests.sim.storage import SECTOR_BYTES, Chance, Everything, Fate, Nothing


class TestSimulatedDisk(DiskConformance):
    """The suite of all disks."""

    @pytest.fixture
    def disk(self) -> Disk:
        """The disk of a new machine."""
        return Machine(Nothing()).boot()

    @pytest.fixture
    def root(self, disk: Disk) -> str:
        """A directory that was just made."""
        disk.make_directory("/root")
        return "/root"


def machine_with(data: bytes, *, synced: bool = True, fate: Fate | None = None) -> tuple[Machine, SimulatedDisk]:
    """A machine with one file `/a`, whose name is durable."""
    machine = Machine(fate or Nothing())
    disk = machine.boot()
    file = disk.create("/a")
    disk.sync_directory("/")
    file.write_at(0, data)
    if synced:
        file.sync()
    return machine, disk


def content(machine: Machine, path: str = "/a") -> bytes:
    """The bytes that a process reads if it starts now."""
    disk = machine.boot()
    file = disk.open(path)
    return file.read_at(0, file.size())


def outcomes(make: Callable[[], Machine], look: Callable[[Machine], object], tries: int = 200) -> set[object]:
    """The states after a power cut, over many fates."""
    seen = set()
    for seed in range(tries):
        machine = make()
        machine.cut_power(Chance(random.Random(seed)))
        seen.add(look(machine))
    return seen


def test_what_was_not_synced_is_gone_at_the_worst_and_all_there_at_the_best() -> None:
    """What was synced is always there."""
    for fate, expected in ((Nothing(), b"old"), (Everything(), b"new!")):
        machine, disk = machine_with(b"old")
        disk.open("/a", write=True).write_at(0, b"new!")
        machine.cut_power(fate)
        assert content(machine) == expected


def test_each_sector_is_kept_or_lost_for_itself() -> None:
    """Of three sectors, each of the eight subsets comes up, and no sector is ever half there."""

    def make() -> Machine:
        machine, disk = machine_with(b"." * 3 * SECTOR_BYTES)
        disk.open("/a", write=True).write_at(0, b"x" * 3 * SECTOR_BYTES)
        return machine

    def look(machine: Machine) -> str:
        data = content(machine)
        sectors = [data[start : start + SECTOR_BYTES] for start in range(0, len(data), SECTOR_BYTES)]
        assert all(len(set(sector)) == 1 for sector in sectors)
        return "".join(chr(sector[0]) for sector in sectors)

    assert len(outcomes(make, look)) == 8


def test_a_sector_that_was_written_twice_may_hold_what_it_held_in_between() -> None:
    """The kernel may write back at any moment."""

    def make() -> Machine:
        machine, disk = machine_with(b"0")
        file = disk.open("/a", write=True)
        for byte in (b"1", b"2"):
            file.write_at(0, byte)
        return machine

    assert outcomes(make, content) == {b"0", b"1", b"2"}


def test_the_length_may_be_there_without_the_data_and_the_data_without_the_length() -> None:
    """Then there are zeros, or nothing."""

    def make() -> Machine:
        return machine_with(b"abc", synced=False)[0]

    assert outcomes(make, content) == {b"", b"\0\0\0", b"abc"}


def test_a_name_is_durable_only_when_its_directory_is_synced() -> None:
    """A sync of the file does not make its name durable."""

    def make() -> Machine:
        machine = Machine(Nothing())
        file = machine.boot().create("/a")
        file.write_at(0, b"abc")
        file.sync()
        return machine

    def look(machine: Machine) -> bool:
        return machine.boot().exists("/a")

    assert outcomes(make, look) == {True, False}
    machine = make()
    machine.root.sync()
    machine.cut_power(Nothing())
    assert content(machine) == b"abc"


def test_a_rename_is_whole_or_not_at_all() -> None:
    """Never both names, and never none, though the directory was not synced."""

    def make() -> Machine:
        machine, disk = machine_with(b"new")
        disk.write_whole("/b", [b"old"])
        disk.rename("/a", "/b")
        return machine

    def look(machine: Machine) -> tuple[list[str], bytes]:
        return tuple(machine.boot().list_directory("/")), content(machine, "/b")  # type: ignore[return-value]

    assert outcomes(make, look) == {(("a", "b"), b"old"), (("b",), b"new")}


def test_changes_of_names_may_be_durable_in_another_order_than_they_were_made() -> None:
    """Only a sync of the directory between two of them keeps them in order."""

    def make() -> Machine:
        machine, disk = machine_with(b"")
        disk.create("/b")
        disk.remove("/a")
        return machine

    def look(machine: Machine) -> tuple[str, ...]:
        return tuple(machine.boot().list_directory("/"))

    assert outcomes(make, look) == {("a",), ("a", "b"), ("b",), ()}


def test_a_file_that_was_made_whole_is_there_whole_or_not_at_all() -> None:
    """At every step, whatever survives: the old one or the new one."""
    for dies_at in range(1, 9):
        for seed in range(20):
            machine, disk = machine_with(b"old")
            machine.steps = 0

            def die(moment: Moment, name: str, path: str, machine: Machine = machine, dies_at: int = dies_at) -> None:
                if machine.steps == dies_at:
                    machine.cut_power(Chance(random.Random(seed)))  # noqa: B023  # called within this round

            machine.on_step = die
            try:
                disk.write_whole("/a", [b"n" * 600, b"ew"])
            except Crash:
                assert machine.steps == dies_at
            assert content(machine) in {b"old", b"n" * 600 + b"ew"}


def test_a_sync_that_failed_lies_the_next_time() -> None:
    """The pages are marked as clean: they read as written, a second sync succeeds, and a power cut removes them."""
    machine, disk = machine_with(b"old")
    file = disk.open("/a", write=True)
    file.write_at(0, b"new")
    machine.trouble = lambda name, path: Trouble.ERROR
    with pytest.raises(WriteFailed, match="can't sync: Input/output error"):
        file.sync()
    machine.trouble = lambda name, path: None
    file.sync()
    assert file.read_at(0, 3) == b"new"
    machine.cut_power()
    assert content(machine) == b"old"


def test_what_a_failed_sync_lost_is_written_when_it_is_written_again() -> None:
    """For this reason an opened log writes its last frame once more."""
    machine, disk = machine_with(b"old")
    file = disk.open("/a", write=True)
    file.write_at(0, b"new")
    machine.trouble = lambda name, path: Trouble.ERROR if name == "sync" else None
    with pytest.raises(WriteFailed):
        file.sync()
    machine.trouble = lambda name, path: None
    file.write_at(0, b"new")
    file.sync()
    machine.cut_power()
    assert content(machine) == b"new"


@pytest.mark.parametrize(("fate", "expected"), [(Nothing(), b"old"), (Everything(), b"new")])
def test_the_kernel_may_drop_what_it_holds_to_be_clean(fate: Fate, expected: bytes) -> None:
    """After a failed sync, with the machine still on: what is read next may come from the disk."""
    machine, disk = machine_with(b"old")
    file = disk.open("/a", write=True)
    file.write_at(0, b"new")
    machine.trouble = lambda name, path: Trouble.ERROR
    with pytest.raises(WriteFailed):
        file.sync()
    machine.trouble = lambda name, path: None
    machine.fate = fate
    machine.kill()
    assert content(machine) == expected


def test_a_killed_process_loses_nothing_and_does_nothing_any_more() -> None:
    """What it wrote is cached, synced or not; its locks are free; every call of its view raises."""
    machine, disk = machine_with(b"abc", synced=False)
    lock = disk.lock("/lock")
    file = disk.open("/a", write=True)
    machine.kill()
    for act in (lambda: file.write_at(0, b"x"), file.sync, lambda: disk.create("/b"), lambda: disk.exists("/a")):
        with pytest.raises(Crash):
            act()
    lock.release()
    assert content(machine) == b"abc"
    machine.boot().lock("/lock")


def test_a_full_disk_takes_a_part_of_a_write() -> None:
    """Whole sectors; and neither a new file nor more space."""
    machine, disk = machine_with(b"." * 4 * SECTOR_BYTES)
    file = disk.open("/a", write=True)
    machine.trouble = lambda name, path: Trouble.FULL
    with pytest.raises(WriteFailed, match="No space left on device"):
        file.write_at(0, b"x" * 4 * SECTOR_BYTES)
    assert file.read_at(0, 5 * SECTOR_BYTES) == b"x" * 2 * SECTOR_BYTES + b"." * 2 * SECTOR_BYTES
    for act in (lambda: disk.create("/b"), lambda: file.preallocate(9000), lambda: disk.make_directory("/d")):
        with pytest.raises(WriteFailed, match="No space left on device"):
            act()
    file.sync()
    disk.remove("/a")


def test_a_failing_disk_does_nothing_and_says_so() -> None:
    """Each step but a sync leaves all as it was."""
    machine, disk = machine_with(b"old")
    file = disk.open("/a", write=True)
    machine.trouble = lambda name, path: Trouble.ERROR
    for act in (
        lambda: file.write_at(0, b"new"),
        lambda: file.preallocate(100),
        lambda: disk.create("/b"),
        lambda: disk.rename("/a", "/b"),
        lambda: disk.remove("/a"),
        lambda: disk.sync_directory("/"),
        lambda: disk.make_directory("/d"),
    ):
        with pytest.raises(WriteFailed, match="Input/output error"):
            act()
    assert disk.list_directory("/") == ["a"]
    assert file.read_at(0, 100) == b"old"


def test_a_bit_that_flips_at_rest_is_read_flipped() -> None:
    """A power cut does not mend it."""
    machine, _ = machine_with(b"\x00\x00")
    machine.files()["/a"].flip(1, 3)
    assert content(machine) == b"\x00\x08"
    machine.cut_power()
    assert content(machine) == b"\x00\x08"


def test_a_fork_shares_nothing() -> None:
    """What happens to one of the two does not happen to the other; files with two names stay one file."""
    machine, disk = machine_with(b"old")
    disk.open("/a", write=True).write_at(0, b"new")
    disk.rename("/a", "/b")
    fork = machine.fork(Everything())
    machine.cut_power()
    assert content(machine) == b"old"
    assert content(fork, "/b") == b"new"
    fork.cut_power()
    assert content(fork, "/b") == b"new"
    assert machine.boot().list_directory("/") == ["a"]


def test_the_steps_are_those_of_the_real_disk() -> None:
    """A file that is made whole takes the same calls, so the simulation leaves out none that could fail."""
    machine = Machine(Nothing())
    steps: list[str] = []
    machine.on_step = lambda moment, name, path: steps.append(name) if moment is Moment.BEFORE else None
    machine.boot().write_whole("/a", [b"x"])
    assert steps == ["create", "write", "sync", "rename", "sync_directory"]
    calls = {name for name in dir(RealDisk) if not name.startswith("_") and name != "file_type"}
    assert calls <= set(dir(SimulatedDisk))
