"""The Hypercorn lane: what a client and an application see of each other, with Hypercorn in between."""

from __future__ import annotations

import gc

import pytest
import trio
from quart import request
from quart_trio import QuartTrio
from structlog.testing import capture_logs
from structlog.typing import EventDict

from server.http.request_parser import RequestParser
from server.lanes import hypercorn_lane
from server.lanes.hypercorn_pipe import Exchange, Pipe
from tests.server.lanes.support import GET, LAST_GET, Played, connected, open_listener

POST = b"POST /echo HTTP/1.1\r\nHost: x\r\n"


def get(path: bytes) -> bytes:
    return b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n"


# ---- requests and answers --------------------------------------------------------------------------------------------


async def test_requests_of_all_kinds_are_answered_on_one_connection() -> None:
    """With a length, in chunks, without a body, HEAD: the connection is kept throughout."""
    played = Played()
    async with open_listener(played) as served:
        client = await served.connect()
        assert (await client.ask(GET)).body == b"hello"
        assert (await client.ask(POST + b"Content-Length: 3\r\n\r\nabc")).body == b"abc"
        chunks = b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        assert (await client.ask(POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)).body == b"abcde"
        assert (await client.ask(get(b"/parts"))).body == b"one, two, three"
        await client.send(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await client.answer(to_head=True)).headers["content-length"] == "5"
        answer = await client.ask(LAST_GET)
        assert answer.headers["connection"] == "close"
        assert "server" not in answer.headers
        assert "date" in answer.headers
        assert await client.ended()
        assert served.listener.statistics().accepted == 1
    assert [body for _, _, body in played.requests] == [b"", b"abc", b"abcde", b"", b""]


async def test_http_1_0_is_answered_and_closed() -> None:
    """An answer of unknown length ends with the connection."""
    async with open_listener() as served:
        client = await served.connect()
        answer = await client.ask(b"GET /parts HTTP/1.0\r\n\r\n")
        assert "transfer-encoding" not in answer.headers
        with pytest.raises(AssertionError, match="one, two, three"):
            await client.answer()


async def test_pipelined_requests_are_answered_in_order() -> None:
    """All three came at once; each is asked only when the one before is answered."""
    played = Played()
    async with open_listener(played) as served:
        client = await served.connect()
        bodies = [b"one", b"two", b"three"]
        await client.send(b"".join(POST + b"Content-Length: %d\r\n\r\n%s" % (len(body), body) for body in bodies))
        assert [(await client.answer()).body for _ in bodies] == bodies


async def test_a_client_may_ask_whether_to_send_the_body() -> None:
    """100 Continue comes once, from the listener, and the answer after it."""
    async with open_listener() as served:
        client = await served.connect()
        await client.send(POST + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        assert (await client.answer()).status == 100
        assert (await client.ask(b"abc")).body == b"abc"


async def test_a_client_that_does_not_wait_is_not_told_to_go_on() -> None:
    """The body came with the head, so the word would come too late."""
    async with open_listener() as served:
        client = await served.connect()
        answer = await client.ask(POST + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\nabc")
        assert (answer.status, answer.body) == (200, b"abc")


async def test_a_body_that_is_not_read_does_not_cost_the_connection() -> None:
    """An application may answer without looking at what it was sent."""
    async with open_listener() as served:
        client = await served.connect()
        post = b"POST /unread HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n" + bytes(200_000)
        for _ in range(3):
            assert (await client.ask(post)).body == b"not read"


async def test_an_idle_connection_holds_nothing_of_its_last_request() -> None:
    """A thousand of them, after a large body each, would hold gigabytes that no bound knows of."""
    async with connected() as (connection, _client):
        pipe = Pipe(connection)
        request = bytearray(100_000)
        pipe.begin(Exchange(connection, last=False), request)
        while pipe._unread:
            await pipe.receive_some(2**16)
        request.clear()  # which no bytearray does as long as anything looks into it


async def test_a_body_is_let_go_when_its_client_goes() -> None:
    """At once: it must not wait, with all that was read, for somebody to look for garbage."""
    async with open_listener() as served:
        gc.collect()
        gc.disable()
        try:
            client = await served.connect()
            await client.send(POST + b"Content-Length: 100001\r\n\r\n" + bytes(100_000))
            await served.counts.wait_open(1)
            await client.stream.aclose()
            await served.counts.wait_open(0)
            inspectors = [each for each in gc.get_objects() if isinstance(each, RequestParser)]
            assert sum(each.held for each in inspectors) == 0
        finally:
            gc.enable()


async def test_a_connection_is_good_for_any_number_of_requests() -> None:
    """Hypercorn's own limit is a thousand; it must not end our connections."""
    async with open_listener() as served:
        client = await served.connect()
        for _ in range(1_005):
            assert "connection" not in (await client.ask(GET)).headers


async def test_an_application_can_end_the_connection() -> None:
    """With the header that says so."""
    async with open_listener() as served:
        client = await served.connect()
        answer = await client.ask(get(b"/close"))
        assert (answer.body, answer.headers["connection"]) == (b"bye", "close")
        assert await client.ended()


async def test_the_application_is_told_who_asks_and_for_what() -> None:
    """Addresses, path and query as they came."""
    played = Played()
    async with open_listener(played) as served:
        client = await served.connect()
        await client.ask(b"GET /a%20b?c=%20d HTTP/1.1\r\nHost: y\r\nX-A: 1\r\nX-A: 2\r\n\r\n")
        (scope,) = played.scopes
        assert scope["client"] == client.stream.socket.getsockname()
        assert scope["server"] == ("127.0.0.1", served.port)
        assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/a b", b"/a%20b", b"c=%20d")
        assert scope["headers"] == [(b"host", b"y"), (b"x-a", b"1"), (b"x-a", b"2")]


# ---- clients that leave ----------------------------------------------------------------------------------------------


async def test_a_client_that_has_nothing_more_to_say_still_gets_its_answer() -> None:
    """It closed its sending side while the application was at work; that is no reason to stop the work."""
    played = Played()
    async with open_listener(played) as served:
        client = await served.connect()
        await client.send(get(b"/wait"))
        await client.stream.send_eof()
        await played.started.wait()
        played.release.set()
        assert (await client.answer()).body == b"hello"
        assert await client.ended()


async def test_a_request_is_carried_out_though_the_client_left() -> None:
    """The application ends undisturbed, no fault is logged, and the connection ends."""
    played = Played()
    async with open_listener(played) as served:
        client = await served.connect()
        await client.send(get(b"/wait"))
        await played.started.wait()
        await client.reset()
        played.release.set()
        await served.counts.wait_open(0)
        assert played.requests == [("GET", "/wait", b"")]
        assert not served.counts.faults


async def test_an_endless_answer_ends_with_its_client() -> None:
    """The application only sends, and never asks whether anyone is there."""
    played = Played()
    async with open_listener(played) as served:
        client = await served.connect()
        await client.send(get(b"/for-ever"))
        await client.stream.receive_some(1)
        await client.reset()
        await played.ended.wait()
        await served.counts.wait_open(0)
        assert not served.counts.faults


async def test_an_application_hears_that_its_answer_is_done_and_the_connection_is_kept() -> None:
    """It waits for http.disconnect after its answer, as ASGI allows; the next request is answered all the same."""
    played = Played()
    async with open_listener(played) as served:
        client = await served.connect()
        assert (await client.ask(get(b"/listening"))).body == b"hello"
        await played.disconnected.wait()
        assert (await client.ask(GET)).body == b"hello"


# ---- applications that fail ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (b"/raise", "ValueError"),
        (b"/raise-group", "KeyError"),
        (b"/bad-header", "LocalProtocolError"),
        (b"/silent", None),
    ],
)
async def test_a_failure_before_the_answer_is_a_500_in_the_shape_of_every_error(
    path: bytes, kind: str | None, logged: list[EventDict]
) -> None:
    """It is counted and told, without a word of what the client sent; the connection ends, the server does not."""
    async with open_listener() as served:
        client = await served.connect()
        answer = await client.ask(get(path + b"?token=secret"))
        assert (answer.status, answer.code()) == (500, "INTERNAL_ERROR")
        assert answer.headers["connection"] == "close"
        assert await client.ended()
        assert (await served.ask_once()).body == b"hello"
        assert set(served.counts.faults) <= {kind}
        if kind is not None:
            assert served.counts.faults[kind] == 1
            (line,) = [line for line in logged if line["event"] == "request_failed"]
            assert line["path"] == path.decode()
            assert kind in line["kinds"]
            assert "lanes/support.py" in str(line["where"]) or "h11" in str(line["where"])
    assert "secret" not in str(logged)


@pytest.mark.parametrize("path", [b"/raise-late", b"/too-long"])
async def test_a_failure_in_the_middle_of_an_answer_resets_the_connection(path: bytes) -> None:
    """No client may take half an answer for a whole one, and nothing else is written into it."""
    async with open_listener() as served:
        client = await served.connect()
        await client.send(get(path))
        assert await client.was_reset()
        await served.counts.wait_open(0)
        assert sum(served.counts.faults.values()) == 1
        assert (await served.ask_once()).body == b"hello"


# ---- Hypercorn itself ------------------------------------------------------------------------------------------------


async def test_hypercorns_own_errors_are_never_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """If a bad request ever got through, the client would get an error of ours and not an empty one."""
    monkeypatch.setattr(hypercorn_lane, "wire_request", lambda *_args, **_options: b"GET /\x00 HTTP/1.1\r\n\r\n")
    played = Played()
    async with open_listener(played) as served:
        client = await served.connect()
        answer = await client.ask(GET)
        assert (answer.status, answer.code()) == (400, "INVALID_REQUEST")
        assert await client.ended()
        monkeypatch.undo()
        assert (await served.ask_once()).body == b"hello"


async def test_a_fault_of_hypercorn_ends_one_connection(
    monkeypatch: pytest.MonkeyPatch, logged: list[EventDict]
) -> None:
    """Hypercorn gets nothing that makes it fail, so its server is replaced by one that fails in two of its tasks."""

    class Failing:
        def __init__(self, *_arguments: object) -> None:
            pass

        async def run(self) -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.fail, KeyError("a secret"))
                nursery.start_soon(self.fail, ValueError("a secret"))

        @staticmethod
        async def fail(error: Exception) -> None:
            raise error

    async with open_listener() as served:
        honest = await served.connect()
        await honest.ask(GET)
        monkeypatch.setattr(hypercorn_lane, "TCPServer", Failing)
        client = await served.connect()
        assert (await client.ask(GET)).code() == "INTERNAL_ERROR"
        assert await client.ended()
        assert sum(served.counts.faults.values()) == 1
        (line,) = [line for line in logged if line["event"] == "hypercorn_failed"]
        assert line["kinds"] == ["KeyError", "ValueError"]
        assert "secret" not in str(logged)
        monkeypatch.undo()
        assert (await honest.ask(GET)).body == b"hello"
        assert (await served.ask_once()).body == b"hello"


async def test_hypercorn_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """Neither requests nor errors: what is to be told is told in our log."""
    with capture_logs():
        async with open_listener() as served:
            for path in (b"/", b"/raise", b"/bad-header", b"/silent"):
                await (await served.connect()).ask(get(path))
    assert capfd.readouterr() == ("", "")


# ---- Quart-Trio ------------------------------------------------------------------------------------------------------


def quart_app() -> QuartTrio:
    app = QuartTrio(__name__)

    @app.get("/")
    async def greet() -> str:
        return "hello"

    @app.post("/echo")
    async def echo() -> bytes:
        data = await request.get_data()
        assert isinstance(data, bytes)
        return data

    @app.get("/background")
    async def background() -> str:
        app.add_background_task(done)
        return "begun"

    async def done() -> None:
        app.config["DONE"].set()

    app.config["DONE"] = trio.Event()
    return app


async def test_quart_trio_is_served_on_kept_connections() -> None:
    """Request after request, pipelined ones and large ones, and the connection ends when the client wants it to."""
    async with open_listener(quart_app()) as served:
        client = await served.connect()
        large = bytes(700_000)
        for _ in range(3):
            assert (await client.ask(GET)).body == b"hello"
            assert (await client.ask(POST + b"Content-Length: 700000\r\n\r\n" + large)).body == large
            assert (await client.ask(get(b"/nowhere"))).status == 404
        await client.send(GET * 3)
        assert [(await client.answer()).status for _ in range(3)] == [200] * 3
        assert (await client.ask(LAST_GET)).headers["connection"] == "close"
        assert await client.ended()
        assert not served.counts.faults


async def test_a_connection_that_quart_trio_answered_on_still_has_an_idle_time() -> None:
    """Hypercorn's own idle time is lost then: Quart-Trio cancels what would start it again."""
    async with open_listener(quart_app(), idle_seconds_max=0.05) as served:
        client = await served.connect()
        assert (await client.ask(GET)).body == b"hello"
        assert await client.ended()


async def test_a_background_task_of_the_application_outlives_its_request() -> None:
    """It runs in the nursery of the application's life, not in that of the connection."""
    app = quart_app()
    async with open_listener(app) as served:
        assert (await served.ask_once(get(b"/background")[:-2] + b"Connection: close\r\n\r\n")).body == b"begun"
        await app.config["DONE"].wait()
