"""A snapshot ⇄ bytes: the whole state after one event, and its place in the log. All integers are little endian.

    disk.write_whole(path, pack(image, tail))
    image, tail = unpack(file, path)
    tail = verify(file, path)                    proves every byte without building the state

    file = header chunk*                         `snapshots.chunks` draws both; magic "scoresnp", version 1 to 5

    the chunks, in this order (* = as many as the count needs, none for a count of 0)

      stat   msgpack [epoch, seq, time ms, [[first seq, epoch] …], boards, registered users, actions,
               from version 2 on: [[epoch, identity] …]       16 bytes each, of the epochs that have one
               from version 4 on: [seq, time ms]              of the last event that noted the ranks, or zeros
               from version 5 on: [[part, bytes] …]]          sorted by name, none without bytes
      bord   msgpack [board id, seq, users]          and then of this board, boards sorted by id:
               from version 3 on: [board id, seq, users, definition]    a map, of the boards that events defined
               from version 4 on: [… definition | nil, past ranks]      of those that have some (`engine.past_ranks`)
        bids*   msgpack [user id …]                     TEXTS in each, the last one has the rest
        bsco* brea* bupd*                               scores, reached, updated: u64, WORDS in each
        of a frozen board, what the public sees: another bord and its columns, and then
        brev*                                           one byte a user, 1 revealed, 0 not, BYTES in each
      uids* unam*   msgpack [user id …], [display name or nil …]
      uact*         one byte a user, 1 active, 0 not, BYTES in each
      adig* aseq* amrk*                              digests (two words an action), seqs, marks: u64
      part*                                          the bytes of each part (`engine.image`), BYTES in each chunk
      foot   the footer, a chunk like the others, 72 bytes:
         0  32s  BLAKE2b-256 over every byte before this chunk: the digest of the state
        32  16s  log id             and with it the tail of the log after this state:
        48  u64  epoch
        56  u64  seq
        64  u32  checksum of the frame that ends there: the next frame continues it
        68  u32  zero

Rules:
- A state is written as the oldest version that can hold it, byte for byte as ever: version 2 has identities of epochs
  (`engine.history`), version 3 the definitions of boards, version 4 ranks of earlier moments, version 5 parts. So nodes
  of two versions of this program go on comparing digests until the log has something new.
- Canonical: chunks are cut at fixed counts, and msgpack has its shortest form. So a state has one file, byte for byte,
  apart from the tail and from which actions are sealed (`engine.sealed_actions`). `snapshots.digests` compares states.
- Streamed: packing holds one chunk at a time, reading one chunk beside the result. No call holds the interpreter for
  more than about a millisecond, so a server goes on serving.
- Damage is located: a chunk that was changed, lost, doubled or moved is found (`snapshots.chunks`).
- This file does not interpret columns; `engine.image` says what they mean.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from itertools import chain
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from engine.image import ACTIONS, PARTS, ActionsImage, BoardImage, StateImage, UsersImage, column_bytes, column_of
from engine.past_ranks import NOTHING
from engine.record import Tail
from engine.user_ids import UserIds
from snapshots.chunks import (
    CHUNK_BYTES_MAX,
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
from snapshots.format_records import (
    BOARD,
    BOARD_WITH_DEFINITION,
    BOARD_WITH_PAST_RANKS,
    IDS,
    NAMES,
    STATS,
    VERSION,
    VERSION_WITH_DEFINITIONS,
    VERSION_WITH_HISTORIES,
    VERSION_WITH_PARTS,
    VERSION_WITH_PAST_RANKS,
    VERSIONS,
    BoardHead,
    BoardHeadWithDefinition,
    BoardHeadWithPastRanks,
    Stat,
    StatWithDefinitions,
    StatWithHistories,
    StatWithParts,
    StatWithPastRanks,
)

__all__ = ["BYTES", "CHUNK_BYTES_MAX", "CHUNK_HEADER_BYTES", "HEADER_BYTES", "TEXTS", "WORDS", "Source",
           "actions_payloads", "board_payloads", "file_digest", "footer_digest", "pack",
           "part_lengths", "unpack", "users_payloads",
           "verify"]  # fmt: skip

MAGIC = b"scoresnp"
TEXTS = 2_000
"""Texts in a chunk: with the longest ids (128 characters of 4 bytes) it stays below CHUNK_BYTES_MAX."""

BYTES = 524_288
"""Single bytes in a chunk."""

FOOTER = struct.Struct("<32s16sQQII")

T = TypeVar("T")
# Packing


def pack(image: StateImage, tail: Tail) -> Iterator[bytes]:
    """Yield the file of a state and its tail, in blocks of a header and at most CHUNK_BYTES_MAX."""
    assert (image.epoch, image.seq) == (tail.epoch, tail.seq), "the tail is that of another state"
    digest = blake2b(digest_size=DIGEST_BYTES)
    blocks = 0
    for block in _blocks(image):
        digest.update(block)
        blocks += 1
        yield block
    footer = FOOTER.pack(digest.digest(), tail.log_id, tail.epoch, tail.seq, tail.checksum, 0)
    yield pack_chunk(FOOT, blocks, footer)


def footer_digest(source: Source) -> bytes:
    """Give the digest in the footer of a file, unproved: it identifies the content of the file."""
    return digest_in_footer(source, FOOTER.size)


def file_digest(image: StateImage) -> str:
    """Give the BLAKE2b-256 of the file that this state makes, in hex: that of its footer. O(state)."""
    digest = blake2b(digest_size=DIGEST_BYTES)
    for block in _blocks(image):
        digest.update(block)
    return digest.hexdigest()


def _blocks(image: StateImage) -> Iterator[bytes]:
    """Yield the header (block 0) and every chunk before the footer."""
    yield pack_header(MAGIC, _version_of(image))
    for ordinal, (kind, payload) in enumerate(_payloads(image), 1):
        yield pack_chunk(kind, ordinal, payload)


def _payloads(image: StateImage) -> Iterator[tuple[bytes, bytes]]:
    users, actions = image.users, image.actions
    epochs = [(first_seq, epoch) for first_seq, epoch in image.epochs]
    head = (image.epoch, image.seq, image.time_ms, epochs, len(image.boards), users.count, actions.count)
    version = _version_of(image)
    if version == VERSION_WITH_PARTS:
        lengths = [(name, len(data)) for name, data in image.parts]
        yield b"stat", encode(StatWithParts(*head, image.histories, image.noted, lengths))
    elif version == VERSION_WITH_PAST_RANKS:
        yield b"stat", encode(StatWithPastRanks(*head, image.histories, image.noted))
    elif version == VERSION_WITH_DEFINITIONS:
        yield b"stat", encode(StatWithDefinitions(*head, image.histories))
    else:
        yield b"stat", encode(StatWithHistories(*head, image.histories) if image.histories else Stat(*head))
    for board in image.boards:
        yield from board_payloads(board)
    yield from users_payloads(users)
    yield from actions_payloads(actions)
    yield from parts_payloads(image.parts)


def _version_of(image: StateImage) -> int:
    """Give the oldest version that can hold a state."""
    if image.parts:
        return VERSION_WITH_PARTS
    frozen = [board.frozen for board in image.boards if board.frozen is not None]
    if image.noted != (0, 0) or any(board.past_ranks != NOTHING for board in (*image.boards, *frozen)):
        return VERSION_WITH_PAST_RANKS
    if any(board.definition is not None for board in image.boards):
        return VERSION_WITH_DEFINITIONS
    return VERSION_WITH_HISTORIES if image.histories else VERSION


def board_payloads(board: BoardImage) -> Iterator[tuple[bytes, bytes]]:
    """Yield kind and payload of the chunks of one board."""
    fields = (board.board_id, board.seq, board.count)
    if board.past_ranks != NOTHING:
        yield b"bord", encode(BoardHeadWithPastRanks(*fields, board.definition, board.past_ranks))
    elif board.definition is not None:
        yield b"bord", encode(BoardHeadWithDefinition(*fields, board.definition))
    else:
        yield b"bord", encode(BoardHead(*fields))
    yield from _texts(b"bids", board.user_ids, board.count)
    for kind, column in ((b"bsco", board.scores), (b"brea", board.reached), (b"bupd", board.updated)):
        assert len(column) == board.count
        yield from _words(kind, column, board.count)
    if board.frozen is not None:
        yield from board_payloads(board.frozen)
        assert len(board.frozen.revealed) == board.frozen.count
        yield from _raw(b"brev", board.frozen.revealed, BYTES)


def users_payloads(users: UsersImage) -> Iterator[tuple[bytes, bytes]]:
    yield from _texts(b"uids", users.user_ids, users.count)
    yield from _texts(b"unam", users.names, users.count)
    yield from _raw(b"uact", users.active, BYTES)


def actions_payloads(actions: ActionsImage) -> Iterator[tuple[bytes, bytes]]:
    yield from _words(b"adig", actions.digests, 2 * actions.count)
    yield from _words(b"aseq", actions.seqs, actions.count)
    yield from _words(b"amrk", actions.marks, actions.count)


def parts_payloads(parts: Sequence[tuple[str, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    for _, data in parts:
        yield from _raw(b"part", data, BYTES)


def _texts(kind: bytes, texts: Sequence[str | None] | UserIds, count: int) -> Iterator[tuple[bytes, bytes]]:
    for start in range(0, count, TEXTS):
        yield kind, encode(texts[start : min(start + TEXTS, count)])


def _raw(kind: bytes, data: bytes, step: int) -> Iterator[tuple[bytes, bytes]]:
    for start in range(0, len(data), step):
        yield kind, data[start : start + step]


def _words(kind: bytes, column: array[int], count: int) -> Iterator[tuple[bytes, bytes]]:
    for start in range(0, count, WORDS):
        yield kind, column_bytes(column[start : min(start + WORDS, count)])


# Unpacking


def unpack(source: Source, path: str, holds: Callable[[str], bool] | None = None) -> tuple[StateImage, Tail]:
    """Read a whole snapshot and prove it. Raises `SnapshotDamaged`, which names `path` and the first damaged chunk.

    `holds`: everything is proved, but only the boards that it accepts are kept, and no actions.
    """
    reader = _Reader(source, path)
    stat = reader.decode(b"stat", STATS[reader.file.version])
    histories: list[tuple[int, bytes]] = getattr(stat, "histories", [])
    noted: tuple[int, int] = getattr(stat, "noted", (0, 0))
    lengths: list[tuple[str, int]] = getattr(stat, "parts", [])
    _check_parts(lengths, reader)
    boards = []
    for _ in range(stat.boards):
        board = _read_board(reader)
        if holds is None or holds(board.board_id):
            boards.append(board)
    users = UsersImage(
        count=stat.users,
        user_ids=[*chain.from_iterable(reader.texts(b"uids", IDS, stat.users))],
        names=[*chain.from_iterable(reader.texts(b"unam", NAMES, stat.users))],
        active=reader.raw(b"uact", stat.users, BYTES),
    )
    kept = stat.actions if holds is None else 0
    actions = ActionsImage(
        count=kept,
        digests=reader.words(b"adig", 2 * stat.actions, 2 * kept),
        seqs=reader.words(b"aseq", stat.actions, kept),
        marks=reader.words(b"amrk", stat.actions, kept),
    )
    parts = tuple((name, reader.raw(b"part", length, BYTES)) for name, length in lengths)
    if holds is not None:
        parts = tuple(part for part in parts if part[0] != ACTIONS)
    tail = reader.tail(reader.chunk(FOOT))
    if (tail.epoch, tail.seq) != (stat.epoch, stat.seq):
        raise reader.damaged("the footer is that of another state")
    image = StateImage(stat.epoch, stat.seq, stat.time_ms, stat.epochs, boards, users, actions, histories, noted, parts)
    return image, tail


def part_lengths(source: Source, path: str) -> tuple[ChunkFile, list[tuple[str, int]]]:
    """Read the names and lengths of the parts of a snapshot, and prove no more. Raises `SnapshotDamaged`."""
    reader = _Reader(source, path)
    lengths: list[tuple[str, int]] = getattr(reader.decode(b"stat", STATS[reader.file.version]), "parts", [])
    _check_parts(lengths, reader)
    return reader.file, lengths


def _check_parts(lengths: Sequence[tuple[str, int]], reader: _Reader) -> None:
    names = [name for name, _ in lengths]
    if names != sorted(set(names)) or not all(length for _, length in lengths):
        raise reader.damaged("parts that are out of order, doubled or empty")
    if unknown := set(names).difference(PARTS):
        raise reader.damaged(f"a newer version wrote this snapshot: unknown parts {', '.join(sorted(unknown))}")


def _read_board(reader: _Reader, *, is_public: bool = False) -> BoardImage:
    definition, past_ranks = None, NOTHING
    head: BoardHead
    if reader.file.version >= VERSION_WITH_PAST_RANKS:
        head = with_past_ranks = reader.decode(b"bord", BOARD_WITH_PAST_RANKS)
        definition, past_ranks = with_past_ranks.definition, with_past_ranks.past_ranks
    elif reader.file.version == VERSION_WITH_DEFINITIONS:
        head = defined = reader.decode(b"bord", BOARD_WITH_DEFINITION)
        definition = defined.definition
    else:
        head = reader.decode(b"bord", BOARD)
    user_ids = UserIds()
    for part in reader.texts(b"bids", IDS, head.count):
        user_ids.extend(part)
    image = BoardImage(
        board_id=head.board_id,
        seq=head.seq,
        count=head.count,
        user_ids=user_ids,
        scores=reader.words(b"bsco", head.count, head.count),
        reached=reader.words(b"brea", head.count, head.count),
        updated=reader.words(b"bupd", head.count, head.count),
        definition=definition,
        past_ranks=past_ranks,
    )
    if is_public or definition is None or definition.frozen is None:
        return image
    public = _read_board(reader, is_public=True)
    public = replace(public, revealed=reader.raw(b"brev", public.count, BYTES))
    return replace(image, frozen=public)


def verify(source: Source, path: str) -> Tail:
    """Prove every byte of a snapshot without building the state; give its tail."""
    reader = _Reader(source, path)
    while True:
        chunk = reader.next()
        if chunk.kind == FOOT:
            return reader.tail(chunk.payload)


class _Reader(ChunkSequence):
    """Reads the chunks of one snapshot in order, and what they hold."""

    def __init__(self, source: Source, path: str) -> None:
        super().__init__(ChunkFile(source, path, MAGIC, VERSIONS, "snapshot"))

    def texts(self, kind: bytes, decoder: msgspec.msgpack.Decoder[list[T]], count: int) -> Iterator[list[T]]:
        """Yield the lists of `count` texts. Only one is in memory at a time."""
        for start in range(0, count, TEXTS):
            part = self.decode(kind, decoder)
            if len(part) != min(TEXTS, count - start):
                raise self.damaged(f"{len(part)} texts in a chunk {kind!r} instead of {min(TEXTS, count - start)}")
            yield part

    def raw(self, kind: bytes, length: int, step: int) -> bytes:
        """Read `length` bytes, in chunks of `step`."""
        return b"".join(self.chunk(kind, min(step, length - start)) for start in range(0, length, step))

    def words(self, kind: bytes, count: int, kept: int) -> array[int]:
        """Read a column of `count` words. Keep all of them, or none if `kept` is 0."""
        column = array("Q")
        for start in range(0, count, WORDS):
            payload = self.chunk(kind, 8 * min(WORDS, count - start))
            if kept:
                column += column_of(payload)
        return column

    def tail(self, footer: bytes) -> Tail:
        """Decode the footer, which must end the file, and compare the digest."""
        if len(footer) != FOOTER.size:
            raise self.damaged(f"a footer of {len(footer)} bytes instead of {FOOTER.size}")
        digest, log_id, epoch, seq, checksum, zero = FOOTER.unpack(footer)
        if zero:
            raise self.damaged("the footer's reserved bytes are not zero")
        self.prove_whole(digest)
        return Tail(log_id=log_id, epoch=epoch, seq=seq, checksum=checksum)
