"""`scoreboard promote`: make a replica the leader, in a new epoch: a running one, or a stopped one's directory."""

from __future__ import annotations

import time
from pathlib import Path

import click
import msgspec

from engine.disk import RealDisk
from server.cli.asking import post_node
from server.cli.support import BadUsage, chosen_token, json_option, print_json, read_token, say, token_options, warn
from server.replication.messages import PROMOTE_PATH
from snapshots.demotion import finish_exchange
from snapshots.promotion import DEMOTE_NEEDS, demote_command, promote_directory, read_deposed
from snapshots.restore import RestoreRefused


class _Done(msgspec.Struct):
    """The answer of a replica that was promoted."""

    epoch: int
    seq: int


@click.command()
@click.option("--data-dir", type=click.Path(path_type=Path, file_okay=False), help="A stopped replica's directory.")
@click.option("--url", metavar="URL", help="A running replica's address.")
@token_options
@json_option
def promote(data_dir: Path | None, url: str | None, token_file: Path | None, token: str | None, as_json: bool) -> None:
    """Begin the next epoch on a replica, which is the leader from then on. With --url: a token of scope admin."""
    if (data_dir is None) == (url is None):
        raise BadUsage("name either --data-dir DIR or --url URL")
    if url is not None:
        text, file = chosen_token(token, token_file)
        epoch, seq = promote_running(url, read_token(file) or text)
    else:
        assert data_dir is not None
        epoch, seq = promote_stopped(str(data_dir))
    if as_json:
        print_json({"epoch": epoch, "seq": seq})
        return
    click.echo(f"promoted: epoch {epoch} began with seq {seq}")
    if data_dir is not None:
        say(f"Start it with: scoreboard serve --data-dir {data_dir}")


def promote_stopped(data_dir: str) -> tuple[int, int]:
    """Promote a directory; give the epoch and the seq of its first event."""
    disk = RealDisk()
    finish_exchange(disk, data_dir)
    successor = read_deposed(disk, data_dir)
    if successor is not None:
        first = demote_command(data_dir, successor)
        what = f"{data_dir} is a deposed leader's"
        raise BadUsage(f"{what}; first: {first} {DEMOTE_NEEDS}; let it catch up, then promote it")
    try:
        done = promote_directory(disk, data_dir, now_ms=time.time_ns() // 1_000_000, tell=warn)
    except RestoreRefused as refused:
        raise BadUsage(str(refused)) from refused
    for path in done.missing:
        say(f"The ranking of a past period is not here: {path}. Copy it from the old leader or from a backup.")
    return done.epoch, done.seq + 1


def promote_running(url: str, token: str) -> tuple[int, int]:
    """Ask a replica to become the leader; give the epoch and the seq of its first event."""
    done = post_node(url, PROMOTE_PATH, token, _Done)
    return done.epoch, done.seq
