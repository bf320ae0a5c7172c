"""Sorting the keys of a board, piece by piece. Pure.

    lists = sorted_lists(flip, scores, reached, hidden, load)       lists of `load` keys each, as an `Order` has them

A board of 10,000,000 users is sorted at a start. To sort it at once would take 41 bytes a user beside the 12 that
remain. So a sample of the keys gives the bounds of pieces, and one byte for each slot tells in which piece it is. Then
one piece after the other is sorted, in the processor's caches.

If all keys fit into codes (`engine.keys`), a key is placed by its code. If one does not fit, all are placed by their
scores alone: users of one score are in one piece then, however many they are.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Iterator

import numpy as np
from numpy.typing import NDArray

from engine.keys import CODE_SCORES, CODE_SEQS, Codes, CompactKeys, Keys, base_of, codes_of, plain_keys

PIECE = 2**17
"""About how many keys are sorted at once. With 2^16, 10,000,000 took a tenth longer; with 2^18 they left 10 MB more."""

PIECES_MAX = 255
"""A byte numbers the piece of a slot, and has one value more: the hidden slots are in none."""

SAMPLES = 64
"""Keys of the sample for each piece. The pieces' lengths then differ by an eighth, give or take."""

CHUNK = 2**16
"""Slots that are numbered at once."""

Slots = NDArray[np.int64]


def sorted_lists(flip: int, scores: Codes, reached: Codes, hidden: Collection[int], load: int) -> Iterator[Keys]:
    """Sort the keys of all slots but the hidden ones; yield lists of `load` keys, compact where all of a list fit."""
    rest = np.empty(0, np.int64)
    for piece in _sorted_pieces(flip, scores, reached, hidden):
        slots = np.concatenate((rest, piece))
        whole = len(slots) // load * load
        yield from _lists_of(flip, scores, reached, slots[:whole], load)
        rest = slots[whole:]
    yield from _lists_of(flip, scores, reached, rest, load)


def _sorted_pieces(flip: int, scores: Codes, reached: Codes, hidden: Collection[int]) -> Iterator[Slots]:
    """Yield all slots but the hidden ones, in the order of their keys."""
    count = len(scores)
    if not count:
        return
    fit = scores.max() < CODE_SCORES and reached.max() < CODE_SEQS
    words: Callable[[Slots | slice], Codes] = (
        (lambda slots: codes_of(flip, scores[slots], reached[slots])) if fit else
        (lambda slots: scores[slots] ^ np.uint64(flip))
    )  # fmt: skip
    pieces = min(-(-count // PIECE), PIECES_MAX)
    sample = np.sort(words(np.linspace(0, count, pieces * SAMPLES, endpoint=False).astype(np.int64)))
    bounds, numbers = sample[SAMPLES::SAMPLES], np.empty(count, np.uint8)
    for start in range(0, count, CHUNK):
        chunk = slice(start, start + CHUNK)
        numbers[chunk] = np.searchsorted(bounds, words(chunk), side="right")
    numbers[list(hidden)] = PIECES_MAX
    for number in range(pieces):
        slots = np.flatnonzero(numbers == number)
        yield slots[np.argsort(words(slots)) if fit else np.lexsort((reached[slots], words(slots)))]


def _lists_of(flip: int, scores: Codes, reached: Codes, slots: Slots, load: int) -> Iterator[Keys]:
    """Cut the keys of sorted slots into lists."""
    some, seqs, base = scores[slots], reached[slots], np.uint64(base_of(flip))
    words = some ^ np.uint64(flip)
    fits = (words >= base) & (words - base < np.uint64(CODE_SCORES)) & (seqs < np.uint64(CODE_SEQS))
    codes = codes_of(flip, some, seqs).view(np.uint8).data
    narrow = slots.astype(np.uint32).view(np.uint8).data
    for start in range(0, len(slots), load):
        stop = min(start + load, len(slots))
        if fits[start:stop].all():
            # Copied at once from the views: what is freed between the lists would leave holes of no use.
            compact = CompactKeys(int(base), array("Q"), array("I"))
            compact.codes.frombytes(codes[8 * start : 8 * stop])
            compact.slots.frombytes(narrow[4 * start : 4 * stop])
            yield compact
        else:
            yield plain_keys(flip, scores, reached, slots[start:stop])
