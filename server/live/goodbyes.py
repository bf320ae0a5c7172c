"""Closing viewers from our side: all of them at the end, or because the channel is switched off.

    goodbyes = Goodbyes(viewers, broadcast, metrics)
    await goodbyes.end(seconds)                   1012 for each; whoever is left then is dropped
    left = await goodbyes.switch_off()            1013 for each; `drop_later(left)` drops who does not close

Rules:
- Close frames are spread over a time: whoever gets one comes back, or begins to poll, and not all at once.
- A close is owed once. Nothing follows it.
- Whom the switch closes is counted at the close, whether it then closes its end or not.
"""

from __future__ import annotations

from collections.abc import Iterable

import trio

from server import bounds
from server.http.websocket import SERVICE_RESTART, TRY_AGAIN_LATER
from server.live import switch
from server.live.broadcast import Broadcast, LiveMetrics
from server.live.viewers import Viewer, Viewers

GOODBYE_SHARE = 0.75
"""The close frames are spread over this share of the time for closing; the last viewers may answer in the rest."""


class Goodbyes:
    """See above."""

    def __init__(self, viewers: Viewers, broadcast: Broadcast, metrics: LiveMetrics) -> None:
        self._viewers = viewers
        self._broadcast = broadcast
        self._metrics = metrics
        self._empty = trio.Event()

    def left(self) -> None:
        """Note that a viewer has left."""
        if not len(self._viewers):
            self._empty.set()

    async def end(self, seconds: float) -> None:
        """Close everybody within this time. Nobody comes meanwhile."""
        with trio.move_on_after(seconds):
            await self._send(seconds * GOODBYE_SHARE, SERVICE_RESTART, "the server restarts")
            while len(self._viewers):
                self._empty = trio.Event()
                await self._empty.wait()
        for viewer in self._viewers.everyone():
            self._broadcast.drop(viewer, "shutdown")

    async def switch_off(self) -> list[Viewer]:
        """Close everybody, and give who is still there."""
        await self._send(switch.CLOSE_SECONDS, TRY_AGAIN_LATER, switch.REASON, counted="switched_off")
        return self._viewers.everyone()

    async def drop_later(self, viewers: Iterable[Viewer]) -> None:
        """Drop those of the viewers that have got a close frame and do not close."""
        await trio.sleep(bounds.VIEWER_CLOSE_SECONDS_MAX)
        for viewer in viewers:
            if viewer.closing:
                viewer.hang_up(abort=True)

    async def _send(self, seconds: float, code: int, reason: str, *, counted: str = "") -> None:
        viewers = self._viewers.everyone()
        started = trio.current_time()
        pause = min(seconds / max(1, len(viewers)), bounds.GOODBYE_PAUSE_SECONDS_MAX)
        for count, viewer in enumerate(viewers):
            await trio.sleep_until(started + count * pause)
            if counted and not (viewer.closing or viewer.gone):
                self._metrics.viewers_dropped(counted)
            viewer.close(code, reason)
            self._broadcast.push(viewer)
