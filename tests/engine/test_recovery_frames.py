"""The recovery table in real files: damage within a segment. Each row has a test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import google_crc32c
import msgspec
import pytest

from engine.record import HEADER_BYTES, SEGMENT_HEADER_BYTES, pack_frame, pack_segment_header, unpack_segment_header
from engine.recovery import Situation
from tests.engine.damage import contents, place, refused, restores_to, segments_of
from tests.engine.logs import (
    OTHER_LOG_ID,
    SEGMENT_BYTES,
    Opened,
    append,
    flip,
    frames_in,
    increments,
    make_log,
    overwrite,
)


def test_clean_end(directory: Path) -> None:
    """All is well: nothing is told, nothing is cut."""
    names = set(contents(directory))
    opened = Opened(directory)
    assert opened.seqs == list(range(1, 121))
    assert opened.findings == []
    assert set(contents(directory)) == names


def torn_at(length: int) -> Callable[[bytes], bytes]:
    return lambda packed: packed[:length] + bytes(len(packed) - length)


def without_sector(packed: bytes) -> bytes:
    return packed[:400] + bytes(600) + packed[1000:]


@pytest.mark.parametrize("tear", [torn_at(1), torn_at(10), torn_at(48), torn_at(300), without_sector])
def test_torn_tail(directory: Path, tear: Callable[[bytes], bytes]) -> None:
    """The last frame is cut, kept in a side file, and told; the log goes on where it ended, as if it had never been."""
    last = segments_of(directory)[-1]
    tail = Opened(directory).log.tail
    end = frames_in(last)[-1][1]
    torn = tear(pack_frame(increments(121, 12), epoch=1, previous=tail.checksum))
    overwrite(last, end, torn)
    opened = Opened(directory)
    assert opened.seqs == list(range(1, 121))
    assert opened.log.tail == tail
    assert [(found.situation, found.path, found.offset, found.seq) for found in opened.findings] == [
        (Situation.TORN_TAIL, str(last), end, 121)
    ]
    side = Path(f"{last}.torn-{end}")
    assert side.read_bytes() == torn.rstrip(b"\0")
    assert str(side) in opened.findings[0].message
    assert not last.read_bytes()[end:].strip(b"\0")
    assert last.stat().st_size == SEGMENT_BYTES
    append(opened.log, 1)
    opened.log.close()
    again = Opened(directory)
    assert again.seqs == list(range(1, 125))
    assert again.findings == []


def test_torn_tail_of_a_file_that_is_too_short(directory: Path) -> None:
    """As a copy leaves it: the space is laid out again."""
    last = segments_of(directory)[-1]
    offset, end, frame = frames_in(last)[-1]
    with last.open("r+b") as file:
        file.truncate(end - 5)
    opened = Opened(directory)
    assert opened.log.tail.seq == frame.first_seq - 1
    assert opened.findings[0].offset == offset
    assert last.stat().st_size == SEGMENT_BYTES


def test_last_frame_damaged(directory: Path) -> None:
    """A flipped bit in a last frame that is all there: it may have been acknowledged, so it is not cut."""
    last = segments_of(directory)[-1]
    offset, end, frame = frames_in(last)[-1]
    flip(last, end - 20)
    error = refused(directory, Situation.LAST_FRAME_DAMAGED)
    assert place(error) == (str(last), offset, frame.first_seq)
    assert restores_to(error, directory, frame.first_seq - 1)


def test_damage_before_frames(directory: Path) -> None:
    """A flipped bit in a frame that others follow."""
    last = segments_of(directory)[-1]
    offset, _, frame = frames_in(last)[0]
    flip(last, offset + HEADER_BYTES + 9)
    error = refused(directory, Situation.DAMAGE_BEFORE_FRAMES)
    assert place(error) == (str(last), offset, frame.first_seq)
    assert restores_to(error, directory, frame.first_seq - 1)


@pytest.mark.parametrize("inside", [0, 5, 10, 20, 30, 60])
def test_sealed_segment_damaged(directory: Path, inside: int) -> None:
    """A flipped bit anywhere in a frame of an older segment, the last frame too."""
    sealed = segments_of(directory)[1]
    offset, _, frame = frames_in(sealed)[-1]
    flip(sealed, offset + inside)
    error = refused(directory, Situation.SEALED_DAMAGED)
    assert place(error) == (str(sealed), offset, frame.first_seq)
    assert restores_to(error, directory, frame.first_seq - 1)


def test_sealed_segment_damaged_in_its_compressed_form(directory: Path) -> None:
    """It can't be unpacked; what is good is what came before it."""
    log = Opened(directory).log
    info = log.compress(log.segments()[1])
    log.close()
    flip(Path(info.path), 100)
    error = refused(directory, Situation.SEALED_DAMAGED)
    assert place(error) == (info.path, None, info.first_seq)
    assert restores_to(error, directory, info.first_seq - 1)


def test_sealed_segment_cut_short(directory: Path) -> None:
    """Its last frames are zeros: they are missing, though the file is whole."""
    sealed = segments_of(directory)[1]
    offset, _, frame = frames_in(sealed)[-2]
    overwrite(sealed, offset, bytes(SEGMENT_BYTES - offset))
    error = refused(directory, Situation.FRAMES_MISSING)
    assert place(error) == (str(sealed), offset, frame.first_seq)
    assert restores_to(error, directory, frame.first_seq - 1)


@pytest.mark.parametrize("index", [0, 1, -1])
@pytest.mark.parametrize("damage", [lambda path: flip(path, 20), lambda path: path.write_bytes(b"")])
def test_header_damaged(directory: Path, index: int, damage: Callable[[Path], None]) -> None:
    """In any segment, flipped or empty; of the first one nothing before it is good."""
    path = segments_of(directory)[index]
    first_seq = int(path.stem)
    damage(path)
    error = refused(directory, Situation.HEADER_DAMAGED)
    assert place(error) == (str(path), 0, first_seq)
    assert restores_to(error, directory, first_seq - 1) is (index != 0)


def test_header_damaged_of_a_covered_segment(directory: Path) -> None:
    """A segment before the snapshot is not read, but its head is looked at."""
    tail = Opened(directory).log.tail
    flip(segments_of(directory)[0], 40)
    refused(directory, Situation.HEADER_DAMAGED, after=tail)


def test_frame_doubled(directory: Path) -> None:
    """The last frame once more behind itself."""
    last = segments_of(directory)[-1]
    offset, end, frame = frames_in(last)[-1]
    overwrite(last, end, last.read_bytes()[offset:end])
    error = refused(directory, Situation.FRAME_DOUBLED)
    assert place(error) == (str(last), end, frame.last_seq + 1)
    assert restores_to(error, directory, frame.last_seq)


def test_frame_moved(directory: Path) -> None:
    """Two frames of the same length, exchanged: the first of them stands too early."""
    sealed = segments_of(directory)[1]
    frames = frames_in(sealed)
    (one, one_end, frame), (two, two_end, _) = frames[2], frames[3]
    data = sealed.read_bytes()
    assert one_end - one == two_end - two
    overwrite(sealed, one, data[two:two_end] + data[one:one_end])
    error = refused(directory, Situation.FRAMES_MISSING)
    assert place(error) == (str(sealed), one, frame.first_seq)


def test_frame_lost(directory: Path) -> None:
    """What follows was moved up over it."""
    last = segments_of(directory)[-1]
    offset, end, frame = frames_in(last)[0]
    overwrite(last, offset, last.read_bytes()[end:] + bytes(end - offset))
    error = refused(directory, Situation.FRAMES_MISSING)
    assert place(error) == (str(last), offset, frame.first_seq)
    assert restores_to(error, directory, frame.first_seq - 1)


@pytest.mark.parametrize("index", [1, -1])
def test_frame_foreign(directory: Path, tmp_path: Path, index: int) -> None:
    """A frame of another log in the place of one with the same seqs: only the chain tells."""
    other = make_log(tmp_path / "other", 30, log_id=OTHER_LOG_ID)
    path = segments_of(directory)[index]
    offset, end, frame = frames_in(path)[0]
    foreign = next(item for item in other if item.name == path.name)
    overwrite(path, offset, foreign.read_bytes()[offset:end])
    error = refused(directory, Situation.FRAME_FOREIGN)
    assert place(error) == (str(path), offset, frame.first_seq)
    assert restores_to(error, directory, frame.first_seq - 1)


def test_newer_version_of_a_segment(directory: Path) -> None:
    """It is told from damage: the remedy is another program, not another file."""
    last = segments_of(directory)[-1]
    header = bytearray(last.read_bytes()[:SEGMENT_HEADER_BYTES])
    header[8:12] = (2).to_bytes(4, "little")
    header[12:16] = int(google_crc32c.value(bytes(header[:12] + header[16:]))).to_bytes(4, "little")
    overwrite(last, 0, bytes(header))
    error = refused(directory, Situation.NEWER_VERSION)
    assert place(error) == (str(last), 0, int(last.stem))


def test_newer_version_of_a_record(directory: Path) -> None:
    """A record type that is not known here is not skipped."""
    last = segments_of(directory)[-1]
    _, end, frame = frames_in(last)[-1]
    packed = bytearray(pack_frame(increments(121, 1), epoch=1, previous=frame.checksum))
    packed[HEADER_BYTES + 1] = 9
    packed[4:8] = int(google_crc32c.value(bytes(packed[8:]))).to_bytes(4, "little")
    overwrite(last, end, bytes(packed))
    error = refused(directory, Situation.NEWER_VERSION)
    assert place(error) == (str(last), end, 121)


def test_a_header_that_joins_wrongly_is_refused_even_with_right_checksums(directory: Path) -> None:
    """A head made by hand: all its values are possible, but it does not continue the chain."""
    path = segments_of(directory)[1]
    header = unpack_segment_header(path.read_bytes())
    overwrite(path, 0, pack_segment_header(msgspec.structs.replace(header, previous=header.previous ^ 1)))
    refused(directory, Situation.SEGMENT_NOT_JOINED)
