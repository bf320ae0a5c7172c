"""Connections between the nodes of a simulated run: they keep the promises of TCP, and no others.

    End ──send──► late, in order, at most WINDOW_BYTES under way ──► End        and the same the other way

Rules:
- Bytes arrive in the order in which they were sent, or not at all. A sender waits when the window is full.
- If a side closes, or its process is killed, the other side reads what was sent, and then the end.
- If the power of a side is cut, the other side hears nothing, and may wait for ever.
- A cut line loses what is under way, and both sides notice at once. A stall delivers nothing, and no side notices.
- A process that has ended neither sends nor reads: it gets `Crash`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Protocol

import trio

from tests.sim.disk import Crash

WINDOW_BYTES = 16_384


class Weather(Protocol):
    """Decides when pieces arrive, and when a line is cut or stalls."""

    def delay_s(self) -> float:
        """Give how long a piece is under way."""

    def befall(self, line: Line) -> None:
        """Called before a piece is sent: cut the line, stall it, or do nothing."""


class Line:
    """A connection. `ends` are the side that opened it, and the other side."""

    def __init__(self, weather: Weather, caller: Callable[[], bool], called: Callable[[], bool]) -> None:
        """`caller` and `called` tell whether the process on that side still runs."""
        self.weather = weather
        self.is_cut = False
        self.stalled_until_s = 0.0
        self.ends = (End(self, caller), End(self, called))
        self.ends[0].other, self.ends[1].other = self.ends[1], self.ends[0]

    def cut(self) -> None:
        """End it for both sides, and lose what is under way."""
        self.is_cut = True
        self.wake()

    def stall(self, seconds: float) -> None:
        """Let nothing arrive for this time."""
        self.stalled_until_s = max(self.stalled_until_s, trio.current_time() + seconds)

    def wake(self) -> None:
        """Wake every waiting task."""
        for end in self.ends:
            end.changed.unpark_all()


class End(trio.abc.HalfCloseableStream):
    """One side of a line: a stream. It is its own socket too, because a server's connection asks for one."""

    other: End

    def __init__(self, line: Line, alive: Callable[[], bool]) -> None:
        self.changed = trio.lowlevel.ParkingLot()
        self.closed = False
        self._line = line
        self._alive = alive
        self._under_way: deque[tuple[float, bytes]] = deque()
        self._bytes = 0
        self._last_s = 0.0
        self._vanished = False

    @property
    def socket(self) -> End:
        """The socket that a connection closes."""
        return self

    def setsockopt(self, *_: object) -> None:
        """How a socket is closed makes no difference here."""

    def is_readable(self) -> bool:
        """Whether there is something to read now; the end counts."""
        return bool(self._under_way) and self._due_s() <= trio.current_time()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of it, piece by piece as there is room."""
        rest = bytes(data)
        await trio.lowlevel.checkpoint()
        while rest:
            self._check()
            self._line.weather.befall(self._line)
            if self._line.is_cut or (self.other.closed and not self.other._vanished):
                raise trio.BrokenResourceError("the connection is gone")
            room = WINDOW_BYTES - self.other._bytes
            if room <= 0:
                await self.changed.park()
                continue
            self.other._put(rest[:room])
            rest = rest[room:]

    async def wait_send_all_might_not_block(self) -> None:
        """The simulation needs no more than a checkpoint."""
        await trio.lowlevel.checkpoint()

    async def send_eof(self) -> None:
        """End the sending direction."""
        await trio.lowlevel.checkpoint()
        self._check()
        self.other._put(b"")

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Give what has arrived; nothing at the end."""
        await trio.lowlevel.checkpoint()
        while True:
            self._check()
            if self._line.is_cut:
                raise trio.BrokenResourceError("the connection was cut")
            due_s = self._due_s()
            if due_s <= trio.current_time():
                return self._take(max_bytes)
            with trio.move_on_at(due_s):
                await self.changed.park()

    def close(self) -> None:
        """Close it, and let the other side know."""
        if not self.closed:
            self.closed = True
            self.other._put(b"")
            self._line.wake()

    async def aclose(self) -> None:
        """Close it."""
        self.close()
        await trio.lowlevel.checkpoint()

    def vanish(self) -> None:
        """End without a sign to the other side, as a machine without power does."""
        self.closed = self._vanished = True
        self._line.stalled_until_s = math.inf

    def _due_s(self) -> float:
        return max(self._under_way[0][0], self._line.stalled_until_s) if self._under_way else math.inf

    def _put(self, piece: bytes) -> None:
        self._last_s = max(self._last_s, trio.current_time() + self._line.weather.delay_s())
        self._under_way.append((self._last_s, piece))
        self._bytes += len(piece)
        self.changed.unpark_all()

    def _take(self, max_bytes: int | None) -> bytes:
        when, piece = self._under_way[0]
        if not piece:
            return b""  # the end stays readable
        self._under_way.popleft()
        if max_bytes is not None and len(piece) > max_bytes:
            self._under_way.appendleft((when, piece[max_bytes:]))
            piece = piece[:max_bytes]
        self._bytes -= len(piece)
        self.other.changed.unpark_all()
        return piece

    def _check(self) -> None:
        if not self._alive():
            raise Crash("the process has ended")
        if self.closed:
            raise trio.ClosedResourceError
