"""The ordered structure of a board: distinct integers in ascending order, and the position of each.

    order = Order([30, 10, 20])
    order.move(30, 5)              # (2, 0): the position of 30 before, and of 5 after
    order.bisect_left(20)          # 2: the position of 20; and order[0:2] is [5, 10]

`Order` is the `SortedList` of sortedcontainers with two verbs more: `move`, and `shift`, which tells no positions. It
also replaces `_loc`, from which the library's verbs get a position, by a quicker one. Adding, removing, slicing,
counting and `_check` are the library's.

The library keeps these fields, and these three rely on them:

    _load    512                                  a list has from _load / 2 to 2 * _load keys; the last may have fewer
    _lists   [ 3 7 9 ] [ 12 15 ] [ 20 21 30 ]     the keys, in sorted lists
    _maxes   [ 9         15        30 ]           the last key of each list: bisected to find the list of a key
    _index   [ 8  5 3  3 2 3 ]                    a binary tree: its leaves are the lengths of the lists, and every
                                                  other node is the sum of its children. Empty: it is not built yet
    _offset  3                                    the leaves begin here; _offset + 1 is a power of two

They are not public, so pyproject.toml pins the version. They have been the same since 2018.

Why `move`: an increment takes a key out, puts a smaller one in, and tells both positions. The library's public verbs
need four searches for that, and go four times through all levels of the tree. `move` searches twice. It changes the
tree only below the lowest node that covers both lists; a move within a list changes nothing in it.

Why `_loc`: the library adds up a position node by node, in Python. The tree has a row with the sums of 32 lists each.
So a position is the sum of two slices, which C adds up. `bench/engine.py` sets both beside the plain library.

Invariants:
- those that the library's `_check` asserts, after every verb;
- no key is in the order twice: the caller sees to that.

Positions count from 0. A verb costs O(log n), a sum of n / _load / 32 lengths, and a memmove of up to 2 * _load keys.
When a list is cut or joined, the library drops the tree; the next position builds it again, O(n / _load). This is rare.
A move over many lists is the weak place: it changes two nodes in nearly every row of the tree.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

from sortedcontainers import SortedList

LOAD = 512
"""Compared with 256, 700 and 1,000 at 10,000 to 1,000,000 keys: `move` is quickest with 512."""

ROW_BITS = 5
ROW_LISTS = 1 << ROW_BITS
"""At a million keys in full lists a position is then the sum of up to 30 sums of 32 lists, and of up to 31 lengths."""


NEAR = 32
"""`shift` looks among this number of keys first: most moves are short, and each key less is a wait for memory less."""


class Order(SortedList[int]):
    """Distinct integers in ascending order."""

    DEFAULT_LOAD_FACTOR = LOAD  # type: ignore[misc]  # final in the stubs; the library itself reads it from the subclass

    # The library's own fields and methods that its stubs leave out.
    _load: int
    _lists: list[list[int]]
    _maxes: list[int]
    _index: list[int]
    _offset: int
    _len: int
    _build_index: Callable[[], None]
    _check: Callable[[], None]

    def move(self, old: int, new: int) -> tuple[int, int]:
        """Take `old` out and put `new` in; give the position of `old` before and of `new` after.

        `old` must be in the order and `new` must not. The quick way is the one towards the front: every increment's.
        """
        lists, maxes = self._lists, self._maxes
        source = bisect_left(maxes, old)
        keys = lists[source]
        place = bisect_left(keys, old)
        assert keys[place] == old
        before = self._loc(source, place)
        if new > old:
            return before, self._replace(old, new)
        if not source or maxes[source - 1] < new:
            # Most moves are short and stay within a list: no second search for it, and no change in the tree.
            del keys[place]
            new_place = bisect_left(keys, new, 0, place)
            keys.insert(new_place, new)
            if place == len(keys) - 1:
                maxes[source] = keys[-1]
            return before, before - place + new_place
        target = bisect_left(maxes, new, 0, source)
        new_keys = lists[target]
        if len(keys) - 1 <= self._load >> 1 or len(new_keys) == self._load << 1:
            return before, self._replace(old, new)
        del keys[place]
        if place == len(keys):
            maxes[source] = keys[-1]
        new_place = bisect_left(new_keys, new)
        new_keys.insert(new_place, new)
        if source - target < ROW_LISTS:
            between = self._index[self._offset + target : self._offset + source]
            after = before - place - sum(between) + new_place
        else:
            after = self._loc(target, new_place)
        self._count_move(source, target)
        return before, after

    def shift(self, old: int, new: int, watched: int) -> bool:
        """Move a key where nobody asks for positions; tell whether the first `watched` keys changed.

        A move within a list goes without finding them, which takes a quarter of `move`. The watched keys are at most
        `_load` / 2, so the first list has them all, or is the only one.
        """
        maxes = self._maxes
        source = bisect_left(maxes, old)
        if new > old or (source and maxes[source - 1] > new):
            before, after = self.move(old, new)
            return before < watched or after < watched
        keys = self._lists[source]
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
        place = bisect_left(keys, key)
        begin = bisect_left(keys, first, 0, place)
        if begin or not pos:
            return place - begin
        return self._loc(pos, place) - self.bisect_left(first)

    def clone(self) -> Order:
        """Give an order with the same keys. Much cheaper than sorting them: a million take some 5 ms."""
        other = Order()
        other._lists = [keys[:] for keys in self._lists]
        other._maxes = self._maxes[:]
        other._len = len(self)
        return other

    # Inside

    def _replace(self, old: int, new: int) -> int:
        """Move a key by the library's verbs, which cut and join lists; give the position after."""
        self.remove(old)
        self.add(new)
        return self.bisect_left(new)

    def _count_move(self, source: int, target: int) -> None:
        """Count in the tree that the list `source` has a key less and the list `target` has one more.

        Here nodes count from 1, so the parent of a node is half of it. Nodes that cover both lists stay as they are.
        """
        index = self._index
        down = self._offset + source + 1
        up = self._offset + target + 1
        while down != up:
            index[down - 1] -= 1
            index[up - 1] += 1
            down >>= 1
            up >>= 1

    def _loc(self, pos: int, idx: int) -> int:
        """Give the position of the key at place `idx` of the list `pos`.

        For example 100 lists have a tree with room for 128 leaves, and `_offset` is 127. The sums of 32 lists each are
        the row that begins at 127 >> 5 = 3. What stands before list 70 is _index[3:5], the lists 0 to 63 in two sums,
        and _index[191:197], the lists 64 to 69.
        """
        if not pos:
            return idx  # as the library does: it relies on it that an order with one list never has a tree
        index = self._index
        if not index:
            self._build_index()
        offset = self._offset
        leaf = offset + pos
        if pos < ROW_LISTS:
            return sum(index[offset:leaf], idx)
        row = offset >> ROW_BITS
        return sum(index[row : row + (pos >> ROW_BITS)]) + sum(index[leaf - pos % ROW_LISTS : leaf], idx)
