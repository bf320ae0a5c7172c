"""The clock of a process: the steady clock of the engine, read from the system, watched, and told about.

    clock = NodeClock(metrics); nursery.start_soon(clock.run)
    clock.read().now_ms                                       the time of the next event
    clock.on_taken(observer)                                  a step was taken over: the leader may log a correction

Rules:
- The clocks are compared at every reading, and every LOOK_SECONDS without one. So a step is noticed when nobody writes.
- What happened is logged every LOOK_SECONDS, not at the reading: a clock that steps at each reading fills no disk.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import structlog
import trio

from engine.clock import ClockBounds, ClockReading, ClockStep, SteadyClock
from engine.events import ClockCorrected
from server.live.encoding import iso_ms

LOOK_SECONDS = 1.0
"""Time between two looks at the clocks. A wrong clock that is repaired sooner, and that nobody read, harms nobody."""

log = structlog.get_logger()

_EVENTS = {"stepped": "clock_stepped", "returned": "clock_step_returned", "taken": "clock_step_taken_over"}


class ClockMetrics(Protocol):
    """What is counted of a clock."""

    def clock(self, steps: int, offset_seconds: float) -> None:
        """Count further steps, and take the wall clock's time less the believed time."""


def wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


class NodeClock:
    """See above. `wall_ms` and `monotonic_s` read the system's clocks."""

    def __init__(
        self,
        metrics: ClockMetrics,
        *,
        wall_ms: Callable[[], int] = wall_clock_ms,
        monotonic_s: Callable[[], float] = time.monotonic,
        bounds: ClockBounds | None = None,
    ) -> None:
        self.bounds = bounds or ClockBounds()
        self._metrics = metrics
        self._wall_ms = wall_ms
        self._monotonic_s = monotonic_s
        self._steady = SteadyClock(wall_ms(), monotonic_s(), self.bounds)
        self._taken_ms = 0
        self._counted = 0
        self._observers: list[Callable[[], None]] = []

    def read(self) -> ClockReading:
        reading = self._steady.read(self._wall_ms(), self._monotonic_s())
        if reading.taken_ms != self._taken_ms:
            self._taken_ms = reading.taken_ms
            for observer in self._observers:
                observer()
        return reading

    def now_ms(self) -> int:
        now_ms = self._steady.now_ms(self._wall_ms(), self._monotonic_s())
        return self.read().now_ms if now_ms is None else now_ms

    def on_taken(self, observer: Callable[[], None]) -> None:
        self._observers.append(observer)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look at the clocks until cancelled."""
        task_status.started()
        while True:
            self.look()
            await trio.sleep(LOOK_SECONDS)

    def look(self) -> None:
        """Read the clocks, and tell what happened since the last look."""
        reading = self.read()
        for step in self._steady.take_steps():
            _tell(step, reading)
        self._metrics.clock(self._steady.steps - self._counted, self._steady.offset_ms / 1000)
        self._counted = self._steady.steps


def _tell(step: ClockStep, reading: ClockReading) -> None:
    what = log.info if step.kind == "returned" else log.warning
    what(_EVENTS[step.kind], step_seconds=step.step_ms / 1000, event_time=iso_ms(reading.now_ms))


def tell_correction(correction: ClockCorrected) -> None:
    """Log that the clock is about to be corrected in the log of events."""
    ahead_seconds = correction.ahead_ms / 1000
    if correction.from_seq == correction.seq:
        log.warning("log_ahead_of_clock", ahead_seconds=ahead_seconds, clock_time=iso_ms(correction.time_ms))
    log.warning(
        "clock_corrected",
        seq=correction.seq,
        time=iso_ms(correction.time_ms),
        from_seq=correction.from_seq,
        ahead_seconds=ahead_seconds,
        note=correction.note,
    )
