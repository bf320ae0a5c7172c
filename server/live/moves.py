"""Who moved on a board since a moment, and who of them passed a user. Pure.

    moves = Moves(len(board)); board.watch(moves)
    place = Place(moves.moment(), len(board), key)              # where a user stands now
    slots, more = Passers(board, moves).of(place, key_now, 10)  # later: who passed this user since, the nearest first

Theory. Somebody passed a user if he was behind at the place's moment and is ahead now. The board keeps no old keys. So
it tells `Moves` each key just before it changes, and `Moves` keeps the first key of each slot after each moment. To
look at the rows ahead of a user would not do: a user may jump past a thousand rows, and thousands ahead may have moved
without passing anybody. So `Passers` sorts only those who moved, by their keys of now:

    ahead  ◄──  now:  k1  k2  k3 │ k4  k5  k6 │ k7  k8        in blocks; k5: the user's key of now
                     └─ worst ─┘   └─ worst ─┘                of each block: the worst key that one of it had before

A search goes from the user's key towards the first rank. It skips a block whose worst key before was ahead of the
user's place: nobody in it passed. It ends where that holds for all further blocks together.

Worked example: a user has 50 points. Others went from 40 to 60, from 70 to 80 and from 10 to 90. The nearest of these
now has 60, and had 40, which is behind 50: passed. The next had 70: did not pass. The last had 10: passed.

Rules:
- Keys are those of `engine.board`. A lower key is ahead, and a user's key only ever gets lower.
- Who had no points at the moment was behind everybody. Who was hidden at the moment and came back passed nobody.
- At most `changes_max` keys are kept. Once there are more, `of` says that there may be others. Those that it names
  passed all the same: a key from after the moment is never behind the one at the moment.

Invariants:
- `_kept[slot]` has (moment, key) with rising moments: the slot's key from that moment to its first change after it.
- `_count` is the number of these keys. All changes since `_certain_from` are kept, unless `_full`.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate

import msgspec

from engine.board import Board
from server import bounds

BLOCK_SLOTS = 64
"""A search looks at some 30,000 users in 500 steps of blocks, and at those of a few blocks one by one."""

BEHIND_ALL = 1 << 256
"""Stands for the key of a user without points: behind every real one."""


class Place(msgspec.Struct, frozen=True, gc=False):
    """Where a ranked user stood at a moment. `slots` is the number of users who had points then."""

    moment: int
    slots: int
    key: int


class Moves:
    """The keys that users had before they moved. `slots` have points at the oldest moment that is of interest."""

    __slots__ = ("_certain_from", "_changed", "_changes_max", "_count", "_full", "_kept", "_moment", "slots")

    def __init__(self, slots: int, changes_max: int = bounds.MOVES_MAX) -> None:
        self.slots = slots
        self._changes_max = changes_max
        self._kept: dict[int, list[tuple[int, int | None]]] = {}
        self._count = 0
        self._moment = 0
        self._changed = False
        self._full = False
        self._certain_from = 0

    def note(self, slot: int, key: int | None) -> None:
        """Take a key that is about to change. See `Watcher`."""
        self._changed = True
        kept = self._kept.get(slot)
        if kept is not None and kept[-1][0] == self._moment:
            return
        if self._count >= self._changes_max:
            self._full = True
            return
        self._count += 1
        if kept is None:
            self._kept[slot] = [(self._moment, key)]
        else:
            kept.append((self._moment, key))

    def moment(self) -> int:
        """Give the number of the moment of now. It is that of the last one if nobody moved since."""
        if self._changed:
            self._changed = False
            self._moment += 1
        return self._moment

    def is_certain(self, moment: int) -> bool:
        """Whether all changes since a moment are kept."""
        return not self._full and moment >= self._certain_from

    def key_at(self, slot: int, moment: int) -> int | None:
        """Give the key at a moment of a slot that changed since. None: it did not change, or was not in the order."""
        return next((key for since, key in self._kept.get(slot, ()) if since >= moment), None)

    def moved(self) -> list[tuple[int, int]]:
        """List the slots that moved since the oldest moment, each with the worst key that it had."""
        worst = ((slot, next((key for _, key in kept if key is not None), None)) for slot, kept in self._kept.items())
        return [(slot, key) for slot, key in worst if key is not None]

    def forget(self, moment: int, slots: int) -> None:
        """Drop what nobody asks for who knows the places since `moment`, when `slots` had points.

        Half of the room must be free then, or all is dropped. So places that are old take no room from the new ones.
        """
        self.slots = slots
        if moment == self._moment and not self._changed:
            self._drop_all()
            return
        if not self._full:
            kept = {slot: [one for one in some if one[0] >= moment] for slot, some in self._kept.items()}
            self._kept = {slot: some for slot, some in kept.items() if some}
            self._count = sum(map(len, self._kept.values()))
        if self._full or self._count > self._changes_max // 2:
            self._certain_from = self.moment()
            self._drop_all()

    def _drop_all(self) -> None:
        self._kept = {}
        self._count = 0
        self._full = False

    def _check(self) -> None:
        assert self._count == sum(map(len, self._kept.values())) <= self._changes_max
        for kept in self._kept.values():
            moments = [moment for moment, _ in kept]
            assert moments == sorted(set(moments))
            assert moments[-1] <= self._moment


class Passers:
    """Those who moved on a board, sorted for searches. It holds as long as the board does not change."""

    __slots__ = ("_before", "_first_new", "_moves", "_now", "_slots", "_worst", "_worst_ahead", "seq")

    def __init__(self, board: Board, moves: Moves) -> None:
        self.seq = board.seq
        self._moves = moves
        # A first import may bring a million new users between two looks.
        self._first_new = max(moves.slots, len(board) - bounds.MOVES_MAX)
        moved = [(slot, key) for slot, key in moves.moved() if slot < self._first_new]
        moved += [(slot, BEHIND_ALL) for slot in range(self._first_new, len(board))]
        rows = sorted((key, before, slot) for slot, before in moved if (key := board.key(slot)) is not None)
        self._now = [key for key, _, _ in rows]
        self._before = [before for _, before, _ in rows]
        self._slots = [slot for _, _, slot in rows]
        starts = range(0, len(rows), BLOCK_SLOTS)
        self._worst = [max(self._before[start : start + BLOCK_SLOTS]) for start in starts]
        self._worst_ahead = list(accumulate(self._worst, max))

    def of(self, place: Place, key: int, count: int) -> tuple[list[int], bool]:
        """Give the slots of up to `count` who passed a user, the nearest first, and whether there may be more.

        `key` is the user's of now.
        """
        found: list[int] = []
        stop = bisect_left(self._now, key)
        for block in range((stop - 1) // BLOCK_SLOTS, -1, -1):
            if self._worst_ahead[block] <= place.key:
                break
            if self._worst[block] <= place.key:
                continue
            start = block * BLOCK_SLOTS
            for index in range(min(stop, start + BLOCK_SLOTS) - 1, start - 1, -1):
                if self._before[index] > place.key and self._was_behind(self._slots[index], place):
                    if len(found) == count:
                        return found, True
                    found.append(self._slots[index])
        return found, not self._moves.is_certain(place.moment) or place.slots < self._first_new

    def _was_behind(self, slot: int, place: Place) -> bool:
        if slot >= place.slots:
            return True
        key = self._moves.key_at(slot, place.moment)
        return key is not None and key > place.key
