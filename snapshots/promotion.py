"""Making a replica's directory a leader's: the next epoch begins, durably, before anything else does.

    log     … last event of the old leader │ EpochBegun epoch + 1 │ what the new leader writes
                                           └── from here on the old leader's epoch is over

Rules:
- The first event of the new epoch is on disk before the directory stops being a replica's. A crash in between leaves a
  replica of the new epoch, which nobody leads yet; promoting it again begins another one, which does no harm.
- Whoever follows sees the new epoch in the log itself. A follower that has it refuses the old leader, and tells it.
- The marker is a small file in the data directory. As long as it is there, the directory belongs to a replica: nobody
  may write to it as a leader.
- A leader that was overtaken has another small file, `deposed`: the epoch that began elsewhere, and the address of its
  leader if that was told. As long as it is there nobody starts in the directory; what it says is for the operator.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import TypeVar

import msgspec

from engine.disk import Disk
from engine.errors import DiskFault
from engine.events import EpochBegun
from engine.limits import SEGMENT_BYTES
from engine.log import Log, Synced
from engine.log_reader import holds_log
from engine.record import Tail
from engine.scoreboard import Rules, Scoreboard
from snapshots.opening import Tell, log_directory, open_directory
from snapshots.restore import LOCK_FILE, RestoreRefused

Kept = TypeVar("Kept")

MARKER_FILE = "replica"
DEPOSED_FILE = "deposed"
MARKER_BYTES_MAX = 64 * 2**10

DEMOTE_NEEDS = "(and --token-file FILE, of scope log:read)"
"""Stands behind the command to demote wherever it is told: the new leader tells nobody else where its epoch began."""

NO_RULES = Rules(points={})
"""Replaying asks no rules: what was decided is in the log."""


class Marker(msgspec.Struct, frozen=True):
    """What makes a directory a replica's. `leader` is the address that it follows.

    `caught_up`: what is in the directory was once all that the leader had then. Before that it may be less than what
    was shown out of the directory that was here before: an emptied one, say, or a leader's that was cut back.
    """

    leader: str
    caught_up: bool = False


class Promoted(msgspec.Struct, frozen=True):
    """What came of a promotion: the new epoch begins after `seq`, the last event that was followed."""

    epoch: int
    seq: int
    tail: Tail


def write_marker(disk: Disk, data_directory: str, marker: Marker) -> None:
    """Mark a directory as a replica's, durably."""
    disk.write_whole(f"{data_directory}/{MARKER_FILE}", [msgspec.json.encode(marker) + b"\n"])


def read_marker(disk: Disk, data_directory: str) -> Marker | None:
    """Read the marker of a directory, None if it has none. Raises `DiskFault` for one that says nothing."""
    remedy = 'It is to hold {"leader": "http://…"}, the address of the leader that this replica follows.'
    return _read(disk, f"{data_directory}/{MARKER_FILE}", Marker, remedy)


def mark_caught_up(disk: Disk, data_directory: str) -> None:
    """Note in the marker, durably, that the directory was caught up once."""
    marker = read_marker(disk, data_directory)
    if marker is not None and not marker.caught_up:
        write_marker(disk, data_directory, msgspec.structs.replace(marker, caught_up=True))


def remove_marker(disk: Disk, data_directory: str) -> None:
    """Let a directory be a replica's no longer, durably."""
    path = f"{data_directory}/{MARKER_FILE}"
    if disk.exists(path):
        disk.remove(path)
        disk.sync_directory(data_directory)


class Successor(msgspec.Struct, frozen=True):
    """Who leads instead of a leader that was overtaken: in which epoch, and at which address if that was told."""

    epoch: int
    leader: str | None = None


def newest(known: Successor | None, heard: Successor) -> Successor:
    """Give what is known once more was heard: the higher epoch counts, and of one epoch the address that came first."""
    if known is None or heard.epoch > known.epoch or (heard.epoch == known.epoch and known.leader is None):
        return heard
    return known


def write_deposed(disk: Disk, data_directory: str, successor: Successor) -> None:
    """Mark a leader's directory as overtaken, durably: a restart must not write with the old epoch."""
    disk.write_whole(f"{data_directory}/{DEPOSED_FILE}", [msgspec.json.encode(successor) + b"\n"])


def read_deposed(disk: Disk, data_directory: str) -> Successor | None:
    """Read by whom a directory was overtaken, None if it was not. Raises `DiskFault` for a file that says nothing."""
    remedy = f"This was a leader's until a newer epoch began: {demote_command(data_directory, None)}"
    return _read(disk, f"{data_directory}/{DEPOSED_FILE}", Successor, remedy)


def demote_command(data_directory: str, successor: Successor | None) -> str:
    """Give the command that makes an overtaken leader's directory a replica's; as it is, where the address is known."""
    leader = None if successor is None else successor.leader
    to = "URL-OF-THE-NEW-LEADER" if leader is None else shlex.quote(leader)
    return f"scoreboard demote --data-dir {shlex.quote(data_directory)} --to {to}"


def remove_deposed(disk: Disk, data_directory: str) -> None:
    """Let a directory be overtaken no longer, durably: it became a replica's."""
    path = f"{data_directory}/{DEPOSED_FILE}"
    if disk.exists(path):
        disk.remove(path)
        disk.sync_directory(data_directory)


def _read(disk: Disk, path: str, kind: type[Kept], remedy: str) -> Kept | None:
    if not disk.exists(path):
        return None
    file = disk.open(path)
    try:
        return msgspec.json.decode(file.read_at(0, MARKER_BYTES_MAX), type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DiskFault("the marker of a directory can't be read", path=path, remedy=remedy) from error
    finally:
        file.close()


def begin_epoch(
    log: Log, *, after: Scoreboard, now_ms: int, above: int = 0, note: str = "promoted"
) -> tuple[EpochBegun, Synced]:
    """Log the beginning of the next epoch, one that is also higher than `above`; the caller applies it.

    `after` is the state at the log's end. Raises `WriteFailed`; the epoch may or may not have begun then.
    """
    assert log.tail.seq == after.seq
    epoch = max(after.epoch, above) + 1
    event = EpochBegun(after.seq + 1, max(now_ms, after.time_ms), epoch, note)
    return event, log.append([event], epoch)


def promote_directory(
    disk: Disk,
    data_directory: str,
    *,
    now_ms: int,
    tell: Tell,
    above: int = 0,
    segment_bytes: int = SEGMENT_BYTES,
    on_step: Callable[[str], None] = lambda _step: None,
) -> Promoted:
    """Make the directory of a stopped replica a leader's. `above`: an epoch that is known to have been used elsewhere.

    Raises `DirectoryInUse` if the replica still runs, `RestoreRefused` if there is nothing to promote, `LogDamaged`.
    """
    if not disk.exists(data_directory) or not holds_log(disk, log_directory(data_directory)):
        raise RestoreRefused(f"{data_directory} holds no log, so there is nothing to promote")
    lock = disk.lock(f"{data_directory}/{LOCK_FILE}")
    try:
        on_step("open")
        opened = open_directory(disk, data_directory, NO_RULES, tell=tell, segment_bytes=segment_bytes)
        try:
            on_step("epoch")
            event, _ = begin_epoch(opened.log, after=opened.scoreboard, now_ms=now_ms, above=above)
            tail = opened.log.tail
        finally:
            opened.log.close()
        remove_marker(disk, data_directory)
        return Promoted(event.epoch, event.seq - 1, tail)
    finally:
        lock.release()
