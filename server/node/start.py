"""The one place that builds everything: a leader or a replica from its configuration, in the order that it needs.

    leader       file limit → exchange that was cut short → lock → keys → recovery → node → ready
    replica      the same; before recovery a directory without a log gets one: the leader's newest snapshot, or nothing

The ends are in `server.node.core`.

Rules:
- Nothing is served before recovery is done, and the ready line comes last: whoever sees it can connect.
- `serve` and `follow` raise only before they are ready (ConfigError, LogDamaged, DirectoryInUse …); afterwards whatever
  goes wrong is told in the log and becomes the exit code.
- A directory belongs to a role. A replica's has a marker, and no leader starts in it; one whose leader was deposed has
  another, and nobody starts in it. The refusal names the command that changes that.
"""

from __future__ import annotations

import gc
import random
import resource
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import msgspec
import structlog
import trio

from engine.disk import RealDisk, UnsyncedDisk
from engine.errors import DiskFault, ScoreboardError
from engine.recovery import Finding
from engine.scoreboard import Scoreboard
from server import bounds, logs
from server.access.auth import key_source
from server.api.standing import Standing
from server.node.core import Core, Shutdown, clock_ms, tell
from server.node.leader import Leader
from server.node.replica import ShardRole, WholeRole
from server.node.shipping import timing_of
from server.replication.bootstrap import Bootstrap, prepare_directory
from server.replication.follower import Follower, State
from server.replication.link import parse_leader
from server.replication.replicas import Replica, ShardReplica
from server.replication.sharding import Shard
from server.settings.config import Config, ConfigError
from snapshots.demotion import finish_exchange
from snapshots.opening import Opened, Progress, ShowProgress, open_directory
from snapshots.promotion import DEMOTE_NEEDS, Marker, demote_command, read_deposed, read_marker, write_marker
from snapshots.store import DIRECTORY

Bar = Callable[[], AbstractContextManager[ShowProgress]]

PROGRESS_LINE_SECONDS = 5.0
"""Between two lines about a recovery, or a download, that nobody watches on a terminal."""

log = structlog.get_logger()


class Followership(msgspec.Struct, frozen=True):
    """How a replica is to follow. `durable`: its directory is kept; otherwise it is a temporary one, the caller's."""

    shard: Shard | None
    durable: bool


async def serve(config: Config, ready: Callable[[str], None], bar: Bar | None = None) -> int:
    """Run a leader until it is told to stop, and give its exit code.

    `ready` is called with the address once it serves; `bar` shows the progress of recovery, None for log lines.

    Raises:
        ConfigError, DiskFault: it can't start; what was found and what can be done is in the message.
    """
    disk = RealDisk()

    async def run(shutdown: Shutdown) -> int:
        _check_leads(disk, config)
        keys = key_source(config)
        opened = await _recover(config, disk, shutdown, bar or _progress_lines)
        if opened is None:
            return 0
        core = Core(config, opened.scoreboard, keys, shutdown, Standing(wait_seconds=_wait_seconds(config)))
        return await core.serve(Leader(core, disk, opened), opened.log, ready)

    return await _run(config, disk, run)


async def follow(
    config: Config, followership: Followership, ready: Callable[[str], None], bar: Bar | None = None
) -> int:
    """Run a replica until it is told to stop, and give its exit code. As `serve`."""
    disk = RealDisk() if followership.durable else UnsyncedDisk()
    run = partial(_follow, config, followership, disk, ready, bar or _progress_lines)
    return await _run(config, disk, run)


async def _follow(
    config: Config, followership: Followership, disk: RealDisk, ready: Callable[[str], None], bar: Bar,
    shutdown: Shutdown,
) -> int:  # fmt: skip
    _check_not_overtaken(disk, config)
    leader_url = _leader_of(config, disk)
    leader = parse_leader(leader_url)
    token = _Token(config.replication.token_file)
    keys = key_source(config)
    bootstrap = Bootstrap(
        leader, disk, config.data_dir, token=token, uniform=random.uniform,
        tell=lambda why: log.warning("bootstrap", reason=why, leader=leader_url),
    )  # fmt: skip

    def make(core: Core, show: ShowProgress, replica: Replica, on_state: Callable[[State, str], None]) -> Follower:
        return Follower(
            replica, leader, bootstrap, token=token, clock_ms=clock_ms, uniform=random.uniform,
            timing=timing_of(core), on_progress=_as_bytes(show), on_state=on_state,
        )  # fmt: skip

    standing = Standing(None, followership.shard, _wait_seconds(config))
    if followership.shard is not None:
        core = Core(config, Scoreboard(config.rules), keys, shutdown, standing)
        replica = ShardReplica(disk, core.scoreboard, followership.shard, on_applied=core.applied)
        with _progress_lines() as lines:
            role = ShardRole(core, replica, leader, partial(make, core, lines))
            return await core.serve(role, role, ready)
    with bar() as show:
        prepare = partial(_prepare, config, disk, bootstrap, _as_bytes(show), leader_url)
        if not await _unless_stopped(shutdown, prepare):
            return 0
        opened = await _recover(config, disk, shutdown, lambda: _same(show))
    if opened is None:
        return 0
    core = Core(config, opened.scoreboard, keys, shutdown, standing)
    with _progress_lines() as lines:
        make_it = partial(make, core, lines)
        marker = read_marker(disk, config.data_dir)
        vouched = followership.durable and marker is not None and marker.caught_up
        durable = followership.durable
        whole = WholeRole(core, disk, opened, leader, token, make_it, durable=durable, vouched=vouched)
        return await core.serve(whole, opened.log, ready)


def _as_bytes(show: ShowProgress) -> Callable[[int, int], None]:
    """Show the bytes of a download."""
    return lambda done, total: show(Progress("snapshot", 0, done, total))


@contextmanager
def _same(show: ShowProgress) -> Iterator[ShowProgress]:
    yield show


async def _prepare(
    config: Config, disk: RealDisk, bootstrap: Bootstrap, progress: Callable[[int, int], None], leader: str
) -> None:
    if read_marker(disk, config.data_dir) is None:
        if disk.exists(f"{config.data_dir}/log"):
            remedy = f"scoreboard demote --data-dir {config.data_dir} --to {leader}"
            raise ConfigError("data_dir", f"{config.data_dir} is a leader's; to make it a replica's: {remedy}")
        write_marker(disk, config.data_dir, Marker(leader))
    await prepare_directory(disk, config.data_dir, bootstrap, tell=tell, progress=progress)


async def _unless_stopped(shutdown: Shutdown, work: Callable[[], Awaitable[None]]) -> bool:
    """Do some work; cancel it at a signal. Tell whether it was done. Lets its error out as it is."""
    done = False
    fault: Exception | None = None
    async with trio.open_nursery() as nursery:

        async def cancel() -> None:
            await shutdown.wanted.wait()
            nursery.cancel_scope.cancel()

        nursery.start_soon(cancel)
        try:
            await work()
            done = True
        except Exception as error:
            fault = error  # raised outside, or the nursery would make a group of it
        nursery.cancel_scope.cancel()
    if fault is not None:
        raise fault
    return done


def _wait_seconds(config: Config) -> float:
    return float(config.replication.behind_wait_seconds)


def _leader_of(config: Config, disk: RealDisk) -> str:
    """The leader that was named, or else the one that the directory's marker names."""
    marker = read_marker(disk, config.data_dir)
    url = config.replication.leader or (marker.leader if marker is not None else "")
    if not url:
        raise ConfigError("replication.leader", "a replica needs the address of its leader: --leader URL")
    return url.rstrip("/")


class _Token:
    """The token for the leader; read anew for each link, so that it can be renewed under a running replica."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._last = self._read() if path else ""

    def __call__(self) -> str:
        if self._path:
            try:
                self._last = self._read()
            except ConfigError as error:
                log.warning("token_not_read", reason=error.message)  # the one before may still be good
        return self._last

    def _read(self) -> str:
        try:
            return Path(self._path).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not ASCII"
            raise ConfigError("replication.token_file", f"{self._path} cannot be read: {reason}") from error


def _check_not_overtaken(disk: RealDisk, config: Config) -> None:
    successor = read_deposed(disk, config.data_dir)
    if successor is not None:
        began = f"epoch {successor.epoch} began elsewhere, so this leader must not write"
        command = demote_command(config.data_dir, successor)
        raise ConfigError(
            "data_dir", f"{config.data_dir}: {began}; make it a replica of the new one: {command} {DEMOTE_NEEDS}"
        )


def _check_leads(disk: RealDisk, config: Config) -> None:
    """Refuse a directory that is not a leader's."""
    _check_not_overtaken(disk, config)
    marker = read_marker(disk, config.data_dir)
    if marker is not None:
        what = f"{config.data_dir} is a replica's, which follows {marker.leader}"
        run = f"run it with: scoreboard replica --data-dir {config.data_dir} --leader {marker.leader}"
        lead = f"or make it a leader's with: scoreboard promote --data-dir {config.data_dir}"
        raise ConfigError("data_dir", f"{what}; {run}; {lead}")


async def _run(config: Config, disk: RealDisk, run: Callable[[Shutdown], Awaitable[int]]) -> int:
    logs.configure(config.logging.format, config.logging.level)
    _set_limits()
    aside = finish_exchange(disk, config.data_dir)
    if aside is not None:
        log.warning("demotion_finished", aside=aside)
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
                code = await run(shutdown)
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


def _set_limits() -> None:
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
