"""One request through Hypercorn: what Hypercorn takes for its client, what the application takes for Hypercorn.

    lane ── whole request ─► Pipe ─► Hypercorn, h11 ─► Exchange ─► application
    client ◄── only the application's bytes ── Pipe ◄──────┘            │
                                                 Exchange ◄── answer ───┘

Rules:
- What Hypercorn says by itself never reaches the client. Its own errors (an empty 400 or 500) are dropped and noted;
  the lane answers instead, in the shape of every other error.
- The application is called when the body is there, with the whole body in one message. Hypercorn closes a kept
  connection, without having said so, when an application answers before Hypercorn has read the body to its end.
- `http.disconnect` waits until the application has sent the end of its answer. Quart-Trio cancels the request when it
  hears of it, and that would cancel Hypercorn in the middle of getting ready for the next request.
- Once the client is gone the application's `send` raises, as ASGI asks for: Hypercorn's would take bytes for ever.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Awaitable, Callable
from typing import Any, cast

import trio
from hypercorn.typing import ASGIFramework

from server.http.connection import Address, Connection

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_NOTHING = memoryview(b"")
"""Not an empty slice of a request, which would keep all of it for as long as the connection is idle."""

_ERROR_LINE = re.compile(rb"HTTP/1\.1 ([45][0-9]{2}) ")


class Exchange:
    """One request and its answer. `last`: the connection ends with this answer, and the answer says so."""

    __slots__ = ("_connection", "_ending", "_sent_end", "answering", "complete", "last", "over", "refused_with", "sent")

    def __init__(self, connection: Connection, *, last: bool) -> None:
        self.last = last
        self.answering = False  # the application's answer has begun: what Hypercorn sends is that answer
        self.sent = 0  # bytes of the answer
        self.complete = False
        self.refused_with: int | None = None  # the status of an answer of Hypercorn's own
        self.over = trio.Event()
        self._connection = connection
        self._ending = False
        self._sent_end = trio.Event()

    async def run(self, application: ASGIFramework, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application, and follow its answer. Raises what it raises."""
        body = await _whole_body(receive)
        waiting = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive_whole() -> Message:
            if waiting:
                return waiting.pop()
            message = await receive()
            if self._ending:
                await self._sent_end.wait()
            return message

        async def send_followed(message: Message) -> None:
            if self._connection.gone:
                await trio.lowlevel.checkpoint()
                raise trio.BrokenResourceError("the client is gone")
            if message["type"] == "http.response.start":
                message = self._begin(message)
            self._ending = message["type"] == "http.response.body" and not message.get("more_body", False)
            try:
                await send(message)
                self.complete = self._ending
            finally:
                if self._ending:
                    self._sent_end.set()

        try:
            await cast(Any, application)(scope, receive_whole, send_followed)
        finally:
            # From here on Hypercorn speaks for itself again.
            self.answering = False
            self.over.set()

    def _begin(self, message: Message) -> Message:
        headers = [(bytes(name), bytes(value)) for name, value in message.get("headers", [])]
        if any(name.lower() == b"connection" and b"close" in value.lower() for name, value in headers):
            self.last = True
        elif self.last or self._connection.closing:
            self.last = True
            headers.append((b"connection", b"close"))
        self.answering = True
        return {**message, "headers": headers}


async def _whole_body(receive: Receive) -> bytes:
    """Gather the body, all of which the lane has and Hypercorn is given before it reads anything else."""
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise trio.BrokenResourceError("the connection was cut")
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


class Pipe:
    """What Hypercorn takes for the stream of its client: it reads whole requests, and writes answers through."""

    def __init__(self, connection: Connection) -> None:
        # The real socket raises when it is asked for its peer after a reset, so it is not the one that is asked.
        self.socket = _Addresses(connection.peer, connection.own)
        self.exchange: Exchange | None = None
        self._connection = connection
        self._unread = _NOTHING
        self._arrived = trio.Event()
        self._closed = False

    def begin(self, exchange: Exchange, request: bytes | bytearray) -> None:
        """Let Hypercorn read a request; the one before is over."""
        assert not self._unread
        self.exchange = exchange
        self._unread = memoryview(request)
        self._arrived.set()
        if self._closed:
            exchange.over.set()

    async def receive_some(self, max_bytes: int) -> bytes:
        """Give the next part of a request. There is no end of stream: the lane ends Hypercorn itself."""
        await trio.lowlevel.checkpoint()
        while not self._unread and not self._closed:
            self._arrived = trio.Event()
            await self._arrived.wait()
        if self._closed:
            raise trio.ClosedResourceError("Hypercorn closed its stream")
        part, self._unread = self._unread[:max_bytes], self._unread[max_bytes:]
        if not self._unread:
            self._unread = _NOTHING
        return bytes(part)

    async def send_all(self, data: bytes) -> None:
        """Write what the application answers; drop what Hypercorn says by itself."""
        exchange = self.exchange
        assert exchange is not None, "Hypercorn can't answer what it was not given"
        if exchange.answering:
            exchange.sent += len(data)
            await self._connection.send(data)
            return
        if status := _ERROR_LINE.match(data):
            exchange.refused_with = int(status[1])
        await trio.lowlevel.checkpoint()

    async def send_eof(self) -> None:
        """Hypercorn is done with the connection. How that ends is the lane's business."""
        # Shielded, here and below: Hypercorn calls these while an exception of its own is on its way out, and to be
        # cancelled now would take that exception's place.
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def aclose(self) -> None:
        """Hypercorn is done."""
        self.close()
        await trio.lowlevel.cancel_shielded_checkpoint()

    def close(self) -> None:
        """There will be no answer any more, unless the application is about to end one."""
        self._closed = True
        self._arrived.set()
        if self.exchange is not None and not self.exchange.answering:
            self.exchange.over.set()


class _Addresses:
    """The part of a socket that Hypercorn asks for."""

    family = socket.AF_INET  # to Hypercorn it only says that an address is host and port

    def __init__(self, peer: Address, own: Address) -> None:
        self._peer = peer
        self._own = own

    def getpeername(self) -> Address:
        """The client's address."""
        return self._peer

    def getsockname(self) -> Address:
        """Ours."""
        return self._own
