"""One file of the log: names, how it appears, how it is compressed and read back."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import pytest

from engine.disk import FileMissing, RealDisk
from engine.errors import DiskFault, WriteFailed
from engine.record import SEGMENT_HEADER_BYTES, FrameFault, SegmentHeader, pack_segment_header, unpack_segment_header
from engine.segment import (
    CONTENT_BYTES_MAX,
    SegmentFile,
    compress_segment,
    create_segment,
    list_segments,
    read_content,
    read_header,
    segment_path,
    side_path,
)
from tests.engine.faulty_disk import FaultyDisk
from tests.engine.logs import LOG_ID

HEADER = SegmentHeader(LOG_ID, 42, 1, 7, 1)
NAME = "00000000000000000042.log"


def gzipped(data: bytes) -> bytes:
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    return packer.compress(data) + packer.flush()


def segment(path: Path, *, compressed: bool = False) -> SegmentFile:
    return SegmentFile(str(path), 42, compressed, 0)


def test_a_segment_appears_whole(tmp_path: Path) -> None:
    """Laid out, headed and synced under another name, then renamed, and the directory synced: in this order."""
    disk = FaultyDisk()
    file = create_segment(disk, str(tmp_path), HEADER, 8192)
    assert [step for step, _ in disk.steps] == ["create", "preallocate", "write", "sync", "rename", "sync_directory"]
    assert [name for _, name in disk.steps[:5]] == [NAME + ".tmp"] * 4 + [NAME]
    assert file.path == segment_path(str(tmp_path), 42)
    assert file.size() == 8192
    assert unpack_segment_header(file.read_at(0, SEGMENT_HEADER_BYTES)) == HEADER
    file.write_at(100, b"open for writing")
    file.close()


def test_a_segment_that_could_not_be_made_is_not_there(tmp_path: Path) -> None:
    """A failed sync leaves only the unfinished file."""
    disk = FaultyDisk()
    disk.fail("sync", ".tmp")
    with pytest.raises(WriteFailed):
        create_segment(disk, str(tmp_path), HEADER, 8192)
    listing = list_segments(disk, str(tmp_path))
    assert listing.segments == []
    assert listing.unfinished == [f"{tmp_path}/{NAME}.tmp"]


def test_a_directory_is_listed_by_seq_with_what_was_left_in_it(tmp_path: Path) -> None:
    """Other files are nobody's business; of a segment in both forms the plain one counts."""
    names = {
        "00000000000000000001.log.gz": b"1",
        "00000000000000000009.log": b"22",
        "00000000000000000009.log.gz": b"333",
        "00000000000000000010.log": b"4444",
        "00000000000000000010.log.torn-64": b"",
        "00000000000000000011.log.tmp": b"",
        "00000000000000000009.log.gz.tmp": b"",
        "12.log": b"",
        "notes.tmp": b"",
        "lost+found": b"",
    }
    for name, data in names.items():
        (tmp_path / name).write_bytes(data)
    listing = list_segments(RealDisk(), str(tmp_path))
    assert listing.segments == [
        SegmentFile(f"{tmp_path}/00000000000000000001.log.gz", 1, True, 1),
        SegmentFile(f"{tmp_path}/00000000000000000009.log", 9, False, 2),
        SegmentFile(f"{tmp_path}/00000000000000000010.log", 10, False, 4),
    ]
    assert listing.twice == [f"{tmp_path}/00000000000000000009.log.gz"]
    assert sorted(listing.unfinished) == [
        f"{tmp_path}/00000000000000000009.log.gz.tmp",
        f"{tmp_path}/00000000000000000011.log.tmp",
    ]


class MovingDisk(RealDisk):
    """A disk on which a segment is compressed just after the directory was listed, the first time."""

    moved = False

    def list_directory(self, path: str) -> list[str]:
        """List, and then let the other process act."""
        names = super().list_directory(path)
        if not self.moved:
            self.moved = True
            os.rename(f"{path}/{NAME}", f"{path}/{NAME}.gz")
        return names


def test_a_directory_that_changes_under_the_listing_is_listed_again(tmp_path: Path) -> None:
    """Else the segment would be in neither form, and the log would seem to have a gap."""
    (tmp_path / NAME).write_bytes(b"x")
    listing = list_segments(MovingDisk(), str(tmp_path))
    assert listing.segments == [SegmentFile(f"{tmp_path}/{NAME}.gz", 42, True, 1)]


def test_a_directory_that_is_not_there_is_missing(tmp_path: Path) -> None:
    """It is not an empty one."""
    with pytest.raises(FileMissing):
        list_segments(RealDisk(), str(tmp_path / "nowhere"))


def test_a_compressed_segment_holds_the_same(tmp_path: Path) -> None:
    """And gives the same bytes each time it is made; the plain one is left to the caller."""
    content = pack_segment_header(HEADER) + bytes(range(256)) * 10_000
    plain = tmp_path / NAME
    plain.write_bytes(content)
    compressed = compress_segment(RealDisk(), segment(plain), content)
    packed = Path(compressed.path).read_bytes()
    assert compressed == SegmentFile(f"{plain}.gz", 42, True, len(packed))
    assert len(packed) < len(content) / 10
    assert plain.exists()
    assert read_content(RealDisk(), compressed) == content
    assert read_header(RealDisk(), compressed) == read_header(RealDisk(), segment(plain)) == HEADER
    compress_segment(RealDisk(), segment(plain), content)
    assert Path(compressed.path).read_bytes() == packed


class ForgetfulDisk(RealDisk):
    """A disk that writes something else than it was given."""

    def write_whole(self, path: str, chunks: object, mode: int = 0o600, paced: bool = False) -> int:
        """Write what unpacks to other bytes."""
        return super().write_whole(path, [gzipped(b"other")], mode, paced)


def test_a_compressed_segment_is_read_back_before_it_is_believed(tmp_path: Path) -> None:
    """The plain one goes only if the compressed one holds the same; this one is removed."""
    plain = tmp_path / NAME
    plain.write_bytes(b"content")
    with pytest.raises(DiskFault, match="read back"):
        compress_segment(ForgetfulDisk(), segment(plain), b"content")
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_a_segment_is_found_in_the_form_that_it_has_now(tmp_path: Path) -> None:
    """Whoever listed it plain reads it compressed, if it was compressed meanwhile; if it is gone, it says so."""
    (tmp_path / f"{NAME}.gz").write_bytes(gzipped(b"content"))
    assert read_content(RealDisk(), segment(tmp_path / NAME)) == b"content"
    (tmp_path / f"{NAME}.gz").unlink()
    with pytest.raises(FileMissing):
        read_content(RealDisk(), segment(tmp_path / NAME))


def test_a_compressed_segment_that_can_not_be_unpacked_is_a_fault(tmp_path: Path) -> None:
    """Cut off, damaged, followed by something, or not compressed at all."""
    good = gzipped(os.urandom(5000))
    flipped = bytearray(good)
    flipped[2500] ^= 1
    path = tmp_path / f"{NAME}.gz"
    for data in (good[:-1], good[:100], b"", bytes(flipped), good + b"x", good + good, b"plain text"):
        path.write_bytes(data)
        with pytest.raises(FrameFault, match="compressed segment"):
            read_content(RealDisk(), segment(path, compressed=True))


def test_a_compressed_segment_is_not_unpacked_beyond_the_longest_one(tmp_path: Path) -> None:
    """The longest segment is read; a longer one is refused, and is not unpacked to its end."""
    path = tmp_path / f"{NAME}.gz"
    path.write_bytes(gzipped(bytes(CONTENT_BYTES_MAX)))
    assert len(read_content(RealDisk(), segment(path, compressed=True))) == CONTENT_BYTES_MAX
    path.write_bytes(gzipped(bytes(CONTENT_BYTES_MAX + 2)))
    with pytest.raises(FrameFault):
        read_content(RealDisk(), segment(path, compressed=True))


def test_a_plain_file_is_not_read_beyond_the_longest_segment(tmp_path: Path) -> None:
    """Sixteen gigabytes of nothing under a segment's name costs no memory."""
    path = tmp_path / NAME
    with path.open("wb") as file:
        file.truncate(2**34)
    assert len(read_content(RealDisk(), segment(path))) == CONTENT_BYTES_MAX


def test_reading_syncs_only_when_asked(tmp_path: Path) -> None:
    """Of a log that another process writes to, what was read is made durable."""
    (tmp_path / NAME).write_bytes(b"content")
    disk = FaultyDisk()
    read_content(disk, segment(tmp_path / NAME))
    assert disk.steps == []
    read_content(disk, segment(tmp_path / NAME), sync=True)
    assert disk.steps == [("sync", NAME)]


def test_each_side_file_has_its_own_name(tmp_path: Path) -> None:
    """What was cut at the same offset before is not overwritten."""
    path = str(tmp_path / NAME)
    chosen = []
    for _ in range(3):
        chosen.append(side_path(RealDisk(), path, 64))
        Path(chosen[-1]).touch()
    assert chosen == [f"{path}.torn-64", f"{path}.torn-64-2", f"{path}.torn-64-3"]
