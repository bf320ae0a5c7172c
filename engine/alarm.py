"""The alarm of periods: it rings when one is due to end, also while nobody plays.

Rule: it looks again after ALARM_SECONDS at the latest, because the clock may be set meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from engine.clock import Clock

ALARM_SECONDS = 1.0
"""The longest time between two looks."""


async def ring_when_due(due_ms: Callable[[], int | None], clock: Clock, ring: Callable[[], None]) -> None:
    """Ring when the clock reaches `due_ms`, and as long as that is past. None: nothing is due. Until cancelled."""
    while True:
        due = due_ms()
        left_s = ALARM_SECONDS if due is None else (due - clock.now_ms()) / 1000
        if left_s <= 0:
            ring()
            left_s = ALARM_SECONDS
        await trio.sleep(min(left_s, ALARM_SECONDS))
