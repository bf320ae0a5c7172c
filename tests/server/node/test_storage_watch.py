"""The watch over a directory: what is lost ends the process, what gets scarce is told in time."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs
from structlog.typing import EventDict

from engine.actor import Actor
from engine.commands import Receipt
from engine.disk import RealFile
from engine.errors import DiskFault, DiskFull, NoSpace, PlaceLost, WriteFailed
from engine.held_disk import HeldDisk
from engine.local_log import LocalLog
from engine.machine import StateMachine
from engine.record import pack_frame, prove_frame
from engine.segment import ROOM
from server import bounds
from server.node.storage_watch import StorageWatch
from server.node.surroundings import Surroundings
from server.role import CurrentRole, Role, State
from snapshots.opening import open_directory
from tests.engine.logs import increments
from tests.engine.model import increment
from tests.server.node.worlds import open_world
from tests.snapshots.directories import RULES, SEGMENT_BYTES, InlineDisk, Told


class Scales(InlineDisk):
    """A disk with as much room as a test says; None: it can't tell. While `roomless`, no file is made."""

    free: int | None = 2**40
    roomless = False

    def create(self, path: str, mode: int = 0o600) -> RealFile:
        """Make a file, or find no room for it."""
        if self.roomless:
            raise NoSpace("can't create: No space left on device", path=path)
        return super().create(path, mode)

    def free_bytes(self, path: str) -> int:
        """Tell it."""
        if self.free is None:
            raise DiskFault("can't tell the free space", path=path)
        return self.free


class Bench:
    """A watch that runs, over a directory that is held."""

    def __init__(self, world: Surroundings, data: Path, disk: Scales, state: State) -> None:
        self.world = world
        self.disk = disk
        held = HeldDisk(disk, disk.lock(f"{data}/lock"))
        opened = open_directory(held, str(data), RULES, tell=Told(), segment_bytes=SEGMENT_BYTES)
        self.log = opened.log
        self.actor = Actor(StateMachine(opened.scoreboard, LocalLog(opened.log), lambda _: None), clock=world.clock)
        self.watch = StorageWatch(world, opened.log, CurrentRole(Role(state), trio.current_time))

    async def look(self) -> None:
        """Let it look once more."""
        await trio.sleep(bounds.STORAGE_LOOK_SECONDS)
        await trio.testing.wait_all_tasks_blocked()


@asynccontextmanager
async def open_bench(
    data: Path, check_held: Callable[[], None] = lambda: None, state: State = State.LEADING
) -> AsyncIterator[Bench]:
    """A world with a watch."""
    disk = Scales()
    disk.make_directory(str(data))
    async with open_world(data, disk) as world:
        object.__setattr__(world, "check_held", check_held)
        bench = Bench(world, data, disk, state)
        await world.tasks.start(world.guard.watched, bench.watch.run)
        await trio.testing.wait_all_tasks_blocked()
        yield bench
    bench.log.close()


async def test_a_lock_that_is_lost_ends_the_process_and_stops_the_log(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Within a second, with the path; what is submitted after it is not written."""
    lost = False

    def check() -> None:
        if lost:
            raise PlaceLost("the lock of the data directory was removed", path="DATA/lock")

    with capture_logs() as lines:
        async with open_bench(tmp_path / "data", check) as bench:
            await bench.look()
            assert not bench.world.shutdown.wanted.is_set()
            bench.log.append(increments(1, 1), 1)
            lost = True
            await bench.look()
            assert isinstance(bench.world.shutdown.fault, PlaceLost)
            with pytest.raises(WriteFailed, match="the lock of the data directory was removed"):
                bench.log.append(increments(2, 1), 1)
    [line] = [line for line in lines if line["event"] == "disk_failed"]
    assert (line["log_level"], line["path"]) == ("critical", "DATA/lock")


async def test_a_live_segment_that_is_deleted_ends_the_process(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """The same for a directory that was exchanged: its segments are not there either."""
    async with open_bench(tmp_path / "data") as bench:
        await bench.look()
        segment = bench.log.segments()[-1].path
        bench.disk.remove(segment)
        await bench.look()
        fault = bench.world.shutdown.fault
        assert isinstance(fault, PlaceLost)
        assert fault.path == segment


async def test_a_live_segment_that_is_cut_ends_the_process(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """What was acknowledged is gone then; writes after the cut would make the file longer again."""
    async with open_bench(tmp_path / "data") as bench:
        bench.log.append(increments(1, 10), 1)
        segment = bench.log.segments()[-1].path
        os.truncate(segment, 500)
        bench.log.append(increments(11, 1), 1)
        found = os.stat(segment).st_size
        await bench.look()
        fault = bench.world.shutdown.fault
        assert isinstance(fault, PlaceLost)
        assert fault.path == segment
        assert f"it has {found} bytes instead of {SEGMENT_BYTES}" in str(fault)
        with pytest.raises(WriteFailed, match="cut short"):
            bench.log.append(increments(12, 1), 1)


async def test_too_little_room_is_told_before_it_is_none(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Once, until it is clearly enough again; a disk that can't tell is no reason to end."""
    with capture_logs() as lines:
        async with open_bench(tmp_path / "data") as bench:
            assert (bench.watch.free_bytes, bench.watch.warning()) == (2**40, None)
            for free in (bounds.DISK_LOW_BYTES - 1, bounds.DISK_LOW_BYTES + 1, bounds.DISK_LOW_BYTES - 5, None):
                bench.disk.free = free
                await bench.look()
                assert bench.watch.free_bytes == free
                assert "writes will be refused" in (bench.watch.warning() or "")
            bench.disk.free = 2 * bounds.DISK_LOW_BYTES
            await bench.look()
            assert bench.watch.warning() is None
            assert not bench.world.shutdown.wanted.is_set()
    told = [(line["event"], line["log_level"], line["free_bytes"]) for line in lines if "low" in line["event"]]
    assert told == [
        ("disk_low", "warning", bounds.DISK_LOW_BYTES - 1),
        ("disk_no_longer_low", "info", 2 * bounds.DISK_LOW_BYTES),
    ]


def told_of_room(lines: list[EventDict]) -> list[tuple[str, str]]:
    """Give what the log said of a full disk, with its levels."""
    return [(line["event"], line["log_level"]) for line in lines if line["event"] in ("disk_full", "disk_has_room")]


TOLD_ONCE = [("disk_full", "error"), ("disk_has_room", "info")]


async def test_a_full_disk_is_told_once_and_so_is_its_end(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """As an error with path, seq and remedy. That an increment fits where a batch does not is no end of it."""
    with capture_logs() as lines:
        async with open_bench(tmp_path / "data") as bench:
            await bench.world.tasks.start(bench.actor.run)
            await bench.actor.submit([increment("ann", "first")])
            bench.disk.roomless = True
            for turn in range(5):
                with pytest.raises(DiskFull):
                    await bench.actor.submit([increment("ann", f"{turn}-{number}") for number in range(100)])
                await bench.look()
                assert "writes are refused" in (bench.watch.warning() or "")
                [outcome] = await bench.actor.submit([increment("ann", f"{turn}")])
                assert isinstance(outcome, Receipt)
                await bench.look()
                assert "writes are refused" in (bench.watch.warning() or "")
            bench.disk.roomless = False
            await bench.look()
            await bench.look()
            assert bench.watch.warning() is None
            await bench.actor.submit([increment("ann", f"b-{number}") for number in range(100)])
    assert told_of_room(lines) == TOLD_ONCE
    [line] = [line for line in lines if line["event"] == "disk_full"]
    assert line["path"].endswith("/log/00000000000000000002.log")
    assert (line["seq"], line["remedy"]) == (2, ROOM)


async def test_a_full_disk_of_a_replica_is_told_the_same_way(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """It takes no writes that could be refused: what it misses is what its leader sends."""
    with capture_logs() as lines:
        async with open_bench(tmp_path / "data", state=State.FOLLOWING) as bench:
            first = prove_frame(pack_frame(increments(1, 1), epoch=1, previous=bench.log.tail.checksum))
            second = prove_frame(pack_frame(increments(2, 80), epoch=1, previous=first.frame.checksum))
            bench.disk.free = bounds.DISK_LOW_BYTES - 1
            bench.disk.roomless = True
            bench.log.append_frames([first])
            await bench.look()
            assert "nothing will be followed" in (bench.watch.warning() or "")
            with pytest.raises(DiskFull):
                bench.log.append_frames([second])
            for _ in range(3):
                await bench.look()
                assert "the disk is full, so nothing is followed" in (bench.watch.warning() or "")
                with pytest.raises(DiskFull):
                    bench.log.make_room()
            bench.disk.roomless = False
            bench.log.make_room()
            await bench.look()
            assert "is full, so" not in (bench.watch.warning() or "")
            bench.log.append_frames([second])
            assert bench.log.tail.seq == 81
    assert told_of_room(lines) == TOLD_ONCE
