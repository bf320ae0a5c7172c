"""The keys of a board's order, and a compact list of them. Pure.

    key = (flip ^ score) << 85  |  reached_seq << 32  |  slot              53 + 53 + 32 bits

    keys = CompactKeys.of([key, …], base)              a sorted list of keys: 12 bytes for each
    keys[3], keys[0:2], len(keys)                      keys are integers again when somebody reads them

A key is an integer of 48 bytes, and a list has 8 more for each. On a large board, that is most of what a user takes.
And a bisection waits for the memory of each integer that it meets. A compact list has two arrays instead:

    codes   (flip ^ score) - base << 34  |  reached_seq      one word for each key: 30 + 34 bits
    slots                                                    32 bits for each

`base` is the least first word whose code fits: 0 if the least score is the best, else that of the score 2^30 - 1. A key
with a score or seq beyond these bits does not fit (`fits`). It needs a list of integers.

Codes sort as their keys do, because no event reaches two scores on one board: no two codes are equal.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import overload

import numpy as np
from numpy.typing import NDArray

SLOT_BITS = 32
SEQ_BITS = 53
SCORE_SHIFT = SLOT_BITS + SEQ_BITS
SLOT_MASK = (1 << SLOT_BITS) - 1
SEQ_MASK = (1 << SEQ_BITS) - 1

CODE_SCORES = 1 << 30
CODE_SEQ_BITS = 34
CODE_SEQS = 1 << CODE_SEQ_BITS

Codes = NDArray[np.uint64]


def base_of(flip: int) -> int:
    """Give the base of the codes of a board."""
    return flip // CODE_SCORES * CODE_SCORES


def codes_of(flip: int, scores: Codes, seqs: Codes) -> Codes:
    """Give the codes of keys that fit."""
    return (scores ^ np.uint64(flip)) - np.uint64(base_of(flip)) << np.uint64(CODE_SEQ_BITS) | seqs


class CompactKeys:
    """A sorted list of keys that fit, as far as `Order` and the library need one."""

    __slots__ = ("base", "codes", "slots")

    def __init__(self, base: int, codes: array[int], slots: array[int]) -> None:
        self.base, self.codes, self.slots = base, codes, slots

    @classmethod
    def of(cls, keys: Iterable[int], base: int) -> CompactKeys:
        """Make a list of sorted keys, all of which fit."""
        compact = cls(base, array("Q"), array("I"))
        compact.extend(keys)
        return compact

    def __len__(self) -> int:
        return len(self.codes)

    def fits(self, key: int) -> bool:
        """Whether a key has a code."""
        return 0 <= (key >> SCORE_SHIFT) - self.base < CODE_SCORES and key >> SLOT_BITS & SEQ_MASK < CODE_SEQS

    def place(self, key: int) -> int:
        """Bisect: give the number of lower keys. The key need not fit."""
        score, seq = (key >> SCORE_SHIFT) - self.base, key >> SLOT_BITS & SEQ_MASK
        codes = self.codes
        code = (score << CODE_SEQ_BITS) + min(seq, CODE_SEQS)
        place = bisect_left(codes, code)
        if place < len(codes) and codes[place] == code and self.slots[place] < key & SLOT_MASK:
            place += 1
        return place

    @overload
    def __getitem__(self, at: int) -> int: ...
    @overload
    def __getitem__(self, at: slice) -> list[int]: ...
    def __getitem__(self, at: int | slice) -> int | list[int]:
        base = self.base
        if isinstance(at, int):
            code = self.codes[at]
            score = (code >> CODE_SEQ_BITS) + base
            return score << SCORE_SHIFT | (code & (CODE_SEQS - 1)) << SLOT_BITS | self.slots[at]
        return [
            (code >> CODE_SEQ_BITS) + base << SCORE_SHIFT | (code & (CODE_SEQS - 1)) << SLOT_BITS | slot
            for code, slot in zip(self.codes[at], self.slots[at], strict=True)
        ]

    def __iter__(self) -> Iterator[int]:
        return iter(self[:])

    def __delitem__(self, at: int | slice) -> None:
        del self.codes[at]
        del self.slots[at]

    def insert(self, place: int, key: int) -> None:
        self.codes.insert(place, self._code(key))
        self.slots.insert(place, key & SLOT_MASK)

    def append(self, key: int) -> None:
        self.insert(len(self.codes), key)

    def extend(self, keys: Iterable[int]) -> None:
        for key in keys:
            self.append(key)

    def copy(self) -> CompactKeys:
        return CompactKeys(self.base, self.codes[:], self.slots[:])

    def joined(self, other: CompactKeys) -> CompactKeys:
        """Give a list of these keys, and of the others behind them."""
        return CompactKeys(self.base, self.codes + other.codes, self.slots + other.slots)

    def cut(self, count: int) -> list[CompactKeys]:
        """Give lists of about the same length."""
        bounds = [len(self) * at // count for at in range(count + 1)]
        return [CompactKeys(self.base, self.codes[a:b], self.slots[a:b]) for a, b in pairwise(bounds)]

    def _code(self, key: int) -> int:
        return (key >> SCORE_SHIFT) - self.base << CODE_SEQ_BITS | key >> SLOT_BITS & SEQ_MASK


def plain_keys(flip: int, scores: Codes, reached: Codes, slots: NDArray[np.int64]) -> list[int]:
    """List the keys of these slots, in their order."""
    columns = (scores[slots].tolist(), reached[slots].tolist(), slots.tolist())
    return [(flip ^ score) << SCORE_SHIFT | seq << SLOT_BITS | slot for score, seq, slot in zip(*columns, strict=True)]


Keys = CompactKeys | list[int]
"""A list of an `Order`."""
