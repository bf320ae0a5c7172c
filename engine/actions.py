"""The index of applied actions: actionId → the seq of its event. It makes each action count exactly once, for ever.

    position = actions.find(key_of(action_id))       -1 if the action was never applied
    seq = actions.seq_at(position)
    actions.add(keys, first_seq, marks)              the actions of one frame, in the order of their events

Recent actions are here, in memory. Older ones lie in files (`engine.sealed_actions`): who looks an action up has a
thread read what `unread` lists first (`engine.action_reading`). Then every lookup here is right, and reads no disk.

The index only grows, so it must be small, and a snapshot must be able to copy it without stopping the writer:

- An actionId is kept as its 128-bit BLAKE2b digest. Two ids with one digest are not expected before 2^64 actions.
- Beside the digest stand the event's seq and a 64-bit mark of user, board, reason and chosen value. The mark shows
  whether a repeated actionId means the same thing as before.
- The entries lie in append-only arrays, in the order of their seqs: 32 bytes an action. A snapshot is a prefix of them.
- A table of 32-bit positions (`engine.table`) leads to an entry. It is at most 3/4 full: 5.3 to 10.7 bytes an action.
  A dict of digests would take about 190 bytes an action. A set of the ids as strings would take 130, without the seq.
- A full table is not rebuilt at once, because that would be a long pause. New entries go into a table of twice the
  size, and each new entry moves MOVED_FOR_ADDED older ones there. Until all have moved, lookups try both tables.

Invariants:
- `len(_digests) == 2 * len(_seqs) == 2 * len(_marks)`; `_seqs` is strictly increasing.
- `sealed` has the actions before these, and no other.
- Each entry (its position + 1) is in `_table` once. The exception: while there is an `_older` table, the entries from
  `_moved` to `_behind` are only there. `_older` holds the entries before `_behind`.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from itertools import chain

import numpy as np

from engine.action_blocks import FORGOTTEN
from engine.erased import is_erased, key_in
from engine.image import ActionsImage, column_of
from engine.sealed_actions import SealedActions, Want
from engine.table import Table, Words

CELLS_AT_FIRST = 2**15
MANY = 32
"""From this number of keys on, a lookup handles them together (`engine.table`)."""

MOVED_FOR_ADDED = 4
"""Older entries that each new entry moves while there is an older table. The older table is empty long before the new
one is full."""

READ_FROM = 2**40
"""Positions from here on are those of sealed actions that were read."""

PIECE = 2**16
"""Entries that are put into a table at once when a whole table is filled."""

_two_words = struct.Struct("<QQ").unpack
_one_word = struct.Struct("<Q").unpack
# Copying a fresh hash is cheaper than making one, because making one parses its parameters each time.
_fresh_key = blake2b(digest_size=16).copy
_fresh_mark = blake2b(digest_size=8).copy

Key = bytes
"""The 128-bit digest of an actionId."""


def key_of(action_id: str) -> Key:
    """Give the 128-bit digest of an actionId."""
    hashed = _fresh_key()
    hashed.update(action_id.encode())
    return hashed.digest()


def key_of_logged(action_id: str) -> Key:
    """Give the digest of an actionId of the log, where what was erased has only its digest."""
    return key_in(action_id) if is_erased(action_id) else key_of(action_id)


def mark_of(user_id: str, board_id: str, reason: str, value: int | None = None) -> int:
    """Give the 64-bit mark of what an action was applied to. Ids have no control characters, so NUL separates them."""
    hashed = _fresh_mark()
    what = f"{user_id}\0{board_id}\0{reason}" if value is None else f"{user_id}\0{board_id}\0{reason}\0{value}"
    hashed.update(what.encode())
    word: int = _one_word(hashed.digest())[0]
    return word


class Actions:
    """The index of applied actions. Finding and adding are O(1)."""

    def __init__(self, sealed: SealedActions | None = None) -> None:
        self.sealed = SealedActions() if sealed is None else sealed
        self._lately_forgotten: list[int] = []
        self._digests = array("Q")
        self._seqs = array("Q")
        self._marks = array("Q")
        self._table = Table(CELLS_AT_FIRST)
        self._older: Table | None = None
        self._moved = self._behind = 0

    def __len__(self) -> int:
        return self.sealed.count + len(self._seqs)

    @property
    def recent(self) -> int:
        """The number of actions that are in memory."""
        return len(self._seqs)

    @property
    def recent_bytes(self) -> int:
        cells = self._table.cells + (0 if self._older is None else self._older.cells)
        return 32 * len(self._seqs) + 4 * cells

    @property
    def bytes(self) -> int:
        """The memory of all of it."""
        return self.recent_bytes + self.sealed.memory_bytes

    def unread(self, keys: Sequence[Key]) -> list[Want]:
        """List what must be read from the disk before these actions can be looked up; most need nothing."""
        return self.sealed.unread(keys) if self.sealed.count else []

    def find(self, key: Key) -> int:
        """Give the position of an action; -1 if it was never applied."""
        return self.find_all((key,))[0]

    def find_all(self, keys: Sequence[Key]) -> list[int]:
        """Give the position of each of these actions; -1 for an action that was never applied."""
        if len(keys) < MANY:
            return self._find_each(keys)
        words = _words(b"".join(keys))
        digests = np.frombuffer(self._digests, np.uint64)
        entries = self._table.find_all(words, digests)
        if self._older is not None:
            missing = np.flatnonzero(entries == 0)
            pairs = words.reshape(-1, 2)[missing].reshape(-1)
            entries[missing] = self._older.find_all(pairs, digests)
        positions: list[int] = (entries.astype(np.int64) - 1).tolist()
        return self._with_read(keys, positions) if self.sealed.places else positions

    def _find_each(self, keys: Sequence[Key]) -> list[int]:
        table, older, digests = self._table, self._older, self._digests
        positions: list[int] = []
        for key in keys:
            high, low = _two_words(key)
            entry = table.find(high, low, digests)
            if not entry and older is not None:
                entry = older.find(high, low, digests)
            positions.append(entry - 1)
        return self._with_read(keys, positions) if self.sealed.places else positions

    def _with_read(self, keys: Sequence[Key], positions: list[int]) -> list[int]:
        """Complete positions by what was read of sealed actions."""
        places = self.sealed.places
        for at, key in enumerate(keys):
            if positions[at] < 0 and (place := places.get(key)) is not None:
                positions[at] = READ_FROM + place
        return positions

    def seq_at(self, position: int) -> int:
        """Give the seq of the event that applied the action at this position."""
        return self._seqs[position] if position < READ_FROM else self.sealed.seq_at(position - READ_FROM)

    def mark_at(self, position: int) -> int:
        """Give the mark of user, board and reason of the action at this position."""
        return self._marks[position] if position < READ_FROM else self.sealed.mark_at(position - READ_FROM)

    def is_forgotten(self, action_id: str) -> bool:
        """Whether this applied action is one of a user who was erased."""
        return self.mark_at(self.find(key_of(action_id))) == FORGOTTEN

    def count_remembered(self, seqs: Iterable[int]) -> int:
        """Count those of these events whose action is not one of a user who was erased. O(seqs · log actions)."""
        return sum(not self._was_forgotten(seq) for seq in seqs)

    def _was_forgotten(self, seq: int) -> bool:
        if seq <= self.sealed.last_seq:
            return seq in self.sealed.forgotten
        return self._marks[bisect_left(self._seqs, seq)] == FORGOTTEN

    def add(self, keys: Sequence[Key], first_seq: int, marks: Sequence[int]) -> None:
        """Add actions that are not in the index yet. Their events have the seqs from `first_seq` on, without a gap."""
        assert (self._seqs[-1] if self._seqs else self.sealed.last_seq) < first_seq
        self._extend(column_of(b"".join(keys)), range(first_seq, first_seq + len(keys)), marks)

    def _extend(self, digests: array[int], seqs: Sequence[int], marks: Sequence[int]) -> None:
        """Add entries: two words each in `digests`."""
        begun, count = len(self._seqs), len(seqs)
        self._digests += digests
        self._seqs.extend(seqs)
        self._marks.extend(marks)
        if begun + count > self._table.holds:  # this counts the entries that still have to be moved
            self._grow(begun, count)
        if count < MANY:
            for entry, high in enumerate(digests[0::2], begun + 1):
                self._table.add(high, entry)
        else:
            self._table.add_all(np.frombuffer(digests, np.uint64)[0::2], begun + 1)
        if self._older is not None:
            self._move(MOVED_FOR_ADDED * count)

    def _grow(self, begun: int, more: int) -> None:
        """Begin a table of at least twice the size, for `more` entries and all before them."""
        self._move(self._behind)  # moves something only if one `add` brings as many entries as a table holds
        cells = 2 * self._table.cells
        while cells // 4 * 3 < begun + more:
            cells *= 2
        self._older, self._table = self._table, Table(cells)
        self._moved, self._behind = 0, begun

    def _move(self, count: int) -> None:
        """Move `count` older entries into the new table. The older table is dropped with its last entry."""
        while count > 0 and self._moved < self._behind:
            start, stop = self._moved, min(self._moved + min(count, PIECE), self._behind)
            self._table.add_all(np.frombuffer(self._digests, np.uint64)[2 * start : 2 * stop : 2], start + 1)
            count -= stop - start
            self._moved = stop
        if self._moved == self._behind:
            self._older = None

    def forget(self, seqs: Iterable[int]) -> None:
        """Forget what the actions of these events were applied to; they stay used. O(actions)."""
        self._marks = self._marks[:]  # images share the array
        for seq in seqs:
            self._lately_forgotten.append(seq)
            if seq <= self.sealed.last_seq:
                self.sealed.forgotten.add(seq)
                continue
            position = bisect_left(self._seqs, seq)
            if position < len(self._seqs) and self._seqs[position] == seq:
                self._marks[position] = FORGOTTEN

    def capture(self) -> ActionsImage:
        """Share the arrays with an image, and note their length now. O(1)."""
        return ActionsImage(count=len(self._seqs), digests=self._digests, seqs=self._seqs, marks=self._marks)

    def capture_to_seal(self) -> ActionsImage:
        """Share the arrays with who seals some of these actions. `take_sealed` ends what this begins."""
        self._lately_forgotten.clear()
        return self.capture()

    def take_sealed(self, sealed: SealedActions, rest: Actions) -> None:
        """Let go of the actions that `sealed` has now. `rest` are those after them, as they were at `capture_to_seal`.

        What came or was forgotten since then is added here. O(what came since).
        """
        gone = sealed.count - self.sealed.count
        begun = gone + rest.recent
        rest._extend(self._digests[2 * begun :], self._seqs[begun:], self._marks[begun:])
        sealed.forgotten.update(seq for seq in self._lately_forgotten if seq <= sealed.last_seq)
        marks = self._marks[gone:]
        self.sealed, self._digests, self._seqs, self._marks = sealed, rest._digests, rest._seqs, marks
        self._table, self._older, self._moved, self._behind = rest._table, rest._older, rest._moved, rest._behind

    @classmethod
    def from_image(cls, image: ActionsImage, sealed: SealedActions | None = None, *, owned: bool = False) -> Actions:
        """Make the index of an image. `owned`: it is nobody else's (`engine.image`). O(actions in memory)."""
        actions = cls(sealed)
        cells = CELLS_AT_FIRST
        while cells < 2 * image.count:
            cells *= 2
        actions._digests = image.digests if owned else image.digests[: 2 * image.count]
        actions._seqs = image.seqs if owned else image.seqs[: image.count]
        actions._marks = image.marks if owned else image.marks[: image.count]
        actions._table = Table(cells)
        actions._behind = image.count
        actions._move(image.count)
        return actions

    def _check(self) -> None:
        count = len(self._seqs)
        assert len(self._digests) == 2 * count
        assert len(self._marks) == count
        assert all(a < b for a, b in zip(self._seqs, self._seqs[1:], strict=False))
        assert not count or self._seqs[0] > self.sealed.last_seq
        here = chain(range(1, self._moved + 1), range(self._behind + 1, count + 1))
        assert sorted(self._table.entries()) == list(here)
        if self._older is None:
            assert self._moved == self._behind
        else:
            assert sorted(self._older.entries()) == list(range(1, self._behind + 1))
        for table in (self._table, self._older):
            assert table is None or table.count == len(table.entries()) <= table.holds
        keys = [self._digests[at : at + 2] for at in range(0, 2 * count, 2)]
        packed = [struct.pack("<QQ", *key) for key in keys]
        assert self.find_all(packed) == [self.find(key) for key in packed] == list(range(count))


def _words(data: bytes) -> Words:
    """View bytes as 64-bit words, little endian on every machine."""
    return np.frombuffer(data, "<u8").astype(np.uint64, copy=False)
