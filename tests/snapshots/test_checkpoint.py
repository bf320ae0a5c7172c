"""Taking snapshots while serving: exact, one at a time, never the end of the process, and followed by retention.

Where a test waits, the clock is a mock that jumps: the disk is used from the event loop, so nothing but waiting happens
meanwhile, and the waits take no time.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from engine.actor import Actor
from engine.commands import Command, Increment
from engine.disk import RealDisk
from engine.errors import DiskFault, LogDamaged, SnapshotDamaged, WriteFailed
from engine.image import StateImage
from engine.record import Tail
from snapshots.checkpoint import LOOK_SECONDS, RETRY_SECONDS, Checkpointer, take_beside
from snapshots.digests import StateDigests, digests_of
from snapshots.opening import open_directory
from snapshots.state import read_state
from snapshots.store import SnapshotInfo, Store
from tests.snapshots.directories import (
    BEGUN_MS,
    RULES,
    SEGMENT_BYTES,
    InlineDisk,
    Killed,
    Leader,
    MortalDisk,
    Told,
    copy,
    damage_frame,
    damage_snapshot,
    digest,
    history,
    segments,
    seq_of,
    snapshot_files,
)

DAY_MS = 24 * 3600 * 1000


class Served:
    """A directory that is served from: its actor and its checkpointer. Its clock only moves if a test does it."""

    def __init__(
        self,
        directory: Path,
        *,
        every_events: int = 10**9,
        keep: int = 2,
        log_keep_seconds: float | None = None,
        disk: RealDisk | None = None,
        store: Store | None = None,
        pinned_seq: Callable[[], int | None] = lambda: None,
        on_capture: Callable[[int], None] | None = None,
        on_saved: Callable[[SnapshotInfo, StateDigests], None] | None = None,
    ) -> None:
        disk = disk or InlineDisk()
        self.directory = directory
        self.told = Told()
        self.now_ms = BEGUN_MS
        self.opened = open_directory(disk, str(directory), RULES, tell=self.told, segment_bytes=SEGMENT_BYTES)
        self.store = store or Store(disk, str(directory))
        self.actor = Actor(
            self.opened.scoreboard, self.opened.log, clock_ms=lambda: self.now_ms, on_applied=lambda _: None
        )
        self.checkpointer = Checkpointer(
            self.actor,
            self.store,
            self.opened,
            every_events=every_events,
            keep=keep,
            log_keep_seconds=log_keep_seconds,
            clock_ms=lambda: self.now_ms,
            tell=self.told,
            pinned_seq=pinned_seq,
            on_capture=on_capture,
            on_saved=on_saved,
        )

    @property
    def seq(self) -> int:
        """The last applied event."""
        return self.actor.tail.seq

    def increments(self, count: int) -> Sequence[Command]:
        """Commands that each make an event."""
        first = self.seq + 1
        return [
            Increment(f"user-{n % 30}", f"act-{n}", "ACTION_COMPLETED", "main", "backend")
            for n in range(first, first + count)
        ]

    async def write(self, events: int, *, per_frame: int = 10) -> None:
        """Make so many events."""
        while events > 0:
            count = min(events, per_frame)
            await self.actor.submit(self.increments(count))
            events -= count

    def digest(self) -> str:
        """The digest of the state now."""
        return digest(self.opened.scoreboard)


@asynccontextmanager
async def serving(served: Served) -> AsyncIterator[Served]:
    """Run the actor."""
    async with trio.open_nursery() as nursery:
        await nursery.start(served.actor.run)
        yield served
        await served.actor.drain()
        nursery.cancel_scope.cancel()
    served.opened.log.close()


async def test_a_snapshot_on_demand_is_of_exactly_this_state(tmp_path: Path) -> None:
    """What is loaded from it is what the actor held, with the log's own tail."""
    async with serving(Served(tmp_path)) as served:
        await served.write(50)
        info = await served.checkpointer.take()
        assert info.seq == 50
        image, tail = served.store.load(info)
        assert tail == served.opened.log.tail
        assert image == served.actor.capture()[0]


async def test_a_snapshot_before_the_first_event_does_no_harm(tmp_path: Path) -> None:
    """A leader that is stopped before anybody came takes one of the empty state: the next one goes on from it."""
    async with serving(Served(tmp_path)) as served:
        assert (await served.checkpointer.take()).seq == 0
    async with serving(Served(tmp_path)) as again:
        assert again.opened.snapshot_seq == 0
        await again.write(5)
        expected = again.digest()
    last = Leader(tmp_path)
    assert (last.digest(), last.opened.snapshot_seq, last.told.all) == (expected, 0, [])
    last.close()
    scoreboard, _ = read_state(InlineDisk(), str(tmp_path), RULES, tell=Told())
    assert digest(scoreboard) == expected


async def test_a_snapshot_of_the_same_state_is_not_taken_twice(tmp_path: Path) -> None:
    """Asked again with nothing new, also by two at once, and after a restart: the one that is there is given."""
    async with serving(Served(tmp_path)) as served:
        await served.write(5)
        infos: list[SnapshotInfo] = []

        async def take() -> None:
            infos.append(await served.checkpointer.take())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(take)
            nursery.start_soon(take)
        await take()
        assert infos == [infos[0]] * 3
        assert served.checkpointer.statistics().taken == 1
    async with serving(Served(tmp_path)) as again:
        assert await again.checkpointer.take() == infos[0]
        assert again.checkpointer.statistics().taken == 0


async def test_checkpoints_come_by_the_number_of_events(tmp_path: Path, autojump_clock: MockClock) -> None:
    """With every_events = 100: none after 99, one after 100, the next not before 200."""
    async with serving(Served(tmp_path, every_events=100)) as served, trio.open_nursery() as nursery:
        nursery.start_soon(served.checkpointer.run)
        await served.write(99)
        await trio.sleep(3 * LOOK_SECONDS)
        assert served.checkpointer.statistics().last_seq is None
        await served.write(1)
        await trio.sleep(2 * LOOK_SECONDS)
        assert served.checkpointer.statistics().last_seq == 100
        await served.write(99)
        await trio.sleep(3 * LOOK_SECONDS)
        assert served.checkpointer.statistics().last_seq == 100
        await served.write(1)
        await trio.sleep(2 * LOOK_SECONDS)
        assert [info.seq for info in served.store.list()] == [200, 100]
        nursery.cancel_scope.cancel()


async def test_the_events_of_the_log_that_was_replayed_count_too(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A leader that is killed again and again before it comes to a checkpoint would replay ever more: it does not."""
    history(tmp_path, 60, snapshots=[10])
    async with serving(Served(tmp_path, every_events=100)) as served, trio.open_nursery() as nursery:
        nursery.start_soon(served.checkpointer.run)
        await trio.sleep(2 * LOOK_SECONDS)
        assert served.checkpointer.statistics().last_seq == served.seq
        nursery.cancel_scope.cancel()


async def test_statistics_tell_of_the_newest_snapshot(tmp_path: Path) -> None:
    """Nothing at first; seq and time of the last one; after a restart the time of the state that it holds."""
    async with serving(Served(tmp_path)) as served:
        statistics = served.checkpointer.statistics()
        assert (statistics.last_seq, statistics.last_time_ms, statistics.taken, statistics.failed) == (None, None, 0, 0)
        await served.write(10)
        served.now_ms += 5000
        await served.checkpointer.take()
        statistics = served.checkpointer.statistics()
        assert (statistics.last_seq, statistics.last_time_ms) == (10, BEGUN_MS + 5000)
        assert (statistics.taken, statistics.failed) == (1, 0)
    async with serving(Served(tmp_path)) as again:
        statistics = again.checkpointer.statistics()
        assert (statistics.last_seq, statistics.last_time_ms) == (10, BEGUN_MS)


class FailingStore(Store):
    """A store whose disk is full for the first `failures` times."""

    def __init__(self, directory: Path, failures: int) -> None:
        super().__init__(InlineDisk(), str(directory))
        self.failures = failures

    def save(self, image: StateImage, tail: Tail, *, paced: bool = False, mark: str = "") -> SnapshotInfo:
        """Save, or fail."""
        if self.failures > 0:
            self.failures -= 1
            raise WriteFailed("no space", path=self.directory)
        return super().save(image, tail, paced=paced, mark=mark)


async def test_a_failed_checkpoint_is_told_and_tried_again_and_the_process_goes_on(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The disk has no room for a snapshot twice: writes go on, both failures are told, the third attempt succeeds."""
    store = FailingStore(tmp_path, failures=2)
    async with serving(Served(tmp_path, every_events=10, store=store)) as served, trio.open_nursery() as nursery:
        nursery.start_soon(served.checkpointer.run)
        await served.write(10)
        await trio.sleep(2 * LOOK_SECONDS)
        assert [type(fault) for fault in served.told.all] == [WriteFailed]
        await served.write(10)
        await trio.sleep(2 * RETRY_SECONDS + 5 * LOOK_SECONDS)
        statistics = served.checkpointer.statistics()
        assert (statistics.last_seq, statistics.taken, statistics.failed) == (20, 1, 2)
        assert len(served.told.all) == 2
        nursery.cancel_scope.cancel()


async def test_who_asks_for_a_checkpoint_gets_its_error(tmp_path: Path) -> None:
    """On demand and at shutdown the failure is the caller's to handle; the next attempt is free to succeed."""
    store = FailingStore(tmp_path, failures=1)
    async with serving(Served(tmp_path, store=store)) as served:
        await served.write(5)
        with pytest.raises(WriteFailed):
            await served.checkpointer.take()
        assert (await served.checkpointer.take()).seq == 5


class GatedStore(Store):
    """A store that waits, in its worker thread, until the test lets it write."""

    def __init__(self, disk: RealDisk, directory: Path) -> None:
        super().__init__(disk, str(directory))
        self.saving = threading.Event()
        self.may_save = threading.Event()

    def save(self, image: StateImage, tail: Tail, *, paced: bool = False, mark: str = "") -> SnapshotInfo:
        """Say that it has come here, wait, save."""
        self.saving.set()
        assert self.may_save.wait(60)
        return super().save(image, tail, paced=paced, mark=mark)


async def test_the_snapshot_is_of_its_moment_whatever_is_written_meanwhile(tmp_path: Path) -> None:
    """While the worker thread has not even begun to pack, hundreds of events are applied: they are not in it."""
    store = GatedStore(RealDisk(), tmp_path)
    async with serving(Served(tmp_path, disk=RealDisk(), store=store)) as served:
        await served.write(200)
        expected = served.digest()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(served.checkpointer.take)
            await trio.to_thread.run_sync(store.saving.wait)
            await served.write(300)
            store.may_save.set()
        (info,) = store.list()
        assert info.seq == 200
        image, _ = store.load(info)
        scoreboard, tail = read_state(RealDisk(), str(tmp_path), RULES, until_seq=200, tell=Told())
        assert scoreboard.capture() == image
        assert digest(scoreboard) == expected
        assert tail == store.load(info)[1]
        assert served.seq == 500


async def test_after_a_checkpoint_either_of_two_snapshots_gives_the_whole_state(tmp_path: Path) -> None:
    """Five checkpoints: two snapshots stay, and with the newest, or without it, everything is there."""
    async with serving(Served(tmp_path)) as served:
        for _ in range(5):
            await served.write(60)
            await served.checkpointer.take()
        await served.write(7)
        expected = served.digest()
    assert [seq_of(path) for path in snapshot_files(tmp_path)] == [240, 300]
    assert served.told.all == []
    again = Leader(tmp_path)
    assert (again.digest(), again.opened.snapshot_seq) == (expected, 300)
    again.close()
    snapshot_files(tmp_path)[-1].unlink()
    older = Leader(tmp_path)
    assert (older.digest(), older.opened.snapshot_seq) == (expected, 240)
    older.close()


async def test_covered_segments_are_compressed_and_by_default_never_removed(tmp_path: Path) -> None:
    """What two snapshots cover is compressed, what comes after is not; the whole log can still be replayed."""
    async with serving(Served(tmp_path)) as served:
        for _ in range(4):
            await served.write(120)
            await served.checkpointer.take()
        expected = served.digest()
        infos = served.opened.log.segments()
    assert [info.compressed for info in infos] == [info.last_seq <= 360 for info in infos]
    assert any(info.compressed for info in infos)
    assert infos[0].first_seq == 1
    for path in snapshot_files(tmp_path):
        path.unlink()
    again = Leader(tmp_path)
    assert again.digest() == expected
    again.close()


async def test_with_an_age_old_covered_segments_are_removed(tmp_path: Path) -> None:
    """`[log] keep` of a day: what is older and covered goes; what is needed after the older snapshot stays."""
    async with serving(Served(tmp_path, log_keep_seconds=24 * 3600)) as served:
        for _ in range(4):
            await served.write(120)
            await served.checkpointer.take()
        assert served.opened.log.segments()[0].first_seq == 1
        served.now_ms += 2 * DAY_MS
        await served.write(120)
        await served.checkpointer.take()
        expected = served.digest()
        infos = served.opened.log.segments()
    assert [seq_of(path) for path in snapshot_files(tmp_path)] == [480, 600]
    assert 1 < infos[0].first_seq <= 481
    for path in snapshot_files(tmp_path)[1:]:
        path.unlink()
    again = Leader(tmp_path)
    assert again.digest() == expected
    again.close()


async def test_segments_that_are_young_enough_stay(tmp_path: Path) -> None:
    """The age goes by the last event of a segment: what was written within it stays, covered or not."""
    async with serving(Served(tmp_path, log_keep_seconds=24 * 3600)) as served:
        await served.write(200)
        served.now_ms += DAY_MS // 2
        await served.write(200)
        await served.checkpointer.take()
        await served.write(5)
        await served.checkpointer.take()
        served.now_ms += DAY_MS // 2 + 1000
        await served.write(5)
        await served.checkpointer.take()
        first_seq = served.opened.log.segments()[0].first_seq
    assert 1 < first_seq <= 201


async def test_a_segment_that_a_replica_still_reads_stays(tmp_path: Path) -> None:
    """However old it is; when the replica has come further, the segments behind it go."""
    pinned: list[int | None] = [25]
    served = Served(tmp_path / "data", log_keep_seconds=60, pinned_seq=lambda: pinned[0])
    async with serving(served):
        for _ in range(3):
            await served.write(100)
            served.now_ms += DAY_MS
            await served.checkpointer.take()
        first = served.opened.log.segments()[0]
        assert first.first_seq <= 26 <= first.last_seq
        assert next(frame.first_seq for frame in served.opened.log.read_from(26)) <= 26
        pinned[0] = None
        await served.write(100)
        await served.checkpointer.take()
        assert served.opened.log.segments()[0].first_seq > 100


async def test_who_listens_is_told_of_the_moment_and_of_the_digests(tmp_path: Path) -> None:
    """The seq at the copy itself, and the digests of that very state, whatever is written meanwhile."""
    captured: list[int] = []
    saved: list[tuple[int, StateDigests]] = []
    served = Served(
        tmp_path / "data",
        on_capture=captured.append,
        on_saved=lambda info, digests: saved.append((info.seq, digests)),
    )
    async with serving(served):
        await served.write(30)
        digests = digests_of(served.opened.scoreboard.capture())
        await served.checkpointer.take()
        assert captured == [30]
        assert saved == [(30, digests)]
        await served.checkpointer.take()  # of the same state: there is nothing to tell
        assert captured == [30]


async def test_a_damaged_snapshot_is_found_told_and_not_relied_on(tmp_path: Path) -> None:
    """One of two snapshots rots on disk. The next checkpoint reads it back: it keeps the good older one instead."""
    async with serving(Served(tmp_path, log_keep_seconds=0.001)) as served:
        for _ in range(2):
            await served.write(120)
            await served.checkpointer.take()
        damage_snapshot(snapshot_files(tmp_path)[1])
        served.now_ms += DAY_MS
        await served.write(120)
        await served.checkpointer.take()
        expected = served.digest()
        assert [type(fault) for fault in served.told.all] == [SnapshotDamaged]
    assert [seq_of(path) for path in snapshot_files(tmp_path)] == [120, 240, 360]
    assert seq_of(segments(tmp_path)[0]) <= 121
    snapshot_files(tmp_path)[2].unlink()
    again = Leader(tmp_path)
    assert (again.digest(), again.opened.snapshot_seq) == (expected, 120)
    again.close()


async def test_a_damaged_segment_is_told_and_does_not_keep_others_from_being_compressed(tmp_path: Path) -> None:
    """A covered segment rots before it is compressed: it stays as it is for whoever looks into it, and it is told."""
    async with serving(Served(tmp_path)) as served:
        await served.write(250)
        damage_frame(tmp_path, 2)
        await served.checkpointer.take()
        await served.write(10)
        await served.checkpointer.take()
        infos = served.opened.log.segments()
        assert [type(fault) for fault in served.told.all] == [LogDamaged]
    assert not infos[0].compressed
    assert all(info.compressed for info in infos[1:] if info.last_seq <= 250)
    assert infos[1].compressed


async def test_a_leader_that_is_killed_anywhere_in_a_checkpoint_loses_nothing(tmp_path: Path) -> None:
    """Killed at each step of saving, removing, compressing: the next start has every event, from what there is."""
    origin = tmp_path / "origin"
    async with serving(Served(origin, log_keep_seconds=0.001)) as served:
        for _ in range(2):
            await served.write(110)
            await served.checkpointer.take()
    dies_at, survived = 0, False
    while not survived:
        dies_at += 1
        directory = copy(origin, f"killed-{dies_at}")
        expected = ""
        disk = MortalDisk(10**9)
        try:
            async with serving(Served(directory, disk=disk, log_keep_seconds=0.001)) as served:
                served.now_ms += DAY_MS
                await served.write(40)
                expected = served.digest()
                disk.live_for(dies_at)
                await served.checkpointer.take()
                survived = True
                disk.live_for(10**9)
        except* Killed:
            pass
        again = Leader(directory)
        assert again.digest() == expected
        again.close()
        shutil.rmtree(directory)
    assert dies_at > 15


async def test_a_snapshot_beside_the_leader_is_whole_and_used_at_the_next_start(tmp_path: Path) -> None:
    """`snapshot take` on a live directory: it needs no lock, holds what is durable, and the leader goes on."""
    async with serving(Served(tmp_path)) as served:
        await served.write(100)
        info = take_beside(RealDisk(), str(tmp_path), tell=Told())
        assert info.seq == 100
        assert served.store.load(info) == (served.actor.capture()[0], served.actor.tail)
        await served.write(20)
        expected = served.digest()
    again = Leader(tmp_path)
    assert (again.digest(), again.opened.snapshot_seq) == (expected, 100)
    again.close()


def test_a_snapshot_beside_is_not_taken_again_unless_it_is_damaged(tmp_path: Path) -> None:
    """The end of the log has a snapshot already: it is proved and given. If it is damaged, it is replaced."""
    history(tmp_path, 20, snapshots=[20])
    (path,) = snapshot_files(tmp_path)
    before = path.stat().st_ino
    assert take_beside(RealDisk(), str(tmp_path), tell=Told()).path == str(path)
    assert path.stat().st_ino == before
    damage_snapshot(path)
    told = Told()
    info = take_beside(RealDisk(), str(tmp_path), tell=told)
    assert Store(RealDisk(), str(tmp_path)).verify(info).seq == info.seq
    assert {type(fault) for fault in told.all} == {SnapshotDamaged}
    assert sorted(path.parent.iterdir()) == [path]


def test_a_snapshot_of_a_directory_that_is_none_is_refused(tmp_path: Path) -> None:
    """Nothing is made where there is no log."""
    with pytest.raises(DiskFault, match="no segment"):
        take_beside(RealDisk(), str(tmp_path / "nothing"), tell=Told())
    assert not (tmp_path / "nothing").exists()
