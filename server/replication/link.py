"""The WebSocket under a replication link, for both sides.

trio-websocket does the protocol. What it leaves to its user is done here: a deadline for every wait, a bound for every
message, and one kind of end. Whatever ends a link, its user sees `LinkEnded`; only cancellation goes through as it is.
One thing goes past it: log that is sent, many messages in one write, since a leader does that all the time.

Rules:
- The accepting side gets a stream from which the door has read the head of the request; it is written anew in front of
  what follows, for trio-websocket to read.
- Closing is polite for LINK_CLOSE_SECONDS_MAX and rude afterwards. No frame waits for that: what was received counts.
- A token is in one header, and in no message of an error.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Sequence
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


class LinkEnded(ScoreboardError):
    """The link is over; `status` is that of an HTTP answer, where that was what came instead of a link."""

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


class LinkTiming(msgspec.Struct, frozen=True, kw_only=True):
    """The times of a link, in seconds. The defaults are the ones that hold; tests have shorter ones."""

    heartbeat_seconds: float = bounds.HEARTBEAT_SECONDS
    silence_seconds_max: float = bounds.LINK_SILENCE_SECONDS_MAX
    open_seconds_max: float = bounds.LINK_OPEN_SECONDS_MAX
    close_seconds_max: float = bounds.LINK_CLOSE_SECONDS_MAX
    lived_seconds: float = bounds.LINK_LIVED_SECONDS


class Link:
    """One side of an open link. Sending and receiving raise `LinkEnded` when it is over.

    `stream` is given on the accepting side, whose frames have no mask: binary messages are written to it directly.
    """

    def __init__(self, socket: WebSocketConnection, stream: trio.abc.SendStream | None = None) -> None:
        self._socket = socket
        self._stream = stream

    async def send(self, message: bytes | str) -> None:
        """Send a message. Waits for as long as the other side does not read: who may not wait that long cancels."""
        try:
            await self._socket.send_message(message)
        except ConnectionClosed as closed:
            raise _ended(closed) from closed

    async def send_all(self, messages: Sequence[bytes]) -> None:
        """Send binary messages, in one write where that can be. Waits as `send` does."""
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
        """Wait for the next message, at most so long."""
        with trio.move_on_after(seconds_max):
            try:
                message: bytes | str = await self._socket.get_message()
            except ConnectionClosed as closed:
                raise _ended(closed) from closed
            return message
        raise LinkEnded(f"nothing was heard for {seconds_max:g} seconds")

    async def close(self, seconds_max: float, code: int = NORMAL_CLOSURE, reason: str = "") -> None:
        """Close politely. Does nothing if the link is closed already."""
        with trio.move_on_after(seconds_max):
            await self._socket.aclose(code, reason or None)


class Endpoint(msgspec.Struct, frozen=True):
    """Where a leader is. `prefix` is what stands before every path, without a slash at its end."""

    host: str
    port: int
    secure: bool
    prefix: str

    @property
    def authority(self) -> str:
        """Host and port as in the header Host."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def url(self, path: str) -> str:
        """The address of a path there."""
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
    ended: Exception | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                with trio.fail_after(timing.open_seconds_max) as opening:
                    socket = await wrap_client_stream(
                        nursery,
                        cast(trio.SocketStream, _Wrapped(stream, b"", opening.cancel)),  # any stream will do
                        leader.authority,
                        leader.prefix + target,
                        extra_headers=headers,
                        message_queue_size=bounds.LINK_MESSAGES_MAX,
                        max_message_size=message_bytes_max,
                        receive_buffer_size=bounds.RECEIVE_BYTES,
                    )
                link = Link(socket)
                yield link
                await link.close(timing.close_seconds_max)
            except Exception as error:
                ended = error  # raised outside, or the nursery would make a group of it
            nursery.cancel_scope.cancel()
    except* Exception as errors:
        ended = first_of(errors)
    finally:
        await trio.aclose_forcefully(stream)
    if ended is not None:
        raise _link_ended(ended)


async def connect(leader: Endpoint, seconds_max: float) -> trio.SocketStream | trio.SSLStream[trio.SocketStream]:
    """Connect within so many seconds; the handshake of TLS is a part of it. Raises `LinkEnded`."""
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
    ended: Exception | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                with trio.fail_after(timing.open_seconds_max) as opening:
                    wrapped = _Wrapped(stream, _head_bytes(head), opening.cancel)
                    request = await wrap_server_stream(
                        nursery,
                        wrapped,
                        message_queue_size=bounds.LINK_MESSAGES_MAX,
                        max_message_size=bounds.FOLLOWER_MESSAGE_BYTES_MAX,
                        receive_buffer_size=bounds.RECEIVE_BYTES,
                    )
                    socket = await request.accept()
                link = Link(socket, wrapped)
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
    """A stream that gives first what was read from it before, and tells when the other side's end was read.

    trio-websocket waits for its handshake also when there is nobody left to answer; so somebody must tell it.
    """

    def __init__(self, stream: trio.abc.Stream, data: bytes, on_end: Callable[[], None]) -> None:
        self._stream = stream
        self._data = data
        self._on_end = on_end
        self._sending = trio.StrictFIFOLock()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Give what was read before, then what comes."""
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
        """Send it: whole, whoever else sends too."""
        async with self._sending:
            await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait for room."""
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close it."""
        await self._stream.aclose()


def _ended(closed: ConnectionClosed) -> LinkEnded:
    reason = closed.reason
    said = "" if reason is None or not reason.reason else f": {reason.reason}"
    return LinkEnded(f"the connection was closed{said}")


def _link_ended(error: Exception) -> Exception:
    """Turn what trio-websocket raises into the one kind of end; what our own side raised stays what it is."""
    error = first_of(error)
    if isinstance(error, ConnectionRejected):
        return LinkEnded(f"the leader refused the link with status {error.status_code}", error.status_code)
    if isinstance(error, trio.TooSlowError):
        return LinkEnded("the link did not open: there was no answer in time, or the connection was closed")
    if isinstance(error, ConnectionClosed):
        return _ended(error)
    if type(error).__module__.startswith(("trio_websocket", "wsproto")):
        return LinkEnded(f"the WebSocket failed: {reason_of(error)}")
    return error


def reason_of(error: Exception) -> str:
    """Say what went wrong: some errors are empty, and the reason, a certificate's say, is in what they came from."""
    cause: BaseException | None = error
    while cause is not None:
        if said := getattr(cause, "strerror", None) or str(cause):
            return str(said)
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__
