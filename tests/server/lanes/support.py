"""A listener on a free port of the loopback, raw clients for it, and applications that behave and misbehave."""

from __future__ import annotations

import json
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import trio

from server.http.admission import BodyMemory
from server.http.client_address import TrustedProxies
from server.http.connection import Connection, HttpBounds
from server.http.messages import RequestHead
from server.lanes.hypercorn_pipe import Message, Receive, Scope, Send
from server.lanes.listener import Listener, open_listeners
from server.metrics import Metrics

PATIENCE_SECONDS = 30.0
"""A test that waits for longer has failed."""

LARGE_BYTES = 32 * 2**20
"""More than the kernel buffers between a server and a client that does not read."""

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LAST_GET = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
UPGRADE = b"Host: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
UPGRADE += b"Sec-WebSocket-Key: bKdPyn3u98cTfZJSh4TNeQ==\r\n\r\n"

OTHER_PROTOCOLS = {
    "an upgrade to WebSocket": (b"GET / HTTP/1.1\r\n" + UPGRADE, 404),
    "an upgrade of a hot route": (b"GET /scoreboard/top HTTP/1.1\r\n" + UPGRADE, 404),
    "an upgrade to HTTP/2": (
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\n%b\r\n"
        % b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
        400,
    ),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
}
"""Correct requests for a protocol that Hypercorn speaks and we do not, with the status of our refusal.

In Hypercorn 0.18 a fault in such a protocol ends the whole server (pgjones/hypercorn#225). No test has an input with
that effect. The tests show that no connection of these protocols is handed to Hypercorn.
"""


class Answer(msgspec.Struct, frozen=True):
    """One answer, as it came over the wire."""

    status: int
    headers: dict[str, str]
    body: bytes

    def code(self) -> str:
        """The code of an error, which must be in the one shape of all errors."""
        value = json.loads(self.body)
        assert set(value) == {"error"}
        assert set(value["error"]) == {"code", "message", "details"}
        assert self.headers["content-type"] == "application/json"
        code = value["error"]["code"]
        assert isinstance(code, str)
        return code


class Client:
    """A client that sends what it is told, byte for byte."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._received = bytearray()

    async def send(self, data: bytes) -> None:
        """Send it."""
        await self.stream.send_all(data)

    async def ask(self, data: bytes = GET) -> Answer:
        """Send a request and read its answer."""
        await self.send(data)
        return await self.answer()

    async def answer(self, *, to_head: bool = False) -> Answer:
        """Read one answer."""
        head = await self._until(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")[:-2]
        pairs = [line.partition(":") for line in lines]
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        assert len(headers) == len(lines), "a header came twice"
        return Answer(int(status.split(" ")[1]), headers, b"" if to_head else await self._body(headers))

    async def ended(self) -> bool:
        """Wait for the end: True if it came with nothing before it, False if there was more to read."""
        return not self._received and not await self._more()

    async def was_reset(self) -> bool:
        """Wait for the end, whatever comes before it: True if it was a reset."""
        try:
            while await self._more():
                pass
        except trio.BrokenResourceError:
            return True
        return False

    async def reset(self) -> None:
        """Reset the connection."""
        self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await self.stream.aclose()

    async def _body(self, headers: dict[str, str]) -> bytes:
        if "content-length" in headers:
            return await self.exactly(int(headers["content-length"]))
        body = b""
        if headers.get("transfer-encoding") == "chunked":
            while size := int(await self._until(b"\r\n"), 16):
                body += (await self.exactly(size + 2))[:-2]
            await self.exactly(2)
        return body

    async def _until(self, end: bytes) -> bytes:
        while (found := self._received.find(end)) < 0:
            assert await self._more(), f"the connection ended after {bytes(self._received)!r}"
        return await self.exactly(found + len(end))

    async def exactly(self, count: int) -> bytes:
        """Read `count` bytes."""
        while len(self._received) < count:
            assert await self._more(), f"the connection ended after {bytes(self._received[:200])!r}"
        taken = bytes(self._received[:count])
        del self._received[:count]
        return taken

    async def _more(self) -> bool:
        data = await self.stream.receive_some(2**16)
        self._received += data
        return bool(data)


class Counts(Metrics):
    """Metrics that tests can wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.open = 0
        self.faults: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self._changed = trio.Event()

    def connections(self, count: int) -> None:
        """Note how many connections are open."""
        self.open = count
        self._wake()

    def connection_failed(self, kind: str) -> None:
        """A connection ended with a fault."""
        self.faults[kind] += 1
        self._wake()

    def refused(self, code: str) -> None:
        """Something was refused."""
        self.refusals[code] += 1
        self._wake()

    async def wait_open(self, count: int) -> None:
        """Wait until `count` connections are open."""
        while self.open != count:
            await self._wait()

    async def wait_failed(self, kind: str) -> None:
        """Wait until something failed in this way."""
        while not self.faults[kind]:
            await self._wait()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def _wait(self) -> None:
        await self._changed.wait()


class Echo:
    """Stands in for the live channel: records its requests, echoes until the client closes, and fails if told to."""

    def __init__(self) -> None:
        self.heads: list[tuple[RequestHead, str]] = []
        self.as_events: list[bool] = []
        self.failure: BaseException | None = None

    async def serve_viewer(
        self, stream: trio.SocketStream, head: RequestHead, address: str, left: Callable[[], None], *,
        as_events: bool = False,
    ) -> bool:  # fmt: skip
        """Echo what comes."""
        self.heads.append((head, address))
        self.as_events.append(as_events)
        if self.failure is not None:
            raise self.failure
        await stream.send_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + head.rest)
        while data := await stream.receive_some(1024):
            await stream.send_all(data)
        return False


class Played:
    """An ASGI application whose paths are ways to behave. `requests` are what it was asked."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, bytes]] = []
        self.scopes: list[Scope] = []
        self.lifespan: list[str] = []
        self.started = trio.Event()
        self.release = trio.Event()
        self.disconnected = trio.Event()
        self.ended = trio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The application."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        self.scopes.append(scope)
        self.started.set()
        try:
            await getattr(self, "path_" + scope["path"].strip("/").replace("-", "_"), self.path_)(scope, receive, send)
        finally:
            self.ended.set()

    async def _live(self, receive: Receive, send: Send) -> None:
        for _ in range(2):
            message = await receive()
            self.lifespan.append(message["type"])
            await send({"type": message["type"] + ".complete"})

    async def path_(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Give the body back, or a greeting."""
        message = await receive()
        assert not message["more_body"], "the body comes whole"
        self.requests.append((scope["method"], scope["path"], message["body"]))
        await respond(send, message["body"] or b"hello")

    async def path_wait(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer when released."""
        await self.release.wait()
        await self.path_(scope, receive, send)

    async def path_unread(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Answer without reading."""
        await respond(send, b"not read")

    async def path_close(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Answer for the last time."""
        await respond(send, b"bye", [(b"Connection", b"close")])

    async def path_parts(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Answer in parts of unknown number."""
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for part in (b"one, ", b"two, ", b"three"):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body"})

    async def path_large(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Answer with more than any buffer takes."""
        await respond(send, bytes(LARGE_BYTES))

    async def path_for_ever(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Answer for ever, and never listen."""
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": bytes(2**16), "more_body": True})

    async def path_listening(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, and then wait to hear that the client is gone."""
        await receive()
        await respond(send, b"hello")
        assert (await receive())["type"] == "http.disconnect"
        self.disconnected.set()

    async def path_raise(self, _scope: Scope, _receive: Receive, _send: Send) -> None:
        """Fail before answering."""
        raise ValueError("a secret of the client")

    async def path_raise_group(self, _scope: Scope, _receive: Receive, _send: Send) -> None:
        """Fail in several tasks."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._fail, KeyError("a secret"))
            nursery.start_soon(self._fail, OSError("another secret"))

    async def path_raise_late(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Fail in the middle of an answer."""
        headers = [(b"content-length", b"10")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise ValueError("a secret of the client")

    async def path_silent(self, _scope: Scope, _receive: Receive, _send: Send) -> None:
        """Say nothing."""

    async def path_bad_header(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Answer with a header that is none."""
        await respond(send, b"", [(b"bad name", b"\n")])

    async def path_too_long(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Answer with more than was announced."""
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1")]})
        await send({"type": "http.response.body", "body": b"hello"})

    @staticmethod
    async def _fail(error: Exception) -> None:
        raise error


async def respond(send: Send, body: bytes, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    """Answer 200, as an application does."""
    length = (b"content-length", str(len(body)).encode())
    start: Message = {"type": "http.response.start", "status": 200, "headers": [length, *(headers or [])]}
    await send(start)
    await send({"type": "http.response.body", "body": body})


class Served:
    """A running listener and its dependencies."""

    def __init__(
        self, listener: Listener, port: int, counts: Counts, live: Echo, application: Any, scope: trio.CancelScope
    ) -> None:
        self.listener = listener
        self.scope = scope
        self.port = port
        self.counts = counts
        self.live = live
        self.application = application

    async def connect(self) -> Client:
        """Connect."""
        return Client(await trio.open_tcp_stream("127.0.0.1", self.port))

    async def ask_once(self, data: bytes = LAST_GET) -> Answer:
        """Connect, ask, read the answer and the end."""
        client = await self.connect()
        async with client.stream:
            answer = await client.ask(data)
            assert await client.ended()
            return answer


@asynccontextmanager
async def open_listener(
    application: Any = None, *, proxies: TrustedProxies | None = None, **bounds: Any
) -> AsyncIterator[Served]:
    """Run a listener. `bounds` replace those of `HttpBounds`."""
    application = application or Played()
    counts, live = Counts(), Echo()
    listener = Listener(
        await open_listeners("127.0.0.1", 0),
        application=application,
        live=live,
        metrics=counts,
        proxies=proxies,
        http_bounds=HttpBounds(**bounds),
    )
    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            ((_, port),) = await nursery.start(listener.run)
            yield Served(listener, port, counts, live, application, nursery.cancel_scope)
            # What a test leaves open it does not care about.
            await listener.drain(0.0)
        assert listener.statistics().open == counts.open == 0


@asynccontextmanager
async def connected(body_memory: BodyMemory | None = None, **bounds: Any) -> AsyncIterator[tuple[Connection, Client]]:
    """A connection without a listener, and its client."""
    with trio.fail_after(PATIENCE_SECONDS):
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        async with listener:
            client = await trio.open_tcp_stream(*listener.socket.getsockname())
            stream = await listener.accept()
        http_bounds = HttpBounds(**bounds)
        body_memory = body_memory or BodyMemory(http_bounds.bodies_bytes_max, http_bounds.bodies_per_address_bytes_max)
        connection = Connection(stream, ("127.0.0.1", 1), ("127.0.0.1", 2), "", http_bounds, body_memory)
        async with client:
            try:
                yield connection, Client(client)
            finally:
                connection.close()
