"""What follows from an attempt: done, again after a while, or the end of the hook. Pure.

    plan = after(attempt, failures=3, failing_s=12.5, disable_after_s=259_200, uniform=uniform)

    answer              then
    2xx                 acknowledged
    410                 disabled at once: the receiver wants no more
    other, or none      again, after a random wait; disabled if only failures came for `disable_after`

Rules:
- A wait is random, between half of a bound and the bound, which doubles from a second to an hour. So a receiver that
  comes back is not met by all hooks at once, and none waits for nothing.
- A receiver that answers 429 or 503 may ask for a longer wait by `Retry-After`, up to an hour.
- A redirect is no acknowledgement, and is not followed: it could lead anywhere.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from server.webhooks.limits import RETRY_SECONDS, RETRY_SECONDS_MAX

GONE = 410
_MAY_ASK_FOR_TIME = (429, 503)
_DOUBLINGS_MAX = 12


class Attempt(msgspec.Struct, frozen=True):
    """What came of an attempt: the status, None without an answer; what went wrong; and how long to wait at least."""

    status: int | None
    error: str = ""
    retry_after_s: float = 0.0

    @property
    def is_acknowledged(self) -> bool:
        """Whether the receiver took the delivery."""
        return self.status is not None and 200 <= self.status < 300


class Plan(msgspec.Struct, frozen=True):
    """After a failure: how long to wait, or why the hook is disabled."""

    wait_s: float = 0.0
    disabled: str = ""


def after(
    attempt: Attempt, *, failures: int, failing_s: float, disable_after_s: float,
    uniform: Callable[[float, float], float],
) -> Plan:  # fmt: skip
    """Plan what follows the last of `failures` failures in a row, which began `failing_s` ago."""
    assert not attempt.is_acknowledged
    assert failures > 0
    if attempt.status == GONE:
        return Plan(disabled="the receiver answered 410 Gone")
    if failing_s >= disable_after_s:
        return Plan(disabled=f"nothing but failures for {round(failing_s)} seconds, the last one: {attempt.error}")
    bound = min(RETRY_SECONDS_MAX, RETRY_SECONDS * 2.0 ** min(failures - 1, _DOUBLINGS_MAX))
    asked = min(attempt.retry_after_s, RETRY_SECONDS_MAX) if attempt.status in _MAY_ASK_FOR_TIME else 0.0
    return Plan(wait_s=max(asked, uniform(bound / 2, bound)))
