"""The live channel takes another configuration while viewers are there."""

from __future__ import annotations

import trio
import trio.testing
from trio.testing import MockClock

from server.settings.config import LiveConfig
from tests.server.live.test_entry import refused
from tests.server.live.test_event_stream import Reader
from tests.server.live.watching import BareViewer, open_site


async def test_fewer_places_send_nobody_away() -> None:
    """Nobody comes until there is room again, in all and for an address; more places count at once."""
    async with open_site(LiveConfig(max_viewers=3, max_viewers_per_address=3)) as site:
        viewers = [await BareViewer.open(site) for _ in range(2)]
        for config in (LiveConfig(max_viewers=1), LiveConfig(max_viewers_per_address=2), LiveConfig(max_viewers=0)):
            site.live.reload(config)
            assert await refused(site) == (503, "OVERLOADED")
        for viewer in viewers:
            assert await viewer.message()
        site.live.reload(LiveConfig(max_viewers=3))
        await BareViewer.open(site)
        assert site.told.count == 3
        assert not site.told.dropped


async def test_origins_count_for_those_who_come() -> None:
    """Who is there stays. A stream's answer names the origin that may read it."""
    async with open_site() as site:
        viewer = await BareViewer.open(site)
        site.live.reload(LiveConfig(allowed_origins=("https://here.example",)))
        assert await refused(site, ("Origin", "https://there.example")) == (403, "UNAUTHORIZED")
        reader = await Reader.open(site, "Origin: https://here.example")
        assert reader.headers["access-control-allow-origin"] == "https://here.example"
        site.score("ann")
        assert (await viewer.message())["type"] == "scoreboard_snapshot"


async def test_the_interval_counts_from_the_next_tick_on(mock_clock: MockClock) -> None:
    """The pause that has begun is as long as it was."""
    async with open_site(LiveConfig(interval_ms=1_000)) as site:
        viewer = await BareViewer.open(site)
        await viewer.message()
        site.score("ann")
        assert await viewer.message()
        site.live.reload(LiveConfig(interval_ms=10_000))
        site.score("ben")
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(1.001)
        assert len((await viewer.message())["entries"]) == 2
        site.score("cat")
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(9.0)
        await trio.testing.wait_all_tasks_blocked()
        assert site.told.messages["update"] == 2
        mock_clock.jump(1.001)
        assert len((await viewer.message())["entries"]) == 3


async def test_viewers_of_a_board_are_counted() -> None:
    """Of both kinds, and of no other board; who leaves counts no more."""
    async with open_site() as site:
        viewer = await BareViewer.open(site)
        await Reader.open(site)
        assert (site.live.watching("main"), site.live.watching("weekly"), site.live.watching("nowhere")) == (2, 0, 0)
        await viewer.stream.aclose()
        await site.told.wait(lambda told: told.count == 1)
        assert site.live.watching("main") == 1


async def test_a_page_of_this_server_may_watch_where_few_sites_may() -> None:
    """The page in a frame of an allowed site is of this server, and so is a wall."""
    async with open_site(LiveConfig(allowed_origins=())) as site:
        assert await refused(site, ("Origin", "https://there.example")) == (403, "UNAUTHORIZED")
        assert (await Reader.open(site, "Origin: http://game.example")).status == 200
