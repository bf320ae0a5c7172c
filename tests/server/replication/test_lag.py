"""The lag is the age of the oldest evidence that was not applied. Retries are spread over a growing, bounded time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.bounds import RECONNECT_SECONDS, RECONNECT_SECONDS_MAX
from server.replication.lag import EVIDENCE_MAX, Lag, state_age_ms
from server.replication.retry import retry_seconds


def test_before_the_leader_was_heard_nothing_is_known() -> None:
    """Not even that there is no lag."""
    lag = Lag(5)
    assert (lag.records, lag.ms(100.0), lag.leader_seq) == (None, None, None)


@pytest.mark.parametrize(("seq", "time_ms", "now_ms", "age"), [(3, 100, 350, 250), (3, 100, 90, 0), (0, 0, 350, None)])
def test_a_state_is_as_old_as_its_last_event(seq: int, time_ms: int, now_ms: int, age: int | None) -> None:
    """It is never of the future, whatever the clocks say, and without an event it has no age."""
    assert state_age_ms(seq, time_ms, now_ms) == age


def test_lag_counts_from_the_oldest_evidence_that_is_not_applied() -> None:
    """Applying a part makes the lag smaller, applying all makes it zero, however old the evidence is."""
    lag = Lag(5)
    lag.heard(5, 1.0)
    assert (lag.records, lag.ms(50.0)) == (0, 0)
    lag.heard(8, 10.0)
    lag.heard(9, 12.0)
    assert (lag.records, lag.ms(15.0)) == (4, 5000)
    lag.applied(8)
    assert (lag.records, lag.ms(15.0)) == (1, 3000)
    lag.applied(9)
    assert (lag.records, lag.ms(99.0)) == (0, 0)


def test_lag_does_not_grow_under_a_steady_load() -> None:
    """One frame is always on its way, but none is old."""
    lag = Lag(0)
    for n in range(1, 1000):
        lag.heard(n + 1, n * 0.01)
        lag.applied(n)
        assert lag.records == 1
        assert (lag.ms(n * 0.01) or 0) <= 10


def test_lag_grows_when_the_link_is_gone() -> None:
    """The evidence that was not applied gets older, although nothing more is heard."""
    lag = Lag(0)
    lag.heard(4, 1.0)
    assert [lag.ms(now) for now in (2.0, 3.0, 60.0)] == [1000, 2000, 59_000]


def test_another_leader_begins_anew() -> None:
    """What the old leader claimed may never have been in the new one's log."""
    lag = Lag(3)
    lag.heard(10, 1.0)
    lag.forget()
    assert lag.ms(2.0) is None
    lag.heard(3, 2.0)
    assert lag.ms(5.0) == 0
    assert lag.leader_seq == 3


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2000)), max_size=600))
def test_the_lag_is_never_belittled_and_the_evidence_bounded(steps: list[tuple[bool, int]]) -> None:
    """It is compared with a plain list of everything that was heard."""
    lag, applied = Lag(0), 0
    heard: list[tuple[int, int]] = []
    for now, (hears, seq) in enumerate(steps):
        if hears:
            lag.heard(seq, float(now))
            if not heard or seq > max(known for known, _ in heard):
                heard.append((seq, now))
        else:
            applied = max(applied, min(seq, max((known for known, _ in heard), default=0)))
            lag.applied(applied)
        lag._check()
        oldest = min((at for known, at in heard if known > applied), default=None)
        expected = None if not heard else 0 if oldest is None else (len(steps) - oldest) * 1000
        found = lag.ms(float(len(steps)))
        if expected is None:
            assert found is None
        else:
            assert found is not None
            assert found >= expected
            if len(heard) < EVIDENCE_MAX:
                assert found == expected


@pytest.mark.parametrize(("attempt", "bound"), [(0, 0.2), (1, 0.4), (2, 0.8), (5, 6.4), (6, 10.0), (10_000, 10.0)])
def test_a_retry_is_anywhere_within_a_bound_that_doubles(attempt: int, bound: float) -> None:
    """Full jitter: from zero to a bound that doubles up to a cap."""
    asked: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        asked.append((low, high))
        return high / 3

    assert retry_seconds(attempt, uniform) == pytest.approx(bound / 3)
    ((low, high),) = asked
    assert low == 0.0
    assert high == pytest.approx(bound)
    assert RECONNECT_SECONDS <= bound <= RECONNECT_SECONDS_MAX
