"""The door: the one listener of the process, a guarded task for each connection, and the choice of a lane.

    accept ─► room for it? ─► Connection ─► head of a request ─► first row of the lanes that takes it ─► lane
                 │ no                           ▲                                                          │
                 └─► 503, close                 └────────── a request that is for another lane ────────────┘

Rules:
- Nothing that one connection does or suffers ends anything else. Whatever its task raises is told and counted here, and
  ends that connection alone; so does a request that another server would die of.
- A lane is chosen for each request, not for each connection: proxies keep connections and send all kinds of requests
  over them, an upgrade to WebSocket among them. A lane may keep the connection, or give it back with a request at hand.
- Accepting never ends by itself. When the kernel has no file for a connection it is asked again a little later.
- Whoever is refused is told so while that costs next to nothing, and otherwise just closed.
- Draining: listeners close, connections without a request close, requests that are here are answered and their
  connections close with the answer; what is left after the given time is cut. Viewers are the live channel's to close.
- Logs name addresses and kinds: never a target, a header, or the message of an exception.
"""

from __future__ import annotations

import errno
import resource
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
from server.http.client_address import TrustedProxies, address_group
from server.http.connection import Address, Connection, HttpBounds
from server.http.messages import Refused, RequestHead
from server.http.request_parser import IncomingRequest
from server.lanes.hypercorn_lane import HypercornLane
from server.lanes.lifespan import Lifespan, NotStarted
from server.logs import Bounded

LIVE_PATH = "/ws/scoreboard"

_NO_FILE = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
log = structlog.get_logger()


class Viewers(Protocol):
    """The live channel."""

    async def serve_viewer(self, stream: trio.SocketStream, head: RequestHead, address: str) -> None:
        """Answer a request for the live channel; ends when the viewer is gone."""


class ListenerMetrics(Protocol):
    """Who counts what happens here."""

    def connections(self, count: int) -> None:
        """So many connections are open now."""

    def connection_failed(self, kind: str) -> None:
        """A connection, or a request on it, ended with a fault."""

    def refused(self, code: str) -> None:
        """A connection or a request was refused before any lane saw it."""


class ListenerStatistics(msgspec.Struct, frozen=True):
    """What came to the door so far. `refused` counts by the code of the error that the client was given."""

    open: int
    accepted: int
    failed: int
    refused: dict[str, int]


class Lane(msgspec.Struct, frozen=True):
    """One row of the lanes. `serve` is given a connection with a request in it, and may answer others on it afterwards.
    It gives True when there is one that another lane is to answer, False when the connection is at its end.
    """

    takes: Callable[[IncomingRequest], bool]
    serve: Callable[[Connection], Awaitable[bool]]


async def open_listeners(host: str, port: int, backlog: int = bounds.LISTEN_BACKLOG) -> list[trio.SocketListener]:
    """Bind an address; a host name may have several. Raises OSError when that can't be done."""
    return await trio.open_tcp_listeners(port, host=host, backlog=backlog)


class Listener:
    """Listens, and serves whoever comes. `run` it once; `drain` ends it."""

    def __init__(
        self,
        listeners: Sequence[trio.SocketListener],
        *,
        application: ASGIFramework,
        live: Viewers,
        metrics: ListenerMetrics,
        lanes: Sequence[Lane] = (),
        websocket_lanes: Sequence[Lane] = (),
        proxies: TrustedProxies | None = None,
        http_bounds: HttpBounds | None = None,
    ) -> None:
        """`listeners` are bound already; they are closed when `run` ends.

        `application` answers what none of the lanes takes. `websocket_lanes` also see requests for an upgrade.
        """
        self._listeners = listeners
        self._live = live
        self._metrics = metrics
        self._tell_bounded = Bounded(log, bounds.LOG_LINES_PER_SECOND)
        self._proxies = proxies or TrustedProxies()
        self._bounds = http_bounds or HttpBounds()
        self._lifespan = Lifespan(application, self._bounds.startup_seconds_max)
        hypercorn = HypercornLane(application, self._bounds, metrics, keeps=_is_plain)
        # The first row that takes a request serves it.
        self._lanes = (
            Lane(_is_live, self._serve_live),
            *websocket_lanes,
            Lane(_is_websocket, self._refuse_websocket),
            *lanes,
            Lane(_is_plain, hypercorn.serve),
        )
        self._accepting: set[trio.CancelScope] = set()
        self._limits = ConnectionLimits(_connections_max(self._bounds), self._bounds.connections_per_address_max)
        self._body_memory = BodyMemory(self._bounds.bodies_bytes_max, self._bounds.bodies_per_address_bytes_max)
        self._open: set[Connection] = set()
        self._turned_away = 0
        self._connections: trio.Nursery | None = None
        self._accepted = 0
        self._failed = 0
        self._refused: Counter[str] = Counter()
        self._told_of_no_file = -bounds.NO_FILES_TOLD_SECONDS
        self._draining = False
        self._fewer = trio.Event()
        self._drained = trio.Event()

    # The whole

    async def run(self, *, task_status: trio.TaskStatus[list[Address]] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until `drain` is done. Starts with the addresses that it listens on.

        Raises NotStarted when the application does not start.
        """
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
        """Take in nothing more, answer what is here, cut what is left after so many seconds. Ends `run`."""
        self._draining = True
        self._stop_accepting()
        for connection in list(self._open):
            connection.close_soon()
        await self._wait_empty(seconds)
        if self._open:
            log.warning("connections_cut", count=len(self._open), seconds=seconds)
            self._cut_all()
            await self._wait_empty(bounds.CUT_SECONDS_MAX)
        self._drained.set()

    def statistics(self) -> ListenerStatistics:
        """Count what came so far."""
        return ListenerStatistics(self._limits.in_all, self._accepted, self._failed, dict(self._refused))

    async def _wait_empty(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            while self._open or self._accepting:
                self._fewer = trio.Event()
                await self._fewer.wait()

    def _stop_accepting(self) -> None:
        for accepting in self._accepting:
            accepting.cancel()

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
            # Draining. Those whom the kernel has let in already think that they are connected: they are served too.
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
            stream.socket.close()  # gone before we came to it
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
        """Serve a connection to its end. Lets nothing out but cancellation."""
        try:
            try:
                await self._converse(connection)
            except Refused as refusal:
                await self._refuse(connection, refusal)
        except* Exception as errors:
            self._tell(errors, connection)
        finally:
            self._forget(connection)
            self._limits.leave(connection.group)
            self._metrics.connections(self._limits.in_all)

    async def _turn_away(self, connection: Connection, refusal: Refused) -> None:
        """Tell a client that there is no room. Lets nothing out but cancellation."""
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
        """Tell and count what ended a connection, unless it is only that the client is gone."""
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
            serve = next(lane.serve for lane in self._lanes if lane.takes(connection.request))
            goes_on = await serve(connection)

    async def _serve_live(self, connection: Connection) -> bool:
        forwarded_for = connection.request.header("x-forwarded-for")
        address = self._proxies.client(connection.peer[0], forwarded_for)
        # The live channel has a bound of its own for the viewers of an address.
        self._limits.count_out(connection.group)
        try:
            # A viewer stays for hours: no variable here keeps anything of its request meanwhile.
            await self._live.serve_viewer(*connection.take_stream(), address)
        finally:
            self._limits.count_in(connection.group)
        if connection.stream.socket.fileno() >= 0:  # not a viewer, but a client that was refused
            await connection.linger()
        return False

    async def _refuse_websocket(self, _connection: Connection) -> bool:
        raise Refused(404, "NOT_FOUND", f"The only WebSocket here is GET {LIVE_PATH}.")

    def _count_refused(self, refusal: Refused) -> None:
        self._refused[refusal.code] += 1
        self._metrics.refused(refusal.code)

    def _count_failed(self, kind: str) -> None:
        self._failed += 1
        self._metrics.connection_failed(kind)


def _is_live(inbound: IncomingRequest) -> bool:
    return inbound.head.method == "GET" and inbound.path == LIVE_PATH


def _is_websocket(inbound: IncomingRequest) -> bool:
    return "websocket" in inbound.tokens("upgrade")


def _is_plain(inbound: IncomingRequest) -> bool:
    return not _is_live(inbound) and not _is_websocket(inbound)


def _address(name: tuple[Any, ...]) -> Address:
    """Host and port of a socket's name, which has more parts in IPv6."""
    return name[0], name[1]


def _connections_max(http_bounds: HttpBounds) -> int:
    if http_bounds.connections_max is not None:
        return http_bounds.connections_max
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return sys.maxsize
    return max(1, soft - http_bounds.files_reserved - http_bounds.turned_away_max)
