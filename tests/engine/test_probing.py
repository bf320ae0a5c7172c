"""Looking many keys up together, each in an array of its own."""

from __future__ import annotations

from array import array
from bisect import bisect_left

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.probing import places_of

WORDS = st.one_of(st.integers(0, 5), st.integers(0, 2**64 - 1))
ARRAYS = st.lists(WORDS, min_size=1, max_size=40).map(lambda words: array("Q", sorted(words)))


@given(st.lists(st.tuples(WORDS, ARRAYS), max_size=20))
def test_each_key_has_the_place_that_a_bisection_gives(asked: list[tuple[int, array[int]]]) -> None:
    """Whatever the lengths of the arrays, with equal words too."""
    keys, arrays = [key for key, _ in asked], [words for _, words in asked]
    found = places_of(np.array(keys, np.uint64), arrays)
    assert found.tolist() == [bisect_left(words, key) for key, words in asked]


@pytest.mark.parametrize("length", [1, 2, 3, 511, 512, 513, 1_023, 1_024])
def test_every_place_of_an_array_is_found(length: int) -> None:
    """Also the one behind its last word."""
    words = array("Q", range(1, 2 * length, 2))
    keys = np.arange(2 * length + 1, dtype=np.uint64)
    assert places_of(keys, [words] * len(keys)).tolist() == [bisect_left(words, key) for key in keys.tolist()]


def test_an_empty_array_is_refused() -> None:
    """It has no word that could be read."""
    with pytest.raises(AssertionError):
        places_of(np.array([1], np.uint64), [array("Q")])
