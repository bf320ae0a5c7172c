"""An open-addressing table of 32-bit entries: where a digest's entry lies. One key at a time, or thousands at once.

A digest is two 64-bit words. The table holds entries alone, from 1 on, 0 being an empty cell. The digests lie in a
column of two words for each entry, which whoever asks has at hand.

Theory: with a million entries nearly every cell that is looked at is in no cache. A frame asks for thousands of keys;
asked one after the other, each waits for the memory alone, and numpy asks for all of them together. For few keys its
calls cost more than they save. `bench/engine.py` measures both.

Invariants:
- The number of cells is a power of two; at least a quarter of them is empty. Steps are odd, so they come by every cell.
- The cells from `cell_of(high)` on, in steps of `step_of(high)`, up to the one with its entry hold other entries.
"""

from __future__ import annotations

from array import array

import numpy as np
from numpy.typing import NDArray

STEP_SHIFT = 40
"""The cell of an entry is taken from the lowest bits of its digest; where that one is taken it goes on in steps of its
own, the bits from here on. Steps of one would pile entries up, and each that is met has its digest looked at."""

Words = NDArray[np.uint64]
Entries = NDArray[np.uint32]


class Table:
    """`cells` is a power of two. Whoever adds sees to it that `holds` more than that never are in it."""

    __slots__ = ("_cells", "_last", "_view", "count")

    def __init__(self, cells: int) -> None:
        assert cells & (cells - 1) == 0
        self.count = 0
        self._last = cells - 1
        # Zeroed by the system page by page, when they are first touched: a large table is no pause.
        self._cells: Entries = np.zeros(cells, np.uint32)
        self._view = memoryview(self._cells)  # type: ignore[arg-type]  # indexed by Python it is twice as fast

    @property
    def cells(self) -> int:
        """The number of cells."""
        return self._last + 1

    @property
    def holds(self) -> int:
        """How many entries there may be at the most."""
        return self.cells // 4 * 3

    def find(self, high: int, low: int, digests: array[int]) -> int:
        """Give the entry of a digest, 0 if there is none."""
        cells, last = self._view, self._last
        cell = high & last
        entry: int = cells[cell]
        if entry:
            step = high >> STEP_SHIFT | 1
            while entry:
                at = 2 * (entry - 1)
                if digests[at] == high and digests[at + 1] == low:
                    break
                cell = (cell + step) & last
                entry = cells[cell]
        return entry

    def add(self, high: int, entry: int) -> None:
        """Put in an entry that is not here, by the first word of its digest."""
        cells, last = self._view, self._last
        self.count += 1
        assert self.count <= self.holds
        cell = high & last
        if cells[cell]:
            step = high >> STEP_SHIFT | 1
            while cells[cell]:
                cell = (cell + step) & last
        cells[cell] = entry

    def find_all(self, words: Words, digests: Words) -> Entries:
        """Give the entry of each digest, 0 for one that has none."""
        found = np.zeros(len(words) // 2, np.uint32)
        highs, lows = words[0::2], words[1::2]
        places = np.arange(len(found))
        cells, steps = self._begin(highs)
        while len(places):
            entries = self._cells[cells]
            met = np.flatnonzero(entries)
            places, cells, steps, entries = places[met], cells[met], steps[met], entries[met]
            at = 2 * (entries.astype(np.int64) - 1)
            same = (digests[at] == highs[places]) & (digests[at + 1] == lows[places])
            found[places[same]] = entries[same]
            others = np.flatnonzero(~same)
            places, steps = places[others], steps[others]
            cells = (cells[others] + steps) & self._last
        return found

    def add_all(self, highs: Words, first_entry: int) -> None:
        """Put in entries that are not here, numbered from the first one, by the first words of their digests."""
        self.count += len(highs)
        assert self.count <= self.holds
        entries = np.arange(first_entry, first_entry + len(highs), dtype=np.uint32)
        cells, steps = self._begin(highs)
        while len(entries):
            empty = np.flatnonzero(self._cells[cells] == 0)
            # Where several want the same cell the last one gets it; the others see that, and go on.
            self._cells[cells[empty]] = entries[empty]
            others = np.flatnonzero(self._cells[cells] != entries)
            entries, steps = entries[others], steps[others]
            cells = (cells[others] + steps) & self._last

    def _begin(self, highs: Words) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        cells = (highs & np.uint64(self._last)).astype(np.int64)
        steps = (highs >> np.uint64(STEP_SHIFT) | np.uint64(1)).astype(np.int64)
        return cells, steps

    def entries(self) -> list[int]:
        """List what is in it, in the order of the cells. For checks."""
        listed: list[int] = self._cells[self._cells != 0].tolist()
        return listed
