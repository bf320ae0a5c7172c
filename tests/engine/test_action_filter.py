"""The filter of a run: it never misses a key that is there, and seldom finds one that is not."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from engine.action_blocks import Words
from engine.action_filter import BUCKET_ENTRIES, WINDOW, Filter, FilterMaker, Filters, bits_for

WORD = st.integers(0, 2**64 - 1)
# Few values for each part of a key, so that buckets are long and fingerprints are equal.
CLUSTERED = st.sampled_from([0, 1, 2**63 - 1, 2**63, 2**64 - 2, 2**64 - 1]) | WORD
LIKE = st.sampled_from([0, 1, 0xFFFF, 0x10000, 0x10001, 0xFF0000, 0xFFFFFF, 0x1000000, 2**64 - 1]) | WORD


def words(values: list[int]) -> Words:
    return np.array(values, np.uint64)


def random_words(count: int, seed: int) -> Words:
    return np.random.default_rng(seed).integers(0, 2**64, count, np.uint64)


def all_places(made: Filter, highs: Words, lows: Words) -> list[tuple[int, int]]:
    """Ask this filter and another one together; give what the first one said: (number of the key, entry)."""
    found = Filters([Filter.make(words([5]), words([7])), made]).places_all(highs, lows)
    return sorted((key, place) for number, key, place in found if number == 1)


def expected_of(highs: list[int], lows: list[int], bits: int, key: tuple[int, int]) -> list[int]:
    """Say which entries may be a key's, by the definition."""
    return [
        place
        for place, (high, low) in enumerate(zip(highs, lows, strict=True))
        if high >> 64 - bits == key[0] >> 64 - bits and low & 0xFFFFFF == key[1] & 0xFFFFFF
    ]


@given(
    st.lists(st.tuples(CLUSTERED, LIKE), min_size=1, max_size=200), st.lists(st.tuples(CLUSTERED, LIKE), max_size=30)
)
def test_it_finds_the_entries_that_the_definition_names(
    present: list[tuple[int, int]], others: list[tuple[int, int]]
) -> None:
    """One by one and together, for keys that are there and for others; so no key that is there is missed."""
    present.sort()
    highs, lows = [high for high, _ in present], [low for _, low in present]
    made = Filter.make(words(highs), words(lows))
    made._check()
    asked = present + others
    expected = [expected_of(highs, lows, made.bits, key) for key in asked]
    assert [made.places(high, low) for high, low in asked] == expected
    together = all_places(made, words([high for high, _ in asked]), words([low for _, low in asked]))
    assert together == [(number, place) for number, places in enumerate(expected) for place in places]


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 1_000, 2**17])
def test_every_key_of_many_is_found_where_it_is(count: int) -> None:
    """For every number of entries a bucket has about as many as was said."""
    highs, lows = np.sort(random_words(count, 1)), random_words(count, 2)
    made = Filter.make(highs, lows)
    made._check()
    found = set(all_places(made, highs, lows))
    assert {(place, place) for place in range(count)} <= found
    assert all(place in made.places(int(highs[place]), int(lows[place])) for place in range(0, count, 97))
    if count >= BUCKET_ENTRIES:
        assert BUCKET_ENTRIES / 2 <= count / 2**made.bits <= BUCKET_ENTRIES
    if count >= 1_000:
        assert 3.4 * count < made.bytes < 5 * count


@pytest.mark.parametrize("high", [0, 5, 2**64 - 1])
def test_keys_that_fall_into_one_bucket_are_all_found(high: int) -> None:
    """Also the first and the last bucket, and longer than the window; the others stay empty."""
    count = 20 * WINDOW
    lows = random_words(count, 3)
    highs = np.full(count, high, np.uint64)
    made = Filter.make(highs, lows)
    made._check()
    assert {(place, place) for place in range(count)} <= set(all_places(made, highs, lows))
    assert all(place in made.places(high, int(lows[place])) for place in range(count))
    assert made.places(high ^ 1 << 63, int(lows[0])) == []
    assert all_places(made, words([high ^ 1 << 63] * 40), lows[:40]) == []


def test_keys_of_one_fingerprint_are_all_told() -> None:
    """In the order of the entries, and not those of the next bucket."""
    count = 3 * WINDOW
    highs = np.sort(np.concatenate([np.zeros(count, np.uint64), random_words(1_000, 4)]))
    lows = np.full(len(highs), 0xABCDEF, np.uint64)
    made = Filter.make(highs, lows)
    end = int((highs >> np.uint64(64 - made.bits) == 0).sum())
    assert made.places(0, 0x99ABCDEF) == list(range(end))
    assert all_places(made, words([0, 0]), words([0xABCDEF, 0xABCDEE])) == [(0, place) for place in range(end)]


def test_a_key_that_is_not_there_is_seldom_found() -> None:
    """With 24 bits as many as 8 of 2^24. Here all keys share twelve of these bits, so it is 8 of 2^12."""
    count = asked = 2**16
    share = np.uint64(0xFFF)
    lows, other_lows = random_words(count, 5) | share, random_words(asked, 6) | share
    made = Filter.make(np.sort(random_words(count, 7)), lows)
    highs = random_words(asked, 8)
    expected = asked * BUCKET_ENTRIES / 2**12
    assert expected * 0.5 < len(all_places(made, highs, other_lows)) < expected * 1.5
    assert len(all_places(made, random_words(2**18, 9), random_words(2**18, 10))) <= 3


def test_several_filters_are_asked_together() -> None:
    """Each key is found in the filter that has it, whatever the lengths of the filters; one by one too."""
    counts = [1, 2_000, 40, 300]
    keys = [(np.sort(random_words(count, count)), random_words(count, count + 1)) for count in counts]
    filters = Filters(Filter.make(*each) for each in keys)
    highs, lows = (np.concatenate(column) for column in zip(*keys, strict=True))
    found = set(filters.places_all(highs, lows))
    expected = [(number, place) for number, count in enumerate(counts) for place in range(count)]
    assert {(number, key, place) for key, (number, place) in enumerate(expected)} <= found
    assert len(found) < len(expected) + 3
    for key, (number, place) in enumerate(expected):
        assert (number, place) in filters.places(int(highs[key]), int(lows[key]))
    assert Filters([]).places_all(highs, lows) == []


@given(arrays.arrays(np.uint64, st.integers(1, 300)), st.lists(st.integers(0, 300), max_size=5))
def test_it_is_the_same_whatever_pieces_its_keys_come_in(highs: Words, cuts: list[int]) -> None:
    """Empty ones too."""
    highs = np.sort(highs)
    lows = random_words(len(highs), 11)
    maker = FilterMaker(len(highs))
    bounds = [0, *sorted(min(cut, len(highs)) for cut in cuts), len(highs)]
    for begin, end in pairwise(bounds):
        maker.add(highs[begin:end], lows[begin:end])
    made, whole = maker.made(), Filter.make(highs, lows)
    assert made.starts.tolist() == whole.starts.tolist()
    assert (made.prints16.tobytes(), made.prints8) == (whole.prints16.tobytes(), whole.prints8)


def test_the_number_of_buckets_follows_from_the_number_of_entries() -> None:
    """A file is read by it."""
    counts = {1: 1, 8: 1, 16: 1, 17: 2, 32: 2, 2**18: 15, 2**18 + 1: 16, 2**30: 27}
    assert {count: bits_for(count) for count in counts} == counts
