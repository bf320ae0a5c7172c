"""Looking up many keys together, each in a sorted array of its own. Pure.

    places_of(keys, arrays)         as [bisect_left(array, key) for key, array in zip(keys, arrays)]

Theory. A bisection waits for the memory of each word that it meets before it knows which is next, and Python makes an
object of each. Here numpy takes one step of all bisections at once, so the processor waits for many words together.
The arrays lie anywhere. So words are read by their addresses: `_MEMORY` is an array over all that a process may have.

Rules:
- Only words of the given arrays are read. Each array has words of 64 bits, and at least one.
- The caller holds the arrays, and nobody changes them meanwhile: only the thread of the loop changes an order.
- Nothing is ever written by address.

`bench/engine.py` has the figure: it is in a frame of 1,000.
"""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

WORD_BYTES = 8
_WORDS = 2**57 // WORD_BYTES
"""No system gives a process more than 57 bits of addresses."""

_MEMORY = np.ctypeslib.as_array((ctypes.c_uint64 * _WORDS).from_address(WORD_BYTES))  # nothing lies at address 0
_MEMORY.flags.writeable = False


def places_of(keys: NDArray[np.uint64], arrays: Sequence[array[int]]) -> NDArray[np.int64]:
    """Give for each key the number of lower words in its array. O(log of the longest array) steps."""
    count = len(keys)
    starts = np.fromiter([each.buffer_info()[0] for each in arrays], np.int64, count) // WORD_BYTES - 1
    lengths = np.fromiter(map(len, arrays), np.int64, count)
    assert lengths.all()
    places = np.zeros(count, np.int64)
    step = 1 << int(lengths.max(initial=1)).bit_length() - 1
    while step:
        probes = places + step
        lower = _MEMORY[starts + np.minimum(probes, lengths) - 1] < keys
        places += step * (lower & (probes <= lengths))
        step //= 2
    return places
