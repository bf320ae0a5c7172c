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
from array import array
from collections.abc import Iterator
from contextlib import closing
from hashlib import blake2b
from itertools import repeat
from math import inf
from struct import Struct
from typing import Any

import google_crc32c
import msgspec
import numpy as np
from numpy.typing import NDArray

from engine.concerned import users_of
from engine.disk import Disk, File, FileMissing
from engine.erased import is_erased
from engine.errors import NoSpace
from engine.log import Log, SegmentInfo
from engine.record import HEADER_BYTES, SEGMENT_HEADER_BYTES, Frame, FrameFault, events_of, unpack_frame, unpack_header
from engine.segment import PIECE_BYTES, SegmentFile, index_path, read_content

BLOCK_ENTRIES = 512
"""Entries that a search reads at once: 6 KiB."""

DIGESTS_KEPT = 2**17
"""Digests that are kept from one segment to the next, some 25 MiB: the users of the next are often the same."""

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
_READ_BYTES = _AHEAD_BYTES = 16 * 2**10
"""What is read at once, and unpacked beyond the header of a frame: most frames are shorter."""
_HEAD_READ_BYTES = 16 * 2**10
"""Head and tables of most indexes: one read."""
_INCREMENTED = {1, 6, 16}


class _Start(msgspec.Struct, array_like=True, gc=False):
    """The first fields of a record; of an action these are all that is needed."""

    type: int
    board_id: Any = None
    user_id: Any = None


_decode = msgspec.msgpack.Decoder(list[_Start]).decode


_fresh = blake2b(digest_size=DIGEST_BYTES).copy  # quicker than to set one up


def digest_of(user_id: str) -> int:
    hashed = _fresh()
    hashed.update(user_id.encode())
    return int.from_bytes(hashed.digest(), "little")


def make_missing(disk: Disk, log: Log) -> None:
    """Make the indexes of sealed segments that have none that fits. The caller holds `log.upkeep`.

    Without room, or where a segment can't be read, there is no index: searches take longer, and that is all.
    """
    digests: dict[str, int] = {}
    for info in log.segments():
        if not info.sealed:
            continue
        index = UserIndex.open(disk, info)
        if index is not None:
            index.close()
            continue
        try:
            disk.write_whole(index_path(info.path), [_made(disk, info, digests)], paced=True)
        except FrameFault:
            continue
        except NoSpace:
            return


def _made(disk: Disk, info: SegmentInfo, known: dict[str, int]) -> bytes:
    """Give the bytes of the index of a segment. `known` are digests that were needed before. Raises `FrameFault`."""
    content = read_content(disk, SegmentFile(info.path, info.first_seq, info.compressed, info.bytes))
    if len(known) > DIGESTS_KEPT:
        known.clear()
    entries = _entries(content, known)
    blocks = [entries[start : start + BLOCK_ENTRIES] for start in range(0, len(entries), BLOCK_ENTRIES)]
    heads = np.array([(block["digest"][0], _crc(block.tobytes())) for block in blocks], _BLOCK)
    with closing(disk.open(info.path)) as file:
        size, mark = file.size(), _mark(file)
        data = file.read_at(0, size) if info.compressed else b""
    points = np.array(_points(data, content), _POINT)
    covered = _HEAD.pack(_MAGIC, 0, size, mark, len(entries), len(blocks), len(points))[8:]
    covered += heads.tobytes() + points.tobytes()
    return _MAGIC + _crc(covered).to_bytes(4, "little") + covered + entries.tobytes()


def _entries(content: bytes, known: dict[str, int]) -> NDArray[np.void]:
    """List (digest, offset of the frame), each once, sorted. A frame of many increments costs about 1 us for each."""
    digests, offsets = array("Q"), array("I")
    offset = SEGMENT_HEADER_BYTES
    while content[offset : offset + HEADER_BYTES].strip(b"\x00"):
        frame = unpack_frame(content, offset)
        users = _users_of(frame)
        known.update({user_id: digest_of(user_id) for user_id in users if user_id not in known})
        digests.extend(map(known.__getitem__, users))
        offsets.extend(repeat(offset, len(users)))
        offset += HEADER_BYTES + len(frame.body)
    order = np.argsort(np.frombuffer(digests, "Q"), kind="stable")  # the offsets of a digest stay ascending
    digest, place = np.frombuffer(digests, "Q")[order], np.frombuffer(offsets, "I")[order]
    differs = np.ones(len(order), bool)
    differs[1:] = (digest[1:] != digest[:-1]) | (place[1:] != place[:-1])
    entries = np.empty(int(differs.sum()), _ENTRY)
    entries["digest"], entries["offset"] = digest[differs], place[differs]
    return entries


def _users_of(frame: Frame) -> set[str]:
    """Give the users that the events of a frame concern, but those who were erased. Raises `FrameFault`.

    A frame of actions alone, as most are, is not decoded beyond the users (`engine.event_records` has the format).
    """
    try:
        starts = _decode(b"\xdd" + frame.count.to_bytes(4, "big") + frame.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        starts = []
    if not starts or {start.type for start in starts} - _INCREMENTED:
        return set[str]().union(*map(users_of, events_of(frame)))
    return {user_id for user_id in {start.user_id for start in starts} if not is_erased(user_id)}


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


def _read_head(disk: Disk, info: SegmentInfo, file: File) -> IndexHead:
    """Read the head and the tables of an index. Raises `FrameFault` if they do not fit, `FileMissing`."""
    data = file.read_at(0, _HEAD_READ_BYTES)
    if len(data) < _HEAD.size:
        raise FrameFault("the index is cut off")
    magic, checksum, size, mark, entries, blocks, points = _HEAD.unpack_from(data)
    begin = _HEAD.size + _BLOCK.itemsize * blocks + _POINT.itemsize * points
    if magic != _MAGIC or file.size() != begin + _ENTRY.itemsize * entries:
        raise FrameFault("the index is not whole")
    if begin > len(data):
        data += file.read_at(len(data), begin - len(data))
    if _crc(data[8:begin]) != checksum:
        raise FrameFault("the checksum of the index is wrong")
    with closing(disk.open(info.path)) as segment:
        if (size, mark) != (segment.size(), _mark(segment)):
            raise FrameFault("the index is of another segment")
    tables = data[_HEAD.size : begin]
    return IndexHead(
        info, begin, np.frombuffer(tables, _BLOCK, blocks),
        np.frombuffer(tables, _POINT, points, _BLOCK.itemsize * blocks),
    )  # fmt: skip


class IndexHead(msgspec.Struct, frozen=True):
    """The head and the tables of an index that was found to fit its segment. `begin`: where its entries begin."""

    info: SegmentInfo
    begin: int
    blocks: NDArray[np.void]
    points: NDArray[np.void]


Heads = dict[str, IndexHead]
"""Heads that were read before, by the path of the segment: some 10 KB each."""


class UserIndex:
    """An open index that fits its segment. `close` closes both files."""

    def __init__(self, disk: Disk, file: File, head: IndexHead) -> None:
        self._disk, self._file, self._head = disk, file, head
        self._opened: File | None = None
        self._unpacked: tuple[int, bytes] = (0, b"")

    @classmethod
    def open(cls, disk: Disk, info: SegmentInfo, heads: Heads | None = None) -> UserIndex | None:
        """Open the index of a segment; None if none is there that fits.

        `heads` are those that the caller keeps from one call to the next. A head that fits no more shows: the checksum
        of a block, or of a frame, is wrong then. The caller drops it.
        """
        try:
            file = disk.open(index_path(info.path))
        except FileMissing:
            return None
        head = None if heads is None else heads.get(info.path)
        if head is None or head.info != info:
            try:
                head = _read_head(disk, info, file)
            except (FrameFault, FileMissing):
                file.close()
                return None
            if heads is not None:
                heads[info.path] = head
        return cls(disk, file, head)

    def close(self) -> None:
        self._file.close()
        if self._opened is not None:
            self._opened.close()

    def places(self, user_id: str) -> list[int]:
        """List where the frames begin that may concern a user, ascending. Raises `FrameFault` if it is damaged."""
        digest, blocks, begin = np.uint64(digest_of(user_id)), self._head.blocks, self._head.begin
        # Entries of one digest may begin in the block before the first block that begins with it.
        first = max(0, int(np.searchsorted(blocks["first"], digest)) - 1)
        end = int(np.searchsorted(blocks["first"], digest, "right"))
        places: list[int] = []
        for number in range(first, end):
            start = begin + number * BLOCK_ENTRIES * _ENTRY.itemsize
            data = self._file.read_at(start, BLOCK_ENTRIES * _ENTRY.itemsize)
            if _crc(data) != int(blocks["checksum"][number]):
                raise FrameFault("the checksum of a block of the index is wrong")
            block = np.frombuffer(data, _ENTRY)
            places += block["offset"][block["digest"] == digest].tolist()
        return places

    def frame(self, offset: int) -> bytes:
        """Read the frame that begins at an offset of the content. Raises `FrameFault`."""
        if not self._head.info.compressed:
            length = unpack_header(self._segment.read_at(offset, HEADER_BYTES)).length
            return self._segment.read_at(offset, HEADER_BYTES + length)
        length = unpack_header(self._content(offset, HEADER_BYTES)).length
        return self._content(offset, HEADER_BYTES + length)

    @property
    def _segment(self) -> File:
        """The segment, which is opened when it is first needed. Raises `FrameFault` if it is gone."""
        if self._opened is None:
            try:
                self._opened = self._disk.open(self._head.info.path)
            except FileMissing as missing:
                raise FrameFault("the segment is gone") from missing
        return self._opened

    def _content(self, offset: int, length: int) -> bytes:
        """Unpack a piece of the content. What was unpacked last is kept, as the next frame is often near."""
        begin, data = self._unpacked
        if not begin <= offset <= offset + length <= begin + len(data):
            begin, data = self._unpacked = self._unpack(offset, length)
        return data[offset - begin : offset - begin + length]

    def _unpack(self, offset: int, length: int) -> tuple[int, bytes]:
        points = self._head.points
        number = int(np.searchsorted(points["content"], np.uint32(offset), "right")) - 1
        begin, place, kind = 0, 0, 31
        if number >= 0:
            begin, place, kind = int(points["content"][number]), int(points["file"][number]), _RAW
        unpacker = zlib.decompressobj(kind)
        pieces: list[bytes] = []
        got = 0
        wanted: float = offset - begin + length + _AHEAD_BYTES
        if not len(points):
            wanted = inf
        elif begin == self._unpacked[0] and self._unpacked[1]:
            wanted = max(wanted, PIECE_BYTES)  # a second frame of this piece: there may be more
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
