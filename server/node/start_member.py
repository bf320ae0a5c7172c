"""The start of a member of a quorum: `scoreboard serve --quorum`.

    lock → keys that all nodes share → the stream and its settings → is it this quorum's directory? → a log, perhaps
    from another node → recovery → node, which follows first

Rules are those of `server.node.start`. The stream is open from before the first look at the directory to the end.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import partial

import structlog
import trio

from engine.disk import RealDisk
from engine.errors import ScoreboardError
from engine.held_disk import HeldDisk
from engine.log_reader import holds_log
from server.access.issuers import trusted_issuers
from server.access.minting import mint, minting_fault
from server.faults import first_of
from server.node.directories import TokenFile, check_member
from server.node.file_boards import check_file_boards
from server.node.member_assembly import MemberPlan, assemble_member
from server.node.newcomer import bootstrap_of, prepare
from server.node.reload import Read, Reloads
from server.node.service_manager import ServiceManager
from server.node.serving import Process, Ready
from server.node.shutdown import Shutdown, tell, unless
from server.node.start import Bar, Telling, and_told, as_bytes, progress_lines, recover, run_process
from server.quorum.nats_connection import NatsOptions
from server.quorum.nats_stream import NatsStream
from server.quorum.stream import StreamRefused, Unanswered
from server.settings.config import Config, ConfigError
from snapshots.membership import Membership
from snapshots.opening import log_directory

NODE_TOKEN_SECONDS = 600
OPEN_AGAIN_SECONDS = 1.0

log = structlog.get_logger()


async def serve_member(config: Config, ready: Ready, bar: Bar | None = None, reread: Read | None = None) -> int:
    """Run a member of a quorum until it is told to stop; give its exit code. Otherwise as `server.node.start.serve`.

    It waits for a stream that does not answer: after a power cut nodes and servers start in any order.
    """
    check_configured(config)

    async def run(disk: HeldDisk, shutdown: Shutdown, manager: ServiceManager, reloads: Reloads) -> int:
        while True:
            code = await once(disk, shutdown, manager, reloads)
            if code is not None:
                return code
            manager.status("waits for the servers of the log")
            if not await unless(shutdown.wanted, partial(trio.sleep, OPEN_AGAIN_SECONDS)):
                return 0

    async def once(disk: HeldDisk, shutdown: Shutdown, manager: ServiceManager, reloads: Reloads) -> int | None:
        """Serve once the stream is open; None if it did not answer. Raises ConfigError if it is refused."""
        fault: Exception
        is_open = False
        try:
            async with NatsStream.open(options_of(config), name=config.replication.node_name or "scoreboard") as stream:
                is_open = True
                return await _serve(stream, config, ready, bar, disk, shutdown, manager, reloads)
        except* StreamRefused as refused:
            found = first_of(refused)
            assert isinstance(found, StreamRefused)
            fault = ConfigError(found.key or "quorum", f"{found.what} {found.remedy}".strip())
        except* ScoreboardError as errors:
            fault = first_of(errors)
        if isinstance(fault, Unanswered) and not is_open:
            log.warning("waits_for_servers", reason=str(fault))
            return None
        raise fault

    return await run_process(config, RealDisk(), run, reread)


async def _serve(
    stream: NatsStream, config: Config, ready: Ready, bar: Bar | None, disk: HeldDisk, shutdown: Shutdown,
    manager: ServiceManager, reloads: Reloads,
) -> int:  # fmt: skip
    issuers = trusted_issuers(config)
    bars = and_told(bar or progress_lines, manager)
    membership = Membership(config.quorum.stream, stream.origin.tail.log_id.hex())
    check_member(disk, config.data_dir, membership)
    process = Process(config, disk, issuers, shutdown, disk.check)
    token = node_token(config)
    is_new = not holds_log(disk, log_directory(config.data_dir))
    if is_new:
        bootstraps = partial(
            bootstrap_of, disk=disk, data_directory=config.data_dir, token=token, uniform=random.uniform,
            node_id=process.node_id,
        )  # fmt: skip
        with bars() as show:
            fill = partial(
                prepare, disk, config.data_dir, stream, bootstraps, tell=tell, progress=as_bytes(show)
            )  # fmt: skip
            if not await unless(shutdown.wanted, fill):
                return 0
    opened = await recover(config, disk, shutdown, bars)
    if opened is None:
        return 0
    check_file_boards(config, opened.scoreboard, time.time_ns() // 1_000_000)
    reloads.serve(issuers, process.reload)
    telling = Telling(manager, ready)
    plan = MemberPlan(stream=stream, token=token, is_new=is_new)
    return await process.serve(lambda world: telling.follow(assemble_member(world, opened, plan), world), telling.ready)


def check_configured(config: Config) -> None:
    """Check what a member needs beside what every node needs. Raises `ConfigError`."""
    check_servers_named(config)
    if config.auth.uses_signing_key:
        what = "a token must be good on every node, and a key that a node makes for itself is known to it alone"
        raise ConfigError("auth", f"{what}; set auth.jwt_secret, or public keys, the same on every node")


def check_servers_named(config: Config) -> None:
    """Check that there are servers to ask. Raises `ConfigError`."""
    if not config.quorum.servers:
        raise ConfigError("quorum.servers", "names no server; a quorum's log is on NATS servers: set their URLs")


def options_of(config: Config) -> NatsOptions:
    """Give what the client of the servers needs."""
    quorum = config.quorum
    return NatsOptions(
        servers=quorum.servers,
        stream=quorum.stream,
        replicas=quorum.replicas,
        publish_timeout_s=float(quorum.publish_timeout_seconds),
        credentials_file=quorum.credentials_file,
        ca_file=quorum.ca_file,
        certificate_file=quorum.certificate_file,
        key_file=quorum.key_file,
    )


def node_token(config: Config) -> Callable[[], str]:
    """Give the token for the other nodes: from the file that is configured, else one that our secret signs."""
    if config.replication.token_file:
        return TokenFile(config.replication.token_file)
    if fault := minting_fault(config):
        log.warning("no_token_for_nodes", reason=fault.message, remedy="set replication.token_file, of scope log:read")
        return str
    return lambda: mint(config, sub="quorum-node", scopes=["log:read"], user=None, ttl_s=NODE_TOKEN_SECONDS)
