"""The Hypercorn lane: every request that no other lane takes, answered by an ASGI application (Quart-Trio).

Theory of operation. Each connection has its own Hypercorn `TCPServer`, whose client is our `Pipe`. The lane's task
reads a request, gives it to Hypercorn whole, waits until the exchange is over, and only then reads on. So Hypercorn
always has a complete, correct request, and a client that neither leaves nor sends before it gets the answer.

Rules:
- Three things make an answer the last one of its connection: the client, the application (`connection: close`), and
  draining. Hypercorn's own reasons (its number of requests, its idle time) are switched off.
- An answer that was begun and can't be finished resets the connection. One that was not begun becomes a refusal.
- At the end of a connection the lane cancels Hypercorn's tasks, which would otherwise wait for their idle time.
- Faults of the application and of Hypercorn end here, as a missing answer. Only a fault's kind and where it was raised
  are logged: messages may quote what the client sent.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any, cast

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
from server.metrics import Metrics

log = structlog.get_logger()


class HypercornLane:
    """Serves connections with an ASGI application. `Lifespan` starts it before and stops it after."""

    def __init__(
        self,
        application: ASGIFramework,
        http_bounds: HttpBounds,
        metrics: Metrics,
        *,
        keeps: Callable[[IncomingRequest], bool],
    ) -> None:
        self.application = application
        self.keeps = keeps
        self._metrics = metrics
        self._tell_bounded = Bounded(log, bounds.LOG_LINES_PER_SECOND)
        self._config = _hypercorn_config(http_bounds)

    async def serve(self, connection: Connection) -> bool:
        """Answer the connection's request, and later ones that this lane `keeps`. What it gives: see `listener.Lane`.

        Raises `Refused`, and BrokenResourceError when the client is gone.
        """
        conversation = _Conversation(self, connection)
        server = TCPServer(
            cast(AppWrapper, conversation.application),
            self._config,
            WorkerContext(None),
            cast(Any, {}),
            cast(Any, conversation.pipe),  # typed as an SSL stream, but any stream will do
        )
        goes_on = False
        ended: Refused | trio.BrokenResourceError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(conversation.run_hypercorn, server)
            try:
                goes_on = await conversation.run()
            except (Refused, trio.BrokenResourceError) as error:
                ended = error  # raised outside, or the nursery would make a group of it
            nursery.cancel_scope.cancel()
        if ended is not None:
            try:
                raise ended
            finally:
                del ended  # or it and this frame would hold each other, and what was read, until garbage collection
        return goes_on

    def tell(self, event: str, errors: BaseException, **more: str) -> None:
        """Log and count a fault of the application or of Hypercorn."""
        fault = describe(errors)
        self._metrics.connection_failed(fault.kind)
        self._tell_bounded.error(event, **more, kinds=fault.kinds, where=fault.where)


class _Conversation:
    """The requests of one connection, one after the other."""

    def __init__(self, lane: HypercornLane, connection: Connection) -> None:
        self.pipe = Pipe(connection)
        self._lane = lane
        self._connection = connection

    async def run(self) -> bool:
        """Answer requests until one is not for this lane (True) or none comes (False)."""
        connection = self._connection
        while True:
            exchange = await self._answer()
            connection.check()  # Hypercorn swallows what its stream raises
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
            if not self._lane.keeps(connection.request):
                return True

    async def _answer(self) -> Exchange:
        connection = self._connection
        inbound = connection.take_request()
        try:
            body = await connection.read_body(inbound)
            exchange = Exchange(connection, last=not inbound.keep_alive or connection.closing)
            self.pipe.begin(exchange, wire_request(inbound, body, last=exchange.last))
            del body  # Hypercorn has a copy, and the application may take a while
            await exchange.over.wait()
        finally:
            connection.release_body()
        return exchange

    async def run_hypercorn(self, server: TCPServer) -> None:
        """Run Hypercorn for this connection. Faults end here: the lane sees that there is no answer."""
        try:
            await server.run()
        except* Exception as errors:
            self._lane.tell("hypercorn_failed", errors, address=self._connection.peer[0])
        finally:
            self.pipe.close()

    async def application(self, scope: Scope, receive: Receive, send: Send, _spawn: object, _call: object) -> None:
        """What Hypercorn calls for each request. Faults end here, so that Hypercorn does not log them."""
        exchange = self.pipe.exchange
        assert exchange is not None
        assert scope["type"] == "http", "this lane takes no WebSocket"
        try:
            await exchange.run(self._lane.application, scope, receive, send)
        except* Exception as errors:
            # What the application raises because its client left is no fault.
            if not self._connection.gone:
                # The query is left out: it may contain a token.
                path = scope["path"][: bounds.PATH_CHARACTERS_TOLD_MAX]
                self._lane.tell("request_failed", errors, method=scope["method"], path=path)


def _refusal(status: int | None) -> Refused:
    """The answer to a client when the application gave none. `status`: what Hypercorn's own answer had."""
    if status is not None and status < 500:
        # The request parser refuses all that h11 refuses, so no client should ever see this.
        return Refused(status, "INVALID_REQUEST", "The request is not correct HTTP/1.1.")
    return Refused(500, "INTERNAL_ERROR", "Something went wrong in the server.")


def _hypercorn_config(http_bounds: HttpBounds) -> Config:
    config = Config()
    config.include_server_header = False
    config.keep_alive_timeout = math.inf
    config.keep_alive_max_requests = sys.maxsize
    # `wire_request` may make a head longer: `a:b` becomes `a: b`.
    config.h11_max_incomplete_size = 2 * http_bounds.head_bytes_max
    config.logger_class = _HypercornLog
    return config


class _HypercornLog(Logger):
    """Writes Hypercorn's warnings and errors to our own log. The rest is dropped: we log it ourselves."""

    def __init__(self, config: Config) -> None:  # noqa: ARG002  # called by Hypercorn; its own would open handlers
        self.access_logger = None
        self.error_logger = None

    async def warning(self, message: str, *_args: Any, **_options: Any) -> None:
        """Log a message, and the exception that is being handled."""
        error = sys.exception()
        if error is None:
            log.warning("hypercorn", message=message)
        else:
            fault = describe(error)
            log.warning("hypercorn", message=message, kinds=fault.kinds, where=fault.where)

    error = exception = critical = warning
