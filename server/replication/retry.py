"""The waits between attempts: random, growing, and bounded.

    backoff = Backoff(uniform)
    while not await attempt():
        await backoff.wait()

Full jitter: a wait is random between 0 and a bound, which doubles up to a cap. So the followers of a restarted leader
do not all come at once ("Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from server import bounds

_DOUBLINGS_MAX = 32


def retry_seconds(attempt: int, uniform: Callable[[float, float], float]) -> float:
    """Give the wait before the next attempt. `attempt` 0 is the first one after a link that lived."""
    bound = min(bounds.RECONNECT_SECONDS_MAX, bounds.RECONNECT_SECONDS * 2.0 ** min(attempt, _DOUBLINGS_MAX))
    return uniform(0.0, bound)


class Backoff:
    """The waits of one task. `attempts` counts the failures since the last success."""

    def __init__(self, uniform: Callable[[float, float], float]) -> None:
        self._uniform = uniform
        self.attempts = 0

    def reset(self) -> None:
        self.attempts = 0

    def to_cap(self) -> None:
        """Use the longest bound from now on: trying again soon gains nothing."""
        self.attempts = _DOUBLINGS_MAX

    async def wait(self) -> None:
        await trio.sleep(retry_seconds(self.attempts, self._uniform))
        self.attempts += 1
