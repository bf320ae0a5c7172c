"""A viewer that gets server-sent events: for programs and networks that take no WebSocket.

It is owed and sent the same as any other viewer (`server.live.viewers`), in the form of `server.live.events`. It says
nothing, so nothing shows that it reads: the kernel gives the connection up when the other end has confirmed nothing
for VIEWER_SILENCE_SECONDS_MAX. What it says all the same is dropped.
"""

from __future__ import annotations

import random
import socket

from server import bounds
from server.http.websocket import SERVICE_RESTART, TRY_AGAIN_LATER
from server.live import events, switch
from server.live.editions import Edition
from server.live.viewers import Viewer

_RETRY_AFTER = {SERVICE_RESTART: events.RESTART_RETRY_MS, TRY_AGAIN_LATER: switch.RETRY_MS}
"""When a client shall come back, by the reason for which its stream ends."""


class EventViewer(Viewer):
    """See above. It takes no deltas."""

    __slots__ = ()

    as_events = True
    ping_seconds = events.PING_SECONDS

    def begin(self, response: bytes, edition: Edition, *, known: bool = False) -> None:
        """Owe the head of the answer, how long to wait before coming back, and the first edition, as one write."""
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            milliseconds = int(bounds.VIEWER_SILENCE_SECONDS_MAX * 1000)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
        super().begin(response + _retry(events.RETRY_MS), edition, known=known)

    def ping(self, now: float) -> None:
        """Owe a comment."""
        self.pinged = now
        self.said = 0
        if self.control is None and not self.closing:
            self.control = events.COMMENT

    def close(self, code: int | None, reason: str = "") -> None:
        """Owe the end of the stream, once, and a comment that says why."""
        if not self.closing:
            self.closing = True
            bounds_ms = _RETRY_AFTER.get(code or 0)
            wait = b"" if bounds_ms is None else _retry(bounds_ms)
            self.control = events.comment(reason) + wait


def _retry(bounds_ms: tuple[int, int]) -> bytes:
    return events.retry(random.uniform(*bounds_ms))  # noqa: S311  # no secret depends on it
