"""The process's one listener: accepts connections, runs a guarded task for each, and chooses a lane for each request.

    accept ─► within limits? ─► Connection ─► head of a request ─► first lane that takes it ─┐
                 │ no                           ▲                                            │
                 └─► 503, close                 └────────── a request for another lane ──────┘

    listener = Listener(await open_listeners(host, port), application=app, live=live, metrics=metrics)
    await tasks.start(listener.run)
    await listener.drain(seconds)

Rules:
- A connection never ends anything else. What its task raises is logged, counted, and ends this connection alone.
- A lane is chosen for the first request of a connection, and again whenever its lane gives the connection back with a
  request: proxies send all kinds of requests over one connection. The Hypercorn lane keeps all but the live channel.
- Accepting never ends by itself. When the kernel has no file for a connection, accepting pauses.
- A refused client gets an answer as long as few others are being refused; otherwise its connection is closed.
- Draining: listeners close, and connections without a request close. The others close with the answer to theirs. What
  is left after the given time is cut. The live channel closes its viewers itself.
- Logs contain addresses and kinds of faults: never a target, a header, or the message of an exception.
"""

from __future__ import annotations

import errno
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import msgspec
import structlog
import trio
from hypercorn.typing import ASGIFramework

from server import bounds
from server.faults import describe
from server.http.admission import BodyMemory, ConnectionLimits
from server.http.client_address import TrustedProxies, address_group, client_of
from server.http.connection import Address, Connection, HttpBounds
from server.http.messages import Refused, RequestHead, joined_headers
from server.http.request_parser import IncomingRequest
from server.lanes.hypercorn_lane import HypercornLane
from server.lanes.lifespan import Lifespan, NotStarted
from server.live.event_feed import is_feed
from server.live.events import STREAM_PATH
from server.live.handshake import LIVE_PATH
from server.live.live import open_files_max
from server.logs import Bounded
from server.metrics import Metrics

LIVE_TARGET = ("GET", LIVE_PATH)
STREAM_TARGET = ("GET", STREAM_PATH)

Left = Callable[[], None]
"""Called when a viewer is gone."""

_NO_FILE = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
log = structlog.get_logger()


class Viewers(Protocol):
    """The live channel."""

    async def serve_viewer(
        self, stream: trio.SocketStream, head: RequestHead, address: str, left: Left, *, as_events: bool = False
    ) -> bool: ...


class ListenerStatistics(msgspec.Struct, frozen=True):
    """The connections so far. `refused` counts by the code of the error answer."""

    open: int
    accepted: int
    failed: int
    refused: dict[str, int]


Target = tuple[str, str]
"""A method and a path."""

Serve = Callable[[Connection], Awaitable[bool]]


class Lane(msgspec.Struct, frozen=True):
    """A way to answer the requests for its `targets`, methods with paths.

    `serve` gets a connection with one, and may answer later ones too. It gives True when the connection has a request
    for another lane, False at the end of the connection.
    """

    targets: frozenset[Target]
    serve: Serve


async def open_listeners(host: str, port: int, backlog: int = bounds.LISTEN_BACKLOG) -> list[trio.SocketListener]:
    """Bind an address; a host name may have several. Raises OSError."""
    return await trio.open_tcp_listeners(port, host=host, backlog=backlog)


class Listener:
    """Accepts and serves connections. `run` it once; `drain` ends it."""

    def __init__(
        self,
        listeners: Sequence[trio.SocketListener],
        *,
        application: ASGIFramework,
        live: Viewers,
        metrics: Metrics,
        lanes: Sequence[Lane] = (),
        websocket_lanes: Sequence[Lane] = (),
        proxies: TrustedProxies | None = None,
        http_bounds: HttpBounds | None = None,
    ) -> None:
        """`listeners` are bound; `run` closes them. `application` answers what no lane takes.

        `websocket_lanes` also see requests for an upgrade.
        """
        self._listeners = listeners
        self._live = live
        self._metrics = metrics
        self._tell_bounded = Bounded(log, bounds.LOG_LINES_PER_SECOND)
        self._proxies = proxies or TrustedProxies()
        self._bounds = http_bounds or HttpBounds()
        self._lifespan = Lifespan(application, self._bounds.startup_seconds_max)
        hypercorn = HypercornLane(application, self._bounds, metrics, keeps=_is_plain)
        self._websocket_lanes = {LIVE_TARGET: self._serve_live, **_by_target(websocket_lanes)}
        self._plain_lanes = {STREAM_TARGET: self._serve_live, **_by_target(lanes)}
        self._other_lane: Serve = hypercorn.serve
        self._accepting: set[trio.CancelScope] = set()
        self._limits = ConnectionLimits(_connections_max(self._bounds), self._bounds.connections_per_address_max)
        self._body_memory = BodyMemory(self._bounds.bodies_bytes_max, self._bounds.bodies_per_address_bytes_max)
        self._open: set[Connection] = set()
        self._turned_away = 0
        self._left = self._viewer_left  # one object for all viewers
        self._connections: trio.Nursery | None = None
        self._accepted = 0
        self._failed = 0
        self._refused: Counter[str] = Counter()
        self._told_of_no_file = -bounds.NO_FILES_TOLD_SECONDS
        self._draining = False
        self._fewer = trio.Event()
        self._drained = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[list[Address]] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until `drain` is done. Starts with the addresses that it listens on. Raises NotStarted."""
        fault: NotStarted | None = None
        try:
            async with trio.open_nursery() as nursery:
                try:
                    await nursery.start(self._lifespan.run)
                    await self._serve_all(task_status)
                except NotStarted as error:
                    fault = error  # raised outside, or the nursery would make a group of it
                self._lifespan.stop()
        finally:
            for listener in self._listeners:
                listener.socket.close()
        if fault is not None:
            raise fault

    async def _serve_all(self, task_status: trio.TaskStatus[list[Address]]) -> None:
        async with trio.open_nursery() as self._connections:
            for listener in self._listeners:
                accepting = trio.CancelScope()
                self._accepting.add(accepting)
                self._connections.start_soon(self._accept, listener, accepting, self._connections)
            task_status.started([_address(listener.socket.getsockname()) for listener in self._listeners])
            try:
                await self._drained.wait()
            finally:
                self._cut_all()

    async def drain(self, seconds: float) -> None:
        """Accept nothing more, answer what is here, cut what is left after `seconds`. Ends `run`."""
        self._draining = True
        for accepting in self._accepting:
            accepting.cancel()
        for connection in list(self._open):
            connection.close_soon()
        await self._wait_empty(seconds)
        if self._open:
            log.warning("connections_cut", count=len(self._open), seconds=seconds)
            self._cut_all()
            await self._wait_empty(bounds.CUT_SECONDS_MAX)
        self._drained.set()

    def statistics(self) -> ListenerStatistics:
        return ListenerStatistics(self._limits.in_all, self._accepted, self._failed, dict(self._refused))

    async def _wait_empty(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            while self._open or self._accepting:
                self._fewer = trio.Event()
                await self._fewer.wait()

    def _cut_all(self) -> None:
        for connection in self._open:
            # Cancelling alone is not enough: a write that is shielded from it ends only with its socket.
            connection.cut()
        if self._connections is not None:
            self._connections.cancel_scope.cancel()

    # Accepting

    async def _accept(
        self, listener: trio.SocketListener, accepting: trio.CancelScope, connections: trio.Nursery
    ) -> None:
        try:
            with accepting:
                while True:
                    await self._accept_one(listener, connections)
            # Draining: connections that the kernel has accepted are served too.
            for _ in range(self._bounds.listen_backlog):
                if not listener.socket.is_readable():
                    break
                with trio.move_on_after(self._bounds.accept_pause_seconds):
                    await self._accept_one(listener, connections)
        finally:
            listener.socket.close()
            self._accepting.discard(accepting)
            self._fewer.set()

    async def _accept_one(self, listener: trio.SocketListener, connections: trio.Nursery) -> None:
        try:
            stream = await listener.accept()
        except OSError as error:
            self._tell_of_no_connection(error)
            await trio.sleep(self._bounds.accept_pause_seconds)
        else:
            self._admit(stream, connections)

    def _admit(self, stream: trio.SocketStream, connections: trio.Nursery) -> None:
        self._accepted += 1
        try:
            peer, own = _address(stream.socket.getpeername()), _address(stream.socket.getsockname())
        except OSError:
            stream.socket.close()  # the client is gone already
            return
        group = "" if self._proxies.trusts(peer[0]) else address_group(peer[0])
        connection = Connection(stream, peer, own, group, self._bounds, self._body_memory)
        connection.closing = self._draining
        refusal = self._limits.fault(group)
        if refusal is None:
            connections.start_soon(self._serve, connection)
            self._limits.enter(group)
            self._metrics.connections(self._limits.in_all)
        elif self._turned_away < self._bounds.turned_away_max:
            connections.start_soon(self._turn_away, connection, refusal)
            self._turned_away += 1
        else:
            self._count_refused(refusal)
            connection.close()
            return
        self._open.add(connection)

    def _tell_of_no_connection(self, error: OSError) -> None:
        now = trio.current_time()
        if now - self._told_of_no_file < bounds.NO_FILES_TOLD_SECONDS:
            return
        self._told_of_no_file = now
        name = errno.errorcode.get(error.errno or 0, "unknown")
        remedy = "raise the file limit (ulimit -n, LimitNOFILE)" if error.errno in _NO_FILE else ""
        log.error("accept_failed", error=name, open_connections=len(self._open), remedy=remedy)
        self._metrics.connection_failed(name)

    # One connection

    async def _serve(self, connection: Connection) -> None:
        """Serve a connection to its end. Raises only cancellation."""
        try:
            try:
                await self._converse(connection)
            except Refused as refusal:
                await self._refuse(connection, refusal)
        except* Exception as errors:
            self._tell(errors, connection)
        finally:
            self._forget(connection)
            if not connection.taken:
                self._limits.leave(connection.group)
                self._metrics.connections(self._limits.in_all)

    async def _turn_away(self, connection: Connection, refusal: Refused) -> None:
        """Answer a connection that is over a limit. Raises only cancellation."""
        try:
            await self._refuse(connection, refusal)
        except* Exception as errors:
            self._tell(errors, connection)
        finally:
            self._forget(connection)
            self._turned_away -= 1

    async def _refuse(self, connection: Connection, refusal: Refused) -> None:
        self._count_refused(refusal)
        address = connection.peer[0]
        self._tell_bounded.info("refused", address=address, status=refusal.status, code=refusal.code)
        await connection.refuse(refusal)

    def _tell(self, errors: ExceptionGroup[Exception], connection: Connection) -> None:
        """Log and count what ended a connection, unless the client only went away."""
        if connection.stalled:
            self._tell_bounded.info("client_stalled", address=connection.peer[0])
            self._count_failed("Stalled")
            return
        _, failures = errors.split((trio.BrokenResourceError, trio.ClosedResourceError))
        if failures is not None:
            fault = describe(failures)
            address = connection.peer[0]
            self._tell_bounded.error("connection_failed", address=address, kinds=fault.kinds, where=fault.where)
            self._count_failed(fault.kind)

    def _forget(self, connection: Connection) -> None:
        connection.close()
        self._open.discard(connection)
        self._fewer.set()

    async def _converse(self, connection: Connection) -> None:
        goes_on = await connection.read_head()
        while goes_on:
            goes_on = await self._lane_of(connection.request)(connection)

    def _lane_of(self, request: IncomingRequest) -> Serve:
        target = (request.head.method, request.path)
        serve = self._websocket_lanes.get(target)
        if serve is not None:
            return serve
        if _is_websocket(request):
            return self._refuse_websocket
        if _is_feed(request):
            return self._serve_live
        return self._plain_lanes.get(target, self._other_lane)

    async def _serve_live(self, connection: Connection) -> bool:
        address = client_of(self._proxies, connection.peer[0], joined_headers(connection.request.head.headers))
        # The live channel has its own limit for the viewers of an address.
        self._limits.count_out(connection.group)
        try:
            as_events = connection.request.path != LIVE_PATH
            stream, head = connection.take_stream()
            connection.taken = await self._live.serve_viewer(stream, head, address, self._left, as_events=as_events)
        finally:
            if not connection.taken:
                self._limits.count_in(connection.group)
        if not connection.taken:
            await connection.linger()
        return False

    def _viewer_left(self) -> None:
        self._limits.leave_uncounted()
        self._metrics.connections(self._limits.in_all)

    async def _refuse_websocket(self, _connection: Connection) -> bool:
        raise Refused(404, "NOT_FOUND", f"The only WebSocket here is GET {LIVE_PATH}.")

    def _count_refused(self, refusal: Refused) -> None:
        self._refused[refusal.code] += 1
        self._metrics.refused(refusal.code)

    def _count_failed(self, kind: str) -> None:
        self._failed += 1
        self._metrics.connection_failed(kind)


def _by_target(lanes: Sequence[Lane]) -> dict[Target, Serve]:
    return {target: lane.serve for lane in lanes for target in lane.targets}


def _is_websocket(inbound: IncomingRequest) -> bool:
    return "websocket" in inbound.head.tokens("upgrade")


def _is_plain(inbound: IncomingRequest) -> bool:
    target = (inbound.head.method, inbound.path)
    return target not in (LIVE_TARGET, STREAM_TARGET) and not _is_websocket(inbound) and not _is_feed(inbound)


def _is_feed(inbound: IncomingRequest) -> bool:
    return inbound.head.method == "GET" and is_feed(inbound.path)


def _address(name: tuple[Any, ...]) -> Address:
    """Host and port of a socket's name, which has more parts in IPv6. A socket of both families maps IPv4 into IPv6."""
    host, port, *_ = name
    return (host.removeprefix("::ffff:") if "." in host else host), port


def _connections_max(http_bounds: HttpBounds) -> int:
    if http_bounds.connections_max is not None:
        return http_bounds.connections_max
    files_max = open_files_max()
    if files_max is None:
        return sys.maxsize
    return max(1, files_max - http_bounds.files_reserved - http_bounds.turned_away_max)
