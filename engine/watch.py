"""Watching a board for scores that grow too fast or stand too far out. Pure: what flags depends on events alone.

    watch.turn(time_ms, board)                             before the first event of the board in a new minute
    found = watch.see(steps, time_ms)                      after them: the steps that broke a rule
    watch.leave(moved)                                     when a user left the board
    one = watch.of_one(slot, user_id, limits)              a watch for trying out what would be found

Rules:
- Time is the time of events. So a restart, a replay and a replica that catches up flag what the leader flagged. But a
  backend that sends what it held back for an hour has all of it counted in one minute: its users seem to grow fast.
- A window belongs to a user. It begins with the first event after the one before it ended, and lasts a minute or an
  hour. So growth on both sides of a window's end may be twice the limit: a limit is for cheats, no rate limit.
- A correction of the clock ends all windows: their times were wrong.
- Growth is what raised the score. What lowered it is not set off against it.
- Callers are those of the hour's window.
- An outlier is judged among users of the same age: the time since their first points, in powers of two of minutes.
  The limit of an age is median + z · 1.4826 · MAD, of at most SAMPLE users at even distances. It is found once a
  minute, before the minute's first event, from the scores of that moment: no node sees another moment.
- Ages with fewer than POPULATION_MIN users, or where most have the same score, judge nobody.
- Users who had points before the watch began are as old as the board's running period.

Invariants:
- `_joined_ms` ascends: it has the times of `_joined`, and a correction of the clock lowers later ones to its own.
- The place of a user who was seen is n for the n-th of `_joined`, and -n for the n-th of `_elders`; without outliers it
  is 1. The lists have the slots on the board. A user who leaves keeps the place, and comes back to it.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Protocol

import msgspec
import numpy as np

from engine.board_rules import OrderMode, WatchRules
from engine.image import column_bytes, column_of
from engine.limits import SCORE_MAX
from engine.steps import Moved, Steps
from engine.windows import AT_ONCE, HOUR_MS, MINUTE_MS, SMALL, Found, Windows, WindowsImage

SAMPLE = 255
"""Users whose scores give median and MAD of an age: their median is within some 6 % of the population's ranks."""

POPULATION_MIN = 20
"""Users of one age, below which an age judges nobody."""

AGES = 24
"""Ages: the last one begins after eight years."""

MANY = 32
"""Steps that are counted together. Fewer cost less one by one."""

NORMAL = 1.4826
"""Of a normal distribution, the standard deviation is this many MADs."""


GONE = -1
"""Stands for the slot of a user who left the board."""


class WatchImage(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """All that a watch knows beside its rules, in the order of a snapshot."""

    since_ms: int
    minute: int
    hour: int
    windows: WindowsImage
    joined_ms: bytes
    elders: int
    limits: list[int | None]
    cleared: dict[str, int]


class Scores(Protocol):
    """A board, as far as it is asked here."""

    def slot(self, user_id: str) -> int | None: ...

    def score_at(self, slot: int) -> int: ...


class Watch:
    """What is known of the users of a watched board. An event is O(1), a turn of the minute O(AGES · SAMPLE)."""

    def __init__(self, rules: WatchRules, order: OrderMode, since_ms: int) -> None:
        """`since_ms` is when the running period began."""
        self.rules = rules
        self.order = order
        self._since_ms = since_ms
        self._minute = self._hour = -1
        self._windows = Windows(rules)
        self._joined = array("q")
        self._joined_ms = array("Q")
        self._elders = array("q")
        self._limits: list[int | None] = [None] * AGES
        self._cleared: dict[str, int] = {}
        self._falls = order == "ascending"
        self._find_near()

    def is_due(self, time_ms: int) -> bool:
        """Whether `turn` must be called before an event of this time."""
        return time_ms // MINUTE_MS != self._minute

    def turn(self, time_ms: int, board: Scores) -> None:
        """Begin another minute: find the limits of the ages, and forget old windows."""
        self._minute = time_ms // MINUTE_MS
        if time_ms // HOUR_MS != self._hour:
            self._hour = time_ms // HOUR_MS
            self._windows.forget(time_ms)
        if self.rules.outlier_z is not None:
            self._limits = self._limits_found(self.rules.outlier_z, time_ms, board)
            self._find_near()

    def limits_at(self, time_ms: int, board: Scores) -> list[int | None]:
        """Give the limits of the ages as they are for an event of this time. Changes nothing."""
        outlier_z = self.rules.outlier_z
        if outlier_z is None or not self.is_due(time_ms):
            return self._limits
        return self._limits_found(outlier_z, time_ms, board)

    def of_one(self, slot: int | None, user_id: str, limits: list[int | None]) -> Watch:
        """Give a watch that knows of one user, at slot 0, what this one knows. `limits` are those of `limits_at`."""
        one = Watch(self.rules, self.order, self._since_ms)
        one._limits = limits
        one._find_near()
        one._windows = self._windows.of_one(slot, user_id)
        place = one._windows.place(0)
        if place and self.rules.outlier_z is not None:
            one._windows.take_place(0, 1 if place > 0 else -1)
            if place > 0:
                one._joined, one._joined_ms = array("q", (0,)), self._joined_ms[place - 1 : place]
            else:
                one._elders = array("q", (0,))
        if user_id in self._cleared:
            one._cleared[user_id] = self._cleared[user_id]
        return one

    def see(self, steps: Steps, time_ms: int) -> list[tuple[int, Found]]:
        """Count steps of one time; give the numbers of those that broke a rule, and the first rule of each."""
        count = len(steps.slots)
        left: Iterable[int] = range(count)
        if count >= MANY:
            starts = range(0, count, AT_ONCE)
            left = chain.from_iterable(self._count_many(steps, start, time_ms) for start in starts)
        return [(at, found) for at in left if (found := self._see_one(steps, at, time_ms)) is not None]

    def _see_one(self, steps: Steps, at: int, time_ms: int) -> Found | None:
        slot, (user_id, delta, new_score, caller) = steps.slots[at], steps.step(at)
        place = self._windows.place(slot) or self._enter(slot, user_id, new_score - delta, time_ms)
        found = self._windows.count(slot, max(0, delta), caller, time_ms)
        if found is None and (new_score < self._near if self._falls else new_score > self._near):
            return self._judge(user_id, new_score, time_ms, place)
        return found

    def _count_many(self, steps: Steps, start: int, time_ms: int) -> list[int]:
        """Count those of the next AT_ONCE steps that break no rule; give the numbers of the others."""
        end = min(start + AT_ONCE, len(steps.slots))
        slots = np.array(steps.slots[start:end], np.int64)
        for at in self._windows.unseen(slots):
            user_id, delta, new_score, _ = steps.step(start + at)
            if not self._windows.place(steps.slots[start + at]):
                self._enter(steps.slots[start + at], user_id, new_score - delta, time_ms)
        gains, fine = np.array(steps.deltas(start, end), np.int64), np.ones(len(slots), np.bool_)
        if self.rules.outlier_z is not None:
            scores = np.array(steps.scores(start, end), np.int64)
            fine = scores >= self._near if self._falls else scores <= self._near
        callers = steps.callers(start, end) if self.rules.callers_per_user else ()
        if gains.min() < 0:
            gains = np.maximum(gains, 0)
        if gains.max() > SMALL:
            fine &= gains <= SMALL
        return [start + at for at in self._windows.count_all(slots, gains, callers, time_ms, fine)]

    def clear(self, user_id: str, slot: int | None, score: int | None) -> None:
        """Let a user begin anew after a decision: no growth, no callers. `score` was found good; None: it was not.

        The user is no outlier again before the score is twice as good as this one.
        """
        self._windows.end(slot, user_id)
        if score is not None and self.rules.outlier_z is not None:
            self._cleared[user_id] = score // 2 if self._falls else 2 * score

    def correct(self, time_ms: int) -> None:
        """Let nobody have joined in the future, and begin all windows anew."""
        self._windows.end_all()
        self._joined_ms = array("Q", (min(joined_ms, time_ms) for joined_ms in self._joined_ms))

    def leave(self, moved: Moved) -> None:
        """Follow a user who left the board: the user of the last slot has the free one."""
        windows = self._windows
        if self.rules.outlier_z is not None:
            if place := windows.place(moved.slot):
                self._put(place, GONE)
            if moved.last != moved.slot and (place := windows.place(moved.last)):
                self._put(place, moved.slot)
        windows.leave(moved.user_id, moved.slot, moved.last, self._now_ms)

    def forget(self, user_id: str, pseudonym: str) -> None:
        """Forget a user who left the board for good. Others keep their places among those who joined."""
        self._windows.drop(user_id, pseudonym)
        self._cleared.pop(user_id, None)

    @property
    def _now_ms(self) -> int:
        """A time that is not after any later event."""
        return self._minute * MINUTE_MS

    # The parts of `see`

    def _judge(self, user_id: str, new_score: int, time_ms: int, place: int) -> Found | None:
        """Compare a score that is an outlier at some age with the limit of its own age."""
        begun_ms = self._since_ms if place < 0 else self._joined_ms[place - 1]
        limit = self._limits[_age(time_ms - begun_ms)]
        if limit is None:
            return None
        cleared = self._cleared.get(user_id)
        if self._falls:
            if new_score >= limit or (cleared is not None and new_score > cleared):
                return None
        elif new_score <= limit or (cleared is not None and new_score < cleared):
            return None
        return Found("outlier_z", new_score, limit, begun_ms)

    def _enter(self, slot: int, user_id: str, score_before: int, time_ms: int) -> int:
        """Take in a user who has no place at this slot; give the place."""

        def new_place() -> int:
            if self.rules.outlier_z is None:
                return 1
            if score_before:
                self._elders.append(slot)
                return -len(self._elders)
            self._joined.append(slot)
            self._joined_ms.append(time_ms)
            return len(self._joined)

        place = self._windows.enter(slot, user_id, new_place)
        if self.rules.outlier_z is not None:
            self._put(place, slot)
        return place

    def _put(self, place: int, slot: int) -> None:
        """Let the user of a place have this slot."""
        if place > 0:
            self._joined[place - 1] = slot
        else:
            self._elders[-place - 1] = slot

    def _limits_found(self, outlier_z: float, time_ms: int, board: Scores) -> list[int | None]:
        limits: list[int | None] = []
        elders_age = _age(time_ms - self._since_ms)
        joined, elders = self._populations(board)
        end = len(joined)
        for age in range(AGES):
            # Those who are younger than 2^age minutes, and not of an age before.
            start = 0 if age == AGES - 1 else bisect_left(self._joined_ms, time_ms - (MINUTE_MS << age) + 1, 0, end)
            chosen = _spread(joined, start, end)
            if age == elders_age:
                chosen += _spread(elders, 0, len(elders))
            scores = sorted(board.score_at(slot) for slot in chosen if slot != GONE)
            limits.append(limit_of(scores, outlier_z, self.order))
            end = start
        return limits

    def _populations(self, board: Scores) -> tuple[array[int], array[int]]:
        """Give the slots of those who joined, and of the elders, as they are now.

        A correction may have brought somebody back who was not seen since.
        """
        joined, elders = self._joined, self._elders
        back = [(place, slot) for user_id, place in self._windows.away() if (slot := board.slot(user_id)) is not None]
        if back:
            joined, elders = joined[:], elders[:]
            for place, slot in back:
                (joined if place > 0 else elders)[abs(place) - 1] = slot
        return joined, elders

    def _find_near(self) -> None:
        """Find the score that is no outlier at any age: most scores are compared with no other."""
        limits = [limit for limit in self._limits if limit is not None]
        self._near = max(limits, default=0) if self._falls else min(limits, default=SCORE_MAX)

    # Images

    def capture(self) -> WatchImage:
        """Copy all that the watch knows. Equal watches have equal images."""
        return WatchImage(
            self._since_ms, self._minute, self._hour, self._windows.capture(self._now_ms),
            column_bytes(self._joined_ms), len(self._elders), self._limits, self._cleared,
        )  # fmt: skip

    @classmethod
    def from_image(cls, rules: WatchRules, order: OrderMode, image: WatchImage) -> Watch:
        """Make the watch that `capture` copied."""
        watch = cls(rules, order, image.since_ms)
        watch._minute, watch._hour = image.minute, image.hour
        watch._windows.restore(image.windows)
        watch._joined_ms = column_of(image.joined_ms)
        watch._joined = array("q", (GONE,)) * len(watch._joined_ms)
        watch._elders = array("q", (GONE,)) * image.elders
        if rules.outlier_z is not None:
            for slot, place in enumerate(watch._windows.places()):
                if place:
                    watch._put(place, slot)
        watch._limits, watch._cleared = image.limits, image.cleared
        watch._find_near()
        return watch

    def _check(self) -> None:
        self._windows._check()
        assert list(self._joined_ms) == sorted(self._joined_ms)
        assert len(self._joined) == len(self._joined_ms)
        if self.rules.outlier_z is not None:
            known = {place: slot for slot, place in enumerate(self._windows.places()) if place}
            joined = {place: slot for place, slot in enumerate(self._joined, 1) if slot != GONE}
            elders = {-place: slot for place, slot in enumerate(self._elders, 1) if slot != GONE}
            assert known == joined | elders


def limit_of(scores: Sequence[int], outlier_z: float, order: OrderMode) -> int | None:
    """Give the last score that is no outlier of these, which are sorted; None: they judge nobody."""
    if len(scores) < POPULATION_MIN:
        return None
    median = scores[len(scores) // 2]
    mad = sorted(abs(score - median) for score in scores)[len(scores) // 2]
    if not mad:
        return None
    room = int(outlier_z * NORMAL * mad)
    return max(0, median - room) if order == "ascending" else min(SCORE_MAX, median + room)


def _age(ms: int) -> int:
    """Give the age of a user: 0 below a minute, 1 below two, 2 below four …"""
    return min((max(0, ms) // MINUTE_MS).bit_length(), AGES - 1)


def _spread(slots: Sequence[int], start: int, end: int) -> list[int]:
    """Choose at most SAMPLE users of a slice, at even distances."""
    count = end - start
    if count <= SAMPLE:
        return list(slots[start:end])
    return [slots[start + at * count // SAMPLE] for at in range(SAMPLE)]
