"""The index of a sealed segment: which of its frames concern a user.

    make_missing(disk, log)                                  at a checkpoint, under the log's `upkeep`
    index = UserIndex.open(disk, info)                       None: there is none that fits
    for offset in index.places("alice"): …                   frames, as offsets in the content, ascending
    data = index.frame(offset)                               the bytes of this frame, or more

      index    magic 4 │ checksum 4 │ file bytes 8 │ file mark 4 │ entries 4 │ blocks 4 │ points 4
               block    first digest 8 │ checksum 4                  a row for each BLOCK_ENTRIES entries
               point    offset in the content 4 │ in the file 4      a row for each place where unpacking may begin
               entry    digest of the user 8 │ offset of the frame in the content 4       sorted

Theory: the index is derived from the log and never the truth. It is made after its segment was sealed, never on the
write path. The checksum in its head covers the head, blocks and points; each block of entries has its own. So a search
reads a few KiB and proves what it reads. Two users of one digest share entries, and the reader looks into the frames.
A compressed segment is unpacked from a point on (zlib's full flush), so a frame costs a millisecond.

Rules:
- An index fits its segment if the file has the same length, and the same first and last bytes: of a compressed one
  these are the checksum of the content. Whoever puts another content there removes the index (`replace_segment`).
- It has no ids, only digests.
- Segments that older versions compressed have no points: they are unpacked whole.
- What is found here is proved by the checksum of its frame. A damaged index is as good as none.
"""

from __future__ import annotations

import zlib
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import closing
from hashlib import blake2b
from struct import Struct

import google_crc32c
import numpy as np

from engine.concerned import users_of
from engine.disk import Disk, File, FileMissing
from engine.errors import NoSpace
from engine.log import Log, SegmentInfo
from engine.record import HEADER_BYTES, SEGMENT_HEADER_BYTES, FrameFault, events_of, unpack_frame, unpack_header
from engine.segment import PIECE_BYTES, SegmentFile, index_path, read_content

BLOCK_ENTRIES = 512
"""Entries that a search reads at once: 6 KiB."""

DIGEST_BYTES = 8
_MAGIC = b"usx1"
_HEAD = Struct("<4sIQIIII")
_BLOCK = np.dtype([("first", "<u8"), ("checksum", "<u4")])
_POINT = np.dtype([("content", "<u4"), ("file", "<u4")])
_ENTRY = np.dtype([("digest", "<u8"), ("offset", "<u4")])
_FLUSHED = b"\x00\x00\xff\xff"
"""The bytes before a point: the end of a full flush."""
_RAW = -15
"""zlib's code for data without head and checksum."""
_READ_BYTES = 64 * 2**10


def digest_of(user_id: str) -> int:
    return int.from_bytes(blake2b(user_id.encode(), digest_size=DIGEST_BYTES).digest(), "little")


def make_missing(disk: Disk, log: Log) -> None:
    """Make the indexes of sealed segments that have none that fits. The caller holds `log.upkeep`.

    Without room, or where a segment can't be read, there is no index: searches take longer, and that is all.
    """
    for info in log.segments():
        if not info.sealed:
            continue
        index = UserIndex.open(disk, info)
        if index is not None:
            index.close()
            continue
        try:
            disk.write_whole(index_path(info.path), [_made(disk, info)], paced=True)
        except FrameFault:
            continue
        except NoSpace:
            return


def _made(disk: Disk, info: SegmentInfo) -> bytes:
    """Give the bytes of the index of a segment. Raises `FrameFault`."""
    content = read_content(disk, SegmentFile(info.path, info.first_seq, info.compressed, info.bytes))
    entries = np.array(_pairs(content), _ENTRY)
    entries.sort(order=("digest", "offset"))
    blocks = [entries[start : start + BLOCK_ENTRIES] for start in range(0, len(entries), BLOCK_ENTRIES)]
    heads = np.array([(block["digest"][0], _crc(block.tobytes())) for block in blocks], _BLOCK)
    with closing(disk.open(info.path)) as file:
        size, mark = file.size(), _mark(file)
        data = file.read_at(0, size) if info.compressed else b""
    points = np.array(_points(data, content), _POINT)
    covered = _HEAD.pack(_MAGIC, 0, size, mark, len(entries), len(blocks), len(points))[8:]
    covered += heads.tobytes() + points.tobytes()
    return _MAGIC + _crc(covered).to_bytes(4, "little") + covered + entries.tobytes()


def _pairs(content: bytes) -> list[tuple[int, int]]:
    """List (digest, offset of the frame), each once."""
    pairs: list[tuple[int, int]] = []
    digests: dict[str, int] = {}
    offset = SEGMENT_HEADER_BYTES
    while content[offset : offset + HEADER_BYTES].strip(b"\x00"):
        frame = unpack_frame(content, offset)
        users = {user_id for event in events_of(frame) for user_id in users_of(event)}
        digests.update((user_id, digest_of(user_id)) for user_id in users if user_id not in digests)
        pairs += [(digest, offset) for digest in {digests[user_id] for user_id in users}]
        offset += HEADER_BYTES + len(frame.body)
    return pairs


def _points(data: bytes, content: bytes) -> list[tuple[int, int]]:
    """List the places of a compressed file from which it can be unpacked, as (offset in the content, in the file)."""
    points: list[tuple[int, int]] = []
    unpacker = zlib.decompressobj(31)
    fed = unpacked = 0
    place = data.find(_FLUSHED)
    while place >= 0:
        end = place + len(_FLUSHED)
        unpacked += len(unpacker.decompress(data[fed:end]))
        fed = end
        # Other bytes may look like a flush. From there something else comes out.
        probe = content[unpacked : unpacked + HEADER_BYTES]
        if unpacked and probe and _unpacked_from(data[end : end + PIECE_BYTES], len(probe)) == probe:
            points.append((unpacked, end))
        place = data.find(_FLUSHED, end)
    return points


def _unpacked_from(data: bytes, length: int) -> bytes | None:
    try:
        return zlib.decompressobj(_RAW).decompress(data, length)
    except zlib.error:
        return None


def _crc(data: bytes) -> int:
    return int(google_crc32c.value(data))


def _mark(file: File) -> int:
    """Give what tells this file from another one of its length."""
    return _crc(file.read_at(0, SEGMENT_HEADER_BYTES) + file.read_at(max(0, file.size() - 8), 8))


class UserIndex:
    """An open index that fits its segment. `close` closes both files."""

    def __init__(self, segment: File, file: File, compressed: bool) -> None:
        """Read the head. Raises `FrameFault`."""
        self._segment, self._file, self._compressed = segment, file, compressed
        head = file.read_at(0, _HEAD.size)
        if len(head) < _HEAD.size:
            raise FrameFault("the index is cut off")
        magic, checksum, size, mark, entries, blocks, points = _HEAD.unpack(head)
        rest = _BLOCK.itemsize * blocks + _POINT.itemsize * points
        self._begin = _HEAD.size + rest
        if magic != _MAGIC or file.size() != self._begin + _ENTRY.itemsize * entries:
            raise FrameFault("the index is not whole")
        tables = file.read_at(_HEAD.size, rest)
        if _crc(head[8:] + tables) != checksum:
            raise FrameFault("the checksum of the index is wrong")
        if (size, mark) != (segment.size(), _mark(segment)):
            raise FrameFault("the index is of another segment")
        self._blocks = np.frombuffer(tables, _BLOCK, blocks)
        self._points = np.frombuffer(tables, _POINT, points, _BLOCK.itemsize * blocks)
        self._unpacked: tuple[int, bytes] = (0, b"")
        if compressed and not points:
            self._unpacked = (0, zlib.decompress(segment.read_at(0, size), 31))

    @classmethod
    def open(cls, disk: Disk, info: SegmentInfo) -> UserIndex | None:
        """Open the index of a segment; None if none is there that fits."""
        try:
            segment = disk.open(info.path)
        except FileMissing:
            return None
        try:
            file = disk.open(index_path(info.path))
        except FileMissing:
            segment.close()
            return None
        try:
            return cls(segment, file, info.compressed)
        except (FrameFault, zlib.error):
            segment.close()
            file.close()
            return None

    def close(self) -> None:
        self._segment.close()
        self._file.close()

    def places(self, user_id: str) -> list[int]:
        """List where the frames begin that may concern a user, ascending. Raises `FrameFault` if it is damaged."""
        digest = digest_of(user_id)
        firsts: list[int] = self._blocks["first"].tolist()
        # Entries of one digest may begin in the block before the first block that begins with it.
        number = max(0, bisect_left(firsts, digest) - 1)
        places: list[int] = []
        while number < len(firsts) and firsts[number] <= digest:
            start = self._begin + number * BLOCK_ENTRIES * _ENTRY.itemsize
            data = self._file.read_at(start, BLOCK_ENTRIES * _ENTRY.itemsize)
            if _crc(data) != int(self._blocks["checksum"][number]):
                raise FrameFault("the checksum of a block of the index is wrong")
            block = np.frombuffer(data, _ENTRY)
            places += block["offset"][block["digest"] == np.uint64(digest)].tolist()
            number += 1
        return places

    def frame(self, offset: int) -> bytes:
        """Read the frame that begins at an offset of the content. Raises `FrameFault`."""
        if not self._compressed:
            length = unpack_header(self._segment.read_at(offset, HEADER_BYTES)).length
            return self._segment.read_at(offset, HEADER_BYTES + length)
        length = unpack_header(self._content(offset, HEADER_BYTES)).length
        return self._content(offset, HEADER_BYTES + length)

    def _content(self, offset: int, length: int) -> bytes:
        """Unpack a piece of the content. What was unpacked last is kept, as the next frame is often near."""
        begin, data = self._unpacked
        if not begin <= offset <= offset + length <= begin + len(data):
            begin, data = self._unpacked = self._unpack(offset, length)
        return data[offset - begin : offset - begin + length]

    def _unpack(self, offset: int, length: int) -> tuple[int, bytes]:
        number = int(np.searchsorted(self._points["content"], np.uint32(offset), "right")) - 1
        begin, place, kind = 0, 0, 31
        if number >= 0:
            begin, place, kind = int(self._points["content"][number]), int(self._points["file"][number]), _RAW
        unpacker = zlib.decompressobj(kind)
        pieces: list[bytes] = []
        got, wanted = 0, max(offset - begin + length, PIECE_BYTES)
        try:
            for piece in self._pieces(place):
                pieces.append(unpacker.decompress(piece))
                got += len(pieces[-1])
                if got >= wanted or unpacker.eof:
                    break
        except zlib.error as error:
            raise FrameFault(f"the compressed segment can't be unpacked: {error}") from error
        return begin, b"".join(pieces)

    def _pieces(self, place: int) -> Iterator[bytes]:
        while piece := self._segment.read_at(place, _READ_BYTES):
            yield piece
            place += len(piece)
