"""The bytes of a run of the index of actions. Pure: entries come in, bytes go out. `engine.action_run` has the files.

    for portion in packed(pieces, info, log_id, block_digests, keys): …
    footer = unpack_footer(data)                FooterFault if it is not whole

  entries      high u64 │ low u64 │ seq u64 │ mark u64      `count` of them, sorted by `high`, from the offset 0 on
  starts       u32 × (2^bits + 1)       │ these three are the filter: `engine.action_filter`
  prints16     u16 × count              │
  prints8      u8 × count               │
  checksums    u32 × ⌈count / ENTRIES⌉    CRC32C of each ENTRIES entries, the last ones perhaps fewer
  digests      32 bytes × blocks          `engine.action_blocks`
  footer       magic 4 │ version u32 │ log id 16 │ first u64 │ end u64 │ block actions u64 │ count u64 │
               first seq u64 │ last seq u64 │ forgotten u64 │ bits u64 │ checksum of the tables u32 │
               checksum of the footer before it u32                                              all little endian

Rules:
- Entries of one `high` stay in the order of their seqs, so the bytes follow from the actions and their marks.
- Every byte is covered: the entries by `checksums`, the tables and the footer by the checksums in the footer.
- A run of another version, or with blocks of another size, is as good as a damaged one: it can be made from the log.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from struct import Struct

import google_crc32c
import msgspec
import numpy as np
from msgspec.structs import astuple

from engine import action_blocks
from engine.action_blocks import DIGEST_BYTES, ENTRY, FORGOTTEN, Entries, RunInfo
from engine.action_filter import Filter, FilterMaker, bits_for

ENTRIES = 128
"""Entries that one checksum covers, and one read takes: 4 KiB, a page of the system's cache."""

BLOCK_BYTES = ENTRIES * ENTRY.itemsize

PIECE_ENTRIES = 2**15
"""Entries that are read or written at once: 1 MiB."""

PIECE_BYTES = PIECE_ENTRIES * ENTRY.itemsize

VERSION = 1
_MAGIC = b"acts"
_FOOTER = Struct("<4sI16s8QII")
_CHECKSUM = Struct("<I")
FOOTER_BYTES = _FOOTER.size


class FooterFault(Exception):
    """A footer is not that of a run which can be read here."""


class Footer(msgspec.Struct, frozen=True):
    """The footer, but for magic, version and its own checksum."""

    log_id: bytes
    first: int
    end: int
    block_actions: int
    count: int
    first_seq: int
    last_seq: int
    forgotten: int
    bits: int
    tables_checksum: int

    def pack(self) -> bytes:
        data = _FOOTER.pack(_MAGIC, VERSION, *astuple(self), 0)[: -_CHECKSUM.size]
        return data + _CHECKSUM.pack(google_crc32c.value(data))


class Offsets(msgspec.Struct, frozen=True):
    """Where the tables and the footer begin."""

    starts: int
    prints16: int
    prints8: int
    checksums: int
    digests: int
    footer: int


def offsets_in(count: int, blocks: int) -> Offsets:
    """Give the offsets in a run with this many entries and blocks."""
    starts = ENTRY.itemsize * count
    prints16 = starts + 4 * ((1 << bits_for(count)) + 1)
    prints8 = prints16 + 2 * count
    checksums = prints8 + count
    digests = checksums + 4 * checksums_in(count)
    return Offsets(starts, prints16, prints8, checksums, digests, digests + DIGEST_BYTES * blocks)


def checksums_in(count: int) -> int:
    """Give the number of checksums of this many entries."""
    return -(-count // ENTRIES)


def checksums_of(data: bytes) -> list[int]:
    """Give the checksum of each ENTRIES entries."""
    return [google_crc32c.value(data[at : at + BLOCK_BYTES]) for at in range(0, len(data), BLOCK_BYTES)]


def unpack_footer(data: bytes, offset: int) -> Footer:
    """Read the footer that begins at this offset; what it says fits the offset. Raises `FooterFault`."""
    if len(data) < FOOTER_BYTES:
        raise FooterFault("the run is cut off")
    magic, version, *fields, checksum = _FOOTER.unpack(data)
    if magic != _MAGIC or google_crc32c.value(data[: -_CHECKSUM.size]) != checksum:
        raise FooterFault("the footer of the run is not whole")
    if version != VERSION:
        raise FooterFault(f"the run has the unknown version {version}")
    footer = Footer(*fields)
    if footer.block_actions != action_blocks.BLOCK_ACTIONS:
        raise FooterFault(f"the blocks of the run have {footer.block_actions} actions")
    blocks = footer.end - footer.first
    if blocks <= 0 or (footer.count, footer.bits) != (blocks * footer.block_actions, bits_for(footer.count)):
        raise FooterFault("the footer of the run contradicts itself")
    if offsets_in(footer.count, blocks).footer != offset:
        raise FooterFault("the run has not the length that its footer says")
    return footer


def packed(
    pieces: Iterable[Entries], info: RunInfo, log_id: bytes, block_digests: list[bytes], keys: Filter | None
) -> Iterator[bytes]:
    """Give the bytes of a run, in portions for one write each. `keys` is the run's filter, if it was made before."""
    return _portions(_pieces(pieces, info, log_id, block_digests, keys))


def _pieces(
    pieces: Iterable[Entries], info: RunInfo, log_id: bytes, block_digests: list[bytes], keys: Filter | None
) -> Iterator[bytes]:
    maker = FilterMaker(info.count) if keys is None else None
    checksums = array("I")
    forgotten = 0
    left = b""
    for piece in pieces:
        if maker is not None:
            maker.add(piece["high"], piece["low"])
        forgotten += int(np.count_nonzero(piece["mark"] == FORGOTTEN))
        for begin in range(0, len(piece), PIECE_ENTRIES):
            data = left + piece[begin : begin + PIECE_ENTRIES].tobytes()
            whole = len(data) - len(data) % BLOCK_BYTES
            data, left = data[:whole], data[whole:]
            checksums.extend(checksums_of(data))
            yield data
    checksums.extend(checksums_of(left))
    yield left
    if maker is not None:
        keys = maker.made()
    assert keys is not None
    checksum = 0
    for column in (
        keys.starts.astype("<u4", copy=False),
        keys.prints16[: info.count].astype("<u2", copy=False),
        np.frombuffer(keys.prints8, np.uint8)[: info.count],
        np.asarray(checksums).astype("<u4"),
        np.frombuffer(b"".join(block_digests), np.uint8),
    ):
        octets = column.view(np.uint8)
        for begin in range(0, len(octets), PIECE_BYTES):
            data = octets[begin : begin + PIECE_BYTES].tobytes()
            checksum = google_crc32c.extend(checksum, data)
            yield data
    yield Footer(
        log_id, info.first, info.end, action_blocks.BLOCK_ACTIONS, info.count, info.first_seq, info.last_seq,
        forgotten, keys.bits, checksum,
    ).pack()  # fmt: skip


def _portions(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Join short pieces."""
    held: list[bytes] = []
    length = 0
    for piece in pieces:
        held.append(piece)
        length += len(piece)
        if length >= PIECE_BYTES:
            yield b"".join(held)
            held, length = [], 0
    if held:
        yield b"".join(held)
