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

    `wait_s` asks and `charge` counts, so that several limits can be asked before any of them is charged. There must be
    no await between the two. `now_s` is of a clock that never goes back.
    """

    def __init__(self, per_minute: int, keys_max: int) -> None:
        assert per_minute >= 1
        assert keys_max >= 1
        self.per_minute = per_minute
        self._keys_max = keys_max
        self._ahead_units_max = (per_minute - 1) * INTERVAL_UNITS
        self._tats: OrderedDict[str, int] = OrderedDict()
        self._forgotten_early = 0

    def wait_s(self, key: str, now_s: float) -> float:
        """Give the seconds until this key is allowed one, 0 if it is now. Charges nothing."""
        tat = self._tats.get(key)
        if tat is None:
            return 0.0
        ahead = tat - self._units(now_s) - self._ahead_units_max
        if ahead <= 0:
            return 0.0
        # Up to the next whole nanosecond: who waits as long as told is not told to wait again.
        return -(-ahead // self.per_minute) / NANOSECONDS

    def charge(self, key: str, now_s: float) -> None:
        """Count one for this key. Nothing is refused here: charging what is not allowed makes the next wait longer."""
        now = self._units(now_s)
        tat = self._tats.get(key)
        if tat is None:
            if len(self._tats) >= self._keys_max:
                self._forget_one(now)
            self._tats[key] = now + INTERVAL_UNITS
            return
        self._tats[key] = max(tat, now) + INTERVAL_UNITS
        self._tats.move_to_end(key)

    def statistics(self) -> RatesStatistics:
        """Tell how full the table is."""
        return RatesStatistics(keys=len(self._tats), forgotten_early=self._forgotten_early)

    def _units(self, now_s: float) -> int:
        return round(now_s * NANOSECONDS) * self.per_minute

    def _forget_one(self, now: int) -> None:
        oldest = islice(self._tats, EVICTION_CANDIDATES)
        key = min(oldest, key=self._tats.__getitem__)
        if self._tats.pop(key) > now:
            self._forgotten_early += 1

    def _check(self) -> None:
        assert len(self._tats) <= self._keys_max
        assert all(tat >= INTERVAL_UNITS for tat in self._tats.values())
