"""Watching a board for scores that grow too fast or stand too far out. Pure: what flags depends on events alone.

    watch.turn(time_ms, board.score)                       before the first event of the board in a new minute
    found = watch.see(user_id, delta, new_score, caller, time_ms)        None, or the rule that the event broke

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
- `_place` has the place in `_joined` of each user who is there, and -1 for each of `_elders`.
- A window that was not used for two turns of the hour is over, and forgotten.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from engine.board_rules import OrderMode, ReviewRule, WatchRules
from engine.limits import SCORE_MAX

MINUTE_MS = 60_000
HOUR_MS = 3_600_000

SAMPLE = 255
"""Users whose scores give median and MAD of an age: their median is within some 6 % of the population's ranks."""

POPULATION_MIN = 20
"""Users of one age, below which an age judges nobody."""

AGES = 24
"""Ages: the last one begins after eight years."""

NORMAL = 1.4826
"""Of a normal distribution, the standard deviation is this many MADs."""


class Found(msgspec.Struct, frozen=True, gc=False):
    """A rule that an event broke: what was found, the limit, and since when (ms) the user's actions count to it."""

    rule: ReviewRule
    value: int
    limit: int
    since_ms: int


class _Image(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """All that a watch knows beside its rules, in the order of a snapshot."""

    since_ms: int
    minute: int
    hour: int
    recent: dict[str, list[Any]]
    older: dict[str, list[Any]]
    callers: dict[str, list[str]]
    joined: list[str]
    joined_ms: list[int]
    elders: list[str]
    limits: list[int | None]
    cleared: dict[str, int]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Image).decode

_Window = list[Any]
"""Beginning and growth of the running minute, the same of the hour, the first caller of the hour ("": none is counted),
and the place in `_joined`. One list, because each object of a large board comes from memory."""


class Watch:
    """What is known of the users of a watched board. An event is O(1), a turn of the minute O(AGES · SAMPLE)."""

    def __init__(self, rules: WatchRules, order: OrderMode, since_ms: int) -> None:
        """`since_ms` is when the running period began."""
        self.rules = rules
        self.order = order
        self._since_ms = since_ms
        self._minute = self._hour = -1
        self._minute_max = SCORE_MAX if rules.growth_per_minute is None else rules.growth_per_minute
        self._hour_max = SCORE_MAX if rules.growth_per_hour is None else rules.growth_per_hour
        self._callers_max = rules.callers_per_user or 0
        self._recent: dict[str, _Window] = {}
        self._older: dict[str, _Window] = {}
        self._callers: dict[str, list[str]] = {}
        self._joined: list[str] = []
        self._joined_ms: list[int] = []
        self._place: dict[str, int] = {}
        self._elders: list[str] = []
        self._limits: list[int | None] = [None] * AGES
        self._cleared: dict[str, int] = {}
        self._falls = order == "ascending"
        self._find_near()

    def is_due(self, time_ms: int) -> bool:
        """Whether `turn` must be called before an event of this time."""
        return time_ms // MINUTE_MS != self._minute

    def turn(self, time_ms: int, score: Callable[[str], int | None]) -> None:
        """Begin another minute: find the limits of the ages, and forget old windows."""
        self._minute = time_ms // MINUTE_MS
        if time_ms // HOUR_MS != self._hour:
            self._hour = time_ms // HOUR_MS
            for user_id in self._older:
                self._callers.pop(user_id, None)
            self._recent, self._older = {}, self._recent
        if self.rules.outlier_z is not None:
            self._find_limits(self.rules.outlier_z, time_ms, score)

    def see(self, user_id: str, delta: int, new_score: int, caller: str, time_ms: int) -> Found | None:
        """Count an event; give the first rule that it broke."""
        window = self._recent.get(user_id)
        if window is None:
            window = self._older.pop(user_id, None)
            if window is None:
                window = [time_ms, 0, time_ms, 0, "", self._place_of(user_id, new_score - delta, time_ms)]
            self._recent[user_id] = window
        if not 0 <= time_ms - window[0] < MINUTE_MS:
            window[0], window[1] = time_ms, 0
        if not 0 <= time_ms - window[2] < HOUR_MS:
            window[2], window[3], window[4] = time_ms, 0, ""
            self._callers.pop(user_id, None)
        if delta > 0:
            minute = window[1] = window[1] + delta
            hour = window[3] = window[3] + delta
            if minute > self._minute_max:
                found = Found("growth_per_minute", minute, self._minute_max, window[0])
            elif hour > self._hour_max:
                found = Found("growth_per_hour", hour, self._hour_max, window[2])
            else:
                found = None
        else:
            found = None
        if self._callers_max and caller != window[4]:
            found = self._count_caller(user_id, caller, window, found)
        is_far = new_score < self._near if self._falls else new_score > self._near
        return self._judge(user_id, new_score, time_ms, window[5]) if is_far and found is None else found

    def clear(self, user_id: str, score: int | None) -> None:
        """Let a user begin anew after a decision: no growth, no callers. `score` was found good; None: it was not.

        The user is no outlier again before the score is twice as good as this one.
        """
        for windows in (self._recent, self._older):
            windows.pop(user_id, None)
        self._callers.pop(user_id, None)
        if score is not None and self.rules.outlier_z is not None:
            self._cleared[user_id] = score // 2 if self._falls else 2 * score

    def correct(self, time_ms: int) -> None:
        """Let nobody have joined in the future, and begin all windows anew."""
        self._recent, self._older, self._callers = {}, {}, {}
        self._joined_ms = [min(joined_ms, time_ms) for joined_ms in self._joined_ms]

    def forget(self, user_id: str, pseudonym: str) -> None:
        """Forget a user who was erased. The pseudonym keeps the place among those who joined; others keep theirs."""
        for known in (self._recent, self._older, self._callers, self._cleared):
            known.pop(user_id, None)
        place = self._place.pop(user_id, None)
        if place is not None:
            self._place[pseudonym] = place
            users = self._elders if place < 0 else self._joined
            users[users.index(user_id)] = pseudonym
        for window in (*self._recent.values(), *self._older.values()):
            if window[4] == user_id:
                window[4] = pseudonym
        for callers in self._callers.values():
            callers[:] = [pseudonym if caller == user_id else caller for caller in callers]

    # The parts of `see`

    def _count_caller(self, user_id: str, caller: str, window: _Window, found: Found | None) -> Found | None:
        """Take in a caller who is not the one of the event before. Most users have one caller, and need no list."""
        if not window[4]:
            window[4] = caller
            return found
        callers = self._callers.setdefault(user_id, [window[4]])
        if caller not in callers:
            if len(callers) >= self._callers_max:
                return found or Found("callers_per_user", len(callers) + 1, self._callers_max, window[2])
            callers.append(caller)
        return found

    def _judge(self, user_id: str, new_score: int, time_ms: int, place: int) -> Found | None:
        """Compare a score that is an outlier at some age with the limit of its own age."""
        begun_ms = self._since_ms if place < 0 else self._joined_ms[place]
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

    def _place_of(self, user_id: str, score_before: int, time_ms: int) -> int:
        """Find a user's place among those who joined; a new one joins."""
        if self.rules.outlier_z is None:
            return -1
        place = self._place.get(user_id)
        if place is None:
            if score_before:
                place = -1
                self._elders.append(user_id)
            else:
                place = len(self._joined)
                self._joined.append(user_id)
                self._joined_ms.append(time_ms)
            self._place[user_id] = place
        return place

    def _find_limits(self, outlier_z: float, time_ms: int, score: Callable[[str], int | None]) -> None:
        elders_age = _age(time_ms - self._since_ms)
        end = len(self._joined)
        for age in range(AGES):
            # Those who are younger than 2^age minutes, and not of an age before.
            start = 0 if age == AGES - 1 else bisect_left(self._joined_ms, time_ms - (MINUTE_MS << age) + 1, 0, end)
            chosen = _spread(self._joined, start, end)
            if age == elders_age:
                chosen += _spread(self._elders, 0, len(self._elders))
            scores = sorted(found for user_id in chosen if (found := score(user_id)) is not None)
            self._limits[age] = limit_of(scores, outlier_z, self.order)
            end = start
        self._find_near()

    def _find_near(self) -> None:
        """Find the score that is no outlier at any age: most scores are compared with no other."""
        limits = [limit for limit in self._limits if limit is not None]
        self._near = max(limits, default=0) if self._falls else min(limits, default=SCORE_MAX)

    # Images

    def capture(self) -> bytes:
        """Write all that the watch knows. Its dictionaries keep their order, so equal watches have equal bytes."""
        return _encode(
            _Image(
                self._since_ms, self._minute, self._hour, self._recent, self._older, self._callers, self._joined,
                self._joined_ms, self._elders, self._limits, self._cleared,
            )
        )  # fmt: skip

    @classmethod
    def from_image(cls, rules: WatchRules, order: OrderMode, data: bytes) -> Watch:
        """Make the watch that `capture` wrote. Raises `msgspec.DecodeError`."""
        image = _decode(data)
        watch = cls(rules, order, image.since_ms)
        watch._minute, watch._hour = image.minute, image.hour
        watch._recent, watch._older, watch._callers = image.recent, image.older, image.callers
        watch._joined, watch._joined_ms, watch._elders = image.joined, image.joined_ms, image.elders
        watch._place = {user_id: place for place, user_id in enumerate(image.joined)} | dict.fromkeys(image.elders, -1)
        watch._limits, watch._cleared = image.limits, image.cleared
        watch._find_near()
        return watch

    def _check(self) -> None:
        assert self._joined_ms == sorted(self._joined_ms)
        assert len(self._joined) == len(self._joined_ms)
        assert len(self._place) == len(self._joined) + len(self._elders)
        assert not self._recent.keys() & self._older.keys()
        assert self._callers.keys() <= self._recent.keys() | self._older.keys()
        assert all(window[1] >= 0 and window[3] >= 0 for window in (*self._recent.values(), *self._older.values()))


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


def _spread(users: Sequence[str], start: int, end: int) -> list[str]:
    """Choose at most SAMPLE users of a slice, at even distances."""
    count = end - start
    if count <= SAMPLE:
        return list(users[start:end])
    return [users[start + at * count // SAMPLE] for at in range(SAMPLE)]
