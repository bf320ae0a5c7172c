"""Which actions were applied: actionId → the seq of its event. This is what makes "exactly once" true, for ever.

It only grows, so it is built to be small and to be copied without stopping anything:

- An actionId is kept as its 128-bit BLAKE2b digest; two ids that meet in it are not to be expected before 2^64 actions.
  Beside it stand the event's seq and a 64-bit mark of user, board and reason, by which a repeated actionId that means
  something else is found out.
- The entries lie in append-only arrays, in the order of their seq: 32 bytes an action. A snapshot is a prefix of them.
- Where an entry lies is found through an open-addressing table of 32-bit positions, cut into 4,096 shards by digest, so
  that a growing table is rebuilt a shard at a time and never in one long pause. At most 3/4 full: 5.3 to 10.7 bytes an
  action. A dict of digests would cost about 190 bytes an action; a set of the ids as strings 130, and without the seq.

Invariants:
- `len(_digests) == 2 * len(_seqs) == 2 * len(_marks)`; `_seqs` is strictly increasing.
- Each position + 1 stands exactly once in the shard of its digest; 0 is an empty cell.
- Each shard's length is a power of two, and at least a quarter of its cells are empty. Steps are odd, so they come by
  every cell.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from itertools import chain

from engine.image import ActionsImage

SHARDS = 4_096
SHARD_BITS = 12
STEP_SHIFT = 40
"""The cell of an entry is taken from the bits of its digest that follow the shard's; where that one is taken it goes on
in steps of its own, the bits from here on. Steps of one would pile entries up, and each that is met on the way to an
empty cell has its digest looked at: memory that no cache has."""

CELLS_AT_FIRST = 8

_two_words = struct.Struct("<QQ").unpack
_one_word = struct.Struct("<Q").unpack
# A copy of a fresh hash costs less than making one, whose parameters would have to be read each time.
_fresh_key = blake2b(digest_size=16).copy
_fresh_mark = blake2b(digest_size=8).copy

Key = tuple[int, int]


def key_of(action_id: str) -> Key:
    """Give the 128-bit digest of an actionId as two 64-bit words."""
    hashed = _fresh_key()
    hashed.update(action_id.encode())
    words: Key = _two_words(hashed.digest())
    return words


def mark_of(user_id: str, board_id: str, reason: str) -> int:
    """Give the 64-bit mark of what an action was applied to. Ids have no control characters, so a NUL parts them."""
    hashed = _fresh_mark()
    hashed.update(f"{user_id}\0{board_id}\0{reason}".encode())
    word: int = _one_word(hashed.digest())[0]
    return word


class Actions:
    """The index of applied actions. Finding and adding are O(1)."""

    def __init__(self) -> None:
        self._digests = array("Q")
        self._seqs = array("Q")
        self._marks = array("Q")
        self._shards = [array("I", bytes(4 * CELLS_AT_FIRST)) for _ in range(SHARDS)]
        self._filled = array("I", bytes(4 * SHARDS))

    def __len__(self) -> int:
        return len(self._seqs)

    @property
    def bytes(self) -> int:
        """The memory that the index holds, in bytes."""
        cells = sum(len(shard) for shard in self._shards)
        return 32 * len(self._seqs) + 4 * cells

    def find(self, key: Key) -> int:
        """Give the position of an action, -1 if it was never applied."""
        return self.find_all((key,))[0]

    def find_all(self, keys: Iterable[Key]) -> list[int]:
        """Give the position of each of these actions, -1 for one that was never applied."""
        shards, digests = self._shards, self._digests
        found = []
        for high, low in keys:
            shard = shards[high & (SHARDS - 1)]
            last = len(shard) - 1
            cell = (high >> SHARD_BITS) & last
            entry = shard[cell]
            if entry:
                step = high >> STEP_SHIFT | 1
                while entry:
                    at = 2 * (entry - 1)
                    if digests[at] == high and digests[at + 1] == low:
                        break
                    cell = (cell + step) & last
                    entry = shard[cell]
            found.append(entry - 1)
        return found

    def seq_at(self, position: int) -> int:
        """Give the seq of the event that applied the action at this position."""
        return self._seqs[position]

    def mark_at(self, position: int) -> int:
        """Give the mark of user, board and reason of the action at this position."""
        return self._marks[position]

    def add(self, keys: Sequence[Key], first_seq: int, marks: Sequence[int]) -> None:
        """Take in actions that are not here yet, whose events have the seqs from `first_seq` on."""
        seqs = self._seqs
        assert not seqs or seqs[-1] < first_seq
        begun = len(seqs)
        self._digests.extend(chain.from_iterable(keys))
        seqs.extend(range(first_seq, first_seq + len(keys)))
        self._marks.extend(marks)
        self._place([high for high, _ in keys], begun)

    def _place(self, highs: Iterable[int], position: int) -> None:
        """Let the entries from a position on be found, by the first words of their digests."""
        shards, fills = self._shards, self._filled
        for entry, high in enumerate(highs, position + 1):
            number = high & (SHARDS - 1)
            shard = shards[number]
            filled = fills[number] = fills[number] + 1
            last = len(shard) - 1
            if filled * 4 > last * 3 + 3:
                shard = self._grow(number)
                last = len(shard) - 1
            cell = (high >> SHARD_BITS) & last
            if shard[cell]:
                step = high >> STEP_SHIFT | 1
                while shard[cell]:
                    cell = (cell + step) & last
            shard[cell] = entry

    def _grow(self, number: int) -> array[int]:
        """Double one shard: the cost is that of one shard, 1/4096 of the whole."""
        old = self._shards[number]
        digests = self._digests
        last = 2 * len(old) - 1
        new = array("I", bytes(4 * (last + 1)))
        for entry in old:
            if entry:
                high = digests[2 * (entry - 1)]
                cell = (high >> SHARD_BITS) & last
                if new[cell]:
                    step = high >> STEP_SHIFT | 1
                    while new[cell]:
                        cell = (cell + step) & last
                new[cell] = entry
        self._shards[number] = new
        return new

    def capture(self) -> ActionsImage:
        """Share the arrays and say how far they go. O(1)."""
        return ActionsImage(count=len(self._seqs), digests=self._digests, seqs=self._seqs, marks=self._marks)

    @classmethod
    def from_image(cls, image: ActionsImage) -> Actions:
        """Make the index of an image; nothing is shared with it. O(actions)."""
        actions = cls()
        cells = CELLS_AT_FIRST
        while cells * SHARDS < 2 * image.count:
            cells *= 2
        actions._shards = [array("I", bytes(4 * cells)) for _ in range(SHARDS)]
        actions._digests = image.digests[: 2 * image.count]
        actions._seqs = image.seqs[: image.count]
        actions._marks = image.marks[: image.count]
        actions._place(actions._digests[::2], 0)
        return actions

    def _check(self) -> None:
        count = len(self._seqs)
        assert len(self._digests) == 2 * count
        assert len(self._marks) == count
        assert all(a < b for a, b in zip(self._seqs, self._seqs[1:], strict=False))
        seen = [entry - 1 for shard in self._shards for entry in shard if entry]
        assert sorted(seen) == list(range(count))
        for number, shard in enumerate(self._shards):
            assert len(shard) & (len(shard) - 1) == 0
            filled = sum(1 for entry in shard if entry)
            assert filled == self._filled[number]
            assert filled * 4 <= len(shard) * 3
        for position in range(count):
            assert self.find((self._digests[2 * position], self._digests[2 * position + 1])) == position
