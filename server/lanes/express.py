"""The express lane: the three busiest routes, answered by the pipeline without a web framework.

    Lane(takes, ExpressLane(pipeline.answer, proxies, loop).serve)

A web framework costs many times what the work itself costs. This lane decides nothing: the request parser has checked
the request, the pipeline answers it, and this lane writes the answer. So the body of an answer is the same in every
lane; a test sends every case through both.

Between two requests a connection is parked in the express loop (`server.lanes.express_loop`), which answers what needs
no waiting. This lane does the rest: bodies that come in parts, batches, refusals, slow clients, the end.

Rules:
- A request for another lane is given back to the listener with nothing lost. The Hypercorn lane then keeps the
  connection for good.
- HEAD and OPTIONS on these routes are for the other lane.
- A client that closes its side while the past is read for it gets no answer, and frees its turn.
- Answers are written in the order of the requests: the next request is read after the answer to the last one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import trio

from server.http.client_address import TrustedProxies
from server.http.connection import Connection
from server.http.messages import Request, Response
from server.lanes.express_loop import LANE, ExpressLoop, request_of, takes

Answer = Callable[[Request, str], Awaitable[Response]]
"""Makes the answer to a request, given the name of its lane. Raises nothing."""


_PAST = "asOf"
"""What a query has that asks for the past. To answer that takes seconds, so a client may leave before."""


class ExpressLane:
    """Serves any number of connections."""

    def __init__(self, answer: Answer, proxies: TrustedProxies, loop: ExpressLoop) -> None:
        self._answer = answer
        self._proxies = proxies
        self._loop = loop

    async def serve(self, connection: Connection) -> bool:
        """Answer the connection's request, and later ones for this lane. What it gives: see `Lane`.

        Raises `Refused`, and BrokenResourceError when the client is gone.
        """
        while True:
            if await self._answer_one(connection):
                await connection.linger()
                return False
            if not await self._next_request(connection):
                return False
            if not takes(connection.request):
                return True
            # A client that has sent a thousand requests at once must not keep all others waiting.
            await trio.lowlevel.checkpoint()

    async def _answer_one(self, connection: Connection) -> bool:
        """Answer the request that is here; say whether it was the last. No variable keeps it after this call."""
        inbound = connection.take_request()
        try:
            request = request_of(connection, inbound, await connection.read_body(inbound), self._proxies)
            if _PAST in request.query:
                response = await connection.while_open(partial(self._answer, request, LANE))
            else:
                response = await self._answer(request, LANE)
        finally:
            connection.release_body()
        last = not inbound.keep_alive or connection.closing
        await connection.respond(response, last=last)
        return last

    async def _next_request(self, connection: Connection) -> bool:
        """Wait for a request that the express loop leaves to this lane. False: the connection is at its end."""
        if connection.is_blank and not await self._park(connection):
            return False
        return connection.has_request or await connection.read_head()

    async def _park(self, connection: Connection) -> bool:
        """Park the connection in the loop, then write the rest of its last answer. False: it is at its end."""
        parked = await self._loop.park(connection)
        if parked is None:
            return False
        if parked.owed:
            await connection.send(parked.owed)
        if parked.last:
            await connection.linger()
        return not parked.last
