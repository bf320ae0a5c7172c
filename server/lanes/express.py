"""The express lane: the three hot routes, answered by the service with nothing in between.

It is there because the layers of a web framework cost many times what the work itself does. It decides nothing: the
door has read the request and checked it, the service answers it as it would in any lane, and this lane writes the
answer. So an answer is the same, to the byte of its body, whichever lane a request came in by; a test sends every case
through both.

Between two requests a connection is parked in the loop (`server.lanes.express_loop`), which answers by itself what
needs no waiting; here is what does: bodies that come in parts, batches, what is refused, slow clients, the end.

Rules:
- A request for anything else on the same connection goes on to the lane that takes it, with nothing lost; that lane may
  keep the connection. (The Hypercorn lane keeps it for good.)
- HEAD and OPTIONS on the hot routes are not hot. The service answers them as well, but in the other lane.
- Answers leave in the order of the requests, also of pipelined ones: the next request is read when the answer is out.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from server.http.client_address import TrustedProxies
from server.http.connection import Connection
from server.http.messages import Request, Response
from server.lanes.express_loop import LANE, ExpressLoop, request_of, takes

Answer = Callable[[Request, str], Awaitable[Response]]
"""The service: from a request and the name of its lane to the answer. Raises nothing."""


class ExpressLane:
    """Answers the hot routes of any number of connections."""

    def __init__(self, answer: Answer, proxies: TrustedProxies, loop: ExpressLoop) -> None:
        self._answer = answer
        self._proxies = proxies
        self._loop = loop

    async def serve(self, connection: Connection) -> bool:
        """Answer the connection's request, and those after it that are hot too.

        True: the connection has a request for another lane. False: it is at its end. Raises `Refused`, and
        BrokenResourceError when the client is gone.
        """
        while True:
            if await self._answer_one(connection):
                await connection.linger()
                return False
            if not await self._next_request(connection):
                return False
            if not takes(connection.request):
                return True
            # A client that has sent a thousand requests at once must not keep all others waiting for its turn to end.
            await trio.lowlevel.checkpoint()

    async def _answer_one(self, connection: Connection) -> bool:
        """Answer the request that is here; tell whether it was the last. Nothing of it outlives this call."""
        inbound = connection.take_request()
        try:
            request = request_of(connection, inbound, await connection.read_body(inbound), self._proxies)
            response = await self._answer(request, LANE)
        finally:
            connection.release_body()
        last = not inbound.keep_alive or connection.closing
        await connection.respond(response, last=last)
        return last

    async def _next_request(self, connection: Connection) -> bool:
        """Wait until there is a request that the reactor leaves to us. False: the connection is at its end."""
        if connection.is_blank and not await self._park(connection):
            return False
        return connection.has_request or await connection.read_head()

    async def _park(self, connection: Connection) -> bool:
        """Leave the connection to the reactor, and write what it could not. False: the connection is at its end."""
        parked = await self._loop.park(connection)
        if parked is None:
            return False
        if parked.owed:
            await connection.send(parked.owed)
        if parked.last:
            await connection.linger()
        return not parked.last
