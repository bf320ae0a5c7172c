"""Compressing and removing the segments of a log: no event is lost, and no gap appears."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from engine.errors import LogDamaged, NoLongerKept, WriteFailed
from engine.log import Log, SegmentInfo
from tests.engine.faulty_disk import FaultyDisk
from tests.engine.logs import LOG_ID, SEGMENT_BYTES, Opened, append, flip, frames_in, make_log


def test_compression_keeps_every_event_and_lets_the_plain_file_go(tmp_path: Path) -> None:
    """The compressed one is durable before the plain one is removed."""
    make_log(tmp_path, 30)
    disk = FaultyDisk()
    log = Opened(tmp_path, disk=disk).log
    info = log.segments()[0]
    disk.steps.clear()
    compressed = log.compress(info)
    name = "00000000000000000001.log"
    assert [step for step in disk.steps if step[0] != "write"] == [
        ("create", f"{name}.gz.tmp"),
        ("sync", f"{name}.gz.tmp"),
        ("rename", f"{name}.gz"),
        ("sync_directory", tmp_path.name),
        ("remove", name),
        ("sync_directory", tmp_path.name),
    ]
    size = (tmp_path / f"{name}.gz").stat().st_size
    assert compressed == SegmentInfo(f"{tmp_path}/{name}.gz", 1, info.last_seq, True, True, size)
    assert log.segments()[0] == compressed
    assert log.compress(compressed) == compressed
    log.close()
    assert Opened(tmp_path).seqs == list(range(1, 121))


def test_only_a_whole_sealed_segment_is_compressed(tmp_path: Path) -> None:
    """Not the one that is written to, not one of another log, not a damaged one: that stays as it is."""
    make_log(tmp_path, 30)
    log = Opened(tmp_path).log
    with pytest.raises(ValueError, match="not a sealed segment"):
        log.compress(log.segments()[-1])
    with pytest.raises(ValueError, match="not a sealed segment"):
        log.compress(msgspec.structs.replace(log.segments()[0], first_seq=2))
    first = Path(log.segments()[0].path)
    flip(first, frames_in(first)[3][0] + 50)
    before = first.read_bytes()
    with pytest.raises(LogDamaged):
        log.compress(log.segments()[0])
    assert first.read_bytes() == before
    assert not Path(f"{first}.gz").exists()


def test_the_last_time_of_a_segment_is_told(tmp_path: Path) -> None:
    """For a retention that goes by age."""
    make_log(tmp_path, 30)
    log = Opened(tmp_path).log
    info = log.segments()[1]
    assert log.last_time_ms(info) == 1_700_000_000_000 + info.last_seq - 3


def test_removal_takes_the_oldest_and_never_makes_a_gap(tmp_path: Path) -> None:
    """Whatever seq is named: what stays begins with a whole segment, and the one written to stays."""
    make_log(tmp_path, 30)
    disk = FaultyDisk()
    log = Opened(tmp_path, disk=disk).log
    infos = log.segments()
    assert log.remove_before(infos[1].first_seq - 1) == []
    disk.steps.clear()
    assert log.remove_before(infos[2].first_seq + 1) == infos[:2]
    one_removal = ["remove", "sync_directory"]
    assert [step for step, _ in disk.steps] == ["sync_directory", *one_removal * 2]
    assert log.segments() == infos[2:]
    assert log.statistics().first_seq == infos[2].first_seq
    with pytest.raises(NoLongerKept) as caught:
        log.read_from(infos[2].first_seq - 1)
    assert caught.value.first_seq == infos[2].first_seq
    with pytest.raises(NoLongerKept):
        log.event_at(1)
    assert log.event_at(infos[2].first_seq)[1].seq == infos[2].first_seq
    assert log.remove_before(10**9) == infos[2:-1]
    assert log.segments() == infos[-1:]
    append(log, 1)


def test_a_removal_that_failed_comes_before_any_later_one(tmp_path: Path) -> None:
    """Or the segment that stayed would stand before a gap, and the next start would be refused."""
    directory, disk = tmp_path / "log", FaultyDisk()
    log = Log.create(disk, str(directory), log_id=LOG_ID, segment_bytes=SEGMENT_BYTES)
    append(log, 40)
    infos = log.segments()
    disk.fail("remove", ".log")
    for _ in range(2):
        with pytest.raises(WriteFailed):
            log.remove_before(infos[2].first_seq)
    disk.before = None
    assert log.segments() == infos
    assert log.remove_before(infos[3].first_seq) == infos[:3]
    assert sorted(str(path) for path in directory.iterdir()) == [info.path for info in infos[3:]]
    log.close()


def test_a_removal_that_may_not_be_on_disk_is_made_durable_before_the_next(tmp_path: Path) -> None:
    """The sync after it failed: a power cut could bring it back, and must not find a gap behind it."""
    directory, disk = tmp_path / "log", FaultyDisk()
    log = Log.create(disk, str(directory), log_id=LOG_ID, segment_bytes=SEGMENT_BYTES)
    append(log, 40)
    infos = log.segments()
    log.remove_before(infos[1].first_seq)
    removals = 0

    def before(step: str, path: str) -> None:
        nonlocal removals
        removals += step == "remove"
        if step == "sync_directory" and removals:
            raise WriteFailed("can't sync the directory", path=path)

    disk.before = before
    with pytest.raises(WriteFailed):
        log.remove_before(infos[2].first_seq)
    disk.before = None
    disk.steps.clear()
    assert log.segments() == infos[2:]
    assert log.remove_before(infos[4].first_seq) == infos[2:4]
    assert [step for step, _ in disk.steps] == ["sync_directory", *["remove", "sync_directory"] * 2]
    log.close()


def test_a_plain_segment_that_could_not_be_removed_goes_with_its_compressed_form(tmp_path: Path) -> None:
    """Retention must not leave it behind, before a gap."""
    directory, disk = tmp_path / "log", FaultyDisk()
    log = Log.create(disk, str(directory), log_id=LOG_ID, segment_bytes=SEGMENT_BYTES)
    append(log, 40)
    infos = log.segments()
    disk.fail("remove", ".log")
    with pytest.raises(WriteFailed):
        log.compress(infos[0])
    disk.before = None
    assert Path(infos[0].path).exists()
    assert [frame.first_seq for frame in log.read_from(1)][:3] == [1, 5, 9]
    log.remove_before(infos[2].first_seq)
    assert sorted(str(path) for path in directory.iterdir()) == [info.path for info in infos[2:]]
    log.close()
