"""The ordered structure of a board: distinct integers in ascending order, and the position of each.

    order = Order([30, 10, 20])
    order.move(30, 5)              # (2, 0): the position of 30 before, and of 5 after
    order.bisect_left(20)          # 2: the position of 20; and order[0:2] is [5, 10]

    order = Order.of_board(flip, scores, reached, hidden)       the keys of a board (`engine.keys`)

`Order` is the `SortedList` of sortedcontainers with two verbs more: `move`, and `shift`, which tells no positions. On a
large board its lists are compact (`CompactKeys`). Slicing, iterating and `_check` are the library's, and so is how
lists are cut and joined.

The library keeps these fields, and this class relies on them:

    _load    512                                  a list has from _load / 2 to 2 * _load keys; the last may have fewer
    _lists   [ 3 7 9 ] [ 12 15 ] [ 20 21 30 ]     the keys, in sorted lists
    _maxes   [ 9         15        30 ]           the last key of each list: bisected to find the list of a key
    _index   [ ]                                  a tree of the lengths of the lists: never built here

They are not public, so pyproject.toml pins the version. They have been the same since 2018. Ours is

    _starts  [ 0         3         5  ]           the position of the first key of each list; empty: not built

Why `move`: an increment takes a key out, puts a smaller one in, and tells both positions. The library's public verbs
need four searches for that, and go four times through all levels of its tree. `move` searches twice, and a move within
a list changes no position of another list. `bench/engine.py` sets both beside each other.

Why no tree: it needs a sum of some fifty numbers for a position, `_starts` one. A key that goes from one list to
another changes the starts between them, which numpy does at once.

Invariants:
- those that the library's `_check` asserts, after every verb;
- no key is in the order twice: the caller sees to that;
- a list is compact only if `_base` is not None: the order of a board with more than COMPACT_FROM keys. A list with a
  key that does not fit is a list of integers.

Positions count from 0. A verb costs O(log n), and a memmove of up to 2 * _load keys. When a list is cut or joined, the
starts are dropped; the next position builds them again, O(n / _load). This is rare.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable

import numpy as np
from numpy.typing import NDArray
from sortedcontainers import SortedList

from engine.keys import Codes, CompactKeys, Keys, base_of, plain_keys
from engine.sorting import sorted_lists

LOAD = 512
"""Compared with 256, 700 and 1,000 at 10,000 to 1,000,000 keys: `move` is quickest with 512."""

COMPACT_FROM = 2**15
"""So many integers are in the processor's caches anyway, where bisecting them is quicker than bisecting arrays."""

NEAR = 32
"""`shift` looks among this number of keys first: most moves are short, and each key less is a wait for memory less.
And starts of fewer lists are changed one by one."""


class Order(SortedList[int]):
    """Distinct integers in ascending order."""

    DEFAULT_LOAD_FACTOR = LOAD  # type: ignore[misc]  # final in the stubs; the library itself reads it from the subclass

    # The library's own fields and methods that its stubs leave out.
    _load: int
    _lists: list[Keys]
    _maxes: list[int]
    _len: int
    _index: list[int]

    def __init__(self, keys: Iterable[int] | None = None) -> None:
        """Any integers. Their lists are never compact."""
        self._starts = array("q")
        self._tops: Codes | None = None
        self._base: int | None = None
        super().__init__(keys)  # type: ignore[call-arg]  # its stubs know only __new__

    @classmethod
    def of_board(cls, flip: int, scores: array[int], reached: array[int], hidden: Collection[int]) -> Order:
        """Sort the keys of all slots of a board but the hidden ones."""
        order = cls()
        order._base = base_of(flip)
        columns = np.frombuffer(scores, np.uint64), np.frombuffer(reached, np.uint64)
        shown = len(scores) - len(hidden)
        if shown <= COMPACT_FROM:
            slots = np.delete(np.arange(len(scores)), list(hidden))
            order.update(plain_keys(flip, *columns, slots) if shown else ())
        else:
            order._lists.extend(sorted_lists(flip, *columns, hidden, order._load))
            order._maxes.extend(keys[-1] for keys in order._lists)
            order._len = shown
        return order

    def move(self, old: int, new: int) -> tuple[int, int]:
        """Take `old` out and put `new` in; give the position of `old` before and of `new` after.

        `old` must be in the order and `new` must not. The quick way is the one towards the front: every increment's.
        """
        lists, maxes = self._lists, self._maxes
        source = bisect_left(maxes, old)
        keys = lists[source]
        place = bisect_left(keys, old) if isinstance(keys, list) else keys.place(old)
        assert keys[place] == old
        before = self._loc(source, place)
        if new > old:
            return before, self._replace(old, new)
        if not source or maxes[source - 1] < new:
            # Most moves are short and stay within a list: no second search for it, and no change in the starts.
            if not isinstance(keys, list):
                keys = self._roomy(source, new)
            del keys[place]
            new_place = bisect_left(keys, new, 0, place) if isinstance(keys, list) else keys.place(new)
            keys.insert(new_place, new)
            if place == len(keys) - 1:
                self._top(source)
            return before, before - place + new_place
        target = bisect_left(maxes, new, 0, source)
        if len(keys) - 1 <= self._load >> 1 or len(lists[target]) == self._load << 1:
            return before, self._replace(old, new)
        new_keys = self._roomy(target, new)
        del keys[place]
        if place == len(keys):
            self._top(source)
        new_place = bisect_left(new_keys, new) if isinstance(new_keys, list) else new_keys.place(new)
        new_keys.insert(new_place, new)
        self._add_to_starts(target + 1, source + 1, 1)
        return before, self._starts[target] + new_place

    def shift(self, old: int, new: int, watched: int) -> bool:
        """Move a key where nobody asks for positions; tell whether the first `watched` keys changed.

        A move within a list goes without finding them. The watched keys are at most `_load` / 2, so the first list has
        them all, or is the only one.
        """
        maxes = self._maxes
        source = bisect_left(maxes, old)
        keys = self._lists[source]
        if new > old or (source and maxes[source - 1] > new) or not isinstance(keys, list):
            before, after = self.move(old, new)
            return before < watched or after < watched
        place = bisect_left(keys, old)
        assert keys[place] == old
        near = max(place - NEAR, 0)
        if keys[near] > new:
            near = 0
        del keys[place]
        new_place = bisect_left(keys, new, near, place)
        keys.insert(new_place, new)
        if place == len(keys) - 1:
            maxes[source] = keys[-1]
        return not source and new_place < watched

    def ties_ahead(self, key: int, first: int) -> int:
        """Count the keys from `first` on that are lower than a key, which is in the order. Quick if they are few.

        It needs no position: most often both are in one list.
        """
        lists, pos = self._lists, bisect_left(self._maxes, key)
        keys = lists[pos]
        place = bisect_left(keys, key) if isinstance(keys, list) else keys.place(key)
        begin = bisect_left(keys, first, 0, place) if isinstance(keys, list) else keys.place(first)
        if begin or not pos:
            return place - begin
        return self._loc(pos, place) - self.bisect_left(first)

    def bisect_left(self, key: int) -> int:
        """Give the number of lower keys."""
        maxes = self._maxes
        pos = bisect_left(maxes, key)
        if pos == len(maxes):
            return self._len
        keys = self._lists[pos]
        return self._loc(pos, bisect_left(keys, key) if isinstance(keys, list) else keys.place(key))

    def add(self, key: int) -> None:
        """Put a key in."""
        maxes = self._maxes
        if not maxes:
            super().add(key)
            return
        if self._len > COMPACT_FROM:
            self._compact(self._len % len(maxes))  # so each list is compact soon, also one that is never cut
        pos = min(bisect_left(maxes, key), len(maxes) - 1)
        keys = self._roomy(pos, key)
        keys.insert(bisect_left(keys, key) if isinstance(keys, list) else keys.place(key), key)
        if key > maxes[pos]:
            self._top(pos)
        self._len += 1
        self._expand(pos)

    def remove(self, key: int) -> None:
        """Take a key out. It must be there."""
        pos = bisect_left(self._maxes, key)
        if pos == len(self._maxes):
            raise ValueError(key)
        keys = self._lists[pos]
        place = bisect_left(keys, key) if isinstance(keys, list) else keys.place(key)
        if keys[place] != key:
            raise ValueError(key)
        self._delete(pos, place)

    def clone(self) -> Order:
        """Give an order with the same keys. Much cheaper than sorting them: a million take some 5 ms."""
        other = Order()
        other._base = self._base
        other._lists = [keys.copy() for keys in self._lists]
        other._maxes = self._maxes[:]
        other._len = len(self)
        return other

    def update(self, keys: Iterable[int]) -> None:
        """Put many in."""
        super().update(keys)
        self._forget()

    # For `engine.moving`

    @property
    def is_compact(self) -> bool:
        """Whether all lists are compact."""
        return bool(self._lists) and isinstance(self._lists[0], CompactKeys) and len(self.tops()) > 0

    def tops(self) -> Codes:
        """Give the last code of each list; nothing if one of the lists is not compact."""
        if self._tops is None:
            lists = [keys for keys in self._lists if isinstance(keys, CompactKeys)]
            last = [keys.codes[-1] for keys in lists] if len(lists) == len(self._lists) else []
            self._tops = np.array(last, np.uint64)
        return self._tops

    def starts(self) -> NDArray[np.int64]:
        """Give the position of the first key of each list. Read it at once: it lies where the order has it."""
        if not self._starts:
            self._build_starts()
        return np.frombuffer(self._starts, np.int64)

    def changed(self, more: NDArray[np.int64], topped: Iterable[int]) -> None:
        """Note how many keys more each list has, all of them compact, and which have another last one.

        Cut those that are too long, and join those that are too short.
        """
        starts, tops, lists = self.starts(), self.tops(), self._lists
        lengths = np.diff(np.append(starts, self._len)) + more
        starts[1:] += np.cumsum(more)[:-1]
        self._len += int(more.sum())
        for pos in topped:
            keys = lists[pos]
            assert isinstance(keys, CompactKeys)
            if len(keys):
                self._maxes[pos], tops[pos] = keys[-1], keys.codes[-1]
        wrong = (lengths > self._load << 1) | (lengths < self._load >> 1)
        wrong[-1] &= not 0 < lengths[-1] <= self._load << 1
        for pos in np.flatnonzero(wrong)[::-1].tolist():
            self._mend(pos)

    # Inside

    def _mend(self, pos: int) -> None:
        """Join a compact list with its neighbour if it is too short; cut what is too long."""
        lists, maxes = self._lists, self._maxes
        if len(lists[pos]) < self._load >> 1 and len(lists) > 1:
            pos = max(pos - 1, 0)
            low, high = lists[pos], lists[pos + 1]
            assert isinstance(low, CompactKeys)
            assert isinstance(high, CompactKeys)
            joined = low.joined(high)
            lists[pos : pos + 2] = [joined]
            maxes[pos : pos + 2] = [joined[-1] if len(joined) else maxes[pos]]
        keys = lists[pos]
        if len(keys) > self._load << 1:
            assert isinstance(keys, CompactKeys)
            parts = keys.cut(len(keys) // self._load)
            lists[pos : pos + 1] = parts
            maxes[pos : pos + 1] = [part[-1] for part in parts]
        self._forget()

    def _replace(self, old: int, new: int) -> int:
        """Move a key by verbs that cut and join lists; give the position after."""
        self.remove(old)
        self.add(new)
        return self.bisect_left(new)

    def _roomy(self, pos: int, key: int) -> Keys:
        """Give a list into which a key is to be put. If the key doesn't fit into a compact one, it is one no more."""
        keys = self._lists[pos]
        if not isinstance(keys, list) and not keys.fits(key):
            keys = self._lists[pos] = list(keys)
            self._tops = None
        return keys

    def _top(self, pos: int) -> None:
        """Note that a list has another last key."""
        self._maxes[pos] = self._lists[pos][-1]
        self._tops = None

    def _forget(self) -> None:
        """Drop what is known of the lists, because there are others."""
        self._starts = array("q")
        self._tops = None

    def _expand(self, pos: int) -> None:
        """Cut a list that a key was put into, if it is too long."""
        if len(self._lists[pos]) <= self._load << 1:
            self._add_to_starts(pos + 1, len(self._starts), 1)
            return
        super()._expand(pos)  # type: ignore[misc]  # its stubs leave it out
        self._forget()
        if self._len > COMPACT_FROM:
            self._compact(pos)
            self._compact(pos + 1)

    def _compact(self, pos: int) -> None:
        """Make a list compact if its keys fit."""
        keys = self._lists[pos]
        if isinstance(keys, list) and self._base is not None:
            compact = CompactKeys(self._base, array("Q"), array("I"))
            if all(map(compact.fits, keys)):
                compact.extend(keys)
                self._lists[pos] = compact
                self._tops = None

    def _delete(self, pos: int, place: int) -> None:
        """Take a key out of a list; join the list with another one if it is too short."""
        lists = self._lists
        if len(lists[pos]) - 1 > self._load >> 1:
            self._tops = None
            super()._delete(pos, place)  # type: ignore[misc]  # its stubs leave it out
            self._add_to_starts(pos + 1, len(self._starts), -1)
            return
        self._starts = array("q")
        for each in (pos - 1, pos, pos + 1):
            if 0 <= each < len(lists) and not isinstance(lists[each], list):
                lists[each] = list(lists[each])  # they may be joined, and one of them may have keys that don't fit
        super()._delete(pos, place)  # type: ignore[misc]
        self._forget()
        if self._len > COMPACT_FROM:
            for each in (pos - 1, pos, pos + 1):
                if 0 <= each < len(lists):
                    self._compact(each)

    def _add_to_starts(self, first: int, stop: int, more: int) -> None:
        """Note that the lists from one to before another begin later."""
        starts = self._starts
        if not starts:
            return
        if stop - first < NEAR:
            for pos in range(first, stop):
                starts[pos] += more
        else:
            np.frombuffer(starts, np.int64)[first:stop] += more

    def _build_starts(self) -> None:
        lengths = np.fromiter(map(len, self._lists), np.int64, len(self._lists))
        self._starts = array("q")
        self._starts.frombytes((np.cumsum(lengths) - lengths).tobytes())

    def _loc(self, pos: int, place: int) -> int:
        """Give the position of the key at a place of a list."""
        if not self._starts:
            self._build_starts()
        return self._starts[pos] + place

    def _pos(self, position: int) -> tuple[int, int]:
        """Give the list of a position, and the place in it. Below 0 it counts from the end."""
        if position < 0:
            position += self._len
        if not 0 <= position < self._len:
            raise IndexError("list index out of range")
        if not self._starts:
            self._build_starts()
        pos = bisect_right(self._starts, position) - 1
        return pos, position - self._starts[pos]

    def _check(self) -> None:
        super()._check()  # type: ignore[misc]
        assert not self._index
        starts = self._starts[:]
        if starts:
            self._build_starts()
            assert starts == self._starts
        for keys in self._lists:
            if not isinstance(keys, list):
                assert keys.base == self._base
                assert len(keys.slots) == len(keys.codes)
                assert all(map(keys.fits, keys))
