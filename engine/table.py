"""An open-addressing table of 32-bit entries, found by digest. It handles one key at a time, or thousands at once.

    table.add(high, entry)                         entry 1, 2, 3 …
    entry = table.find(high, low, digests)         0 if the digest has none
    entries = table.find_all(words, digests)

A digest is two 64-bit words, `high` and `low`. The table holds entries only, from 1 on; 0 is an empty cell. The caller
keeps the digests, in a column with two words for each entry.

Theory: with a million entries nearly every lookup misses the processor's caches. A frame looks up thousands of keys.
One by one, each waits for the memory. numpy requests all of them together, so the waits overlap. For few keys the calls
of numpy cost more than they save. `bench/engine.py` measures both.

Invariants:
- The number of cells is a power of two, and at least a quarter of them is empty. Steps are odd, so they reach every
  cell.
- A lookup begins at cell `high % cells` and goes on in steps of `high >> STEP_SHIFT | 1`. All cells before the one with
  the entry hold other entries.
"""

from __future__ import annotations

from array import array

import numpy as np
from numpy.typing import NDArray

STEP_SHIFT = 40
"""The lowest bits of a digest give the first cell of its entry. The bits from here on give the step to the next cells.
Equal steps would cluster the entries, and a lookup compares the digest of each entry that it meets."""

FEW = 24
"""Keys of which each is looked up to its end. So few cost less one by one than the calls of numpy for all of them."""

Words = NDArray[np.uint64]
Entries = NDArray[np.uint32]


class Table:
    """The table. The caller never puts more than `holds` entries into it."""

    __slots__ = ("_cells", "_last", "_view", "count", "holds")

    def __init__(self, cells: int) -> None:
        assert cells & (cells - 1) == 0
        self.count = 0
        self._last = cells - 1
        self.holds = cells // 4 * 3  # the most entries that the table may have
        # The system zeroes each page when it is first used, so making a large table is no pause.
        self._cells: Entries = np.zeros(cells, np.uint32)
        self._view = memoryview(self._cells)  # type: ignore[arg-type]  # indexed by Python it is twice as fast

    @property
    def cells(self) -> int:
        return self._last + 1

    def find(self, high: int, low: int, digests: array[int]) -> int:
        """Give the entry of a digest; 0 if there is none."""
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
        """Add an entry that is not in the table. `high` is the first word of its digest."""
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
        """Give the entry of each digest; 0 for a digest without one."""
        highs, lows = words[0::2], words[1::2]
        cells, steps = self._begin(highs)
        found = self._cells[cells]
        places = np.flatnonzero(found)  # of the keys that met an entry, which may be another key's
        while len(places) > FEW:
            at = 2 * (found[places].astype(np.int64) - 1)
            others = digests[at] != highs[places]
            if not others.all():
                others |= digests[at + 1] != lows[places]
                places = places[others]
            cells[places] = next_cells = (cells[places] + steps[places]) & self._last
            found[places] = met = self._cells[next_cells]
            places = places[met != 0]
        for place in places.tolist():
            found[place] = self._find_on(
                int(cells[place]), int(steps[place]), int(highs[place]), int(lows[place]), digests
            )
        return found

    def _find_on(self, cell: int, step: int, high: int, low: int, digests: Words) -> int:
        """Give the entry of a digest, 0 if there is none: the lookup goes on from a cell."""
        cells, last = self._view, self._last
        entry: int = cells[cell]
        while entry:
            at = 2 * (entry - 1)
            if digests[at] == high and digests[at + 1] == low:
                break
            cell = (cell + step) & last
            entry = cells[cell]
        return entry

    def add_all(self, highs: Words, first_entry: int) -> None:
        """Add entries that are not in the table, from `first_entry` on, by the first words of their digests."""
        self.count += len(highs)
        assert self.count <= self.holds
        entries = np.arange(first_entry, first_entry + len(highs), dtype=np.uint32)
        cells, steps = self._begin(highs)
        while len(entries):
            empty = np.flatnonzero(self._cells[cells] == 0)
            # If several entries want one cell, the last one gets it. The others see that and try their next cell.
            self._cells[cells[empty]] = entries[empty]
            others = np.flatnonzero(self._cells[cells] != entries)
            entries, steps = entries[others], steps[others]
            cells = (cells[others] + steps) & self._last

    def _begin(self, highs: Words) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        cells = (highs & np.uint64(self._last)).astype(np.int64)
        steps = (highs >> np.uint64(STEP_SHIFT) | np.uint64(1)).astype(np.int64)
        return cells, steps

    def entries(self) -> list[int]:
        """List the entries, in the order of the cells. For checks."""
        listed: list[int] = self._cells[self._cells != 0].tolist()
        return listed
