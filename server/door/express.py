"""The express lane: the three hot routes, answered by the service with nothing in between.

It is there because the layers of a web framework cost many times what the work itself does. It decides nothing: the
door has read the request and checked it, the service answers it as it would in any lane, and this lane writes the
answer. So an answer is the same, to the byte of its body, whichever lane a request came in by; a test sends every case
through both.

Rules:
- A request for anything else on the same connection goes on to the lane that takes it, with nothing lost; that lane may
  keep the connection. (The Hypercorn lane keeps it for good.)
- HEAD and OPTIONS on the hot routes are not hot. The service answers them as well, but in the other lane.
- Answers leave in the order of the requests, also of pipelined ones: the next request is read when the answer is out.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from email.utils import formatdate

import trio

from server.door.inspector import Inbound
from server.door.proxies import TrustedProxies
from server.door.streams import Connection
from server.protocol import Request, Response, http_bytes, joined_headers

LANE = "express"

HOT = frozenset(
    {("POST", "/scores/increment"), ("POST", "/scores/increment/batch"), ("GET", "/scoreboard/top")}
)
"""Methods and paths that this lane takes."""

Answer = Callable[[Request, str], Awaitable[Response]]
"""The service: from a request and the name of its lane to the answer. Raises nothing."""


def is_hot(inbound: Inbound) -> bool:
    """Whether a request is for this lane."""
    return (inbound.head.method, inbound.path) in HOT


class ExpressLane:
    """Answers the hot routes of any number of connections."""

    def __init__(self, answer: Answer, proxies: TrustedProxies) -> None:
        self._answer = answer
        self._proxies = proxies
        self._date = (0, "")

    async def serve(self, connection: Connection) -> bool:
        """Answer the connection's request, and those after it that are hot too.

        True: the connection has a request for another lane. False: it is at its end. Raises `Refused`, and
        BrokenResourceError when the client is gone.
        """
        while True:
            if await self._answer_one(connection):
                await connection.linger()
                return False
            if not await connection.read_head():
                return False
            if not is_hot(connection.request):
                return True
            # A client that has sent a thousand requests at once must not keep all others waiting for its turn to end.
            await trio.lowlevel.checkpoint()

    async def _answer_one(self, connection: Connection) -> bool:
        """Answer the request that is here; tell whether it was the last. Nothing of it outlives this call."""
        inbound = connection.take_request()
        try:
            request = self._request(connection, inbound, await connection.read_body(inbound))
            response = await self._answer(request, LANE)
        finally:
            connection.release_body()
        last = not inbound.keep_alive or connection.closing
        await connection.send(http_bytes(response, last=last, date=self._now()))
        return last

    def _request(self, connection: Connection, inbound: Inbound, body: bytes) -> Request:
        head = inbound.head
        path, _, query = head.target.partition("?")
        headers = joined_headers(head.headers)
        address = self._proxies.client(connection.peer[0], headers.get("x-forwarded-for", ""))
        return Request(head.method, path, query, headers, body, address)

    def _now(self) -> str:
        """The Date of an answer, made anew once a second."""
        second = int(time.time())
        if second != self._date[0]:
            self._date = (second, formatdate(second, usegmt=True))
        return self._date[1]
