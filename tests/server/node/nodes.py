"""Whole nodes in one process, built and served as production does it (`server.node.serving`), and roles for them.

    async with serving(config_of(directory), leader_of_directory) as served:
        served.node, served.world, served.url

Rules:
- The assembly, the lanes, the log, the tokens and the sockets are the real ones. Only clocks, request ids and
  the identities of epochs are fixed, so that two nodes with one history give the same answers to the byte.
- A replica follows a real leader over the loopback. Its heartbeats are a minute apart, so only a test makes it stale.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from itertools import repeat
from pathlib import Path
from unittest.mock import patch

import trio
from trio_websocket import WebSocketRequest, serve_websocket

from engine.actor import Submission
from engine.clock import GivenClock
from engine.disk import RealDisk
from engine.scoreboard import Scoreboard
from server.access.issuers import trusted_issuers
from server.api.pipeline import Head, Pipeline
from server.http.client_address import TrustedProxies
from server.lanes.express_loop import ExpressLoop, Parked
from server.node import serving as production
from server.node.assembly import FollowPlan, assemble_leader, assemble_replica, assemble_shard
from server.node.directories import is_vouched, mark_replica
from server.node.node import Node
from server.node.serving import Assemble, Process
from server.node.shutdown import Shutdown, tell
from server.node.surroundings import Surroundings
from server.replication.bootstrap import Bootstrap, prepare_directory
from server.replication.link import parse_leader
from server.replication.sharding import Shard
from server.role import State
from server.settings.config import Config
from snapshots.opening import open_directory
from tests.e2e import leader as outside
from tests.server.node.test_start import client_of, config_of

START_MS = 1_765_802_096_000  # 2025-12-15T12:34:56.000Z
PUBLIC_URL = "https://scores.example"
IDENTITIES: Callable[[int], bytes] = bytes
"""Draws the identities of logs and epochs. They are all the same, but for tests of nodes that must differ."""

MADE_ID = "made-here"
"""The id of a request that came without one."""


def identity(count: int) -> bytes:
    return IDENTITIES(count)


class CountingLoop(ExpressLoop):
    """The express loop. `remembered` counts the requests whose head came before, and was not read again."""

    def __init__(self, pipeline: Pipeline, proxies: TrustedProxies) -> None:
        super().__init__(pipeline, proxies)
        self.remembered = 0
        self._seen: dict[int, Head] = {}

    def _begin(self, parked: Parked, head: Head, body: bytes, began_s: float) -> None:
        self.remembered += id(head) in self._seen
        self._seen[id(head)] = head
        super()._begin(parked, head, body, began_s)


class Served:
    """A node that is served, and everything around it."""

    def __init__(self, config: Config, disk: RealDisk, shutdown: Shutdown) -> None:
        self.config = config
        self.disk = disk
        self.shutdown = shutdown
        self.node: Node
        self.world: Surroundings
        self.loop: CountingLoop
        self.url = ""

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.url.rpartition(":")[2])

    def asked(self, route: str, lane: str) -> float:
        """Count the requests for a route that came by this lane."""
        return self.world.metrics.value("scoreboard_request_seconds_count", route=route, lane=lane)


async def leader_of_directory(served: Served) -> Assemble:
    """Open a leader's directory and give what builds the leader."""
    config = served.config
    opened = open_directory(served.disk, config.data_dir, config.rules, tell=tell, random_bytes=identity)
    return lambda world: assemble_leader(world, opened)


def replica_of(leader: str, follows: str | None = None) -> Callable[[Served], Awaitable[Assemble]]:
    """Give what opens a replica's directory, which it fetches from `leader`. It then follows `follows`, or the same."""

    async def prepare(served: Served) -> Assemble:
        config, disk = served.config, served.disk
        bootstrap = _bootstrap(served, leader)
        mark_replica(disk, config.data_dir, leader)
        await prepare_directory(disk, config.data_dir, bootstrap, tell=tell)
        opened = open_directory(disk, config.data_dir, config.rules, tell=tell)
        plan = FollowPlan(
            leader=parse_leader(follows or leader),
            bootstrap=bootstrap,
            token=_log_token,
            durable=True,
            vouched=is_vouched(disk, config.data_dir),
        )
        return lambda world: assemble_replica(world, opened, plan)

    return prepare


def shard_of_leader(leader: str, shard: Shard) -> Callable[[Served], Awaitable[Assemble]]:
    """Give what prepares a replica of one shard, which follows `leader`."""

    async def prepare(served: Served) -> Assemble:
        plan = FollowPlan(leader=parse_leader(leader), bootstrap=_bootstrap(served, leader), token=_log_token)
        return partial(assemble_shard, scoreboard=Scoreboard(served.config.rules), shard=shard, plan=plan)

    return prepare


def _bootstrap(served: Served, leader: str) -> Bootstrap:
    return Bootstrap(
        parse_leader(leader),
        served.disk,
        served.config.data_dir,
        token=_log_token,
        uniform=random.uniform,
        tell=_must_not_fail,
    )


@asynccontextmanager
async def serving(
    config: Config, prepare: Callable[[Served], Awaitable[Assemble]], now_ms: Callable[[], int] = lambda: START_MS
) -> AsyncIterator[Served]:
    """Serve a node as its process does, to the end of the block. It ends as after two signals."""
    disk, shutdown, ready = RealDisk(), Shutdown(), trio.Event()
    disk.make_directory(f"{config.data_dir}/snapshots")
    served = Served(config, disk, shutdown)
    build = await prepare(served)

    def assemble(world: Surroundings) -> Node:
        served.world = dataclasses.replace(
            world, clock=GivenClock(now_ms), clock_s=lambda: 100.0, request_ids=repeat(MADE_ID), random_bytes=identity
        )
        served.node = build(served.world)
        return served.node

    def note(url: str) -> None:
        served.url = url
        ready.set()

    async def serve() -> None:
        process = Process(config, disk, trusted_issuers(config), shutdown, lambda: None)
        code = await process.serve(assemble, note)
        assert code == (0 if shutdown.fault is None else 1)

    def make_loop(pipeline: Pipeline, proxies: TrustedProxies) -> CountingLoop:
        served.loop = CountingLoop(pipeline, proxies)
        return served.loop

    async with trio.open_nursery() as nursery:
        with patch.object(production, "ExpressLoop", make_loop):
            nursery.start_soon(serve)
            await ready.wait()
        try:
            yield served
        finally:
            shutdown.hurried.set()
            shutdown.wanted.set()


def config_for(directory: Path, **environ: str) -> Config:
    """The configuration of a node of these tests. Its limits are reached soon."""
    settings = {
        "SCOREBOARD_LIMITS_USER_PER_MINUTE": "80",
        "SCOREBOARD_REPLICATION_HEARTBEAT_SECONDS": "60",
        "SCOREBOARD_REPLICATION_BEHIND_WAIT_SECONDS": "0",
    }
    return config_of(directory, **{**settings, **environ})


@asynccontextmanager
async def serving_replica(
    directory: Path, *, public_url: str = PUBLIC_URL, follows: str | None = None
) -> AsyncIterator[tuple[Served, Served]]:
    """Serve a leader with some scores and a replica of it, which has caught up unless it follows another node."""
    config = config_for(directory / "leader", SCOREBOARD_REPLICATION_PUBLIC_URL=public_url)
    async with serving(config, leader_of_directory) as leader:
        await fill(leader)
        async with serving(config_for(directory / "replica"), replica_of(leader.url, follows)) as replica:
            if follows is None:
                await caught_up(replica)
            yield leader, replica


async def fill(served: Served) -> None:
    """Count a few actions."""
    async with client_of(served.url) as client:
        for user in ("ann", "ben", "cyd"):
            answer = await client.post("/scores/increment", {"userId": user, "actionId": f"first of {user}"})
            assert answer.status == 200


async def caught_up(replica: Served) -> None:
    """Wait until a replica serves what its leader had when it came."""
    reached = trio.Event()
    replica.node.role.on_change(lambda _before, now: reached.set() if now.state is State.FOLLOWING else None)
    if replica.node.role.now.state is not State.FOLLOWING:
        await reached.wait()


@asynccontextmanager
async def silent_node() -> AsyncIterator[str]:
    """A node that opens every link and says nothing on it; its address."""

    async def be_silent(request: WebSocketRequest) -> None:
        await request.accept()
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve_websocket, be_silent, "127.0.0.1", 0, None))
        yield f"http://127.0.0.1:{server.port}"
        nursery.cancel_scope.cancel()


class Gate:
    """Keeps the actor of a node from writing what it took from its inbox: requests stay in flight until `open`."""

    def __init__(self, served: Served) -> None:
        actor = served.node.actor
        assert actor is not None
        self._write = actor._write_frame
        self._opened = trio.Event()
        self.reached = trio.Event()
        actor._write_frame = self._wait  # type: ignore[method-assign]

    def open(self) -> None:
        """Let everything through from now on."""
        self._opened.set()

    async def _wait(self, taken: list[Submission]) -> None:
        self.reached.set()
        await self._opened.wait()
        await self._write(taken)


def _log_token() -> str:
    return outside.token("log:read")


def _must_not_fail(reason: str) -> None:
    raise AssertionError(reason)
