"""Which slot a user has on a board: userId → 0, 1, 2 … in the order of their first points. Pure.

    slot = slots.add("ann")
    slots.get("ann"), slots.find_all(user_ids)          one user, or thousands at once: for many it is much quicker

Theory: an open-addressing table of 32-bit entries (slot + 1; 0 is an empty cell). The tag of an id (`engine.user_ids`)
gives the first cell, and the step to the next ones. An entry with the same tag is proved by the id itself. A dict of
strings takes 42 bytes a user, and 64 for the string; this takes 5.3 to 10.7, and 4 for the tag. With a million users
nearly every lookup waits for memory. numpy asks for the cells of a whole frame together, so these waits overlap.

A full table is not made anew at once, because that would be a long pause. New entries go into a larger one, and each
of them moves MOVED_FOR_ADDED older ones there. Until all have moved, lookups try both tables.

The hash of a string has a seed in each process, so nobody can choose ids that meet in one cell.

Invariants:
- Each slot's entry is in `_table`. The exception: while there is an `_older` table, the entries of the slots from
  `_moved` to `_behind` are only there.
- A user who leaves does not empty a cell, because lookups of others go on from it. The cell leads to slot 0 then, whose
  user is another one.
- At most three quarters of the cells are used, so each lookup meets an empty one.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from engine.user_ids import TAG_MASK, UserIds

NOBODY = -1
"""The slot of a user who has none."""

CELLS_AT_FIRST = 2**6

MANY = 64
"""From this number of users on, a lookup handles them together: numpy's calls cost more than they save for fewer."""

MOVED_FOR_ADDED = 4
"""Older entries that each new entry moves while there is an older table. It is empty before this one is full."""

PIECE = 2**16
"""Entries that are put into a table at once when a whole table is filled."""

STEP_SHIFT = 16
"""A tag's lowest bits give the first cell, the bits from here on the step. Equal steps would cluster the entries."""

FEW = 16
"""Users of whom each is looked up to the end by itself."""

Tags = NDArray[np.uint32]
Words = NDArray[np.int64]


class _Table:
    """Cells. Steps are odd and the number of cells is a power of two, so a lookup reaches every cell."""

    __slots__ = ("_cells", "holds", "last", "used", "view")

    def __init__(self, cells: int) -> None:
        self.last = cells - 1
        self.holds = cells // 4 * 3
        self.used = 0
        # The system zeroes each page when it is first used, so making a large table is no pause.
        self._cells = np.zeros(cells, np.uint32)
        self.view = memoryview(self._cells)  # type: ignore[arg-type]  # indexed by Python it is twice as fast

    def copy(self) -> _Table:
        other = _Table(self.last + 1)
        other.used = self.used
        other._cells[:] = self._cells
        return other

    def cell_of(self, tag: int, entry: int) -> int | None:
        """Give the cell that has an entry, or for entry 0 the first empty one; None if the entry is not here."""
        view, last = self.view, self.last
        cell, step = tag & last, tag >> STEP_SHIFT | 1
        while view[cell] != entry:
            if not view[cell]:
                return None
            cell = (cell + step) & last
        return cell

    def put(self, cell: int, entry: int) -> None:
        self.view[cell] = entry

    def find_all(self, tags: Words, known: Tags) -> tuple[Words, list[int]]:
        """Give for each tag the first slot that has it, NOBODY if none has. `known` are the tags of the slots.

        Give also the places of a few tags whose lookups must go on one by one: that costs less than numpy's calls.
        """
        cells = tags & self.last
        slots = self._cells[cells].astype(np.int64) - 1
        places = np.flatnonzero((known[slots] != tags) & (slots >= 0))
        while len(places) > FEW:
            met = cells[places] + (tags[places] >> STEP_SHIFT | 1) & self.last
            cells[places] = met
            slots[places] = found = self._cells[met].astype(np.int64) - 1
            places = places[(known[found] != tags[places]) & (found >= 0)]
        return slots, places.tolist()

    def add_all(self, tags: Tags, first_entry: int) -> None:
        """Add entries from `first_entry` on, by their tags."""
        self.used += len(tags)
        assert self.used <= self.holds
        wide = tags.astype(np.int64)
        cells, steps = wide & self.last, wide >> STEP_SHIFT | 1
        entries = np.arange(first_entry, first_entry + len(tags), dtype=np.uint32)
        while len(entries):
            empty = np.flatnonzero(self._cells[cells] == 0)
            # If several entries want one cell, the last one gets it. The others see that and try their next cell.
            self._cells[cells[empty]] = entries[empty]
            others = np.flatnonzero(self._cells[cells] != entries)
            entries, steps = entries[others], steps[others]
            cells = (cells[others] + steps) & self.last


class Slots:
    """See above. `ids` has the id of each slot. Finding and adding are O(1)."""

    __slots__ = ("_behind", "_moved", "_older", "_table", "ids")

    def __init__(self, ids: UserIds | None = None) -> None:
        """Give the users of these ids their slots. O(users) if there are any."""
        self.ids = UserIds() if ids is None else ids
        self._table = _Table(_cells_for(len(self.ids)))
        self._older: _Table | None = None
        self._moved, self._behind = 0, len(self.ids)
        self._move(self._behind)

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, user_id: str) -> bool:
        return self.get(user_id) is not None

    @property
    def bytes(self) -> int:
        cells = self._table.last + 1 + (0 if self._older is None else self._older.last + 1)
        return self.ids.bytes + 4 * cells

    def get(self, user_id: str) -> int | None:
        """Give the slot of a user, None before the first points."""
        tag, table = hash(user_id) & TAG_MASK, self._table
        ids, view, last = self.ids, table.view, table.last
        tags, cell = ids.tags, tag & last
        while entry := view[cell]:
            if tags[entry - 1] == tag:
                bounds = ids.bounds
                if ids.data[bounds[entry - 1] : bounds[entry]] == user_id.encode():
                    return entry - 1
            cell = (cell + (tag >> STEP_SHIFT | 1)) & last
        return None if self._older is None else self._get_older(self._older, tag, user_id)

    def _get_older(self, table: _Table, tag: int, user_id: str) -> int | None:
        ids, cell = self.ids, tag & table.last
        while entry := table.view[cell]:
            if ids.tags[entry - 1] == tag and ids[entry - 1] == user_id:
                return int(entry - 1)
            cell = (cell + (tag >> STEP_SHIFT | 1)) & table.last
        return None

    def find_all(self, user_ids: Sequence[str]) -> list[int]:
        """Give the slots of users, NOBODY before the first points."""
        if len(user_ids) < MANY:
            return [NOBODY if (slot := self.get(user_id)) is None else slot for user_id in user_ids]
        listed: list[int] = self.column_of(user_ids).tolist()
        return listed

    def column_of(self, user_ids: Sequence[str]) -> NDArray[np.int64]:
        """Do the same for many, as numpy has it."""
        if not len(self.ids):
            return np.full(len(user_ids), NOBODY)
        tags = np.fromiter(map(hash, user_ids), np.int64, len(user_ids)) & TAG_MASK
        known = np.frombuffer(self.ids.tags, np.uint32)
        slots, others = self._table.find_all(tags, known)
        if self._older is not None:
            places = np.flatnonzero(slots < 0)
            slots[places], more = self._older.find_all(tags[places], known)
            others += places[more].tolist()
        differs = (slots >= 0) & ~self.ids.are_at(slots, user_ids)
        for place in {*others, *np.flatnonzero(differs).tolist()}:
            slot = self.get(user_ids[place])
            slots[place] = NOBODY if slot is None else slot
        return slots

    def add(self, user_id: str) -> int:
        """Give the next slot to a user who has none."""
        slot, tag = len(self.ids), hash(user_id) & TAG_MASK
        self.ids.append(user_id)
        if self._table.used + self._behind - self._moved >= self._table.holds:
            self._grow(slot)
        self._add(tag, slot)
        if self._older is not None:
            self._move(MOVED_FOR_ADDED)
        return slot

    def _add(self, tag: int, slot: int) -> None:
        table = self._table
        table.used += 1
        cell = table.cell_of(tag, 0)
        assert cell is not None
        table.put(cell, slot + 1)

    def _grow(self, count: int) -> None:
        """Begin a table for twice the users, of whom there are `count` so far."""
        self._move(self._behind)
        self._older, self._table = self._table, _Table(_cells_for(2 * count - 1))
        self._moved, self._behind = 0, count

    def _move(self, count: int) -> None:
        """Put `count` entries into the table that are not there yet. The older table is dropped with its last entry."""
        stop = min(self._moved + count, self._behind)
        if stop - self._moved < MANY:
            for slot in range(self._moved, stop):
                self._add(self.ids.tags[slot], slot)
        else:
            for start in range(self._moved, stop, PIECE):
                piece: array[int] = self.ids.tags[start : min(start + PIECE, stop)]
                self._table.add_all(np.frombuffer(piece, np.uint32), start + 1)
        self._moved = stop
        if stop == self._behind:
            self._older = None

    def leave(self, user_ids: Iterable[str]) -> list[tuple[str, int, int]]:
        """Take out users, each of whom has a slot, one after the other. The user of the last slot gets the free one.

        Give each user, the free slot, and which slot was the last. O(users), and `ids` is another list then.
        """
        self._move(self._behind)
        ids, table, count = self.ids, self._table, len(self.ids)
        moves: list[tuple[str, int, int]] = []
        gone: list[int] = []
        had: dict[int, int] = {}  # slot → the slot that its user had before
        has: dict[int, int] = {}  # and the other way round
        for user_id in user_ids:
            known = self.get(user_id)
            assert known is not None
            gone.append(known)
            slot, count = has.pop(known, known), count - 1
            moves.append((user_id, slot, count))
            had.pop(slot, None)
            if slot != count:
                last = had.pop(count, count)
                had[slot], has[last] = last, slot
        cells = [(table.cell_of(ids.tags[known], known + 1), 1) for known in gone]
        cells += [(table.cell_of(ids.tags[last], last + 1), slot + 1) for slot, last in had.items()]
        for cell, entry in cells:
            assert cell is not None
            table.put(cell, entry)
        self.ids = ids.arranged(count, had)
        self._behind = self._moved = count
        if not count:
            self._table = _Table(CELLS_AT_FIRST)
        return moves

    def copy(self) -> Slots:
        other = Slots()
        other.ids, other._table = self.ids.copy(), self._table.copy()
        other._older = None if self._older is None else self._older.copy()
        other._moved, other._behind = self._moved, self._behind
        return other

    def _check(self) -> None:
        self.ids._check()
        count = len(self.ids)
        for table in (self._table, self._older):
            assert table is None or table.used == sum(map(bool, table.view)) <= table.holds
        assert self._moved == self._behind or self._older is not None
        for slot in range(count):
            is_older = self._moved <= slot < self._behind
            table = self._older if is_older else self._table
            assert table is not None
            assert table.cell_of(self.ids.tags[slot], slot + 1) is not None
        listed = list(self.ids)
        assert [self.get(user_id) for user_id in listed] == list(range(count)) == self.find_all(listed)


def _cells_for(count: int) -> int:
    """Give the number of cells of a table that holds these users and at least one more."""
    cells = CELLS_AT_FIRST
    while cells // 4 * 3 <= count:
        cells *= 2
    return cells
