"""The recovery table in real files: a log that does not fit its snapshot. Each row has a test."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest

from engine.disk import RealDisk
from engine.errors import LogDamaged
from engine.log_reader import scan
from engine.recovery import Situation
from tests.engine.damage import place, refused, restores_to, segments_of
from tests.engine.logs import OTHER_LOG_ID, Opened, flip, frames_in, make_log, overwrite, tail_after


def test_damage_before_the_snapshot_costs_nothing_after_it(directory: Path) -> None:
    """The remedy names no seq, as long as the damaged segment ends before the snapshot does."""
    tail = Opened(directory).log.tail
    second, third, *_, last = segments_of(directory)[1:]
    flip(second, 20)
    error = refused(directory, Situation.HEADER_DAMAGED, after=tail)
    assert "--to NEWDIR`" in error.remedy
    flip(second, 20)
    flip(last, 20)
    inside = tail_after([frame for _, _, frame in frames_in(segments_of(directory)[-2])], int(last.stem) - 1)
    assert restores_to(refused(directory, Situation.HEADER_DAMAGED, after=inside), directory, inside.seq)
    flip(last, 20)
    third.unlink()
    before = tail_after([frame for _, _, frame in frames_in(second)], int(third.stem) - 1)
    assert restores_to(refused(directory, Situation.SEGMENT_MISSING, after=before), directory, before.seq)


def test_the_whole_log_is_foreign_to_the_snapshot(directory: Path) -> None:
    """The log of another data directory under a snapshot of this one."""
    tail = msgspec.structs.replace(Opened(directory).log.tail, log_id=OTHER_LOG_ID)
    error = refused(directory, Situation.SNAPSHOT_FOREIGN, after=tail)
    assert error.path == str(segments_of(directory)[0])
    assert f"move the snapshot of seq {tail.seq} out of the directory" in error.remedy
    log = Opened(directory).log
    for info in log.segments()[:-1]:
        log.compress(info)
    log.close()
    refused(directory, Situation.SNAPSHOT_FOREIGN, after=tail)


def test_one_foreign_segment_is_not_the_snapshots_fault(directory: Path, tmp_path: Path) -> None:
    """The others are of its log, so the one that is not is to go."""
    tail = Opened(directory).log.tail
    other = make_log(tmp_path / "other", 30, log_id=OTHER_LOG_ID)
    first = segments_of(directory)[0]
    shutil.copy(next(item for item in other if item.name == first.name), first)
    assert refused(directory, Situation.SEGMENT_FOREIGN, after=tail).path == str(first)


def test_log_begins_late(directory: Path) -> None:
    """Without the first segment there must be a snapshot that reaches as far."""
    frames = list(Opened(directory).log.read_from(1))
    first, second, *_ = segments_of(directory)
    first.unlink()
    error = refused(directory, Situation.BEGINS_LATE)
    assert (error.path, error.seq) == (str(second), 1)
    early = int(second.stem) - 5
    error = refused(directory, Situation.BEGINS_LATE, after=tail_after(frames, early))
    assert error.seq == early + 1
    opened = Opened(directory, after=tail_after(frames, early + 4))
    assert opened.seqs == list(range(early + 5, 121))


def test_log_ends_early(directory: Path) -> None:
    """The last segments are gone, but the snapshot remembers: acknowledged events are missing."""
    tail = Opened(directory).log.tail
    *_, before, last = segments_of(directory)
    good = int(last.stem) - 1
    last.unlink()
    error = refused(directory, Situation.ENDS_EARLY, after=tail)
    assert place(error) == (str(before), frames_in(before)[-1][1], good + 1)
    assert restores_to(error, directory, tail.seq)


def test_log_ends_early_with_a_torn_tail(directory: Path) -> None:
    """Nothing is cut where the snapshot says that it had been written."""
    tail = Opened(directory).log.tail
    last = segments_of(directory)[-1]
    offset, end, frame = frames_in(last)[-1]
    overwrite(last, offset + 60, bytes(end - offset - 60))
    error = refused(directory, Situation.ENDS_EARLY, after=tail)
    assert place(error) == (str(last), offset, frame.first_seq)


@pytest.mark.parametrize("seq", [40, 120])
def test_snapshot_differs(directory: Path, seq: int) -> None:
    """At the snapshot's seq, in the middle of the log or at its end, the log has another checksum."""
    tail = tail_after(list(Opened(directory).log.read_from(1)), seq)
    assert Opened(directory, after=tail).seqs == list(range(seq + 1, 121))
    error = refused(directory, Situation.SNAPSHOT_DIFFERS, after=msgspec.structs.replace(tail, checksum=5))
    assert error.seq == seq
    assert error.path in {str(path) for path in segments_of(directory)}


def test_snapshot_differs_where_it_lies_within_a_frame(directory: Path) -> None:
    """A state is taken between two frames; one that lies inside of one belongs to another log."""
    tail = tail_after(list(Opened(directory).log.read_from(1)), 40)
    error = refused(directory, Situation.SNAPSHOT_DIFFERS, after=msgspec.structs.replace(tail, seq=42))
    assert error.seq == 42


def test_snapshot_differs_at_the_join_of_two_segments(directory: Path) -> None:
    """Where the segment before is not read, the head of the next one has the checksum."""
    path = segments_of(directory)[2]
    tail = tail_after(list(Opened(directory).log.read_from(1)), int(path.stem) - 1)
    flip(segments_of(directory)[1], 200)
    assert Opened(directory, after=tail).seqs == list(range(int(path.stem), 121))
    refused(directory, Situation.SNAPSHOT_DIFFERS, after=msgspec.structs.replace(tail, checksum=5))


def test_log_gone(directory: Path) -> None:
    """An empty directory, though a snapshot exists, or though somebody thought that there was a log."""
    tail = Opened(directory).log.tail
    for path in segments_of(directory):
        path.unlink()
    error = refused(directory, Situation.LOG_GONE, after=tail)
    assert place(error) == (str(directory), None, 121)
    refused(directory, Situation.LOG_GONE)
    with pytest.raises(LogDamaged):
        scan(RealDisk(), str(directory))
