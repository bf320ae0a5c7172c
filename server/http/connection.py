"""One client's connection, the same for every lane: reads requests, writes answers, and ends.

    while await connection.read_head():
        inbound = connection.take_request()
        body = await connection.read_body(inbound)      # then release_body()
        await connection.respond(response, last=False)

Rules:
- Every wait for the client has a deadline: for the first byte of a request (idle), for the rest of its head, for its
  body, for each write and for its close.
- A lane reads the next request only after the answer to the last one was written. So an error answer is never sent in
  the middle of another answer, and TCP holds back a client that sends without reading.
- A refusal, before its lingering close, and the end drop what was received. So a large body is never held longer than
  its memory is counted.
- A refusal (`Refused`) ends the connection: the answer, then a lingering close. To close a socket with unread data
  resets the connection, and the reset can overtake the answer. So the writing side is shut; then data is read and
  dropped until the client closes, for a bounded time and a bounded number of bytes.
- `cut` closes the socket and so ends every wait for the client at once, even a write that is shielded from
  cancellation. It resets the connection, so that no client takes half an answer for a whole one.
- After `cut`, or once the client is gone, writing raises BrokenResourceError after a checkpoint: a loop that writes to
  a client that is gone must not starve other tasks.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

import msgspec
import trio

from server import bounds
from server.http.admission import BodyMemory
from server.http.messages import Refused, RequestHead, Response
from server.http.request_parser import IncomingRequest, RequestParser
from server.http.response_head import head_end, http_bytes
from server.settings.http import HttpConfig

T = TypeVar("T")

Address = tuple[str, int]
"""Host and port."""

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_RESET = struct.pack("ii", 1, 0)


class HttpBounds(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of the listener and its connections. Tests change the defaults.

    `connections_max` None: what the process's file limit leaves after `files_reserved`.
    """

    listen_backlog: int = bounds.LISTEN_BACKLOG
    connections_per_address_max: int = bounds.CONNECTIONS_PER_ADDRESS_MAX
    connections_max: int | None = None
    files_reserved: int = bounds.LISTENER_RESERVED_FILES
    turned_away_max: int = bounds.TURNED_AWAY_MAX
    head_bytes_max: int = bounds.HEAD_BYTES_MAX
    head_seconds_max: float = bounds.HEAD_SECONDS_MAX
    idle_seconds_max: float = bounds.IDLE_SECONDS_MAX
    body_bytes_max: int = bounds.BODY_BYTES_MAX
    body_seconds_max: float = bounds.BODY_SECONDS_MAX
    bodies_bytes_max: int = bounds.BODIES_BYTES_MAX
    bodies_per_address_bytes_max: int = bounds.BODIES_PER_ADDRESS_BYTES_MAX
    send_seconds_max: float = bounds.SEND_SECONDS_MAX
    linger_seconds_max: float = bounds.LINGER_SECONDS_MAX
    linger_bytes_max: int = bounds.LINGER_BYTES_MAX
    accept_pause_seconds: float = bounds.ACCEPT_PAUSE_SECONDS
    startup_seconds_max: float = bounds.STARTUP_SECONDS_MAX

    @classmethod
    def of(cls, http: HttpConfig) -> HttpBounds:
        """Take the deadlines of a configuration."""
        return cls(
            idle_seconds_max=float(http.idle_seconds),
            head_seconds_max=float(http.head_seconds),
            body_seconds_max=float(http.body_seconds),
            send_seconds_max=float(http.send_seconds),
        )


class Stalled(trio.BrokenResourceError):
    """The connection was cut because the client did not read in time."""


class Connection:
    """`closing`: the next answer is the last. `gone`: the client is gone; `stalled`: because it did not read. `taken`:
    it is a viewer's now.

    `group` is what is counted as one client (`server.http.admission`). `idle` ends the wait for the next request, None
    while there is no wait.
    """

    __slots__ = (
        "_body", "_body_memory", "_bounds", "_parser", "_request", "_reserved", "_to_head", "closing", "gone", "group",
        "idle", "own", "peer", "stalled", "stream", "taken",
    )  # fmt: skip

    def __init__(
        self,
        stream: trio.SocketStream,
        peer: Address,
        own: Address,
        group: str,
        http_bounds: HttpBounds,
        body_memory: BodyMemory,
    ) -> None:
        self.stream = stream
        self.peer = peer
        self.own = own
        self.group = group
        self.closing = False
        self.gone = False
        self.stalled = False
        self.taken = False
        self._bounds = http_bounds
        self._body_memory = body_memory
        self._reserved = 0
        self._parser = RequestParser(http_bounds.head_bytes_max, http_bounds.body_bytes_max)
        self._request: IncomingRequest | None = None
        self._body: bytes | None = None
        self._to_head = False
        self.idle: trio.CancelScope | None = None

    # Requests

    @property
    def is_blank(self) -> bool:
        """Whether no byte after the last request is here."""
        return self._request is None and self._parser.held == 0

    @property
    def has_request(self) -> bool:
        """Whether a request was read and not taken."""
        return self._request is not None

    @property
    def idle_seconds_max(self) -> float:
        return self._bounds.idle_seconds_max

    def read_nowait(self, data: bytes) -> tuple[IncomingRequest, bytes] | None:
        """Take in what the express loop read from the socket; give the request and its body once they are complete.

        The request stays here until a lane takes it. Raises `Refused`.
        """
        assert self._request is None
        self._parser.receive(data)
        inbound = self._parser.next_head()
        if inbound is None:
            return None
        self._note(inbound)
        self._body = self._parser.next_body()
        return None if self._body is None else (inbound, self._body)

    async def read_head(self) -> bool:
        """Read the head of the next request into `request`. Raises `Refused`.

        False: there is no next request, because the client closed or was idle too long, or because we close.
        """
        assert self._request is None, "a lane takes a request before the next one is read"
        self._to_head = False
        if not await self._wait_for_request():
            return False
        # Nearly always the whole head is here. Then no deadline is set, which would cost more than the head itself.
        self._note(self._parser.next_head() or await self._wait_for_head())
        return True

    def _note(self, inbound: IncomingRequest) -> None:
        self._request = inbound
        self._to_head = inbound.head.method == "HEAD"

    async def _wait_for_head(self) -> IncomingRequest:
        with trio.move_on_after(self._bounds.head_seconds_max):
            while (inbound := self._parser.next_head()) is None:
                await self._receive("The connection was closed before the head of the request was complete.")
            return inbound
        raise Refused(408, "INVALID_REQUEST", "The head of the request did not come in time.")

    @property
    def request(self) -> IncomingRequest:
        """The request that was read last and not taken."""
        assert self._request is not None
        return self._request

    def take_request(self) -> IncomingRequest:
        """Take over the request that was read last; the connection keeps nothing of it."""
        inbound = self.request
        self._request = None
        return inbound

    def drop_request(self) -> None:
        """Forget the request that was read last, and its body."""
        self._request = self._body = None

    def take_stream(self) -> tuple[trio.SocketStream, RequestHead]:
        """Take over request and stream, for a lane that reads on by itself; `head.rest` is what came after the head."""
        head = msgspec.structs.replace(self.take_request().head, rest=self._parser.take_rest())
        del self._parser  # not needed any more, and there may be tens of thousands of viewers
        return self.stream, head

    async def read_body(self, inbound: IncomingRequest) -> bytes:
        """Read the whole body of the last request. A large one is counted until `release_body`. Raises `Refused`."""
        body, self._body = self._body, None
        if body is None:
            body = self._parser.next_body()
        if body is not None:
            return body
        with trio.move_on_after(self._bounds.body_seconds_max):
            if inbound.expects_continue and not self._parser.held:
                await self.send(_CONTINUE)
            while body is None:
                await self._receive("The connection was closed before the body of the request was complete.")
                body = self._parser.next_body()
                held = self._parser.held if body is None else len(body)
                self._reserved = self._body_memory.change(self.group, self._reserved, held)
            return body
        raise Refused(408, "INVALID_REQUEST", "The body of the request did not come in time.")

    def release_body(self) -> None:
        """Stop counting the memory of the last body."""
        self._reserved = self._body_memory.change(self.group, self._reserved, 0)

    async def _wait_for_request(self) -> bool:
        if self._parser.begun:
            return True
        if self.closing and not self.stream.socket.is_readable():
            return False
        deadline = trio.current_time() + self._bounds.idle_seconds_max
        with trio.CancelScope(deadline=deadline) as self.idle:
            while not self._parser.begun:
                data = await self.stream.receive_some(bounds.RECEIVE_BYTES)
                if not data:
                    break
                self._parser.receive(data)
        self.idle = None
        return self._parser.begun

    async def _receive(self, at_the_end: str) -> None:
        data = await self.stream.receive_some(bounds.RECEIVE_BYTES)
        if not data:
            raise Refused(400, "INVALID_REQUEST", at_the_end)
        self._parser.receive(data)

    # Answers

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """Write all data. Raises BrokenResourceError if the client is gone, `Stalled` if it did not read in time."""
        # The deadline is for each piece, so that a slow client has more time for a long answer.
        rest = memoryview(data)
        while rest:
            piece, rest = rest[: bounds.SEND_BYTES], rest[bounds.SEND_BYTES :]
            await self._send_piece(piece)

    async def _send_piece(self, piece: memoryview) -> None:
        if self.gone:
            await trio.lowlevel.checkpoint()
            raise trio.BrokenResourceError("the connection is closed")
        with trio.move_on_after(self._bounds.send_seconds_max) as deadline:
            try:
                await self.stream.send_all(piece)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                self.gone = True
                await trio.lowlevel.checkpoint()
                raise trio.BrokenResourceError("the client is gone") from error
        if deadline.cancelled_caught:
            self.stalled = True
            self.cut()
            raise Stalled("the client does not read")

    def check(self) -> None:
        """Raise again what `send` raised, in case its caller kept it to itself."""
        if self.stalled:
            raise Stalled("the client did not read")
        if self.gone:
            raise trio.BrokenResourceError("the client is gone")

    async def respond(self, response: Response, *, last: bool) -> None:
        """Write a whole answer. Raises as `send` does."""
        await self.send(http_bytes(response, head_end(last=last)))

    async def refuse(self, refusal: Refused) -> None:
        """Write a refusal as the last answer, and close."""
        refusal.__traceback__ = None  # its frames hold what they had read
        self._forget_input()
        response = refusal.response()
        await self.respond(msgspec.structs.replace(response, omit_body=self._to_head), last=True)
        await self.linger()

    async def while_open(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do some work that takes long; cancel it when the client closes its side. Raises BrokenResourceError then."""
        result: list[T] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, nursery.cancel_scope)
            result.append(await work())
            nursery.cancel_scope.cancel()
        if not result:
            self.gone = True
            raise trio.BrokenResourceError("the client is gone")
        return result[0]

    async def _watch(self, scope: trio.CancelScope) -> None:
        """Cancel when the client closes; return if it sends the next request before that."""
        try:
            data = await self.stream.socket.recv(1, socket.MSG_PEEK)
        except OSError:
            data = b""
        if not data:
            scope.cancel()

    # The end

    async def linger(self) -> None:
        """Shut the writing side, and give the client time to read the rest and close."""
        await self.stream.send_eof()
        dropped = 0
        with trio.move_on_after(self._bounds.linger_seconds_max):
            while dropped < self._bounds.linger_bytes_max:
                data = await self.stream.receive_some(bounds.RECEIVE_BYTES)
                if not data:
                    break
                dropped += len(data)

    def close_soon(self) -> None:
        """Close after the answer to the current request; at once if there is none."""
        self.closing = True
        self.end_idle()

    def end_idle(self) -> None:
        """End the wait for the next request, unless there is data to read: that came in time."""
        if self.idle is not None and not self.gone and not self.stream.socket.is_readable():
            self.idle.cancel()

    def cut(self) -> None:
        """End the connection now. Each wait for the client raises."""
        self.gone = True
        with suppress(OSError):  # closed already, or in the hands of the live channel
            self.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.stream.socket.close()
        if self.idle is not None:
            self.idle.cancel()  # a parked connection's task does not wait for its socket

    def close(self) -> None:
        """Close the socket and drop what the connection holds. May be called more than once."""
        self.gone = True
        self._forget_input()
        self.stream.socket.close()

    def _forget_input(self) -> None:
        self.release_body()
        self.drop_request()
        with suppress(AttributeError):  # a viewer has no parser any more
            self._parser.drop()
