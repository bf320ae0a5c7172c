"""The order of a board as it was at one event, while the board goes on.

    pinned = board.pin()
    keys = pinned.keys_after(None, 1_000)             the first keys as they were; later: after the last one of these
    board.unpin(pinned)

Theory. Between two pages of a list users move: one that climbs past the reader would be skipped, one that falls would
be listed twice. So a list shows one moment. To copy the order would stop the writer for long, and take 12 bytes a user.
Instead the board tells each pinned order of the first change of a user, and the pinned order keeps the key that this
user had. The old order is then the present one without the users that changed, and with the keys that they had.

Rules:
- Names are of now, not of that moment. Pinned are order and scores, which are in the keys, and the ranks of before.
- A pinned order keeps at most `changes_max` keys. With one more it `ended`: it keeps nothing and gives nothing.

Invariants:
- A slot is in `_changed` if its key changed since the pin, and only then. `_old` has the keys that these slots had.
- Slots from `_slots` on did not exist at the pin.
"""

from __future__ import annotations

from heapq import merge
from itertools import islice

from sortedcontainers import SortedList

from engine.order import Order
from engine.past_ranks import NOTHING, PastRanks

CHANGES_MAX = 50_000
"""Changed users of a pinned order: some 10 MB."""


class PinnedOrder:
    """See above. `count` is the number of ranked users at the event `seq`."""

    __slots__ = (
        "_changed", "_changes_max", "_old", "_order", "_slot_mask", "_slots", "count", "ended", "past_ranks", "seq",
    )  # fmt: skip

    def __init__(
        self, order: Order, seq: int, *, slots: int, slot_mask: int, past_ranks: PastRanks = NOTHING,
        changes_max: int = CHANGES_MAX,
    ) -> None:  # fmt: skip
        self.seq = seq
        self.past_ranks = past_ranks
        self.count = len(order)
        self.ended = False
        self._order = order
        self._slots = slots
        self._slot_mask = slot_mask
        self._changes_max = changes_max
        self._changed: set[int] = set()
        self._old: SortedList[int] = SortedList()

    def note(self, slot: int, key: int | None) -> None:
        """Note that the key of a slot is about to change. None: it is not in the order."""
        if slot >= self._slots or slot in self._changed:
            return
        if len(self._changed) >= self._changes_max:
            self.end()
            return
        self._changed.add(slot)
        if key is not None:
            self._old.add(key)

    def end(self) -> None:
        """Drop all that is kept."""
        self.ended = True
        self._slots = 0
        self._changed = set()
        self._old = SortedList()

    def keys_after(self, key: int | None, count: int) -> list[int]:
        """Give up to `count` keys after this one, as they were at the pin; None: the first. It must not have ended."""
        assert not self.ended
        changed, mask, slots = self._changed, self._slot_mask, self._slots
        now = self._order.irange(key, inclusive=(False, True))
        unchanged = (one for one in now if (slot := one & mask) not in changed and slot < slots)
        return list(islice(merge(unchanged, self._old.irange(key, inclusive=(False, True))), count))

    def _check(self) -> None:
        assert len(self._old) <= len(self._changed) <= self._changes_max
        assert all(slot < self._slots for slot in self._changed)
        assert {key & self._slot_mask for key in self._old} <= self._changed
        assert self.ended or len(self.keys_after(None, 2**62)) == self.count
