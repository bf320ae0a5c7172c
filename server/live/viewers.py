"""Viewers: the state of each, what it is still to be sent, and how many there may be.

There are tens of thousands, nearly always idle. An idle viewer costs this object, its socket, and a slot in its
audience (`server.live.audience`). It has no task, no buffer and no queue. `lines` is None until it asks for something.

A viewer is owed, in this order:

    rest       the rest of a frame of which its socket took a part; shares the frame's bytes
    control    one control frame, the latest: a close, a pong or a ping
    edition    the last published edition, if it has an older one
    lines      refusals of what it asked for, and the messages about single users (`server.live.lines`)

Rules:
- A frame of which a part was sent is finished first. A frame of which nothing was sent is forgotten: a newer one will
  follow (latest wins). So a slow viewer holds at most one frame, even if it sends pings and never reads the pongs.
- Only one task writes to a viewer: while `busy` the drain task, otherwise any. Its audience knows when a tick may.
- A broken socket is closed where the fault is found, and disturbs no other viewer.
- A close is the last frame. After it the sending side is shut.
- The viewer owns its file descriptor from the upgrade on; the stream that it came with is left empty.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator

import trio

from server import bounds
from server.access.lease import Lease
from server.http.admission import add_to
from server.http.client_address import address_group
from server.http.websocket import PING, PONG, FrameParser, close_frame, server_frame
from server.live.audience import DELTAS, EVENTS, FRAMES, Audience
from server.live.board_view import BoardView
from server.live.editions import AnyChannel, AnyEdition
from server.live.lines import ViewerLines

_PING = server_frame(PING, b"")
_RESET = struct.pack("ii", 1, 0)


class Viewer:
    """One connected viewer. Times are trio's, in seconds."""

    as_events = False
    """Whether it gets server-sent events, and no frames."""

    ping_seconds = bounds.VIEWER_PING_SECONDS
    """Between two pings."""

    __slots__ = (
        "address",
        "audience",
        "busy",
        "channel",
        "closing",
        "control",
        "deltas",
        "gone",
        "heard",
        "lease",
        "left",
        "lines",
        "on_gone",
        "parser",
        "pinged",
        "rest",
        "said",
        "slot",
        "socket",
        "user_id",
    )  # fmt: skip

    def __init__(
        self, taken: socket.socket, channel: AnyChannel, audience: Audience[Viewer], address: str, now: float, *,
        deltas: bool, lease: Lease | None = None, user_id: str | None = None,
        on_gone: Callable[[Viewer], None] = lambda _viewer: None, left: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        """`lease` says how long the viewer may stay; None: the board is public. `user_id`: the only user it may be.

        `on_gone` is called as its socket is closed, `left` by whoever then lets the viewer go.
        """
        self.on_gone = on_gone
        self.left = left
        self.lease = lease
        self.user_id = user_id
        self.lines: ViewerLines | None = None
        self.socket = taken
        self.channel = channel
        self.address = address
        self.deltas = deltas
        self.parser = FrameParser()
        self.rest: memoryview | None = None
        self.control: bytes | None = None
        self.busy = False
        self.closing = False
        self.gone = False  # whether `hang_up` was called
        self.said = 0  # bytes since our last ping
        self.heard = now
        self.pinged = now
        self.audience = audience
        self.slot = audience.enter(self, taken.fileno(), EVENTS if self.as_events else DELTAS if deltas else FRAMES)

    @property
    def edition(self) -> int:
        """The number of the edition that it has. One that left has none."""
        return self.audience.edition(self.slot)

    @edition.setter
    def edition(self, number: int) -> None:
        self.audience.has(self.slot, number)

    def begin(self, response: bytes, edition: AnyEdition, *, known: bool = False) -> None:
        """Owe the answer to the handshake and the first edition, as one write. `known`: it has this edition already."""
        first = b"" if known else edition.for_viewer(self.edition, deltas=self.deltas, as_event=self.as_events).frame
        self.rest = memoryview(response + first)
        self.edition = edition.number

    def read(self, count: int) -> bytes | None:
        """Read up to `count` bytes of what came: None if nothing did, empty at the end. Raises OSError."""
        try:
            return self.socket.recv(count)
        except BlockingIOError:
            return None

    def hold(self) -> None:
        """Leave all writing to one task."""
        self.busy = True
        self.audience.bar(self.slot)

    def release(self) -> None:
        """Let any task write again."""
        self.busy = False
        if not self.closing and not self.gone:
            self.audience.allow(self.slot, self.socket.fileno())

    def show(self, number: int, frame: bytes) -> bool:
        """Write an edition to a viewer that is not busy. False: the socket is full. Raises OSError."""
        try:
            taken = self.socket.send(frame)
        except BlockingIOError:
            return False
        self.edition = number
        if taken == len(frame):
            return True
        self.rest = memoryview(frame)[taken:]
        return False

    def ping(self, now: float) -> None:
        """Owe a ping, unless another control frame waits: that one shows as well whether the viewer reads."""
        self.pinged = now
        self.said = 0
        if self.control is None and not self.closing:
            self.control = _PING

    def pong(self, payload: bytes) -> None:
        """Owe the answer to a ping. Only the latest ping has to be answered (RFC 6455, 5.5.3)."""
        if not self.closing:
            self.control = server_frame(PONG, payload)

    def close(self, code: int | None, reason: str = "") -> None:
        """Owe a close frame, once."""
        if not self.closing:
            self._close(close_frame(code, reason))

    def _close(self, last: bytes) -> None:
        self.closing = True
        self.audience.bar(self.slot)
        self.control = last

    def push(self, edition: AnyEdition | None = None) -> bool:
        """Write all that is owed, `edition` included. False: the socket is full. Raises OSError.

        Only the drain task gives an edition; other viewers get it at the next tick.
        """
        if self.rest is not None and not self._write(self.rest):
            return False
        if self.control is not None:
            control, self.control = self.control, None
            if not self._write(control):
                return False
        if self.closing:
            self.socket.shutdown(socket.SHUT_WR)
            return True
        if edition is not None and self.edition < edition.number:
            frame = edition.for_viewer(self.edition, deltas=self.deltas, as_event=self.as_events).frame
            if not self.show(edition.number, frame):
                return False
        return self.lines is None or self._write_lines(self.lines)

    def _write_lines(self, lines: ViewerLines) -> bool:
        """Write the messages of lines. One of which the socket took nothing stays owed, and a newer one replaces it."""
        while (frame := lines.first()) is not None:
            try:
                taken = self.socket.send(frame)
            except BlockingIOError:
                return False
            lines.wrote()
            if taken != len(frame):
                self.rest = memoryview(frame)[taken:]
                return False
        return True

    def hang_up(self, *, abort: bool = False) -> None:
        """Close the socket and wake who waits for it. `abort` also drops what is in the kernel's buffer.

        May be called more than once.
        """
        if self.gone:
            return
        self.gone = True
        self.audience.bar(self.slot)
        self.on_gone(self)
        if abort:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        trio.lowlevel.notify_closing(self.socket)
        self.socket.close()

    def _write(self, data: bytes | memoryview) -> bool:
        """Write a frame, or the rest of one, and keep what the socket did not take."""
        try:
            taken = self.socket.send(data)
        except BlockingIOError:
            taken = 0
        self.rest = None if taken == len(data) else memoryview(data)[taken:]
        return self.rest is None


def take_over(stream: trio.SocketStream) -> socket.socket:
    """Take the connection out of a stream, as a plain non-blocking socket.

    A Trio socket is written to with `await`, and an await for each viewer would make a tick slow.
    """
    wrapped = stream.socket
    family, kind, number = wrapped.family, wrapped.type, wrapped.proto
    taken = socket.socket(family, kind, number, fileno=wrapped.detach())
    taken.setblocking(False)
    return taken


class Viewers:
    """The connected viewers, and the places for them: in all, and for each client (`address_group`).

    A place is reserved before the upgrade and released when the viewer is gone. Fewer places send nobody away: then
    nobody comes until enough have gone.
    """

    def __init__(self, places: int, places_per_address: int) -> None:
        self.places = places
        self.places_per_address = places_per_address
        self._reserved = 0
        self._by_group: dict[str, int] = {}
        self._audiences: dict[BoardView, Audience[Viewer]] = {}

    def __len__(self) -> int:
        """Count the viewers."""
        return sum(audience.count for audience in self._audiences.values())

    def __iter__(self) -> Iterator[Viewer]:
        """Give the viewers."""
        for audience in self._audiences.values():
            yield from audience

    def fault(self, address: str) -> str | None:
        """Say why there is no place for another viewer of this address, None if there is one."""
        if self._reserved >= self.places:
            return "There are as many viewers as this server takes."
        if self._by_group.get(address_group(address), 0) >= self.places_per_address:
            return "There are as many viewers from this address as this server takes."
        return None

    def reserve(self, address: str) -> None:
        """Take a place; there must be one."""
        assert self.fault(address) is None
        self._reserved += 1
        add_to(self._by_group, address_group(address), 1)

    def release(self, address: str) -> None:
        """Give a place back."""
        self._reserved -= 1
        add_to(self._by_group, address_group(address), -1)

    def audience(self, view: BoardView) -> Audience[Viewer]:
        """Give the audience of a view. A viewer that has a place joins by being made for it."""
        audience = self._audiences.get(view)
        if audience is None:
            audience = self._audiences[view] = Audience()
        return audience

    def leave(self, viewer: Viewer) -> None:
        """Remove a viewer that is gone, and release its place."""
        viewer.audience.leave(viewer.slot)
        self.release(viewer.address)

    def everyone(self) -> list[Viewer]:
        return list(self)

    def count(self, view: BoardView) -> int:
        """Count the viewers of a view."""
        audience = self._audiences.get(view)
        return 0 if audience is None else audience.count

    def _check(self) -> None:
        assert self._reserved == sum(self._by_group.values())
        assert len(self) <= self._reserved
        assert all(count > 0 for count in self._by_group.values())
        for audience in self._audiences.values():
            audience._check()
            for slot, viewer in enumerate(audience.viewers):
                assert viewer is None or (viewer.audience is audience and viewer.slot == slot)


def places_for(max_viewers: int, files_max: int | None, files_reserved: int) -> int:
    """Say how many viewers there may be when the process may open `files_max` files (None: no limit)."""
    return max_viewers if files_max is None else max(0, min(max_viewers, files_max - files_reserved))
