"""The distinct scores of a board, for dense ranks: 1, 2, 2, 3.

    tiers = Tiers([5, 5, 8])             the first words of the keys, in any order
    tiers.add(8); tiers.remove(5)
    tiers.before(8)                      1: the number of distinct lower ones

A dense rank is the number of distinct better scores, and 1. To count them by the board's own order would be O(users).

Invariant: `_order` has each word that `_counts` counts, once, and no count is 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from engine.order import Order


class Tiers:
    """A multiset of integers. Every operation is O(log n)."""

    def __init__(self, words: Iterable[int]) -> None:
        self._counts = Counter(words)
        self._order = Order(self._counts)

    def clone(self) -> Tiers:
        other = Tiers(())
        other._counts = self._counts.copy()
        other._order = self._order.clone()
        return other

    def add(self, word: int) -> None:
        self._counts[word] += 1
        if self._counts[word] == 1:
            self._order.add(word)

    def remove(self, word: int) -> None:
        """Take one away. It must be there."""
        if self._counts[word] == 1:
            del self._counts[word]
            self._order.remove(word)
        else:
            assert self._counts[word] > 1
            self._counts[word] -= 1

    def before(self, word: int) -> int:
        """Count the distinct integers that are lower."""
        return self._order.bisect_left(word)

    def _check(self) -> None:
        assert list(self._order) == sorted(self._counts)
        assert all(count > 0 for count in self._counts.values())
