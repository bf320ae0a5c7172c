"""How the nodes of a simulated run reach each other: the real link and the real download, over simulated lines.

The name of a node says who calls it: `leader.replica-1` is the leader, as replica-1 calls it. `patched` makes
`server.replication` open its connections here. It also makes the memory of a feed so small that followers fall behind.
"""

from __future__ import annotations

import random
import ssl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Protocol
from unittest import mock

import httpcore
import httpx
import trio

from server import bounds
from server.replication import bootstrap, download, link
from server.replication.feed import FrameFeed
from server.replication.link import Endpoint, LinkEnded
from tests.sim.books import Books
from tests.sim.lines import End, Line
from tests.sim.profile import Following
from tests.sim.trace import Trace

RING_BYTES = 1_500
"""A few frames, so a follower that was away for a moment reads from the log."""

FETCH_AGAIN_S = 3.0
"""A replica looks again for the files of past periods."""

STALL_S = 6.0
DELAY_S_MAX = 2.0


class Called(Protocol):
    """A node, as others see it."""

    def is_alive(self) -> bool:
        """Whether its process runs."""

    def take_call(self, end: End, caller: str) -> bool:
        """Serve a connection, and remember it; False if the node does not listen."""

    def remember(self, end: End) -> None:
        """Note a connection that the node opened itself."""


class Roads:
    """The lines between the nodes, and what goes wrong on them."""

    def __init__(self, following: Following, dice: random.Random, books: Books, trace: Trace) -> None:
        self.nodes: dict[str, Called] = {}
        self._following = following
        self._dice = dice
        self._books = books
        self._trace = trace

    @contextmanager
    def patched(self) -> Iterator[None]:
        """Make nodes reach each other over these lines, for one run that is alone in its process."""
        with (
            mock.patch.object(link, "connect", self.connect),
            mock.patch.object(bootstrap, "http_client", self.http_client),
            mock.patch.object(download, "http_client", self.http_client),
            mock.patch.object(bounds, "PERIOD_FETCH_SECONDS", FETCH_AGAIN_S),
            mock.patch.dict(FrameFeed.__init__.__kwdefaults__, ring_bytes=RING_BYTES),
        ):
            yield

    async def connect(self, leader: Endpoint, seconds_max: float) -> End:
        """See `server.replication.link.connect`."""
        with trio.move_on_after(seconds_max):
            end = await self.open(leader.host)
            if end is None:
                raise LinkEnded(f"can't connect to {leader.authority}: Connection refused")
            return end
        raise LinkEnded(f"can't connect to {leader.authority}: there was no answer in time")

    def http_client(self, timeout: httpx.Timeout) -> httpx.AsyncClient:
        """See `server.replication.download.http_client`."""
        transport = httpx.AsyncHTTPTransport(verify=_nobody())
        transport._pool = httpcore.AsyncConnectionPool(network_backend=_Backend(self))
        return httpx.AsyncClient(transport=transport, timeout=timeout, trust_env=False)

    async def open(self, host: str) -> End | None:
        """Open a line to a node; None if it does not listen."""
        called, _, caller = host.partition(".")
        await trio.sleep(self.delay_s())
        target, source = self.nodes[called], self.nodes[caller]
        line = Line(self, source.is_alive, target.is_alive)
        if not target.take_call(line.ends[1], caller):
            return None
        source.remember(line.ends[0])
        self._trace.note("line", caller, called)
        self._books.counts["lines opened"] += 1
        return line.ends[0]

    # The weather

    @property
    def calm(self) -> bool:
        """Whether nothing goes wrong any more."""
        return trio.current_time() >= self._following.leader.chaos_s

    def delay_s(self) -> float:
        """See `Weather`."""
        return min(self._dice.expovariate(1 / self._following.leader.delay_s), DELAY_S_MAX)

    def befall(self, line: Line) -> None:
        """See `Weather`."""
        if self.calm:
            return
        luck = self._dice.random()
        if luck < self._following.line_cut:
            self._trace.note("line cut")
            self._books.counts["lines cut"] += 1
            line.cut()
        elif luck < self._following.line_cut + self._following.line_stalled:
            self._trace.note("line stalled")
            self._books.counts["lines stalled"] += 1
            line.stall(self._dice.expovariate(1 / STALL_S))


@cache
def _nobody() -> ssl.SSLContext:
    """A TLS context that is never used; the usual one takes longer to make than a whole run."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class _Backend(httpcore.AsyncNetworkBackend):
    """What httpx's own transport opens its connections with."""

    def __init__(self, roads: Roads) -> None:
        self._roads = roads

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  # the interface is httpcore's
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        with trio.move_on_after(float("inf") if timeout is None else timeout):
            end = await self._roads.open(host)
            if end is None:
                raise httpcore.ConnectError("Connection refused")
            return _Stream(end)
        raise httpcore.ConnectTimeout

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)


class _Stream(httpcore.AsyncNetworkStream):
    def __init__(self, end: End) -> None:
        self._end = end

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        with trio.move_on_after(float("inf") if timeout is None else timeout):
            try:
                return await self._end.receive_some(max_bytes)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise httpcore.ReadError(str(error)) from error
        raise httpcore.ReadTimeout

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        with trio.move_on_after(float("inf") if timeout is None else timeout):
            try:
                return await self._end.send_all(buffer)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise httpcore.WriteError(str(error)) from error
        raise httpcore.WriteTimeout

    async def aclose(self) -> None:
        await self._end.aclose()

    def get_extra_info(self, info: str) -> Any:
        return self._end.is_readable() if info == "is_readable" else None
