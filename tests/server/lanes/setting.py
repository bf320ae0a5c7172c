"""A listener with the express lane, its loop and the other lane in front of a pipeline, and requests for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import trio
import trio.testing

from engine.actor import Submission
from server.api.routes import EXPRESS
from server.http.client_address import TrustedProxies
from server.http.connection import Connection, HttpBounds
from server.lanes.express import ExpressLane
from server.lanes.express_loop import ExpressLoop
from server.lanes.listener import Lane, Listener, open_listeners
from server.lanes.quart_app import create_app
from tests.server.api.support import WRITER, Bench, open_bench
from tests.server.lanes.support import PATIENCE_SECONDS, Client, Counts, Echo

OTHER = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
"""A request for the other lane, which then keeps the connection for good."""


class Setting:
    """A running listener in front of a pipeline."""

    def __init__(self, bench: Bench, loop: ExpressLoop, listener: Listener, counts: Counts) -> None:
        self.bench = bench
        self.loop = loop
        self.listener = listener
        self.counts = counts
        self.port = 0
        self.looping = trio.CancelScope()

    async def connect(self, lane: str = "express") -> Client:
        client = Client(await trio.open_tcp_stream("127.0.0.1", self.port))
        if lane == "http":
            assert (await client.ask(OTHER)).status == 200
        return client

    async def parked(self, source: str = "127.0.0.1") -> Client:
        """A client whose connection waits in the loop for its next request."""
        client = Client(await trio.open_tcp_stream("127.0.0.1", self.port, local_address=source))
        assert (await client.ask(get())).status == 200
        await trio.testing.wait_all_tasks_blocked()
        assert self.is_parked(client)
        return client

    def connection(self, client: Client) -> Connection:
        """The listener's side of a client's connection."""
        own = client.stream.socket.getsockname()
        return next(connection for connection in self.listener._open if connection.peer == own)

    def is_parked(self, client: Client) -> bool:
        """Whether a connection is in the loop now."""
        connection = self.connection(client)
        return any(parked.connection is connection for parked in self.loop._parked.values())

    def lane_count(self, route: str, lane: str) -> float:
        return self.bench.metrics.value("scoreboard_request_seconds_count", route=route, lane=lane)

    async def run_loop(self, *, task_status: trio.TaskStatus[None]) -> None:
        with self.looping:
            await self.loop.run(task_status=task_status)


@asynccontextmanager
async def open_setting(
    bounds: HttpBounds | None = None, *, looping: bool = True, proxies: TrustedProxies | None = None, **options: object
) -> AsyncIterator[Setting]:
    """Run it. `options` are those of the `Bench`."""
    async with open_bench(**options) as bench:
        proxies = proxies or TrustedProxies()
        counts = Counts()
        loop = ExpressLoop(bench.pipeline, proxies)
        listener = Listener(
            await open_listeners("127.0.0.1", 0),
            application=create_app(bench.pipeline, proxies),
            live=Echo(),
            metrics=counts,
            lanes=[Lane(frozenset(EXPRESS), ExpressLane(bench.pipeline.answer, proxies, loop).serve)],
            proxies=proxies,
            http_bounds=bounds,
        )
        setting = Setting(bench, loop, listener, counts)
        with trio.fail_after(PATIENCE_SECONDS):
            async with trio.open_nursery() as nursery:
                if looping:
                    await nursery.start(setting.run_loop)
                ((_, setting.port),) = await nursery.start(listener.run)
                yield setting
                await listener.drain(0.0)
                nursery.cancel_scope.cancel()


class Gate:
    """Keeps the actor from writing what it took from its inbox: requests stay in flight until `open`."""

    def __init__(self, bench: Bench) -> None:
        self._write = bench.actor._write_frame
        self._opened = trio.Event()
        self._reached = trio.Event()
        self.fails_with: Exception | None = None
        bench.actor._write_frame = self._wait  # type: ignore[method-assign]

    async def wait_reached(self) -> None:
        """Wait until something is in flight."""
        await self._reached.wait()

    def open(self) -> None:
        """Let everything through from now on."""
        self._opened.set()

    async def _wait(self, taken: list[Submission]) -> None:
        self._reached.set()
        await self._opened.wait()
        if self.fails_with is None:
            await self._write(taken)
            return
        for submission in taken:
            submission.fail(self.fails_with)


def post(body: bytes, path: str = "/scores/increment", token: str | None = WRITER, extra: bytes = b"") -> bytes:
    head = b"POST %s HTTP/1.1\r\nHost: x\r\nX-Request-Id: same\r\n" % path.encode()
    if token:
        head += b"Authorization: %s\r\n" % token.encode()
    return head + extra + b"Content-Length: %d\r\n\r\n" % len(body) + body


def one(user: str, action: str, **more: object) -> bytes:
    return msgspec.json.encode({"userId": user, "actionId": action, **more})


def batch(items: object, token: str | None = WRITER) -> bytes:
    return post(msgspec.json.encode(items), "/scores/increment/batch", token)


def get(query: str = "", extra: bytes = b"") -> bytes:
    return b"GET /scoreboard/top%s HTTP/1.1\r\nHost: x\r\nX-Request-Id: same\r\n%s\r\n" % (query.encode(), extra)


def chunked(body: bytes, token: str = WRITER) -> bytes:
    pieces = b"".join(b"%x\r\n%s\r\n" % (len(body[i : i + 7]), body[i : i + 7]) for i in range(0, len(body), 7))
    head = b"POST /scores/increment HTTP/1.1\r\nHost: x\r\nX-Request-Id: same\r\nTransfer-Encoding: chunked\r\n"
    return head + b"Authorization: %s\r\n\r\n" % token.encode() + pieces + b"0\r\n\r\n"
