"""Reading a log that is open: from any seq, one event alone, and beside appends and compression."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from engine.disk import RealDisk, RealFile
from engine.errors import LogDamaged
from engine.events import Incremented
from engine.limits import SEGMENT_BYTES as SEGMENT_BYTES_REAL
from engine.log import Log
from engine.record import HEADER_BYTES, events_of
from tests.engine.damage import place, segments_of
from tests.engine.faulty_disk import FaultyDisk
from tests.engine.logs import LOG_ID, SEGMENT_BYTES, Opened, append, flip, frames_in, increments, make_log


def test_reading_begins_with_the_frame_that_holds_the_seq(tmp_path: Path) -> None:
    """From any seq, over the segments that follow, to what is durable."""
    make_log(tmp_path, 30)
    log = Opened(tmp_path).log
    for seq in range(1, 121):
        frames = list(log.read_from(seq))
        assert frames[0].first_seq <= seq <= frames[0].last_seq
        assert [frame.first_seq for frame in frames] == list(range(frames[0].first_seq, 121, 4))
    assert list(log.read_from(121)) == []


def test_each_event_is_found_in_plain_and_compressed_segments(tmp_path: Path) -> None:
    """The receipt of an action is read back from wherever it lies."""
    make_log(tmp_path, 30)
    log = Opened(tmp_path).log
    log.compress(log.segments()[1])
    for seq in range(1, 121):
        frame, event = log.event_at(seq)
        assert isinstance(event, Incremented)
        assert (event.seq, event.action_id) == (seq, f"action-{seq:08d}")
        assert event in events_of(frame)


class CountingDisk(RealDisk):
    """A real disk that counts what is read."""

    def __init__(self) -> None:
        self.bytes_read = 0

    def open(self, path: str, *, write: bool = False) -> RealFile:
        """Open a file whose reads are counted."""
        file = super().open(path, write=write)
        read_at = file.read_at

        def counted(offset: int, length: int) -> bytes:
            data = read_at(offset, length)
            self.bytes_read += len(data)
            return data

        file.read_at = counted  # type: ignore[method-assign]
        return file


@pytest.mark.parametrize("per_frame", [1, 3, 900])
def test_one_event_is_found_without_reading_the_segment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, per_frame: int
) -> None:
    """Some pieces on the way, proved like all that is read, whatever the length of the segment and of its frames."""
    monkeypatch.setattr("os.fdatasync", lambda _: None)  # thousands of frames, and no crash
    disk = CountingDisk()
    log = Log.create(disk, str(tmp_path), log_id=LOG_ID, segment_bytes=SEGMENT_BYTES_REAL)
    append(log, 9000 // per_frame, per_frame=per_frame)
    frames = list(log.read_from(1))
    for seq in (1, 2, 3, 4500, 8998, 8999, 9000):
        disk.bytes_read = 0
        frame, event = log.event_at(seq)
        assert frame in frames
        assert event.seq == seq
        assert disk.bytes_read < 2**20 < SEGMENT_BYTES_REAL // 8


@pytest.mark.parametrize("inside", [0, 9, 20, HEADER_BYTES + 3])
def test_one_event_whose_frame_is_damaged_is_told_as_by_reading_all(tmp_path: Path, inside: int) -> None:
    """What the search can't make sense of is judged by the same rules as everything else."""
    make_log(tmp_path, 30)
    log = Opened(tmp_path).log
    second = segments_of(tmp_path)[1]
    offset, _, frame = frames_in(second)[3]
    flip(second, offset + inside)
    assert log.event_at(frame.first_seq - 1)[1].seq == frame.first_seq - 1
    with pytest.raises(LogDamaged) as caught:
        log.event_at(frame.first_seq)
    assert place(caught.value) == (str(second), offset, frame.first_seq)


@pytest.mark.parametrize("damage", [lambda path: flip(path, 20), lambda path: path.write_bytes(b"")])
def test_one_event_of_a_segment_whose_head_is_damaged_is_told_too(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    """Nothing is believed of a segment that does not prove whose it is."""
    make_log(tmp_path, 30)
    log = Opened(tmp_path).log
    second = segments_of(tmp_path)[1]
    damage(second)
    with pytest.raises(LogDamaged, match="head of a segment"):
        log.event_at(int(second.stem) + 1)


def test_reading_ends_at_what_is_durable(tmp_path: Path) -> None:
    """A frame that is being written is not given, though its bytes are there."""
    disk = FaultyDisk()
    log = Log.create(disk, str(tmp_path), log_id=LOG_ID, segment_bytes=SEGMENT_BYTES)
    log.append(increments(1, 2), 1)
    seen: list[list[int]] = []

    def before(step: str, path: str) -> None:
        if step == "sync":
            seen.append([frame.last_seq for frame in log.read_from(1)])

    disk.before = before
    log.append(increments(3, 2), 1)
    assert seen == [[2]]
    assert [frame.last_seq for frame in log.read_from(1)] == [2, 4]


def test_a_reader_is_not_disturbed_by_compression_and_appends(tmp_path: Path) -> None:
    """It goes on with the segments of when it began, in the form that they have by then."""
    make_log(tmp_path, 30)
    log = Opened(tmp_path).log
    reader = log.read_from(1)
    seqs = [next(reader).first_seq]
    for info in log.segments()[:-1]:
        log.compress(info)
    append(log, 10)
    seqs += [frame.first_seq for frame in reader]
    assert seqs == list(range(1, 121, 4))


def test_damage_under_an_open_log_is_told(tmp_path: Path) -> None:
    """A reader of the leader's own log checks what it reads, too."""
    make_log(tmp_path, 30)
    log = Opened(tmp_path).log
    first = Path(log.segments()[0].path)
    offset, _, frame = frames_in(first)[2]
    flip(first, offset + HEADER_BYTES + 3)
    with pytest.raises(LogDamaged) as caught:
        list(log.read_from(1))
    assert (caught.value.path, caught.value.offset, caught.value.seq) == (str(first), offset, frame.first_seq)
