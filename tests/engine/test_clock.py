"""The steady clock: which time it believes, what it tells, and when it is trusted."""

from __future__ import annotations

import pytest

from engine.clock import ClockStep, GivenClock, SteadyClock

BEGUN_MS = 1_765_800_000_000
BEGUN_S = 1_000.0


class Clocks:
    """The two clocks of a machine. `off_ms` is what was done to the wall clock."""

    def __init__(self) -> None:
        self.passed_s = 0.0
        self.off_ms = 0
        self.steady = SteadyClock(BEGUN_MS, BEGUN_S)

    def at(self, passed_s: float, off_ms: int | None = None) -> int:
        """Give the believed time, in ms since the beginning."""
        self.passed_s = passed_s
        self.off_ms = self.off_ms if off_ms is None else off_ms
        self.reading = self.steady.read(BEGUN_MS + int(passed_s * 1000) + self.off_ms, BEGUN_S + passed_s)
        quick = self.steady.now_ms(BEGUN_MS + int(passed_s * 1000) + self.off_ms, BEGUN_S + passed_s)
        assert quick in (None, self.reading.now_ms)
        return self.reading.now_ms - BEGUN_MS


def test_without_a_step_the_wall_clock_is_believed() -> None:
    """Also where a time server moves it a little, and nothing is told."""
    clocks = Clocks()
    assert clocks.at(1) == 1_000
    assert clocks.at(2, 900) == 2_900
    assert clocks.at(3, -900) == 2_100
    assert clocks.steady.take_steps() == []
    assert (clocks.steady.steps, clocks.reading.taken_ms) == (0, 0)


@pytest.mark.parametrize("off_ms", [1_001, 31_536_000_000, -1_001, -8_640_000_000])
def test_a_step_is_told_and_not_believed_while_it_may_be_undone(off_ms: int) -> None:
    """The time goes on by the monotonic clock, for 59 seconds; then the wall clock is right again."""
    clocks = Clocks()
    clocks.at(10)
    for second in range(11, 71):
        assert clocks.at(second, off_ms) == second * 1_000
        assert clocks.steady.offset_ms == off_ms
    assert clocks.at(71, 0) == 71_000
    assert clocks.steady.take_steps() == [ClockStep("stepped", off_ms), ClockStep("returned", off_ms)]
    assert (clocks.steady.steps, clocks.steady.offset_ms, clocks.reading.taken_ms) == (1, 0, 0)


@pytest.mark.parametrize("off_ms", [5_000, -5_000])
def test_a_step_that_lasts_is_taken_over_and_told(off_ms: int) -> None:
    """After 60 seconds."""
    clocks = Clocks()
    clocks.at(10, off_ms)
    assert clocks.at(69) == 69_000
    assert clocks.at(70) == 70_000 + off_ms
    assert clocks.steady.take_steps() == [ClockStep("stepped", off_ms), ClockStep("taken", off_ms)]
    assert (clocks.reading.taken_ms, clocks.steady.offset_ms) == (off_ms, 0)
    assert clocks.at(500) == 500_000 + off_ms


def test_each_further_step_waits_for_its_own_time() -> None:
    """A clock that is set again and again is not believed before it stays."""
    clocks = Clocks()
    for number in range(1, 6):
        assert clocks.at(50 * number, number * 10_000) == 50_000 * number
    assert clocks.steady.steps == 5
    assert clocks.at(310) == 310_000 + 50_000


def test_a_drift_beyond_the_bound_is_a_step() -> None:
    """A wall clock that runs a tenth too fast is believed for a second, and not for more."""
    clocks = Clocks()
    for second in range(1, 60):
        assert clocks.at(second, second * 100) <= second * 1_000 + 1_000
    assert clocks.steady.steps > 1


def test_the_time_never_goes_back_by_more_than_the_bound_unless_a_step_is_taken_over() -> None:
    """From the last believed time on, not from the start of the process."""
    clocks = Clocks()
    before = clocks.at(1, 900)
    assert clocks.at(1.1, -500_000) == before + 100


def test_a_clock_is_trusted_after_an_hour_without_a_step() -> None:
    """A step, its end, and a step that is taken over each begin the hour anew."""
    clocks = Clocks()
    clocks.at(3_599)
    assert not clocks.reading.trusted
    clocks.at(3_600)
    assert clocks.reading.trusted
    for at_s, off_ms in [(4_000, 9_000_000), (4_005, 0), (9_000, -9_000_000), (9_060, None)]:
        clocks.at(at_s, off_ms)
        assert not clocks.reading.trusted
        clocks.at(at_s + 1)
        assert not clocks.reading.trusted
    clocks.at(9_060 + 3_600)
    assert clocks.reading.trusted


def test_what_is_not_told_in_time_is_bounded() -> None:
    """A clock that steps at each reading keeps the newest steps only; all are counted."""
    clocks = Clocks()
    for number in range(100):
        clocks.at(number, 10_000 * number)
    assert len(clocks.steady.take_steps()) == 16
    assert clocks.steady.steps == 99


def test_no_time_is_before_1970() -> None:
    """A frame could not hold it."""
    assert SteadyClock(-5_000, 1.0).read(-5_000, 1.0).now_ms == 0


def test_a_given_clock_is_believed() -> None:
    """It tells no step and is trusted."""
    clock = GivenClock(lambda: 7)
    clock.on_taken(lambda: None)
    reading = clock.read()
    assert (reading.now_ms, reading.taken_ms, reading.trusted) == (7, 0, True)
