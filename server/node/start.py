"""The start of a process: from its configuration to a node that serves.

    leader       file limit → finish a cut exchange → lock → is it a leader's directory? → keys → recovery → node
    replica      the same; a directory without a log first gets the leader's newest snapshot, or an empty log. Meanwhile
                 a node that has nothing answers (`server.node.waiting`)

    code = await serve(config, ready=print)

Rules:
- The lock is held from before the first look at the directory to the end, and every change of a name checks that it
  still is (`HeldDisk`). A log without a lock may have lost it under a process that runs: the start then waits a little.
- No state is served before recovery is done, and the ready line comes last (`server.node.serving`).
- `serve` and `follow` raise only before they are ready (ConfigError, LogDamaged, DirectoryInUse …). Later faults are
  logged, and become the exit code.
"""

from __future__ import annotations

import gc
import os
import random
import resource
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import msgspec
import structlog
import trio

from engine.disk import RealDisk, UnsyncedDisk
from engine.errors import DiskFault, ScoreboardError
from engine.held_disk import HeldDisk
from engine.log_reader import holds_log
from engine.recovery import Finding
from engine.scoreboard import Scoreboard
from server import bounds, logs
from server.access.issuers import trusted_issuers
from server.node.assembly import FollowPlan, assemble_leader, assemble_replica, assemble_shard, assemble_waiting
from server.node.directories import TokenFile, check_leads, check_not_deposed, is_vouched, leader_of, mark_replica
from server.node.file_boards import check_file_boards
from server.node.node import Node
from server.node.reload import Read, Reloads
from server.node.service_manager import ServiceManager
from server.node.serving import Process, Ready
from server.node.shutdown import Shutdown, tell, unless
from server.node.surroundings import Surroundings
from server.node.waiting import Waiting
from server.replication.bootstrap import Bootstrap, prepare_directory
from server.replication.link import parse_leader
from server.replication.sharding import Shard
from server.role import Role
from server.settings.auth import secret_notes
from server.settings.config import Config
from server.settings.environment import service_links
from snapshots.action_store import DIRECTORY as ACTIONS
from snapshots.demotion import finish_exchange
from snapshots.opening import Opened, Progress, ShowProgress, log_directory, open_directory
from snapshots.restore import LOCK_FILE
from snapshots.settling import remove_downloads
from snapshots.store import DIRECTORY as SNAPSHOTS

Bar = Callable[[], AbstractContextManager[ShowProgress]]

PROGRESS_LINE_SECONDS = 5.0
"""Time between two log lines about a recovery or a download, without a terminal."""

log = structlog.get_logger()


class FollowOptions(msgspec.Struct, frozen=True):
    """How a replica follows. `durable`: its directory is kept; otherwise it is a temporary one of the caller."""

    shard: Shard | None
    durable: bool


async def serve(config: Config, ready: Ready, bar: Bar | None = None, reread: Read | None = None) -> int:
    """Run a leader until it is told to stop; give its exit code. Raises ConfigError or DiskFault if it can't start.

    `ready` is called with the addresses once it serves. `bar` shows the progress of recovery; None: log lines do.
    `reread` reads the configuration again, at SIGHUP.
    """

    async def run(disk: HeldDisk, shutdown: Shutdown, manager: ServiceManager, reloads: Reloads) -> int:
        check_leads(disk, config.data_dir)
        issuers = trusted_issuers(config)
        opened = await recover(config, disk, shutdown, and_told(bar or progress_lines, manager))
        if opened is None:
            return 0
        check_file_boards(config, opened.scoreboard, time.time_ns() // 1_000_000)
        process = Process(config, disk, issuers, shutdown, disk.check)
        reloads.serve(issuers, process.reload)
        telling = Telling(manager, ready)
        return await process.serve(lambda world: telling.follow(assemble_leader(world, opened), world), telling.ready)

    return await run_process(config, RealDisk(), run, reread)


async def follow(
    config: Config, options: FollowOptions, ready: Ready, bar: Bar | None = None, reread: Read | None = None
) -> int:
    """Run a replica until it is told to stop; give its exit code. Otherwise as `serve`."""
    disk = RealDisk() if options.durable else UnsyncedDisk()
    run = partial(_follow, config, options, ready, bar or progress_lines)
    return await run_process(config, disk, run, reread)


async def _follow(
    config: Config, options: FollowOptions, ready: Ready, bar: Bar, disk: HeldDisk, shutdown: Shutdown,
    manager: ServiceManager, reloads: Reloads,
) -> int:  # fmt: skip
    bar = and_told(bar, manager)
    check_not_deposed(disk, config.data_dir)
    leader_url = leader_of(disk, config.data_dir, config.replication.leader)
    leader = parse_leader(leader_url)
    token = TokenFile(config.replication.token_file)
    issuers = trusted_issuers(config, leads=False)

    process = Process(config, disk, issuers, shutdown, disk.check, follows=True)
    reloads.serve(issuers, process.reload)
    telling = Telling(manager, ready)
    waiting = Waiting(leader_url)
    bootstrap = Bootstrap(
        leader, disk, config.data_dir, token=token, uniform=random.uniform, tell=waiting.told, node_id=process.node_id
    )
    shard = options.shard
    opened = None
    if shard is None:
        mark_replica(disk, config.data_dir, leader_url)
        with bar() as show:
            if not holds_log(disk, log_directory(config.data_dir)):

                def assemble_first(world: Surroundings) -> Node:
                    return telling.follow(assemble_waiting(world, waiting, bootstrap), world)

                fetch = partial(prepare_directory, disk, config.data_dir, bootstrap, tell=tell, progress=as_bytes(show))
                wait = partial(process.serve_first, assemble_first, telling.ready)
                if not await _fetch(fetch, waiting, wait, shutdown):
                    return 1 if shutdown.fault else 0
            opened = await recover(config, disk, shutdown, lambda: nullcontext(show))
        if opened is None:
            return 0
    with progress_lines() as lines:
        plan = FollowPlan(
            leader=leader,
            bootstrap=bootstrap,
            token=token,
            durable=options.durable,
            vouched=options.durable and is_vouched(disk, config.data_dir),
            on_progress=as_bytes(lines),
        )
        assemble: Callable[[Surroundings], Node]
        if opened is not None:
            assemble = partial(assemble_replica, opened=opened, plan=plan)
        else:
            assert shard is not None
            assemble = partial(assemble_shard, scoreboard=Scoreboard(config.rules), shard=shard, plan=plan)
        return await process.serve(lambda world: telling.follow(assemble(world), world), telling.ready)


async def _fetch(
    fetch: Callable[[], Awaitable[None]],
    waiting: Waiting,
    wait: Callable[[trio.Event], Awaitable[None]],
    shutdown: Shutdown,
) -> bool:
    """Fetch what a log begins with, and `wait` if that fails or takes long; False if the end was wanted first.

    Raises what `fetch` and `wait` raise.
    """
    done = trio.Event()
    fault: ScoreboardError | None = None

    async def fetch_it() -> None:
        nonlocal fault
        try:
            await fetch()
        except ScoreboardError as error:
            fault = error  # raised outside, or the nursery would make a group of it
        done.set()
        waiting.changed.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fetch_it)
        with trio.move_on_after(bounds.WAITING_AFTER_SECONDS):
            await unless(shutdown.wanted, waiting.changed.wait)
        try:
            if not done.is_set():
                await wait(done)
        except ScoreboardError as error:
            fault = error
        nursery.cancel_scope.cancel()
    if fault is not None:
        raise fault
    return done.is_set()


class Telling:
    """Tells the service manager of the roles of nodes, and once, with the ready line, that the process serves."""

    def __init__(self, manager: ServiceManager, ready: Ready) -> None:
        self._manager = manager
        self._ready = ready
        self._is_ready = False

    def follow(self, node: Node, world: Surroundings) -> Node:
        """Tell each role of a node from now on."""

        def tell_role(_before: Role, now: Role) -> None:
            if not now.draining:
                self._manager.status(f"{now.state.label}, {world.url}")

        node.role.on_change(tell_role)
        tell_role(node.role.latest, node.role.latest)
        return node

    def ready(self, *urls: str) -> None:
        if not self._is_ready:
            self._is_ready = True
            self._ready(*urls)
            self._manager.ready()


def and_told(bar: Bar, manager: ServiceManager) -> Bar:
    """Show the progress to the service manager too."""

    @contextmanager
    def both() -> Iterator[ShowProgress]:
        manager.status("recovering")
        with bar() as shown:

            def show(progress: Progress) -> None:
                manager.progress(progress.stage, progress.bytes_done, progress.bytes_total)
                shown(progress)

            yield show

    return both


def as_bytes(show: ShowProgress) -> Callable[[int, int], None]:
    return lambda done, total: show(Progress("snapshot", 0, done, total))


async def run_process(
    config: Config, disk: RealDisk, run: Callable[[HeldDisk, Shutdown, ServiceManager, Reloads], Awaitable[int]],
    reread: Read | None,
) -> int:  # fmt: skip
    logs.configure(config.logging.format, config.logging.level)
    for key, note in secret_notes(config.auth):
        log.warning("configuration", key=key, note=note)
    if passed_over := service_links(os.environ):
        log.debug("service_links_passed_over", variables=passed_over)
    _set_limits()
    aside = finish_exchange(disk, config.data_dir)
    if aside is not None:
        log.warning("demotion_finished", aside=aside)
    # These directories may stay empty for long, but a backup copies them and the log.
    for directory in (SNAPSHOTS, ACTIONS):
        disk.make_directory(f"{config.data_dir}/{directory}")
    lock_path = f"{config.data_dir}/{LOCK_FILE}"
    lost = not disk.exists(lock_path) and disk.exists(log_directory(config.data_dir))
    lock = disk.lock(lock_path)
    held = HeldDisk(disk, lock)
    shutdown = Shutdown()
    manager = ServiceManager.of(os.environ, os.getpid())
    code = 0
    refusal: ScoreboardError | None = None
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(shutdown.listen)
            reloads = Reloads(config, reread)
            await nursery.start(reloads.listen, shutdown)
            nursery.start_soon(manager.beat)
            nursery.start_soon(_tell_end, shutdown, manager)
            try:
                if not lost or await _outlive_another(lock_path, shutdown):
                    remove_downloads(held, config.data_dir)  # what an earlier process did not use may name erased users
                    code = await run(held, shutdown, manager, reloads)
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


async def _tell_end(shutdown: Shutdown, manager: ServiceManager) -> None:
    await shutdown.wanted.wait()
    manager.stopping()


async def _outlive_another(lock_path: str, shutdown: Shutdown) -> bool:
    """Wait until a process that had the lock before it was removed has ended; False if a signal came first."""
    log.warning("lock_was_missing", path=lock_path, seconds=bounds.LOCK_MISSING_SECONDS)
    return await unless(shutdown.wanted, partial(trio.sleep, bounds.LOCK_MISSING_SECONDS))


def _set_limits() -> None:
    """Raise the limit of open files to the hard limit, as each viewer is one. Collect garbage less often."""
    gc.set_threshold(bounds.YOUNG_OBJECTS_MAX)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class _Interrupted(Exception):
    """A signal came during recovery."""


async def recover(config: Config, disk: HeldDisk, shutdown: Shutdown, bar: Bar) -> Opened | None:
    """Open the data directory; None if a signal came first.

    This runs in a worker thread, so that signals are heard. After a signal the thread stops at its next progress. It is
    waited for, because otherwise it could write after the lock is released.
    """
    began = time.monotonic()
    findings: list[Finding | DiskFault] = []

    def open_it(show: ShowProgress) -> Opened:
        def show_or_stop(progress: Progress) -> None:
            if shutdown.wanted.is_set():
                raise _Interrupted
            show(progress)

        return open_directory(disk, config.data_dir, config.rules, tell=findings.append, progress=show_or_stop)

    # Recovery makes millions of objects that stay. Collecting garbage among them takes time and finds none. Afterwards
    # they are frozen, so that no later collection stops the server to visit all of them.
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
            tell(finding)
    log.info(
        "recovered",
        seconds=round(time.monotonic() - began, 3),
        snapshot_seq=opened.snapshot_seq,
        seq=opened.scoreboard.seq,
        epoch=opened.scoreboard.epoch,
        actions=len(opened.scoreboard.actions),
    )
    return opened


@contextmanager
def progress_lines() -> Iterator[ShowProgress]:
    """Log the progress of a long recovery."""
    told = time.monotonic()

    def show(progress: Progress) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told >= PROGRESS_LINE_SECONDS:
            told = now
            log.info("recovering", **msgspec.structs.asdict(progress))

    yield show
