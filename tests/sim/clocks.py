"""The wall clocks of a simulated run, which are set wrongly while nodes run, and what times must hold in spite of that.

    true       ───────────────────────────────────►         virtual time
    wall       ─────╮ wrong ╭──────╮ wrong ╭──────►         for less or for more than LASTS_S

These promises must hold:
- a wrong clock that is repaired within LASTS_S reaches no event; `applied` compares each event with the true time;
- times go back only at a correction: `Plain` refuses anything else;
- the corrected times are the true ones, but for events that nobody can know better: `judge`, at the end;
- retention removes nothing under a clock that was stepped within TRUSTED_S, and nothing too early: `removed`.

Some of the runs have such clocks (`draw_clocks`). Seeds that once failed are none of these, so they stay the same runs.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import trio

from engine.clock import ClockBounds
from engine.corrections import TrueTimes
from engine.events import ClockCorrected, EpochBegun, Event
from snapshots.retention import Removed
from tests.sim.profile import START_MS

CLOCKS = "clock"
"""The name of the generator. With it no seed of `tests.sim.seeds` has clocks that step."""

STEPPING = 0.2
"""So often a run has such clocks."""

LASTS_S = 2.0
TRUSTED_S = 6.0
STEADY = ClockBounds(lasts_s=LASTS_S, trusted_s=TRUSTED_S)
UNMOVED = ClockBounds(step_ms=10**12, trusted_s=0.0)
"""For the runs whose clocks only jump between two lives: those jumps are not judged, and change nothing."""

SLACK_S = 3.0
"""A step is noticed within a second, and a slow disk may keep the process from looking for longer."""

BOUND_MS = 1_000
WRITE_MS = 8_000
"""From the decision of an event to its end of the write, on a slow disk."""

DAY_MS = 86_400_000


class WrongTime(AssertionError):
    """A promise about times was broken."""


@dataclass(frozen=True)
class Period:
    """A time in which a clock is wrong."""

    from_s: float
    until_s: float
    off_ms: int


class WallClock:
    """The wall clock of one machine. It runs with virtual time, and is wrong in some periods."""

    def __init__(self, periods: Sequence[Period] = (), bounds: ClockBounds = UNMOVED) -> None:
        self.periods = periods
        self.bounds = bounds
        self.steps = bounds is not UNMOVED

    def off_ms(self, at_s: float) -> int:
        """How far it is ahead of the truth."""
        return sum(one.off_ms for one in self.periods if one.from_s <= at_s < one.until_s)

    def wait_s(self, at_s: float) -> float:
        """How long a start waits: with a clock that is behind nobody can know the truth."""
        behind = [one for one in self.periods if one.from_s <= at_s < one.until_s and one.off_ms < 0]
        return max((one.until_s - at_s for one in behind), default=0.0)

    def believed(self, began_s: float, at_s: float) -> set[int]:
        """Give what a process may believe: its first offset, or the last one that has lasted for long enough."""
        edges = self._edges(began_s, at_s)
        offsets = {self.off_ms(began_s)}
        for number, end in enumerate([*edges[1:], at_s]):
            off_ms, since_s = self.off_ms(edges[number]), edges[number]
            if end - since_s >= LASTS_S + SLACK_S:
                offsets = {off_ms}
                continue
            # A short change in between may have gone unseen.
            for before in range(number, 1, -2):
                if edges[before] - edges[before - 1] < SLACK_S and self.off_ms(edges[before - 2]) == off_ms:
                    since_s = edges[before - 2]
            if end - since_s >= LASTS_S:
                offsets.add(off_ms)
        return offsets

    def _edges(self, began_s: float, at_s: float) -> list[float]:
        changes = (edge for one in self.periods for edge in (one.from_s, one.until_s))
        return [began_s, *(edge for edge in changes if began_s < edge < at_s)]

    def steady_s(self, began_s: float, at_s: float) -> float:
        """How long the clock may have looked steady, at some moment of the last SLACK_S.

        A change that did not last for SLACK_S may have gone unseen.
        """
        lasting = [one for one in self.periods if one.until_s - one.from_s >= SLACK_S]
        edges = WallClock(lasting)._edges(began_s, at_s)
        spans = [end - edge for edge, end in zip(edges, [*edges[1:], at_s], strict=True) if end > at_s - SLACK_S]
        return max(spans)


def draw_clocks(dice: random.Random, chaos_s: float) -> list[Period]:
    """Draw when a clock is wrong, in a run with such clocks: for a moment or for longer, ahead or behind."""
    periods: list[Period] = []
    at_s = 0.0
    while True:
        at_s += dice.expovariate(1 / 2.0) + 0.1
        lasts_s = dice.choice([dice.uniform(0.1, 0.8 * LASTS_S), dice.uniform(LASTS_S + SLACK_S, 10.0)])
        if at_s + lasts_s > chaos_s - LASTS_S - SLACK_S:
            return periods
        off_ms = dice.choice([3_000, 60_000, 100 * DAY_MS, 365 * DAY_MS]) * dice.choice([1, 1, -1])
        periods.append(Period(at_s, at_s + lasts_s, off_ms))
        at_s += lasts_s


class Times:
    """The judge of times. `counts` are the books'."""

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts
        self._true_ms: dict[int, int] = {}
        self._lives: list[int] = []  # the last seq before each life of a leader

    def began(self, seq: int) -> None:
        """Note that a leader starts, after the event `seq`."""
        self._lives.append(seq)

    def applied(self, name: str, clock: WallClock, began_s: float, events: Sequence[Event]) -> None:
        """Take events that a leader has just written; its process began at `began_s`."""
        now_s = trio.current_time()
        true_ms = START_MS + int(now_s * 1000)
        offsets = clock.believed(began_s, now_s) | clock.believed(began_s, max(began_s, now_s - SLACK_S))
        for event in events:
            self._true_ms[event.seq] = true_ms
            if isinstance(event, EpochBegun):
                self._lives.append(event.seq - 1)
                continue  # it may follow an event whose time is wrong, and is not earlier
            if isinstance(event, ClockCorrected):
                self._counts["clock corrections"] += 1
            off_ms = event.time_ms - true_ms
            if not min(offsets) - BOUND_MS - WRITE_MS <= off_ms <= max(offsets) + BOUND_MS:
                raise WrongTime(
                    f"seq {event.seq} of {name} is {off_ms} ms from the truth; believed may be {sorted(offsets)}"
                )
            if clock.off_ms(now_s) not in offsets:
                self._counts["events under a wrong clock"] += 1

    def removed(self, name: str, clock: WallClock, began_s: float, keep_s: float, segment: Removed) -> None:
        """Take the removal of a segment."""
        now_s = trio.current_time()
        steady_s = clock.steady_s(began_s, now_s)
        if steady_s < TRUSTED_S:
            raise WrongTime(f"{name} removed {segment} by a clock that was steady for {steady_s:.1f} s")
        true_ms = self._true_ms.get(segment.last_seq)
        right = clock.believed(began_s, now_s) == {0}
        if right and true_ms is not None and now_s * 1000 + START_MS - true_ms + BOUND_MS < keep_s * 1000:
            raise WrongTime(f"{name} removed {segment} too early: its last event happened at {true_ms}")
        self._counts["segments removed by a trusted clock"] += 1

    def judge(self, events: Sequence[Event]) -> list[int]:
        """Compare the corrected times with the true ones; give the corrected times."""
        corrections = [event for event in events if isinstance(event, ClockCorrected)]
        times = TrueTimes(corrections)
        corrected = [times.of(event.seq, event.time_ms) for event in events]
        valid = _valid(corrections)
        unknown = self._unknown(valid)
        for event, time_ms in zip(events, corrected, strict=True):
            true_ms = self._true_ms.get(event.seq)
            if true_ms is None or event.seq <= unknown or isinstance(event, ClockCorrected | EpochBegun):
                continue
            covered = any(one.from_seq <= event.seq < one.seq for one in valid)
            is_wrong = not -WRITE_MS - BOUND_MS <= event.time_ms - true_ms <= BOUND_MS
            if is_wrong and not covered:
                # Its process ended before the clock was repaired. What was ahead is known to be before the next one.
                if event.time_ms > true_ms and time_ms < true_ms - WRITE_MS:
                    raise WrongTime(f"seq {event.seq} happened at {true_ms}, and counts as {time_ms}")
                self._counts["events of an unknown time"] += 1
            elif not -WRITE_MS - 2 * BOUND_MS <= time_ms - true_ms <= 2 * BOUND_MS:
                raise WrongTime(f"seq {event.seq} happened at {true_ms}, and counts as {time_ms}: {corrections}")
            else:
                self._counts["times judged"] += 1
                self._counts["times put right"] += covered
        return corrected

    def _unknown(self, valid: list[ClockCorrected]) -> int:
        """Up to which event nobody can know: a correction believed a wrong clock, and its process ended before that."""
        unknown = 0
        for one in valid:
            true_ms = self._true_ms.get(one.seq)
            if true_ms is None or not -WRITE_MS - BOUND_MS <= one.time_ms - true_ms <= BOUND_MS:
                unknown = next((life for life in self._lives if life >= one.seq), 2**53)
        return unknown


def _valid(corrections: Sequence[ClockCorrected]) -> list[ClockCorrected]:
    """Those that no later one took back."""
    return [
        one
        for number, one in enumerate(corrections)
        if not any(later.from_seq <= one.seq for later in corrections[number + 1 :])
    ]
