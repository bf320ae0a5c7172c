"""The live channel's way in and out: lets viewers in or refuses them, hears what they say, and sees them off.

    request head ──► checked, a place reserved, authorized ──► 101 and a snapshot, as one write ──► heard until gone
                          └─► refused, with an ordinary HTTP answer

Each viewer is one task, here, that nearly always waits for its socket to be readable; `server.live.broadcast` does all
the writing. Viewers have nothing to say but pings, pongs and goodbyes: whatever else they send is checked and
forgotten.

Rules:
- A viewer is refused before the upgrade or not at all, and costs no more than its head until then. The place that is
  reserved before its token is checked counts as taken: the check may wait for keys, and meanwhile others come.
- A task that waits keeps nothing of what it read: neither the head nor a buffer.
- When only we have sent a close frame, the connection is not simply closed: with something unread that would reset it,
  and the frame that says why might never be seen. The sending side is shut, and the other end has some time to close.
"""

from __future__ import annotations

import resource
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Protocol

import structlog
import trio

from engine.scoreboard import Scoreboard
from server import bounds
from server.http.date import head_end
from server.http.messages import (
    Details,
    Refused,
    Request,
    RequestHead,
    Response,
    error,
    http_bytes,
    invalid,
    overloaded,
)
from server.http.websocket import POLICY_VIOLATION, SERVICE_RESTART, Closed, Fault, FrameEvent, Ping
from server.live import handshake
from server.live.broadcast import Broadcast, LiveMetrics
from server.live.editions import SNAPSHOT
from server.live.handshake import Upgrade
from server.live.viewers import Viewer, Viewers, places_for, take_over
from server.settings.config import LiveConfig

GOODBYE_SHARE = 0.75
"""The part of the time for closing over which the close frames are spread; the last ones may answer in the rest."""

Authorize = Callable[[str | None], Awaitable[Response | None]]
"""Given what Authorization says, None if nothing: the answer that refuses the viewer, or None to let it in."""

log = structlog.get_logger()


class LiveAudit(Protocol):
    """Who writes down what was refused."""

    def refused(self, request: Request, refusal: Response, details: Details, caller: str | None) -> None:
        """A request was answered with an error that is not our fault."""

    def fault(self, request: Request, error: Exception) -> None:
        """A request was not answered as it should be, because of a bug of ours."""


def open_files_max() -> int | None:
    """Say how many files this process may have open, None for no limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


class Live:
    """The live channel of one process. `run` must be running as long as there are viewers.

    `public` is false where a viewer has to show a token to `authorize`. `files_max` is what `open_files_max` says,
    and with the configured number decides how many viewers there may be.
    """

    def __init__(
        self,
        scoreboard: Scoreboard,
        config: LiveConfig,
        metrics: LiveMetrics,
        audit: LiveAudit,
        *,
        now_ms: Callable[[], int],
        files_max: int | None,
        authorize: Authorize | None = None,
        stale_ms: Callable[[], int | None] = lambda: None,
        check: Callable[[str], None] = lambda _board_id: None,
    ) -> None:
        """`check` raises `Refused` where a board can't be shown here; `stale_ms` as in `Broadcast`."""
        self._check_board = check
        self._config = config
        self._origins = config.origins
        self._metrics = metrics
        self._audit = audit
        self._authorize = authorize
        places = places_for(config.max_viewers, files_max, bounds.RESERVED_FILES)
        self._viewers = Viewers(places, config.max_viewers_per_address)
        self._broadcast = Broadcast(
            scoreboard, self._viewers, metrics, interval_s=config.interval_ms / 1000, now_ms=now_ms, stale_ms=stale_ms
        )
        self._closing = False
        self._empty = trio.Event()

    def board_changed(self, board_ids: Iterable[str]) -> None:
        """Take note that events touched these boards; viewers are told if their first ten rows changed."""
        self._broadcast.board_changed(board_ids)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Tell viewers what changes, until cancelled."""
        if self._viewers.places < self._config.max_viewers:
            log.warning(
                "viewers_limited",
                reason="the process may not open enough files",
                max_viewers=self._config.max_viewers,
                viewers=self._viewers.places,
                remedy="raise the limit of open files (ulimit -n, LimitNOFILE)",
            )
        await self._broadcast.run(task_status=task_status)

    # Letting viewers in

    async def serve_viewer(self, stream: trio.SocketStream, head: RequestHead, address: str) -> None:
        """Serve a request for the live channel until the viewer is gone. Raises nothing but Cancelled.

        Takes the connection out of `stream` unless the request is refused; closing the stream is the caller's in
        either case. A caller that holds on to `head` holds it for as long as the viewer stays.
        """
        try:
            viewer = await self._admit(stream, head, address)
            if viewer is None:
                return
            early = head.rest
            del stream, head, address
            self._viewers.join(viewer)
            try:
                self._metrics.viewers(len(self._viewers))
                self._broadcast.push(viewer)
                going = self._heed(viewer, early)
                del early
                while going and not viewer.gone:
                    await trio.lowlevel.wait_readable(viewer.socket)
                    going = self._read(viewer)
                await self._see_off(viewer)
            finally:
                viewer.hang_up()
                self._leave(viewer)
        except (OSError, trio.ClosedResourceError):
            pass  # it went away without a word, or was dropped
        except Exception:
            log.exception("viewer_failed")

    async def _admit(self, stream: trio.SocketStream, head: RequestHead, address: str) -> Viewer | None:
        """Answer a handshake: the viewer with the answer still owed to it, None after a refusal."""
        request = Request(method=head.method, path=head.path, query=head.query, address=address)
        try:
            upgrade = self._check(head, address)
            return await self._make_viewer(stream, upgrade, address)
        except Refused as refused:
            response = refused.response()
            self._audit.refused(request, response, refused.details, None)
        except _Unauthorized as unauthorized:
            response = unauthorized.response
            self._audit.refused(request, response, {}, None)
        except Exception as fault:
            response = error(500, "INTERNAL_ERROR", "The live channel failed.")
            self._audit.fault(request, fault)
        if response.code is not None:
            self._metrics.failed(response.code)
        with trio.move_on_after(bounds.SEND_SECONDS_MAX), suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await stream.send_all(http_bytes(response, head_end(last=True)))
        return None

    def _check(self, head: RequestHead, address: str) -> Upgrade:
        self._check_open()
        upgrade = handshake.read_upgrade(head)
        handshake.check_origin(upgrade.origin, self._origins)
        if self._broadcast.channel(upgrade.board_id) is None:
            raise invalid("boardId", f"There is no board {upgrade.board_id!r}.")
        self._check_board(upgrade.board_id)
        if fault := self._viewers.fault(address):
            raise overloaded(fault)
        return upgrade

    def _check_open(self) -> None:
        if self._closing:
            raise overloaded("The server is stopping.")

    async def _make_viewer(self, stream: trio.SocketStream, upgrade: Upgrade, address: str) -> Viewer:
        self._viewers.reserve(address)
        try:
            if self._authorize is not None:
                response = await self._authorize(upgrade.authorization)
                if response is not None:
                    raise _Unauthorized(response)
                self._check_open()
            channel = self._broadcast.channel(upgrade.board_id)
            assert channel is not None
            deltas = upgrade.subprotocol == handshake.DELTA
            viewer = Viewer(take_over(stream), channel, address, trio.current_time(), deltas=deltas)
            viewer.begin(upgrade.response(), channel.newest())
            self._metrics.live_messages(1, SNAPSHOT)
        except BaseException:
            self._viewers.release(address)
            raise
        return viewer

    # Hearing viewers, and seeing them off

    def _read(self, viewer: Viewer) -> bool:
        """Read what came; False when nothing more is to be expected."""
        data = viewer.read(bounds.VIEWER_READ_BYTES)
        if data is None:
            return True
        viewer.heard = trio.current_time()
        return bool(data) and self._heed(viewer, data)

    def _heed(self, viewer: Viewer, data: bytes) -> bool:
        """Do what a viewer's frames ask for; False after its last one."""
        events = self._events(viewer, data)
        for event in events:
            if isinstance(event, Ping):
                viewer.pong(event.payload)
            elif isinstance(event, Closed):
                viewer.close(event.code)
            elif isinstance(event, Fault):
                log.debug("viewer_broke_protocol", reason=event.reason, address=viewer.address)
                self._metrics.viewers_dropped("protocol")
                viewer.close(event.code, event.reason)
        if viewer.control is not None:
            self._broadcast.push(viewer)
        last = events[-1] if events else None
        if isinstance(last, Closed) and not viewer.busy:
            viewer.hang_up()  # both have said goodbye, and then it is the server that closes (RFC 6455, 7.1.1)
        return not isinstance(last, Closed | Fault)

    def _events(self, viewer: Viewer, data: bytes) -> list[FrameEvent]:
        # Reading frames is the one thing that costs us more than it costs the viewer.
        viewer.said += len(data)
        if viewer.said > bounds.VIEWER_SAYS_BYTES_MAX:
            return [Fault(POLICY_VIOLATION, "a viewer must not send so much")]
        return viewer.parser.feed(data)

    async def _see_off(self, viewer: Viewer) -> None:
        """After its last frame, wait for the other end to close, whatever it still sends."""
        with trio.move_on_after(bounds.VIEWER_CLOSE_SECONDS_MAX):
            while not viewer.gone and viewer.read(bounds.VIEWER_READ_BYTES) != b"":
                await trio.lowlevel.wait_readable(viewer.socket)

    def _leave(self, viewer: Viewer) -> None:
        self._viewers.leave(viewer)
        self._metrics.viewers(len(self._viewers))
        if not len(self._viewers):
            self._empty.set()

    async def close_all(self, seconds: float) -> None:
        """Let nobody in any more, tell those who are here to come back (1012), and be rid of them in time.

        The close frames are spread over the time, so that not everybody comes back at once.
        """
        self._closing = True
        with trio.move_on_after(seconds):
            await self._say_goodbye(seconds * GOODBYE_SHARE)
            while len(self._viewers):
                self._empty = trio.Event()
                await self._empty.wait()
        for viewer in self._viewers.everyone():
            self._broadcast.drop(viewer, "shutdown")

    async def _say_goodbye(self, seconds: float) -> None:
        viewers = self._viewers.everyone()
        started = trio.current_time()
        pause = min(seconds / max(1, len(viewers)), bounds.GOODBYE_PAUSE_SECONDS_MAX)
        for count, viewer in enumerate(viewers):
            await trio.sleep_until(started + count * pause)
            viewer.close(SERVICE_RESTART, "the server restarts")
            self._broadcast.push(viewer)


class _Unauthorized(Exception):
    """Whoever checks tokens refuses the viewer, with this answer."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status)
        self.response = response
