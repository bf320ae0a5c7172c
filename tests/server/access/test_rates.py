"""The rate limits: what a key may do, checked against a plain model, and what happens when the table is full."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.access.rates import EVICTION_CANDIDATES, Rates


def allow(rates: Rates, key: str, now_s: float) -> bool:
    """Ask and, if allowed, charge: what the service does."""
    if rates.wait_s(key, now_s) > 0:
        return False
    rates.charge(key, now_s)
    rates._check()
    return True


class Bucket:
    """The plain model: a bucket of `per_minute` tokens that refills evenly, in exact fractions."""

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self.tokens = Fraction(per_minute)
        self.at_ns = 0

    def allow(self, now_ns: int) -> bool:
        refill = Fraction((now_ns - self.at_ns) * self.per_minute, 60 * 10**9)
        self.tokens = min(Fraction(self.per_minute), self.tokens + refill)
        self.at_ns = now_ns
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


def test_a_key_may_use_its_whole_minute_at_once_and_then_waits_for_one_interval() -> None:
    """600 a minute are 600 at once, and then one every 0.1 seconds."""
    rates = Rates(600, keys_max=10)
    assert all(allow(rates, "ann", 1000.0) for _ in range(600))
    assert rates.wait_s("ann", 1000.0) == pytest.approx(0.1)
    assert not allow(rates, "ann", 1000.099)
    assert allow(rates, "ann", 1000.1)
    assert not allow(rates, "ann", 1000.1)


def test_many_keys_are_charged_up_to_the_first_that_is_not_allowed() -> None:
    """Each as by `take`: the ones behind it are not charged."""
    rates, one_by_one = Rates(2, keys_max=10), Rates(2, keys_max=10)
    keys = ["ann", "bob", "ann", "cid", "ann", "dan"]
    assert rates.take_all(keys, 1000.0) == 4
    assert [one_by_one.take(key, 1000.0) for key in keys[:5]] == [0, 0, 0, 0, pytest.approx(30.0)]
    rates._check()
    assert rates._tats == one_by_one._tats
    assert rates.take_all(keys, 1030.0) == 2
    assert rates.take_all((), 1030.0) == 0


def test_asking_costs_nothing() -> None:
    """However often a key is asked about, it keeps what it has; also one that is not known."""
    rates = Rates(1, keys_max=10)
    assert [rates.wait_s("ann", 5.0) for _ in range(100)] == [0.0] * 100
    assert len(rates._tats) == 0
    assert allow(rates, "ann", 5.0)
    assert [rates.wait_s("ann", 5.0) for _ in range(100)] == [60.0] * 100


@given(
    st.integers(1, 8),
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 30), st.integers(1, 5)), min_size=1, max_size=40),
)
def test_taking_and_charging_many_at_once_are_the_same_as_one_by_one(
    per_minute: int, steps: list[tuple[str, int, int]]
) -> None:
    """`take` is asking and charging; `room` is how often it would succeed; `charge` of five is five charges of one."""
    ours, plain = Rates(per_minute, keys_max=10), Rates(per_minute, keys_max=10)
    now_s = 0.0
    for key, later_s, count in steps:
        now_s += later_s
        room = ours.room(key, now_s)
        assert (room == 0) == (plain.wait_s(key, now_s) > 0)
        if count <= room:
            assert ours.wait_s(key, now_s, count - 1) == 0
            ours.charge(key, now_s, count)
            for _ in range(count):
                assert allow(plain, key, now_s)
        else:
            for _ in range(count):
                wait_s = plain.wait_s(key, now_s)
                assert ours.take(key, now_s) == wait_s
                allow(plain, key, now_s)
        assert ours.room(key, now_s) == max(0, room - count)
        if ours.room(key, now_s) == 0:
            assert ours.wait_s(key, now_s, 2) == pytest.approx(ours.wait_s(key, now_s) + 120 / per_minute)
        ours._check()


def test_keys_do_not_share_a_limit() -> None:
    """What one has used up is still there for the other."""
    rates = Rates(1, keys_max=10)
    assert allow(rates, "ann", 0.0)
    assert not allow(rates, "ann", 0.0)
    assert allow(rates, "bob", 0.0)


def test_a_key_exactly_at_its_limit_is_never_refused() -> None:
    """7 a minute do not divide a second evenly; a caller that keeps exactly to it is still always let through."""
    rates = Rates(7, keys_max=10)
    for _ in range(7):
        assert allow(rates, "ann", 0.0)
    for number in range(1, 1000):
        assert allow(rates, "ann", -(-number * 60 * 10**9 // 7) / 10**9), number


def test_charging_what_was_not_allowed_makes_the_next_wait_longer() -> None:
    """The limit keeps account of what it did not itself refuse."""
    rates = Rates(60, keys_max=10)
    for _ in range(61):
        rates.charge("ann", 0.0)
    assert rates.wait_s("ann", 0.0) == pytest.approx(2.0)


@settings(deadline=None)
@given(
    per_minute=st.integers(1, 2_000),
    start_ns=st.integers(0, 10**15),
    steps=st.lists(st.one_of(st.just(0), st.integers(0, 2 * 10**9), st.integers(0, 200 * 10**9)), max_size=200),
)
def test_it_decides_as_a_bucket_of_exact_fractions(per_minute: int, start_ns: int, steps: list[int]) -> None:
    """Whatever the times are, GCRA and the plain token bucket allow and refuse the same."""
    rates, bucket = Rates(per_minute, keys_max=10), Bucket(per_minute)
    # A burst first, so that the limit is near however large it is.
    for _ in range(per_minute - 2):
        rates.charge("ann", start_ns / 10**9)
    bucket.at_ns, bucket.tokens = start_ns, Fraction(min(per_minute, 2))
    now_ns = start_ns
    for step in steps:
        now_ns += step
        # A float holds whole nanoseconds up to some 10^15 of them only nearly; what it holds counts for both.
        now_s = now_ns / 10**9
        assert allow(rates, "ann", now_s) == bucket.allow(round(now_s * 10**9))


@settings(deadline=None)
@given(per_minute=st.integers(1, 50), steps=st.lists(st.integers(0, 30 * 10**9), min_size=1, max_size=300))
def test_no_window_ever_sees_more_than_the_limit_and_what_it_earns(per_minute: int, steps: list[int]) -> None:
    """In any stretch of s seconds at most per_minute * (1 + s / 60) are allowed."""
    rates = Rates(per_minute, keys_max=10)
    now_ns, allowed = 0, []
    for step in steps:
        now_ns += step
        if allow(rates, "ann", now_ns / 10**9):
            allowed.append(now_ns)
    for first in range(len(allowed)):
        for last in range(first, len(allowed)):
            earned = Fraction((allowed[last] - allowed[first]) * per_minute, 60 * 10**9)
            assert last - first + 1 <= per_minute + earned


@settings(deadline=None)
@given(per_minute=st.integers(1, 2_000), used=st.integers(0, 5), now_ns=st.integers(0, 10**14))
def test_who_waits_as_long_as_told_is_let_through(per_minute: int, used: int, now_ns: int) -> None:
    """The wait is long enough, to the nanosecond, and a microsecond less is not (where it is longer than that)."""
    rates = Rates(per_minute, keys_max=10)
    now_s = now_ns / 10**9
    for _ in range(per_minute + used):
        rates.charge("ann", now_s)
    wait_s = rates.wait_s("ann", now_s)
    assert wait_s > 0
    assert rates.wait_s("ann", now_s + wait_s + 1e-6) == 0
    if wait_s > 1e-5:
        assert rates.wait_s("ann", now_s + wait_s - 1e-6) > 0


def test_the_table_is_bounded_and_forgets_recovered_keys_first() -> None:
    """A newcomer takes the place of the oldest key that has recovered, not of an older one that has not."""
    rates = Rates(60, keys_max=3)
    for _ in range(60):
        rates.charge("busy", 0.0)  # recovered at 60 s
    rates.charge("idle", 1.0)  # recovered at 2 s
    rates.charge("fresh", 10.0)
    rates.charge("newcomer", 10.0)
    rates._check()
    assert len(rates._tats) == 3
    assert rates.forgotten_early == 0
    # At 10 s a remembered "busy" has earned 10 back; a forgotten one would have 60.
    assert sum(allow(rates, "busy", 10.0) for _ in range(60)) == 10


def test_where_nobody_has_recovered_the_one_that_is_nearest_to_it_is_forgotten_and_counted() -> None:
    """Newcomers are never refused for want of room; that somebody lost their account is told."""
    rates = Rates(1, keys_max=2)
    rates.charge("ann", 0.0)
    rates.charge("bob", 1.0)
    assert allow(rates, "cid", 2.0)
    assert rates.forgotten_early == 1
    assert rates.wait_s("ann", 2.0) == 0, "forgotten: begins afresh"
    assert rates.wait_s("bob", 2.0) == pytest.approx(59.0)


def test_a_key_that_is_charged_becomes_the_youngest() -> None:
    """Beyond the candidates that are looked at, a key in use is safe however long ago it came."""
    rates = Rates(60, keys_max=EVICTION_CANDIDATES + 1)
    rates.charge("ann", 0.0)
    for number in range(EVICTION_CANDIDATES):
        rates.charge(f"user-{number}", 1.0)
    rates.charge("ann", 2.0)
    for number in range(EVICTION_CANDIDATES):
        rates.charge(f"later-{number}", 2.0)
    for _ in range(59):
        assert allow(rates, "ann", 2.0)
    assert not allow(rates, "ann", 2.0)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 5)), max_size=200))
def test_however_many_keys_come_the_table_stays_in_its_bound(charges: list[tuple[int, int]]) -> None:
    """A flood of made-up users costs a fixed amount of memory."""
    rates, now_s = Rates(5, keys_max=7), 0.0
    for key, step in charges:
        now_s += step
        rates.charge(f"user-{key}", now_s)
        rates._check()
    assert len(rates._tats) <= 7


@pytest.mark.parametrize(("before", "after"), [(60, 600), (600, 60), (7, 13), (60, 60)])
def test_another_limit_counts_at_once(before: int, after: int) -> None:
    """A key that has used its minute waits for one interval of the new limit; a fresh one has all of it."""
    rates = Rates(before, keys_max=10)
    for _ in range(before):
        assert allow(rates, "ann", 1000.0)
    rates.change(after)
    rates._check()
    assert rates.wait_s("ann", 1000.0) == pytest.approx(60 / after)
    assert rates.room("ann", 1000.0) == 0
    assert rates.room("ann", 1060.0) == rates.room("ben", 1000.0) == after
    assert sum(allow(rates, "ben", 1000.0) for _ in range(after + 1)) == after


def test_half_of_a_limit_stays_half() -> None:
    """Who has half a minute's allowance has half of the new one."""
    rates = Rates(600, keys_max=10)
    rates.charge("ann", 1000.0, 300)
    rates.change(60)
    assert rates.room("ann", 1000.0) == 30
