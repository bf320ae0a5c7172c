"""The two rate limits of writes: one over callers, one over users.

    limits.pass_both(caller, user_id, now_s)     charges both, or refuses and charges none

A change of a user is charged to the caller only. The rules of increments are in `server.api.increments`.
"""

from __future__ import annotations

import math

from server.access.rates import Rates
from server.api.dependencies import Dependencies
from server.http.messages import Refused


class Limits:
    def __init__(self, dependencies: Dependencies) -> None:
        self.callers = dependencies.caller_rates
        self.users = dependencies.user_rates
        self._metrics = dependencies.metrics

    def pass_both(self, caller: str, user_id: str, now_s: float) -> None:
        """Charge both limits, or refuse and charge none. Raises `Refused`."""
        if self.callers.wait_s(caller, now_s) > 0:
            raise self.over(caller, 0, user_id, self.users.wait_s(user_id, now_s), now_s)
        user_wait_s = self.users.take(user_id, now_s)
        if user_wait_s > 0:
            raise self.over(caller, 0, user_id, user_wait_s, now_s)
        self.callers.charge(caller, now_s)

    def pass_caller(self, caller: str, now_s: float) -> None:
        """Charge the caller's limit, or refuse. Raises `Refused`."""
        wait_s = self.callers.wait_s(caller, now_s)
        if wait_s > 0:
            raise self._limited("caller", self.callers, wait_s)
        self.callers.charge(caller, now_s)

    def over(self, caller: str, pending: int, user_id: str, user_wait_s: float, now_s: float) -> Refused:
        """Refuse by the limit with the longer wait. `pending` of the caller's increments are not charged yet."""
        caller_wait_s = self.callers.wait_s(caller, now_s, pending)
        if user_wait_s > caller_wait_s:
            return self._limited("user", self.users, user_wait_s, userId=user_id)
        return self._limited("caller", self.callers, caller_wait_s)

    def _limited(self, limit: str, rates: Rates, wait_s: float, **details: str) -> Refused:
        self._metrics.rate_limited(limit)
        retry_after = max(1, math.ceil(wait_s))
        return Refused(
            429,
            "RATE_LIMITED",
            f"Too many requests for this {limit}: at most {rates.per_minute} a minute.",
            {"limit": limit, "limitPerMinute": rates.per_minute, "retryAfterSeconds": retry_after, **details},
            (("retry-after", str(retry_after)),),
        )
