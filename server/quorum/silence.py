"""When a standby bids for the next epoch: after a silence of the leader, on a stream that answers. Pure.

    silence = Silence(3.0, uniform, now_s)
    silence.heard(at_s); silence.readable(now_s); silence.unreadable()
    if now_s >= silence.due_s: bid

Rules:
- A leader counts as heard at the time when a majority last answered it, not when its word came. So a leader that is
  alive with a minority does not hold up the others.
- Nobody bids on a stream that was not readable for READABLE of a silence. So after a time without a quorum the old
  leader has three beats to make itself heard. More would add to the gap when it died with the servers.
- Each silence has a jitter of its own, so standbys seldom bid at once. If they do, the stream has one winner.
- A leader that resigns ends the silence at once. The node that resigned abstains for a while, or until it hears
  another leader: then that one may resign, too, and somebody must bid.
"""

from __future__ import annotations

import math
from collections.abc import Callable

READABLE = 0.5
"""How long the stream must have been readable, as a part of the silence."""

JITTER = 0.25
"""The longest jitter, as a part of the silence."""

RESIGNED_JITTER_SECONDS = 0.1
"""The longest wait after a leader resigned."""


class Silence:
    """The silence that one standby hears. Times are in seconds of a clock that never goes back."""

    def __init__(self, silence_s: float, uniform: Callable[[float, float], float], now_s: float) -> None:
        self._silence_s = silence_s
        self._uniform = uniform
        self._heard_s = now_s
        self._readable_s = math.inf
        self._abstains_s = -math.inf
        self._resigned_s = math.inf
        self._jitter_s = self._draw()

    def _draw(self) -> float:
        return self._uniform(0.0, JITTER * self._silence_s)

    @property
    def due_s(self) -> float:
        """When to bid; infinite while the stream can't be read."""
        if math.isinf(self._readable_s):
            return math.inf
        due_s = max(self._heard_s + self._silence_s, self._readable_s + READABLE * self._silence_s) + self._jitter_s
        return max(min(due_s, self._resigned_s), self._abstains_s)

    def heard(self, at_s: float) -> None:
        """Note that a majority answered the leader at `at_s`."""
        if at_s > self._heard_s:
            self._heard_s, self._resigned_s, self._abstains_s = at_s, math.inf, -math.inf

    def begin(self, now_s: float) -> None:
        """Begin a new silence: a leader has just begun or ended."""
        self._heard_s, self._resigned_s, self._jitter_s = now_s, math.inf, self._draw()

    def readable(self, now_s: float) -> None:
        """Note that the stream answered."""
        self._readable_s = min(self._readable_s, now_s)

    def unreadable(self) -> None:
        """Note that the stream gave no answer."""
        self._readable_s = math.inf

    def resigned(self, now_s: float) -> None:
        """Note that the leader resigned."""
        self._resigned_s = now_s + self._uniform(0.0, RESIGNED_JITTER_SECONDS)

    def abstain(self, until_s: float) -> None:
        """Bid for nothing before `until_s`."""
        self._abstains_s = until_s
