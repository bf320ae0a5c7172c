"""The golden snapshots, read as another program would: struct for heads and columns, the `msgpack` package for texts.

Nothing here unpacks with our own code; it only compares. The offsets and the order of the chunks are those of the
drawing in `snapshots/format.py`.
"""

from __future__ import annotations

import struct
from hashlib import blake2b
from pathlib import Path
from typing import Any

import google_crc32c
import msgpack
import msgspec
import pytest

from engine.image import ActionsImage, BoardImage, StateImage, UsersImage
from snapshots.format import unpack
from tests.snapshots.images import Bytes

GOLDEN = Path(__file__).with_name("golden")
FILES = (
    "version-1.snapshot",
    "version-1-empty.snapshot",
    "version-2.snapshot",
    "version-3.snapshot",
    "version-3-plain.snapshot",
    "version-4.snapshot",
    "version-5.snapshot",
)
HEADER = struct.Struct("<8s I I")
CHUNK = struct.Struct("<4s I I I")
FOOTER = struct.Struct("<32s 16s Q Q I I")


class Chunks:
    """The chunks of a file from the front to the footer."""

    def __init__(self, data: bytes) -> None:
        magic, version, checksum = HEADER.unpack_from(data)
        assert magic == b"scoresnp"
        assert version in {1, 2, 3, 4, 5}
        assert checksum == google_crc32c.value(data[:12])
        self._data = data
        self._ordinal = 0
        self.offset = HEADER.size
        self.within_public = False

    def take(self, kind: str) -> bytes:
        """Take the payload of the next chunk, which is of this kind, after proving its checksum and its ordinal."""
        found, ordinal, length, checksum = CHUNK.unpack_from(self._data, self.offset)
        head = self._data[self.offset : self.offset + 12]
        payload = self._data[self.offset + CHUNK.size : self.offset + CHUNK.size + length]
        assert (found, ordinal) == (kind.encode(), self._ordinal + 1)
        assert checksum == google_crc32c.value(head + payload)
        self._ordinal = ordinal
        self.offset += CHUNK.size + length
        return payload

    def value(self, kind: str) -> Any:
        """Take a chunk of msgpack."""
        return msgpack.unpackb(self.take(kind))

    def texts(self, kind: str, count: int) -> list[Any]:
        """Take `count` texts, which fit into one chunk here; without any there is no chunk."""
        return list(self.value(kind)) if count else []

    def words(self, kind: str, count: int) -> list[int]:
        """Take a column of `count` words of 64 bits, which fit into one chunk here."""
        return list(struct.unpack(f"<{count}Q", self.take(kind))) if count else []

    def flags(self, kind: str, count: int) -> list[bool]:
        """Take one byte for each of `count` users."""
        return [byte == 1 for byte in self.take(kind)] if count else []


def read(data: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a file as its drawing says: the state, and what the footer says."""
    chunks = Chunks(data)
    epoch, seq, time_ms, epochs, boards, users, actions, *more = chunks.value("stat")
    state: dict[str, Any] = {"epoch": epoch, "seq": seq, "time_ms": time_ms, "epochs": epochs}
    state["histories"] = more[0] if more else []
    state["noted"] = more[1] if len(more) > 1 else [0, 0]
    state["boards"] = [read_board(chunks) for _ in range(boards)]
    state["users"] = [chunks.texts("uids", users), chunks.texts("unam", users), chunks.flags("uact", users)]
    state["actions"] = [chunks.words("adig", 2 * actions), chunks.words("aseq", actions), chunks.words("amrk", actions)]
    state["parts"] = [[name, chunks.take("part")] for name, _ in (more[2] if len(more) > 2 else [])]
    covered = data[: chunks.offset]
    digest, log_id, tail_epoch, tail_seq, checksum, zero = FOOTER.unpack(chunks.take("foot"))
    assert digest == blake2b(covered, digest_size=32).digest()
    assert zero == 0
    assert chunks.offset == len(data)
    return state, {"log_id": log_id, "epoch": tail_epoch, "seq": tail_seq, "checksum": checksum}


def read_board(chunks: Chunks) -> list[Any]:
    """Read a board, and what the public sees of it if it is frozen: that comes once more, with flags at the end."""
    board_id, seq, count, *more = chunks.value("bord")
    ids = chunks.texts("bids", count)
    board = [board_id, seq, ids, *(chunks.words(kind, count) for kind in ("bsco", "brea", "bupd"))]
    definition = more[0] if more else None
    notes, has_day, start = more[1] if len(more) > 1 else ([], False, None)
    past = [[[ms, halves_of(slots), halves_of(ranks)] for ms, slots, ranks in notes], has_day]
    past.append(None if start is None else [msgpack.unpackb(start[0]), halves_of(start[1])])
    public = None
    if definition is not None and "frozen" in definition and not chunks.within_public:
        chunks.within_public = True
        public = read_board(chunks)
        public.append(chunks.flags("brev", len(public[2])))
        chunks.within_public = False
    return [*board, definition, past, public]


def halves_of(data: bytes) -> list[int]:
    """The words of 32 bits of a note."""
    return list(struct.unpack(f"<{len(data) // 4}I", data))


def drawn_board(board: BoardImage) -> list[Any]:
    """Write a board that our code read as `read` has it."""
    columns = [list(column) for column in (board.scores, board.reached, board.updated)]
    definition = None if board.definition is None else msgspec.json.decode(msgspec.json.encode(board.definition))
    ranks = board.past_ranks
    past: list[Any] = [[[note.as_of_ms, halves_of(note.slots), halves_of(note.ranks)] for note in ranks.notes]]
    past += [ranks.has_day, None]
    if ranks.start is not None:
        past[2] = [msgspec.msgpack.decode(ranks.start.users), halves_of(ranks.start.ranks)]
    public = None
    if board.frozen is not None:
        public = [*drawn_board(board.frozen), [byte == 1 for byte in board.frozen.revealed]]
    return [board.board_id, board.seq, list(board.user_ids), *columns, definition, past, public]


def drawn_users(users: UsersImage) -> list[Any]:
    """Write the users that our code read as `read` has them."""
    return [users.user_ids, users.names, [byte == 1 for byte in users.active]]


def drawn_actions(actions: ActionsImage) -> list[Any]:
    """Write the actions that our code read as `read` has them."""
    return [list(actions.digests), list(actions.seqs), list(actions.marks)]


def drawn(image: StateImage) -> dict[str, Any]:
    """Write a state that our code read as `read` has it."""
    return {
        "epoch": image.epoch,
        "seq": image.seq,
        "time_ms": image.time_ms,
        "epochs": [list(pair) for pair in image.epochs],
        "histories": [list(pair) for pair in image.histories],
        "noted": list(image.noted),
        "boards": [drawn_board(board) for board in image.boards],
        "users": drawn_users(image.users),
        "actions": drawn_actions(image.actions),
        "parts": [list(part) for part in image.parts],
    }


@pytest.mark.parametrize("name", FILES)
def test_a_foreign_reader_finds_the_same_state(name: str) -> None:
    """The state, and the place in the log where it stands; every checksum and the digest are right."""
    data = (GOLDEN / name).read_bytes()
    image, tail = unpack(Bytes(data), name)
    state, place = read(data)
    assert state == drawn(image)
    assert place == {"log_id": tail.log_id, "epoch": tail.epoch, "seq": tail.seq, "checksum": tail.checksum}


def test_the_golden_snapshot_has_something_of_everything() -> None:
    """Otherwise the comparison above would prove less than it says."""
    state, _ = read((GOLDEN / FILES[0]).read_bytes())
    user_ids, names, active = state["users"]
    assert len(state["epochs"]) > 1
    assert len(state["boards"]) > 1
    assert None in names
    assert set(active) == {True, False}
    assert any(not user_id.isascii() for user_id in user_ids + state["boards"][0][2])
    assert all(state["actions"])
