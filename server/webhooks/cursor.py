"""The cursor of a hook: up to where the log was delivered, and what was begun and is not acknowledged. Pure.

    data = pack(cursor); cursor = unpack(data)          raises `CursorDamaged`
    cursor.takes(due)                                   whether a due delivery comes after the cursor

    log   ───── acknowledged ─────┤(seq, place)  not yet …
    boards      marks: what was last told of each      pending: told to be told, and not acknowledged

Invariants:
- Each delivery of the log up to (seq, place) is acknowledged, was of no concern to the hook, or is in `held`.
- `held` are deliveries about frozen boards, in the order of the log, which wait for the end of the freeze.
- `pending` are deliveries about the first rows of boards. They are on disk before they are sent the first time, so a
  repeat after a crash has the same id. A board has at most one of each kind, and its mark already tells of them.
- No user stands in a cursor, only digests of ids with a key of its own: it is no place where an erasure must look.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Literal

import msgspec

VERSION = 1
KEY_BYTES = 16
PLACE_AFTER_ALL = 99
"""Comes after each place of a review, of which an event has at most one for each board that it scores on."""


class CursorDamaged(Exception):
    """A cursor's file is none, or is of a newer version."""


class Mark(msgspec.Struct, frozen=True, array_like=True):
    """What was last told of a board: a digest of its rows, and those of the users in order.

    `period_seq` is the event that ended the period before, 0 without one.
    """

    period_seq: int
    rows: str
    order: tuple[str, ...]


class TopPending(msgspec.Struct, frozen=True, array_like=True, tag="top"):
    """The first rows changed, and looked as `rows` says when it was last begun to tell it."""

    board_id: str
    epoch: int
    seq: int
    time_ms: int
    rows: str


class Passed(msgspec.Struct, frozen=True, array_like=True):
    """A user came past others: `who` and `whom` are digests, the rest is as it was then."""

    who: str
    rank: int
    score: int
    whom: tuple[str, ...]


class OvertakenPending(msgspec.Struct, frozen=True, array_like=True, tag="overtaken"):
    """Users overtook others among the first rows."""

    board_id: str
    epoch: int
    seq: int
    time_ms: int
    passed: tuple[Passed, ...]


Pending = TopPending | OvertakenPending


class Due(msgspec.Struct, frozen=True, array_like=True, order=True):
    """A delivery that the log calls for. `place` orders those of one event: the place of a review, else 0."""

    seq: int
    place: int
    kind: str
    board_id: str = ""


class Cursor(msgspec.Struct):
    """See above. `log_id` is that of the log in hex, `epoch` the one in which the cursor was last moved.

    `failing_ms` is since when there were only failures, 0 if the last attempt was none. `disabled` says why the hook is
    disabled, and is empty if it is not.
    """

    version: Literal[1]
    log_id: str
    key: str
    epoch: int
    seq: int
    place: int = PLACE_AFTER_ALL
    marks: dict[str, Mark] = {}
    pending: list[Pending] = []
    held: list[Due] = []
    failing_ms: int = 0
    disabled: str = ""

    def takes(self, due: Due) -> bool:
        """Whether a delivery comes after the cursor."""
        return (due.seq, due.place) > (self.seq, self.place)

    def digest(self, user_id: str) -> str:
        """Give what stands for a user."""
        return hashlib.blake2b(user_id.encode(), key=bytes.fromhex(self.key), digest_size=8).hexdigest()

    def digests(self, user_ids: Iterable[str]) -> tuple[str, ...]:
        """Give what stands for users, in their order."""
        return tuple(map(self.digest, user_ids))

    def delivered(self, due: Due) -> None:
        """Move past a delivery."""
        assert self.takes(due)
        self.seq, self.place = due.seq, due.place

    def reached(self, seq: int) -> None:
        """Move to the end of an event: nothing up to there is due."""
        if seq >= self.seq:
            self.seq, self.place = seq, PLACE_AFTER_ALL

    @property
    def first_seq(self) -> int:
        """The event from which on something may still be due."""
        waiting = [each.seq for each in self.pending] + [each.seq for each in self.held]
        return min([*waiting, self.seq + 1])


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Cursor).decode


def pack(cursor: Cursor) -> bytes:
    """Give the content of a cursor's file."""
    return _encode(cursor)


def unpack(data: bytes) -> Cursor:
    """Read a cursor's file. Raises `CursorDamaged`."""
    try:
        cursor = _decode(data)
        if len(bytes.fromhex(cursor.key)) != KEY_BYTES:
            raise CursorDamaged("its key is none")
    except (msgspec.DecodeError, ValueError) as error:
        raise CursorDamaged(str(error)) from error
    return cursor


def settled(cursor: Cursor, log_id: str, epochs: Iterable[tuple[int, int]], seq: int) -> Cursor | None:
    """Give a cursor as it counts for a leader of this log, None if it does not count.

    `epochs` lists (first seq, epoch), `seq` is the end of the log. A cursor of this epoch counts, and one of the epoch
    before: that of the leader whose place this node took, or its own before it was promoted. What that leader wrote
    after the end of its epoch is not in this log. An older cursor is of an earlier time as a leader, since when others
    have delivered.
    """
    known = list(epochs)
    current_seq, current = known[-1]
    before = known[-2][1] if len(known) > 1 else current
    if cursor.log_id != log_id or cursor.epoch not in (before, current):
        return None
    last = seq if cursor.epoch == current else current_seq - 1
    if cursor.seq > last:
        if cursor.epoch == current:
            return None  # of a log that was longer than this one ever was
        cursor.seq, cursor.place = last, PLACE_AFTER_ALL
    cursor.held = [each for each in cursor.held if each.seq <= last]
    for each in [each for each in cursor.pending if each.seq > last]:
        cursor.pending.remove(each)
        mark = cursor.marks.get(each.board_id)
        if mark is not None and isinstance(each, TopPending):
            cursor.marks[each.board_id] = msgspec.structs.replace(mark, rows="")  # it was not acknowledged
    cursor.epoch = current
    return cursor
