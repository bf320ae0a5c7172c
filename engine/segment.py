"""One file of the log, a segment: its name, and how it is created, read and compressed.

    listing = list_segments(disk, directory)
    data = read_content(disk, listing.segments[0])
    compressed = compress_segment(disk, segment, content)

    DATA/log/00000000000000000001.log            named by the seq of its first event, 20 digits: names sort as seqs do
    DATA/log/00000000000000000001.log.gz         the same, sealed and compressed: header and frames, no zeros
    DATA/log/00000000000000000001.log.torn-4711  side file: what recovery cut at offset 4711; never read again
    DATA/log/00000000000000000001.log.index      which users its frames concern (`engine.user_index`)
    DATA/log/*.tmp                               unfinished: in the making, or left by an interruption

Rules:
- A segment appears whole: it is laid out and gets its header under another name, is synced and renamed, and then the
  directory is synced. So a file that is shorter than its header is damaged, not new.
- If there is no room for a segment, its unfinished file is removed again, so its space is free for others. Nothing else
  has changed then, and the segment may be created later.
- If a segment is there plain and compressed, its compression was interrupted. The plain one counts: it is removed only
  after the compressed one is durable.
- If another thread or process compresses a segment, its plain file may go between listing and opening. Readers then
  open the compressed one. If that is missing too, the segment is no longer kept.
- Reading and unpacking stop at the length of the longest segment. A wrong file is refused and can't fill the memory.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from contextlib import closing

import msgspec

from engine.disk import TMP, Disk, File, FileMissing, free_path
from engine.errors import DiskFault, DiskFull, NoSpace, PlaceLost
from engine.limits import FRAME_BYTES_MAX, SEGMENT_BYTES
from engine.record import (
    HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    FrameFault,
    SegmentHeader,
    pack_segment_header,
    unpack_segment_header,
)

CONTENT_BYTES_MAX = SEGMENT_HEADER_BYTES + HEADER_BYTES + 3 * max(SEGMENT_BYTES, FRAME_BYTES_MAX)
"""The longest segment. A frame that is longer than SEGMENT_BYTES has a segment to itself. An erasure makes the shortest
record of an action, 14 bytes, less than three times as long (`engine.rewriting`)."""

PIECE_BYTES = 128 * 2**10
"""Bytes that one call compresses; it releases the interpreter meanwhile. A reader may begin to unpack at each.
The file is 0.7 % longer for that."""

COMPRESSION_LEVEL = 6
"""A segment with random actionIds shrinks to 36 % in 0.4 s. Level 9 takes 1 s and gains 0.3 %."""

LISTINGS_MAX = 10
"""Attempts to list a directory. One fails if a segment is compressed or removed in these microseconds."""

ROOM = "Make room on the disk, or raise its quota."

_CUT = "Find out what cut it. If the next start refuses the log, its message says what can be brought back."

GZ = ".gz"
INDEX = ".index"
_GZIP_WINDOW = 31
"""zlib's code for the gzip format, with header and checksum. It has no timestamp, so equal bytes give equal files."""
_NAME = re.compile(r"(\d{20})\.log(\.gz)?")
_UNFINISHED = re.compile(r"\d{20}\.log.*" + re.escape(TMP))


class SegmentFile(msgspec.Struct, frozen=True):
    """A segment in its directory. `bytes` is its length on disk."""

    path: str
    first_seq: int
    compressed: bool
    bytes: int


class Listing(msgspec.Struct, frozen=True):
    """A log directory: segments in the order of their seqs, and paths that interrupted work left."""

    segments: list[SegmentFile]
    unfinished: list[str]
    twice: list[str]


def segment_path(directory: str, first_seq: int) -> str:
    return f"{directory}/{first_seq:020d}.log"


def index_path(path: str) -> str:
    """Give the path of the index of a segment. It is the same for both forms."""
    return path.removesuffix(GZ) + INDEX


def remove_index(disk: Disk, path: str) -> None:
    """Remove the index of a segment. The next checkpoint makes it anew, if the segment is still there."""
    if disk.exists(index_path(path)):
        disk.remove(index_path(path))


def list_segments(disk: Disk, directory: str) -> Listing:
    """List a log directory. Another process may be changing it."""
    for _ in range(LISTINGS_MAX - 1):
        try:
            return _list_once(disk, directory)
        except FileMissing:
            if not disk.exists(directory):
                break
    return _list_once(disk, directory)


def _list_once(disk: Disk, directory: str) -> Listing:
    segments: dict[int, SegmentFile] = {}
    unfinished, twice = [], []
    for name in disk.list_directory(directory):
        path = f"{directory}/{name}"
        match = _NAME.fullmatch(name)
        if match is not None:
            first_seq, compressed = int(match[1]), match[2] is not None
            if first_seq in segments:
                # Sorted by name, so the plain one came first.
                twice.append(path)
            else:
                segments[first_seq] = SegmentFile(path, first_seq, compressed, disk.size(path))
        elif _UNFINISHED.fullmatch(name):
            unfinished.append(path)
    return Listing(list(segments.values()), unfinished, twice)


def create_segment(disk: Disk, directory: str, header: SegmentHeader, length: int) -> File:
    """Create a whole segment with `length` bytes laid out, durably, and open it for writing.

    Raises `DiskFull`, with nothing changed, if there is no room for it.
    """
    path = segment_path(directory, header.first_seq)
    unfinished = path + TMP
    if disk.exists(unfinished):
        disk.remove(unfinished)
    try:
        with closing(disk.create(unfinished)) as file:
            file.preallocate(length)
            file.write_at(0, pack_segment_header(header))
            file.sync()
        disk.rename(unfinished, path)
    except NoSpace as fault:
        if disk.exists(unfinished):
            disk.remove(unfinished)
        what = f"the next segment does not fit on the disk: {fault.what}"
        raise DiskFull(what, path=path, seq=header.first_seq, remedy=ROOM) from fault
    disk.sync_directory(directory)
    return disk.open(path, write=True)


def check_segment(file: File, length: int) -> None:
    """Check that the path of an open segment still leads to it, and that it has all the space that was laid out.

    `length` is that of the space, not of the frames. A write after a cut would make the file as long as its frames
    again, with a hole in them. Raises `PlaceLost`; `DiskFault` if that can't be known.
    """
    file.check_place()
    found = file.size()
    if found < length:
        what = f"the file was cut short while this process used it: it has {found} bytes instead of {length}"
        raise PlaceLost(what, path=file.path, remedy=_CUT)


def read_header(disk: Disk, segment: SegmentFile) -> SegmentHeader:
    """Read the header of a segment. Raises `FrameFault` if it is damaged, `FileMissing` if the segment is gone."""
    if segment.compressed:
        return unpack_segment_header(read_content(disk, segment))
    with closing(disk.open(segment.path)) as file:
        return unpack_segment_header(file.read_at(0, SEGMENT_HEADER_BYTES))


def read_content(disk: Disk, segment: SegmentFile, *, sync: bool = False) -> bytes:
    """Read a whole segment in the form that it has now. `sync`: then sync it, if it is plain.

    Raises `FrameFault` if it can't be unpacked, `FileMissing` if the segment is gone.
    """
    if segment.compressed:
        return _unpacked(_read_file(disk, segment.path))
    try:
        return _read_file(disk, segment.path, sync=sync)
    except FileMissing:
        return _unpacked(_read_file(disk, segment.path + GZ))


def _read_file(disk: Disk, path: str, *, sync: bool = False) -> bytes:
    with closing(disk.open(path)) as file:
        data = file.read_at(0, min(file.size(), CONTENT_BYTES_MAX))
        if sync:
            file.sync()
        return data


def _unpacked(data: bytes) -> bytes:
    unpacker = zlib.decompressobj(_GZIP_WINDOW)
    try:
        # One byte more than the longest content: at that length zlib would stop before it checks the checksum.
        content = unpacker.decompress(data, CONTENT_BYTES_MAX + 1)
    except zlib.error as error:
        raise FrameFault(f"the compressed segment can't be unpacked: {error}") from error
    if not unpacker.eof or unpacker.unused_data:
        raise FrameFault("the compressed segment is cut off, or has something after its end")
    return content


def compress_segment(disk: Disk, segment: SegmentFile, content: bytes) -> SegmentFile:
    """Write a compressed segment beside a plain one, durably, and read it back. The caller removes the plain one.

    `content` is the content of the plain one, proved, without the zeros at its end.
    """
    assert not segment.compressed
    path = segment.path + GZ
    length = disk.write_whole(path, _packed(content), paced=True)
    compressed = SegmentFile(path, segment.first_seq, True, length)
    try:
        same = read_content(disk, compressed) == content
    except FrameFault:
        same = False
    if not same:
        disk.remove(path)
        raise DiskFault("what was read back is not what was written", path=path, seq=segment.first_seq)
    return compressed


def _packed(content: bytes) -> Iterator[bytes]:
    packer = zlib.compressobj(COMPRESSION_LEVEL, zlib.DEFLATED, _GZIP_WINDOW)
    for start in range(0, len(content), PIECE_BYTES):
        yield packer.compress(content[start : start + PIECE_BYTES]) + packer.flush(zlib.Z_FULL_FLUSH)
    yield packer.flush()


def replace_segment(disk: Disk, segment: SegmentFile, content: bytes) -> SegmentFile:
    """Put another content in the place of a segment that nobody has open, durably, and read it back.

    A plain one keeps the space that was laid out. Its index goes first: it is of the old content.
    """
    remove_index(disk, segment.path)
    pieces = _packed(content) if segment.compressed else iter((content, bytes(max(0, segment.bytes - len(content)))))
    length = disk.write_whole(segment.path, pieces, paced=True)
    replaced = SegmentFile(segment.path, segment.first_seq, segment.compressed, length)
    if read_content(disk, replaced)[: len(content)] != content:
        raise DiskFault("what was read back is not what was written", path=segment.path, seq=segment.first_seq)
    return replaced


def remove_segment(disk: Disk, file: SegmentFile) -> None:
    """Remove a segment in both forms: the plain one may still be here if its removal failed after compression."""
    remove_index(disk, file.path)
    other = file.path.removesuffix(GZ) if file.compressed else file.path + GZ
    if disk.exists(other):
        disk.remove(other)
    disk.remove(file.path)


def side_path(disk: Disk, segment_path_: str, offset: int) -> str:
    """Choose an unused name for the side file of a cut at `offset`."""
    return free_path(disk, f"{segment_path_}.torn-{offset}")
