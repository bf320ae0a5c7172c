"""An image: an exact copy of the state at one seq. A snapshot holds it, and a scoreboard can go on from it.

    image = scoreboard.capture()                        a few ms for a million users
    scoreboard = Scoreboard.from_image(rules, image)

The writer waits while an image is taken. So an image copies only what changes in place (24 bytes a user), and shares
what only grows:

- The `user_ids` and the arrays of the actions are append-only and shared. `count` says how many entries belong to the
  image. The lists may be longer, and may grow while another thread reads them. So read slices `[a:b]` within `count`.
  Never make a memoryview: the array could not grow while it exists.
- `scores`, `reached`, `updated`, `names` and `active` are copies.

A scoreboard that is made of an image shares nothing with it. The exception is an image that was read from a file: it is
nobody else's (`owned`), so the scoreboard takes its lists and columns, and the image is not used any more. A copy of
10,000,000 users would take half a gigabyte for a moment.

A column has one unsigned 64-bit integer for each slot. Slot i belongs to `user_ids[i]`.
"""

from __future__ import annotations

import sys
from array import array

import msgspec

from engine.board_rules import BoardDefinition
from engine.past_ranks import NOTHING, PastRanks
from engine.user_ids import UserIds

ACTIONS = "actions"
"""The name of the part that lists the files of older actions (`engine.sealed_actions`)."""

PARTS = (ACTIONS, "erasures", "flags", "imports", "reversals", "reviews")
"""The names of parts that this version knows."""


class BoardImage(msgspec.Struct, frozen=True):
    """One board. `reached` is the seq of the event that made a user's score; `updated` is its time in ms.

    `definition` is None if no event of the log made the board: an older version wrote it. `frozen` is what the public
    sees of a frozen board. `revealed` has one byte for each user of such an image: 1 if the row was revealed.
    `past_ranks` are those of earlier moments, with which the ranks of now are compared.
    """

    board_id: str
    seq: int
    count: int
    user_ids: UserIds
    scores: array[int]
    reached: array[int]
    updated: array[int]
    definition: BoardDefinition | None = None
    frozen: BoardImage | None = None
    revealed: bytes = b""
    past_ranks: PastRanks = NOTHING


class UsersImage(msgspec.Struct, frozen=True):
    """The registered users. `active` has one byte for each user, 1 or 0."""

    count: int
    user_ids: list[str]
    names: list[str | None]
    active: bytes


class ActionsImage(msgspec.Struct, frozen=True):
    """The applied actions that are in memory, in the order of their seqs.

    There are two integers each in `digests`, one in `seqs` and `marks`. Those before them are sealed.
    """

    count: int
    digests: array[int]
    seqs: array[int]
    marks: array[int]


class StateImage(msgspec.Struct, frozen=True):
    """The whole state after the event `seq`. `epochs` lists (first seq, epoch); `boards` are sorted by id.

    `histories` lists (epoch, identity) of the epochs whose event has an identity (`engine.history`). `noted` has seq
    and time of the last event that noted the ranks, zeros if none did. `parts` has what most states lack: name and
    bytes of each part that is not empty, sorted by name. Who owns a part draws its bytes; equal states have equal ones.
    """

    epoch: int
    seq: int
    time_ms: int
    epochs: list[tuple[int, int]]
    boards: list[BoardImage]
    users: UsersImage
    actions: ActionsImage
    histories: list[tuple[int, bytes]] = []
    noted: tuple[int, int] = (0, 0)
    parts: tuple[tuple[str, bytes], ...] = ()


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
