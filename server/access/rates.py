"""Rate limits by GCRA, the leaky bucket as a meter (ITU-T I.371, annex A). Pure: the time comes in as an argument.

    rates = Rates(per_minute=600, keys_max=200_000)
    wait_s = rates.take(user_id, now_s)      0: allowed and charged; else the seconds until it is allowed

A key may use a whole minute's allowance at once, and earns one more every 60 / limit seconds. Within any s seconds at
most `per_minute * (1 + s / 60)` are allowed. A key that stays below its limit is never refused.

Theory: each key has one number, its theoretical arrival time (TAT): when all that was charged will be earned. A charge
moves it on by one interval, from now or from the TAT, whichever is later. A key is allowed one while its TAT is at most
a minute less one interval ahead. A TAT in the past means the same as no TAT. A fixed window would allow twice the limit
around its edge; a log of arrivals would cost memory for each arrival.

Arithmetic is exact: times are integers in units of 1/per_minute nanoseconds, so an interval is 60_000_000_000 units for
every limit. Floats would sometimes refuse a caller that is exactly at its limit.

Invariants: at most `keys_max` keys, ordered by their last charge; every TAT is at least one interval after the clock's
zero. A new key takes the place of one of the EVICTION_CANDIDATES oldest, the one with the lowest TAT. If that is not in
the past yet, the key begins afresh too early (`forgotten_early` counts these). Refusing new keys instead would let one
caller who fills the table lock out all others; to fill it takes `keys_max` authorised charges within a minute.

Every operation is O(1). Hence the OrderedDict: a plain dict leaves a gap for each removed key, and would walk over the
gaps at its front to find the oldest.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable
from itertools import islice

from server.http.messages import Refused

NANOSECONDS = 1_000_000_000
INTERVAL_UNITS = 60 * NANOSECONDS
EVICTION_CANDIDATES = 8


class Rates:
    """One limit over many keys.

    `wait_s` and `room` only ask, `charge` charges, `take` does both. So several limits can be asked, and all or none
    charged, without an await in between. `now_s` is of a clock that never goes back.
    """

    def __init__(self, per_minute: int, keys_max: int) -> None:
        assert per_minute >= 1
        assert keys_max >= 1
        self.per_minute = per_minute
        self._keys_max = keys_max
        self._ahead_units_max = (per_minute - 1) * INTERVAL_UNITS
        self._tats: OrderedDict[str, int] = OrderedDict()
        self.forgotten_early = 0
        self._now_s, self._now_units = 0.0, 0

    def wait_s(self, key: str, now_s: float, pending: int = 0) -> float:
        """Give the seconds until this key is allowed one, as if `pending` more were charged; 0: it is allowed now."""
        tat = self._tats.get(key)
        now = self._units(now_s)
        if tat is None:
            tat = now
        ahead = (max(tat, now) if pending else tat) + pending * INTERVAL_UNITS - now - self._ahead_units_max
        if ahead <= 0:
            return 0.0
        # Rounded up to a nanosecond: after this wait the key is allowed.
        return -(-ahead // self.per_minute) / NANOSECONDS

    def take(self, key: str, now_s: float) -> float:
        """Charge this key one if it is allowed, and give 0; else give the seconds until it is."""
        return 0.0 if self.take_all((key,), now_s) else self.wait_s(key, now_s)

    def take_all(self, keys: Iterable[str], now_s: float) -> int:
        """Charge keys one each, up to the first that is not allowed it; give how many were charged."""
        tats, ahead_max, count = self._tats, self._ahead_units_max, 0
        now = self._now_units if now_s == self._now_s else self._units(now_s)
        for key in keys:
            tat = tats.get(key)
            if tat is None:
                self._begin(key, now, 1)
            else:
                if tat <= now:
                    tat = now
                elif tat - now > ahead_max:
                    break
                tats[key] = tat + INTERVAL_UNITS
                tats.move_to_end(key)
            count += 1
        return count

    def room(self, key: str, now_s: float) -> int:
        """Give how many this key is allowed at once, now."""
        tat = self._tats.get(key)
        if tat is None:
            return self.per_minute
        ahead = tat - self._units(now_s)
        if ahead <= 0:
            return self.per_minute
        return max(0, self.per_minute + -ahead // INTERVAL_UNITS)

    def charge(self, key: str, now_s: float, count: int = 1) -> None:
        """Charge this key `count`, allowed or not. What is not allowed makes the next wait longer."""
        now = self._units(now_s)
        tat = self._tats.get(key)
        if tat is None:
            self._begin(key, now, count)
            return
        self._tats[key] = max(tat, now) + count * INTERVAL_UNITS
        self._tats.move_to_end(key)

    def change(self, per_minute: int) -> None:
        """Allow another number a minute from now on. What was charged is earned at the same time as before. O(keys)."""
        assert per_minute >= 1
        before, self.per_minute = self.per_minute, per_minute
        self._ahead_units_max = (per_minute - 1) * INTERVAL_UNITS
        self._now_s = self._now_units = 0  # in units of the limit before
        for key, tat in self._tats.items():
            self._tats[key] = max(INTERVAL_UNITS, -(-tat * per_minute // before))

    def _begin(self, key: str, now: int, count: int) -> None:
        if len(self._tats) >= self._keys_max:
            self._forget_one(now)
        self._tats[key] = now + count * INTERVAL_UNITS

    def _units(self, now_s: float) -> int:
        # All items of a batch have the same time: it is converted once.
        if now_s != self._now_s:
            self._now_s, self._now_units = now_s, round(now_s * NANOSECONDS) * self.per_minute
        return self._now_units

    def _forget_one(self, now: int) -> None:
        oldest = islice(self._tats, EVICTION_CANDIDATES)
        key = min(oldest, key=self._tats.__getitem__)
        if self._tats.pop(key) > now:
            self.forgotten_early += 1

    def _check(self) -> None:
        assert len(self._tats) <= self._keys_max
        assert all(tat >= INTERVAL_UNITS for tat in self._tats.values())


class WriteLimits:
    """The limits of a write: over callers, over users, and over the repeats of a caller.

    A change of a user is charged to the caller only. A repeated action is charged to the caller's repeats only. So a
    caller that sends everything again uses up nothing of what new actions have. The rules of increments are in
    `server.api.increments`. `on_limited` takes the name of a limit that refused.
    """

    def __init__(self, callers: Rates, users: Rates, repeats: Rates, on_limited: Callable[[str], None]) -> None:
        self.callers = callers
        self.users = users
        self.repeats = repeats
        self._on_limited = on_limited

    def change(self, caller_per_minute: int, user_per_minute: int) -> None:
        """Take other limits from now on."""
        self.callers.change(caller_per_minute)
        self.repeats.change(caller_per_minute)
        self.users.change(user_per_minute)

    def pass_caller(self, caller: str, now_s: float) -> None:
        """Charge the caller's limit, or refuse. Raises `Refused`."""
        wait_s = self.callers.wait_s(caller, now_s)
        if wait_s > 0:
            raise self._limited("caller", self.callers, wait_s)
        self.callers.charge(caller, now_s)

    def over_repeats(self, caller: str, pending: int, now_s: float) -> Refused:
        """Refuse a repeat. `pending` of the caller's repeats are not charged yet."""
        return self._limited("repeats", self.repeats, self.repeats.wait_s(caller, now_s, pending))

    def over(self, caller: str, pending: int, user_id: str, user_wait_s: float, now_s: float) -> Refused:
        """Refuse by the limit with the longer wait. `pending` of the caller's increments are not charged yet."""
        caller_wait_s = self.callers.wait_s(caller, now_s, pending)
        if user_wait_s > caller_wait_s:
            return self._limited("user", self.users, user_wait_s, userId=user_id)
        return self._limited("caller", self.callers, caller_wait_s)

    def _limited(self, limit: str, rates: Rates, wait_s: float, **details: str) -> Refused:
        self._on_limited(limit)
        retry_after = max(1, math.ceil(wait_s))
        what = "repeated actions of this caller" if limit == "repeats" else f"requests for this {limit}"
        return Refused(
            429,
            "RATE_LIMITED",
            f"Too many {what}: at most {rates.per_minute} a minute.",
            {"limit": limit, "limitPerMinute": rates.per_minute, "retryAfterSeconds": retry_after, **details},
            (("retry-after", str(retry_after)),),
        )
