"""`scoreboard restore`: make a new data directory from another one, as that was after an event or at a time."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from engine.disk import RealDisk
from server.cli.erase import checked_ids, read_ids, run_erasure
from server.cli.support import BadUsage, Moment, json_option, print_json, say, state_bar, warn
from server.live.encoding import iso_ms
from snapshots.erasing import ErasureReport
from snapshots.restore import RestoreRefused, RestoreReport
from snapshots.restore import restore as make_restored


@click.command()
@click.option("--from", "source", required=True, type=click.Path(file_okay=False), metavar="DIR", help="The source.")
@click.option("--to", "target", required=True, type=click.Path(file_okay=False), metavar="NEWDIR", help="Made anew.")
@click.option("--until-seq", type=click.IntRange(min=1), help="The last event to keep.")
@click.option("--until-time", "until_ms", type=Moment(), help="The last time to keep: ISO 8601, or ms since 1970.")
@click.option(
    "--erase-list", type=click.Path(path_type=Path, dir_okay=False), help="Erase these users again: an id a line."
)
@json_option
def restore(
    source: str, target: str, until_seq: int | None, until_ms: int | None, erase_list: Path | None, as_json: bool
) -> None:
    """Make NEWDIR from DIR with everything, or everything up to an event or a time. DIR is only read.

    DIR may be in use, a backup, or damaged after that point. A new epoch begins in NEWDIR.
    """
    check_target(Path(source), Path(target))
    erased = [] if erase_list is None else checked_ids(read_ids(erase_list))
    reports: list[ErasureReport] = []
    try:
        with state_bar("restoring") as show:
            report = make_restored(
                RealDisk(),
                source,
                target,
                until_seq=until_seq,
                until_ms=until_ms,
                clock_ms=lambda: time.time_ns() // 1_000_000,
                tell=warn,
                progress=show,
                change=lambda building: reports.append(run_erasure(building, erased, show)) if erased else None,
            )
    except RestoreRefused as refused:
        raise BadUsage(str(refused)) from refused
    if as_json:
        print_json(_fields(report))
        return
    click.echo(f"{report.target}: {report.events} events up to seq {report.seq}, now epoch {report.epoch}")
    for sentence in report.left_behind:
        say(f"Left behind: {sentence}")
    if erased:
        again = [user for one in reports for user in one.erased]
        say(f"Erased again: {sum(user.applied for user in again)} of the {len(erased)} users in {erase_list}.")
    else:
        say(f"Who was erased after seq {report.seq} is in it again: --erase-list FILE erases them in a restore.")
    if not report.signing_key:
        say("There was no signing key to copy; tokens of the old directory are worth nothing in the new one.")


def check_target(source: Path, target: Path) -> None:
    """Refuse a target that is within the source, also by another name, or that could only fail at the end."""
    if target.resolve().is_relative_to(source.resolve()):
        raise BadUsage(f"{target} is within {source}, which a restore must not change")
    if target.is_mount():
        # The target is built beside its place and renamed at the end, which fails across file systems.
        raise BadUsage(f"{target} is a mount point; name a directory within it, such as {target / 'data'}")


def _fields(report: RestoreReport) -> dict[str, Any]:
    return {
        "target": report.target,
        "seq": report.seq,
        "epoch": report.epoch,
        "time": iso_ms(report.time_ms),
        "events": report.events,
        "firstSeq": report.first_seq,
        "boards": report.boards,
        "users": report.users,
        "actions": report.actions,
        "signingKey": report.signing_key,
        "leftBehind": report.left_behind,
    }
