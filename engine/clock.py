"""The clock that event times come from: the wall clock, as far as it moves with the monotonic clock. Pure.

    clock = SteadyClock(wall_ms, monotonic_s)
    reading = clock.read(wall_ms, monotonic_s)              reading.now_ms is the time of the next event
    for step in clock.take_steps(): …                       what has to be told

    wall       ───────────╮      ╭───────────────────╮ … stays there
    monotonic  ────────────────────────────────────────────────────►
    believed   ──────────────────────────────────────────── LASTS_S ──╮ then the wall clock again

Theory: an operator, a hypervisor or a time server may set the wall clock. Nothing sets the monotonic clock. If the two
move apart by more than STEP_MS, the wall clock was stepped. Nothing says at once which time is right, the one before or
the one after. A fault is usually repaired soon, and a repair stays. So the time before the step goes on, by the
monotonic clock, until the step has lasted for LASTS_S. Then the wall clock is believed again.

Rules:
- Within STEP_MS of the monotonic clock the wall clock is believed as it is. A drift that adds up to more is a step.
- A step that goes back within LASTS_S never shows in `now_ms`. A further step begins the time of waiting anew.
- `now_ms` goes back by at most STEP_MS, except where a step back is taken over. `taken_ms` tells that.
- `trusted`: no step was noticed, taken over or undone for TRUSTED_S. Before that, no file may be removed for its age.
- The first wall time of a process is believed, because there is nothing to compare it with. If the log disagrees,
  `engine.corrections` decides. If it is wrong and repaired soon after, that repair must last before it is believed.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Literal, Protocol

import msgspec

from engine.limits import CLOCK_LASTS_S, CLOCK_STEP_MS, CLOCK_STEPS_KEPT, CLOCK_TRUSTED_S


class ClockReading(msgspec.Struct, frozen=True, gc=False):
    """The believed time, in ms since 1970, and how far it can be relied on.

    `taken_ms`: the sum of all steps that were taken over. `at_s`: the monotonic time.
    """

    now_ms: int
    taken_ms: int
    at_s: float
    trusted: bool


class ClockBounds(msgspec.Struct, frozen=True):
    """The bounds of a steady clock; `engine.limits` says why these numbers."""

    step_ms: int = CLOCK_STEP_MS
    lasts_s: float = CLOCK_LASTS_S
    trusted_s: float = CLOCK_TRUSTED_S


class Clock(Protocol):
    """What a writer and a checkpointer need of a clock."""

    @property
    def bounds(self) -> ClockBounds: ...

    def read(self) -> ClockReading: ...

    def now_ms(self) -> int:
        """Give the believed time only: for every request."""

    def on_taken(self, observer: Callable[[], None]) -> None:
        """Call `observer` after each step that was taken over."""


class ClockStep(msgspec.Struct, frozen=True):
    """A change of the wall clock against the monotonic clock. `step_ms`: positive if the wall clock went forward.

    stepped     the wall clock is not believed from here on
    returned    the wall clock is where it was before the step, which never counted
    taken       the step has lasted, and is believed from here on
    """

    kind: Literal["stepped", "returned", "taken"]
    step_ms: int


class SteadyClock:
    """See above. Offsets are wall ms − monotonic ms: constant as long as the two clocks move together."""

    def __init__(self, wall_ms: int, monotonic_s: float, bounds: ClockBounds | None = None) -> None:
        self.steps = 0
        self._bounds = bounds or ClockBounds()
        self._anchor_ms = self._believed_ms = wall_ms - _ms(monotonic_s)
        self._stepped_ms: int | None = None  # the offset after a step that is not believed, and since when it is there
        self._stepped_s = 0.0
        self._steady_s = monotonic_s
        self._taken_ms = 0
        self._offset_ms = 0
        self._told: deque[ClockStep] = deque(maxlen=CLOCK_STEPS_KEPT)

    @property
    def offset_ms(self) -> int:
        """The wall clock's time less the believed time, at the last reading."""
        return self._offset_ms

    def read(self, wall_ms: int, monotonic_s: float) -> ClockReading:
        """Give the believed time. Both arguments are read at the same moment."""
        bounds, offset_ms = self._bounds, wall_ms - _ms(monotonic_s)
        if abs(offset_ms - self._anchor_ms) <= bounds.step_ms:
            if self._stepped_ms is not None:
                self._note("returned", self._stepped_ms - self._anchor_ms, monotonic_s)
                self._stepped_ms = None
            self._believed_ms = offset_ms
        elif self._stepped_ms is None or abs(offset_ms - self._stepped_ms) > bounds.step_ms:
            self._stepped_ms, self._stepped_s = offset_ms, monotonic_s
            self.steps += 1
            self._note("stepped", offset_ms - self._believed_ms, monotonic_s)
        elif monotonic_s - self._stepped_s >= bounds.lasts_s:
            step_ms = offset_ms - self._believed_ms
            self._taken_ms += step_ms
            self._anchor_ms = self._believed_ms = offset_ms
            self._stepped_ms = None
            self._note("taken", step_ms, monotonic_s)
        self._offset_ms = offset_ms - self._believed_ms
        trusted = self._stepped_ms is None and monotonic_s - self._steady_s >= bounds.trusted_s
        now_ms = max(self._believed_ms + _ms(monotonic_s), 0)  # a frame has no time before 1970
        return ClockReading(now_ms, self._taken_ms, monotonic_s, trusted)

    def now_ms(self, wall_ms: int, monotonic_s: float) -> int | None:
        """Give what `read` would give as the time, if nothing has happened since. Otherwise None: `read` then."""
        off_ms = wall_ms - int(monotonic_s * 1000) - self._anchor_ms
        is_steady = self._stepped_ms is None and abs(off_ms) <= self._bounds.step_ms
        return wall_ms if is_steady and wall_ms >= 0 else None

    def take_steps(self) -> list[ClockStep]:
        """Give what happened since the last call, at most the newest CLOCK_STEPS_KEPT."""
        told = list(self._told)
        self._told.clear()
        return told

    def _note(self, kind: Literal["stepped", "returned", "taken"], step_ms: int, monotonic_s: float) -> None:
        self._steady_s = monotonic_s
        self._told.append(ClockStep(kind, step_ms))


class GivenClock:
    """A clock that is believed as it is: of a tool that runs once, or of a test."""

    bounds = ClockBounds()

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms

    def read(self) -> ClockReading:
        return ClockReading(self._now_ms(), 0, 0.0, trusted=True)

    def now_ms(self) -> int:
        return self._now_ms()

    def on_taken(self, observer: Callable[[], None]) -> None:
        """See `Clock`. This clock takes no step over."""


def _ms(seconds: float) -> int:
    return math.floor(seconds * 1000)
