"""The index of applied actions."""

from __future__ import annotations

import struct
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.actions import CELLS_AT_FIRST, MANY, MOVED_FOR_ADDED, Actions, Key, key_of, mark_of


def test_an_action_is_found_once_it_was_added_and_not_before() -> None:
    """Position, seq and mark are those given."""
    actions = Actions()
    key = key_of("a-1")
    assert actions.find(key) == -1
    actions.add([key], 7, [mark_of("u", "main", "r")])
    assert actions.find(key) == 0
    assert actions.seq_at(0) == 7
    assert actions.mark_at(0) == mark_of("u", "main", "r")
    assert actions.find(key_of("a-2")) == -1


def test_marks_tell_user_board_and_reason_apart() -> None:
    """Moving a character from one part to the next makes another mark."""
    assert len({mark_of("ab", "c", "d"), mark_of("a", "bc", "d"), mark_of("a", "b", "cd")}) == 3


@pytest.mark.parametrize("together", [1, MANY - 1, MANY, 4_096])
def test_many_actions_grow_the_table_and_all_stay_found(together: int) -> None:
    """One by one, and in frames of any length: it doubles more than once, and the invariants hold."""
    actions = Actions()
    count = 4 * CELLS_AT_FIRST
    for first in range(1, count + 1, together):
        seqs = range(first, min(first + together, count + 1))
        keys = [key_of(f"action-{seq}") for seq in seqs]
        assert actions.find_all(keys) == [-1] * len(keys)
        actions.add(keys, first, seqs)
        assert actions.find_all(keys) == [seq - 1 for seq in seqs]
        # Half way through a move both tables count.
        assert actions.find(key_of("action-1")) == 0
    actions._check()
    assert len(actions) == count
    assert actions.find(key_of("action-0")) == -1
    assert 32 * count < actions.bytes < 45 * count


@pytest.mark.parametrize("together", [1, 1_000])
def test_a_table_that_grows_moves_a_few_entries_at_a_time(together: int) -> None:
    """No addition costs more than some others do, and the older table is gone long before the newer one is full."""
    actions = Actions()
    moved = growths = 0
    for first in range(1, 8 * CELLS_AT_FIRST, together):
        actions.add([key_of(str(seq)) for seq in range(first, first + together)], first, [0] * together)
        if actions._older is not None:
            moved = 0 if actions._moved <= MOVED_FOR_ADDED * together else moved
            assert actions._moved - moved <= MOVED_FOR_ADDED * together
            growths += not moved
            moved = actions._moved
            assert actions._table.count < actions._table.holds * 3 // 4
    assert growths >= 3
    assert actions._older is None
    actions._check()


@pytest.mark.parametrize("together", [1, 100])
def test_digests_that_fall_into_one_cell_are_kept_apart(together: int) -> None:
    """Keys that differ only in bits which the cell is not taken from still are different actions."""
    actions = Actions()
    words = [(5, low) for low in range(20)] + [(5 + (n << 30), 3) for n in range(1, 200)]
    words += [(5 + (n << 40), 3) for n in range(1, 200)] + [(2**64 - 1, 2**64 - 1)]
    keys = [struct.pack("<QQ", *pair) for pair in words]
    for start in range(0, len(keys), together):
        some = keys[start : start + together]
        assert actions.find_all(some) == [-1] * len(some)
        actions.add(some, start + 1, [0] * len(some))
    actions._check()
    assert [actions.find(key) for key in keys] == list(range(len(keys)))
    assert actions.find_all(keys) == list(range(len(keys)))


@given(st.lists(st.integers(1, 60), max_size=12), st.data())
def test_it_finds_what_a_dict_finds(sizes: list[int], data: st.DataObject) -> None:
    """From eight cells on, so that it is growing nearly always; asked for some that are there and some that are not."""
    model: dict[Key, int] = {}
    with mock.patch("engine.actions.CELLS_AT_FIRST", 8):
        actions = Actions()
        for size in sizes:
            keys = [key_of(f"{len(model)}-{number}") for number in range(size)]
            actions.add(keys, len(model) + 1, [len(model)] * size)
            model |= {key: len(model) + number for number, key in enumerate(keys)}
            asked = data.draw(st.lists(st.sampled_from([*model, *map(key_of, "abcdef")]), min_size=1, max_size=50))
            assert actions.find_all(asked) == [model.get(key, -1) for key in asked]
            assert actions.find(asked[0]) == model.get(asked[0], -1)
        actions._check()
        copy = Actions.from_image(actions.capture())
        copy._check()
        assert len(copy) == len(model)


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=6), unique=True, max_size=80), st.data())
def test_an_image_holds_what_was_there_when_it_was_taken(ids: list[str], data: st.DataObject) -> None:
    """Actions that are added after the capture, to the shared arrays, are not in the copy."""
    cut = data.draw(st.integers(0, len(ids)))
    actions = Actions()
    for seq, action_id in enumerate(ids[:cut], 1):
        actions.add([key_of(action_id)], seq, [seq * 3])
    image = actions.capture()
    for seq, action_id in enumerate(ids[cut:], cut + 1):
        actions.add([key_of(action_id)], seq, [seq * 3])
    copy = Actions.from_image(image)
    copy._check()
    assert [copy.find(key_of(action_id)) for action_id in ids] == [*range(cut), *[-1] * (len(ids) - cut)]
