"""The first rows of a ranking from its columns alone, as in a replay, which keeps no order. O(users). Pure.

The columns are read piece by piece: copies of them would take half as much memory as the users themselves.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection

import numpy as np

PIECE = 2**18
"""Slots that are looked at together."""


def first_slots(scores: array[int], reached: array[int], flip: int, hidden: Collection[int], count: int) -> list[int]:
    """Give the slots of the first rows, the best first: by score, then by the seq that reached it.

    `flip` is 0 if the least score is the best, else SCORE_MAX. `hidden` slots are left out.
    """
    all_scores, all_reached = np.frombuffer(scores, np.uint64), np.frombuffer(reached, np.uint64)
    not_shown = np.fromiter(hidden, np.int64, len(hidden))
    first = np.empty(0, np.int64)
    for start in range(0, len(scores), PIECE):
        piece = np.arange(start, min(start + PIECE, len(scores)))
        slots = np.concatenate((first, np.setdiff1d(piece, not_shown, assume_unique=True) if hidden else piece))
        better = all_scores[slots] ^ np.uint64(flip)
        if len(slots) > count:
            among = better <= np.partition(better, count - 1)[count - 1]
            slots, better = slots[among], better[among]
        first = slots[np.lexsort((all_reached[slots], better))][:count]
    listed: list[int] = first.tolist()
    return listed
