"""Opening a log: what is read, what is told, what is written, and what becomes of it if the process dies meanwhile."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from engine.disk import RealDisk
from engine.errors import WriteFailed
from engine.log import Log
from engine.record import Frame, pack_frame
from tests.engine.faulty_disk import Crash, FaultyDisk
from tests.engine.logs import SEGMENT_BYTES, Opened, append, flip, frames_in, increments, overwrite, tail_after


def tear(directory: Path) -> tuple[Path, int, bytes]:
    """Leave the beginning of a frame at the end: (segment, offset, bytes)."""
    last = max(directory.glob("*.log"))
    _, end, frame = frames_in(last)[-1]
    torn = pack_frame(increments(frame.last_seq + 1, 12), epoch=1, previous=frame.checksum)[:333]
    overwrite(last, end, torn)
    return last, end, torn


def test_only_what_comes_after_the_snapshot_is_replayed(directory: Path) -> None:
    """From each place where a snapshot can be, nothing twice and nothing left out."""
    frames = list(Opened(directory).log.read_from(1))
    for frame in frames:
        opened = Opened(directory, after=tail_after(frames, frame.last_seq))
        assert opened.seqs == list(range(frame.last_seq + 1, 121))
        assert opened.log.tail.seq == 120
        opened.log.close()


def test_segments_before_the_snapshot_are_not_read(directory: Path) -> None:
    """Damage in them is for `log verify` to find; a start must not take longer with the age of the log."""
    frames = list(Opened(directory).log.read_from(1))
    first, second, third, *_ = sorted(directory.iterdir())
    flip(first, 200)
    flip(second, 200)
    tail = tail_after(frames, int(third.stem) - 1)
    assert Opened(directory, after=tail).seqs == list(range(int(third.stem), 121))
    log = Opened(directory, after=tail).log
    shutil.move(first, f"{first}.gz")
    log.close()
    assert Opened(directory, after=tail).log.tail.seq == 120


def test_progress_goes_up_to_all_of_it(directory: Path, tmp_path: Path) -> None:
    """In bytes, never backwards, and whole at the end; for a long segment also on the way."""
    opened = Opened(directory)
    total = sum(path.stat().st_size for path in directory.iterdir())
    assert opened.progress == [(total, total)]
    log = Log.create(RealDisk(), str(tmp_path / "long"), log_id=bytes(range(16)))
    append(log, 30, per_frame=2000)
    log.close()
    opened = Opened(tmp_path / "long")
    done = [done for done, _ in opened.progress]
    assert len(done) > 3
    assert done == sorted(done)
    assert opened.progress[-1] == (log.statistics().bytes, log.statistics().bytes)


def test_what_goes_wrong_in_applying_is_not_our_affair(directory: Path) -> None:
    """It comes out as it is, and nothing was changed: the torn tail is still there."""
    last, end, torn = tear(directory)

    def apply(frame: Frame) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Log.open(RealDisk(), str(directory), after=None, apply=apply, tell=lambda _: None)
    assert last.read_bytes()[end : end + len(torn)] == torn


def test_the_last_frame_is_written_again_before_it_is_synced(directory: Path) -> None:
    """The kernel may hold pages for clean that a failed sync never brought to the disk."""
    disk = FaultyDisk()
    last = max(directory.iterdir())
    offset, end, _ = frames_in(last)[-1]
    content = last.read_bytes()
    written: list[int] = []
    disk.before = lambda step, path: written.append(last.stat().st_mtime_ns) if step == "sync" else None
    before = last.stat().st_mtime_ns
    Opened(directory, disk=disk)
    assert disk.steps[1:] == [("write", last.name), ("preallocate", last.name), ("sync", last.name)]
    assert last.read_bytes() == content
    assert written[0] > before
    assert end > offset


def test_the_names_are_made_durable_before_anything_is_appended(directory: Path) -> None:
    """The process before may have ended between the rename of a new segment and the sync of the directory."""
    disk = FaultyDisk()
    Opened(directory, disk=disk)
    assert disk.steps[0] == ("sync_directory", directory.name)
    disk.fail("sync_directory", directory.name)
    with pytest.raises(WriteFailed):
        Opened(directory, disk=disk)


def test_a_log_whose_end_can_not_be_synced_is_not_opened(directory: Path) -> None:
    """What was replayed is not durable then."""
    disk = FaultyDisk()
    disk.fail("sync", ".log")
    with pytest.raises(WriteFailed):
        Opened(directory, disk=disk)


def test_an_opening_that_dies_at_any_step_is_made_good_by_the_next(directory: Path, tmp_path: Path) -> None:
    """With a torn tail and leftovers: nothing is lost, the torn bytes are kept, and the end is clean."""
    _, end, torn = tear(directory)
    (directory / "00000000000000000121.log.tmp").write_bytes(b"half")
    first = min(directory.glob("*.log"))
    shutil.copy(first, f"{first}.gz")
    disk = FaultyDisk()
    copy = tmp_path / "whole"
    shutil.copytree(directory, copy)
    Opened(copy, disk=disk)
    assert len(disk.steps) >= 11
    for number in range(len(disk.steps)):
        copy = tmp_path / f"crash-{number}"
        shutil.copytree(directory, copy)
        disk = FaultyDisk()
        disk.crash_at(number)
        with pytest.raises(Crash):
            Opened(copy, disk=disk)
        opened = Opened(copy)
        assert opened.seqs == list(range(1, 121))
        append(opened.log, 1)
        opened.log.close()
        assert Opened(copy).seqs == list(range(1, 125))
        sides = [path.read_bytes() for path in copy.glob(f"*.torn-{end}*") if not path.name.endswith(".tmp")]
        assert torn.rstrip(b"\0") in sides
        assert not list(copy.glob("*.tmp"))


def test_the_space_of_the_last_segment_is_laid_out_again(directory: Path) -> None:
    """A copy may have left it out."""
    last = max(directory.iterdir())
    end = frames_in(last)[-1][1]
    with last.open("r+b") as file:
        file.truncate(end)
    opened = Opened(directory)
    assert opened.findings == []
    assert opened.seqs == list(range(1, 121))
    assert last.stat().st_size == SEGMENT_BYTES
