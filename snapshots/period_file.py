"""The file of a past period ⇄ its final ranking. It never changes, and a reader of it takes next to no memory.

    disk.write_whole(path, pack_period(PeriodHead(...), rows))
    reader = PeriodReader(file, path)
    reader.top(10); reader.find("ann")           rows; (position, row) or None

    file = header chunk*                         `snapshots.chunks` draws both; magic "scoreprd", version 1

    the chunks, in this order (* = as many as the count needs, none for a count of 0)

      head   msgpack [board id, period id, begins ms, ends ms or nil, seq, count, log id]
               seq is that of the event that ended the period, count the number of rows, log id 16 bytes
      rows*  msgpack [[rank, user id, score, updated ms, reached seq] …]     ROWS in each, the last one has the rest
      indx*  INDEX entries in each, the last one has the rest; two columns:
               u64 digests             BLAKE2b of 8 bytes over the user id in UTF-8; they ascend through all chunks
               u32 positions           of the row with this digest; equal digests have ascending positions
      dirc*  u64, WORDS in each        the directory, one column that is cut anywhere:
               offset of each rows chunk, offset of each indx chunk, first digest of each indx chunk
      foot   56 bytes:
         0  32s  BLAKE2b-256 over every byte before this chunk
        32  u64  offset of the directory: where the indx chunks end
        40  16s  log id

Rules:
- Positions count from 0. Ranks ascend along them; they may repeat, and they may leave gaps.
- Chunks are cut at fixed counts, so the count gives the ordinal of every chunk. The same rows give the same bytes.
- Streamed: packing holds one chunk of rows, beside 16 bytes a user for the index. No call holds the interpreter for
  more than about a millisecond. Sorting takes longer, and releases it.
- A reader proves what it reads: at opening header, head, directory and footer, later each chunk. `verify` proves all.
- A reader keeps the directory: 8 bytes for ROWS users and 16 for INDEX users. It holds nothing that changes, so threads
  share it.

How a user is found, with INDEX = 4: the index chunks begin with the digests 3, 20, 20 and 70, and ours is 20. It may be
at the end of the first chunk, and is in the second and third: all three are read. For 50 it is the third one alone.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from itertools import islice
from typing import Annotated

import msgspec
import numpy as np

from engine.errors import SnapshotDamaged
from engine.image import column_bytes, column_of
from engine.ranking import FinalRow
from snapshots.chunks import (
    CHUNK_HEADER_BYTES,
    DIGEST_BYTES,
    FOOT,
    HEADER_BYTES,
    WORDS,
    ChunkFile,
    ChunkSequence,
    Source,
    digest_in_footer,
    encode,
    pack_chunk,
    pack_header,
)

MAGIC = b"scoreprd"
VERSION = 1

ROWS = 1_000
"""Rows in a chunk: with the longest ids (128 characters of 4 bytes) it stays below CHUNK_BYTES_MAX."""

INDEX = 4_096
"""Entries in a chunk of the index: 48 KiB, about the length of a chunk of rows. Finding a user reads one of each."""

COUNT_MAX = 2**32 - 1
"""The most rows: a position in the index has 32 bits."""

REMEDY = "Put the file of another node in its place, or remove it and make it anew from the log."

_FOOTER = struct.Struct("<32sQ16s")
_FOOT_BYTES = CHUNK_HEADER_BYTES + _FOOTER.size
_DIGEST_BYTES = 8
_ENTRY_BYTES = 12
_position = struct.Struct("<I").unpack_from
_fresh_digest = blake2b(digest_size=_DIGEST_BYTES).copy  # cheaper than making one, which parses its parameters


class PeriodHead(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """What a period is. `ends_ms` is the time at which it really ended; None: it is not known."""

    board_id: str
    period_id: str
    begins_ms: int
    ends_ms: int | None
    seq: int
    count: Annotated[int, msgspec.Meta(ge=0, le=COUNT_MAX)]
    log_id: Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]


PeriodRow = FinalRow

_HEAD = msgspec.msgpack.Decoder(PeriodHead)
_ROWS = msgspec.msgpack.Decoder(list[PeriodRow])


class _Layout:
    """How many chunks of each kind a count needs, and the ordinals of the first ones."""

    def __init__(self, count: int) -> None:
        self.rows_chunks = -(-count // ROWS)
        self.index_chunks = -(-count // INDEX)
        self.words = self.rows_chunks + 2 * self.index_chunks
        self.first_rows = 2
        self.first_index = self.first_rows + self.rows_chunks
        self.first_directory = self.first_index + self.index_chunks
        self.foot = self.first_directory + -(-self.words // WORDS)


def digest_of(user_id: str) -> bytes:
    """Give the digest by which the index finds a user: 8 bytes, read as a little-endian integer."""
    hashed = _fresh_digest()
    hashed.update(user_id.encode())
    return hashed.digest()


# Packing


def pack_period(head: PeriodHead, rows: Iterable[PeriodRow]) -> Iterator[bytes]:
    """Yield the file of a period, in blocks of a header and at most CHUNK_BYTES_MAX.

    `rows` has `head.count` rows in the order of the ranking, each user once.
    """
    assert 0 <= head.count <= COUNT_MAX
    assert len(head.log_id) == 16
    packer = _Packer()
    yield packer.header()
    yield packer.chunk(b"head", encode(head))
    row_offsets, digests = array("Q"), np.empty(head.count, "<u8")
    for start, batch in _batches(rows, head.count):
        row_offsets.append(packer.offset)
        part = b"".join([digest_of(row.user_id) for row in batch])
        digests[start : start + len(batch)] = np.frombuffer(part, "<u8")
        yield packer.chunk(b"rows", encode(batch))
    index_offsets, firsts = array("Q"), array("Q")
    order = np.argsort(digests, kind="stable")  # stable: equal digests stay in the order of their positions
    for start in range(0, head.count, INDEX):
        positions = order[start : start + INDEX]
        index_offsets.append(packer.offset)
        firsts.append(int(digests[positions[0]]))
        yield packer.chunk(b"indx", digests[positions].tobytes() + positions.astype("<u4").tobytes())
    directory_offset = packer.offset
    directory = row_offsets + index_offsets + firsts
    for start in range(0, len(directory), WORDS):
        yield packer.chunk(b"dirc", column_bytes(directory[start : start + WORDS]))
    yield packer.chunk(FOOT, _FOOTER.pack(packer.digest.digest(), directory_offset, head.log_id))


def _batches(rows: Iterable[PeriodRow], count: int) -> Iterator[tuple[int, list[PeriodRow]]]:
    """Cut the rows at ROWS; give each part with the position of its first row. The rows must be `count`, in order."""
    left = iter(rows)
    rank = 0
    for start in range(0, count, ROWS):
        batch = list(islice(left, min(ROWS, count - start)))
        assert len(batch) == min(ROWS, count - start), "fewer rows than the head says"
        ranks = [rank, *(row.rank for row in batch)]
        assert ranks == sorted(ranks), "ranks that do not ascend"
        rank = ranks[-1]
        yield start, batch
    assert next(left, None) is None, "more rows than the head says"


class _Packer:
    """Makes the chunks of a file one after the other; knows their offsets and the digest of them all."""

    def __init__(self) -> None:
        self.offset = 0
        self.digest = blake2b(digest_size=DIGEST_BYTES)
        self._ordinal = 0

    def header(self) -> bytes:
        return self._take(pack_header(MAGIC, VERSION))

    def chunk(self, kind: bytes, payload: bytes) -> bytes:
        self._ordinal += 1
        return self._take(pack_chunk(kind, self._ordinal, payload))

    def _take(self, block: bytes) -> bytes:
        self.offset += len(block)
        self.digest.update(block)
        return block


# Reading


class PeriodReader:
    """Reads the file of a period. Making one reads all but the rows and the index. Raises `SnapshotDamaged`."""

    def __init__(self, source: Source, path: str) -> None:
        self._file = file = ChunkFile(source, path, MAGIC, (VERSION,), "period file", REMEDY)
        chunk = file.expect(HEADER_BYTES, 1, b"head")
        self.head = file.decode(chunk, _HEAD)
        self._layout = layout = _Layout(self.head.count)
        foot_offset, directory_offset = self._read_footer(chunk.end)
        directory = self._read_directory(directory_offset, foot_offset)
        self._rows_at = directory[: layout.rows_chunks]
        self._index_at = directory[layout.rows_chunks : layout.rows_chunks + layout.index_chunks]
        self._firsts = directory[layout.rows_chunks + layout.index_chunks :]

    def _read_footer(self, earliest: int) -> tuple[int, int]:
        """Give the offset of the footer and that of the directory."""
        offset = max(earliest, self._file.size - _FOOT_BYTES)
        try:
            foot = self._file.expect(offset, self._layout.foot, FOOT, _FOOTER.size)
        except SnapshotDamaged as error:
            what = f"no whole footer at the end, so the file was cut off, lengthened or damaged: {error.what}"
            raise self._file.damaged(what, offset) from error
        _, directory_offset, log_id = _FOOTER.unpack(foot.payload)
        if log_id != self.head.log_id:
            raise self._file.damaged("the footer is that of another log", offset)
        return offset, directory_offset

    def _read_directory(self, offset: int, end: int) -> array[int]:
        directory = array("Q")
        for number, start in enumerate(range(0, self._layout.words, WORDS)):
            length = 8 * min(WORDS, self._layout.words - start)
            chunk = self._file.expect(offset, self._layout.first_directory + number, b"dirc", length)
            directory += column_of(chunk.payload)
            offset = chunk.end
        if offset != end:
            raise self._file.damaged(f"the directory ends at {offset} and not at the footer", end)
        return directory

    def top(self, count: int) -> list[PeriodRow]:
        """Give the first `count` rows, or all if there are fewer."""
        return self.rows(0, count)

    def rows(self, start: int, count: int) -> list[PeriodRow]:
        """Give up to `count` rows from position `start` on; fewer only at the end. The caller bounds `count`."""
        assert start >= 0
        assert count >= 0
        end = min(start + count, self.head.count)
        rows: list[PeriodRow] = []
        while start < end:
            number, within = divmod(start, ROWS)
            part = self._rows_of(number)[within : within + end - start]
            rows += part
            start += len(part)
        return rows

    def find(self, user_id: str) -> tuple[int, PeriodRow] | None:
        """Give a user's position and row, None if the user has none. Reads a chunk of the index and one of rows."""
        digest = int.from_bytes(digest_of(user_id), "little")
        # The first chunk may end with the digest that the next one begins with.
        for number in range(max(bisect_left(self._firsts, digest) - 1, 0), bisect_right(self._firsts, digest)):
            for position in self._positions_of(number, digest):
                row = self._rows_of(position // ROWS)[position % ROWS]
                if row.user_id == user_id:  # users may share a digest
                    return position, row
        return None

    def _rows_of(self, number: int) -> list[PeriodRow]:
        """Read the chunk of rows with this number, which has at least one."""
        chunk = self._file.expect(self._rows_at[number], self._layout.first_rows + number, b"rows")
        rows = self._file.decode(chunk, _ROWS)
        expected = min(ROWS, self.head.count - number * ROWS)
        if len(rows) != expected:
            raise self._file.damaged(f"{len(rows)} rows in a chunk instead of {expected}", chunk.offset)
        return rows

    def _positions_of(self, number: int, digest: int) -> list[int]:
        """Read the chunk of the index with this number; give the positions that it has for a digest."""
        entries = min(INDEX, self.head.count - number * INDEX)
        ordinal, length = self._layout.first_index + number, _ENTRY_BYTES * entries
        chunk = self._file.expect(self._index_at[number], ordinal, b"indx", length)
        digests = column_of(chunk.payload[: _DIGEST_BYTES * entries])
        found = range(bisect_left(digests, digest), bisect_right(digests, digest))
        positions: list[int] = [_position(chunk.payload, _DIGEST_BYTES * entries + 4 * entry)[0] for entry in found]
        if any(position >= self.head.count for position in positions):
            raise self._file.damaged("an index that leads beyond the last row", chunk.offset)
        return positions


def footer_digest(source: Source) -> bytes:
    """Give the digest in the footer of a file, unproved: it identifies the content of the file."""
    return digest_in_footer(source, _FOOTER.size)


def verify(source: Source, path: str) -> PeriodHead:
    """Prove every byte of a file, and that its directory leads to its chunks; give its head. O(file), little memory."""
    chunks = ChunkSequence(ChunkFile(source, path, MAGIC, (VERSION,), "period file", REMEDY))
    head = chunks.decode(b"head", _HEAD)
    layout = _Layout(head.count)
    row_offsets, index_offsets, firsts = array("Q"), array("Q"), array("Q")
    for _ in range(layout.rows_chunks):
        row_offsets.append(chunks.offset)
        chunks.chunk(b"rows")
    for start in range(0, head.count, INDEX):
        index_offsets.append(chunks.offset)
        payload = chunks.chunk(b"indx", _ENTRY_BYTES * min(INDEX, head.count - start))
        firsts += column_of(payload[:_DIGEST_BYTES])
    directory_offset = chunks.offset
    directory = row_offsets + index_offsets + firsts
    for start in range(0, len(directory), WORDS):
        if chunks.chunk(b"dirc") != column_bytes(directory[start : start + WORDS]):
            raise chunks.damaged("a directory that does not lead to the chunks of this file")
    digest, found, log_id = _FOOTER.unpack(chunks.chunk(FOOT, _FOOTER.size))
    chunks.prove_whole(digest)
    if (found, log_id) != (directory_offset, head.log_id):
        raise chunks.damaged("the footer is that of another file")
    return head
