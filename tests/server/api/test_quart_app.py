"""The Quart app: the same answers as the service, and what it answers by itself."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest
import trio
from quart_trio import QuartTrio

from server.api.pipeline import Pipeline
from server.bounds import BODY_BYTES_MAX
from server.http.client_address import TrustedProxies
from server.http.messages import Response
from server.lanes.quart_app import create_app
from tests.server.api.support import READER, REGISTRAR, WRITER, Bench, Reply, Sent, asgi, open_bench

INCREMENT = {"userId": "ann", "actionId": "a1"}

SCRIPT: list[tuple[str, str, object, str | None, dict[str, str]]] = [
    ("GET", "/scoreboard/top", None, None, {}),
    ("POST", "/scores/increment", INCREMENT, WRITER, {"x-request-id": "mine"}),
    ("POST", "/scores/increment", INCREMENT, WRITER, {"content-type": "application/json"}),
    ("POST", "/scores/increment", {**INCREMENT, "userId": "bob"}, WRITER, {}),
    ("POST", "/scores/increment", {**INCREMENT, "delta": 5}, WRITER, {}),
    ("POST", "/scores/increment", INCREMENT, READER, {}),
    ("POST", "/scores/increment", INCREMENT, None, {}),
    ("POST", "/scores/increment", INCREMENT, WRITER, {"content-type": "text/plain"}),
    ("POST", "/scores/increment/batch", [INCREMENT, {"userId": "a/b ü", "actionId": "名"}, 7], WRITER, {}),
    ("PUT", "/users/a%2Fb%20%C3%BC", {"displayName": "Ann"}, REGISTRAR, {}),
    ("GET", "/scoreboard/top?limit=1", None, None, {"origin": "https://site.example"}),
    ("GET", "/scoreboard/top?limit=0", None, None, {}),
    ("GET", "/scoreboard/top", None, None, {"if-none-match": "*"}),
    ("HEAD", "/scoreboard/top", None, None, {}),
    ("GET", "/scores/a%2Fb%20%C3%BC", None, None, {}),
    ("GET", "/scores/a%2Fb%20%C3%BC/around?limit=2", None, None, {}),
    ("GET", "/scores/%FF", None, None, {}),
    ("GET", "/scores/a/b", None, None, {}),
    ("GET", "/actions/%E5%90%8D", None, READER, {}),
    ("GET", "/actions/none", None, READER, {}),
    ("OPTIONS", "/scoreboard/top", None, None, {"access-control-request-method": "GET"}),
    ("DELETE", "/scoreboard/top", None, None, {}),
    ("GET", "//", None, None, {}),
    ("GET", "/openapi.json", None, None, {}),
    ("GET", "/docs", None, None, {}),
    ("GET", "/console", None, None, {}),
    ("GET", "/replication/followers", None, None, {}),
    ("GET", "/quorum", None, "Bearer ops admin", {}),
    ("POST", "/quorum/step-down", None, None, {}),
    ("GET", "/readyz?role=leader", None, None, {}),
    ("GET", "/", None, None, {}),
    ("GET", "/scoreboard.js", None, None, {"origin": "https://site.example"}),
    ("GET", "/healthz", None, None, {}),
    ("GET", "/readyz", None, None, {}),
    ("GET", "/feeds/ctftime.json", None, None, {"origin": "https://site.example"}),
    ("GET", "/feeds/clics/contests/main/scoreboard", None, None, {}),
    ("GET", "/ws/scoreboard", None, None, {}),
    ("GET", "/sse/scoreboard", None, None, {}),
    ("GET", "/webhooks", None, "Bearer ops admin", {}),
    ("POST", "/webhooks/shop/enable", None, "Bearer ops admin", {}),
    ("POST", "/webhooks/none/enable", None, "Bearer ops admin", {}),
]


async def test_the_same_requests_get_the_same_answers_both_ways() -> None:
    """Status, headers and body, byte for byte, for a whole conversation with successes and refusals of every kind."""

    async def answers(**options: Any) -> list[Reply]:
        async with open_bench(**options) as bench:
            return [
                await bench.ask(how, target, body, token=token, headers=headers)
                for how, target, body, token, headers in SCRIPT
            ]

    direct = await answers()
    assert await answers(through_quart=True) == direct
    assert len({reply.status for reply in direct}) >= 9


class Listener(Pipeline):
    """A service that only writes down what it is asked."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench.dependencies)
        self.asked: list[Any] = []

    async def answer(self, request: Any, lane: str) -> Response:
        self.asked.append(request)
        assert lane == "http"
        return Response(200)


def listening(*networks: str) -> tuple[QuartTrio, Listener]:
    """An app that writes down what it hands on."""
    listener = Listener(Bench())
    return create_app(listener, TrustedProxies(ip_network(network) for network in networks)), listener


async def test_a_request_is_handed_on_as_it_was_sent() -> None:
    """The path undecoded, the query apart, headers in lower case and those that came twice joined."""
    app, listener = listening()
    headers = [(b"X-Twice", b"a"), (b"x-twice", b"b"), (b"If-None-Match", b'"\xe9"')]
    await asgi(app, "PUT", "/users/a%2fb", b"limit=%31", headers, b"{}")
    [request] = listener.asked
    assert (request.method, request.path, request.query, request.body) == ("PUT", "/users/a%2fb", "limit=%31", b"{}")
    assert request.headers == {"x-twice": "a, b", "if-none-match": '"é"'}


@pytest.mark.parametrize(
    ("target", "path"),
    [("http://board.example/scores/a%2Fb", "/scores/a%2Fb"), ("http://board.example", "/"), ("HTTPS://x:1/", "/")],
)
async def test_a_target_in_absolute_form_is_its_path(target: str, path: str) -> None:
    """RFC 9112, section 3.2.2: a server accepts it, as proxies send it."""
    app, listener = listening()
    await asgi(app, "GET", target)
    assert listener.asked[0].path == path


async def test_the_address_is_the_clients_not_the_proxys() -> None:
    """X-Forwarded-For and Forwarded count from a trusted proxy only."""
    for header in ((b"x-forwarded-for", b"6.6.6.6, 198.51.100.7"), (b"forwarded", b"for=6.6.6.6, for=198.51.100.7")):
        for networks, address in (((), "192.0.2.7"), (("192.0.2.0/24",), "198.51.100.7")):
            app, listener = listening(*networks)
            await asgi(app, "GET", "/", headers=[header])
            assert listener.asked[0].address == address


async def test_a_body_that_is_too_long_is_refused() -> None:
    """413 in the one shape, whether the length was announced or not, without handing it on; one byte less is fine."""
    async with open_bench() as bench:
        app = create_app(bench.pipeline, TrustedProxies())
        length = str(BODY_BYTES_MAX + 1).encode()
        for headers in ([(b"content-length", length)], []):
            sent = await asgi(app, "POST", "/scores/increment", headers=headers, body=b" " * (BODY_BYTES_MAX + 1))
            assert (sent.status, sent.reply.code) == (413, "PAYLOAD_TOO_LARGE")
            assert "x-request-id" in sent.reply.headers
        sent = await asgi(app, "POST", "/scores/increment", body=b" " * BODY_BYTES_MAX)
        assert sent.status == 401
        assert bench.metrics.value("scoreboard_failures_total", code="PAYLOAD_TOO_LARGE") == 2


async def test_a_body_that_does_not_come_is_given_up(autojump_clock: trio.abc.Clock) -> None:
    """408 once the time for a body is over; nothing is handed on."""
    app, listener = listening()
    sent = await asgi(app, "POST", "/scores/increment", body=None)
    assert (sent.status, sent.reply.code) == (408, "INVALID_REQUEST")
    assert listener.asked == []


async def test_a_fault_of_the_app_itself_is_told_to_nobody() -> None:
    """500 in the one shape, without the exception's text."""
    app, listener = listening()

    async def explode(request: Any, lane: str) -> Response:
        raise RuntimeError("secret detail")

    listener.answer = explode  # type: ignore[method-assign]  # what the service promises never to do
    sent = await asgi(app, "GET", "/")
    assert (sent.status, sent.reply.code) == (500, "INTERNAL_ERROR")
    assert b"secret" not in sent.reply.body


async def test_a_websocket_that_strayed_here_is_closed() -> None:
    """The live channel has a lane of its own; the app has no WebSockets, and says 404 in the one shape."""
    app, _ = listening()
    sent = Sent()
    scope: Any = {
        "type": "websocket",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": "/ws/scoreboard",
        "raw_path": b"/ws/scoreboard",
        "query_string": b"",
        "root_path": "",
        "headers": [],
        "client": ("192.0.2.7", 1),
        "server": ("127.0.0.1", 80),
        "subprotocols": [],
        "extensions": {"websocket.http.response": {}},
    }
    await app(scope, Sent.never, sent.take)
    assert sent.messages[0]["type"] == "websocket.http.response.start"
    assert (sent.status, sent.reply.code) == (404, "NOT_FOUND")
