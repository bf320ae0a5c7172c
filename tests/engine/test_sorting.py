"""Sorting a board's keys piece by piece."""

from __future__ import annotations

import random
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine import sorting
from engine.keys import CODE_SCORES, SCORE_SHIFT, SLOT_BITS, CompactKeys
from engine.limits import SCORE_MAX
from engine.sorting import PIECES_MAX, sorted_lists

LOAD = 3
FEW_SCORES = st.sampled_from([0, 1, 2, CODE_SCORES - 1])
ANY_SCORES = FEW_SCORES | st.sampled_from([CODE_SCORES, SCORE_MAX])


@pytest.fixture
def short_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a few keys be many pieces."""
    for name, value in (("PIECE", 5), ("SAMPLES", 2), ("CHUNK", 4)):
        monkeypatch.setattr(sorting, name, value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(FEW_SCORES, max_size=60) | st.lists(ANY_SCORES, max_size=60),
    st.sampled_from([0, SCORE_MAX]),
    st.sets(st.integers(0, 59), max_size=20),
    st.randoms(use_true_random=False),
)
@pytest.mark.usefixtures("short_pieces")
def test_pieces_join_to_what_one_sort_gives(
    scores: list[int], flip: int, hidden: set[int], chance: random.Random
) -> None:
    """Whatever is equal, whoever is hidden, and whether or not the keys fit into codes; in lists of one length."""
    hidden = {slot for slot in hidden if slot < len(scores)}
    seqs = list(range(1, len(scores) + 1))
    chance.shuffle(seqs)
    shown = [slot for slot in range(len(scores)) if slot not in hidden]
    expected = sorted((flip ^ scores[slot]) << SCORE_SHIFT | seqs[slot] << SLOT_BITS | slot for slot in shown)
    lists = list(sorted_lists(flip, np.array(scores, np.uint64), np.array(seqs, np.uint64), hidden, LOAD))
    assert [key for keys in lists for key in keys] == expected
    assert all(len(keys) == LOAD for keys in lists[:-1])


def test_more_slots_than_a_byte_has_pieces_are_sorted_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pieces are longer then, and the hidden slots are still in none."""
    monkeypatch.setattr(sorting, "PIECE", 2)
    count = 4 * PIECES_MAX
    seqs = np.arange(1, count + 1, dtype=np.uint64)
    lists = list(sorted_lists(0, seqs[::-1].copy(), seqs, {0, count - 1}, LOAD))
    assert [key >> SCORE_SHIFT for keys in lists for key in keys] == list(range(2, count))


def test_sorting_holds_little_beside_what_remains(monkeypatch: pytest.MonkeyPatch) -> None:
    """To sort all keys at once took 41 bytes a user more; a board of this size has many pieces of another length."""
    monkeypatch.setattr(sorting, "PIECE", 2**13)
    count = 2**18
    chance = np.random.default_rng(1)
    scores, reached = chance.integers(0, 10**6, count, np.uint64), np.arange(1, count + 1, dtype=np.uint64)
    tracemalloc.start()
    try:
        lists = list(sorted_lists(SCORE_MAX, scores, reached, (), 512))
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert all(isinstance(keys, CompactKeys) for keys in lists)
    assert peak - held < 6 * count
