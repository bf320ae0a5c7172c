"""`scoreboard erase users|verify`: take users out of a data directory, and find what still names one.

`users` needs the directory for itself: stop the server first. It logs an event, and then rewrites what is on disk.
`verify` only reads, beside a running server too. server/PRIVACY.md says what both mean for replicas and backups.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import click

from engine.disk import RealDisk
from engine.texts import id_fault
from server.cli.support import (
    BadUsage,
    CommandRefused,
    directory_option,
    json_option,
    print_json,
    print_table,
    say,
    state_bar,
    warn,
)
from snapshots.demotion import finish_exchange
from snapshots.erasing import ErasureRefused, ErasureReport, erase_users
from snapshots.finding import Found, Unread, Wanted, find_in_directory
from snapshots.opening import ShowProgress, log_directory
from snapshots.restore import LOCK_FILE

CALLER = "scoreboard erase"
"""Who erases, for the log."""


@click.group()
def erase() -> None:
    """Erase users from a stopped node's directory; find what still names one."""


@erase.command()
@directory_option
@click.option("--user", "user_ids", multiple=True, metavar="ID", help="A user; may be given several times.")
@click.option("--list", "list_file", type=click.Path(path_type=Path, dir_okay=False), help="A file with an id a line.")
@json_option
def users(directory: str, user_ids: tuple[str, ...], list_file: Path | None, as_json: bool) -> None:
    """Erase users: off all boards, and out of log, snapshots and past periods.

    The node must be stopped. Exit code 1 if a file of the directory still names one of them afterwards.
    """
    ids = checked_ids([*user_ids, *(read_ids(list_file) if list_file is not None else ())])
    disk = RealDisk()
    finish_exchange(disk, directory)
    if not disk.exists(log_directory(directory)):
        raise BadUsage(f"there is no scoreboard data in {directory!r} (no log directory in it)")
    lock = disk.lock(f"{directory}/{LOCK_FILE}")
    try:
        with state_bar("erasing") as show:
            report = run_erasure(directory, ids, show)
    finally:
        lock.release()
    if as_json:
        print_json(report)
    else:
        _show(report)
    left = list(find_in_directory(Path(directory), [Wanted(user_id) for user_id in ids]))
    for found in left:
        say(f"Still there: {_place(found)}")
    if left:
        raise CommandRefused("these places still name a user; remove the files if they are not needed")
    say("No file of this directory names them. Replicas and backups have files of their own: see server/PRIVACY.md.")


@erase.command()
@directory_option
@click.option("--user", "user_id", required=True, metavar="ID", help="The user to look for.")
@click.option("--name", help="Look for this display name too.")
@json_option
def verify(directory: str, user_id: str, name: str | None, as_json: bool) -> None:
    """Search every file of the directory, unpacked, for a user. Exit code 1 if any names the user or can't be read."""
    [user_id] = checked_ids([user_id])
    found = list(find_in_directory(Path(directory), [Wanted(user_id, name)]))
    if as_json:
        print_json(found)
    elif found:
        columns = ("path", "what", "offset", "seq")
        print_table(columns, [_row(each) for each in found])
    if found:
        raise CommandRefused(f"{len(found)} places of this directory name the user, or can't be read")
    say("No file of this directory names the user.")


def run_erasure(directory: str, user_ids: Sequence[str], show: ShowProgress) -> ErasureReport:
    """Erase users from a directory whose lock is held."""
    try:
        return erase_users(
            RealDisk(),
            directory,
            user_ids,
            caller=CALLER,
            clock_ms=lambda: time.time_ns() // 1_000_000,
            tell=warn,
            progress=show,
        )
    except ErasureRefused as refused:
        raise CommandRefused(str(refused)) from refused


def read_ids(path: Path) -> list[str]:
    """Read a file with an id on each line. Empty lines are passed over."""
    try:
        return [line for line in path.read_text().splitlines() if line]
    except (OSError, UnicodeDecodeError) as error:
        raise BadUsage(f"{path} can't be read: {error}") from error


def checked_ids(user_ids: Sequence[str]) -> list[str]:
    """Give each id once. Refuses what is none."""
    if not user_ids:
        raise BadUsage("name a user with --user, or a file of them with --list")
    for user_id in user_ids:
        if fault := id_fault(user_id):
            raise BadUsage(f"{user_id!r} is no userId: it {fault}")
    return list(dict.fromkeys(user_ids))


def _show(report: ErasureReport) -> None:
    for user in report.erased:
        how = f"erased at seq {user.seq}" if user.applied else f"was erased at seq {user.seq} already"
        click.echo(f"{user.user_id}: {how}; {user.actions} actions stay used")
    for user_id in report.unknown:
        click.echo(f"{user_id}: neither in the log nor on a board of this directory")
    click.echo(
        f"rewritten: {len(report.segments)} segments, {len(report.periods)} past periods; "
        f"removed: {len(report.removed)} files"
    )


def _row(found: Found | Unread) -> Sequence[object]:
    if isinstance(found, Unread):
        return (found.path, f"can't be read: {found.reason}", "", "")
    return (found.path, found.what, found.offset, "" if found.seq is None else found.seq)


def _place(found: Found | Unread) -> str:
    return " ".join(str(part) for part in _row(found) if part != "")
