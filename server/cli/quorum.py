"""`scoreboard quorum`: make the stream of a quorum, look at it, and move a directory into it and out of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import click
import trio

from engine.disk import Disk, RealDisk
from engine.log_reader import holds_log
from server import logs
from server.cli.support import (
    BadUsage,
    CommandRefused,
    config_options,
    json_option,
    print_json,
    print_table,
    read_config,
    say,
    warn,
)
from server.node.directories import check_not_deposed
from server.node.member_words import beat_seconds
from server.node.moving import export_directory, import_directory, make_stream
from server.node.start_member import check_configured, check_servers_named, options_of
from server.quorum.nats_api import StreamInfo
from server.quorum.nats_setup import origin_of
from server.quorum.status import QuorumStatus, look
from server.quorum.stream import StreamRefused, Unanswered
from server.settings.config import Config, ConfigError
from snapshots.demotion import finish_exchange
from snapshots.membership import read_membership
from snapshots.opening import log_directory
from snapshots.promotion import read_marker
from snapshots.restore import LOCK_FILE

LISTEN_SECONDS_MIN = 2.0
LISTEN_BEATS = 2
"""How long `status` listens: each node says a word in a beat."""

Answer = TypeVar("Answer")


@click.group()
def quorum() -> None:
    """Look after the log on NATS JetStream that several nodes share. The servers are those of [quorum]."""


@quorum.command()
@config_options
@json_option
def init(data_dir: Path | None, config_file: Path | None, as_json: bool) -> None:
    """Make the stream of a new log. If it is there already, check its settings and those of the servers."""
    config = configured(config_file, data_dir)
    info, made = ask(config, lambda: make_stream(options_of(config), None))
    name, tail = config.quorum.stream, origin_of(info).tail
    if as_json:
        print_json({"stream": name, "logId": tail.log_id.hex(), "replicas": config.quorum.replicas, "made": made})
    else:
        what = "is made" if made else "is there already, and as it must be"
        click.echo(f"the stream {name} {what}, on {', '.join(servers_of(info))}")
    disk = RealDisk()
    if holds_log(disk, log_directory(config.data_dir)) and read_membership(disk, config.data_dir) is None:
        say(f"{config.data_dir} has a log of its own, which is not on this stream. To move that log in, name another")
        say(f"stream, and run: scoreboard quorum import --data-dir {config.data_dir}")
    else:
        say("Start each node with: scoreboard serve --quorum")
    tell_lacks(config)


@quorum.command()
@config_options
@json_option
def status(data_dir: Path | None, config_file: Path | None, as_json: bool) -> None:
    """Say how servers, stream and nodes are. Exit code 1 if nothing can be written, or a setting is wrong."""
    config = configured(config_file, data_dir)
    listen_s = max(LISTEN_SECONDS_MIN, LISTEN_BEATS * beat_seconds(float(config.quorum.silence_seconds)))
    seen = ask(config, lambda: look(options_of(config), listen_s))
    if as_json:
        print_json(seen)
    else:
        show(seen)
    if not seen.good:
        sys.exit(1)


@quorum.command(name="import")
@config_options
@json_option
def import_(data_dir: Path | None, config_file: Path | None, as_json: bool) -> None:
    """Move a stopped leader's directory in: the stream goes on after its last event."""
    config = configured(config_file, data_dir)
    disk, directory = RealDisk(), config.data_dir
    with held(disk, directory):
        check_not_deposed(disk, directory)
        if (marker := read_marker(disk, directory)) is not None:
            what = f"{directory} is a replica's, which follows {marker.leader}"
            raise BadUsage(f"{what}; import the leader's, or promote this one first")
        tail, made = ask(config, lambda: import_directory(disk, directory, options_of(config), tell=warn))
    if as_json:
        print_json({"stream": config.quorum.stream, "logId": tail.log_id.hex(), "seq": tail.seq, "imported": made})
        return
    what = f"goes on after seq {tail.seq} of" if made else "has already the log of"
    click.echo(f"the stream {config.quorum.stream} {what} {directory}")
    say(f"Start this node first: scoreboard serve --quorum --data-dir {directory}")
    say("Start others with empty directories: they get a snapshot from it.")
    tell_lacks(config)


@quorum.command()
@config_options
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def export(data_dir: Path | None, config_file: Path | None, yes: bool, as_json: bool) -> None:
    """Move a stopped node's directory out: it gets all that the stream has, and is a leader's. The stream is sealed."""
    config = configured(config_file, data_dir)
    disk, directory, name = RealDisk(), config.data_dir, config.quorum.stream
    with held(disk, directory):
        if read_membership(disk, directory) is None:
            raise BadUsage(f"{directory} is of no quorum, so there is nothing to export")
        if not yes:
            say(f"The stream {name} will be sealed for good: nodes that still run on it end at their next write.")
            click.confirm("Go on?", abort=True, err=True)
        now_ms = time.time_ns() // 1_000_000
        done = ask(config, lambda: export_directory(disk, directory, options_of(config), now_ms=now_ms, tell=warn))
    if as_json:
        print_json({"epoch": done.epoch, "seq": done.seq, "frames": done.frames})
        return
    click.echo(f"exported: {done.frames} frames were read; epoch {done.epoch} began with seq {done.seq}")
    say(f"Start it with: scoreboard serve --data-dir {directory}")


def configured(config_file: Path | None, data_dir: Path | None) -> Config:
    """Read the configuration, which must name servers. The log tells errors alone: the command says what matters."""
    config = read_config(config_file, data_dir)
    check_servers_named(config)
    logs.configure(config.logging.format, "error")
    return config


def tell_lacks(config: Config) -> None:
    """Say what the configuration lacks for a start."""
    try:
        check_configured(config)
    except ConfigError as lack:
        say(f"Before a start: {lack}")


def ask(config: Config, work: Callable[[], Awaitable[Answer]]) -> Answer:
    """Run what asks the servers. A refusal names its setting, and silence the servers."""
    try:
        return trio.run(work)
    except StreamRefused as refused:
        raise ConfigError(refused.key or "quorum", f"{refused.what} {refused.remedy}".strip()) from refused
    except Unanswered as unanswered:
        servers = ", ".join(map(str, config.quorum.addresses))
        raise CommandRefused(f"{unanswered} (quorum.servers: {servers}). Try again when they answer.") from unanswered


@contextmanager
def held(disk: Disk, directory: str) -> Iterator[None]:
    """Hold the lock of a directory with a log. Raises `DirectoryInUse`."""
    finish_exchange(disk, directory)
    if not holds_log(disk, log_directory(directory)):
        raise BadUsage(f"there is no scoreboard data in {directory!r} (no log directory in it)")
    lock = disk.lock(f"{directory}/{LOCK_FILE}")
    try:
        yield
    finally:
        lock.release()


def servers_of(info: StreamInfo) -> list[str]:
    """Give the names of the servers that hold a stream."""
    return sorted({info.cluster.leader, *(peer.name for peer in info.cluster.replicas)} - {""})


def show(seen: QuorumStatus) -> None:
    """Print tables of servers, stream and nodes, and the faults."""
    print_table(("server", "version", "fault"), [(each.url, each.version, each.fault) for each in seen.servers])
    stream = seen.stream
    if stream is not None:
        majority = "a majority answers" if seen.majority else "NO majority answers"
        ends = f"places {stream.first} to {stream.last}, {stream.bytes} bytes"
        click.echo(f"stream {stream.name}: {ends}, {majority}")
        copies = [
            (one.name, "yes" if one.leads else "", "yes" if one.current else "NO", one.lag, one.heard_ms)
            for one in stream.copies
        ]
        print_table(("copy on", "leads", "current", "lag", "heard ms ago"), copies)
    nodes = [
        (node.name, node.public_url or node.url, node.role, node.epoch, node.seq, node.place, node.lag)
        for node in seen.nodes
    ]
    print_table(("node", "url", "role", "epoch", "seq", "place", "lag"), nodes)
    for fault in seen.faults:
        say(f"Wrong: {fault}")
    for warning in seen.warnings:
        say(f"Warning: {warning}")
