"""The listener and clients that mean harm, or are careless: they are refused or cut off, and others are served."""

from __future__ import annotations

import pytest
import trio
from structlog.typing import EventDict

from server.bounds import BODY_BYTES_MAX, HEAD_BYTES_MAX
from server.http.connection import Connection
from server.lanes.hypercorn_lane import HypercornLane
from server.lanes.listener import ListenerStatistics
from tests.server.lanes.requests import POST, SHORT, WATCH, get
from tests.server.lanes.support import GET, LAST_GET, OTHER_PROTOCOLS, Client, Played, open_listener

TOO_LONG = BODY_BYTES_MAX + 1


@pytest.fixture
def handed(monkeypatch: pytest.MonkeyPatch) -> list[Connection]:
    """The connections that were handed to Hypercorn, once for each time."""
    real, connections = HypercornLane.serve, []

    async def serve(lane: HypercornLane, connection: Connection) -> bool:
        connections.append(connection)
        return await real(lane, connection)

    monkeypatch.setattr(HypercornLane, "serve", serve)
    return connections


@pytest.mark.parametrize(("request_bytes", "status"), OTHER_PROTOCOLS.values(), ids=OTHER_PROTOCOLS)
@pytest.mark.parametrize("before", [b"", GET])
async def test_hypercorn_is_handed_no_websocket_and_no_http_2(
    request_bytes: bytes, status: int, before: bytes, handed: list[Connection], logged: list[EventDict]
) -> None:
    """As the first request of a connection, and as a later one. Another client is served before and after."""
    played = Played()
    async with open_listener(played) as served:
        honest = await served.connect()
        assert (await honest.ask()).body == b"hello"
        client = await served.connect()
        if before:
            assert (await client.ask(before)).status == 200
        answer = await client.ask(request_bytes)
        assert (answer.status, answer.code()) == (status, "NOT_FOUND" if status == 404 else "INVALID_REQUEST")
        assert await client.ended()
        assert (await honest.ask()).body == b"hello"
        assert (await served.ask_once()).body == b"hello"
        assert len(handed) == (3 if before else 2), "the honest connections, and this one before it changed its mind"
        assert {scope["type"] for scope in played.scopes} == {"http"}
        assert {scope["http_version"] for scope in played.scopes} == {"1.1"}
        assert not served.counts.faults
    assert not [line for line in logged if line["log_level"] == "error"]


async def test_a_viewer_is_not_handed_to_hypercorn(handed: list[Connection]) -> None:
    """The live channel's own route is an upgrade that is accepted, by our own code."""
    async with open_listener() as served:
        assert (await (await served.connect()).ask(WATCH)).status == 101
        assert not handed


GARBAGE = {
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
    "zeros": bytes(1_000),
    "no HTTP": b"hello, is anyone there?\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "smuggling": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "CONNECT": b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\n",
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
@pytest.mark.parametrize("before", [b"", GET])
async def test_what_is_not_a_request_is_answered_with_an_error_and_a_close(
    garbage: bytes, before: bytes, logged: list[EventDict]
) -> None:
    """In the shape of every error, after the answers to what came before, and the application hears nothing of it."""
    played = Played()
    async with open_listener(played) as served:
        client = await served.connect()
        await client.send(before + garbage)
        if before:
            assert (await client.answer()).status == 200
        answer = await client.answer()
        assert (answer.status, answer.code()) == (400, "INVALID_REQUEST")
        assert answer.headers["connection"] == "close"
        assert await client.ended()
        assert len(played.requests) == bool(before)
        assert served.counts.refusals == {"INVALID_REQUEST": 1}
        assert served.listener.statistics().refused == {"INVALID_REQUEST": 1}
    assert [line["status"] for line in logged if line["event"] == "refused"] == [400]


async def test_a_refusal_waits_for_the_answer_that_is_on_its_way() -> None:
    """The bad request came while the good one before it was at work; nothing is written into the good one's answer."""
    played = Played()
    async with open_listener(played) as served:
        client = await served.connect()
        await client.send(get(b"/wait") + GARBAGE["no HTTP"])
        await played.started.wait()
        played.release.set()
        assert (await client.answer()).body == b"hello"
        assert (await client.answer()).code() == "INVALID_REQUEST"
        assert await client.ended()


@pytest.mark.parametrize(
    ("request_head", "status", "code"),
    [
        (b"GET /" + b"a" * HEAD_BYTES_MAX + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431, "INVALID_REQUEST"),
        (POST + b"Content-Length: %d\r\n\r\n" % TOO_LONG, 413, "PAYLOAD_TOO_LARGE"),
        (POST + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % TOO_LONG, 413, "PAYLOAD_TOO_LARGE"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % TOO_LONG + bytes(TOO_LONG), 413, "PAYLOAD_TOO_LARGE"),
    ],
)
async def test_what_is_too_large_is_refused_and_the_application_hears_nothing_of_it(
    request_head: bytes, status: int, code: str
) -> None:
    """By what was announced, or as soon as too much came."""
    played = Played()
    async with open_listener(played) as served, trio.open_nursery() as nursery:
        client = await served.connect()
        nursery.start_soon(client.send, request_head)
        answer = await client.answer()
        assert (answer.status, answer.code()) == (status, code)
        assert await client.ended()
        assert not played.scopes


async def test_a_client_that_is_slow_with_a_request_is_told_so() -> None:
    """With the head and with the body; one that says nothing at all is just closed."""
    async with open_listener(idle_seconds_max=SHORT, head_seconds_max=SHORT, body_seconds_max=SHORT) as served:
        for start in (b"GET / HTTP/1.1\r\n", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabc"):
            client = await served.connect()
            answer = await client.ask(start)
            assert (answer.status, answer.code()) == (408, "INVALID_REQUEST")
            assert await client.ended()
        assert await (await served.connect()).ended()
        kept = await served.connect()
        assert (await kept.ask()).status == 200
        assert await kept.ended()


async def test_a_client_that_does_not_read_is_cut_off(logged: list[EventDict]) -> None:
    """It does not hold on to its connection, and others are served meanwhile."""
    async with open_listener(send_seconds_max=SHORT) as served:
        stalled = await served.connect()
        await stalled.send(get(b"/large"))
        assert (await served.ask_once()).body == b"hello"
        await served.counts.wait_open(0)
        assert served.counts.faults == {"Stalled": 1}
        assert served.listener.statistics().failed == 1
        assert await stalled.was_reset()
    assert [line["event"] for line in logged] == ["client_stalled"]


async def test_a_thousand_connections_at_once_are_all_served() -> None:
    """They come faster than they are accepted; the kernel holds them until then."""
    async with open_listener(Played(), connections_per_address_max=1_000) as served:
        clients: list[Client] = []

        async def come() -> None:
            clients.append(await served.connect())

        async with trio.open_nursery() as nursery:
            for _ in range(1_000):
                nursery.start_soon(come)
        for client in clients:
            await client.send(LAST_GET)
        for client in clients:
            assert (await client.answer()).body == b"hello"
            await client.stream.aclose()
        await served.counts.wait_open(0)
        assert served.listener.statistics() == ListenerStatistics(0, 1_000, 0, {})


async def test_clients_that_come_and_go_leave_nothing_behind() -> None:
    """Before they said anything, in the middle of a head, of a body, of an answer; politely and rudely."""
    async with open_listener() as served:
        for sent in (b"", b"GET / HT", POST + b"Content-Length: 5\r\n\r\nab", GET, get(b"/large"), WATCH):
            for rude in (False, True):
                client = await served.connect()
                await client.send(sent)
                await (client.reset() if rude else client.stream.aclose())
        await served.counts.wait_open(0)
        assert (await served.ask_once()).body == b"hello"
        assert not served.counts.faults
