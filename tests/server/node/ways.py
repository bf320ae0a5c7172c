"""The ways in which a connection is served, and clients that ask in one of them.

express    each request on a new connection: the express lane takes it before anything is remembered of it
loop       each request on a connection that is parked in the express loop, again and again: its head is remembered
http       each request on a connection that Hypercorn serves
"""

from __future__ import annotations

import trio

from tests.server.lanes.setting import OTHER
from tests.server.lanes.setting import get as top
from tests.server.node.nodes import Served
from tests.server.node.questions import Asker, Comparable, Question, comparable

WAYS = ("express", "loop", "http")


async def connect(way: str, served: Served) -> Asker:
    """Open a connection that is served in one way from its next request on."""
    client = Asker(await trio.open_tcp_stream("127.0.0.1", served.port))
    first = {"express": None, "loop": top(), "http": OTHER}[way]
    if first is not None:
        assert "connection" not in (await client.ask(first)).headers
    return client


class Talk:
    """Asks in one way: on a new connection each time, or on one that is kept until an answer ends it."""

    def __init__(self, way: str, served: Served) -> None:
        self._way = way
        self._served = served
        self._clients: list[Asker] = []

    async def open(self, count: int) -> None:
        """Open as many connections as it takes to ask `count` times."""
        while len(self._clients) < (count if self._way == "express" else 1):
            self._clients.append(await connect(self._way, self._served))

    async def ask(self, asked: Question) -> Comparable:
        """Ask once."""
        client = self._clients.pop(0) if self._clients else await connect(self._way, self._served)
        await client.send(asked.data)
        answer = await client.answer(to_head=asked.method == "HEAD")
        if self._way == "express" or "connection" in answer.headers:
            await client.stream.aclose()
        else:
            self._clients.append(client)
        return comparable(asked, answer)

    async def close(self) -> None:
        """Close what is open."""
        for client in self._clients:
            await client.stream.aclose()
