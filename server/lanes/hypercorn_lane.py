"""The Hypercorn lane: every request that no other lane takes, answered by an ASGI application (Quart-Trio).

Theory of operation. Each connection has a Hypercorn `TCPServer` of its own, whose client is a `Pipe` of ours. The
lane's task reads a request, hands it to Hypercorn whole, waits until the exchange is over, and only then reads on.
Hypercorn is thus never between two states: it has a complete, correct request, and a client that neither leaves nor
speaks before it was answered.

Rules:
- Which answer is the last one of a connection is decided here: by the client, by the application (`connection: close`),
  or because the door drains. Hypercorn's own reasons (its number of requests, its idle time) are switched off.
- An answer that was begun and can't be finished resets the connection. One that was not begun becomes a refusal.
- When the lane is done with a connection it cancels Hypercorn's tasks. Left to itself Hypercorn would keep the
  connection of a client that left until its idle time is over.
- Faults of the application and of Hypercorn end here, as a missing answer. Of a fault only its kind is told and where
  it was raised: messages may quote what the client sent.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any, Protocol, cast

import structlog
import trio
from hypercorn.config import Config
from hypercorn.logging import Logger
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ASGIFramework

from server import bounds
from server.faults import describe
from server.http.connection import Connection, HttpBounds
from server.http.messages import Refused
from server.http.request_parser import IncomingRequest, wire_request
from server.lanes.hypercorn_pipe import Exchange, Pipe, Receive, Scope, Send
from server.logs import Bounded

log = structlog.get_logger()


class FaultMetrics(Protocol):
    """Who counts what goes wrong here."""

    def connection_failed(self, kind: str) -> None:
        """A connection, or a request on it, ended with a fault of ours."""


class HypercornLane:
    """Serves connections with an ASGI application, which must be started before and stopped after (`Lifespan`)."""

    def __init__(
        self,
        application: ASGIFramework,
        http_bounds: HttpBounds,
        metrics: FaultMetrics,
        *,
        keeps: Callable[[IncomingRequest], bool],
    ) -> None:
        self._keeps = keeps
        self._application = application
        self._metrics = metrics
        self._tell_bounded = Bounded(log, bounds.LOG_LINES_PER_SECOND)
        self._config = _hypercorn_config(http_bounds)

    async def serve(self, connection: Connection) -> bool:
        """Answer the connection's request, and those after it that this lane `keeps`.

        True: the connection has a request for another lane. False: it is at its end. Raises `Refused`, and
        BrokenResourceError when the client is gone.
        """
        conversation = _Conversation(connection, self._application, self._metrics, self._tell_bounded)
        server = TCPServer(
            cast(AppWrapper, conversation.application),
            self._config,
            WorkerContext(None),
            cast(Any, {}),
            cast(Any, conversation.pipe),  # it asks for an SSL stream, but uses any
        )
        goes_on = False
        ended: Refused | trio.BrokenResourceError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(conversation.run_hypercorn, server)
            try:
                goes_on = await conversation.run(self._keeps)
            except (Refused, trio.BrokenResourceError) as error:
                ended = error  # raised outside, or the nursery would make a group of it
            nursery.cancel_scope.cancel()
        if ended is not None:
            try:
                raise ended
            finally:
                del ended  # or it and this frame hold each other, and all that was read, until garbage is collected
        return goes_on


class _Conversation:
    """The requests of one connection, one after the other."""

    def __init__(
        self, connection: Connection, application: ASGIFramework, metrics: FaultMetrics, tell_bounded: Bounded
    ) -> None:
        self._tell_bounded = tell_bounded
        self.pipe = Pipe(connection)
        self._connection = connection
        self._application = application
        self._metrics = metrics

    async def run(self, keeps: Callable[[IncomingRequest], bool]) -> bool:
        """Answer requests until one is not for this lane (True) or none comes (False)."""
        connection = self._connection
        while True:
            exchange = await self._answer()
            connection.check()  # Hypercorn keeps to itself what its stream raises
            if exchange.sent == 0:
                raise _refusal(exchange.refused_with)
            if not exchange.complete:
                connection.cut()
                return False
            if exchange.last:
                await connection.linger()
                return False
            if not await connection.read_head():
                return False
            if not keeps(connection.request):
                return True

    async def _answer(self) -> Exchange:
        connection = self._connection
        inbound = connection.take_request()
        try:
            body = await connection.read_body(inbound)
            exchange = Exchange(connection, last=not inbound.keep_alive or connection.closing)
            self.pipe.begin(exchange, wire_request(inbound, body, last=exchange.last))
            del body  # Hypercorn has its own, and the application may take a while
            await exchange.over.wait()
        finally:
            connection.release_body()
        return exchange

    async def run_hypercorn(self, server: TCPServer) -> None:
        """Run Hypercorn's part. Faults end here: the lane sees that there is no answer."""
        try:
            await server.run()
        except* Exception as errors:
            fault = describe(errors)
            self._metrics.connection_failed(fault.kind)
            address = self._connection.peer[0]
            self._tell_bounded.error("hypercorn_failed", address=address, kinds=fault.kinds, where=fault.where)
        finally:
            self.pipe.close()

    async def application(self, scope: Scope, receive: Receive, send: Send, _spawn: object, _call: object) -> None:
        """What Hypercorn calls for each request. Faults end here, so that Hypercorn has nothing to tell of them."""
        exchange = self.pipe.exchange
        assert exchange is not None
        assert scope["type"] == "http", "no request that the door passes on becomes anything else"
        try:
            await exchange.run(self._application, scope, receive, send)
        except* Exception as errors:
            # That a client left is no fault, whatever the application makes of it.
            if not self._connection.gone:
                self._tell(errors, scope)

    def _tell(self, error: BaseException, scope: Scope) -> None:
        fault = describe(error)
        self._metrics.connection_failed(fault.kind)
        # The query is left out: it may carry a token.
        path = scope["path"][: bounds.PATH_CHARACTERS_TOLD_MAX]
        self._tell_bounded.error(
            "request_failed", method=scope["method"], path=path, kinds=fault.kinds, where=fault.where
        )


def _refusal(status: int | None) -> Refused:
    """What the client is told when the application gave no answer. `status`: what Hypercorn wanted to tell it."""
    if status is not None and status < 500:
        # Whatever h11 refuses the door has refused before, so nobody should ever see this.
        return Refused(status, "INVALID_REQUEST", "The request is not correct HTTP/1.1.")
    return Refused(500, "INTERNAL_ERROR", "Something went wrong in the server.")


def _hypercorn_config(http_bounds: HttpBounds) -> Config:
    config = Config()
    config.include_server_header = False
    config.keep_alive_timeout = math.inf
    config.keep_alive_max_requests = sys.maxsize
    # A head that is written anew may be a little longer: `a:b` becomes `a: b`.
    config.h11_max_incomplete_size = 2 * http_bounds.head_bytes_max
    config.logger_class = _HypercornLog
    return config


class _HypercornLog(Logger):
    """Takes what Hypercorn tells into our own log. It says nothing below a warning that we don't know better."""

    def __init__(self, config: Config) -> None:  # noqa: ARG002  # Hypercorn makes it so; its own would open handlers
        self.access_logger = None
        self.error_logger = None

    async def warning(self, message: str, *_args: Any, **_options: Any) -> None:
        """Tell the message, and what is being handled."""
        error = sys.exception()
        if error is None:
            log.warning("hypercorn", message=message)
        else:
            fault = describe(error)
            log.warning("hypercorn", message=message, kinds=fault.kinds, where=fault.where)

    error = exception = critical = warning
