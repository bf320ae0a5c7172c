"""One file of the log: its name, how it comes to be, how it is read, how it is compressed.

    DATA/log/00000000000000000001.log            the seq of its first event, 20 digits: names sort as seqs do
    DATA/log/00000000000000000001.log.gz         the same, once it is sealed and compressed: head and frames, no zeros
    DATA/log/00000000000000000001.log.torn-4711  side file: what recovery cut from it at offset 4711; never read again
    DATA/log/*.tmp                               being made, or left over from an interrupted making

Rules:
- A segment appears whole: laid out and headed under another name, synced, renamed, and the directory synced. So one
  that is shorter than its head was damaged, and not just young.
- A segment that is plain and compressed at once is one whose compression was interrupted: the plain one counts, since
  it is removed only after the compressed one is on disk.
- Whoever reads while another compresses may find the plain file gone between listing and opening: then the compressed
  one is there. If neither is, the segment is no longer kept.
- A file is not read further than the longest segment could be, and not unpacked further either: a wrong file costs a
  refusal, not the memory of the machine.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator

import msgspec

from engine.disk import TMP, Disk, File, FileMissing
from engine.errors import DiskFault
from engine.limits import FRAME_BYTES_MAX, SEGMENT_BYTES
from engine.record import (
    HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    FrameFault,
    SegmentHeader,
    pack_segment_header,
    unpack_segment_header,
)

CONTENT_BYTES_MAX = SEGMENT_HEADER_BYTES + HEADER_BYTES + max(SEGMENT_BYTES, FRAME_BYTES_MAX)
"""The longest segment: a frame that is longer than SEGMENT_BYTES has one to itself."""

PIECE_BYTES = 2**20
"""Compression takes so much at a time, and lets go of the interpreter meanwhile."""

COMPRESSION_LEVEL = 6
"""A log with random actionIds shrinks to 36 % in 0.4 s; level 9 takes 1 s to get 0.3 % further."""

LISTINGS_MAX = 10
"""How often a directory is listed again because files went while it was read: each time means that a segment was
compressed or removed in these microseconds."""

GZ = ".gz"
_GZIP_WINDOW = 31
"""zlib's way of saying: gzip, with its head and its checksum. There is no time in it: the same bytes give the same."""
_NAME = re.compile(r"(\d{20})\.log(\.gz)?")
_UNFINISHED = re.compile(r"\d{20}\.log.*" + re.escape(TMP))


class SegmentFile(msgspec.Struct, frozen=True):
    """A segment as it lies in the directory: what its name says, and what it takes on disk."""

    path: str
    first_seq: int
    compressed: bool
    bytes: int


class Listing(msgspec.Struct, frozen=True):
    """What a log directory holds: the segments by seq, and the paths of what interrupted work left there."""

    segments: list[SegmentFile]
    unfinished: list[str]
    twice: list[str]


def segment_path(directory: str, first_seq: int) -> str:
    """Give the path of a plain segment."""
    return f"{directory}/{first_seq:020d}.log"


def list_segments(disk: Disk, directory: str) -> Listing:
    """List a log directory, while another process may be changing it."""
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
    """Make a segment appear, with `length` bytes laid out, and open it for writing."""
    path = segment_path(directory, header.first_seq)
    file = disk.create(path + TMP)
    try:
        file.preallocate(length)
        file.write_at(0, pack_segment_header(header))
        file.sync()
    finally:
        file.close()
    disk.rename(path + TMP, path)
    disk.sync_directory(directory)
    return disk.open(path, write=True)


def read_header(disk: Disk, segment: SegmentFile) -> SegmentHeader:
    """Read the head of a segment. Raises `FrameFault` if it is damaged, `FileMissing` if the segment is gone."""
    if segment.compressed:
        return unpack_segment_header(read_content(disk, segment))
    file = disk.open(segment.path)
    try:
        return unpack_segment_header(file.read_at(0, SEGMENT_HEADER_BYTES))
    finally:
        file.close()


def read_content(disk: Disk, segment: SegmentFile, *, sync: bool = False) -> bytes:
    """Read a whole segment, in whichever form it is there now; `sync` what was read, if it is plain.

    Raises `FrameFault` if it can't be unpacked, `FileMissing` if the segment is gone.
    """
    if not segment.compressed:
        try:
            return _read_file(disk, segment.path, sync=sync)
        except FileMissing:
            return _unpacked(_read_file(disk, segment.path + GZ, sync=False))
    return _unpacked(_read_file(disk, segment.path, sync=False))


def _read_file(disk: Disk, path: str, *, sync: bool) -> bytes:
    file = disk.open(path)
    try:
        data = file.read_at(0, min(file.size(), CONTENT_BYTES_MAX))
        if sync:
            file.sync()
        return data
    finally:
        file.close()


def _unpacked(data: bytes) -> bytes:
    unpacker = zlib.decompressobj(_GZIP_WINDOW)
    try:
        # One more than there may be, or it would stop at the longest content without looking at its checksum.
        content = unpacker.decompress(data, CONTENT_BYTES_MAX + 1)
    except zlib.error as error:
        raise FrameFault(f"the compressed segment can't be unpacked: {error}") from error
    if not unpacker.eof or unpacker.unused_data:
        raise FrameFault("the compressed segment is cut off, or has something after its end")
    return content


def compress_segment(disk: Disk, segment: SegmentFile, content: bytes) -> SegmentFile:
    """Put a compressed segment beside a plain one, durably, and read it back. The plain one is the caller's to remove.

    `content` is what the plain one holds, proved, without the zeros at its end.
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
        yield packer.compress(content[start : start + PIECE_BYTES])
    yield packer.flush()


def side_path(disk: Disk, segment_path_: str, offset: int) -> str:
    """Choose the name of a side file for what is cut at `offset`; what was cut there before keeps its own."""
    path = f"{segment_path_}.torn-{offset}"
    number = 1
    while disk.exists(path):
        number += 1
        path = f"{segment_path_}.torn-{offset}-{number}"
    return path
