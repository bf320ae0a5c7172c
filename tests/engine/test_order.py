"""The ordered structure of a board beside a plain sorted list: positions and moves, while lists are cut and joined."""

from __future__ import annotations

from bisect import bisect_left

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine.order import LOAD, ROW_LISTS, Order

SHORT_LOAD = 4
KEYS = st.integers(0, 600)


@pytest.fixture
def short_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists of 2 to 8 keys, so that small orders have many."""
    monkeypatch.setattr(Order, "DEFAULT_LOAD_FACTOR", SHORT_LOAD)


def test_an_empty_order_has_nothing_and_takes_anything() -> None:
    """Nothing stands before any key; the first key is at 0; the last one that goes leaves it empty again."""
    order = Order()
    assert len(order) == 0
    assert order[0:10] == []
    assert order.bisect_left(7) == 0
    order.add(9)
    assert order.bisect_left(9) == 0
    order.remove(9)
    order._check()
    assert len(order) == 0
    order.add(5)
    assert order.move(5, 3) == (0, 0)
    assert order.move(3, 8) == (0, 0)
    order._check()
    assert list(order) == [8]


@pytest.mark.parametrize("lists", [1, 2, 3, 31, 32, 33, 63, 64, 65, 100, 128, 129, 1_000, 1_100])
def test_every_key_has_its_position_however_many_lists_there_are(short_lists: None, lists: int) -> None:
    """In trees of any depth, with and without a row that has the sums of 32 lists; also between and behind the keys."""
    count = lists * SHORT_LOAD
    order = Order(range(0, 2 * count, 2))
    assert len(order._lists) == lists
    assert [order.bisect_left(key) for key in range(0, 2 * count, 2)] == list(range(count))
    assert [order.bisect_left(key) for key in range(1, 2 * count, 2)] == list(range(1, count + 1))
    assert order.bisect_left(9_999) == count


def test_a_board_of_ordinary_size_has_its_positions_too() -> None:
    """With the load of a real board, and lists that are not full."""
    order = Order(range(0, 100 * LOAD, 2))
    for key in range(1, 40 * LOAD, 2):
        order.add(key)
    order._check()
    plain = list(order)
    assert plain == sorted({*range(0, 100 * LOAD, 2), *range(1, 40 * LOAD, 2)})
    assert [order.bisect_left(key) for key in plain[::7]] == list(range(len(plain)))[::7]


@pytest.mark.parametrize(
    ("old", "new", "positions"),
    [
        pytest.param(40, 39, (4, 4), id="to the same place"),
        pytest.param(70, 45, (7, 5), id="within a list"),
        pytest.param(70, 55, (7, 6), id="the last of a list, within it"),
        pytest.param(40, 5, (4, 1), id="to the list before"),
        pytest.param(990, 3, (99, 1), id="over all lists but less than a row"),
        pytest.param(2_990, 3, (299, 1), id="over more lists than a row has"),
        pytest.param(2_990, -1, (299, 0), id="to the very front"),
        pytest.param(0, 2_995, (0, 299), id="backwards to the very end"),
        pytest.param(10, 985, (1, 98), id="backwards"),
        pytest.param(500, 495, (50, 50), id="over the border of a list"),
    ],
)
def test_a_move_tells_both_positions(short_lists: None, old: int, new: int, positions: tuple[int, int]) -> None:
    """A step within a list, a leap over few or many of them, and one backwards."""
    order = Order(range(0, 3_000, 10))
    assert len(order._lists) > 2 * ROW_LISTS
    assert order.move(old, new) == positions
    order._check()
    assert order._index  # so _check proved the tree too
    assert list(order) == sorted({*range(0, 3_000, 10)} - {old} | {new})


def test_every_key_moves_to_the_front_and_the_lists_keep_their_bounds(short_lists: None) -> None:
    """The far end empties while the front fills: lists are joined there and cut here."""
    keys = list(range(10_000, 10_400))
    order = Order(keys)
    for step in range(400):
        assert order.move(keys.pop(), 9_999 - step) == (399, 0)
        keys.insert(0, 9_999 - step)
        order._check()
    assert list(order) == keys


def test_a_key_that_is_not_there_does_not_move() -> None:
    """It is a bug of the caller, found before anything changes."""
    order = Order([10, 20, 30])
    with pytest.raises(AssertionError):
        order.move(25, 5)
    order._check()
    assert list(order) == [10, 20, 30]


class OrderMachine(RuleBasedStateMachine):
    """An order with lists of a few keys beside a plain sorted list."""

    @initialize(keys=st.sets(KEYS, max_size=60), more=st.sampled_from([0, 150, 300]))
    def start(self, keys: set[int], more: int) -> None:
        self.plain = sorted(keys | set(range(0, 2 * more, 2)))
        self.order = Order(self.plain)

    @rule(key=KEYS)
    def add(self, key: int) -> None:
        if key not in self.plain:
            place = bisect_left(self.plain, key)
            self.plain.insert(place, key)
            self.order.add(key)
            assert self.order.bisect_left(key) == place

    @precondition(lambda self: self.plain)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        place = data.draw(st.integers(0, len(self.plain) - 1))
        self.order.remove(self.plain.pop(place))

    @precondition(lambda self: self.plain)
    @rule(data=st.data(), new=KEYS)
    def move(self, data: st.DataObject, new: int) -> None:
        if new not in self.plain:
            before = data.draw(st.integers(0, len(self.plain) - 1))
            old = self.plain.pop(before)
            after = bisect_left(self.plain, new)
            self.plain.insert(after, new)
            assert self.order.move(old, new) == (before, after)

    @precondition(lambda self: self.plain)
    @rule(data=st.data(), new=KEYS, watched=st.integers(0, 2))
    def shift(self, data: st.DataObject, new: int, watched: int) -> None:
        if new not in self.plain:
            before = data.draw(st.integers(0, len(self.plain) - 1))
            old = self.plain.pop(before)
            after = bisect_left(self.plain, new)
            self.plain.insert(after, new)
            assert self.order.shift(old, new, watched) == (min(before, after) < watched)

    @precondition(lambda self: self.plain)
    @rule(data=st.data(), count=st.integers(2, 12))
    def move_many_to_the_front(self, data: st.DataObject, count: int) -> None:
        """Neighbours go one after the other, so that lists are joined behind and cut in front."""
        first = data.draw(st.integers(0, len(self.plain) - 1))
        for before in range(first, min(first + count, len(self.plain))):
            new = self.plain[0] - 1
            assert self.order.move(self.plain[before], new) == (before, 0)
            self.plain.insert(0, new)
            del self.plain[before + 1]
            self.order._check()

    @rule(key=KEYS, start=st.integers(0, 400), count=st.integers(0, 15))
    def look(self, key: int, start: int, count: int) -> None:
        assert self.order.bisect_left(key) == bisect_left(self.plain, key)
        assert self.order[start : start + count] == self.plain[start : start + count]

    @invariant()
    def equals_the_plain_list(self) -> None:
        self.order._check()
        assert len(self.order) == len(self.plain)
        assert list(self.order) == self.plain


class TestOrder(OrderMachine.TestCase):  # type: ignore[misc, valid-type]  # made by hypothesis at run time
    """Runs the machine with short lists."""

    settings = settings(max_examples=60, stateful_step_count=40, deadline=None)

    @pytest.fixture(autouse=True)
    def _short(self, short_lists: None) -> None:
        """Let a few keys be many lists."""
