"""Corrections of the clock: when a leader logs one, and which times the logged times stand for. Pure.

    correction = Corrector().due(reading, seq, time_ms)              None, or the event to log next
    times = TrueTimes(corrections); times.of(seq, time_ms)           the time when the event happened

    log    … 7  8 │ 9   10  11 │ C       12  13                  the clock was a year ahead from 9 on
    time   … t  t │ +1y +1y +1y│ t       t   t                   C: fromSeq 9, aheadMs 1 year
    true   … t  t │ t   t   t  │ t       t   t

Times never go back but at a `ClockCorrected`. Each one says that the clock which the leader has from then on is right.
What it says of the events before it:
- Those from `from_seq` on have times that are `ahead_ms` ahead of the truth (behind it, if negative).
- Everything before it happened before its own time. That bounds the times of events whose error nobody knows: the clock
  was wrong in an earlier process.
- A correction within the range of a later one is void: the clock that it believed was wrong.

When one is due (`Corrector`):

    at the start, the log's last time is ahead of the clock         no range: nothing says since when the log is ahead
    a step back was taken over                                      the events since that clock was believed were ahead
    a step forward was taken over that makes up for a correction    it was wrong; the events since were behind
    any other step forward                                          none: times go forward by themselves

Theory: at a start either the log or the clock is wrong, and nothing says which. The clock is believed, because most
clocks are right. So the first event has a true time already. If the clock is repaired soon after, by a step forward
that makes up for the correction, the correction is taken back, and the log says the truth again. What stays wrong: a
process that starts with a clock behind the log, and ends before that clock is repaired.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from engine.clock import ClockBounds, ClockReading
from engine.events import ClockCorrected


class Corrector:
    """Decides for one writer when a correction is due. What it gives must be logged, or the writer ends."""

    def __init__(self, bounds: ClockBounds | None = None) -> None:
        self._bounds = bounds or ClockBounds()
        self._taken_ms: int | None = None
        self._since = 1  # the first seq under the clock that is believed now
        self._last: ClockCorrected | None = None  # a correction that may yet turn out to be wrong, and when it was made
        self._last_s = 0.0

    def due(self, reading: ClockReading, seq: int, time_ms: int) -> ClockCorrected | None:
        """Give the correction that must follow the event `seq`, which has this time. O(1)."""
        first = self._taken_ms is None
        step_ms = reading.taken_ms - (self._taken_ms or 0)
        ahead_ms = time_ms - reading.now_ms
        self._taken_ms = reading.taken_ms
        if first:
            self._since, step_ms = seq + 1, 0
        if step_ms > 0:
            return self._forward(step_ms, reading, seq, time_ms)
        if step_ms < 0 and self._since <= seq:
            return self._back(ClockCorrected(seq + 1, reading.now_ms, self._since, -step_ms, "stepped back"), reading)
        if ahead_ms > self._bounds.step_ms:
            note = "the log is ahead of the clock"
            return self._back(ClockCorrected(seq + 1, reading.now_ms, seq + 1, ahead_ms, note), reading)
        return None

    def _back(self, correction: ClockCorrected, reading: ClockReading) -> ClockCorrected:
        self._since = correction.seq + 1
        self._last, self._last_s = correction, reading.at_s
        return correction

    def _forward(self, step_ms: int, reading: ClockReading, seq: int, time_ms: int) -> ClockCorrected | None:
        last, self._last = self._last, None
        self._since = seq + 1
        soon = reading.at_s - self._last_s < self._bounds.trusted_s
        if last is None or not soon or step_ms < last.ahead_ms - self._bounds.step_ms:
            return None
        now_ms = max(reading.now_ms, time_ms)
        return ClockCorrected(seq + 1, now_ms, last.seq, -step_ms, f"the correction of seq {last.seq} was wrong")


class TrueTimes:
    """The times when events happened, by all corrections of a log. The corrections are in the order of their seqs."""

    def __init__(self, corrections: Sequence[ClockCorrected]) -> None:
        valid: list[ClockCorrected] = []
        for correction in reversed(corrections):
            if not valid or correction.seq < valid[-1].from_seq:
                valid.append(correction)
        valid.reverse()
        self._valid = valid
        bounds = accumulate((correction.time_ms for correction in reversed(valid)), min)
        self._bounds = list(bounds)[::-1]
        """For each valid correction, the earliest time of it and the later ones: nothing before it happened later."""

    def of(self, seq: int, time_ms: int) -> int:
        """Give the time when an event happened. O(corrections), which are few."""
        for correction, bound_ms in zip(self._valid, self._bounds, strict=True):
            if seq < correction.seq:
                ahead_ms = correction.ahead_ms if seq >= correction.from_seq else 0
                return min(time_ms - ahead_ms, bound_ms)
        return time_ms
