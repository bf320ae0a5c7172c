"""`scoreboard demote`: make the directory of an old leader a replica's. Events that only it had are set aside."""

from __future__ import annotations

import random
from pathlib import Path
from shlex import quote

import click
import httpx
import trio

from engine.disk import RealDisk
from engine.record import Tail
from server.cli.support import (
    BadUsage,
    CommandRefused,
    json_option,
    print_json,
    print_table,
    read_token,
    say,
    state_bar,
    warn,
)
from server.replication.bootstrap import Bootstrap
from server.replication.link import LinkEnded, parse_leader
from snapshots.demotion import DemotionReport, demote_directory, finish_exchange
from snapshots.membership import write_refusal
from snapshots.opening import log_directory
from snapshots.promotion import NO_RULES
from snapshots.restore import LOCK_FILE
from snapshots.state import read_state


@click.command()
@click.option("--data-dir", required=True, type=click.Path(path_type=Path, file_okay=False), help="The old leader's.")
@click.option("--to", "leader", required=True, metavar="URL", help="The new leader.")
@click.option("--token-file", type=click.Path(path_type=Path, dir_okay=False), help="A token of scope log:read.")
@json_option
def demote(data_dir: Path, leader: str, token_file: Path | None, as_json: bool) -> None:
    """Turn a stopped leader's directory into a replica's of the new leader. Nothing is deleted."""
    directory = str(data_dir)
    disk = RealDisk()
    finish_exchange(disk, directory)
    if not disk.exists(log_directory(directory)):
        raise BadUsage(f"there is no scoreboard data in {directory!r} (no log directory in it)")
    token = read_token(token_file)
    disk.lock(f"{directory}/{LOCK_FILE}").release()  # if it is in use, refuse before all that follows
    if (why_not := write_refusal(disk, directory)) is not None:  # the new leader need not be asked
        raise CommandRefused(why_not)
    common = ask_fork(directory, leader, token, token_file)
    with state_bar("demoting") as show:
        report = demote_directory(disk, directory, common, leader=leader.rstrip("/"), tell=warn, progress=show)
    _show(report, directory, start_command(directory, leader, token_file), as_json)


def start_command(directory: str, leader: str, token_file: Path | None) -> str:
    """Give the command that starts the replica, with the token that the leader was asked with."""
    command = f"scoreboard replica --data-dir {quote(directory)} --leader {quote(leader)}"
    return command if token_file is None else f"{command} --token-file {quote(str(token_file))}"


def ask_fork(directory: str, leader: str, token: str, token_file: Path | None = None) -> Tail:
    """Ask the new leader for the last place before its history left ours. `token_file` is where the token is from."""
    disk = RealDisk()
    try:
        endpoint = parse_leader(leader)
    except ValueError as error:
        raise BadUsage(f"--to: {error}") from error
    scoreboard, tail = read_state(disk, directory, NO_RULES, tell=warn)
    asking = Bootstrap(endpoint, disk, directory, token=lambda: token, uniform=random.uniform, tell=say)
    try:
        return trio.run(asking.common, scoreboard.marks())
    except LinkEnded as ended:
        if ended.status in (httpx.codes.NOT_FOUND, httpx.codes.CONFLICT):
            raise CommandRefused(
                f"{leader} can't say where its history and that of epoch {tail.epoch} part: "
                f"{ended.reason.rstrip('.')}. Is it the node that took this one's place? If it is, move {directory} "
                f"aside and begin anew: {start_command('NEWDIR', leader, token_file)}. What only this node "
                "had is then in the directory that was moved."
            ) from ended
        raise CommandRefused(f"{leader} can't be asked: {ended.reason}") from ended


def erased_message(report: DemotionReport) -> str:
    """Say who was erased here only."""
    count, forgotten = report.erasures, report.erasures - len(report.erased)
    message = f"{count} {'user was' if count == 1 else 'users were'} erased here and not at the new leader."
    if report.erased:
        message += f" Erase there, too: {', '.join(report.erased)}."
    if forgotten:
        some = f"{forgotten} of them" if report.erased else "them"
        message += f" The files here have forgotten {some}: look for who it was in your list of erased ids."
    return message


def _show(report: DemotionReport, directory: str, command: str, as_json: bool) -> None:
    if as_json:
        print_json(report)
        return
    click.echo(
        f"{directory} is a replica's now: common up to seq {report.common_seq}, set aside: {report.events} events"
    )
    if report.actions:
        columns = ("actionId", "userId", "boardId", "seq", "delta")
        rows = [(one.action_id, one.user_id, one.board_id, one.seq, one.delta) for one in report.actions]
        print_table(columns, rows)
        say(f"These actions are not in the new leader's history. All of it is in {report.aside}.")
    if report.erasures:
        say(f"{erased_message(report)} Then remove {report.aside}.")
    say(f"Start it with: {command}")
