"""`scoreboard snapshot take|list|verify`: snapshots beside a running leader, or without one.

`take` reads the newest snapshot and the log after it, as a start does, and writes a new snapshot. It needs no lock,
because a snapshot appears whole, and under the name of its seq.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Any

import click

from engine.action_blocks import RunInfo
from engine.action_run_bytes import RunBytes
from engine.disk import RealDisk
from engine.errors import DiskFault, LogDamaged, NoLongerKept
from engine.log_reader import scan
from engine.record import Tail
from server.cli.support import (
    CommandRefused,
    directory_option,
    json_option,
    print_json,
    print_table,
    progress_bar,
    say,
    state_bar,
    warn,
)
from snapshots.action_store import ActionStore
from snapshots.checkpoint import take_beside
from snapshots.opening import log_directory
from snapshots.store import SnapshotInfo, Store


@click.group()
def snapshot() -> None:
    """Take, list and prove snapshots."""


@snapshot.command()
@directory_option
@json_option
def take(directory: str, as_json: bool) -> None:
    """Write a snapshot of the state at the end of the log; a leader may be running."""
    with state_bar("taking a snapshot") as show:
        info = take_beside(RealDisk(), directory, tell=warn, progress=show)
    if as_json:
        print_json(_fields(info))
    else:
        click.echo(f"{info.path}: the state after seq {info.seq}, {info.bytes} bytes")


@snapshot.command(name="list")
@directory_option
@json_option
def list_snapshots(directory: str, as_json: bool) -> None:
    """List the snapshots, newest first; `verify` says whether they are sound."""
    infos = Store(RealDisk(), directory).list()
    if not infos:
        say(f"There is no snapshot in {directory}.")
    if as_json:
        print_json([_fields(info) for info in infos])
    else:
        print_table(("seq", "bytes", "path"), [(info.seq, info.bytes, info.path) for info in infos])


@snapshot.command()
@directory_option
@json_option
def verify(directory: str, as_json: bool) -> None:
    """Read every snapshot and the files of actions that it names, prove them, and compare it with the log.

    Exit code 1 if any is not as it should be.

    Without a snapshot that is told; exit code 1 if the log alone does not have every event.
    """
    store = Store(RealDisk(), directory)
    infos = store.list()
    if not infos:
        _verify_none(store.directory, log_directory(directory), as_json=as_json)
        return
    results: list[dict[str, Any]] = []
    actions = ActionFiles(directory)
    with progress_bar("verifying snapshots") as move:
        for number, info in enumerate(infos):
            move(number, len(infos))
            judgement = judge(store, info, log_directory(directory), actions)
            if judgement is not None:
                results.append({**_fields(info), **judgement})
    if as_json:
        print_json(results)
    else:
        columns = ("seq", "result", "path")
        print_table(columns, [[result[column] for column in columns] for result in results])
    bad = [result for result in results if not result["ok"]]
    if bad:
        raise CommandRefused(f"{len(bad)} of {len(results)} snapshots are not as they should be")


def _verify_none(directory: str, log: str, *, as_json: bool) -> None:
    """Say that there is no snapshot. Raises `CommandRefused` if a restore would need one."""
    if as_json:
        print_json([])
    try:
        first = next(scan(RealDisk(), log, from_seq=1), None)
    except NoLongerKept as error:
        why = f"there is no snapshot in {directory}, and without one nothing can be restored"
        raise CommandRefused(f"{why}: {error}") from error
    has = "has no event yet" if first is None else "begins with the first event"
    text = f"there is no snapshot in {directory}: nothing was verified; the log {has}"
    if as_json:
        say(text)
    else:
        click.echo(text)


class ActionFiles:
    """The files of older actions of a directory. Each is proved once."""

    def __init__(self, directory: str) -> None:
        self._store = ActionStore(RealDisk(), directory)
        self._faults: dict[RunInfo, DiskFault | None] = {}

    def fault(self, infos: Sequence[RunInfo], log_id: bytes) -> DiskFault | None:
        """Give the fault of the first of these files that has one."""
        for info in infos:
            if info not in self._faults:
                self._faults[info] = self._prove(info, log_id)
        return next((fault for info in infos if (fault := self._faults[info]) is not None), None)

    def _prove(self, info: RunInfo, log_id: bytes) -> DiskFault | None:
        try:
            with closing(RunBytes.open(self._store.disk, self._store.path(info))) as run:
                run.prove(info, log_id)
        except DiskFault as fault:
            return fault
        return None


def judge(store: Store, info: SnapshotInfo, log: str, actions: ActionFiles) -> dict[str, Any] | None:
    """Say whether a snapshot is sound and joins the log; None if it was removed since it was listed."""
    try:
        tail, manifest = store.verify(info), store.manifest(info)
        if (missing := None if manifest is None else actions.fault(manifest.runs, tail.log_id)) is not None:
            gone = not store.disk.exists(info.path)  # then its files may be gone too
            return None if gone else {"ok": False, "result": f"sound, but a file of actions is not: {missing}"}
    except DiskFault as fault:
        # A leader that takes a new one removes the oldest, which is no fault.
        return {"ok": False, "result": fault.what} if info.path in {kept.path for kept in store.list()} else None
    try:
        return {"ok": True, "result": f"sound; {_joined(tail, log)}"}
    except LogDamaged as damage:
        return {"ok": False, "result": f"sound, but the log is damaged at its seq: {damage.what}"}
    except DiskFault as fault:
        return {"ok": False, "result": f"sound, but the log can't be read at its seq: {fault.what}"}


def _joined(tail: Tail, log: str) -> str:
    """Compare the checksums of snapshot and log at the snapshot's seq. Raises `LogDamaged`."""
    if tail.seq == 0:
        return "from before the first event"
    try:
        frame = next(scan(RealDisk(), log, from_seq=tail.seq, until_seq=tail.seq), None)
    except NoLongerKept:
        return "the log no longer goes back to its seq"
    if frame is None:
        raise LogDamaged("the log ends before the snapshot", path=log, seq=tail.seq)
    if (frame.last_seq, frame.checksum) != (tail.seq, tail.checksum):
        raise LogDamaged("log and snapshot are of different histories", path=log, seq=tail.seq)
    return "joins the log"


def _fields(info: SnapshotInfo) -> dict[str, Any]:
    return {"path": info.path, "seq": info.seq, "bytes": info.bytes}
