"""Viewers: what the server keeps of each, what it owes it, and how many there may be.

There are tens of thousands of them, nearly always idle, so what counts is what an idle one costs: this object, its
socket, and one task that waits until the socket is readable. It has no buffer and no queue.

What a viewer is owed, in the order in which it is written:

    rest       what its socket did not take of a frame that it began to take      shares that frame's bytes
    control    one control frame: a close, a pong or a ping, the latest that was wanted
    edition    the last published edition, if it has an older one

Theory of operation of a tick: `show_all` is the one loop that runs for every viewer and every change, so it is written
for what it costs. Nearly all viewers of a board have the same edition and want the same format, so the message is
looked up again only where one differs from the viewer before it. What is left for each is a few attributes and `send`.
Viewers are gone through in the order in which they came, which is roughly that in which they lie in memory.

Rules:
- A frame that was begun is finished before anything else is written. One of which nothing was taken is forgotten: when
  the socket has room again there is a newer one (latest wins). So a slow viewer holds back at most one frame, and
  pings that it sends without reading the pongs add up to nothing.
- Only one writes: as long as `busy`, the task that waits for room; otherwise whoever has something to write.
- One viewer's broken socket is hung up on where it is found; nobody else hears of it.
- A close is the last frame. After it the sending side is shut and the viewer is shown nothing more.
- The viewer owns its file descriptor from the upgrade on; the stream that it came with is left empty.
"""

from __future__ import annotations

import socket
import struct
from collections import Counter
from collections.abc import Iterable

import trio

from server.http.client_address import address_group
from server.http.websocket import PING, PONG, FrameParser, close_frame, server_frame
from server.live.editions import NO_EDITION, Channel, Edition

_PING = server_frame(PING, b"")
_LINGER_NOT = struct.pack("ii", 1, 0)


class Viewer:
    """One connected viewer. Times are trio's, in seconds."""

    __slots__ = (
        "address",
        "busy",
        "channel",
        "closing",
        "control",
        "deltas",
        "edition",
        "gone",
        "heard",
        "parser",
        "pinged",
        "rest",
        "said",
        "socket",
    )

    def __init__(self, taken: socket.socket, channel: Channel, address: str, now: float, *, deltas: bool) -> None:
        self.socket = taken
        self.channel = channel
        self.address = address
        self.deltas = deltas
        self.parser = FrameParser()
        self.edition = NO_EDITION
        self.rest: memoryview | None = None
        self.control: bytes | None = None
        self.busy = False
        self.closing = False
        self.gone = False  # whether `hang_up` was called
        self.said = 0  # bytes since our last ping
        self.heard = now
        self.pinged = now

    def begin(self, response: bytes, edition: Edition) -> None:
        """Owe the answer to the handshake and the first edition, as one write."""
        self.rest = memoryview(response + edition.snapshot().frame)
        self.edition = edition.number

    def read(self, count: int) -> bytes | None:
        """Read up to `count` bytes of what came: None if nothing did, empty at the end. Raises OSError."""
        try:
            return self.socket.recv(count)
        except BlockingIOError:
            return None

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
        """Owe a ping, unless another control frame waits, which says as much."""
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
            self.closing = True
            self.control = close_frame(code, reason)

    def push(self, edition: Edition | None = None) -> bool:
        """Write what is owed until nothing is. False: the socket is full before that. Raises OSError.

        An edition is only owed after a full socket; otherwise the next tick brings it.
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
        if edition is None or self.edition >= edition.number:
            return True
        return self.show(edition.number, edition.for_viewer(self.edition, deltas=self.deltas).frame)

    def hang_up(self, *, abort: bool = False) -> None:
        """End the connection and wake whoever waits for its socket; `abort` drops what is still in the kernel's buffer.

        May be called more than once.
        """
        if self.gone:
            return
        self.gone = True
        if abort:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        trio.lowlevel.notify_closing(self.socket)
        self.socket.close()

    def _write(self, data: bytes | memoryview) -> bool:
        """Write a frame, or the rest of one, and keep what was not taken."""
        try:
            taken = self.socket.send(data)
        except BlockingIOError:
            taken = 0
        self.rest = None if taken == len(data) else memoryview(data)[taken:]
        return self.rest is None


def show_all(viewers: Iterable[Viewer], edition: Edition, shown: Counter[str]) -> list[Viewer]:
    """Write an edition to each of these viewers who has an older one and is not busy, closing or gone.

    Counts in `shown` to how many each kind of message was written. Gives those whose sockets are full: each has to be
    waited for.
    """
    number = edition.number
    has: int | None = None
    deltas, kind, frame, length, count = False, "", b"", 0, 0
    full: list[Viewer] = []
    for viewer in viewers:
        if viewer.busy or viewer.closing or viewer.gone:
            continue
        if viewer.edition != has or viewer.deltas is not deltas:
            if viewer.edition >= number:
                continue
            if count:
                shown[kind] += count
            has, deltas, count = viewer.edition, viewer.deltas, 0
            message = edition.for_viewer(has, deltas=deltas)
            kind, frame, length = message.kind, message.frame, len(message.frame)
        try:
            taken = viewer.socket.send(frame)
        except BlockingIOError:
            full.append(viewer)
            continue
        except OSError:
            viewer.hang_up()
            continue
        viewer.edition = number
        count += 1
        if taken != length:
            viewer.rest = memoryview(frame)[taken:]
            full.append(viewer)
    if count:
        shown[kind] += count
    return full


def take_over(stream: trio.SocketStream) -> socket.socket:
    """Take the connection out of a stream, as a plain non-blocking socket.

    Trio's own sockets are only written to with `await`; one await for each viewer is what makes a tick slow.
    """
    wrapped = stream.socket
    family, kind, number = wrapped.family, wrapped.type, wrapped.proto
    taken = socket.socket(family, kind, number, fileno=wrapped.detach())
    taken.setblocking(False)
    return taken


class Viewers:
    """Who is connected, and for how many more there is room.

    A place is reserved before the upgrade and given back when the viewer is gone, so callers between the two count. An
    address is counted as the door does (`address_group`): whoever holds one IPv6 address holds 2^64 of them.
    """

    def __init__(self, places: int, places_per_address: int) -> None:
        self.places = places
        self.places_per_address = places_per_address
        self._reserved = 0
        self._by_group: dict[str, int] = {}
        # Sets that keep their order, the order of a tick (see above).
        self._joined: dict[Viewer, None] = {}
        self._by_board: dict[str, dict[Viewer, None]] = {}

    def __len__(self) -> int:
        """Count those who joined."""
        return len(self._joined)

    def fault(self, address: str) -> str | None:
        """Say why there is no room for another viewer of this address, None if there is."""
        if self._reserved >= self.places:
            return "There are as many viewers as this server takes."
        if self._by_group.get(address_group(address), 0) >= self.places_per_address:
            return "There are as many viewers from this address as this server takes."
        return None

    def reserve(self, address: str) -> None:
        """Take a place; there must be room."""
        assert self.fault(address) is None
        self._reserved += 1
        group = address_group(address)
        self._by_group[group] = self._by_group.get(group, 0) + 1

    def release(self, address: str) -> None:
        """Give a place back."""
        self._reserved -= 1
        group = address_group(address)
        left = self._by_group[group] - 1
        if left:
            self._by_group[group] = left
        else:
            del self._by_group[group]

    def join(self, viewer: Viewer) -> None:
        """Count a viewer in, for whom a place is reserved."""
        self._joined[viewer] = None
        self._by_board.setdefault(viewer.channel.board_id, {})[viewer] = None

    def leave(self, viewer: Viewer) -> None:
        """Count a viewer out and give its place back."""
        del self._joined[viewer]
        del self._by_board[viewer.channel.board_id][viewer]
        self.release(viewer.address)

    def everyone(self) -> list[Viewer]:
        """List those who are here now, in the order in which they came."""
        return list(self._joined)

    def of_board(self, board_id: str) -> list[Viewer]:
        """List those who watch a board now, in the order in which they came."""
        return list(self._by_board.get(board_id, ()))

    def _check(self) -> None:
        assert self._reserved == sum(self._by_group.values()) <= self.places
        assert len(self._joined) <= self._reserved
        assert all(0 < count <= self.places_per_address for count in self._by_group.values())
        assert self._joined.keys() == {viewer for viewers in self._by_board.values() for viewer in viewers}
        assert len(self._joined) == sum(len(viewers) for viewers in self._by_board.values())


def places_for(max_viewers: int, files_max: int | None, files_reserved: int) -> int:
    """Say how many viewers there may be when the process may open `files_max` files (None: any number)."""
    return max_viewers if files_max is None else max(0, min(max_viewers, files_max - files_reserved))
