"""The live channel as server-sent events: what comes, in which form, who is refused, and how a stream ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

import msgspec
import pytest
import trio
from trio.testing import MockClock

from server import bounds
from server.access.lease import Lease
from server.http.messages import Refused, Response
from server.live import events
from server.settings.config import LiveConfig
from tests.server.access.leases import Landlord, lease_of
from tests.server.live.stage import INTERVAL_S, NEXT_MONDAY_MS, WEEKLY, Stage
from tests.server.live.watching import Site, open_site


class Reader:
    """A client that reads a stream as the standard says: blocks of lines between empty lines."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.received = b""
        self.status = 0
        self.headers: dict[str, str] = {}

    @classmethod
    async def open(cls, site: Site, *headers: str, target: str = "/sse/scoreboard") -> Self:
        """Send a request, and read the head of the answer."""
        stream = await trio.open_tcp_stream("127.0.0.1", site.port)
        site.clients.append(stream)
        lines = [f"GET {target} HTTP/1.1", "Host: game.example", *headers, "", ""]
        await stream.send_all("\r\n".join(lines).encode())
        reader = cls(stream)
        head = (await reader._until(b"\r\n\r\n")).decode()
        status_line, *rest = head.split("\r\n")
        reader.status = int(status_line.split()[1])
        reader.headers = dict(line.lower().split(": ", 1) for line in rest)
        return reader

    async def block(self) -> dict[str, str]:
        """Read the next block; a comment has the name of none."""
        text = (await self._until(b"\n\n")).decode()
        return dict(_field(line) for line in text.split("\n"))

    async def retry(self) -> int:
        """Read a block that says how long to wait."""
        block = await self.block()
        assert list(block) == ["retry"]
        return int(block["retry"])

    async def event(self) -> tuple[str, dict[str, Any]]:
        """Read the next event: its id, and the message."""
        block = await self.block()
        return block.get("id", ""), msgspec.json.decode(block["data"])

    async def rest(self) -> bytes:
        """Read up to the end."""
        while data := await self.stream.receive_some():
            self.received += data
        return self.received

    async def _until(self, end: bytes) -> bytes:
        while end not in self.received:
            data = await self.stream.receive_some()
            assert data, f"the stream ended after {self.received!r}"
            self.received += data
        found, _, self.received = self.received.partition(end)
        return found


def _field(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name, value.removeprefix(" ")


@asynccontextmanager
async def reading(site: Site, *headers: str, target: str = "/sse/scoreboard") -> AsyncIterator[Reader]:
    """Open a stream that is accepted; its first block says when to come back."""
    reader = await Reader.open(site, *headers, target=target)
    assert reader.status == 200
    low, high = events.RETRY_MS
    assert low <= await reader.retry() <= high
    yield reader


async def test_a_stream_shows_the_states_that_a_websocket_shows() -> None:
    """A snapshot, then whole updates, each with its position as id."""
    async with open_site() as site:
        site.score("ann")
        async with reading(site) as reader:
            assert reader.headers["content-type"] == "text/event-stream"
            assert reader.headers["cache-control"] == "no-store"
            assert reader.headers["connection"] == "close"
            first, snapshot = await reader.event()
            assert (snapshot["type"], snapshot["entries"]) == ("scoreboard_snapshot", site.shown())
            assert first.startswith("1-1-")
            site.score("ben", reason="BIG")
            second, update = await reader.event()
            assert (update["type"], update["entries"]) == ("scoreboard_update", site.shown())
            assert second == f"1-2-{site.scoreboard.mark.history[: events.HISTORY_DIGITS]}"
            assert site.told.messages == {"snapshot": 1, "update": 1}


async def test_who_has_the_newest_state_gets_no_snapshot() -> None:
    """A client that comes back says what it got last; anything else, and a moved board, gets a snapshot."""
    async with open_site() as site:
        site.score("ann")
        async with reading(site) as reader:
            known, _ = await reader.event()
        async with reading(site, f"Last-Event-ID: {known}") as again:
            await site.told.wait(lambda told: told.count == 2)
            assert site.told.messages == {"snapshot": 1}
            site.score("ben")
            identity, update = await again.event()
            assert (update["type"], len(update["entries"])) == ("scoreboard_update", 2)
        for other in (known, "1-2-0000000000000000", "", "x" * 1000):
            async with reading(site, f"Last-Event-ID: {other}") as late:
                assert (await late.event())[1]["type"] == "scoreboard_snapshot"
        assert identity != known


async def test_the_end_of_a_period_is_an_event_without_an_id(mock_clock: MockClock) -> None:
    """It is about no position, and the snapshot after it is."""
    stage = Stage({"main": WEEKLY})
    stage.score("ann")
    async with open_site(scoreboard=stage.scoreboard) as site:
        stage.live = site.live
        async with reading(site) as reader:
            before, _ = await reader.event()
            stage.pass_to(NEXT_MONDAY_MS)
            mock_clock.jump(INTERVAL_S)
            none, period = await reader.event()
            assert (none, period["type"], len(period["entries"])) == ("", "scoreboard_period", 1)
            after, snapshot = await reader.event()
            assert (snapshot["type"], snapshot["entries"]) == ("scoreboard_snapshot", [])
            assert after not in ("", before)


async def test_a_silent_stream_gets_comments_and_is_not_dropped(mock_clock: MockClock) -> None:
    """Proxies cut what is silent; and a client of a stream says nothing, however long it listens."""
    async with open_site() as site, reading(site) as reader:
        await reader.event()
        passed = 0.0
        while passed <= 2 * bounds.VIEWER_SILENCE_SECONDS_MAX:
            mock_clock.jump(events.PING_SECONDS + bounds.SWEEP_SECONDS)
            passed += events.PING_SECONDS + bounds.SWEEP_SECONDS
            assert await reader.block() == {"": ""}
        site.score("ann")
        assert (await reader.event())[1]["type"] == "scoreboard_update"
        assert not site.told.dropped


async def test_at_a_restart_each_stream_ends_and_is_told_when_to_come_back() -> None:
    """After the comment and the time to wait nothing comes; new streams are refused meanwhile."""
    async with open_site() as site, reading(site) as reader:
        await reader.event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(site.live.close_all, 30.0)
            assert await reader.block() == {"": "the server restarts"}
            low, high = events.RESTART_RETRY_MS
            assert low <= await reader.retry() <= high
            assert await reader.rest() == b""
            await reader.stream.aclose()
        late = await Reader.open(site)
        assert (late.status, "retry-after" in late.headers) == (503, True)


async def test_a_stream_ends_with_its_token(mock_clock: MockClock) -> None:
    """A private board shows nothing to a token that is no longer good."""
    landlord = Landlord()

    async def authorize(authorization: str | None) -> Response | Lease:
        if authorization != "Bearer good":
            return Refused(401, "UNAUTHORIZED", "A token is needed.").response()
        return lease_of(landlord)

    async with open_site(authorize=authorize) as site:
        refused = await Reader.open(site)
        assert refused.status == 401
        async with reading(site, "Authorization: Bearer good") as reader:
            await reader.event()
            landlord.ended = True
            mock_clock.jump(bounds.SWEEP_SECONDS)
            rest = await reader.rest()
            assert rest.endswith(b": token expired\n\n")
            assert site.told.dropped == {"expired": 1}


REFUSED = [
    ("/sse/scoreboard?boardId=nowhere", (), 400, "boardId"),
    ("/sse/scoreboard?board=main", (), 400, "board"),
    ("/sse/scoreboard?view=x", (), 400, "view"),
    ("/sse/scoreboard", ("Content-Length: 5",), 400, "Content-Length"),
    ("/sse/scoreboard", ("Origin: https://evil.example",), 403, "origin"),
]


@pytest.mark.parametrize(("target", "headers", "status", "field"), REFUSED)
async def test_a_wrong_request_is_refused(target: str, headers: tuple[str, ...], status: int, field: str) -> None:
    """With an ordinary answer that names the field."""
    config = LiveConfig(allowed_origins=("https://game.example",))
    async with open_site(config) as site:
        reader = await Reader.open(site, *headers, target=target)
        assert reader.status == status
        body = msgspec.json.decode(await reader.rest())
        assert field in {body["error"]["details"].get("field"), *body["error"]["details"]}
        assert site.told.count == 0


async def test_pages_of_allowed_origins_may_read() -> None:
    """A browser gives a page of another site nothing without these headers."""
    async with open_site(LiveConfig(allowed_origins=("https://game.example",))) as site:
        async with reading(site, "Origin: https://game.example") as reader:
            assert reader.headers["access-control-allow-origin"] == "https://game.example"
            assert "retry-after" in reader.headers["access-control-expose-headers"]
        async with reading(site) as reader:
            assert "access-control-allow-origin" not in reader.headers


async def test_streams_share_the_places_of_viewers() -> None:
    """The bound is one for both ways, and who says too much loses its place."""
    async with open_site(LiveConfig(max_viewers=1)) as site:
        async with reading(site) as reader:
            late = await Reader.open(site)
            assert late.status == 503
            await reader.stream.send_all(b"x" * (bounds.VIEWER_SAYS_BYTES_MAX + 1))
            assert b"a viewer must not send so much" in await reader.rest()
            await reader.stream.aclose()
        await site.told.wait(lambda told: told.count == 0)
        async with reading(site) as next_one:
            await next_one.event()
