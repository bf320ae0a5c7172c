"""What a checkpoint compresses and removes, what it keeps, and what it does about damage on the way."""

from __future__ import annotations

import shutil
from pathlib import Path

from engine.errors import LogDamaged, SnapshotDamaged
from tests.snapshots.directories import (
    Killed,
    Leader,
    MortalDisk,
    copy,
    damage_frame,
    damage_snapshot,
    segments,
    seq_of,
    snapshot_files,
)
from tests.snapshots.serving import DAY_MS, Served, serving


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
