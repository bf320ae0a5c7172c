"""The slots of users beside a plain list: one at a time and many at once, while tables grow and users leave."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engine import slots as slots_module
from engine import user_ids as user_ids_module
from engine.slots import CELLS_AT_FIRST, MANY, NOBODY, Slots
from engine.user_ids import RECENT, TAG_MASK, UserIds

NAMES = ["", "a", "ab", "bär", "日本", "user-1", "user-10", "user-1 ", "x" * 128]


def users(count: int, first: int = 0) -> list[str]:
    """Users of whom some are not ASCII."""
    return [f"user-{number}" if number % 7 else f"üser-{number}" for number in range(first, first + count)]


@given(st.lists(st.sampled_from(NAMES) | st.text(st.characters(exclude_categories=["Cs"]), max_size=5), max_size=30))
def test_ids_are_read_as_they_were_given(names: list[str]) -> None:
    """Each by itself, in slices, and from first to last."""
    ids, grown = UserIds(names), UserIds()
    for name in names:
        grown.append(name)
    ids._check()
    assert list(ids) == names
    assert ids == grown
    assert [ids[at] for at in range(len(ids))] == names
    for start in range(0, len(names), 3):
        assert ids[start : start + 4] == names[start : start + 4]


def test_an_id_that_was_read_before_is_read_from_what_is_kept() -> None:
    """What is kept is bounded, and right also after it was dropped."""
    names = users(3 * RECENT)
    ids = UserIds(names)
    for _ in range(2):
        assert [ids[at] for at in range(len(ids))] == names
        assert len(ids._recent) <= RECENT
    assert ids[5] is ids[5]


def test_ids_of_more_than_4_gib_have_wider_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds have 32 bits until they don't suffice."""
    monkeypatch.setattr(user_ids_module, "TAG_MASK", 9)
    ids = UserIds(["abc", "def"])
    narrow = ids.bounds
    ids.append("ghij")
    assert ids.bounds == array("Q", (0, 3, 6, 10))
    assert (narrow.typecode, ids.bounds.typecode) == ("I", "Q")
    assert UserIds(["abcdefgh", "ij", "k"])[2] == "k"
    assert ids.arranged(2, {0: 2})[0:2] == ["ghij", "def"]


def test_a_user_is_proved_by_the_id_if_all_tags_are_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one whose id begins like another one's, or has its length."""
    monkeypatch.setattr(user_ids_module, "TAG_MASK", 0)
    monkeypatch.setattr(slots_module, "TAG_MASK", 0)
    names = [*users(MANY), "user-1x", "user", "user-xx"]
    slots = Slots(UserIds(names[:-1]))
    assert slots.find_all(names) == [*range(MANY + 2), NOBODY]
    assert [slots.get(name) for name in names] == [*range(MANY + 2), None]


def test_many_are_found_also_among_those_who_have_not_moved_into_a_larger_table() -> None:
    """While a table grows, lookups try both."""
    slots, names = Slots(), users(4 * CELLS_AT_FIRST)
    grown = 0
    for count, name in enumerate(names, 1):
        assert slots.add(name) == count - 1
        grown += slots._older is not None
        assert slots.find_all(names) == [*range(count), *[NOBODY] * (len(names) - count)]
        assert [slots.get(each) for each in names[:count:5]] == list(range(0, count, 5))
    assert grown > CELLS_AT_FIRST // 4
    slots._check()


def test_a_hundred_thousand_users_are_found() -> None:
    """In a table that is filled at once, and a few of them are in no other."""
    names = users(100_000)
    slots = Slots(UserIds(names))
    assert slots.find_all(names) == list(range(100_000))
    assert slots.find_all(users(1_000, 100_000)) == [NOBODY] * 1_000
    assert slots.bytes <= 100_000 * (4 + 4 + 4 / 0.375 + len("user-99999") + 1)


class SlotsMachine(RuleBasedStateMachine):
    """Slots beside a list of users, in which the last one takes the place of one who leaves."""

    def __init__(self) -> None:
        super().__init__()
        self.slots, self.plain, self.next = Slots(), list[str](), 0

    @rule(count=st.integers(1, 70))
    def come(self, count: int) -> None:
        for name in users(count, self.next):
            assert self.slots.add(name) == len(self.plain)
            self.plain.append(name)
        self.next += count

    @precondition(lambda self: self.plain)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        shared, before = self.slots.ids, self.plain[:]
        leaving = data.draw(st.lists(st.sampled_from(self.plain), unique=True, min_size=1, max_size=40))
        expected = []
        for name in leaving:
            slot, last = self.plain.index(name), len(self.plain) - 1
            self.plain[slot] = self.plain[last]
            self.plain.pop()
            expected.append((name, slot, last))
        assert self.slots.leave(leaving) == expected
        assert list(shared) == before  # an image may have it
        assert [self.slots.get(name) for name in leaving] == [None] * len(leaving)
        assert self.slots.find_all(leaving * MANY) == [NOBODY] * len(leaving) * MANY

    @precondition(lambda self: self.next > len(self.plain))
    @rule()
    def come_back(self) -> None:
        gone = next(name for name in users(self.next) if name not in self.plain)
        assert gone not in self.slots
        assert self.slots.add(gone) == len(self.plain)
        self.plain.append(gone)

    @rule()
    def copy(self) -> None:
        copied = self.slots.copy()
        self.slots.add("someone else")
        self.slots = copied

    @invariant()
    def equals_the_plain_list(self) -> None:
        self.slots._check()
        assert list(self.slots.ids) == self.plain


class TestSlots(SlotsMachine.TestCase):  # type: ignore[misc, valid-type]  # made by hypothesis at run time
    """Runs the machine."""

    settings = settings(max_examples=40, stateful_step_count=20, deadline=None)


def test_all_who_leave_and_return_are_found_with_one_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells of those who left stay used, until a table is made anew."""
    monkeypatch.setattr(user_ids_module, "TAG_MASK", TAG_MASK & 1)
    monkeypatch.setattr(slots_module, "TAG_MASK", TAG_MASK & 1)
    slots = Slots()
    for turn in range(20):
        for name in users(10, 5 * turn):
            if name not in slots:
                slots.add(name)
        slots.leave(users(5, 5 * turn))
        slots._check()
        assert sorted(slots.ids) == sorted(users(5, 5 * turn + 5))
