"""One client's connection, as every lane of the door sees it: whole requests out of it, answers into it, an end to it.

Rules:
- Every wait for the client has a deadline: for the first byte of a request (idle), for the rest of its head, for its
  body, for each write, for its goodbye.
- A lane asks for the next request only when the answer to the one before is out. So an error answer can never land in
  the middle of another answer, and a client that sends without reading is held back by TCP.
- What was received and will not be read any more is let go at once: by a refusal, before its lingering close, and by
  the end. Anybody can make us hold a large body, and nobody may make us hold it longer than its room is taken.
- A refusal (`Refused`) ends the connection: the answer, then a lingering close. Closing a socket with something unread
  resets the connection, and the reset can overtake the answer; so the writing side is shut, and what still comes is
  read and dropped until the client closes, for a bounded time and a bounded number of bytes.
- `cut` ends whatever waits for the client at once, also a write that is shielded from cancellation: that is why it
  closes the socket. It resets the connection, so that no client takes half an answer for a whole one.
- After `cut`, or once the client is gone, writing raises BrokenResourceError, and always after a checkpoint: a loop
  that only writes to a dead client must not starve everyone else.
"""

from __future__ import annotations

import socket
import struct
from contextlib import suppress

import msgspec
import trio

from server import bounds
from server.http.admission import BodyMemory
from server.http.date import head_end
from server.http.messages import Refused, RequestHead, Response, http_bytes
from server.http.request_parser import IncomingRequest, RequestParser

Address = tuple[str, int]
"""Host and port."""

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_RESET = struct.pack("ii", 1, 0)


class HttpBounds(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of the door and its connections. The defaults are the ones that hold; tests have shorter ones.

    `connections_max` is in all; None: what the process's file limit leaves after `files_reserved`.
    """

    listen_backlog: int = bounds.LISTEN_BACKLOG
    connections_per_address_max: int = bounds.CONNECTIONS_PER_ADDRESS_MAX
    connections_max: int | None = None
    files_reserved: int = bounds.DOOR_RESERVED_FILES
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


class Stalled(trio.BrokenResourceError):
    """The client did not read for so long that its connection was cut."""


class Connection:
    """One client's connection. `closing`: the answer that comes next is the last; `gone`: there is no client any more;
    `stalled`: because it did not read. `group` is what is counted as one client (`server.http.admission`). `idle`
    ends the wait for the next request, None while there is none.
    """

    __slots__ = (
        "_body", "_bounds", "_inspector", "_request", "_reserved", "_room", "_to_head", "closing", "gone", "group",
        "idle", "own", "peer", "stalled", "stream",
    )  # fmt: skip

    def __init__(
        self,
        stream: trio.SocketStream,
        peer: Address,
        own: Address,
        group: str,
        http_bounds: HttpBounds,
        room: BodyMemory,
    ) -> None:
        self.stream = stream
        self.peer = peer
        self.own = own
        self.group = group
        self.closing = False
        self.gone = False
        self.stalled = False
        self._bounds = http_bounds
        self._room = room
        self._reserved = 0
        self._inspector = RequestParser(http_bounds.head_bytes_max, http_bounds.body_bytes_max)
        self._request: IncomingRequest | None = None
        self._body: bytes | None = None
        self._to_head = False
        self.idle: trio.CancelScope | None = None

    # Requests

    @property
    def is_blank(self) -> bool:
        """Whether nothing at all of what follows the last request is here."""
        return self._request is None and self._inspector.held == 0

    @property
    def has_request(self) -> bool:
        """Whether a request was read that no lane has taken."""
        return self._request is not None

    @property
    def idle_seconds_max(self) -> float:
        """How long it may be without a request."""
        return self._bounds.idle_seconds_max

    def read_nowait(self, data: bytes) -> tuple[IncomingRequest, bytes] | None:
        """Take in what somebody else read from the socket; give the request with its body if all of it is here now.

        It stays the request that was read last, until a lane takes it. Raises `Refused`.
        """
        assert self._request is None
        self._inspector.receive(data)
        inbound = self._inspector.next_head()
        if inbound is None:
            return None
        self._request = inbound
        self._to_head = inbound.head.method == "HEAD"
        self._body = self._inspector.next_body()
        return None if self._body is None else (inbound, self._body)

    async def read_head(self) -> bool:
        """Read the head of the next request into `request`. False: the client is done, or too slow to begin, or we are.

        Raises `Refused`.
        """
        assert self._request is None, "a lane takes a request before the next one is read"
        self._to_head = False
        if not await self._wait_for_request():
            return False
        # Nearly always all of it is here, and then no deadline is needed, which costs more than the head itself.
        inbound = self._inspector.next_head()
        if inbound is None:
            inbound = await self._wait_for_head()
        self._request = inbound
        self._to_head = inbound.head.method == "HEAD"
        return True

    async def _wait_for_head(self) -> IncomingRequest:
        with trio.move_on_after(self._bounds.head_seconds_max):
            while (inbound := self._inspector.next_head()) is None:
                await self._receive("The connection was closed before the head of the request was complete.")
            return inbound
        raise Refused(408, "INVALID_REQUEST", "The head of the request did not come in time.")

    @property
    def request(self) -> IncomingRequest:
        """The request that was read last, and that no lane has taken yet."""
        assert self._request is not None
        return self._request

    def take_request(self) -> IncomingRequest:
        """Take over the request that was read last. What it holds is then the lane's alone to keep."""
        inbound = self.request
        self._request = None
        return inbound

    def drop_request(self) -> None:
        """Forget the request that was read last, body and all: it is answered from what was made of it."""
        self._request = self._body = None

    def take_stream(self) -> tuple[trio.SocketStream, RequestHead]:
        """Take over request and stream, for a lane that goes on by itself; `head.rest` is what came after the head."""
        head = msgspec.structs.replace(self.take_request().head, rest=self._inspector.take_rest())
        del self._inspector  # nobody reads requests here any more, and there may be tens of thousands of these
        return self.stream, head

    async def read_body(self, inbound: IncomingRequest) -> bytes:
        """Read the whole body of the request that was read last. Raises `Refused`.

        A large one takes up room until `release_body`.
        """
        body, self._body = self._body, None
        if body is None:
            body = self._inspector.next_body()
        if body is not None:
            return body
        with trio.move_on_after(self._bounds.body_seconds_max):
            if inbound.expects_continue and not self._inspector.held:
                await self.send(_CONTINUE)
            while body is None:
                await self._receive("The connection was closed before the body of the request was complete.")
                body = self._inspector.next_body()
                held = self._inspector.held if body is None else len(body)
                self._reserved = self._room.change(self.group, self._reserved, held)
            return body
        raise Refused(408, "INVALID_REQUEST", "The body of the request did not come in time.")

    def release_body(self) -> None:
        """Give back the room of the body that was read last."""
        self._reserved = self._room.change(self.group, self._reserved, 0)

    async def _wait_for_request(self) -> bool:
        if self._inspector.begun:
            return True
        if self.closing and not self.stream.socket.is_readable():
            return False
        deadline = trio.current_time() + self._bounds.idle_seconds_max
        with trio.CancelScope(deadline=deadline) as self.idle:
            while not self._inspector.begun:
                data = await self.stream.receive_some(bounds.RECEIVE_BYTES)
                if not data:
                    break
                self._inspector.receive(data)
        self.idle = None
        return self._inspector.begun

    async def _receive(self, at_the_end: str) -> None:
        data = await self.stream.receive_some(bounds.RECEIVE_BYTES)
        if not data:
            raise Refused(400, "INVALID_REQUEST", at_the_end)
        self._inspector.receive(data)

    # Answers

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """Write all of it. Raises BrokenResourceError if the client is gone, `Stalled` if it did not read in time."""
        # Each piece has the whole time, so that a long answer may take a slow client longer.
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
        """Raise what `send` raised, for whoever did not hear of it."""
        if self.stalled:
            raise Stalled("the client did not read")
        if self.gone:
            raise trio.BrokenResourceError("the client is gone")

    async def respond(self, response: Response, *, last: bool) -> None:
        """Write a whole answer. Raises as `send` does."""
        await self.send(http_bytes(response, head_end(last=last)))

    async def refuse(self, refusal: Refused) -> None:
        """Give the last answer."""
        # The frames that it went through hold what they had read.
        refusal.__traceback__ = None
        self._forget_input()
        response = refusal.response()
        await self.respond(msgspec.structs.replace(response, omit_body=self._to_head), last=True)
        await self.linger()

    # The end

    async def linger(self) -> None:
        """Say that nothing more comes, and give the client time to take in what did."""
        await self.stream.send_eof()
        dropped = 0
        with trio.move_on_after(self._bounds.linger_seconds_max):
            while dropped < self._bounds.linger_bytes_max:
                data = await self.stream.receive_some(bounds.RECEIVE_BYTES)
                if not data:
                    break
                dropped += len(data)

    def close_soon(self) -> None:
        """Close once the request that is here is answered; at once if there is none."""
        self.closing = True
        self.end_idle()

    def end_idle(self) -> None:
        """End the wait for the next request, if there is none: what can be read came in time, or is the end."""
        if self.idle is not None and not self.gone and not self.stream.socket.is_readable():
            self.idle.cancel()

    def cut(self) -> None:
        """End the connection now. Whoever waits for the client is told that it is gone."""
        self.gone = True
        with suppress(OSError):  # closed already, or in the hands of the live channel
            self.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.stream.socket.close()
        if self.idle is not None:
            self.idle.cancel()  # one that is parked does not wait for its socket itself

    def close(self) -> None:
        """Give back what the connection holds. May be called more than once."""
        self.gone = True
        self._forget_input()
        self.stream.socket.close()

    def _forget_input(self) -> None:
        self.release_body()
        self.drop_request()
        with suppress(AttributeError):  # a viewer has no inspector any more
            self._inspector.drop()
