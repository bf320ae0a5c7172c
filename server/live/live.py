"""The live channel: admits or refuses viewers, and closes them.

    request head ──► checked, a place reserved, authorized ──► 101 and a snapshot, as one write ──► a viewer until gone
                                                               (200 for events and feeds)
                          └─► refused, with an ordinary HTTP answer

    live = Live(scoreboard, config.live, metrics, audit, now_ms=wall_clock_ms, files_max=open_files_max())
    await live.serve_viewer(stream, head, address, left)      # while `run` runs in another task
    live.board_changed(["main"])

`server.live.broadcast` writes to all viewers, and `server.live.conversations` reads from them.

Rules:
- A viewer is refused only before the upgrade, and costs no more than its head until then. Its place is reserved before
  its token is checked: the check may wait for keys, and other viewers come meanwhile.
- Nothing of what was read is kept for a viewer: neither its head nor a buffer. Its task ends when it is admitted.
- A viewer of a private board stays as long as its token is good: the sweep of `server.live.broadcast` closes it with
  1008 and the reason `token expired`.
- Where reads are public no viewer needs a token. The user that a good token names is known all the same, and a token
  that is not good counts as none.
- While the flag `live` is off (`engine.flags`) nobody is admitted, and who is there is closed with 1013. Each change of
  a board looks at the flag: so it is obeyed after the event, and after a replica took over a fetched state.
"""

from __future__ import annotations

import resource
from collections.abc import Awaitable, Callable, Iterable
from contextlib import ExitStack, suppress
from typing import Protocol

import structlog
import trio

from engine.scoreboard import Scoreboard
from server import bounds
from server.access.lease import Lease
from server.http.messages import Details, Headers, Refused, Request, RequestHead, Response, overloaded
from server.http.origins import EXPOSED, origin_headers
from server.http.response_head import head_end, http_bytes
from server.live import handshake, switch
from server.live.board_view import BoardView
from server.live.broadcast import Broadcast, LiveMetrics
from server.live.clics import Version
from server.live.conversations import Conversations
from server.live.editions import SNAPSHOT
from server.live.goodbyes import Goodbyes
from server.live.names import NameForm
from server.live.openings import Opening, is_known, no_board, read_opening, viewer_of
from server.live.subscriptions import SubscriptionMetrics, Subscriptions
from server.live.viewers import Viewers, places_for
from server.settings.config import LiveConfig

Authorize = Callable[[str | None], Awaitable[Response | Lease]]
"""Takes the Authorization, None without one. Gives the answer that refuses the viewer, or for how long it may stay."""

Identify = Callable[[str], Awaitable[str | None]]
"""Takes the Authorization of a viewer that needs none. Gives the only user that it may be; None: any."""

log = structlog.get_logger()


async def _anybody(_authorization: str) -> str | None:
    return None


async def _nobody(_authorization: str | None) -> Response | Lease:
    return Refused(403, "UNAUTHORIZED", "Nobody may see the present of a frozen board here.").response()


class ChannelMetrics(LiveMetrics, SubscriptionMetrics, Protocol):
    """What the live channel needs of `server.metrics`."""


class LiveAudit(Protocol):
    """What the live channel needs of `server.api.audit`. A fault is a bug of ours."""

    def refused(self, request: Request, refusal: Response, details: Details, caller: str | None) -> None: ...
    def fault(self, request: Request, error: Exception) -> None: ...


def open_files_max() -> int | None:
    """Say how many files this process may open, None for no limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


class Live:
    """The live channel of one process. `run` must be running while there are viewers."""

    def __init__(
        self,
        scoreboard: Scoreboard,
        config: LiveConfig,
        metrics: ChannelMetrics,
        audit: LiveAudit,
        *,
        now_ms: Callable[[], int],
        files_max: int | None,
        authorize: Authorize | None = None,
        authorize_live: Authorize = _nobody,
        identify: Identify = _anybody,
        stale_ms: Callable[[], int | None] = lambda: None,
        check: Callable[[str], None] = lambda _board_id: None,
        form: NameForm = "shown",
        clics_version: Version = "2023-06",
    ) -> None:
        """Without `authorize` a viewer needs no token. `authorize_live` judges those who ask for the live view.
        `files_max` bounds the viewers, beside the configuration.

        `check` raises `Refused` for a board that can't be shown here. `stale_ms` is the age of stale data, else None.
        `form` is that of the names which the public sees.
        """
        self._scoreboard = scoreboard
        self._enabled = True  # what viewers and operators were told last
        self._flag_changed = trio.Event()
        self._check_board = check
        self._config = config
        self._origins = config.origins
        self._metrics = metrics
        self._audit = audit
        self._authorize = authorize
        self._authorize_live = authorize_live
        self._identify = identify
        self._files_max = files_max
        self._viewers = Viewers(self._places(), config.max_viewers_per_address)
        self._broadcast = Broadcast(
            scoreboard, self._viewers, metrics, interval_s=config.interval_ms / 1000, now_ms=now_ms, stale_ms=stale_ms,
            form=form, clics_version=clics_version,
        )  # fmt: skip
        self._subscriptions = Subscriptions(self._broadcast.lines, check, metrics, self._broadcast.push_lines)
        self._closing = False
        self._goodbyes = Goodbyes(self._viewers, self._broadcast, metrics)
        self._conversations = Conversations(
            self._viewers, self._broadcast, self._subscriptions, metrics, self._goodbyes
        )

    def board_changed(self, board_ids: Iterable[str]) -> None:
        """Note that events touched these boards. Viewers get an update if the rows that they watch changed."""
        if self._scoreboard.flags.live is not self._enabled:
            self._flag_changed.set()
        self._broadcast.board_changed(board_ids)

    def reload(self, config: LiveConfig) -> None:
        """Take another configuration. Who is there stays; an origin that is no longer allowed may not come again."""
        self._config, self._origins = config, config.origins
        self._viewers.places = self._places()
        self._viewers.places_per_address = config.max_viewers_per_address
        self._broadcast.set_interval(config.interval_ms / 1000)

    def _places(self) -> int:
        return places_for(self._config.max_viewers, self._files_max, bounds.RESERVED_FILES)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Send viewers what changes, until cancelled."""
        if self._viewers.places < self._config.max_viewers:
            log.warning(
                "viewers_limited",
                reason="the process may not open enough files",
                max_viewers=self._config.max_viewers,
                viewers=self._viewers.places,
                remedy="raise the limit of open files (ulimit -n, LimitNOFILE)",
            )
        async with trio.open_nursery() as tasks:
            tasks.start_soon(self._obey_flag, tasks)
            tasks.start_soon(self._conversations.run)
            await self._broadcast.run(task_status=task_status)

    def watching(self, board_id: str) -> int:
        """Count the viewers of a board here."""
        return sum(self._viewers.count(BoardView(board_id, live)) for live in (False, True))

    # Admitting viewers

    async def serve_viewer(
        self, stream: trio.SocketStream, head: RequestHead, address: str, left: Callable[[], None], *,
        as_events: bool = False,
    ) -> bool:  # fmt: skip
        """Answer a request for the live channel. True: it made a viewer; `left` is called once that is gone.

        `as_events`: it asks for server-sent events or an event feed, else for a WebSocket. Takes the connection out of
        `stream` unless the request is refused. The caller closes the stream in either case. Raises only Cancelled.
        """
        readable = (*origin_headers(self._origins, head.joined("origin") or ""), EXPOSED) if as_events else ()
        request = Request(method=head.method, path=head.path, query=head.query, address=address)
        counted: str | None
        try:
            opening = self._check(head, address, as_events)
            refusal = await self._admit(stream, opening, address, left, readable, head.rest)
            if refusal is None:
                return True
            response, counted = refusal, refusal.code
            self._audit.refused(request, response, {}, None)
        except Refused as refused:
            response = refused.response()
            counted = switch.COUNTED_AS if isinstance(refused, switch.SwitchedOff) else refused.code
            self._audit.refused(request, response, refused.details, None)
        except Exception as fault:
            response, counted = Refused(500, "INTERNAL_ERROR", "The live channel failed.").response(), "INTERNAL_ERROR"
            self._audit.fault(request, fault)
        if counted is not None:
            self._metrics.failed(counted)
        with trio.move_on_after(bounds.SEND_SECONDS_MAX), suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await stream.send_all(http_bytes(response, head_end(last=True), *_lines(readable)))
        return False

    def _check(self, head: RequestHead, address: str, as_events: bool) -> Opening:
        self._check_open()
        opening = read_opening(head, as_events=as_events, board_ids=self._scoreboard.served)
        handshake.check_origin(opening.origin, self._origins, head.joined("host"))
        board_id = opening.view.board_id
        self._check_board(board_id)
        if self._scoreboard.board(board_id) is None:
            raise no_board(opening)
        if fault := self._viewers.fault(address):
            raise overloaded(fault)
        return opening

    def _check_open(self) -> None:
        if self._closing:
            raise overloaded("The server is stopping.")
        if not self._scoreboard.flags.live:
            raise switch.SwitchedOff

    async def _admit(
        self, stream: trio.SocketStream, opening: Opening, address: str, left: Callable[[], None], readable: Headers,
        early: bytes,
    ) -> Response | None:  # fmt: skip
        """Make a viewer with a place. Gives the answer of `authorize` if it refuses. Raises `Refused`."""
        self._viewers.reserve(address)
        with ExitStack() as place:
            place.callback(self._viewers.release, address)
            lease: Lease | None = None
            user_id: str | None = None
            authorize = self._authorize_live if opening.view.live else self._authorize
            if authorize is not None:
                found = await authorize(opening.authorization)
                if isinstance(found, Response):
                    return found
                lease, user_id = found, found.user_id
                self._check_open()
            elif opening.authorization is not None:
                user_id = await self._identify(opening.authorization)
                self._check_open()
            channel = self._broadcast.channel(opening.view)
            assert channel is not None
            first = channel.newest()
            known = is_known(opening, first)
            viewer = viewer_of(
                opening, stream, channel, self._viewers.audience(opening.view), address, lease=lease, user_id=user_id,
                on_gone=self._conversations.gone, left=left,
            )  # fmt: skip
            place.pop_all()  # the viewer keeps it
        self._metrics.live_messages(not known, SNAPSHOT)
        self._conversations.begin(viewer, lambda: viewer.begin(opening.response(readable), first, known=known), early)
        return None

    # Closing them

    async def close_all(self, seconds: float) -> None:
        """Refuse new viewers, close the others with 1012, and drop those that are left after `seconds`.

        The close frames are spread over that time, so that not all viewers come back at once.
        """
        self._closing = True
        await self._goodbyes.end(seconds)

    async def _obey_flag(self, tasks: trio.Nursery) -> None:
        """Close the viewers whenever the channel is switched off, and tell operators of it, also at the start."""
        while True:
            enabled = self._scoreboard.flags.live
            if enabled is not self._enabled:
                self._enabled = enabled
                if enabled:
                    log.info("live_channel_on", back_within_seconds=switch.BACK_SECONDS)
                else:
                    log.warning("live_channel_off", viewers=len(self._viewers), remedy="PUT /flags/live")
                    tasks.start_soon(self._goodbyes.drop_later, await self._goodbyes.switch_off())
                continue
            self._flag_changed = trio.Event()
            await self._flag_changed.wait()


def _lines(headers: Headers) -> list[bytes]:
    return [f"{name}: {value}\r\n".encode("latin-1") for name, value in headers]
