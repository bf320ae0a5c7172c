"""Rate limits by GCRA, the leaky bucket as a meter (ITU-T I.371, annex A). Pure: the time comes in as an argument.

A key may do a whole minute's allowance at once, and earns one more every 60/limit seconds. In any stretch of s seconds
at most `per_minute * (1 + s / 60)` are allowed, and a key that keeps below its limit is never refused.

Theory: of each key one number is kept, the theoretical arrival time (TAT): when everything charged so far will have
been earned. Charging moves it on by one interval, from now or from where it was, whichever is later. A key is allowed
as long as its TAT is no more than a minute less one interval ahead. A key whose TAT has passed is as good as never
seen. A fixed window would allow twice the limit around its edge; a log of arrivals would cost memory for each of them.

Arithmetic is exact: times are integers in units of 1/per_minute nanoseconds, in which the interval is exactly
60_000_000_000 units whatever the limit. Floats would refuse a caller that is exactly at its limit, some of the time.

The bound: at most `keys_max` keys are remembered, in the order in which they were charged last. A new one beyond that
takes the place of the most nearly recovered of the EVICTION_CANDIDATES oldest. Most likely that one has recovered, and
nothing is lost. Where none has, it is forgotten early and begins afresh: the alternative, refusing newcomers, would let
whoever fills the table lock everybody out. `statistics()` counts these. To fill the table takes `keys_max` authorised
charges within a minute.

Invariants: at most `keys_max` keys; every TAT is at least one interval after the clock's zero.
Every operation is O(1). The order is an OrderedDict's: a plain dict leaves a gap wherever something was taken out, and
would walk over all the gaps at its front to find the oldest.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice

import msgspec

NANOSECONDS = 1_000_000_000
INTERVAL_UNITS = 60 * NANOSECONDS
EVICTION_CANDIDATES = 8


class RatesStatistics(msgspec.Struct, frozen=True):
    """How many keys are remembered, and how many were forgotten before they had recovered."""

    keys: int
    forgotten_early: int


class Rates:
    """One limit over many keys.

    `wait_s` and `room` ask, `charge` counts, `take` does both, so that several limits can be asked before any of them
    is charged. There must be no await between asking and charging. `now_s` is of a clock that never goes back.
    """

    def __init__(self, per_minute: int, keys_max: int) -> None:
        assert per_minute >= 1
        assert keys_max >= 1
        self.per_minute = per_minute
        self._keys_max = keys_max
        self._ahead_units_max = (per_minute - 1) * INTERVAL_UNITS
        self._tats: OrderedDict[str, int] = OrderedDict()
        self._forgotten_early = 0
        self._now_s, self._now_units = 0.0, 0

    def wait_s(self, key: str, now_s: float, pending: int = 0) -> float:
        """Give the seconds until this key is allowed one, 0 if it is now. Charges nothing.

        `pending`: as if so many had been charged now.
        """
        tat = self._tats.get(key)
        now = self._units(now_s)
        if tat is None:
            tat = now
        ahead = (max(tat, now) if pending else tat) + pending * INTERVAL_UNITS - now - self._ahead_units_max
        if ahead <= 0:
            return 0.0
        # Up to the next whole nanosecond: who waits as long as told is not told to wait again.
        return -(-ahead // self.per_minute) / NANOSECONDS

    def take(self, key: str, now_s: float) -> float:
        """Charge one for this key if it is allowed one now, and give 0; else charge nothing and give the wait."""
        tats = self._tats
        tat = tats.get(key)
        now = self._units(now_s)
        if tat is None:
            self._begin(key, now, 1)
            return 0.0
        if tat > now:
            if tat - now > self._ahead_units_max:
                return self.wait_s(key, now_s)
            tats[key] = tat + INTERVAL_UNITS
        else:
            tats[key] = now + INTERVAL_UNITS
        tats.move_to_end(key)
        return 0.0

    def room(self, key: str, now_s: float) -> int:
        """Give how many this key is allowed now, at once. Charges nothing."""
        tat = self._tats.get(key)
        if tat is None:
            return self.per_minute
        ahead = max(0, tat - self._units(now_s))
        return max(0, self.per_minute + -ahead // INTERVAL_UNITS)

    def charge(self, key: str, now_s: float, count: int = 1) -> None:
        """Count `count` for this key. Nothing is refused here: charging what is not allowed makes the next wait longer.

        `count` at once is the same as so many one by one.
        """
        now = self._units(now_s)
        tat = self._tats.get(key)
        if tat is None:
            self._begin(key, now, count)
            return
        self._tats[key] = max(tat, now) + count * INTERVAL_UNITS
        self._tats.move_to_end(key)

    def _begin(self, key: str, now: int, count: int) -> None:
        if len(self._tats) >= self._keys_max:
            self._forget_one(now)
        self._tats[key] = now + count * INTERVAL_UNITS

    def statistics(self) -> RatesStatistics:
        """Tell how full the table is."""
        return RatesStatistics(keys=len(self._tats), forgotten_early=self._forgotten_early)

    def _units(self, now_s: float) -> int:
        # A whole batch is of one moment: that one is converted once.
        if now_s != self._now_s:
            self._now_s, self._now_units = now_s, round(now_s * NANOSECONDS) * self.per_minute
        return self._now_units

    def _forget_one(self, now: int) -> None:
        oldest = islice(self._tats, EVICTION_CANDIDATES)
        key = min(oldest, key=self._tats.__getitem__)
        if self._tats.pop(key) > now:
            self._forgotten_early += 1

    def _check(self) -> None:
        assert len(self._tats) <= self._keys_max
        assert all(tat >= INTERVAL_UNITS for tat in self._tats.values())
