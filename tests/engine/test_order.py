"""The ordered structure of a board beside a plain sorted list: positions and moves, while lists are cut and joined."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from itertools import islice

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine import order as order_module
from engine.keys import CODE_SCORES, CODE_SEQS, SCORE_SHIFT, SEQ_MASK, SLOT_BITS, CompactKeys
from engine.limits import SCORE_MAX, SEQ_MAX
from engine.order import COMPACT_FROM, LOAD, NEAR, Order
from engine.sorting import sorted_lists

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
    """Also between and behind the keys."""
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
        pytest.param(990, 3, (99, 1), id="over all lists but few"),
        pytest.param(2_990, 3, (299, 1), id="over many lists"),
        pytest.param(2_990, -1, (299, 0), id="to the very front"),
        pytest.param(0, 2_995, (0, 299), id="backwards to the very end"),
        pytest.param(10, 985, (1, 98), id="backwards"),
        pytest.param(500, 495, (50, 50), id="over the border of a list"),
    ],
)
def test_a_move_tells_both_positions(short_lists: None, old: int, new: int, positions: tuple[int, int]) -> None:
    """A step within a list, a leap over few or many of them, and one backwards."""
    order = Order(range(0, 3_000, 10))
    assert len(order._lists) > 2 * NEAR
    assert order.move(old, new) == positions
    order._check()
    assert order._starts  # so _check proved them too
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


def board_key(number: int) -> int:
    """The key of a board for a number from -3,000 on. Those from 600 on don't fit into a compact list."""
    return (number // 3 + CODE_SCORES - 200) << SCORE_SHIFT | (number % 3 + 1) << SLOT_BITS | (number + 3_000)


def board_order(numbers: list[int]) -> Order:
    """The order of these keys, whose lists are compact where they can be."""
    keys = [board_key(number) for number in range(-3_000, 2_000)]
    scores, reached = (
        array("Q", [key >> SCORE_SHIFT for key in keys]),
        array("Q", [key >> SLOT_BITS & 3 for key in keys]),
    )
    return Order.of_board(0, scores, reached, set(range(len(keys))).difference(number + 3_000 for number in numbers))


class OrderMachine(RuleBasedStateMachine):
    """An order with lists of a few keys beside a plain sorted list of the numbers that make them."""

    @staticmethod
    def key(number: int) -> int:
        return number

    @staticmethod
    def order_of(numbers: list[int]) -> Order:
        return Order(numbers)

    @initialize(keys=st.sets(KEYS, max_size=60), more=st.sampled_from([0, 150, 300]))
    def start(self, keys: set[int], more: int) -> None:
        self.plain = sorted(keys | set(range(0, 2 * more, 2)))
        self.order = self.order_of(self.plain)

    @rule(number=KEYS)
    def add(self, number: int) -> None:
        if number not in self.plain:
            place = bisect_left(self.plain, number)
            self.plain.insert(place, number)
            self.order.add(self.key(number))
            assert self.order.bisect_left(self.key(number)) == place

    @precondition(lambda self: self.plain)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        place = data.draw(st.integers(0, len(self.plain) - 1))
        self.order.remove(self.key(self.plain.pop(place)))

    @rule(number=KEYS)
    def remove_what_is_not_there(self, number: int) -> None:
        if number not in self.plain:
            with pytest.raises(ValueError, match=str(self.key(number))):
                self.order.remove(self.key(number))

    @precondition(lambda self: self.plain)
    @rule(data=st.data(), new=KEYS, watched=st.none() | st.integers(0, 2))
    def move(self, data: st.DataObject, new: int, watched: int | None) -> None:
        """Without `watched` it tells the positions."""
        if new not in self.plain:
            before = data.draw(st.integers(0, len(self.plain) - 1))
            old = self.plain.pop(before)
            after = bisect_left(self.plain, new)
            self.plain.insert(after, new)
            if watched is None:
                assert self.order.move(self.key(old), self.key(new)) == (before, after)
            else:
                assert self.order.shift(self.key(old), self.key(new), watched) == (min(before, after) < watched)

    @precondition(lambda self: self.plain)
    @rule(data=st.data(), count=st.integers(2, 12))
    def move_many_to_the_front(self, data: st.DataObject, count: int) -> None:
        """Neighbours go one after the other, so that lists are joined behind and cut in front."""
        first = data.draw(st.integers(0, len(self.plain) - 1))
        for before in range(first, min(first + count, len(self.plain))):
            new = self.plain[0] - 1
            assert self.order.move(self.key(self.plain[before]), self.key(new)) == (before, 0)
            self.plain.insert(0, new)
            del self.plain[before + 1]
            self.order._check()

    @precondition(lambda self: self.plain)
    @rule(data=st.data())
    def count_ties(self, data: st.DataObject) -> None:
        """Of the numbers from one on."""
        last = data.draw(st.integers(0, len(self.plain) - 1))
        first = data.draw(st.integers(0, last))
        ahead = self.order.ties_ahead(self.key(self.plain[last]), self.key(self.plain[first]))
        assert ahead == last - first

    @rule(key=KEYS, start=st.integers(0, 400), count=st.integers(0, 15))
    def look(self, key: int, start: int, count: int) -> None:
        expected = [self.key(number) for number in self.plain]
        assert self.order.bisect_left(self.key(key)) == bisect_left(self.plain, key)
        assert self.order[start : start + count] == expected[start : start + count]
        later = expected[bisect_left(expected, self.key(key)) :]
        assert list(islice(self.order.irange(self.key(key)), count)) == later[:count]

    @rule()
    def clone(self) -> None:
        cloned = self.order.clone()
        if self.plain:
            self.order.remove(self.key(self.plain[0]))
        self.order = cloned

    @invariant()
    def equals_the_plain_list(self) -> None:
        self.order._check()
        assert len(self.order) == len(self.plain)
        assert list(self.order) == [self.key(number) for number in self.plain]


class CompactOrderMachine(OrderMachine):
    """The same with keys of a board in compact lists, of which some don't fit."""

    @staticmethod
    def key(number: int) -> int:
        return board_key(number)

    @staticmethod
    def order_of(numbers: list[int]) -> Order:
        return board_order(numbers)


class TestOrder(OrderMachine.TestCase):  # type: ignore[misc, valid-type]  # made by hypothesis at run time
    """Runs the machine with short lists."""

    settings = settings(max_examples=40, stateful_step_count=40, deadline=None)

    @pytest.fixture(autouse=True)
    def _short(self, short_lists: None) -> None:
        """Let a few keys be many lists."""


class TestCompactOrder(CompactOrderMachine.TestCase):  # type: ignore[misc, valid-type]  # made by hypothesis at run time
    """Runs the machine with short lists, which are compact however few keys there are."""

    settings = settings(max_examples=40, stateful_step_count=40, deadline=None)

    @pytest.fixture(autouse=True)
    def _short(self, short_lists: None, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let a few keys be many lists."""
        monkeypatch.setattr(order_module, "COMPACT_FROM", 0)


@pytest.mark.parametrize("flip", [0, SCORE_MAX])
def test_keys_of_any_board_come_back_from_their_codes(flip: int) -> None:
    """In lists that are compact exactly if all scores and seqs fit."""
    scores = [0, 1, CODE_SCORES - 1, CODE_SCORES, SCORE_MAX]
    seqs = [1, CODE_SEQS - 1, CODE_SEQS, SEQ_MAX]
    pairs = [(score, seq) for score in scores for seq in seqs]
    columns = [array("Q", column) for column in zip(*pairs, strict=True)]
    views = [np.frombuffer(column, np.uint64) for column in columns]
    expected = sorted(
        (flip ^ score) << SCORE_SHIFT | seq << SLOT_BITS | slot for slot, (score, seq) in enumerate(pairs)
    )
    for load in (1, 2, len(pairs)):
        lists = list(sorted_lists(flip, views[0], views[1], (), load))
        assert [key for keys in lists for key in keys] == expected
        for keys in lists:
            fit = [
                (flip ^ key >> SCORE_SHIFT) < CODE_SCORES and key >> SLOT_BITS & SEQ_MASK < CODE_SEQS for key in keys
            ]
            assert isinstance(keys, CompactKeys) == all(fit)
            if isinstance(keys, CompactKeys):
                places = [bisect_left(keys, key) for key in expected]
                assert [keys.place(key) for key in expected] == places
                assert list(map(keys.fits, expected)) == [
                    (flip ^ key >> SCORE_SHIFT) < CODE_SCORES and key >> SLOT_BITS & SEQ_MASK < CODE_SEQS
                    for key in expected
                ]


def test_a_large_board_is_compact_and_a_small_one_becomes_so_as_it_grows() -> None:
    """12 bytes a key. Each key that comes after that makes a list compact, also one that is never cut."""
    count = COMPACT_FROM + 1
    scores, reached = array("Q", range(count)), array("Q", range(1, count + 1))
    small = Order.of_board(SCORE_MAX, scores, reached, {count - 1})
    large = Order.of_board(SCORE_MAX, scores, reached, ())
    assert all(isinstance(keys, list) for keys in small._lists)
    assert all(isinstance(keys, CompactKeys) for keys in large._lists)
    assert len(small.tops()) == 0
    first, lists = (SCORE_MAX - count) << SCORE_SHIFT, len(small._lists)
    for seq in range(1, 2 * LOAD):
        small.add(first | seq << SLOT_BITS)
        assert seq < lists + 2 or small.is_compact
    small._check()
    assert small.tops().tolist() == [keys.codes[-1] for keys in small._lists if isinstance(keys, CompactKeys)]
