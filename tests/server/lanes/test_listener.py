"""The door: lanes, room, guarded connections, draining, and clients that mean it harm."""

from __future__ import annotations

import errno
import resource
from collections.abc import Iterator
from ipaddress import ip_network

import pytest
import trio
from structlog.testing import capture_logs
from structlog.typing import EventDict

from server.bounds import BODY_BYTES_MAX, HEAD_BYTES_MAX
from server.http.client_address import TrustedProxies
from server.lanes.listener import ListenerStatistics
from tests.server.lanes.support import (
    GET,
    KILLERS,
    LAST_GET,
    UPGRADE,
    Client,
    Doorway,
    Played,
    open_door,
)

WATCH = b"GET /ws/scoreboard?boardId=a HTTP/1.1\r\n" + UPGRADE
POST = b"POST / HTTP/1.1\r\nHost: x\r\n"
TOO_LONG = BODY_BYTES_MAX + 1
SHORT = 0.05
"""A deadline that a test waits for."""


def get(path: bytes) -> bytes:
    return b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def logged() -> Iterator[list[EventDict]]:
    """What is logged meanwhile."""
    with capture_logs() as lines:
        yield lines


# ---- lanes -----------------------------------------------------------------------------------------------------------


async def test_the_live_channel_gets_its_path_and_everything_that_follows_the_head() -> None:
    """Any query, with and without an upgrade: what to say to it is the live channel's business."""
    async with open_door() as doorway:
        client = await doorway.connect()
        assert (await client.ask(WATCH + b"early")).status == 101
        await client.send(b" and late")
        assert await client.exactly(14) == b"early and late"
        ((head, address),) = doorway.live.heads
        assert (head.method, head.target, head.version) == ("GET", "/ws/scoreboard?boardId=a", "HTTP/1.1")
        assert ("upgrade", "websocket") in head.headers
        assert (head.rest, address) == (b"early", "127.0.0.1")
        plain = await doorway.connect()
        assert (await plain.ask(get(b"/ws/scoreboard"))).status == 101


async def test_a_kept_connection_may_become_a_viewer() -> None:
    """Proxies send an upgrade over whatever connection is free; requests before it are answered first."""
    async with open_door() as doorway:
        client = await doorway.connect()
        await client.send(GET + get(b"/parts") + WATCH + b"early")
        assert [(await client.answer()).status for _ in range(3)] == [200, 200, 101]
        assert doorway.live.heads[0][0].rest == b"early"


@pytest.mark.parametrize("path", [b"/", b"/ws", b"/ws/scoreboard/", b"/WS/scoreboard", b"/ws%2Fscoreboard", b"//ws"])
@pytest.mark.parametrize("before", [b"", GET])
async def test_there_is_no_other_websocket(path: bytes, before: bytes) -> None:
    """An upgrade elsewhere is not found, as the first request and as a later one, and never reaches the application."""
    played = Played()
    async with open_door(played) as doorway:
        client = await doorway.connect()
        await client.send(before + b"GET " + path + b" HTTP/1.1\r\n" + UPGRADE + b"x")
        if before:
            assert (await client.answer()).status == 200
        answer = await client.answer()
        assert (answer.status, answer.code()) == (404, "NOT_FOUND")
        assert await client.ended()
        assert len(played.requests) == bool(before)
        assert not doorway.live.heads


async def test_other_requests_for_the_live_path_are_the_applications() -> None:
    """POST and HEAD are answered like anywhere else."""
    played = Played()
    async with open_door(played) as doorway:
        client = await doorway.connect()
        await client.ask(b"POST /ws/scoreboard HTTP/1.1\r\nHost: x\r\n\r\n")
        assert played.requests == [("POST", "/ws/scoreboard", b"")]
        assert not doorway.live.heads


async def test_a_viewer_behind_a_proxy_has_its_own_address() -> None:
    """X-Forwarded-For counts if the peer is one of the proxies, and not otherwise."""
    watch = WATCH.replace(b"Host: x", b"Host: x\r\nX-Forwarded-For: 6.6.6.6, 198.51.100.7")
    for networks, address in ((["127.0.0.0/8"], "198.51.100.7"), (["10.0.0.0/8"], "127.0.0.1")):
        async with open_door(proxies=TrustedProxies(map(ip_network, networks))) as doorway:
            await (await doorway.connect()).ask(watch)
            assert doorway.live.heads[0][1] == address


async def test_nothing_of_its_request_is_kept_for_a_viewer() -> None:
    """There are tens of thousands of them, and they stay."""
    async with open_door() as doorway:
        await (await doorway.connect()).ask(WATCH)
        head, _ = doorway.live.heads.pop()
        (connection,) = doorway.door._open
        assert connection._request is None
        assert not hasattr(connection, "_inspector")
        assert head.method == "GET"


# ---- clients that mean harm, and careless ones -----------------------------------------------------------------------


@pytest.mark.parametrize("killer", [*KILLERS.values(), WATCH + b"x"])
async def test_what_kills_hypercorn_leaves_the_server_serving(killer: bytes, logged: list[EventDict]) -> None:
    """An honest client is served before, during and after, on the same connection and on new ones."""
    async with open_door() as doorway:
        honest = await doorway.connect()
        assert (await honest.ask()).body == b"hello"
        attackers = [await doorway.connect() for _ in range(5)]
        for attacker in attackers:
            await attacker.send(killer)
            assert (await honest.ask()).body == b"hello"
        for attacker in attackers:
            assert (await attacker.answer()).status in (101, 400, 404)
            await attacker.stream.aclose()
        assert (await honest.ask()).body == b"hello"
        assert (await doorway.ask_once()).body == b"hello"
        assert not doorway.counts.failed
    assert not [line for line in logged if line["log_level"] == "error"]


GARBAGE = {
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
    "zeros": bytes(1_000),
    "no HTTP": b"hello, is anyone there?\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "smuggling": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "h2c": b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    "CONNECT": b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\n",
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
@pytest.mark.parametrize("before", [b"", GET])
async def test_what_is_not_a_request_is_answered_with_an_error_and_a_close(
    garbage: bytes, before: bytes, logged: list[EventDict]
) -> None:
    """In the shape of every error, after the answers to what came before, and the application hears nothing of it."""
    played = Played()
    async with open_door(played) as doorway:
        client = await doorway.connect()
        await client.send(before + garbage)
        if before:
            assert (await client.answer()).status == 200
        answer = await client.answer()
        assert (answer.status, answer.code()) == (400, "INVALID_REQUEST")
        assert answer.headers["connection"] == "close"
        assert await client.ended()
        assert len(played.requests) == bool(before)
        assert doorway.counts.refusals == {"INVALID_REQUEST": 1}
        assert doorway.door.statistics().refused == {"INVALID_REQUEST": 1}
    assert [line["status"] for line in logged if line["event"] == "refused"] == [400]


async def test_a_refusal_waits_for_the_answer_that_is_on_its_way() -> None:
    """The bad request came while the good one before it was at work; nothing is written into the good one's answer."""
    played = Played()
    async with open_door(played) as doorway:
        client = await doorway.connect()
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
    async with open_door(played) as doorway, trio.open_nursery() as nursery:
        client = await doorway.connect()
        nursery.start_soon(client.send, request_head)
        answer = await client.answer()
        assert (answer.status, answer.code()) == (status, code)
        assert await client.ended()
        assert not played.scopes


async def test_a_client_that_is_slow_with_a_request_is_told_so() -> None:
    """With the head and with the body; one that says nothing at all is just closed."""
    async with open_door(idle_seconds_max=SHORT, head_seconds_max=SHORT, body_seconds_max=SHORT) as doorway:
        for start in (b"GET / HTTP/1.1\r\n", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabc"):
            client = await doorway.connect()
            answer = await client.ask(start)
            assert (answer.status, answer.code()) == (408, "INVALID_REQUEST")
            assert await client.ended()
        assert await (await doorway.connect()).ended()
        kept = await doorway.connect()
        assert (await kept.ask()).status == 200
        assert await kept.ended()


async def test_a_client_that_does_not_read_is_cut_off(logged: list[EventDict]) -> None:
    """It does not hold on to its connection, and others are served meanwhile."""
    async with open_door(send_seconds_max=SHORT) as doorway:
        stalled = await doorway.connect()
        await stalled.send(get(b"/large"))
        assert (await doorway.ask_once()).body == b"hello"
        await doorway.counts.wait_open(0)
        assert doorway.counts.failed == {"Stalled": 1}
        assert doorway.door.statistics().failed == 1
        assert await stalled.was_reset()
    assert [line["event"] for line in logged] == ["client_stalled"]


async def test_a_thousand_connections_at_once_are_all_served() -> None:
    """They come faster than they are accepted; the kernel holds them until then."""
    async with open_door(Played(), connections_per_address_max=1_000) as doorway:
        clients: list[Client] = []

        async def come() -> None:
            clients.append(await doorway.connect())

        async with trio.open_nursery() as nursery:
            for _ in range(1_000):
                nursery.start_soon(come)
        for client in clients:
            await client.send(LAST_GET)
        for client in clients:
            assert (await client.answer()).body == b"hello"
            await client.stream.aclose()
        await doorway.counts.wait_open(0)
        assert doorway.door.statistics() == ListenerStatistics(0, 1_000, 0, {})


async def test_clients_that_come_and_go_leave_nothing_behind() -> None:
    """Before they said anything, in the middle of a head, of a body, of an answer; politely and rudely."""
    async with open_door() as doorway:
        for sent in (b"", b"GET / HT", POST + b"Content-Length: 5\r\n\r\nab", GET, get(b"/large"), WATCH):
            for rude in (False, True):
                client = await doorway.connect()
                await client.send(sent)
                await (client.reset() if rude else client.stream.aclose())
        await doorway.counts.wait_open(0)
        assert (await doorway.ask_once()).body == b"hello"
        assert not doorway.counts.failed


# ---- guarded connections ---------------------------------------------------------------------------------------------


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
    async with open_door() as doorway:
        honest = await doorway.connect()
        await honest.ask()
        doorway.live.failure = failure
        client = await doorway.connect()
        await client.send(WATCH)
        await client.was_reset()
        assert doorway.counts.failed == {kinds[0]: 1}
        assert doorway.door.statistics().failed == 1
        assert (await honest.ask()).body == b"hello"
        assert (await doorway.ask_once()).body == b"hello"
    (line,) = [line for line in logged if line["event"] == "connection_failed"]
    assert line["kinds"] == kinds
    assert "serve_viewer" in line["where"][0]
    assert "secret" not in str(logged)


async def test_a_refusal_by_the_live_channel_is_seen_by_a_client_that_still_sends() -> None:
    """The live channel writes its own refusals; the door lets the client take them in."""

    class Refusing:
        heads: tuple[()] = ()

        async def serve_viewer(self, stream: trio.SocketStream, *_rest: object) -> None:
            await stream.send_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")

    async with open_door() as doorway:
        doorway.door._live = Refusing()
        client = await doorway.connect()
        await client.send(WATCH + bytes(2**20))
        assert (await client.answer()).status == 403
        assert await client.ended()


# ---- room ------------------------------------------------------------------------------------------------------------


async def refused_for_lack_of_room(doorway: Doorway) -> None:
    client = await doorway.connect()
    answer = await client.answer()
    assert (answer.status, answer.code()) == (503, "OVERLOADED")
    assert answer.headers["retry-after"] == "1"
    assert await client.ended()
    await client.stream.aclose()


async def test_connections_of_one_address_are_bounded() -> None:
    """Beyond the bound 503 with Retry-After, without a word from the client; whoever goes makes room."""
    async with open_door(connections_per_address_max=2) as doorway:
        first, second = await doorway.connect(), await doorway.connect()
        await first.ask()
        await second.ask()
        await refused_for_lack_of_room(doorway)
        await refused_for_lack_of_room(doorway)
        assert (await first.ask()).body == b"hello"
        await second.stream.aclose()
        await doorway.counts.wait_open(1)
        assert (await doorway.ask_once()).body == b"hello"
        assert doorway.counts.refusals == {"OVERLOADED": 2}


async def test_a_trusted_proxy_stands_for_many_clients() -> None:
    """So it is not bounded as one."""
    proxies = TrustedProxies([ip_network("127.0.0.1")])
    async with open_door(connections_per_address_max=1, proxies=proxies) as doorway:
        clients = [await doorway.connect() for _ in range(5)]
        for client in clients:
            assert (await client.ask()).body == b"hello"


async def test_connections_in_all_are_bounded() -> None:
    """Also for proxies."""
    proxies = TrustedProxies([ip_network("127.0.0.1")])
    async with open_door(connections_max=1, proxies=proxies) as doorway:
        client = await doorway.connect()
        await client.ask()
        await refused_for_lack_of_room(doorway)
        await client.stream.aclose()
        await doorway.counts.wait_open(0)
        assert (await doorway.ask_once()).body == b"hello"


async def test_without_a_number_the_file_limit_is_the_bound() -> None:
    """A connection is a file, and the log needs some too."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with open_door(files_reserved=soft - 33, turned_away_max=32) as doorway:
        client = await doorway.connect()
        await client.ask()
        await refused_for_lack_of_room(doorway)


async def test_when_too_many_are_turned_away_the_rest_is_closed_at_once() -> None:
    """Being told takes a connection too, for as long as the client wants it to."""
    async with open_door(connections_max=1, turned_away_max=1, linger_seconds_max=3600) as doorway:
        client = await doorway.connect()
        await client.ask()
        told = await doorway.connect()
        assert (await told.answer()).status == 503
        not_told = await doorway.connect()
        await not_told.was_reset()
        assert doorway.counts.refusals == {"OVERLOADED": 2}
        await told.stream.aclose()


async def test_accepting_outlives_a_lack_of_files(monkeypatch: pytest.MonkeyPatch, logged: list[EventDict]) -> None:
    """It is told once, and counted, and tried again until the kernel has a file."""
    accept = trio.SocketListener.accept
    errors = [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.EPERM]

    async def failing(listener: trio.SocketListener) -> trio.SocketStream:
        if errors:
            raise OSError(errors.pop(), "no")
        return await accept(listener)

    monkeypatch.setattr(trio.SocketListener, "accept", failing)
    async with open_door(accept_pause_seconds=0.001) as doorway:
        assert (await doorway.ask_once()).body == b"hello"
        assert not errors
        assert doorway.counts.failed == {"EPERM": 1}
    assert [line["error"] for line in logged if line["event"] == "accept_failed"] == ["EPERM"]


async def test_a_client_that_is_gone_before_it_is_looked_at_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its socket has no peer any more, which is how the kernel says so."""

    def getpeername(_socket: object) -> object:
        raise OSError(errno.ENOTCONN, "gone")

    async with open_door() as doorway:
        with monkeypatch.context() as patched:
            patched.setattr("trio._socket._SocketType.getpeername", getpeername)
            gone = await doorway.connect()
            await gone.was_reset()
        assert (await doorway.ask_once()).body == b"hello"
        assert not doorway.counts.failed


# ---- draining --------------------------------------------------------------------------------------------------------


async def test_draining_answers_what_is_here_and_closes_what_is_idle() -> None:
    """Nobody new is let in; the answer in flight says that it is the last; then `run` ends."""
    played = Played()
    async with open_door(played) as doorway, trio.open_nursery() as nursery:
        idle, silent, busy = [await doorway.connect() for _ in range(3)]
        await idle.ask()
        await busy.send(get(b"/wait"))
        await doorway.counts.wait_open(3)
        while len(played.scopes) < 2:
            await trio.lowlevel.checkpoint()
        nursery.start_soon(doorway.door.drain, 3600)
        assert await idle.ended()
        assert await silent.ended()
        with pytest.raises(OSError):
            await doorway.connect()
        played.release.set()
        answer = await busy.answer()
        assert (answer.body, answer.headers["connection"]) == (b"hello", "close")
        assert await busy.ended()
        await busy.stream.aclose()
    assert played.lifespan == ["lifespan.startup", "lifespan.shutdown"]


async def test_draining_answers_those_whom_the_kernel_has_let_in() -> None:
    """They are connected and have sent their request, but nobody has accepted them yet."""
    async with open_door() as doorway:
        clients = [trio.socket.socket() for _ in range(20)]
        for client in clients:
            await client.connect(("127.0.0.1", doorway.port))
            await client.send(GET)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(doorway.door.drain, 3600)
            for client in clients:
                assert (await client.recv(1_000)).startswith(b"HTTP/1.1 200")
                client.close()


async def test_draining_cuts_what_does_not_end(logged: list[EventDict]) -> None:
    """A client that does not read, one that does not finish its request, a viewer, a handler that hangs."""
    async with open_door() as doorway:
        clients = [await doorway.connect() for _ in range(4)]
        for client, sent in zip(clients, (get(b"/large"), b"GET / HT", WATCH, get(b"/wait")), strict=True):
            await client.send(sent)
        await doorway.counts.wait_open(4)
        while not doorway.live.heads or len(doorway.application.scopes) < 2:
            await trio.lowlevel.checkpoint()
        await doorway.door.drain(SHORT)
        for client in clients:
            await client.was_reset()
    assert [line["count"] for line in logged if line["event"] == "connections_cut"] == [4]


async def test_cancelling_a_door_does_not_wait_for_a_client_that_does_not_read() -> None:
    """Hypercorn shields its writes from cancellation; the door takes their socket away."""
    async with open_door(send_seconds_max=3600) as doorway:
        client = await doorway.connect()
        await client.send(get(b"/large"))
        await client.stream.receive_some(1)
        doorway.scope.cancel()


async def test_a_pipelined_request_is_answered_while_draining() -> None:
    """It came in time; its answer is the last."""
    played = Played()
    async with open_door(played) as doorway, trio.open_nursery() as nursery:
        client = await doorway.connect()
        await client.send(get(b"/wait"))
        await played.started.wait()
        nursery.start_soon(doorway.door.drain, 3600)
        await trio.testing.wait_all_tasks_blocked()
        played.release.set()
        assert (await client.answer()).headers["connection"] == "close"
        assert await client.ended()
        await client.stream.aclose()


async def test_a_door_that_is_drained_before_it_opened_ends() -> None:
    """A signal may come at any moment."""
    async with open_door() as doorway:
        await doorway.door.drain(0.0)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(OSError):
            await doorway.connect()
