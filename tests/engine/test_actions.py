"""The index of applied actions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.actions import CELLS_AT_FIRST, SHARDS, Actions, key_of, mark_of


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


def test_many_actions_grow_the_shards_and_all_stay_found() -> None:
    """Enough actions that every shard is rebuilt at least once; the invariants hold."""
    actions = Actions()
    count = SHARDS * CELLS_AT_FIRST
    for seq in range(1, count + 1):
        actions.add([key_of(f"action-{seq}")], seq, [seq])
    actions._check()
    assert len(actions) == count
    assert actions.find(key_of("action-0")) == -1
    assert 32 * count < actions.bytes < 45 * count


def test_digests_that_fall_into_one_cell_are_kept_apart() -> None:
    """Keys that differ only in bits which the shard does not look at still are different actions."""
    actions = Actions()
    keys = [(5, low) for low in range(20)] + [(5 + (n << 40), 3) for n in range(1, 20)]
    for seq, key in enumerate(keys, 1):
        assert actions.find(key) == -1
        actions.add([key], seq, [0])
    actions._check()
    assert [actions.find(key) for key in keys] == list(range(len(keys)))


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
