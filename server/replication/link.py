"""The WebSocket under a replication link, for both sides.

    async with open_link(leader, target, token, message_bytes_max=bytes_max, timing=timing) as link:
        message = await link.receive(seconds_max)
    async with accept_link(stream, head, timing) as link: ...

trio-websocket has the protocol. This file adds a deadline for every wait, a bound for every message, and one error:
whatever ends a link, its user gets `LinkEnded`. Only a cancellation passes unchanged. Frames of the log bypass
trio-websocket when they are sent: many go out in one write, because a leader does that all the time.

Rules:
- On the accepting side the listener has read the request's head. It is written again before the rest of the stream, for
  trio-websocket to read.
- A close waits for the other side LINK_CLOSE_SECONDS_MAX at most. What was received before it counts.
- The token is in one header, and in no error.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import cast
from urllib.parse import urlsplit

import msgspec
import trio
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    WebSocketConnection,
    wrap_client_stream,
    wrap_server_stream,
)

from engine.errors import ScoreboardError
from server import bounds
from server.faults import first_of
from server.http.messages import RequestHead
from server.http.websocket import BINARY, NORMAL_CLOSURE, server_frame

_REFUSALS = {401: "refused the token, or wants one", 403: "refused the token, which needs the scope log:read"}
"""What a leader did, by the status of its answer."""


class LinkEnded(ScoreboardError):
    """The link is over. If an HTTP answer came instead of a link, `status` is its status."""

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


class LinkTiming(msgspec.Struct, frozen=True, kw_only=True):
    """The times of a link, in seconds."""

    heartbeat_seconds: float = bounds.HEARTBEAT_SECONDS
    silence_seconds_max: float = bounds.LINK_SILENCE_SECONDS_MAX
    open_seconds_max: float = bounds.LINK_OPEN_SECONDS_MAX
    close_seconds_max: float = bounds.LINK_CLOSE_SECONDS_MAX
    lived_seconds: float = bounds.LINK_LIVED_SECONDS


class Link:
    """One side of an open link. Sending and receiving raise `LinkEnded` when it is over.

    `stream` is given on the accepting side. Its WebSocket frames have no mask, so binary messages are written to it
    directly.
    """

    def __init__(self, socket: WebSocketConnection, stream: trio.abc.SendStream | None = None) -> None:
        self._socket = socket
        self._stream = stream

    async def send(self, message: bytes | str) -> None:
        """Send a message. Waits without a deadline while the other side does not read."""
        try:
            await self._socket.send_message(message)
        except ConnectionClosed as closed:
            raise _ended(closed) from closed

    async def send_all(self, messages: Sequence[bytes]) -> None:
        """Send binary messages, on the accepting side in one write. Waits as `send` does."""
        if self._stream is None:
            for message in messages:
                await self.send(message)
            return
        if self._socket.closed is not None:
            raise LinkEnded("the connection was closed")
        try:
            await self._stream.send_all(b"".join([server_frame(BINARY, message) for message in messages]))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise LinkEnded("the connection was closed") from error

    async def receive(self, seconds_max: float) -> bytes | str:
        """Wait for the next message, at most `seconds_max`."""
        with trio.move_on_after(seconds_max):
            try:
                message: bytes | str = await self._socket.get_message()
            except ConnectionClosed as closed:
                raise _ended(closed) from closed
            return message
        raise LinkEnded(f"nothing was heard for {seconds_max:g} seconds")

    async def close(self, seconds_max: float, code: int = NORMAL_CLOSURE, reason: str = "") -> None:
        """Close, and wait for the other side at most `seconds_max`."""
        with trio.move_on_after(seconds_max):
            await self._socket.aclose(code, reason or None)


class Endpoint(msgspec.Struct, frozen=True):
    """The address of a leader. `prefix` stands before every path, and has no slash at its end."""

    host: str
    port: int
    secure: bool
    prefix: str

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def url(self, path: str) -> str:
        return f"{'https' if self.secure else 'http'}://{self.authority}{self.prefix}{path}"


def parse_leader(url: str) -> Endpoint:
    """Read the address of a leader. Raises ValueError with a sentence that says what is wrong."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise ValueError("the leader is an address like http://leader.example:8080")
    if parts.query or parts.fragment:
        raise ValueError("the leader's address has neither a query nor a fragment")
    secure = parts.scheme == "https"
    return Endpoint(parts.hostname, parts.port or (443 if secure else 80), secure, parts.path.rstrip("/"))


@asynccontextmanager
async def open_link(
    leader: Endpoint, target: str, token: str, *, message_bytes_max: int, timing: LinkTiming
) -> AsyncIterator[Link]:
    """Open a link to a leader. Raises `LinkEnded`."""
    headers = [(b"authorization", f"Bearer {token}".encode("latin-1"))] if token else []
    stream = await connect(leader, timing.open_seconds_max)

    async def open_in(nursery: trio.Nursery, on_end: Callable[[], None]) -> Link:
        socket = await wrap_client_stream(
            nursery,
            cast(trio.SocketStream, _Wrapped(stream, b"", on_end)),  # any stream will do
            leader.authority,
            leader.prefix + target,
            extra_headers=headers,
            message_queue_size=bounds.LINK_MESSAGES_MAX,
            max_message_size=message_bytes_max,
            receive_buffer_size=bounds.RECEIVE_BYTES,
        )
        return Link(socket)

    try:
        async with _linked(open_in, timing) as link:
            yield link
    finally:
        await trio.aclose_forcefully(stream)


async def connect(leader: Endpoint, seconds_max: float) -> trio.SocketStream | trio.SSLStream[trio.SocketStream]:
    """Connect within `seconds_max`, the TLS handshake included. Raises `LinkEnded`."""
    try:
        with trio.fail_after(seconds_max):
            if not leader.secure:
                return await trio.open_tcp_stream(leader.host, leader.port)
            context = ssl.create_default_context()
            stream = await trio.open_ssl_over_tcp_stream(
                leader.host, leader.port, ssl_context=context, https_compatible=True
            )
            await stream.do_handshake()
            return stream
    except (OSError, trio.BrokenResourceError, trio.TooSlowError) as error:
        raise LinkEnded(f"can't connect to {leader.authority}: {reason_of(error)}") from error


@asynccontextmanager
async def accept_link(stream: trio.abc.Stream, head: RequestHead, timing: LinkTiming) -> AsyncIterator[Link]:
    """Accept a link on the stream of a request whose head was read. Raises `LinkEnded`."""

    async def open_in(nursery: trio.Nursery, on_end: Callable[[], None]) -> Link:
        wrapped = _Wrapped(stream, _head_bytes(head), on_end)
        request = await wrap_server_stream(
            nursery,
            wrapped,
            message_queue_size=bounds.LINK_MESSAGES_MAX,
            max_message_size=bounds.FOLLOWER_MESSAGE_BYTES_MAX,
            receive_buffer_size=bounds.RECEIVE_BYTES,
        )
        return Link(await request.accept(), wrapped)

    async with _linked(open_in, timing) as link:
        yield link


@asynccontextmanager
async def _linked(
    open_in: Callable[[trio.Nursery, Callable[[], None]], Awaitable[Link]], timing: LinkTiming
) -> AsyncIterator[Link]:
    """Open a link with a nursery for its tasks, and close it at the end. Raises what `_link_ended` makes of an error.

    `open_in` gets the nursery, and a function to call when the stream ends.
    """
    ended: Exception | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                with trio.fail_after(timing.open_seconds_max) as opening:
                    link = await open_in(nursery, opening.cancel)
                yield link
                await link.close(timing.close_seconds_max)
            except Exception as error:
                ended = error  # raised outside, or the nursery would make a group of it
            nursery.cancel_scope.cancel()
    except* Exception as errors:
        ended = first_of(errors)
    if ended is not None:
        raise _link_ended(ended)


def _head_bytes(head: RequestHead) -> bytes:
    lines = [f"{head.method} {head.target} {head.version}", *[f"{name}: {value}" for name, value in head.headers]]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + head.rest


class _Wrapped(trio.abc.Stream):
    """A stream that first gives `data`, and calls `on_end` when the other side has closed it.

    Without that call trio-websocket would wait for its handshake although nobody is left to answer.
    """

    def __init__(self, stream: trio.abc.Stream, data: bytes, on_end: Callable[[], None]) -> None:
        self._stream = stream
        self._data = data
        self._on_end = on_end
        self._sending = trio.StrictFIFOLock()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self._data:
            await trio.lowlevel.checkpoint()
            data = self._data[:max_bytes]
            self._data = self._data[len(data) :]
            return data
        try:
            data = bytes(await self._stream.receive_some(max_bytes))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._on_end()
            raise
        if not data:
            self._on_end()
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of `data`, uninterrupted by other senders."""
        async with self._sending:
            await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


def _ended(closed: ConnectionClosed) -> LinkEnded:
    reason = closed.reason
    said = "" if reason is None or not reason.reason else f": {reason.reason}"
    return LinkEnded(f"the connection was closed{said}")


def _link_ended(error: Exception) -> Exception:
    """Turn what trio-websocket raises into `LinkEnded`. What our own side raised stays as it is."""
    error = first_of(error)
    if isinstance(error, ConnectionRejected):
        refused = _REFUSALS.get(error.status_code, "refused the link")
        return LinkEnded(f"the leader {refused} (status {error.status_code})", error.status_code)
    if isinstance(error, trio.TooSlowError):
        return LinkEnded("the link did not open: there was no answer in time, or the connection was closed")
    if isinstance(error, ConnectionClosed):
        return _ended(error)
    if type(error).__module__.startswith(("trio_websocket", "wsproto")):
        return LinkEnded(f"the WebSocket failed: {reason_of(error)}")
    return error


def reason_of(error: Exception) -> str:
    """Say what went wrong. Some errors are empty; then the reason, such as that of a certificate, is in their cause."""
    cause: BaseException | None = error
    while cause is not None:
        if said := getattr(cause, "strerror", None) or str(cause):
            return str(said)
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__
