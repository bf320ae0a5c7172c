"""An exact copy of the state at one seq: what a snapshot holds, and all that a scoreboard needs to go on from there.

Taking it must not stop the world: it copies only what changes in place (24 bytes a user) and shares what only grows.

- `user_ids` of a board or of the users, and the arrays of the actions, are append-only. The image shares them and says
  how many entries belong to it (`count`). They may be longer already, and grow while somebody reads them, from another
  thread too: read `[a:b]` slices within `count`, never a memoryview (it would forbid the array to grow).
- `scores`, `reached`, `updated`, `names` and `active` are copies.

Columns are unsigned 64-bit integers, little endian, one for each slot: slot i belongs to `user_ids[i]`.
"""

from __future__ import annotations

import sys
from array import array

import msgspec


class BoardImage(msgspec.Struct, frozen=True):
    """One board. `reached` is the seq at which a user came to this score; `updated` the time of that, in ms."""

    board_id: str
    seq: int
    count: int
    user_ids: list[str]
    scores: bytes
    reached: bytes
    updated: bytes


class UsersImage(msgspec.Struct, frozen=True):
    """The registered users. `active` has one byte for each, 1 or 0."""

    count: int
    user_ids: list[str]
    names: list[str | None]
    active: bytes


class ActionsImage(msgspec.Struct, frozen=True):
    """Every applied action in the order of its seq. `digests` has two integers an action, `seqs` and `marks` one."""

    count: int
    digests: array[int]
    seqs: array[int]
    marks: array[int]


class StateImage(msgspec.Struct, frozen=True):
    """The whole state after the event `seq` of `epoch`. `epochs` lists (first seq, epoch); `boards` is sorted by id."""

    epoch: int
    seq: int
    time_ms: int
    epochs: list[tuple[int, int]]
    boards: list[BoardImage]
    users: UsersImage
    actions: ActionsImage


def column_bytes(column: array[int]) -> bytes:
    """Give a column's bytes, little endian on every machine."""
    if sys.byteorder == "little":
        return column.tobytes()
    swapped = column[:]
    swapped.byteswap()
    return swapped.tobytes()


def column_of(data: bytes) -> array[int]:
    """Make a column of unsigned 64-bit integers from its little-endian bytes."""
    column = array("Q")
    column.frombytes(data)
    if sys.byteorder != "little":
        column.byteswap()
    return column
