"""The first rows of a ranking from its columns alone, as in a replay, which keeps no order. O(users). Pure."""

from __future__ import annotations

from array import array
from collections.abc import Collection

import numpy as np


def first_slots(scores: array[int], reached: array[int], flip: int, hidden: Collection[int], count: int) -> list[int]:
    """Give the slots of the first rows, the best first: by score, then by the seq that reached it.

    `flip` is 0 if the least score is the best, else SCORE_MAX. `hidden` slots are left out.
    """
    better = np.frombuffer(scores, np.uint64) ^ np.uint64(flip)
    slots = np.arange(len(better))
    if hidden:
        slots = np.delete(slots, np.fromiter(hidden, np.intp, len(hidden)))
    if len(slots) > count:
        worst = np.partition(better[slots], count - 1)[count - 1]
        slots = slots[better[slots] <= worst]
    order = np.lexsort((np.frombuffer(reached, np.uint64)[slots], better[slots]))
    return [int(slot) for slot in slots[order[:count]]]
