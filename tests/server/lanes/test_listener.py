"""The listener: which lane a request takes, and connections that fail alone."""

from __future__ import annotations

import socket
from collections.abc import Callable
from ipaddress import ip_network

import pytest
import trio
from structlog.typing import EventDict

from server.http.client_address import TrustedProxies
from tests.server.lanes.requests import WATCH, get
from tests.server.lanes.support import GET, UPGRADE, Played, open_listener


async def test_the_live_channel_gets_its_path_and_everything_that_follows_the_head() -> None:
    """Any query, with and without an upgrade: what to say to it is the live channel's business."""
    async with open_listener() as served:
        client = await served.connect()
        assert (await client.ask(WATCH)).status == 101
        await client.send(b"late")
        assert await client.exactly(4) == b"late"
        ((head, address),) = served.live.heads
        assert (head.method, head.target, head.version) == ("GET", "/ws/scoreboard?boardId=a", "HTTP/1.1")
        assert ("upgrade", "websocket") in head.headers
        assert (head.rest, address) == (b"", "127.0.0.1")
        plain = await served.connect()
        assert (await plain.ask(get(b"/ws/scoreboard") + b"early")).status == 101
        await plain.send(b" and late")
        assert await plain.exactly(14) == b"early and late"
        assert served.live.heads[1][0].rest == b"early"


async def test_a_kept_connection_may_become_a_viewer() -> None:
    """Proxies send an upgrade over whatever connection is free; requests before it are answered first."""
    async with open_listener() as served:
        client = await served.connect()
        await client.send(GET + get(b"/parts") + WATCH)
        assert [(await client.answer()).status for _ in range(3)] == [200, 200, 101]
        assert ("upgrade", "websocket") in served.live.heads[0][0].headers


async def test_a_kept_connection_may_become_a_stream() -> None:
    """A browser opens it over the connection that the page came by. The channel is told which of the two it is."""
    async with open_listener() as served:
        client = await served.connect()
        await client.send(GET + get(b"/parts") + get(b"/sse/scoreboard?boardId=a"))
        assert [(await client.answer()).status for _ in range(3)] == [200, 200, 101]
        watcher = await served.connect()
        assert (await watcher.ask(WATCH)).status == 101
        assert [head.path for head, _ in served.live.heads] == ["/sse/scoreboard", "/ws/scoreboard"]
        assert served.live.as_events == [True, False]


async def test_a_reader_of_an_event_feed_is_a_viewer() -> None:
    """By GET, and with one segment for the contest. Anything else beside it is not the channel's."""
    async with open_listener() as served:
        for path in (b"/feeds/clics/contests/a%2Fb/event-feed", b"/feeds/clics/contests/main/event-feed/?view=public"):
            client = await served.connect()
            await client.send(get(path))
            assert (await client.answer()).status == 101
        assert served.live.as_events == [True, True]
        for path in (b"/feeds/clics/contests/a/b/event-feed", b"/feeds/clics/contests//event-feed", b"/event-feed"):
            client = await served.connect()
            await client.send(get(path))
            assert (await client.answer()).status == 200, "the application's"
        client = await served.connect()
        await client.send(b"HEAD /feeds/clics/contests/main/event-feed HTTP/1.1\r\nHost: x\r\n\r\n")
        await client.answer(to_head=True)
        assert len(served.live.heads) == 2


async def test_a_slash_at_the_end_opens_the_channel_too() -> None:
    """A router or a proxy that adds it must not close the live channel."""
    async with open_listener(Played()) as served:
        client = await served.connect()
        await client.send(b"GET /ws/scoreboard/?boardId=main HTTP/1.1\r\n" + UPGRADE)
        assert (await client.answer()).status == 101
        assert (served.live.heads[0][0].path, served.live.heads[0][0].query) == ("/ws/scoreboard", "boardId=main")


@pytest.mark.parametrize("path", [b"/", b"/ws", b"/ws/scoreboard//", b"/WS/scoreboard", b"/ws%2Fscoreboard", b"//ws"])
@pytest.mark.parametrize("before", [b"", GET])
async def test_there_is_no_other_websocket(path: bytes, before: bytes) -> None:
    """An upgrade elsewhere is not found, as the first request and as a later one, and never reaches the application."""
    played = Played()
    async with open_listener(played) as served:
        client = await served.connect()
        await client.send(before + b"GET " + path + b" HTTP/1.1\r\n" + UPGRADE)
        if before:
            assert (await client.answer()).status == 200
        answer = await client.answer()
        assert (answer.status, answer.code()) == (404, "NOT_FOUND")
        assert await client.ended()
        assert len(played.requests) == bool(before)
        assert not served.live.heads


async def test_other_requests_for_the_live_path_are_the_applications() -> None:
    """POST and HEAD are answered like anywhere else."""
    played = Played()
    async with open_listener(played) as served:
        client = await served.connect()
        await client.ask(b"POST /ws/scoreboard HTTP/1.1\r\nHost: x\r\n\r\n")
        assert played.requests == [("POST", "/ws/scoreboard", b"")]
        assert not served.live.heads


async def test_a_viewer_behind_a_proxy_has_its_own_address() -> None:
    """X-Forwarded-For and Forwarded count if the peer is one of the proxies, and not otherwise."""
    for forwarded in (b"X-Forwarded-For: 6.6.6.6, 198.51.100.7:80", b'Forwarded: for=6.6.6.6, for="198.51.100.7:80"'):
        watch = WATCH.replace(b"Host: x", b"Host: x\r\n" + forwarded)
        for networks, address in ((["127.0.0.0/8"], "198.51.100.7"), (["10.0.0.0/8"], "127.0.0.1")):
            async with open_listener(proxies=TrustedProxies(map(ip_network, networks))) as served:
                await (await served.connect()).ask(watch)
                assert served.live.heads[0][1] == address


async def test_nothing_of_its_request_is_kept_for_a_viewer() -> None:
    """There are tens of thousands of them, and they stay."""
    async with open_listener() as served:
        await (await served.connect()).ask(WATCH)
        head, _ = served.live.heads.pop()
        (connection,) = served.listener._open
        assert connection._request is None
        assert not hasattr(connection, "_parser")
        assert head.method == "GET"


@pytest.mark.parametrize(
    ("failure", "kinds"),
    [
        (ValueError("a secret"), ["ValueError"]),
        (
            ExceptionGroup("secrets", [OSError("a secret"), ExceptionGroup("", [KeyError("secret")])]),
            ["KeyError", "OSError"],
        ),
        (ExceptionGroup("", [trio.BrokenResourceError("secret"), RuntimeError("secret")]), ["RuntimeError"]),
    ],
)
async def test_whatever_a_connection_raises_ends_that_connection_alone(
    failure: Exception, kinds: list[str], logged: list[EventDict]
) -> None:
    """It is counted and told, with its kind and its place, and without its words."""
    async with open_listener() as served:
        honest = await served.connect()
        await honest.ask()
        served.live.failure = failure
        client = await served.connect()
        await client.send(WATCH)
        await client.was_reset()
        assert served.counts.faults == {kinds[0]: 1}
        assert served.listener.statistics().failed == 1
        assert (await honest.ask()).body == b"hello"
        assert (await served.ask_once()).body == b"hello"
    (line,) = [line for line in logged if line["event"] == "connection_failed"]
    assert line["kinds"] == kinds
    assert "serve_viewer" in line["where"][0]
    assert "secret" not in str(logged)


async def test_a_refusal_by_the_live_channel_is_seen_by_a_client_that_still_sends() -> None:
    """The live channel writes its own refusals; the listener lets the client take them in."""

    class Refusing:
        heads: tuple[()] = ()

        async def serve_viewer(self, stream: trio.SocketStream, *_rest: object, **_more: object) -> bool:
            await stream.send_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")
            return False

    async with open_listener() as served:
        served.listener._live = Refusing()
        client = await served.connect()
        await client.send(get(b"/ws/scoreboard") + bytes(2**20))
        assert (await client.answer()).status == 403
        assert await client.ended()


async def test_a_viewer_is_a_connection_until_it_has_left() -> None:
    """Its task ends at once, and the listener goes on counting its file, in all but not for its address."""
    kept: list[tuple[socket.socket, Callable[[], None]]] = []

    class Keeping:
        heads: tuple[()] = ()

        async def serve_viewer(
            self, stream: trio.SocketStream, head: object, address: str, left: Callable[[], None], **_more: object
        ) -> bool:
            await stream.send_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
            kept.append((socket.socket(fileno=stream.socket.detach()), left))
            return True

    async with open_listener(connections_per_address_max=1) as served:
        served.listener._live = Keeping()
        viewer = await served.connect()
        assert (await viewer.ask(WATCH)).status == 101
        await trio.testing.wait_all_tasks_blocked()
        assert served.listener.statistics().open == 1
        other = await served.connect()
        assert (await other.ask()).status == 200
        await other.stream.aclose()
        await served.counts.wait_open(1)
        ((taken, left),) = kept
        taken.send(b"still here")
        assert await viewer.exactly(10) == b"still here"
        left()
        assert served.counts.open == served.listener.statistics().open == 0
        served.listener._limits._check()
        taken.close()
