"""Viewers that get a stream over HTTP: server-sent events, or the event feed of a contest.

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
from server.live.editions import AnyEdition
from server.live.event_feed import EMPTY_LINE
from server.live.viewers import Viewer

_RETRY_AFTER = {SERVICE_RESTART: events.RESTART_RETRY_MS, TRY_AGAIN_LATER: switch.RETRY_MS}
"""When a client shall come back, by the reason for which its stream ends."""


class EventViewer(Viewer):
    """See above. It takes no deltas."""

    __slots__ = ()

    as_events = True
    ping_seconds = events.PING_SECONDS
    sign_of_life = events.COMMENT

    def begin(self, response: bytes, edition: AnyEdition, *, known: bool = False) -> None:
        """Owe the head of the answer, a greeting, and the first edition, as one write."""
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            milliseconds = int(bounds.VIEWER_SILENCE_SECONDS_MAX * 1000)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
        super().begin(response + self._greeting(), edition, known=known)

    def ping(self, now: float) -> None:
        """Owe what keeps the connection."""
        self.pinged = now
        self.said = 0
        if self.control is None and not self.closing:
            self.control = self.sign_of_life

    def close(self, code: int | None, reason: str = "") -> None:
        """Owe the end of the stream, once, and what is said before it."""
        if not self.closing:
            self._close(self._farewell(code, reason))

    def _greeting(self) -> bytes:
        return _retry(events.RETRY_MS)

    def _farewell(self, code: int | None, reason: str) -> bytes:
        bounds_ms = _RETRY_AFTER.get(code or 0)
        wait = b"" if bounds_ms is None else _retry(bounds_ms)
        return events.comment(reason) + wait


class FeedViewer(EventViewer):
    """A reader of an event feed. It has no comments and no times to wait: an empty line says that all is well."""

    __slots__ = ()

    sign_of_life = EMPTY_LINE

    def _greeting(self) -> bytes:
        return b""

    def _farewell(self, code: int | None, reason: str) -> bytes:  # noqa: ARG002  # there is no place for them
        return EMPTY_LINE


def _retry(bounds_ms: tuple[int, int]) -> bytes:
    return events.retry(random.uniform(*bounds_ms))  # noqa: S311  # no secret depends on it
