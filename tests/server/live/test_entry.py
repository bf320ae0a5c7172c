"""Which viewers the live channel admits, which it refuses, and how it closes them at the end."""

from __future__ import annotations

import msgspec
import pytest
import trio
import trio_websocket
from trio.testing import MockClock

from server import bounds
from server.access.lease import Lease
from server.http.messages import Response, error
from server.live import goodbyes
from server.settings.config import LiveConfig
from tests.server.access.leases import lease_of
from tests.server.live.watching import BareViewer, Site, handshake_bytes, open_site, stall, watch


async def refused(site: Site, *more: tuple[str, str], target: str = "/ws/scoreboard") -> tuple[int, str]:
    """Ask to be let in and be refused: status and code, after checking that the answer is one of ours."""
    viewer = await BareViewer.connect(site)
    await viewer.stream.send_all(handshake_bytes(*more, target=target))
    status, headers, body = await viewer.answer()
    assert headers["content-type"] == "application/json"
    assert headers["connection"].endswith("close")
    assert await viewer.stream.receive_some() == b""
    fault = msgspec.json.decode(body)["error"]
    assert set(fault) == {"code", "message", "details"}
    assert ("retry-after" in headers) == (status == 503)
    return status, fault["code"]


# Admission


async def test_an_unknown_board_is_refused_by_name() -> None:
    """400, naming the parameter; so is an unknown parameter, but for `_`."""
    async with open_site() as site:
        assert await refused(site, target="/ws/scoreboard?boardId=nowhere") == (400, "INVALID_REQUEST")
        (_, response, details) = site.told.refusals[0]
        assert details["field"] == "boardId"
        assert b"nowhere" in response.body
        assert await refused(site, target="/ws/scoreboard?boardId=main&limit=3") == (400, "INVALID_REQUEST")
        assert site.told.refusals[1][2]["field"] == "limit"
        async with watch(site, board="weekly&_=1") as watcher:
            assert (await watcher.next())["boardId"] == "weekly"


async def test_a_plain_request_is_told_to_upgrade() -> None:
    """A browser that opens the address of the channel gets 426, not a closed connection."""
    async with open_site() as site:
        viewer = await BareViewer.connect(site)
        await viewer.stream.send_all(b"GET /ws/scoreboard HTTP/1.1\r\nHost: x\r\n\r\n")
        status, headers, _ = await viewer.answer()
        assert (status, headers["upgrade"], headers["sec-websocket-version"]) == (426, "websocket", "13")
        assert site.told.failures == {"INVALID_REQUEST": 1}


async def test_only_pages_on_the_list_are_let_in() -> None:
    """403 UNAUTHORIZED for other origins; no Origin means no browser."""
    config = LiveConfig(allowed_origins=("https://game.example",))
    async with open_site(config) as site:
        assert await refused(site, ("Origin", "https://evil.example")) == (403, "UNAUTHORIZED")
        for headers in ([("Origin", "HTTPS://GAME.EXAMPLE")], []):
            async with watch(site, headers=headers) as watcher:
                await watcher.next()


async def test_there_are_so_many_places_and_no_more() -> None:
    """503 OVERLOADED with Retry-After when all are taken; a place is free again when its viewer is gone."""
    async with open_site(LiveConfig(max_viewers=2)) as site:
        first, _second = await BareViewer.open(site), await BareViewer.open(site)
        assert await refused(site) == (503, "OVERLOADED")
        await first.stream.aclose()
        await site.told.wait(lambda told: told.count == 1)
        await BareViewer.open(site)
        assert await refused(site) == (503, "OVERLOADED")


async def test_one_address_has_so_many_places() -> None:
    """An address has a limit of its own, and a refused handshake takes no place."""
    async with open_site(LiveConfig(max_viewers_per_address=1)) as site:
        assert await refused(site, target="/ws/scoreboard?boardId=nowhere") == (400, "INVALID_REQUEST")
        viewer = await BareViewer.open(site)
        assert await refused(site) == (503, "OVERLOADED")
        await viewer.stream.aclose()
        await site.told.wait(lambda told: told.count == 0)
        await BareViewer.open(site)


async def test_the_file_limit_bounds_the_viewers() -> None:
    """What the process can't open it does not promise, and says so at the start."""
    async with open_site(LiveConfig(max_viewers=100), files_max=bounds.RESERVED_FILES + 1) as site:
        (line,) = [line for line in site.lines if line["event"] == "viewers_limited"]
        assert (line["log_level"], line["max_viewers"], line["viewers"]) == ("warning", 100, 1)
        await BareViewer.open(site)
        assert await refused(site) == (503, "OVERLOADED")


async def test_a_viewer_shows_its_token() -> None:
    """Where reads are not public, what Authorization says (or the token among the subprotocols) decides."""
    seen: list[str | None] = []

    async def authorize(authorization: str | None) -> Response | Lease:
        seen.append(authorization)
        if authorization == "Bearer good.good.good":
            return lease_of()
        return error(401, "UNAUTHENTICATED", "No.", headers=(("www-authenticate", "Bearer"),))

    async with open_site(authorize=authorize) as site:
        assert await refused(site) == (401, "UNAUTHENTICATED")
        assert await refused(site, ("Authorization", "Bearer bad")) == (401, "UNAUTHENTICATED")
        async with watch(site, headers=[("Authorization", "Bearer good.good.good")]) as watcher:
            await watcher.next()
        offers = ["scoreboard.v1", "scoreboard.token.good.good.good"]
        async with watch(site, offers=offers) as watcher:
            assert watcher.connection.subprotocol == "scoreboard.v1"
            await watcher.next()
        assert seen == [None, "Bearer bad", *["Bearer good.good.good"] * 2]
        assert site.told.failures == {"UNAUTHENTICATED": 2}
        assert not any(b"good.good" in str(refusal).encode() for refusal in site.told.refusals)


async def test_a_place_is_taken_while_the_token_is_checked() -> None:
    """Checking may take a while; those whose token is being checked can't together exceed the places."""
    checked = trio.Event()
    asked = trio.Event()

    async def authorize(authorization: str | None) -> Lease:
        asked.set()
        await checked.wait()
        return lease_of()

    async with open_site(LiveConfig(max_viewers=1), authorize=authorize) as site, trio.open_nursery() as nursery:
        nursery.start_soon(BareViewer.open, site)
        await asked.wait()
        assert await refused(site) == (503, "OVERLOADED")
        checked.set()
        await site.told.wait(lambda told: told.count == 1)


async def test_a_fault_of_ours_is_an_error_answer_and_costs_no_place() -> None:
    """Whatever goes wrong in a handshake: 500 in the usual shape without the reason, and the place is free."""
    faults = [RuntimeError("secret")]

    async def authorize(authorization: str | None) -> Lease:
        if faults:
            raise faults.pop()
        return lease_of()

    async with open_site(LiveConfig(max_viewers=1), authorize=authorize) as site:
        assert await refused(site) == (500, "INTERNAL_ERROR")
        assert [str(fault) for fault in site.told.faults] == ["secret"]
        async with watch(site) as watcher:
            await watcher.next()


# The end


async def test_at_the_end_viewers_are_told_to_come_back() -> None:
    """All get 1012, no new viewer is admitted, and it ends as soon as the last one is gone."""
    async with open_site() as site, watch(site) as one, watch(site) as other:
        await one.next()
        await other.next()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(site.live.close_all, 3600.0)
            for watcher in (one, other):
                with pytest.raises(trio_websocket.ConnectionClosed) as caught:
                    await watcher.connection.get_message()
                assert caught.value.reason is not None
                assert caught.value.reason.code == 1012
        assert site.told.count == 0
        assert not site.told.dropped
        assert await refused(site) == (503, "OVERLOADED")


async def test_close_frames_are_spread_over_the_time(mock_clock: MockClock) -> None:
    """With many viewers for little time: half of them are told in half of the time for it, and nothing follows 1012."""
    async with open_site() as site:
        viewers = [await BareViewer.open(site) for _ in range(8)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(site.live.close_all, 0.04)
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(0.04 * goodbyes.GOODBYE_SHARE / 2 - 0.0001)
            await trio.testing.wait_all_tasks_blocked()
            assert sum(viewer.closing for viewer in site.viewers) == 4
            site.score("ann")
            await trio.testing.wait_all_tasks_blocked()
            assert site.told.messages["update"] == 4
            assert site.told.count == 8
            mock_clock.jump(0.04 * goodbyes.GOODBYE_SHARE / 2)
            for viewer in viewers:
                assert await viewer.closed() == 1012
                await viewer.stream.aclose()
        assert not site.told.dropped


async def test_who_does_not_answer_the_goodbye_is_dropped_in_time(mock_clock: MockClock) -> None:
    """Neither a viewer that ignores the close frame nor one that does not read holds up the end."""
    async with open_site() as site:
        site.score(*(f"user-{number}" for number in range(10)))
        witness = await BareViewer.open(site)
        await witness.message()
        await BareViewer.open(site, receive_buffer=4096)
        await stall(site, mock_clock, witness)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(site.live.close_all, 10.0)
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(1.0)
            assert await witness.closed() == 1012
            mock_clock.jump(9.0)
        await site.told.wait(lambda told: told.count == 0)
        assert site.told.dropped == {"shutdown": 2}


async def test_nobody_is_let_in_who_was_being_checked_when_the_end_began() -> None:
    """A token that proves good too late opens no channel any more."""
    checked, asked = trio.Event(), trio.Event()

    async def authorize(authorization: str | None) -> Lease:
        asked.set()
        await checked.wait()
        return lease_of()

    async with open_site(authorize=authorize) as site:
        viewer = await BareViewer.connect(site)
        await viewer.stream.send_all(handshake_bytes())
        await asked.wait()
        await site.live.close_all(1.0)
        checked.set()
        assert (await viewer.answer())[0] == 503


async def test_a_cancelled_channel_leaves_nobody_behind() -> None:
    """Its viewers' connections are closed, their places are free, and whoever counts connections has heard of it."""
    async with open_site() as site:
        viewers = [await BareViewer.open(site) for _ in range(2)]
        for viewer in viewers:
            await viewer.message()
        site.scope.cancel()
        for viewer in viewers:
            assert await viewer.stream.receive_some() == b""
        assert (site.told.count, site.left) == (0, 2)
