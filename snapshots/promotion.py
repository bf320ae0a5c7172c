"""Promotion: a replica's directory becomes a leader's. It also reads and writes the markers that say whose it is.

    promoted = promote_directory(disk, data_directory, now_ms=now_ms, tell=tell)         of a stopped replica
    marker = read_marker(disk, data_directory)                                           None for a leader's directory

    log     … last event of the old leader │ EpochBegun epoch + 1 │ events of the new leader
                                           └── from here on the old leader's epoch is over

Rules:
- The event that begins the new epoch is durable before the replica's marker is removed. A crash in between leaves a
  replica in an epoch without a leader. Promoting it again begins yet another epoch, which does no harm.
- Followers see the new epoch in the log itself. A follower that has it refuses the old leader, and tells it.
- Each epoch has an identity, drawn at random (`engine.history`). Two promotions may begin the same epoch; they differ
  in it. All nodes choose the same one of them.
- While the file `replica` is in the directory, it belongs to a replica, and no leader may write there.
- While the file `deposed` is there, no process serves from the directory. It tells the operator which epoch began
  elsewhere, and the address of its leader if that is known.
"""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from typing import TypeVar

import msgspec

from engine.board_rules import Rules
from engine.disk import Disk
from engine.errors import DiskFault, DiskFull
from engine.events import EpochBegun
from engine.history import HISTORY_BYTES, EpochMark
from engine.limits import SEGMENT_BYTES
from engine.log import Log, Synced
from engine.log_reader import holds_log
from engine.record import Tail
from engine.scoreboard import Scoreboard
from snapshots.membership import write_refusal
from snapshots.opening import Tell, log_directory, open_directory
from snapshots.period_store import PeriodStore
from snapshots.periods import missing_files
from snapshots.restore import LOCK_FILE, RestoreRefused

Kept = TypeVar("Kept")

MARKER_FILE = "replica"
DEPOSED_FILE = "deposed"
MARKER_BYTES_MAX = 64 * 2**10

DEMOTE_NEEDS = "(and --token-file FILE, of scope log:read)"
"""Follows the command to demote in messages: the new leader says where its epoch began only to this scope."""


NO_RULES = Rules({})
"""A replay needs no rules: the decisions are in the log."""


class Marker(msgspec.Struct, frozen=True):
    """The marker of a replica's directory. `leader` is the address that the replica follows.

    `caught_up`: the replica once had everything that its leader had. Before that it may have less than was shown from
    this directory before: it may have been emptied, or it was a leader's and was cut back.
    """

    leader: str
    caught_up: bool = False


class Promoted(msgspec.Struct, frozen=True):
    """The result of a promotion. The new epoch begins after `seq`, the last event of the old leader.

    `missing` are the files of past periods that this directory lacks.
    """

    epoch: int
    seq: int
    tail: Tail
    missing: Sequence[str] = ()


def write_marker(disk: Disk, data_directory: str, marker: Marker) -> None:
    """Mark a directory as a replica's, durably."""
    disk.write_whole(f"{data_directory}/{MARKER_FILE}", [msgspec.json.encode(marker) + b"\n"])


def read_marker(disk: Disk, data_directory: str) -> Marker | None:
    """Read the marker of a directory, None if it has none. Raises `DiskFault` if it can't be decoded."""
    remedy = 'It is to hold {"leader": "http://…"}, the address of the leader that this replica follows.'
    return _read(disk, f"{data_directory}/{MARKER_FILE}", Marker, remedy)


def mark_caught_up(disk: Disk, data_directory: str) -> None:
    """Note in the marker, durably, that the replica caught up once."""
    marker = read_marker(disk, data_directory)
    if marker is not None and not marker.caught_up:
        write_marker(disk, data_directory, msgspec.structs.replace(marker, caught_up=True))


def remove_marker(disk: Disk, data_directory: str) -> None:
    """Remove the marker of a replica's directory, durably."""
    _remove(disk, data_directory, MARKER_FILE)


class Successor(msgspec.Struct, frozen=True):
    """The leader after a deposed one: its epoch, and its address if that is known.

    `first_seq` and `history` are those of the epoch's mark (`engine.history`), 0 and "" if they are not known.
    """

    epoch: int
    leader: str | None = None
    first_seq: int = 0
    history: str = ""

    @property
    def mark(self) -> EpochMark:
        return EpochMark(self.epoch, self.first_seq, self.history)


def successor_of(mark: EpochMark, leader: str | None) -> Successor:
    return Successor(mark.epoch, leader, mark.first_seq, mark.history)


def newest(known: Successor | None, heard: Successor) -> Successor:
    """Choose between a known successor and another: the greater mark, and for one mark the first known address.

    An older version names no identity. What it says of the same epoch adds an address, and takes nothing away.
    """
    if known is None or heard.epoch > known.epoch:
        return heard
    if heard.epoch < known.epoch:
        return known
    if known.mark == heard.mark or not (known.history and heard.history):
        greater = max(known.mark, heard.mark)
        return successor_of(greater, known.leader if known.leader is not None else heard.leader)
    return max(known, heard, key=_mark_of)


def _mark_of(successor: Successor) -> EpochMark:
    return successor.mark


def began_elsewhere(successor: Successor) -> str:
    """Say why a deposed leader is one. Its own epoch may have the same number, so the identity is named too."""
    which = f" (history {successor.history})" if successor.history else ""
    return f"epoch {successor.epoch}{which} began elsewhere"


def write_deposed(disk: Disk, data_directory: str, successor: Successor) -> None:
    """Mark a leader's directory as deposed, durably: a restart must not write in the old epoch."""
    disk.write_whole(f"{data_directory}/{DEPOSED_FILE}", [msgspec.json.encode(successor) + b"\n"])


def read_deposed(disk: Disk, data_directory: str) -> Successor | None:
    """Read who deposed a leader, None if nobody did. Raises `DiskFault` if the file can't be decoded."""
    remedy = f"This was a leader's until a newer epoch began: {demote_command(data_directory, None)}"
    return _read(disk, f"{data_directory}/{DEPOSED_FILE}", Successor, remedy)


def demote_command(data_directory: str, successor: Successor | None) -> str:
    """Give the command that demotes a deposed leader. Without a known address it has a placeholder."""
    leader = None if successor is None else successor.leader
    to = "URL-OF-THE-NEW-LEADER" if leader is None else shlex.quote(leader)
    return f"scoreboard demote --data-dir {shlex.quote(data_directory)} --to {to}"


def remove_deposed(disk: Disk, data_directory: str) -> None:
    """Remove the mark of a deposed leader, durably: the directory became a replica's."""
    _remove(disk, data_directory, DEPOSED_FILE)


def _remove(disk: Disk, data_directory: str, name: str) -> None:
    path = f"{data_directory}/{name}"
    if disk.exists(path):
        disk.remove(path)
        disk.sync_directory(data_directory)


def _read(disk: Disk, path: str, kind: type[Kept], remedy: str) -> Kept | None:
    if not disk.exists(path):
        return None
    with closing(disk.open(path)) as file:
        data = file.read_at(0, MARKER_BYTES_MAX)
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DiskFault("the marker of a directory can't be read", path=path, remedy=remedy) from error


def begin_epoch(
    log: Log, *, after: Scoreboard, now_ms: int, history: bytes, above: int = 0, note: str = "promoted"
) -> tuple[EpochBegun, Synced]:
    """Log the event that begins the next epoch, also higher than `above`; the caller applies it.

    `history` is the identity of the new epoch, HISTORY_BYTES drawn at random. `after` is the state at the end of the
    log. After a `WriteFailed` the epoch may or may not have begun.
    """
    assert log.tail.seq == after.seq
    epoch = max(after.epoch, above) + 1
    event = EpochBegun(after.seq + 1, max(now_ms, after.time_ms), epoch, note, history)
    with suppress(DiskFull):
        log.make_room()  # if it is full, the event may still fit
    return event, log.append([event], epoch)


def promote_directory(
    disk: Disk,
    data_directory: str,
    *,
    now_ms: int,
    tell: Tell,
    above: int = 0,
    segment_bytes: int = SEGMENT_BYTES,
    random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    on_step: Callable[[str], None] = lambda _step: None,
) -> Promoted:
    """Make the directory of a stopped replica a leader's. `above`: the highest epoch that is known elsewhere.

    Raises `DirectoryInUse` if the replica still runs, `RestoreRefused` if there is no log, `LogDamaged`.
    """
    if not disk.exists(data_directory) or not holds_log(disk, log_directory(data_directory)):
        raise RestoreRefused(f"{data_directory} holds no log, so there is nothing to promote")
    if (why_not := write_refusal(disk, data_directory)) is not None:
        raise RestoreRefused(why_not)
    lock = disk.lock(f"{data_directory}/{LOCK_FILE}")
    try:
        on_step("open")
        opened = open_directory(disk, data_directory, NO_RULES, tell=tell, segment_bytes=segment_bytes)
        with closing(opened.log) as log:
            on_step("epoch")
            history = random_bytes(HISTORY_BYTES)
            event, _ = begin_epoch(log, after=opened.scoreboard, now_ms=now_ms, history=history, above=above)
            tail = log.tail
        remove_marker(disk, data_directory)
        with closing(PeriodStore(disk, data_directory)) as periods:
            seqs = set(missing_files(periods, opened.scoreboard)) - {ended.past.seq for ended in opened.ended}
            missing = [periods.path(seq) for seq in sorted(seqs)]
        return Promoted(event.epoch, event.seq - 1, tail, missing)
    finally:
        lock.release()
