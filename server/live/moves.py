"""Who moved on a board since a moment, and who of them passed a user. Pure.

    moves = Moves(len(board)); board.watch(moves)
    place = Place(moves.moment(), len(board), key)              # where a user stands now
    passers = Passers(board, moves)                             # later; after each change of the board: passers.renew()
    slots, more = passers.of(place, key_now, 10)                # who passed this user since, the nearest first

Theory. Who was behind a user at the place's moment and is ahead now has passed. The board keeps no old keys. So
it tells `Moves` each key just before it changes, and `Moves` keeps the first key of each slot after each moment. To
look at the rows ahead of a user would not do: a user may jump past a thousand rows, and thousands ahead may have moved
without passing anybody. So `Passers` sorts only those who moved, by their keys of now:

    ahead  ◄──  now:  k1  k2  k3 │ k4  k5  k6 │ k7  k8        in blocks; k5: the user's key of now
                     └─ worst ─┘   └─ worst ─┘                of each block: the worst key that one of it had before

A search goes from the user's key towards the first rank. It skips a block whose worst key before was ahead of the
user's place: nobody in it passed. It ends where that holds for all further blocks together.

A tick looks at its lines in slices, and the board changes between two. To sort some 10,000 anew for each slice would
cost more than the looks. So those who moved after the sorting are in a second, short table, and count only there.

Worked example: a user has 50 points. Others went from 40 to 60, from 70 to 80 and from 10 to 90. The nearest of these
now has 60, and had 40, which is behind 50: passed. The next had 70: did not pass. The last had 10: passed.

Rules:
- Keys are those of `engine.ranking`. A lower key is ahead. Where scores never fall, a user's key only gets lower.
- Who had no points at the moment was behind everybody. Who was hidden at the moment and came back passed nobody.
- At most `changes_max` keys are kept. Once there are more, `of` says that there may be others. Where scores never fall,
  those that it names passed all the same: a key from after the moment is not behind the one at the moment.

Invariants:
- `_kept[slot]` has (moment, key) with rising moments: the slot's key from that moment to its first change after it.
- `_count` is the number of these keys. All changes since `_certain_from` are kept, unless `full`.
- `recent` are the slots that changed since `follow`; None: nobody follows, or there are too many.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from heapq import merge
from itertools import accumulate

import msgspec

from engine.keys import SLOT_MASK
from engine.ranking import Ranking
from server import bounds

BLOCK_SLOTS = 64
"""A search of MOVES_MAX users takes at most 256 steps of blocks, and looks at those of a few blocks one by one."""

RECENT_MAX = 256
RECENT_SHARE = 8
"""Recent moves, or the share of all, beyond which all are sorted anew: some 0.5 ms for the second table."""

BEHIND_ALL = 1 << 256
"""Stands for the key of a user without points: behind every real one."""


class Place(msgspec.Struct, frozen=True, gc=False):
    """Where a ranked user stood at a moment. `slots` is the number of users who had points then."""

    moment: int
    slots: int
    key: int


class Moves:
    """The keys that users had before they moved. `slots` have points at the oldest moment that is of interest."""

    __slots__ = (
        "_certain_from",
        "_changed",
        "_changes_max",
        "_count",
        "_kept",
        "_moment",
        "ended",
        "full",
        "recent",
        "slots",
    )

    def __init__(self, slots: int, changes_max: int = bounds.MOVES_MAX) -> None:
        self.slots = slots
        self._changes_max = changes_max
        self._kept: dict[int, list[tuple[int, int | None]]] = {}
        self._count = 0
        self._moment = 0
        self._changed = False
        self._certain_from = 0
        self.ended = False
        self.full = False
        self.recent: set[int] | None = None

    def note(self, slot: int, key: int | None) -> None:
        """Take a key that is about to change. See `Watcher`."""
        self._changed = True
        kept = self._kept.get(slot)
        if kept is not None and kept[-1][0] == self._moment:
            return
        if self.recent is not None:
            self.recent.add(slot)
            if len(self.recent) > self._changes_max:
                self.recent = None
        if self._count >= self._changes_max:
            self.full = True
            return
        self._count += 1
        if kept is None:
            self._kept[slot] = [(self._moment, key)]
        else:
            kept.append((self._moment, key))

    def end(self) -> None:
        """Note that all keys are void: nobody is compared with a place of before. See `Watcher`."""
        self.ended = True

    def moment(self) -> int:
        """Give the number of the moment of now. It is that of the last one if nobody moved since."""
        if self._changed:
            self._changed = False
            self._moment += 1
        return self._moment

    def is_certain(self, moment: int) -> bool:
        """Whether all changes since a moment are kept."""
        return not self.full and moment >= self._certain_from

    def key_at(self, slot: int, moment: int) -> int | None:
        """Give the key at a moment of a slot that changed since. None: it did not change, or was not in the order."""
        return next((key for since, key in self._kept.get(slot, ()) if since >= moment), None)

    def follow(self) -> None:
        """Begin to collect recent changes anew."""
        self.moment()  # a slot that changed in this moment already would not be noted again
        self.recent = set()

    def moved(self, slots: Iterable[int] | None = None) -> dict[int, int]:
        """Give the slots that moved since the oldest moment, each with the worst key that it had. None: all slots."""
        chosen = self._kept.items() if slots is None else self._kept_of(slots)
        worst = {slot: kept[0][1] for slot, kept in chosen}
        hidden = [slot for slot, key in worst.items() if key is None]
        for slot in hidden:  # rare: the user came back, and may have moved since
            worst[slot] = next((key for _, key in self._kept[slot] if key is not None), None)
        return {slot: key for slot, key in worst.items() if key is not None}

    def _kept_of(self, slots: Iterable[int]) -> Iterator[tuple[int, list[tuple[int, int | None]]]]:
        return ((slot, kept) for slot in slots if (kept := self._kept.get(slot)) is not None)

    def forget(self, moment: int, slots: int) -> None:
        """Drop what nobody asks for who knows the places since `moment`, when `slots` had points.

        Half of the room must be free then, or all is dropped. So places that are old take no room from the new ones.
        """
        self.slots = slots
        self.recent = None
        if moment == self._moment and not self._changed:
            self._drop_all()
            return
        if not self.full:
            kept = {slot: [one for one in some if one[0] >= moment] for slot, some in self._kept.items()}
            self._kept = {slot: some for slot, some in kept.items() if some}
            self._count = sum(map(len, self._kept.values()))
        if self.full or self._count > self._changes_max // 2:
            self._certain_from = self.moment()
            self._drop_all()

    def _drop_all(self) -> None:
        self._kept = {}
        self._count = 0
        self.full = False

    def _check(self) -> None:
        assert self._count == sum(map(len, self._kept.values())) <= self._changes_max
        for kept in self._kept.values():
            moments = [moment for moment, _ in kept]
            assert moments == sorted(set(moments))
            assert moments[-1] <= self._moment


class _Sorted:
    """Those who moved, sorted by their keys of now. `before` has the slots, each with the worst key that it had."""

    __slots__ = ("_before", "_now", "_worst", "_worst_ahead")

    def __init__(self, board: Ranking, before: dict[int, int]) -> None:
        self._now = sorted(board.keys_of(before))
        self._before = [before[key & SLOT_MASK] for key in self._now]
        starts = range(0, len(self._now), BLOCK_SLOTS)
        self._worst = [max(self._before[start : start + BLOCK_SLOTS]) for start in starts]
        self._worst_ahead = list(accumulate(self._worst, max))

    def __len__(self) -> int:
        return len(self._now)

    def search(self, place: Place, key: int) -> Iterator[int]:
        """Give the keys of now of those who may have passed a user, the nearest first."""
        stop = bisect_left(self._now, key)
        for block in range((stop - 1) // BLOCK_SLOTS, -1, -1):
            if self._worst_ahead[block] <= place.key:
                break
            if self._worst[block] <= place.key:
                continue
            start = block * BLOCK_SLOTS
            for index in range(min(stop, start + BLOCK_SLOTS) - 1, start - 1, -1):
                if self._before[index] > place.key:
                    yield self._now[index]


class Passers:
    """Those who moved on a board, for searches."""

    __slots__ = ("_board", "_first_new", "_main", "_main_users", "_moves", "_recent", "_seq")

    def __init__(self, board: Ranking, moves: Moves) -> None:
        self._board = board
        self._moves = moves
        self._sort()

    def _sort(self) -> None:
        board, moves = self._board, self._moves
        # A first import may bring a million new users between two looks.
        self._first_new = max(moves.slots, len(board) - bounds.MOVES_MAX)
        new = dict.fromkeys(range(self._first_new, len(board)), BEHIND_ALL)
        self._main = _Sorted(board, moves.moved() | new)
        self._main_users = len(board)
        self._recent: _Sorted | None = None
        self._seq = board.seq
        moves.follow()

    def renew(self) -> None:
        """Take in what changed on the board."""
        board, recent = self._board, self._moves.recent
        if board.seq == self._seq:
            return
        most = max(RECENT_MAX, len(self._main) // RECENT_SHARE)
        if recent is None or len(recent) + len(board) - self._main_users > most:
            self._sort()
            return
        before = self._moves.moved(recent)
        before |= dict.fromkeys((slot for slot in recent if slot >= self._first_new), BEHIND_ALL)
        before |= dict.fromkeys(range(self._main_users, len(board)), BEHIND_ALL)
        self._recent = _Sorted(board, before)
        self._seq = board.seq

    def of(self, place: Place, key: int, count: int) -> tuple[list[int], bool]:
        """Give the slots of up to `count` who passed a user, the nearest first, and whether there may be more.

        `key` is the user's of now.
        """
        assert self._seq == self._board.seq
        found: list[int] = []
        for other in self._search(place, key):
            slot = other & SLOT_MASK
            if self._was_behind(slot, place):
                if len(found) == count:
                    return found, True
                found.append(slot)
        return found, not self._moves.is_certain(place.moment) or place.slots < self._first_new

    def _search(self, place: Place, key: int) -> Iterator[int]:
        main = self._main.search(place, key)
        recent = self._moves.recent
        if self._recent is None or recent is None:
            return main
        unmoved = (other for other in main if other & SLOT_MASK not in recent)
        return merge(unmoved, self._recent.search(place, key), reverse=True)

    def _was_behind(self, slot: int, place: Place) -> bool:
        if slot >= place.slots:
            return True
        key = self._moves.key_at(slot, place.moment)
        return key is not None and key > place.key
