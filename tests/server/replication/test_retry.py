"""The waits between attempts: they grow with each failure, begin anew after a success, and have a longest."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from server.bounds import RECONNECT_SECONDS, RECONNECT_SECONDS_MAX
from server.replication.retry import Backoff


def longest(_low: float, high: float) -> float:
    """Wait as long as may be."""
    return high


async def waited(backoff: Backoff) -> float:
    """The seconds of the next wait."""
    began_s = trio.current_time()
    await backoff.wait()
    return trio.current_time() - began_s


async def test_each_failure_doubles_the_wait_up_to_the_cap(autojump_clock: trio.testing.MockClock) -> None:
    """0.2, 0.4, 0.8 seconds and so on; `attempts` counts them."""
    backoff = Backoff(longest)
    waits = [await waited(backoff) for _ in range(8)]
    assert waits == pytest.approx([min(RECONNECT_SECONDS * 2**n, RECONNECT_SECONDS_MAX) for n in range(8)])
    assert backoff.attempts == 8


async def test_a_success_begins_anew(autojump_clock: trio.testing.MockClock) -> None:
    """The next wait is as short as the first."""
    backoff = Backoff(longest)
    for _ in range(5):
        await backoff.wait()
    backoff.reset()
    assert backoff.attempts == 0
    assert await waited(backoff) == pytest.approx(RECONNECT_SECONDS)


async def test_where_nothing_is_gained_by_trying_soon_the_wait_is_the_longest(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """At once, and it stays so until a success."""
    backoff = Backoff(longest)
    backoff.to_cap()
    assert [await waited(backoff) for _ in range(2)] == pytest.approx([RECONNECT_SECONDS_MAX] * 2)
    backoff.reset()
    assert await waited(backoff) == pytest.approx(RECONNECT_SECONDS)


async def test_no_wait_starves_the_other_tasks() -> None:
    """A wait of nothing still lets them run."""
    backoff = Backoff(lambda _low, _high: 0.0)
    with trio.testing.assert_checkpoints():
        await backoff.wait()
