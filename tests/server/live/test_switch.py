"""The live channel is switched off and on: what viewers of both kinds get, and when they come back."""

from __future__ import annotations

import trio
import trio.testing
from trio.testing import MockClock

from engine.commands import PutFlag
from engine.scoreboard import Scoreboard
from server import bounds
from server.live import switch
from tests.engine.model import perform
from tests.server.live.test_entry import refused
from tests.server.live.test_event_stream import Reader, reading
from tests.server.live.watching import RULES, BareViewer, Site, open_site


def put(site: Site, *, enabled: bool) -> None:
    """Switch the channel, as the writer does it."""
    site.change([PutFlag("live", enabled, "ops")])


def lines(site: Site) -> list[str]:
    """What operators are told of the switch."""
    return [line["event"] for line in site.lines if line["event"].startswith("live_channel")]


async def test_off_means_for_everybody_and_on_again_too() -> None:
    """WebSockets get 1013, streams end with a time to wait, new ones get 503; afterwards all are let in again."""
    async with open_site() as site, reading(site) as reader:
        viewer = await BareViewer.open(site)
        await viewer.message()
        await reader.event()
        put(site, enabled=False)
        assert await viewer.closed() == 1013
        assert await reader.block() == {"": switch.REASON}
        low, high = switch.RETRY_MS
        assert low <= await reader.retry() <= high == 30_000
        assert await reader.rest() == b""
        await viewer.stream.aclose()
        await reader.stream.aclose()
        await site.told.wait(lambda told: told.count == 0)
        assert site.told.dropped == {"switched_off": 2}
        assert await refused(site) == (503, "OVERLOADED")
        assert (await Reader.open(site)).status == 503
        assert site.told.failures == {"SWITCHED_OFF": 2}, "an alert on overload is not about them"
        put(site, enabled=True)
        site.score("ann")
        viewer = await BareViewer.open(site)
        assert (await viewer.message())["entries"][0]["userId"] == "ann"
        assert (await Reader.open(site)).status == 200
        assert lines(site) == ["live_channel_off", "live_channel_on"]


async def test_each_client_waits_for_a_time_of_its_own() -> None:
    """Whole seconds from 1 to 30, spread: so many that drew alike would come in one moment."""
    async with open_site() as site:
        put(site, enabled=False)
        waits = [int((await Reader.open(site)).headers["retry-after"]) for _ in range(60)]
    assert all(1 <= seconds <= switch.BACK_SECONDS for seconds in waits)
    assert len(set(waits)) > 15
    assert min(waits) < 10
    assert max(waits) > 20


async def test_a_node_that_starts_while_it_is_off_lets_nobody_in() -> None:
    """A restart, a new replica: the state says it, and the log of the process too."""
    scoreboard = Scoreboard(RULES)
    perform(scoreboard, [PutFlag("live", False, "ops")])
    async with open_site(scoreboard=scoreboard) as site:
        assert await refused(site) == (503, "OVERLOADED")
        assert lines(site) == ["live_channel_off"]


async def test_a_state_that_was_fetched_is_obeyed() -> None:
    """A replica that began anew from a snapshot saw no event."""
    theirs = Scoreboard(RULES)
    perform(theirs, [PutFlag("live", False, "ops")])
    async with open_site() as site:
        viewer = await BareViewer.open(site)
        await viewer.message()
        site.scoreboard.take_over(theirs)
        site.live.board_changed(site.scoreboard.boards)
        assert await viewer.closed() == 1013


async def test_who_does_not_close_is_dropped(mock_clock: MockClock) -> None:
    """After some time to answer. Who came since is not touched."""
    async with open_site() as site:
        stubborn = await BareViewer.open(site)
        await stubborn.message()
        put(site, enabled=False)
        assert await stubborn.closed() == 1013
        put(site, enabled=True)
        await trio.testing.wait_all_tasks_blocked()
        later = await BareViewer.open(site)
        await later.message()
        mock_clock.jump(bounds.VIEWER_CLOSE_SECONDS_MAX)
        await site.told.wait(lambda told: told.count == 1)
        assert site.told.dropped == {"switched_off": 1}
        site.score("ann")
        assert (await later.message())["entries"]


async def test_close_frames_are_spread(mock_clock: MockClock) -> None:
    """Few viewers are told at once, and all within a moment; nobody is shown a board after it."""
    async with open_site() as site:
        viewers = [await BareViewer.open(site) for _ in range(8)]
        for viewer in viewers:
            await viewer.message()
        put(site, enabled=False)
        await trio.testing.wait_all_tasks_blocked()
        assert sum(viewer.closing for viewer in site.viewers) == 1
        mock_clock.jump(8 * bounds.GOODBYE_PAUSE_SECONDS_MAX)
        for viewer in viewers:
            assert await viewer.closed() == 1013
            await viewer.stream.aclose()
        await site.told.wait(lambda told: told.count == 0)
