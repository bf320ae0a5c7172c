"""A file of chunks: the frame of every file in this package. All integers are little endian.

    yield pack_header(MAGIC, VERSION)
    yield pack_chunk(b"head", 1, payload)
    chunk = ChunkFile(source, path, MAGIC, (VERSION,), "snapshot").at(HEADER_BYTES)

    file    = header  chunk*                     the last chunk has the kind "foot"

    header, 16 bytes                             chunk, 16 bytes and its payload
       0   8s  magic                                0   4s  kind
       8  u32  version                              4  u32  ordinal: 1, 2, 3 … through the file
      12  u32  CRC32C over bytes 0..11              8  u32  length of the payload, never 0
                                                   12  u32  CRC32C over bytes 0..11 and the payload

Rules:
- A chunk proves its bytes (CRC32C) and its place (ordinal). Its length is bounded before it is read.
- The footer has a BLAKE2b-256 over every byte before it: the digest proves that all chunks are of one file.
- A `ChunkFile` reads anywhere and holds nothing that changes, so threads share it. A `ChunkSequence` reads from the
  front to the end, and computes the digest.
- Damage raises `SnapshotDamaged`, with the path and the offset of the damaged chunk.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from hashlib import blake2b
from typing import Any, NamedTuple, Protocol, TypeVar

import google_crc32c
import msgspec

from engine.errors import SnapshotDamaged

CHUNK_BYTES_MAX = 2**20
"""The longest payload. A reader refuses a longer one unread."""

WORDS = 65_536
"""64-bit words in a chunk of words: 512 KiB."""

DIGEST_BYTES = 32
FOOT = b"foot"
"""The kind of the last chunk, which has the digest."""

_HEADER = struct.Struct("<8sI")
_CHUNK = struct.Struct("<4sII")
_CRC = struct.Struct("<I")

HEADER_BYTES = _HEADER.size + _CRC.size
CHUNK_HEADER_BYTES = _CHUNK.size + _CRC.size

encode: Callable[[Any], bytes] = msgspec.msgpack.Encoder().encode
T = TypeVar("T")


class Source(Protocol):
    """What a file is read from: a `File` of `engine.disk`, or bytes in a test."""

    def size(self) -> int: ...

    def read_at(self, offset: int, length: int) -> bytes: ...


class Chunk(NamedTuple):
    """A chunk that proved itself. `header` has the 16 bytes before its payload."""

    offset: int
    kind: bytes
    ordinal: int
    header: bytes
    payload: bytes

    @property
    def end(self) -> int:
        """The offset of what follows."""
        return self.offset + CHUNK_HEADER_BYTES + len(self.payload)


def digest_in_footer(source: Source, footer_bytes: int) -> bytes:
    """Give the digest in the footer of a file, unproved: it identifies the content. A footer of any kind begins so."""
    return source.read_at(max(0, source.size() - footer_bytes), DIGEST_BYTES)


def pack_header(magic: bytes, version: int) -> bytes:
    header = _HEADER.pack(magic, version)
    return header + _CRC.pack(google_crc32c.value(header))


def pack_chunk(kind: bytes, ordinal: int, payload: bytes) -> bytes:
    assert 0 < len(payload) <= CHUNK_BYTES_MAX
    header = _CHUNK.pack(kind, ordinal, len(payload))
    return header + _CRC.pack(google_crc32c.extend(google_crc32c.value(header), payload)) + payload


class ChunkFile:
    """Reads the chunks of a file at any offset, and proves each. Making one reads the header.

    `what` names the sort of file in the errors, and `remedy` says there what an operator can do.
    """

    def __init__(
        self, source: Source, path: str, magic: bytes, versions: tuple[int, ...], what: str, remedy: str = ""
    ) -> None:
        self._source = source
        self._path = path
        self._remedy = remedy
        self.size = source.size()
        self.header = header = self._read(0, HEADER_BYTES, "the header", 0)
        found, version = _HEADER.unpack_from(header)
        if found != magic:
            raise self.damaged(f"not a {what}: the magic is missing", 0)
        if _CRC.unpack_from(header, _HEADER.size)[0] != google_crc32c.value(header[: _HEADER.size]):
            raise self.damaged("the header's checksum is wrong", 0)
        if version not in versions:
            raise self.damaged(f"{what} version {version}; this program reads versions {versions}", 0)
        self.version: int = version

    def damaged(self, what: str, offset: int) -> SnapshotDamaged:
        return SnapshotDamaged(what, path=self._path, offset=offset, remedy=self._remedy)

    def at(self, offset: int) -> Chunk:
        """Read the chunk that begins at an offset, of any kind and ordinal."""
        header = self._read(offset, CHUNK_HEADER_BYTES, "a chunk's header", offset)
        kind, ordinal, length = _CHUNK.unpack_from(header)
        if not 0 < length <= CHUNK_BYTES_MAX:
            raise self.damaged(f"a chunk of {length} bytes; 1 to {CHUNK_BYTES_MAX} are possible", offset)
        payload = self._read(offset + CHUNK_HEADER_BYTES, length, "a chunk's payload", offset)
        checksum = google_crc32c.extend(google_crc32c.value(header[: _CHUNK.size]), payload)
        if _CRC.unpack_from(header, _CHUNK.size)[0] != checksum:
            raise self.damaged("a chunk's checksum is wrong", offset)
        return Chunk(offset, kind, ordinal, header, payload)

    def expect(self, offset: int, ordinal: int, kind: bytes, length: int | None = None) -> Chunk:
        """Read the chunk at an offset, which must have this ordinal and kind, and this length if given."""
        chunk = self.at(offset)
        self.check_ordinal(chunk, ordinal)
        self.check_kind(chunk, kind, length)
        return chunk

    def check_ordinal(self, chunk: Chunk, ordinal: int) -> None:
        if chunk.ordinal != ordinal:
            raise self.damaged(f"chunk {chunk.ordinal} where chunk {ordinal} belongs", chunk.offset)

    def check_kind(self, chunk: Chunk, kind: bytes, length: int | None) -> None:
        if chunk.kind != kind:
            raise self.damaged(f"a chunk {chunk.kind!r} where {kind!r} belongs", chunk.offset)
        if length is not None and len(chunk.payload) != length:
            what = f"a chunk {kind!r} of {len(chunk.payload)} bytes instead of {length}"
            raise self.damaged(what, chunk.offset)

    def decode(self, chunk: Chunk, decoder: msgspec.msgpack.Decoder[T]) -> T:
        """Decode the msgpack of a chunk."""
        try:
            return decoder.decode(chunk.payload)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise self.damaged(f"a chunk {chunk.kind!r} that says nothing: {error}", chunk.offset) from error

    def _read(self, offset: int, length: int, what: str, chunk_offset: int) -> bytes:
        data = self._source.read_at(offset, length) if offset + length <= self.size else b""
        if len(data) != length:
            raise self.damaged(f"the file ends within {what}", chunk_offset)
        return data


class ChunkSequence:
    """Reads the chunks of a file in order. The next one begins at `offset`."""

    def __init__(self, file: ChunkFile) -> None:
        self.file = file
        self.offset = HEADER_BYTES
        self._digest = blake2b(file.header, digest_size=DIGEST_BYTES)
        self._ordinal = 0
        self._chunk_offset = 0

    def damaged(self, what: str) -> SnapshotDamaged:
        """Make the error for the chunk that was read last."""
        return self.file.damaged(what, self._chunk_offset)

    def next(self) -> Chunk:
        """Read the next chunk, of any kind."""
        self._chunk_offset = self.offset
        chunk = self.file.at(self.offset)
        self.file.check_ordinal(chunk, self._ordinal + 1)
        self._ordinal = chunk.ordinal
        self.offset = chunk.end
        if chunk.kind != FOOT:
            self._digest.update(chunk.header)
            self._digest.update(chunk.payload)
        return chunk

    def chunk(self, kind: bytes, length: int | None = None) -> bytes:
        """Read the next chunk, which must have this kind, and this length if given; give its payload."""
        chunk = self.next()
        self.file.check_kind(chunk, kind, length)
        return chunk.payload

    def decode(self, kind: bytes, decoder: msgspec.msgpack.Decoder[T]) -> T:
        """Read the next chunk, which must have this kind, and decode its msgpack."""
        chunk = self.next()
        self.file.check_kind(chunk, kind, None)
        return self.file.decode(chunk, decoder)

    def prove_whole(self, digest: bytes) -> None:
        """Compare the digest that the footer has, and check that the file ends with the footer."""
        if digest != self._digest.digest():
            raise self.damaged("the digest of the whole file is wrong")
        if self.offset != self.file.size:
            raise self.damaged(f"{self.file.size - self.offset} bytes after the end")
