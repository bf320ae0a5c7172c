"""The ordered structure of a board beside a sorted list: positions, moves, and the cutting and joining of chunks."""

from __future__ import annotations

from bisect import bisect_left

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine import order as module
from engine.order import Order

KEYS = st.integers(0, 400)


@pytest.fixture
def short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of a few keys, so that small orders have many."""
    monkeypatch.setattr(module, "CHUNK_KEYS", 4)


def test_an_empty_order_has_nothing_and_takes_anything() -> None:
    """Nothing stands before any key; the first key is at 0; the last one that goes leaves it empty again."""
    order = Order()
    assert len(order) == 0
    assert list(order) == []
    assert order.position(7) == 0
    assert order.between(0, 10) == []
    assert order.add(9) == 0
    assert order.remove(9) == 0
    assert order.add(5) == 0
    order._check()
    assert list(order) == [5]


def test_positions_over_many_groups_of_chunks(short_chunks: None) -> None:
    """A thousand keys in chunks of four are more than one group of chunks: every key is found at its place."""
    order = Order(range(0, 2_000, 2))
    order._check()
    assert [order.position(key) for key in range(0, 2_000, 2)] == list(range(1_000))
    assert order.position(1_001) == 501
    assert order.position(9_999) == 1_000
    assert order.between(510, 513) == [1_020, 1_022, 1_024]
    assert order.between(998, 1_005) == [1_996, 1_998]


@pytest.mark.parametrize(
    ("old", "new", "positions"),
    [(40, 39, (4, 4)), (40, 5, (4, 1)), (990, 3, (99, 1)), (0, 995, (0, 99)), (10, 985, (1, 98)), (500, 495, (50, 50))],
)
def test_a_move_tells_both_positions(short_chunks: None, old: int, new: int, positions: tuple[int, int]) -> None:
    """A step within a chunk, a leap over all of them, and one backwards."""
    order = Order(range(0, 1_000, 10))
    assert order.move(old, new) == positions
    order._check()
    assert list(order) == sorted({*range(0, 1_000, 10)} - {old} | {new})


def test_every_key_moves_to_the_front_and_the_chunks_stay_of_a_size(short_chunks: None) -> None:
    """The far end empties while the front fills: chunks are joined there and cut here."""
    keys = list(range(10_000, 10_400))
    order = Order(keys)
    for step in range(400):
        order.move(keys.pop(), 9_999 - step)
        keys.insert(0, 9_999 - step)
        order._check()
    assert list(order) == keys


class OrderMachine(RuleBasedStateMachine):
    """An order with chunks of a few keys beside a plain sorted list."""

    @initialize(keys=st.sets(KEYS, max_size=60))
    def start(self, keys: set[int]) -> None:
        self.plain = sorted(keys)
        self.order = Order(keys)

    @rule(key=KEYS)
    def add(self, key: int) -> None:
        if key not in self.plain:
            place = bisect_left(self.plain, key)
            self.plain.insert(place, key)
            assert self.order.add(key) == place

    @precondition(lambda self: self.plain)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        place = data.draw(st.integers(0, len(self.plain) - 1))
        assert self.order.remove(self.plain.pop(place)) == place

    @precondition(lambda self: self.plain)
    @rule(data=st.data(), new=KEYS)
    def move(self, data: st.DataObject, new: int) -> None:
        if new not in self.plain:
            had = data.draw(st.integers(0, len(self.plain) - 1))
            old = self.plain.pop(had)
            has = bisect_left(self.plain, new)
            self.plain.insert(has, new)
            assert self.order.move(old, new) == (had, has)

    @rule(key=KEYS, start=st.integers(0, 60), count=st.integers(0, 15))
    def look(self, key: int, start: int, count: int) -> None:
        assert self.order.position(key) == bisect_left(self.plain, key)
        assert self.order.between(start, start + count) == self.plain[start : start + count]

    @invariant()
    def equals_the_plain_list(self) -> None:
        self.order._check()
        assert len(self.order) == len(self.plain)
        assert list(self.order) == self.plain


class TestOrder(OrderMachine.TestCase):  # type: ignore[misc, valid-type]  # made by hypothesis at run time
    """Runs the machine with short chunks."""

    settings = settings(max_examples=60, stateful_step_count=40, deadline=None)

    @pytest.fixture(autouse=True)
    def _short(self, short_chunks: None) -> None:
        """Let a few keys be many chunks."""
