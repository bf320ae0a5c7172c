"""One request through Hypercorn: the stream that Hypercorn reads, and the `receive` and `send` of the application.

    lane ── whole request ─► Pipe ─► Hypercorn, h11 ─► Exchange ─► application
    client ◄── only the application's bytes ── Pipe ◄──────┘            │
                                                 Exchange ◄── answer ───┘

Rules:
- Hypercorn's own answers (an empty 400 or 500) never reach the client. They are noted and dropped; the lane answers
  instead, in the shape of every other error.
- The application is called with the whole body in one message. When an application answers before Hypercorn has read
  the body to its end, Hypercorn closes the connection although it did not say so.
- `http.disconnect` waits until the application has sent the end of its answer. Quart-Trio then cancels the request,
  which would cancel Hypercorn while it prepares for the next request.
- Once the client is gone the application's `send` raises, as ASGI demands; Hypercorn's would take bytes for ever.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import trio
from hypercorn.typing import ASGIFramework

from server.http.connection import Connection

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_NOTHING = memoryview(b"")
"""Used instead of an empty slice, which would keep the whole request while the connection is idle."""

_ERROR_LINE = re.compile(rb"HTTP/1\.1 ([45][0-9]{2}) ")


class Exchange:
    """One request and its answer. `last`: the connection ends with this answer, and the answer says so."""

    __slots__ = ("_connection", "_ending", "_sent_end", "answering", "complete", "last", "over", "refused_with", "sent")

    def __init__(self, connection: Connection, *, last: bool) -> None:
        self.last = last
        self.answering = False  # whether what Hypercorn sends is the application's answer
        self.sent = 0  # bytes of the answer
        self.complete = False
        self.refused_with: int | None = None  # the status of Hypercorn's own answer
        self.over = trio.Event()
        self._connection = connection
        self._ending = False
        self._sent_end = trio.Event()

    async def run(self, application: ASGIFramework, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application and watch its answer. Raises what it raises."""
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
    """Join the parts of the body. The lane has given all of it to Hypercorn, so this never waits for the client."""
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise trio.BrokenResourceError("the connection was cut")
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


class Pipe:
    """The stream that Hypercorn takes for its client's: it reads whole requests and writes the answers."""

    def __init__(self, connection: Connection) -> None:
        # Not the real socket: after a reset that one raises when Hypercorn asks for its peer. AF_INET only tells
        # Hypercorn that an address is host and port.
        self.socket = SimpleNamespace(
            family=socket.AF_INET, getpeername=lambda: connection.peer, getsockname=lambda: connection.own
        )
        self.exchange: Exchange | None = None
        self._connection = connection
        self._unread = _NOTHING
        self._arrived = trio.Event()
        self._closed = False

    def begin(self, exchange: Exchange, request: bytes | bytearray) -> None:
        """Let Hypercorn read a request; the last exchange is over."""
        assert not self._unread
        self.exchange = exchange
        self._unread = memoryview(request)
        self._arrived.set()
        if self._closed:
            exchange.over.set()

    async def receive_some(self, max_bytes: int) -> bytes:
        """Give the next part of a request. The stream has no end: the lane cancels Hypercorn."""
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
        """Write the application's answer; drop Hypercorn's own."""
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
        """Do nothing: the lane ends the connection."""
        # Shielded, here and below: Hypercorn calls these while it raises, and Cancelled would replace its exception.
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def aclose(self) -> None:
        """End the exchange."""
        self.close()
        await trio.lowlevel.cancel_shielded_checkpoint()

    def close(self) -> None:
        """End the exchange, unless the application is answering."""
        self._closed = True
        self._arrived.set()
        if self.exchange is not None and not self.exchange.answering:
            self.exchange.over.set()
