"""The windows of a watch: a frame at once gives what its events give one by one."""

from __future__ import annotations

import random
from collections.abc import Iterable

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.board_rules import WatchRules
from engine.windows import AT_ONCE, CELLS, GROWTH_MAX, HOUR_MS, MINUTE_MS, SMALL, Found, Windows, WindowsImage

NOW_MS = 1_795_388_400_000
LIMITS = [
    WatchRules(100, 300, 2),
    WatchRules(growth_per_minute=100),
    WatchRules(growth_per_hour=10**13),
    WatchRules(None, None, 1),
    WatchRules(100, 300, 2, 3.0),
]


class Both:
    """Two windows that are told the same: one takes frames at once, the other each event by itself."""

    def __init__(self, rules: WatchRules, users: int) -> None:
        self.names, self.time_ms = [f"user-{slot}" for slot in range(users)], 0
        self.quick, self.slow = Windows(rules), Windows(rules)
        for windows in (self.quick, self.slow):
            self._enter(windows, range(users))

    def _enter(self, windows: Windows, slots: Iterable[int]) -> None:
        for slot in slots:
            if not windows.place(slot):
                windows.enter(slot, self.names[slot], lambda: 1)

    def frame(self, events: list[tuple[int, int, str, bool]], time_ms: int) -> int:
        """Count slots, gains, callers, and whether each is fine; give how many were left."""
        self.time_ms = time_ms
        slots, gains, callers, fine = (list(each) for each in zip(*events, strict=True))
        for windows in (self.quick, self.slow):
            self._enter(windows, slots)
        left = self.quick.count_all(np.array(slots), np.array(gains), callers, time_ms, np.array(fine))
        found: dict[int, Found | None] = dict.fromkeys(range(len(events)))
        for at in left:
            found[at] = self.quick.count(slots[at], gains[at], callers[at], time_ms)
        assert list(found.values()) == [
            self.slow.count(slot, gain, caller, time_ms) for slot, gain, caller, _ in events
        ]
        self.check()
        return len(left)

    def check(self) -> None:
        """Both know the same, before and after an image."""
        assert msgspec.msgpack.encode(self.quick.capture(self.time_ms)) == msgspec.msgpack.encode(
            self.slow.capture(self.time_ms)
        )
        self.quick._check()


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(LIMITS))
def test_a_frame_at_once_finds_what_its_events_find_one_by_one(seed: int, rules: WatchRules) -> None:
    """Limits that are passed within a frame, callers that change in it, windows that end, users who return."""
    dice = random.Random(seed)
    both, time_ms = Both(rules, dice.choice([2, 30])), NOW_MS
    names = both.names
    away: list[str] = []
    for _ in range(dice.choice([5, 30])):
        time_ms += dice.choice([0, 1, MINUTE_MS - 1, MINUTE_MS, 20 * MINUTE_MS, HOUR_MS])
        if dice.random() < 0.2:
            at, last = dice.randrange(len(names)), len(names) - 1
            for windows in (both.quick, both.slow):
                windows.leave(names[at], at, last, time_ms)
            away.append(names[at])
            names[at] = names[last]
            names.pop()
        while away and (not names or dice.random() < 0.3):
            names.append(away.pop(dice.randrange(len(away))))
        if dice.random() < 0.2:
            name, number = dice.choice([*enumerate(names)])[::-1]
            for windows in (both.quick, both.slow):
                windows.end(number, name)
                if away:
                    windows.end(None, away[0])
        if dice.random() < 0.05:
            for windows in (both.quick, both.slow):
                windows.end_all()
        if dice.random() < 0.2:
            for windows in (both.quick, both.slow):
                windows.forget(time_ms)
        if dice.random() < 0.2:
            image = msgspec.msgpack.decode(msgspec.msgpack.encode(both.quick.capture(time_ms)), type=WindowsImage)
            both.quick = Windows(rules)
            both.quick.restore(image)
        callers = dice.choice([["game"], ["game", "shop"], ["game", "shop", "bot", ""]])
        both.frame(
            [
                (
                    dice.randrange(len(names)),
                    dice.choice([0, 5, 40, 10**12]),
                    dice.choice(callers),
                    dice.random() < 0.95,
                )
                for _ in range(dice.choice([1, 8, 60]))
            ],
            time_ms,
        )


def test_nearly_all_events_are_counted_at_once() -> None:
    """In the next minute, and in the next hour too; also where a user has many events in the frame."""
    both = Both(WatchRules(1_000, 20_000, 3), 500)
    for time_ms in (NOW_MS, NOW_MS + 1, NOW_MS + MINUTE_MS, NOW_MS + 2 * HOUR_MS):
        left = both.frame([(number % 500, 10, "game", True) for number in range(AT_ONCE)], time_ms)
        assert left == (AT_ONCE if time_ms == NOW_MS else 0)  # the caller is new to the first one
    assert both.frame([(number, 1_000, "game", True) for number in range(500)], NOW_MS + 2 * HOUR_MS) == 500


def test_the_largest_gains_leave_no_64_bits() -> None:
    """Neither many of them in one frame, nor a user who falls and grows all the time, where no limit ends it."""
    both = Both(WatchRules(callers_per_user=5), 3)
    both.frame([(0, SMALL, "game", True)] * AT_ONCE, NOW_MS)
    for _ in range(2):
        assert both.frame([(0, SMALL, "game", True)] * AT_ONCE, NOW_MS) == 0
    assert both.frame([(0, SMALL, "game", True)] * 9 + [(1, SMALL, "game", False)] * (AT_ONCE - 9), NOW_MS) > 0
    for _ in range(300):
        both.slow.count(2, 2**53 - 1, "game", NOW_MS)
        both.quick.count(2, 2**53 - 1, "game", NOW_MS)
    assert max(both.slow._cells[2 * CELLS : 3 * CELLS]) == GROWTH_MAX
    both.frame([(2, SMALL, "game", True)] * 5, NOW_MS)


def test_a_frame_has_its_bound() -> None:
    """More events than AT_ONCE would not fit in 64 bits, so nobody may hand them over."""
    both = Both(WatchRules(growth_per_minute=10), 1)
    with pytest.raises(AssertionError):
        both.frame([(0, 1, "game", True)] * (AT_ONCE + 1), NOW_MS)
