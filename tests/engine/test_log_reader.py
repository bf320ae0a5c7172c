"""LogReader: from any seq to any seq, of a log at rest, of a damaged one, and of one that grows meanwhile."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.disk import FileMissing, RealDisk, RealFile
from engine.errors import LogDamaged, NoLongerKept
from engine.log import Log
from engine.log_reader import LogReader, scan
from engine.record import SegmentHeader, events_of, pack_frame, pack_segment_header, unpack_header
from engine.segment import SegmentFile, list_segments
from engine.segment_cursor import SKIP_BYTES, SegmentCursor
from tests.engine.faulty_disk import FaultyDisk
from tests.engine.logs import LOG_ID, SEGMENT_BYTES, Opened, append, flip, frames_in, increments, overwrite


def scanned(directory: Path, from_seq: int | None = None, until_seq: int | None = None) -> list[int]:
    """Scan, and give the seqs of the events."""
    frames = scan(RealDisk(), str(directory), from_seq=from_seq, until_seq=until_seq)
    return [event.seq for frame in frames for event in events_of(frame)]


def test_a_scan_gives_all_that_is_kept(directory: Path) -> None:
    """From the oldest event to the last one."""
    assert scanned(directory) == list(range(1, 121))
    log = Opened(directory).log
    infos = log.segments()
    log.remove_before(infos[2].first_seq)
    assert scanned(directory) == list(range(infos[2].first_seq, 121))
    with pytest.raises(NoLongerKept) as caught:
        scanned(directory, from_seq=1)
    assert caught.value.first_seq == infos[2].first_seq


@pytest.mark.parametrize("compressed", [0, 2])
def test_a_scan_gives_the_frames_that_hold_what_was_asked_for(directory: Path, compressed: int) -> None:
    """From each seq to each other, whole frames, whether in plain or compressed segments."""
    log = Opened(directory).log
    for info in log.segments()[:compressed]:
        log.compress(info)
    for from_seq in range(1, 122, 3):
        for until_seq in range(from_seq - 1, 123, 5):
            begin, end = (from_seq - 1) // 4 * 4 + 1, min((until_seq + 3) // 4 * 4, 120)
            expected = list(range(begin, end + 1)) if from_seq <= min(until_seq, 120) else []
            assert scanned(directory, from_seq, until_seq) == expected


DAMAGES: dict[str, Callable[[list[Path]], object]] = {
    "flipped bit": lambda paths: flip(paths[2], frames_in(paths[2])[0][0] + 60),
    "damaged head": lambda paths: flip(paths[2], 33),
    "missing segment": lambda paths: paths[2].unlink(),
    "empty segment": lambda paths: paths[2].write_bytes(b""),
    "foreign bytes": lambda paths: paths[2].write_bytes(b"x" * 5000),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_what_comes_before_damage_can_be_read(directory: Path, damage: Callable[[list[Path]], object]) -> None:
    """The seq that the error names tells how far; up to there nothing is raised, whatever comes after."""
    paths = sorted(directory.iterdir())
    good = int(paths[2].stem) - 1
    damage(paths)
    with pytest.raises(LogDamaged) as caught:
        scanned(directory)
    assert caught.value.seq == good + 1
    assert scanned(directory, until_seq=good) == list(range(1, good + 1))
    with pytest.raises(LogDamaged):
        scanned(directory, until_seq=good + 1)


def test_a_scan_of_a_torn_log_ends_where_recovery_would_cut(directory: Path) -> None:
    """It may as well be a frame in flight; nothing is changed."""
    last = max(directory.iterdir())
    _, end, frame = frames_in(last)[-1]
    packed = pack_frame(increments(121, 12), epoch=1, previous=frame.checksum)
    overwrite(last, end, packed[:200])
    before = last.read_bytes()
    assert scanned(directory) == list(range(1, 121))
    assert last.read_bytes() == before
    assert len(list(directory.iterdir())) == len(list(directory.glob("*.log")))


def test_a_scan_of_a_damaged_end_is_refused(directory: Path) -> None:
    """What recovery would refuse, a scan does too."""
    last = max(directory.iterdir())
    flip(last, frames_in(last)[-1][1] - 20)
    with pytest.raises(LogDamaged, match="the last frame is all there"):
        scanned(directory)


class LateFile(RealFile):
    """A file of which a stretch still reads as zeros."""

    stretch = (0, 0)

    def read_at(self, offset: int, length: int) -> bytes:
        """Read, with zeros where the other process has not written yet."""
        data = bytearray(super().read_at(offset, length))
        begin, end = self.stretch
        data[begin:end] = bytes(end - begin)
        return bytes(data)


class LateDisk(RealDisk):
    """A disk on which the first reading of a file comes too early for a stretch of it."""

    def __init__(self, path: Path, begin: int, end: int) -> None:
        self._late = str(path)
        self._stretch = (begin, end)
        self.readings = 0

    def open(self, path: str, *, write: bool = False) -> RealFile:
        """Open, and hide the stretch once."""
        if path != self._late:
            return super().open(path, write=write)
        self.readings += 1
        file = LateFile(path, os.open(path, os.O_RDONLY))
        if self.readings == 1:
            file.stretch = self._stretch
        return file


def test_a_frame_that_becomes_visible_late_is_not_taken_for_damage(directory: Path) -> None:
    """A later frame was seen without it, as can happen while another process writes: it is read again, once."""
    last = max(directory.iterdir())
    begin, end, _ = frames_in(last)[0]
    disk = LateDisk(last, begin, end)
    seqs = [event.seq for frame in scan(disk, str(directory)) for event in events_of(frame)]
    assert seqs == list(range(1, 121))
    assert disk.readings == 2


def test_damage_in_the_last_segment_is_read_twice_and_then_believed(directory: Path) -> None:
    """It does not go away."""
    last = max(directory.iterdir())
    begin, _, frame = frames_in(last)[0]
    flip(last, begin + 70)
    disk = LateDisk(last, 0, 0)
    with pytest.raises(LogDamaged) as caught:
        list(scan(disk, str(directory)))
    assert (caught.value.offset, caught.value.seq) == (begin, frame.first_seq)
    assert disk.readings == 2


def test_what_a_scan_gives_of_a_growing_segment_is_durable(directory: Path) -> None:
    """It was synced before it was given: whoever keeps what it read is never ahead of the log."""
    disk = FaultyDisk()
    last = max(directory.iterdir())
    reader = scan(disk, str(directory))
    while next(reader).first_seq < int(last.stem):
        assert disk.steps == []
    assert disk.steps == [("sync", last.name)]


def test_only_the_segment_that_is_being_read_is_in_memory(directory: Path) -> None:
    """The next one is opened when the one before is through."""
    opened: list[str] = []

    class Watching(RealDisk):
        def open(self, path: str, *, write: bool = False) -> RealFile:
            opened.append(Path(path).name)
            return super().open(path, write=write)

    reader = scan(Watching(), str(directory))
    names = [path.name for path in sorted(directory.iterdir())]
    for number, name in enumerate(names, 1):
        while next(reader).last_seq < (int(names[number].split(".")[0]) - 1 if number < len(names) else 120):
            assert opened == names[:number]
        assert opened[-1] == name


def test_a_segment_that_is_compressed_under_a_reader_is_read_all_the_same(directory: Path) -> None:
    """The list that it began with says plain; it finds the other form."""
    log = Opened(directory).log
    reader = scan(RealDisk(), str(directory))
    seqs = [next(reader).first_seq]
    for info in log.segments()[:-1]:
        log.compress(info)
    assert seqs + [frame.first_seq for frame in reader] == list(range(1, 121, 4))


def test_a_segment_that_is_removed_under_a_reader_is_no_longer_kept(directory: Path) -> None:
    """That is not damage; the error says where the log begins now."""
    log = Opened(directory).log
    infos = log.segments()
    reader = scan(RealDisk(), str(directory))
    next(reader)
    log.remove_before(infos[2].first_seq)
    with pytest.raises(NoLongerKept) as caught:
        list(reader)
    assert caught.value.first_seq == infos[2].first_seq


def test_a_file_that_vanishes_from_the_middle_is_missing(directory: Path) -> None:
    """Retention never does that."""
    reader = scan(RealDisk(), str(directory))
    next(reader)
    sorted(directory.iterdir())[1].unlink()
    with pytest.raises(FileMissing):
        list(reader)


def test_a_scan_of_a_log_that_another_process_writes_to_is_always_whole(tmp_path: Path) -> None:
    """While it appends as fast as it can, over many segments: each scan is a beginning of the log, without a gap."""
    code = (
        "import sys; from engine.disk import RealDisk; from engine.log import Log;"
        "from tests.engine.logs import LOG_ID, append;"
        "log = Log.create(RealDisk(), sys.argv[1], log_id=LOG_ID, segment_bytes=20_000);"
        "print('begun', flush=True); append(log, 600)"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path)]
    ends: list[int] = []
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "begun\n"
        while not ends or ends[-1] < 2400:
            seqs = scanned(tmp_path)
            assert seqs == list(range(1, len(seqs) + 1))
            ends.append(len(seqs))
            assert writer.poll() in {None, 0}
    assert ends == sorted(ends)


def long_segment() -> tuple[bytes, SegmentHeader, list[int]]:
    """Make a segment of many frames of very different lengths; the last seq of each."""
    rng = random.Random(7)
    header = SegmentHeader(LOG_ID, 1, 1, 5, 0)
    content, previous, seq, lasts = [pack_segment_header(header)], 5, 0, []
    while sum(map(len, content)) < 12 * SKIP_BYTES:
        packed = pack_frame(increments(seq + 1, rng.choice([1, 1, 1, 2, 30, 2000])), epoch=1, previous=previous)
        previous = unpack_header(packed).checksum
        content.append(packed)
        seq += unpack_header(packed).count
        lasts.append(seq)
    return b"".join(content) + bytes(3 * SKIP_BYTES), header, lasts


def test_any_seq_is_found_by_bisection(tmp_path: Path) -> None:
    """In a segment with frames of one event and of thousands: never past it, and never far before it."""
    data, header, lasts = long_segment()
    longest = len(pack_frame(increments(10**6, 2000), epoch=1, previous=0))
    for seq in [1, 2, *random.Random(8).sample(range(1, lasts[-1] + 1), 300), lasts[-1], lasts[-1] + 1]:
        walk = SegmentCursor(data, header)
        walk.skip(seq)
        assert walk.seq < seq
        begun = walk.offset
        frame = next((frame for frame in walk.frames(None) if frame.last_seq >= seq), None)
        assert (frame is None) is (seq > lasts[-1])
        if frame is not None:
            assert frame.first_seq <= seq
            assert walk.last_offset is not None
            assert walk.last_offset - begun <= SKIP_BYTES + longest


def test_bisection_does_not_follow_what_does_not_belong() -> None:
    """A whole frame of another place, further on, is passed over; the walk then ends at it."""
    data, header, lasts = long_segment()
    stray = pack_frame(increments(1, 1), epoch=1, previous=5)
    end = len(data.rstrip(b"\0"))
    walk = SegmentCursor(data[:end] + stray + data[end + len(stray) :], header)
    walk.skip(lasts[-1])
    assert [frame.last_seq for frame in walk.frames(None)][-1] == lasts[-1]
    assert walk.offset == end


def test_a_reading_may_be_told_whose_log_it_must_be(directory: Path) -> None:
    """Segments of another one are refused from the first on."""
    segments = list_segments(RealDisk(), str(directory)).segments
    reading = LogReader(RealDisk(), str(directory), segments, log_id=bytes(16))
    with pytest.raises(LogDamaged, match="another log"):
        next(reading.frames(1))
    assert isinstance(segments[0], SegmentFile)


def test_many_small_appends_are_read_back_in_order(tmp_path: Path) -> None:
    """One event a frame, as a quiet server writes them."""
    log = Log.create(RealDisk(), str(tmp_path), log_id=LOG_ID, segment_bytes=SEGMENT_BYTES)
    append(log, 100, per_frame=1)
    assert [frame.first_seq for frame in log.read_from(37)] == list(range(37, 101))


def test_the_golden_log_of_version_1_is_read_as_a_log() -> None:
    """A compressed segment and a plain one that joins it, as version 1 wrote them."""
    golden = Path(__file__).parent / "golden" / "version-1"
    frames = list(scan(RealDisk(), str(golden)))
    assert [(frame.epoch, frame.first_seq, frame.last_seq) for frame in frames] == [
        (1, 1, 1), (1, 2, 4), (2, 5, 5), (2, 6, 25),
    ]  # fmt: skip
    assert [event.seq for frame in frames for event in events_of(frame)] == list(range(1, 26))
