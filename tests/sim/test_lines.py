"""The simulated connection: late, in order, bounded; the other side hears of its end, unless the power was cut."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock

from tests.sim.disk import Crash
from tests.sim.lines import WINDOW_BYTES, End, Line


class Weather:
    """Each piece takes the next of these delays."""

    def __init__(self, *delays_s: float) -> None:
        self.delays_s = list(delays_s)
        self.cuts_at: int | None = None
        self.pieces = 0

    def delay_s(self) -> float:
        """See `tests.sim.lines.Weather`."""
        return self.delays_s.pop(0) if self.delays_s else 0.0

    def befall(self, line: Line) -> None:
        """See `tests.sim.lines.Weather`."""
        self.pieces += 1
        if self.pieces == self.cuts_at:
            line.cut()


def yes() -> bool:
    return True


def joined(weather: Weather, alive: Callable[[], bool] = yes) -> tuple[Line, End, End]:
    """A line and its ends; `alive` says whether the process that called still runs."""
    line = Line(weather, alive, yes)
    return line, *line.ends


async def read(end: End, count: int) -> bytes:
    data = b""
    while len(data) < count:
        data += await end.receive_some(count - len(data))
    return data


async def test_pieces_arrive_in_order_and_when_they_are_due(autojump_clock: MockClock) -> None:
    """The second piece would be quicker, but waits for the first."""
    _, ours, theirs = joined(Weather(3.0, 1.0))
    await ours.send_all(b"first ")
    await ours.send_all(b"second")
    assert not theirs.is_readable()
    assert await theirs.receive_some(3) == b"fir"
    assert trio.current_time() == 3.0
    assert theirs.is_readable()
    assert await read(theirs, 9) == b"st second"
    assert trio.current_time() == 3.0


async def test_what_does_not_fit_waits_until_something_was_read(autojump_clock: MockClock) -> None:
    """At most a window of bytes is under way."""
    _, ours, theirs = joined(Weather())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.send_all, bytes(WINDOW_BYTES + 1))
        await trio.testing.wait_all_tasks_blocked()
        assert len(await theirs.receive_some(2 * WINDOW_BYTES)) == WINDOW_BYTES
        assert len(await theirs.receive_some()) == 1


async def test_the_end_is_read_after_all_that_was_sent(autojump_clock: MockClock) -> None:
    """The end stays readable, and writing to the closed side fails."""
    _, ours, theirs = joined(Weather(2.0))
    await ours.send_all(b"last words")
    ours.close()
    assert await theirs.receive_some() == b"last words"
    assert await theirs.receive_some() == b""
    assert await theirs.receive_some() == b""
    with pytest.raises(trio.BrokenResourceError):
        await theirs.send_all(b"too late")
    with pytest.raises(trio.ClosedResourceError):
        await ours.receive_some()


async def test_half_a_line_may_be_closed(autojump_clock: MockClock) -> None:
    """An answer may end while a request still comes."""
    _, ours, theirs = joined(Weather())
    await ours.send_eof()
    assert await theirs.receive_some() == b""
    await theirs.send_all(b"answer")
    assert await ours.receive_some() == b"answer"


async def test_a_cut_takes_what_is_under_way_and_is_noticed_by_both(autojump_clock: MockClock) -> None:
    """A cut may come at any piece."""
    weather = Weather(1.0)
    weather.cuts_at = 2
    _, ours, theirs = joined(weather)
    await ours.send_all(b"under way")
    with pytest.raises(trio.BrokenResourceError):
        await ours.send_all(b"cut")
    for end in (ours, theirs):
        with pytest.raises(trio.BrokenResourceError):
            await end.receive_some()


async def test_a_stall_is_only_a_long_wait(autojump_clock: MockClock) -> None:
    """What was sent before the stall waits, too."""
    line, ours, theirs = joined(Weather(1.0))
    await ours.send_all(b"patience")
    line.stall(20.0)
    assert await theirs.receive_some() == b"patience"
    assert trio.current_time() == 20.0


async def test_a_machine_without_power_says_nothing_for_ever(autojump_clock: MockClock) -> None:
    """The other side neither reads an end nor fails to write."""
    _, ours, theirs = joined(Weather())
    ours.vanish()
    await theirs.send_all(b"are you there?")
    with trio.move_on_after(1_000.0) as patience:
        await theirs.receive_some()
    assert patience.cancelled_caught


async def test_a_process_that_has_ended_does_nothing_any_more(autojump_clock: MockClock) -> None:
    """A task of a killed process can't use the line; the system closes it."""
    alive = [True]
    _, ours, theirs = joined(Weather(), lambda: alive[0])
    alive[0] = False
    with pytest.raises(Crash):
        await ours.send_all(b"from the grave")
    with pytest.raises(Crash):
        await ours.receive_some()
    ours.close()
    assert await theirs.receive_some() == b""
