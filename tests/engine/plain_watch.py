"""A plain model of watches and reviews, obviously right: it keeps every event of a user, and looks at all of them.

plain = PlainReviews()
for event in events:
    plain.take(event)
plain.told()                         what `told_of` says of the real ones
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import floor, log2
from statistics import median_high

from engine import watch as bounds
from engine.board_rules import BoardRules, WatchRules
from engine.events import (
    BoardPut,
    ClockCorrected,
    Event,
    Incremented,
    PeriodChanged,
    Reversed,
    ReviewDecided,
    ScoreImported,
    UserErased,
)
from engine.reviews import Reviews

MINUTE_MS, HOUR_MS = 60_000, 3_600_000

Told = dict[str, tuple[str, str, str, int, int, int, str]]
"""By review id: board, user, rule, value, limit, since when, state."""


def told_of(reviews: Reviews) -> Told:
    """Say of real reviews what the model says of its own."""
    return {
        each.review_id: (
            each.board_id, each.user_id, each.rule, each.value, each.limit, each.since_ms, each.state,
        )
        for each in reviews.all()
    }  # fmt: skip


@dataclass
class PlainWatch:
    """One watched board, in one period."""

    rules: WatchRules
    ascending: bool
    since_ms: int
    steps: dict[str, list[tuple[int, int, str]]] = field(default_factory=dict)  # time, growth, caller
    joined: dict[str, int | None] = field(default_factory=dict)  # None: before the watch began
    cleared: dict[str, int] = field(default_factory=dict)
    minute: int = -1
    limits: dict[int, int] = field(default_factory=dict)

    def find_limits(self, time_ms: int, scores: dict[str, int]) -> None:
        """Judge each age by all of its users who are on the board."""
        self.minute = time_ms // MINUTE_MS
        by_age: dict[int, list[int]] = {}
        for user in [user for user in self.joined if user in scores]:
            by_age.setdefault(age(time_ms - self.begun(user)), []).append(scores[user])
        self.limits = {}
        for one, found in by_age.items():
            middle = median_high(found)
            mad = median_high([abs(score - middle) for score in found])
            if len(found) >= bounds.POPULATION_MIN and mad and self.rules.outlier_z is not None:
                room = int(self.rules.outlier_z * 1.4826 * mad)
                self.limits[one] = max(0, middle - room) if self.ascending else min(2**53 - 1, middle + room)

    def begun(self, user: str) -> int:
        """Give the time of a user's first points."""
        joined_ms = self.joined[user]
        return self.since_ms if joined_ms is None else joined_ms

    def window(self, user: str, length_ms: int) -> tuple[int, int, set[str]]:
        """Go through all steps of a user: the beginning, growth and callers of the last window."""
        begun_ms, growth, callers = -(10**15), 0, set[str]()
        for time_ms, more, caller in self.steps.get(user, []):
            if not 0 <= time_ms - begun_ms < length_ms:
                begun_ms, growth, callers = time_ms, 0, set()
            growth += more
            callers.add(caller)
        return begun_ms, growth, callers

    def broken(self, user: str, delta: int, score: int, caller: str, time_ms: int) -> tuple[str, int, int, int] | None:
        """Take a step; give the first rule that it broke."""
        self.steps.setdefault(user, []).append((time_ms, max(0, delta), caller))
        self.joined.setdefault(user, None if score - delta else time_ms)
        rules = self.rules
        begun_ms, growth, _ = self.window(user, MINUTE_MS)
        if rules.growth_per_minute is not None and growth > rules.growth_per_minute:
            return "growth_per_minute", growth, rules.growth_per_minute, begun_ms
        begun_ms, growth, callers = self.window(user, HOUR_MS)
        if rules.growth_per_hour is not None and growth > rules.growth_per_hour:
            return "growth_per_hour", growth, rules.growth_per_hour, begun_ms
        most = rules.callers_per_user
        if most is not None and len(callers) > most and caller not in self._first(user, most):
            return "callers_per_user", most + 1, most, begun_ms
        limit, cleared = self.limits.get(age(time_ms - self.begun(user))), self.cleared.get(user)
        if limit is None or (score >= limit if self.ascending else score <= limit):
            return None
        if cleared is not None and (score > cleared if self.ascending else score < cleared):
            return None
        return "outlier_z", score, limit, self.begun(user)

    def _first(self, user: str, most: int) -> list[str]:
        """The callers of the hour's window who came before there were too many: they break nothing later."""
        begun_ms, _, _ = self.window(user, HOUR_MS)
        steps = self.steps[user]
        start = max(at for at, (time_ms, _, _) in enumerate(steps) if time_ms == begun_ms and self._begins(steps, at))
        return list(dict.fromkeys(caller for _, _, caller in steps[start:]))[:most]

    @staticmethod
    def _begins(steps: list[tuple[int, int, str]], at: int) -> bool:
        """Whether an hour's window begins with this step."""
        begun_ms = -(10**15)
        begins = False
        for time_ms, _, _ in steps[: at + 1]:
            begins = not 0 <= time_ms - begun_ms < HOUR_MS
            begun_ms = time_ms if begins else begun_ms
        return begins


@dataclass
class PlainReviews:
    """All boards, and every review."""

    rules: dict[str, BoardRules] = field(default_factory=dict)
    watches: dict[str, PlainWatch] = field(default_factory=dict)
    scores: dict[str, dict[str, int]] = field(default_factory=dict)
    begun_ms: dict[str, int] = field(default_factory=dict)
    reviews: Told = field(default_factory=dict)

    def told(self) -> Told:
        """Give the reviews."""
        return self.reviews

    def take(self, event: Event) -> None:
        """Take in the next event."""
        if isinstance(event, BoardPut):
            old = self.rules.get(event.board_id)
            self.rules[event.board_id] = event.rules
            self.begun_ms.setdefault(event.board_id, event.time_ms)
            if old is None or (old.watch, old.order) != (event.rules.watch, event.rules.order):
                self._watch(event.board_id)
        elif isinstance(event, PeriodChanged) and not event.over:
            following = event.following
            self.begun_ms[event.board_id] = event.time_ms if following is None else following.begins_ms
            self.scores[event.board_id] = {}
            self._watch(event.board_id)
        elif isinstance(event, Incremented):
            self._count(event)
        elif isinstance(event, ScoreImported):
            self.scores.setdefault(event.board_id, {})[event.user_id] = event.new_score
        elif isinstance(event, Reversed):
            self._reverse(event)
        elif isinstance(event, UserErased):
            self._erase(event)
        elif isinstance(event, ReviewDecided):
            self._reverse(event)
            self._decide(event)
        elif isinstance(event, ClockCorrected):
            for watch in self.watches.values():
                watch.steps.clear()
                watch.joined = {
                    user: None if ms is None else min(ms, event.time_ms) for user, ms in watch.joined.items()
                }

    def _watch(self, board_id: str) -> None:
        self.watches.pop(board_id, None)
        rules = self.rules[board_id]
        if rules.watch is not None:
            self.watches[board_id] = PlainWatch(rules.watch, rules.order == "ascending", self.begun_ms[board_id])

    def _count(self, event: Incremented) -> None:
        parts = [(event.board_id, event.delta, event.new_score)]
        parts += [(fed.board_id, fed.delta, fed.new_score) for fed in event.fed]
        for place, (board_id, delta, score) in enumerate(parts):
            scores, watch = self.scores.setdefault(board_id, {}), self.watches.get(board_id)
            if watch is not None and event.time_ms // MINUTE_MS != watch.minute:
                watch.find_limits(event.time_ms, scores)
            if place in event.held:
                continue
            if watch is not None:
                broken = watch.broken(event.user_id, delta, score, event.caller, event.time_ms)
                if broken is not None and not self._is_open(board_id, event.user_id):
                    self.reviews[f"{event.seq}-{place}"] = (board_id, event.user_id, *broken, "open")
            scores[event.user_id] = score

    def is_held(self, board_id: str, user: str) -> bool:
        """Whether the board holds what this user does next."""
        watch = self.rules[board_id].watch
        return watch is not None and watch.action == "hold" and self._is_open(board_id, user)

    def _reverse(self, event: Reversed | ReviewDecided) -> None:
        """What the watch has seen stays; the scores are others."""
        for part in event.scores:
            scores = self.scores.setdefault(part.board_id, {})
            for row in part.rows:
                if row.new_score is None:
                    scores.pop(row.user_id, None)
                else:
                    scores[row.user_id] = row.new_score

    def _erase(self, event: UserErased) -> None:
        """The reviews of the user go. The watch forgets what the user did, and who is left keeps the age."""
        user = event.user_id
        self.reviews = {key: each for key, each in self.reviews.items() if each[1] != user}
        for scores in self.scores.values():
            scores.pop(user, None)
        for watch in self.watches.values():
            watch.steps.pop(user, None)
            watch.cleared.pop(user, None)
            watch.joined.pop(user, None)

    def _is_open(self, board_id: str, user: str) -> bool:
        return any((one[0], one[1], one[-1]) == (board_id, user, "open") for one in self.reviews.values())

    def _decide(self, event: ReviewDecided) -> None:
        board_id, user, *rest, state = self.reviews[event.review_id]
        assert state == "open", f"{event.review_id} is decided twice"
        rule, value, limit, since_ms = rest
        became = {"accept": "accepted", "reverse": "reversed"}[event.decision]
        self.reviews[event.review_id] = (board_id, user, rule, value, limit, since_ms, became)  # type: ignore[assignment]
        watch = self.watches.get(board_id)
        if watch is not None:
            watch.steps.pop(user, None)
            score = self.scores[board_id].get(user)
            if event.decision == "accept" and score is not None:
                watch.cleared[user] = score // 2 if watch.ascending else 2 * score


def age(ms: int) -> int:
    """Give the age of a user: the powers of two that a time in minutes has."""
    minutes = max(0, ms) // MINUTE_MS
    return 0 if minutes == 0 else floor(log2(minutes)) + 1
