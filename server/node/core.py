"""What a leader and a replica have in common: everything between the network and a scoreboard, and the end of it.

A node is this and a role (`server.node.leader`, `server.node.replica`). The role says who writes to the scoreboard,
what is served to further replicas, and what is to be done before the process ends.

    SIGTERM, SIGINT     accept no more · answer what is in flight, close viewers (1012) · the role's own end · 0
    a second signal     leave out what is not done of that · 0
    a fault             give the last answers a moment to leave · the role's own end · 1

Rules:
- Every part runs in one nursery. Those whose failure is final are watched (`watched`): they never raise into the
  nursery, which would cancel the others before their answers are out.
- Whoever reads the ready line can connect.
"""

from __future__ import annotations

import secrets
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import structlog
import trio

from engine.actor import Applied
from engine.errors import DiskFault
from engine.events import Incremented
from engine.recovery import Finding
from engine.scoreboard import Scoreboard
from server import bounds
from server.access.auth import Authenticator, AuthFault, require
from server.access.keys import KeySource
from server.access.rates import Rates
from server.api.audit import Audit
from server.api.dependencies import LogReader, Parts, Promote, StorageState, request_ids
from server.api.hot import Hot
from server.api.pages import load_pages
from server.api.pipeline import Service
from server.api.routes import READ
from server.api.standing import Gate, Standing
from server.http.client_address import TrustedProxies
from server.http.messages import Response
from server.lanes.express import ExpressLane
from server.lanes.express_loop import ExpressLoop, is_hot
from server.lanes.listener import Lane, Listener
from server.lanes.quart_app import create_app
from server.live.live import Live, open_files_max
from server.metrics import Metrics
from server.settings.config import Config, ConfigError

PAGES = Path(__file__).parents[1] / "pages"

LAST_ANSWERS_SECONDS = 2.0
"""After the disk failed: for the answers of those in flight to leave. Nothing is between them and the network."""

log = structlog.get_logger()

Part = Callable[..., Awaitable[None]]
"""Runs until it is cancelled, and says when it has started."""


class Shutdown:
    """How the end is asked for: `wanted` by the first signal or a failure, `hurried` by the second signal."""

    def __init__(self) -> None:
        self.wanted = trio.Event()
        self.hurried = trio.Event()
        self.fault: BaseException | None = None

    async def listen(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Heed signals until cancelled."""
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            task_status.started()
            async for number in signals:
                again = self.wanted.is_set()
                log.info("signal", signal=signal.Signals(number).name, again=again)
                (self.hurried if again else self.wanted).set()

    def fail(self, fault: BaseException) -> None:
        """End because of a fault; the first one counts."""
        if self.fault is None:
            self.fault = fault
        self.wanted.set()


def tell(found: Finding | DiskFault) -> None:
    """Log what recovery or a checkpoint came upon, and what an operator can do about it."""
    if isinstance(found, Finding):
        log.warning("recovery", situation=found.situation.name, message=found.message, **place_of(found))
    else:
        log.error("disk_fault", message=found.what, **place_of(found))


def place_of(found: Finding | DiskFault) -> dict[str, object]:
    """Where a fault is and what can be done, for the log."""
    return {"path": found.path, "offset": found.offset, "seq": found.seq, "remedy": found.remedy}


def clock_ms() -> int:
    """Wall-clock time in ms since 1970."""
    return time.time_ns() // 1_000_000


async def unless(event: trio.Event, work: Callable[[], Awaitable[None]]) -> None:
    """Do some work; cancel it if the event comes first. The work raises nothing."""

    async def cancel_when_it_comes(scope: trio.CancelScope) -> None:
        await event.wait()
        scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(cancel_when_it_comes, nursery.cancel_scope)
        await work()
        nursery.cancel_scope.cancel()


class Role(Protocol):
    """What a node is: its own parts, lanes and end."""

    def parts(self) -> Sequence[Part]:
        """Give what runs as long as the node, in the order of its start."""

    def lanes(self) -> Sequence[Lane]:
        """Give the lanes for plain requests."""

    def websocket_lanes(self) -> Sequence[Lane]:
        """Give the lanes for upgrades."""

    def close_links(self) -> None:
        """End what is served to replicas, before the door drains."""

    async def end(self) -> None:
        """End, after the doors are closed."""

    def close(self) -> None:
        """Give back what it holds. The last thing of all."""

    def storage(self) -> StorageState:
        """Tell what is on disk."""

    def followers(self) -> int:
        """Count the replicas that follow this node."""

    def not_ready(self) -> str | None:
        """Give why requests should go elsewhere, None if they are welcome."""

    async def promote(self) -> tuple[int, int]:
        """Become the leader."""


class Core:
    """The parts of a node that do not depend on its role. `serve` it once, in its role.

    `url` is the address that it listens on, empty before it does. `clock_ms` and `tell` are what a role is to use.
    """

    clock_ms = staticmethod(clock_ms)
    tell = staticmethod(tell)

    def __init__(
        self, config: Config, scoreboard: Scoreboard, keys: KeySource, shutdown: Shutdown, standing: Standing
    ) -> None:
        self.config = config
        self.scoreboard = scoreboard
        self.shutdown = shutdown
        self.standing = standing
        self.metrics = Metrics()
        self.gate = Gate(scoreboard, standing)
        self.tasks: trio.Nursery | None = None
        self.url = ""
        self._authenticator = Authenticator(config.auth, keys)
        self._audit = Audit(log, time.monotonic)
        self.live = Live(
            scoreboard,
            config.live,
            self.metrics,
            self._audit,
            now_ms=clock_ms,
            files_max=open_files_max(),
            authorize=None if config.auth.public_reads else partial(self.authorize, READ),
            stale_ms=standing.stale_ms,
            check=self._check_viewer,
        )

    def _check_viewer(self, board_id: str) -> None:
        self.standing.check_read()
        self.standing.check_board(board_id)

    def _open(self, role: Role, reader: LogReader) -> tuple[Listener, ExpressLoop]:
        proxies = TrustedProxies(self.config.proxy_networks)
        parts = self._parts(role, reader)
        service = Service(parts)
        reactor = ExpressLoop(Hot(service, parts), proxies)
        door = Listener(
            self.config.address.host,
            self.config.address.port,
            application=create_app(service, proxies),
            live=self.live,
            metrics=self.metrics,
            lanes=[Lane(is_hot, ExpressLane(service.answer, proxies, reactor).serve), *role.lanes()],
            websocket_lanes=role.websocket_lanes(),
            proxies=proxies,
        )
        return door, reactor

    def _parts(self, role: Role, reader: LogReader) -> Parts:
        limits = self.config.limits
        promote: Promote = role.promote
        return Parts(
            writer=self.gate,
            log=reader,
            authenticator=self._authenticator,
            caller_rates=Rates(limits.caller_per_minute, bounds.RATE_KEYS_MAX),
            user_rates=Rates(limits.user_per_minute, bounds.RATE_KEYS_MAX),
            metrics=self.metrics,
            audit=self._audit,
            pages=load_pages(PAGES),
            storage=role.storage,
            not_ready=lambda: "the server is stopping" if self.shutdown.wanted.is_set() else role.not_ready(),
            public_reads=self.config.auth.public_reads,
            origins=self.config.live.origins,
            clock_ms=clock_ms,
            clock_s=time.monotonic,
            new_request_id=request_ids(secrets.token_hex(5)),
            standing=self.standing,
            followers=role.followers,
            promote=promote,
        )

    async def serve(self, role: Role, reader: LogReader, ready: Callable[[str], None]) -> int:
        """Serve until the end is wanted, then end; give the exit code. Raises ConfigError if it can't listen."""
        try:
            refusal = await self._serve(role, reader, ready)
        finally:
            role.close()
        if refusal is not None:
            raise refusal
        return 1 if self.shutdown.fault else 0

    async def _serve(self, role: Role, reader: LogReader, ready: Callable[[str], None]) -> ConfigError | None:
        door, reactor = self._open(role, reader)
        async with trio.open_nursery() as tasks:
            self.tasks = tasks
            for part in (*role.parts(), self.live.run, self._authenticator.run, reactor.run):
                await tasks.start(self.watched, part)
            try:
                addresses = await tasks.start(door.run)
            except OSError as error:
                tasks.cancel_scope.cancel()
                return ConfigError("bind", f"can't listen on {self.config.bind}: {error.strerror or error}")
            self.url = _url(*addresses[0])
            log.info("started", url=self.url, version=version("scoreboard"), seq=self.scoreboard.seq)
            ready(self.url)
            await self.shutdown.wanted.wait()
            role.close_links()
            seconds = LAST_ANSWERS_SECONDS if self.shutdown.fault else bounds.DRAIN_SECONDS_MAX
            await unless(self.shutdown.hurried, partial(self._close_doors, door, seconds))
            await role.end()
            tasks.cancel_scope.cancel()
        return None

    async def watched(self, part: Part, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run a part whose failure ends the process, but not before the others have had their say."""
        try:
            await part(task_status=task_status)
        except DiskFault as fault:
            self.disk_failed(fault)
        except Exception as fault:
            log.critical("part_failed", exc_info=fault)
            self.shutdown.fail(fault)

    def disk_failed(self, fault: DiskFault) -> None:
        """End because the disk can't be written."""
        log.critical("disk_failed", message=fault.what, **place_of(fault))
        self.shutdown.fail(fault)

    async def _close_doors(self, door: Listener, seconds: float) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(door.drain, seconds)
            nursery.start_soon(self.live.close_all, seconds)

    def applied(self, applied: Applied) -> None:
        """Take note of a frame that was applied: count it, let viewers and those who wait for a position look."""
        self.metrics.frame_written(len(applied.events), applied.synced.bytes, applied.synced.seconds)
        boards = {event.board_id for event in applied.events if isinstance(event, Incremented)}
        if any(not isinstance(event, Incremented) for event in applied.events):
            boards = set(self.scoreboard.boards)  # a user's name or presence shows on every board
        self.live.board_changed(boards)
        self.standing.advanced()

    async def authorize(self, scopes: tuple[str, ...], authorization: str | None) -> Response | None:
        """Give the answer for one who may not, None for one who may."""
        found = await self._authenticator.examine(authorization)
        fault = found if isinstance(found, AuthFault) else require(found, scopes)
        return None if fault is None else fault.response()


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
