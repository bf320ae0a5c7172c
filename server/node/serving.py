"""A node as a process: from its assembly to its exit code.

    bind ─► assemble ─► start the tasks ─► accept ─► ready ─► … wanted ─► drain ─► the node's end ─► exit code

    A new replica has a node before that one, which waits for the leader (`server.node.waiting`). The addresses stay
    bound from the one to the other, so a connection that comes between them waits a moment.

    signal        answer what is in flight, close viewers, finish what waits, take a snapshot       0
    fault         give the last answers LAST_ANSWERS_SECONDS to leave, take no snapshot             1

Rules:
- The address is bound before the node is built, because the node may tell it to others. Connections are accepted when
  everything runs.
- The ready line comes last: a client that sees it can connect.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from functools import partial
from importlib.metadata import version
from itertools import count
from pathlib import Path

import structlog
import trio

from engine.disk import Disk
from engine.machine import Applied
from engine.scoreboard import Scoreboard
from server import bounds, logs
from server.access.auth import Authenticator
from server.access.issuers import TrustedIssuer, key_warnings
from server.access.key_exchange import KeyExchange
from server.access.lease import authorize, user_of
from server.api.audit import Audit
from server.api.pages import Page, load_pages
from server.api.role_checks import RoleChecks
from server.api.routes import EXPRESS, LIVE_VIEW, READ
from server.http.client_address import TrustedProxies
from server.http.connection import HttpBounds
from server.lanes.express import ExpressLane
from server.lanes.express_loop import ExpressLoop
from server.lanes.listener import Lane, Listener
from server.lanes.quart_app import create_app
from server.live.live import Live, open_files_max
from server.metrics import Metrics
from server.node.clock import NodeClock
from server.node.listening import listen, own_url, urls_of
from server.node.node import Node
from server.node.shutdown import Guard, Shutdown, unless
from server.node.surroundings import LiveChannel, Surroundings
from server.past.questions import Start
from server.past.reader import PastReader
from server.replication.freshness import Freshness
from server.settings.config import Config

PAGES = Path(__file__).parents[1] / "pages"

LAST_ANSWERS_SECONDS = 2.0
"""The time for the last answers after the disk failed. They only have to be sent."""

log = structlog.get_logger()

Assemble = Callable[[Surroundings], Node]
Ready = Callable[..., None]
"""Takes the URLs that the node listens on, the first of `bind` first."""


class Process:
    """What a process has beside its node: keys, metrics, the audit, listeners."""

    def __init__(
        self, config: Config, disk: Disk, issuers: Sequence[TrustedIssuer], shutdown: Shutdown,
        check_held: Callable[[], None], *, follows: bool = False,
    ) -> None:  # fmt: skip
        """`follows`: the node starts as a replica."""
        self._config = config
        self._disk = disk
        self._shutdown = shutdown
        self._check_held = check_held
        self._guard = Guard(shutdown)
        self._metrics = Metrics()
        self._clock = NodeClock(self._metrics)
        self._audit = Audit(log, time.monotonic)
        self._authenticator = Authenticator(issuers)
        self._key_exchange = KeyExchange(issuers, follows=follows)
        self._key_warnings = partial(key_warnings, issuers)
        self._past = PastReader(Start(str(Path(config.data_dir).absolute()), config.rules))
        self._proxies = TrustedProxies(config.proxy_networks)
        self._node_id = secrets.token_hex(8)
        self._bound: list[trio.SocketListener] | None = None
        self._node: Node | None = None

    @property
    def node_id(self) -> str:
        """What names this process in the paths of nodes."""
        return self._node_id

    def reload(self, config: Config) -> None:
        """Take over what a running process can of another configuration (`server.settings.reload`)."""
        self._config = config
        logs.configure(config.logging.format, config.logging.level)
        self._audit.relevel()
        if self._node is not None:
            self._node.reload(config)

    async def serve_first(self, assemble: Assemble, ready: Ready, until: trio.Event) -> None:
        """Serve a node that stands in for the real one, until an event or the end. The addresses stay bound.

        Raises ConfigError if one can't be bound.
        """
        self._bound = await listen(self._config.addresses)
        async with trio.open_nursery() as tasks:
            world = self._surroundings(tasks, own_url(urls_of(self._bound)))
            node = assemble(world)
            await self._serve(node, world, [_shared(each) for each in self._bound], ready, until.wait)
            tasks.cancel_scope.cancel()

    async def serve(self, assemble: Assemble, ready: Ready) -> int:
        """Serve until the end is wanted; give the exit code. Raises ConfigError if an address can't be bound."""
        listeners = self._bound or await listen(self._config.addresses)
        with ExitStack() as at_last:
            async with trio.open_nursery() as tasks:
                world = self._surroundings(tasks, own_url(urls_of(listeners)))
                node = assemble(world)
                at_last.callback(node.close)
                await self._serve(node, world, listeners, ready)
                tasks.cancel_scope.cancel()
        return 1 if self._shutdown.fault else 0

    async def _serve(
        self, node: Node, world: Surroundings, listeners: list[trio.SocketListener], ready: Ready,
        work: Callable[[], Awaitable[None]] = trio.sleep_forever,
    ) -> None:  # fmt: skip
        """Serve until the work is done or the end is wanted."""
        self._node = node
        urls = urls_of(listeners)
        live = node.live
        loop = ExpressLoop(node.pipeline, self._proxies)
        express = ExpressLane(node.pipeline.answer, self._proxies, loop)
        listener = Listener(
            listeners,
            application=create_app(node.pipeline, self._proxies),
            live=live,
            metrics=self._metrics,
            lanes=[Lane(frozenset(EXPRESS), express.serve), *node.lanes()],
            websocket_lanes=node.websocket_lanes(),
            proxies=self._proxies,
            http_bounds=HttpBounds.of(self._config.http),
        )
        for task in (self._clock.run, *node.tasks, live.run, self._authenticator.run, loop.run, self._past.run):
            await world.tasks.start(self._guard.watched, task)
        await world.tasks.start(listener.run)
        log.info("started", url=world.url, urls=urls, version=version("scoreboard"), seq=node.scoreboard.seq)
        ready(*urls)
        await unless(self._shutdown.wanted, work)
        node.begin_end()
        seconds = LAST_ANSWERS_SECONDS if self._shutdown.fault else bounds.DRAIN_SECONDS_MAX
        await unless(self._shutdown.hurried, partial(_close_all, listener, live, seconds))
        await node.end()

    def _surroundings(self, tasks: trio.Nursery, url: str) -> Surroundings:
        return Surroundings(
            config=self._config,
            disk=self._disk,
            tasks=tasks,
            shutdown=self._shutdown,
            guard=self._guard,
            url=url,
            authenticator=self._authenticator,
            metrics=self._metrics,
            audit=self._audit,
            request_ids=map(f"{secrets.token_hex(5)}-%06x".__mod__, count(1)),
            make_live=self._make_live,
            applied=self._applied,
            clock=self._clock,
            check_held=self._check_held,
            pages=self._pages(),
            key_exchange=self._key_exchange,
            past=self._past,
            node_id=self._node_id,
            key_warnings=self._key_warnings,
        )

    def _pages(self) -> dict[str, Page]:
        """Read the pages that this node serves."""
        pages = load_pages(PAGES)
        if not self._config.console.enabled:
            del pages["console"]
        return pages

    def _make_live(self, scoreboard: Scoreboard, freshness: Freshness, checks: RoleChecks) -> Live:
        config = self._config
        return Live(
            scoreboard,
            config.live,
            self._metrics,
            self._audit,
            now_ms=self._clock.now_ms,
            files_max=open_files_max(),
            authorize=None if config.auth.public_reads else partial(authorize, self._authenticator, READ),
            identify=partial(user_of, self._authenticator),
            authorize_live=partial(authorize, self._authenticator, LIVE_VIEW),
            stale_ms=freshness.stale_ms,
            check=checks.check_viewer,
            form=config.privacy.names,
            clics_version=config.feeds.clics_version,
        )

    def _applied(self, applied: Applied) -> None:
        self._metrics.frame_written(len(applied.events), applied.synced.bytes, applied.synced.seconds)


def _shared(listener: trio.SocketListener) -> trio.SocketListener:
    """Give another listener of the same socket. Closing it leaves the address bound."""
    return trio.SocketListener(listener.socket.dup())


async def _close_all(listener: Listener, live: LiveChannel, seconds: float) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listener.drain, seconds)
        nursery.start_soon(live.close_all, seconds)
