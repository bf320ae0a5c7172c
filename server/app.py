"""The one place that builds everything: a leader from its configuration, in the order that it needs, and its end.

The start, each step needing those before it:

    file limit → lock of the data directory → keys → recovery → actor → checkpointer → live → door → ready

The ends:

    SIGTERM, SIGINT     accept no more · answer what is in flight, close viewers (1012) · actor drains · checkpoint ·
                        close the log · release the lock · 0
    a second signal     leave out what is not done of that, but for the last two, and the checkpoint only if it has
                        not begun: a snapshot takes seconds, and its thread is not left behind · 0
    the disk failed     the actor has told everyone in flight that the outcome is unknown: give these answers a moment
                        to leave · no checkpoint, no retry · close the log · release the lock · 1
    a bug               the same, with its stack in the log · 1

Rules:
- Nothing is served before recovery is done, and the ready line comes last: whoever sees it can connect.
- `serve` raises only before it is ready (ConfigError, LogDamaged, DirectoryInUse …); afterwards whatever goes wrong is
  told in the log and becomes the exit code.
- Every part runs in one nursery. Those whose failure is final are watched (`_watched`): they never raise into the
  nursery, which would cancel the others before their answers are out.
"""

from __future__ import annotations

import gc
import resource
import secrets
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path

import msgspec
import structlog
import trio

from engine.actor import Actor, Applied
from engine.disk import RealDisk
from engine.errors import DiskFault, ScoreboardError
from engine.events import Incremented
from engine.recovery import Finding
from server import bounds, logs
from server.access.auth import Authenticator, AuthFault, key_source, require
from server.access.keys import KeySource
from server.access.rates import Rates
from server.door.door import Door, Lane
from server.door.express import ExpressLane
from server.door.proxies import TrustedProxies
from server.door.reactor import Reactor, is_hot
from server.live.live import Live, open_files_max
from server.metrics import Metrics
from server.protocol import Response
from server.service.api import create_app
from server.service.audit import Audit
from server.service.hot import Hot
from server.service.pages import load_pages
from server.service.parts import Parts, StorageState, request_ids
from server.service.routes import READ
from server.service.service import Service
from server.settings.config import Config, ConfigError
from snapshots.checkpoint import Checkpointer
from snapshots.opening import Opened, Progress, ShowProgress, open_directory
from snapshots.store import DIRECTORY, Store

Bar = Callable[[], AbstractContextManager[ShowProgress]]

PAGES = Path(__file__).parent / "pages"

LAST_ANSWERS_SECONDS = 2.0
"""After the disk failed: for the answers of those in flight to leave. Nothing is between them and the network."""

PROGRESS_LINE_SECONDS = 5.0
"""Between two lines about a recovery that nobody watches on a terminal."""

log = structlog.get_logger()


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


async def serve(config: Config, ready: Callable[[str], None], bar: Bar | None = None) -> int:
    """Run a leader until it is told to stop, and give its exit code.

    `ready` is called with the address once it serves; `bar` shows the progress of recovery, None for log lines.

    Raises:
        ConfigError, DiskFault: it can't start; what was found and what can be done is in the message.
    """
    logs.configure(config.logging.format, config.logging.level)
    _raise_limits()
    disk = RealDisk()
    # The snapshots' directory too, though it is empty for long: a backup copies it and the log.
    disk.make_directory(f"{config.data_dir}/{DIRECTORY}")
    lock = disk.lock(f"{config.data_dir}/lock")
    shutdown = Shutdown()
    code = 0
    refusal: ScoreboardError | None = None
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(shutdown.listen)
            try:
                keys = key_source(config)
                opened = await _recover(config, disk, shutdown, bar or _progress_lines)
                if opened is not None:
                    code = await Leader(config, disk, keys, opened, shutdown).run(ready)
            except ScoreboardError as error:
                refusal = error  # raised outside, or the nursery would make a group of it
            except Exception as bug:
                log.critical("failed", exc_info=bug)
                code = 1
            nursery.cancel_scope.cancel()
    finally:
        lock.release()
    if refusal is not None:
        raise refusal
    log.info("stopped", exit_code=code)
    return code


def _raise_limits() -> None:
    """Take as many open files as the system grants without asking: each viewer is one. Look for garbage less often."""
    gc.set_threshold(bounds.YOUNG_OBJECTS_MAX)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class _Interrupted(Exception):
    """A signal came during recovery."""


async def _recover(config: Config, disk: RealDisk, shutdown: Shutdown, bar: Bar) -> Opened | None:
    """Open the data directory; None if a signal came first.

    In a worker thread, so that signals are heard meanwhile. It stops at its next word of progress, and is not just left
    to itself: it might go on to write after the lock is released.
    """
    began = time.monotonic()
    findings: list[Finding | DiskFault] = []

    def open_it(show: ShowProgress) -> Opened:
        def show_or_stop(progress: Progress) -> None:
            if shutdown.wanted.is_set():
                raise _Interrupted
            show(progress)

        return open_directory(disk, config.data_dir, config.rules, tell=findings.append, progress=show_or_stop)

    # Millions of objects are made here that stay. Looking for garbage among them finds none and takes time; afterwards
    # they are set aside, so that no later collection stops the server to walk over all of them.
    gc.disable()
    try:
        with bar() as show:
            opened = await trio.to_thread.run_sync(open_it, show)
        gc.freeze()
    except _Interrupted:
        return None
    finally:
        gc.enable()
        for finding in findings:
            _tell(finding)
    log.info(
        "recovered",
        seconds=round(time.monotonic() - began, 3),
        snapshot_seq=opened.snapshot_seq,
        seq=opened.scoreboard.seq,
        epoch=opened.scoreboard.epoch,
        actions=len(opened.scoreboard.actions),
    )
    return opened


def _tell(found: Finding | DiskFault) -> None:
    """Log what recovery or a checkpoint came upon, and what an operator can do about it."""
    if isinstance(found, Finding):
        log.warning("recovery", situation=found.situation.name, message=found.message, **_place(found))
    else:
        log.error("disk_fault", message=found.what, **_place(found))


def _place(found: Finding | DiskFault) -> dict[str, object]:
    return {"path": found.path, "offset": found.offset, "seq": found.seq, "remedy": found.remedy}


@contextmanager
def _progress_lines() -> Iterator[ShowProgress]:
    """Tell the progress of a long recovery in the log."""
    told = time.monotonic()

    def show(progress: Progress) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told >= PROGRESS_LINE_SECONDS:
            told = now
            log.info("recovering", **msgspec.structs.asdict(progress))

    yield show


async def _unless(event: trio.Event, work: Callable[[], Awaitable[None]]) -> None:
    """Do some work; cancel it if the event comes first. The work raises nothing."""

    async def cancel_when_it_comes(scope: trio.CancelScope) -> None:
        await event.wait()
        scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(cancel_when_it_comes, nursery.cancel_scope)
        await work()
        nursery.cancel_scope.cancel()


class Leader:
    """All parts of a leader, wired. `run` it once."""

    def __init__(self, config: Config, disk: RealDisk, keys: KeySource, opened: Opened, shutdown: Shutdown) -> None:
        self._config = config
        self._shutdown = shutdown
        self._log = opened.log
        self._metrics = Metrics()
        self._actor = Actor(opened.scoreboard, opened.log, clock_ms=_clock_ms, on_applied=self._applied)
        self._checkpointer = Checkpointer(
            self._actor,
            Store(disk, config.data_dir),
            opened,
            every_events=config.snapshots.every_events,
            keep=config.snapshots.keep,
            log_keep_seconds=config.log.keep_seconds,
            clock_ms=_clock_ms,
            tell=_tell,
        )
        self._authenticator = Authenticator(config.auth, keys)
        audit = Audit(log, time.monotonic)
        self._live = Live(
            opened.scoreboard,
            config.live,
            self._metrics,
            audit,
            now_ms=_clock_ms,
            files_max=open_files_max(),
            authorize=None if config.auth.public_reads else self._authorize_viewer,
        )
        proxies = TrustedProxies(config.proxy_networks)
        service = Service(parts := self._parts(audit))
        self._reactor = Reactor(Hot(service, parts), proxies)
        self._door = Door(
            config.address.host,
            config.address.port,
            application=create_app(service, proxies),
            live=self._live,
            metrics=self._metrics,
            lanes=[Lane(is_hot, ExpressLane(service.answer, proxies, self._reactor).serve)],
            proxies=proxies,
        )

    def _parts(self, audit: Audit) -> Parts:
        limits = self._config.limits
        return Parts(
            writer=self._actor,
            log=self._log,
            authenticator=self._authenticator,
            caller_rates=Rates(limits.caller_per_minute, bounds.RATE_KEYS_MAX),
            user_rates=Rates(limits.user_per_minute, bounds.RATE_KEYS_MAX),
            metrics=self._metrics,
            audit=audit,
            pages=load_pages(PAGES),
            storage=self._storage,
            not_ready=self._not_ready,
            public_reads=self._config.auth.public_reads,
            origins=self._config.live.origins,
            clock_ms=_clock_ms,
            clock_s=time.monotonic,
            new_request_id=request_ids(secrets.token_hex(5)),
        )

    async def run(self, ready: Callable[[str], None]) -> int:
        """Serve until the end is wanted, then end; give the exit code."""
        try:
            refusal = await self._run(ready)
        finally:
            self._log.close()
        if refusal is not None:
            raise refusal
        return 1 if self._shutdown.fault else 0

    async def _run(self, ready: Callable[[str], None]) -> ConfigError | None:
        async with trio.open_nursery() as tasks:
            await tasks.start(self._watched, self._run_checkpointer)
            for part in (self._actor, self._live, self._authenticator, self._reactor):
                await tasks.start(self._watched, part.run)
            try:
                addresses = await tasks.start(self._door.run)
            except OSError as error:
                tasks.cancel_scope.cancel()
                return ConfigError("bind", f"can't listen on {self._config.bind}: {error.strerror or error}")
            url = _url(*addresses[0])
            log.info("started", url=url, version=version("scoreboard"), seq=self._actor.tail.seq)
            ready(url)
            await self._shutdown.wanted.wait()
            await self._end()
            tasks.cancel_scope.cancel()
        return None

    async def _watched(
        self, part: Callable[..., Awaitable[None]], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Run a part whose failure ends the process, but not before the others have had their say."""
        try:
            await part(task_status=task_status)
        except DiskFault as fault:
            self._disk_failed(fault)
        except Exception as fault:
            log.critical("part_failed", exc_info=fault)
            self._shutdown.fail(fault)

    async def _run_checkpointer(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await self._checkpointer.run()

    def _disk_failed(self, fault: DiskFault) -> None:
        log.critical("disk_failed", message=fault.what, **_place(fault))
        self._shutdown.fail(fault)

    async def _end(self) -> None:
        """See the table at the top of this file."""
        seconds = LAST_ANSWERS_SECONDS if self._shutdown.fault else bounds.DRAIN_SECONDS_MAX
        hurried = self._shutdown.hurried
        await _unless(hurried, partial(self._close_doors, seconds))
        await self._actor.drain()
        if self._shutdown.fault is None and not hurried.is_set():
            await _unless(hurried, self._checkpoint)

    async def _close_doors(self, seconds: float) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._door.drain, seconds)
            nursery.start_soon(self._live.close_all, seconds)

    async def _checkpoint(self) -> None:
        """Leave a snapshot behind, so that the next start is quick. Nothing is lost without it."""
        if self._actor.tail.seq == 0:
            return
        try:
            info = await self._checkpointer.take()
        except DiskFault as fault:
            self._disk_failed(fault)
        else:
            log.info("checkpoint", seq=info.seq, path=info.path, bytes=info.bytes)

    def _applied(self, applied: Applied) -> None:
        """Called by the actor after each frame: count it, and let the live channel look at the boards it touched."""
        self._metrics.frame_written(len(applied.events), applied.synced.bytes, applied.synced.seconds)
        boards = {event.board_id for event in applied.events if isinstance(event, Incremented)}
        if any(not isinstance(event, Incremented) for event in applied.events):
            boards = set(self._actor.scoreboard.boards)  # a user's name or presence shows on every board
        self._live.board_changed(boards)

    async def _authorize_viewer(self, authorization: str | None) -> Response | None:
        found = await self._authenticator.examine(authorization)
        fault = found if isinstance(found, AuthFault) else require(found, READ)
        return None if fault is None else fault.response()

    def _not_ready(self) -> str | None:
        return "the server is stopping" if self._shutdown.wanted.is_set() else None

    def _storage(self) -> StorageState:
        on_disk, last = self._log.statistics(), self._checkpointer.statistics()
        return StorageState(on_disk.bytes, on_disk.segments, last.last_seq, last.last_time_ms, last.failed)


def _clock_ms() -> int:
    return time.time_ns() // 1_000_000


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
