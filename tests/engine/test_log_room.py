"""A log whose disk is full or whose files are taken away: what is refused, what is final, and what goes on."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.disk import RealDisk
from engine.errors import DiskFault, DiskFull, NoSpace, PlaceLost, WriteFailed
from engine.log import Log
from engine.record import SEGMENT_HEADER_BYTES, frame_bytes, prove_frame
from tests.engine.faulty_disk import FaultyDisk
from tests.engine.logs import LOG_ID, SEGMENT_BYTES, Opened, append, increments, make_log


def no_space(step: str, ending: str) -> Callable[[str, str], None]:
    """Let one kind of step find the disk full."""

    def before(name: str, path: str) -> None:
        if name == step and path.endswith(ending):
            raise NoSpace(f"can't {name}: No space left on device", path=path)

    return before


def full_log(directory: Path) -> tuple[FaultyDisk, Log]:
    """Make a log whose next frame of four events needs a new segment."""
    disk = FaultyDisk()
    log = Log.create(disk, str(directory), log_id=LOG_ID, segment_bytes=SEGMENT_BYTES)
    end = SEGMENT_HEADER_BYTES
    while end + (size := log.append(increments(log.tail.seq + 1, 4), 1).bytes) + size <= SEGMENT_BYTES:
        end += size
    return disk, log


@pytest.mark.parametrize("step", ["create", "preallocate", "write", "sync", "rename"])
def test_a_segment_that_does_not_fit_leaves_the_log_as_it_was(tmp_path: Path, step: str) -> None:
    """A full disk ends the service: nothing was written, its room is given back, and the log goes on by itself."""
    disk, log = full_log(tmp_path)
    tail, names = log.tail, sorted(path.name for path in tmp_path.iterdir())
    disk.before = no_space(step, ".log" if step == "rename" else ".tmp")
    for attempt in (lambda: log.append(increments(tail.seq + 1, 4), 1), log.make_room, log.make_room):
        with pytest.raises(DiskFull, match="the next segment does not fit on the disk") as full:
            attempt()
        assert not isinstance(full.value, WriteFailed)
        assert full.value.seq == tail.seq + 1
        assert log.tail == tail
        assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert [frame.last_seq for frame in log.read_from(1)][-1] == tail.seq
    disk.before = None
    log.make_room()
    append(log, 2)
    log.close()
    assert Opened(tmp_path).seqs == list(range(1, tail.seq + 9))


def test_a_full_log_takes_what_fits_and_is_full_until_the_next_segment_is_there(tmp_path: Path) -> None:
    """A frame that fits into the live segment proves no room. One that does not asks the disk for nothing."""
    disk = FaultyDisk()
    log = Log.create(disk, str(tmp_path), log_id=LOG_ID, segment_bytes=SEGMENT_BYTES)
    log.append(increments(1, 4), 1)
    disk.before = no_space("create", ".tmp")
    assert log.full is None
    for _ in range(2):
        disk.steps.clear()
        with pytest.raises(DiskFull, match="the next segment does not fit"):
            log.append(increments(log.tail.seq + 1, 40), 1)
        log.append(increments(log.tail.seq + 1, 1), 1)
        assert log.full is not None
    assert [step for step, *_ in disk.steps] == ["write", "sync"], "the second one was refused without an attempt"
    disk.before = None
    segments = len(log.segments())
    log.make_room()
    assert log.full is None
    log.make_room()
    log.append(increments(log.tail.seq + 1, 30), 1)
    assert len(log.segments()) == segments + 1
    seq = log.tail.seq
    log.close()
    assert Opened(tmp_path).seqs == list(range(1, seq + 1))


def test_a_log_that_wants_room_for_a_new_one_keeps_its_empty_segment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A segment of the same name in its place would take the open file away."""
    log = Log.create(RealDisk(), str(tmp_path), log_id=LOG_ID, segment_bytes=SEGMENT_BYTES)
    with monkeypatch.context() as small:
        small.setattr(RealDisk, "free_bytes", lambda _self, _path: SEGMENT_BYTES - 1)
        for attempt in (log.check_restart, log.make_room):
            with pytest.raises(DiskFull):
                attempt()
        assert log.full is not None
    log.make_room()
    assert log.full is None
    log.check_place()
    append(log, 1)


def test_a_name_that_may_not_be_durable_is_final_on_a_full_disk_too(tmp_path: Path) -> None:
    """A failed fsync is never tried again."""
    disk, log = full_log(tmp_path)
    disk.before = no_space("sync_directory", "")
    with pytest.raises(WriteFailed):
        log.append(increments(log.tail.seq + 1, 4), 1)
    disk.before = None
    with pytest.raises(WriteFailed):
        log.append(increments(log.tail.seq + 1, 4), 1)


@pytest.mark.parametrize("step", ["write", "sync"])
def test_a_full_disk_is_final_once_the_frame_itself_is_written(tmp_path: Path, step: str) -> None:
    """A file system that copies on write may find no room where room was laid out: the outcome is unknown then."""
    disk = FaultyDisk()
    log = Log.create(disk, str(tmp_path), log_id=LOG_ID, segment_bytes=SEGMENT_BYTES)
    disk.before = no_space(step, ".log")
    with pytest.raises(WriteFailed) as failed:
        log.append(increments(1, 1), 1)
    assert not isinstance(failed.value, DiskFull)
    disk.before = None
    with pytest.raises(WriteFailed):
        log.append(increments(1, 1), 1)


def test_of_several_frames_those_that_fit_are_given(tmp_path: Path) -> None:
    """A follower applies them, and has the others again later."""
    make_log(tmp_path / "leader", 12)
    frames = [prove_frame(frame_bytes(frame)) for frame in Opened(tmp_path / "leader").log.read_from(1)]
    disk = FaultyDisk()
    log = Log.create(disk, str(tmp_path / "log"), log_id=LOG_ID, segment_bytes=SEGMENT_BYTES)
    disk.before = no_space("preallocate", ".tmp")
    fit = len(log.append_frames(frames))
    assert 0 < fit < len(frames)
    assert log.tail.seq == frames[fit - 1].frame.last_seq
    with pytest.raises(DiskFull):
        log.append_frames(frames[fit:])
    with pytest.raises(DiskFull):
        log.make_room()
    disk.before = None
    log.make_room()
    assert len(log.append_frames(frames[fit:])) == len(frames) - fit
    log.close()
    assert Opened(tmp_path / "log").seqs == list(range(1, 49))


def test_room_is_asked_for_before_there_is_no_way_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a promotion, and for a replica that begins anew."""
    _, log = full_log(tmp_path)
    log.check_room(400)
    monkeypatch.setattr(RealDisk, "free_bytes", lambda _self, _path: SEGMENT_BYTES - 1)
    log.check_room(1)
    with pytest.raises(DiskFull, match=f"{SEGMENT_BYTES - 1} left"):
        log.check_room(400)


def test_a_live_segment_that_is_gone_is_noticed_before_anything_changes(tmp_path: Path) -> None:
    """The lock's file is removed, or a live segment was deleted: no rotation, no compression, no removal."""
    disk, log = full_log(tmp_path)
    for _ in range(2):
        append(log, 8)
    log.check_place()
    segments = log.segments()
    live = Path(segments[-1].path)
    live.rename(tmp_path / "aside")
    names = sorted(path.name for path in tmp_path.iterdir())
    disk.steps.clear()
    for change in (
        log.check_place,
        lambda: log.compress(segments[0]),
        lambda: log.remove_before(log.tail.seq),
        lambda: log.append(increments(log.tail.seq + 1, 30), 1),
    ):
        with pytest.raises((PlaceLost, WriteFailed)) as lost:
            change()
        assert lost.value.path == str(live)
    assert disk.steps == []
    with pytest.raises(WriteFailed, match="was moved or removed"):
        log.append(increments(log.tail.seq + 1, 30), 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_a_live_segment_that_was_cut_is_not_sealed(tmp_path: Path) -> None:
    """It would be a damaged one before the end of the log. A write after the cut does not hide it."""
    _, log = full_log(tmp_path)
    live = Path(log.segments()[-1].path)
    os.truncate(live, SEGMENT_BYTES // 2)
    log.append(increments(log.tail.seq + 1, 1), 1)
    found = live.stat().st_size
    with pytest.raises(PlaceLost, match=f"it has {found} bytes instead of {SEGMENT_BYTES}") as lost:
        log.check_place()
    assert lost.value.path == str(live)
    with pytest.raises(WriteFailed, match="cut short"):
        log.append(increments(log.tail.seq + 1, 30), 1)
    assert [path.name for path in tmp_path.iterdir()] == [live.name]


def test_a_log_that_is_given_up_takes_nothing_more(tmp_path: Path) -> None:
    """Not even what is being written at that moment: its caller is not told that it counts."""
    disk, log = full_log(tmp_path)
    seq = log.tail.seq

    def give_up(name: str, _path: str) -> None:
        if name == "write":
            disk.before = None
            log.give_up(DiskFault("the lock is gone", path="DATA/lock"))

    disk.before = give_up
    with pytest.raises(WriteFailed, match="the lock is gone") as failed:
        log.append(increments(seq + 1, 1), 1)
    assert failed.value.path == "DATA/lock"
    disk.steps.clear()
    with pytest.raises(WriteFailed, match="the lock is gone"):
        log.append(increments(seq + 1, 1), 1)
    assert disk.steps == []
    assert log.tail.seq == seq
