"""The one ordered structure of a board: integers in ascending order, and where each of them stands.

    chunks   [ 3 7 9 ] [ 12 15 ] [ 20 21 30 ] …        sorted lists of some CHUNK_KEYS keys
    lasts    [ 9         15        30 ]                the last key of each chunk: bisected to find a key's chunk
    sizes    [ 3         2         3  ]                the length of each
    groups   [ 8 … ]                                   the sum of each GROUP_CHUNKS sizes: what stands before a chunk
                                                       is a sum of some groups and some sizes

Why it is not a SortedList: an increment takes a key out, puts a greater place's key in, and tells both ranks. With a
library's list that is four searches, each of which walks its index in Python; here it is one call (`move`) with two
searches, and a rank is two sums over short slices, which C does. `bench/engine.py` measures both, side by side.

Invariants:
- the chunks joined are strictly ascending; no chunk is empty, but for the only one of an empty order;
- a chunk has at most 2 * CHUNK_KEYS keys, and at least CHUNK_KEYS // 2 unless it is the only one;
- `lasts`, `sizes` and `groups` say of the chunks what the picture says.

Positions count from 0. Every operation is O(log n + n / CHUNK_KEYS / GROUP_CHUNKS + CHUNK_KEYS), the latter two of
which are a sum and a memmove in C; cutting and joining chunks is O(n / CHUNK_KEYS) and rare.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import chain, islice, pairwise

CHUNK_KEYS = 512
"""Measured at 10,000 and 1,000,000 keys beside 256 and 1,024: a move costs 7 % less than with 1,024 at the one, as much
at the other."""

GROUP_BITS = 5
GROUP_CHUNKS = 1 << GROUP_BITS
"""At a million keys a position is then the sum of up to 32 groups and up to 31 sizes."""

NO_KEY = -1
"""Stands for the last key of an empty order: less than every key."""


class Order:
    """Distinct integers from 0 on, in ascending order."""

    def __init__(self, keys: Iterable[int] = ()) -> None:
        ascending = sorted(keys)
        starts = range(0, len(ascending), CHUNK_KEYS)
        self._chunks = [ascending[start : start + CHUNK_KEYS] for start in starts] or [[]]
        if len(self._chunks) > 1 and len(self._chunks[-1]) < CHUNK_KEYS // 2:
            short = self._chunks.pop()
            self._chunks[-1] += short
        self._recount()

    def __len__(self) -> int:
        """Count the keys."""
        return sum(self._groups)

    def __iter__(self) -> Iterator[int]:
        """Give the keys in order."""
        return chain.from_iterable(self._chunks)

    def between(self, start: int, stop: int) -> list[int]:
        """List the keys at the positions from `start` on and before `stop`."""
        chunk = 0
        skip = max(0, start)
        count = max(0, stop - skip)
        while chunk < len(self._sizes) and skip >= self._sizes[chunk]:
            skip -= self._sizes[chunk]
            chunk += 1
        return list(islice(chain.from_iterable(self._chunks[chunk:]), skip, skip + count))

    def position(self, key: int) -> int:
        """Say how many keys are less than this one."""
        chunk = bisect_left(self._lasts, key)
        if chunk == len(self._chunks):
            return len(self)
        return self._before(chunk) + bisect_left(self._chunks[chunk], key)

    def add(self, key: int) -> int:
        """Put a key in that is not here, and give its position."""
        lasts = self._lasts
        number = bisect_left(lasts, key)
        if number == len(lasts):
            number -= 1
            lasts[number] = key
        chunk = self._chunks[number]
        place = bisect_left(chunk, key)
        chunk.insert(place, key)
        position = self._before(number) + place
        self._sizes[number] += 1
        self._groups[number >> GROUP_BITS] += 1
        if len(chunk) > 2 * CHUNK_KEYS:
            self._cut(number)
        return position

    def remove(self, key: int) -> int:
        """Take a key out that is here, and give the position that it had."""
        number = bisect_left(self._lasts, key)
        chunk = self._chunks[number]
        place = bisect_left(chunk, key)
        assert chunk[place] == key
        del chunk[place]
        position = self._before(number) + place
        self._sizes[number] -= 1
        self._groups[number >> GROUP_BITS] -= 1
        if place == len(chunk):
            self._lasts[number] = chunk[-1] if chunk else NO_KEY
        if len(chunk) < CHUNK_KEYS // 2:
            self._join(number)
        return position

    def move(self, old: int, new: int) -> tuple[int, int]:
        """Put `new` in the place of `old`, and give the position that the one had and the other has.

        The same as `remove(old)` and `add(new)`, but towards the front, where every increment goes, in one step.
        """
        if new > old:
            return self.remove(old), self.add(new)
        lasts, chunks, sizes, groups = self._lasts, self._chunks, self._sizes, self._groups
        number = bisect_left(lasts, old)
        chunk = chunks[number]
        place = bisect_left(chunk, old)
        assert chunk[place] == old
        group = number >> GROUP_BITS
        had = sum(groups[:group]) + sum(sizes[group << GROUP_BITS : number]) + place
        target = bisect_left(lasts, new, 0, number)
        if target == number:
            # Most moves are short: within a chunk nothing has to be counted anew.
            del chunk[place]
            above = bisect_left(chunk, new, 0, place)
            chunk.insert(above, new)
            if place == len(chunk) - 1:
                lasts[number] = chunk[-1]
            return had, had - place + above
        del chunk[place]
        sizes[number] -= 1
        groups[group] -= 1
        if place == len(chunk) and chunk:
            lasts[number] = chunk[-1]
        other = chunks[target]
        above = bisect_left(other, new)
        other.insert(above, new)
        group = target >> GROUP_BITS
        has = sum(groups[:group]) + sum(sizes[group << GROUP_BITS : target]) + above
        sizes[target] += 1
        groups[group] += 1
        if len(chunk) < CHUNK_KEYS // 2:
            self._join(number)  # with one after the target, or with the target: the target's number stays
        if len(chunks[target]) > 2 * CHUNK_KEYS:
            self._cut(target)
        return had, has

    # Inside

    def _before(self, number: int) -> int:
        """Count the keys in the chunks before this one."""
        group = number >> GROUP_BITS
        return sum(self._groups[:group]) + sum(self._sizes[group << GROUP_BITS : number])

    def _cut(self, number: int) -> None:
        chunk = self._chunks[number]
        half = len(chunk) // 2
        self._chunks[number : number + 1] = [chunk[:half], chunk[half:]]
        self._recount()

    def _join(self, number: int) -> None:
        """Join a chunk that became short to a neighbour; what is too long then is cut."""
        if len(self._chunks) == 1:
            return
        left = max(0, number - 1)
        self._chunks[left] += self._chunks.pop(left + 1)
        if len(self._chunks[left]) > 2 * CHUNK_KEYS:
            self._cut(left)
        else:
            self._recount()

    def _recount(self) -> None:
        self._lasts = [chunk[-1] if chunk else NO_KEY for chunk in self._chunks]
        self._sizes = [len(chunk) for chunk in self._chunks]
        starts = range(0, len(self._sizes), GROUP_CHUNKS)
        self._groups = [sum(self._sizes[start : start + GROUP_CHUNKS]) for start in starts]

    def _check(self) -> None:
        assert all(before < after for before, after in pairwise(self))
        assert self._sizes == [len(chunk) for chunk in self._chunks]
        assert len(self) == sum(self._sizes)
        assert self._lasts == [chunk[-1] if chunk else NO_KEY for chunk in self._chunks]
        assert len(self._chunks) == 1 or all(len(chunk) >= CHUNK_KEYS // 2 for chunk in self._chunks)
        assert all(len(chunk) <= 2 * CHUNK_KEYS for chunk in self._chunks)
        starts = range(0, len(self._sizes), GROUP_CHUNKS)
        assert self._groups == [sum(self._sizes[start : start + GROUP_CHUNKS]) for start in starts]
