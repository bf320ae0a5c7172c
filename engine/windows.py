"""The running minute and hour of each user of a watched board: growth and callers. Pure.

    found = windows.count(slot, 10, "game", time_ms)                    None, or the rule that the event broke
    left = windows.count_all(slots, gains, callers, time_ms, fine)      counts what breaks no rule, names the rest

A user has the slot that the board has for the user, and at it CELLS numbers, 56 bytes:

    | minute began | growth in it | hour began | growth in it | caller | place | sum |

`caller` is the number of the only caller of the hour, 0 before there is one. If there were more it is negative, and
`_lists` has the callers of the slot. `_callers` numbers them; the empty name has 0. `place` is the watch's (see there):
0 for a user whom it has not seen, 1 for all others where nobody looks for outliers. `sum` is 0 but within `count_all`.

Theory: nearly every event breaks no rule, and all events of a frame have one time. So `count_all` counts a frame with a
few calls of numpy, which wait for the memory of all users at once. They cost as much as some 30 calls of `count`, so a
small frame goes one by one. Both write the same numbers: a leader counts a frame, a replica one event after the other.

Invariants:
- In a frame, `count_all` counts all events of a user or none: it looks at the sum of their growth.
- Times go back only at a correction of the clock, which ends all windows (`end_all`).
- `_away` has the cells and callers of users who left the board: once they are seen again, their windows go on.
- Growth stops at GROWTH_MAX, so that no sum leaves 64 bits.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from engine.board_rules import ReviewRule, WatchRules

MINUTE_MS = 60_000
HOUR_MS = 3_600_000

CELLS = 7
MINUTE, MINUTE_GROWTH, HOUR, HOUR_GROWTH, CALLER, PLACE, SUM = range(CELLS)

NEVER = -HOUR_MS
"""The beginning of a window that is over at any time."""

UNSEEN = (NEVER, 0, NEVER, 0, 0, 0, 0)

GROWTH_MAX = 2**60
"""Growth that no limit reaches. Only scores that fall as often as they grow come near within an hour."""

SMALL = 2**41
"""Growth by one event that `count_all` takes. What is more is counted alone."""

AT_ONCE = 2**10
"""Events that `count_all` takes: their growth together is at most 2**51."""

LEFT = 2**52
"""Stands for the growth of an event that must be counted alone. AT_ONCE of them fit in 64 bits."""

UNKNOWN = 2**62
"""The number of a caller of whom no event was counted."""

Numbers = NDArray[np.int64]
Flags = NDArray[np.bool_]

_NOBODY = np.zeros((0, CELLS), np.int64)


class Found(msgspec.Struct, frozen=True, gc=False):
    """A rule that an event broke: what was found, the limit, and since when (ms) the user's actions count to it."""

    rule: ReviewRule
    value: int
    limit: int
    since_ms: int


class Away(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """A user who left the board."""

    cells: list[int]
    callers: list[int]


class WindowsImage(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """The slots whose hour runs, and their five cells each; all places if they matter; and the rest as it is.

    Windows that are over are left out, so equal ones have equal images whether or not they went through one.
    """

    slots: bytes
    cells: bytes
    places: bytes
    callers: list[str]
    lists: dict[int, list[int]]
    away: dict[str, Away]


class Windows:
    """See above. An event is O(1)."""

    def __init__(self, rules: WatchRules) -> None:
        self._rules = rules
        self._places_matter = rules.outlier_z is not None
        self._minute_max = GROWTH_MAX if rules.growth_per_minute is None else rules.growth_per_minute
        self._hour_max = GROWTH_MAX if rules.growth_per_hour is None else rules.growth_per_hour
        self._callers_max = rules.callers_per_user or 0
        self._cells = array("q")
        self._callers = {"": 0}
        self._lists: dict[int, list[int]] = {}
        self._away: dict[str, Away] = {}

    def place(self, slot: int) -> int:
        """Give the place of a user, 0 if the user was not seen."""
        at = slot * CELLS + PLACE
        return self._cells[at] if at < len(self._cells) else 0

    def take_place(self, slot: int, place: int) -> None:
        """Give a user who was seen another place."""
        self._cells[slot * CELLS + PLACE] = place

    def unseen(self, slots: Numbers) -> list[int]:
        """Tell which of the slots have users who were not seen: their positions among these."""
        cells = np.frombuffer(self._cells, np.int64).reshape(-1, CELLS) if self._cells else _NOBODY
        if slots.max() < len(cells):
            unseen = cells[slots, PLACE] == 0
            return np.flatnonzero(unseen).tolist() if unseen.any() else []
        return [at for at, slot in enumerate(slots.tolist()) if not self.place(slot)]

    def enter(self, slot: int, user_id: str, new_place: Callable[[], int]) -> int:
        """Take in a user who was not seen at this slot; give the place, which is new if the user was never seen."""
        self._reach(slot)
        away, at = self._away.pop(user_id, None), slot * CELLS
        if away is None:
            self._cells[at + PLACE] = new_place()
        else:
            self._cells[at : at + CELLS] = array("q", away.cells)
            if away.callers:
                self._lists[slot] = away.callers
        return self._cells[at + PLACE]

    def _reach(self, slot: int) -> None:
        missing = slot + 1 - len(self._cells) // CELLS
        if missing > 0:
            self._cells.extend(UNSEEN * missing)

    def count(self, slot: int, gain: int, caller: str, time_ms: int) -> Found | None:
        """Count an event by which a score grew by `gain`, which may be 0; give the first rule that it broke."""
        cells, at, found = self._cells, slot * CELLS, None
        if time_ms - cells[at] < MINUTE_MS:
            gained = cells[at + MINUTE_GROWTH] + gain
        else:
            cells[at], gained = time_ms, gain
        if gained > self._minute_max:
            gained = min(gained, GROWTH_MAX)
            if self._rules.growth_per_minute is not None:
                found = Found("growth_per_minute", gained, self._minute_max, cells[at])
        cells[at + MINUTE_GROWTH] = gained
        if time_ms - cells[at + HOUR] < HOUR_MS:
            gained = cells[at + HOUR_GROWTH] + gain
        else:
            cells[at + HOUR], gained = time_ms, gain
            if cells[at + CALLER]:
                cells[at + CALLER] = 0
                self._lists.pop(slot, None)
        if gained > self._hour_max:
            gained = min(gained, GROWTH_MAX)
            if self._rules.growth_per_hour is not None and found is None:
                found = Found("growth_per_hour", gained, self._hour_max, cells[at + HOUR])
        cells[at + HOUR_GROWTH] = gained
        if self._callers_max:
            number = self._callers.setdefault(caller, len(self._callers))
            if number != cells[at + CALLER]:
                return self._count_caller(slot, number, found)
        return found

    def _count_caller(self, slot: int, number: int, found: Found | None) -> Found | None:
        """Take in a caller who is not the only one of the hour. Most users have one caller, and need no list."""
        cells, at = self._cells, slot * CELLS
        only = cells[at + CALLER]
        if not only:
            cells[at + CALLER] = number
            return found
        if only > 0:
            cells[at + CALLER], self._lists[slot] = -only, [only]
        callers = self._lists[slot]
        if number not in callers:
            if len(callers) >= self._callers_max:
                return found or Found("callers_per_user", len(callers) + 1, self._callers_max, cells[at + HOUR])
            callers.append(number)
        return found

    def count_all(self, slots: Numbers, gains: Numbers, callers: Sequence[str], time_ms: int, fine: Flags) -> list[int]:
        """Count those events of one time, at most AT_ONCE, that are `fine` and break no rule here.

        Give the places of all others, in order: they are to be counted one by one. The users were seen before.
        """
        assert len(slots) <= AT_ONCE
        cells = np.frombuffer(self._cells, np.int64).reshape(-1, CELLS)
        found = cells.take(slots, 0)
        new_minute = found[:, MINUTE] <= time_ms - MINUTE_MS
        new_hour = found[:, HOUR] <= time_ms - HOUR_MS
        if self._callers_max:
            fine = fine & self._same_caller(found, callers, new_hour)
        cells[slots, SUM] = 0
        np.add.at(cells[:, SUM], slots, np.where(fine, gains, LEFT))
        gained = cells[slots, SUM]
        found[new_minute, MINUTE], found[new_minute, MINUTE_GROWTH] = time_ms, 0
        found[new_hour, HOUR], found[new_hour, HOUR_GROWTH] = time_ms, 0
        found[:, MINUTE_GROWTH] += gained
        found[:, HOUR_GROWTH] += gained
        counted = gained < LEFT
        counted &= found[:, MINUTE_GROWTH] <= self._minute_max
        counted &= found[:, HOUR_GROWTH] <= self._hour_max
        if counted.all():
            cells[slots] = found
            return []
        cells[slots, SUM] = 0
        cells[slots[counted]] = found[counted]
        return np.flatnonzero(~counted).tolist()

    def _same_caller(self, found: Numbers, callers: Sequence[str], new_hour: Flags) -> Flags:
        """Say which events come from the only caller of the hour, or begin one; set the caller."""
        known, different, only = self._callers, set(callers), found[:, CALLER]
        if len(different) > 1:
            numbers = np.fromiter((known.get(caller, UNKNOWN) for caller in callers), np.int64, len(callers))
            same: Flags = (only == numbers) & ~new_hour  # an hour that begins might begin with two callers
            return same
        number = known.get(different.pop(), UNKNOWN)
        same = only == number
        if number != UNKNOWN:
            same |= new_hour & (only >= 0)
            found[:, CALLER] = number
        return same

    def of_one(self, slot: int | None, user_id: str) -> Windows:
        """Give windows that know of one user, at slot 0, what these know. The user has this slot, or none."""
        one, lists = Windows(self._rules), []
        if slot is not None and self.place(slot):
            one._cells, lists = self._cells[slot * CELLS : (slot + 1) * CELLS], self._lists.get(slot, [])
        elif user_id in self._away:
            one._cells, lists = array("q", self._away[user_id].cells), self._away[user_id].callers
        if lists:
            one._lists[0] = lists[:]
        one._callers = self._callers.copy()
        return one

    # What ends windows, and moves them

    def forget(self, time_ms: int) -> None:
        """Forget the lists of callers of hours that are over."""
        cells = self._cells
        for slot in [slot for slot in self._lists if time_ms - cells[slot * CELLS + HOUR] >= HOUR_MS]:
            cells[slot * CELLS + CALLER] = 0
            del self._lists[slot]

    def end(self, slot: int | None, user_id: str) -> None:
        """End the windows of a user, who has this slot, or is away: also one who came back and was not seen since."""
        if slot is not None and self.place(slot):
            at = slot * CELLS
            self._cells[at : at + PLACE] = array("q", UNSEEN[:PLACE])
            self._lists.pop(slot, None)
        elif user_id in self._away:
            self._away[user_id] = _ended(self._away[user_id])

    def end_all(self) -> None:
        """End the windows of all users."""
        places = self._cells[PLACE::CELLS]
        self._cells = array("q", UNSEEN) * len(places)
        self._cells[PLACE::CELLS] = places
        self._lists.clear()
        self._away = {user_id: _ended(away) for user_id, away in self._away.items()}

    def leave(self, user_id: str, slot: int, last: int, now_ms: int) -> None:
        """Put a user who leaves aside, and move the user of the last slot to the free one. No event is before `now_ms`.

        The user of a window that is over is kept only if the place matters.
        """
        at = slot * CELLS
        if self.place(slot):
            away = Away(list(self._cells[at : at + CELLS]), self._lists.pop(slot, []))
            if away.cells[HOUR] > now_ms - HOUR_MS:
                self._away[user_id] = away
            elif self._places_matter:
                self._away[user_id] = _ended(away)
        if slot != last:
            if self.place(last):
                self._cells[slot * CELLS : (slot + 1) * CELLS] = self._cells[last * CELLS : (last + 1) * CELLS]
                if last in self._lists:
                    self._lists[slot] = self._lists.pop(last)
            elif self.place(slot):
                self._cells[slot * CELLS : (slot + 1) * CELLS] = array("q", UNSEEN)
        del self._cells[last * CELLS :]

    def drop(self, user_id: str, pseudonym: str) -> None:
        """Forget a user who left for good. As a caller the pseudonym stays."""
        self._away.pop(user_id, None)
        number = self._callers.pop(user_id, None)
        if number is not None:
            self._callers[pseudonym] = number

    def away(self) -> list[tuple[str, int]]:
        """List the users who left and were not seen since, with their places."""
        return [(user_id, away.cells[PLACE]) for user_id, away in self._away.items()]

    # Images

    def capture(self, now_ms: int) -> WindowsImage:
        """Copy all windows: 48 bytes for each user of the last hour, 8 for others. No event is before `now_ms`."""
        cells = np.frombuffer(self._cells, np.int64).reshape(-1, CELLS) if self._cells else _NOBODY
        running = np.flatnonzero(cells[:, HOUR] > now_ms - HOUR_MS)
        places = cells[:, PLACE] if self._places_matter else _NOBODY
        columns = _packed(running), _packed(cells[running, :PLACE]), _packed(places)
        callers = sorted(self._callers, key=self._callers.__getitem__)
        lists = {slot: each for slot, each in self._lists.items() if cells[slot, HOUR] > now_ms - HOUR_MS}
        return WindowsImage(*columns, callers, lists, self._away)

    def restore(self, image: WindowsImage) -> None:
        """Take what `capture` gave."""
        slots, places = (np.frombuffer(data, "<i8") for data in (image.slots, image.places))
        count = len(places) if self._places_matter else int(slots.max()) + 1 if len(slots) else 0
        cells = np.full((count, CELLS), UNSEEN, np.int64)
        cells[slots, :PLACE] = np.frombuffer(image.cells, "<i8").reshape(-1, PLACE)
        if self._places_matter:
            cells[:, PLACE] = places
        else:
            cells[slots, PLACE] = 1
        self._cells = array("q", cells.tobytes())
        self._callers = {caller: number for number, caller in enumerate(image.callers)}
        self._lists, self._away = image.lists, image.away

    def places(self) -> list[int]:
        """List the places, by slot."""
        return list(self._cells[PLACE::CELLS])

    def _check(self) -> None:
        cells = self._cells
        slots = range(len(cells) // CELLS)
        assert sorted(self._callers.values()) == list(range(len(self._callers)))
        assert self._lists.keys() == {slot for slot in slots if cells[slot * CELLS + CALLER] < 0}
        for slot, callers in self._lists.items():
            assert callers[0] == -cells[slot * CELLS + CALLER]
            assert len(set(callers)) == len(callers) <= self._callers_max
        for at in (MINUTE_GROWTH, HOUR_GROWTH):
            assert all(0 <= growth <= GROWTH_MAX for growth in cells[at::CELLS])
        assert not any(cells[SUM::CELLS])
        for slot in slots:
            assert cells[slot * CELLS + PLACE] or tuple(cells[slot * CELLS : (slot + 1) * CELLS]) == UNSEEN


def _packed(numbers: Numbers) -> bytes:
    return numbers.astype("<i8", copy=False).tobytes()


def _ended(away: Away) -> Away:
    return Away([*UNSEEN[:PLACE], *away.cells[PLACE:]], [])
