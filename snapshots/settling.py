"""Making the files of a directory forget erased users while it is served. `snapshots.erasing` is for a stopped one.

    erasure applied ──► past periods ──► snapshot, proved ──► older snapshots go ──► what was set aside or cut off goes
                                                                   └──► seal ──► segments, the oldest first

    hide_in_periods(store, unsettled.erasures)                      at once
    settled = settle_files(disk, data_directory, log, store, info, unsettled.erasures)         after a snapshot

Theory: the event names its user as long as any file may, and it stands in the segment that is rewritten last of all
that name this user. So a crash anywhere leaves a log that says what is still to be done (`engine.unsettled`).

Rules:
- Past periods come first. A snapshot after the erasure is only taken when they are done: a replica that begins with it
  fetches the period files of this node.
- The snapshot is proved before an older one goes. Until the log is rewritten it is the only way to the state: a log
  that is rewritten in part can't be replayed from before the erasure.
- All of it holds the log's `upkeep`. A log that was begun anew meanwhile has nothing of before.
- Once a user was erased, nothing stays of what a replica set aside when it began anew (`aside-EPOCH-SEQ`). Nobody reads
  it again, and its leader has what it had. It may name users whose ids this node no longer knows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial

import msgspec

from engine.disk import TMP, Disk
from engine.log import Log
from engine.rewriting import ErasedBy, Forgetting
from engine.segment import SegmentFile
from snapshots.forgetting_files import pseudonym_at, remove_torn, rewrite_periods, rewritten
from snapshots.opening import log_directory
from snapshots.period_store import PeriodStore
from snapshots.store import SnapshotInfo, Store

_ASIDE = re.compile(r"aside-\d+-\d+(-\d+)?")
_FETCHED = re.compile(r"fetched\.(snapshot|period|actions)(" + re.escape(TMP) + r")?")

Erasures = Mapping[str, Sequence[ErasedBy]]


class Settled(msgspec.Struct, frozen=True):
    """What was done to which files."""

    segments: list[str]
    removed: list[str]


def hide_in_periods(store: PeriodStore, erasures: Erasures) -> list[str]:
    """Put pseudonyms into the files of the periods that ended before the erasures; give the paths."""
    return rewrite_periods(store, partial(_names_at, erasures))


def _names_at(erasures: Erasures, seq: int) -> dict[str, str]:
    names = {user_id: pseudonym_at(seq, each) for user_id, each in erasures.items()}
    return {user_id: name for user_id, name in names.items() if name is not None}


def settle_files(
    disk: Disk, data_directory: str, log: Log, store: Store, info: SnapshotInfo, erasures: Erasures
) -> Settled | None:
    """Make all files but the past periods forget. `info` is a snapshot of a state after the erasures.

    None: the log was begun anew meanwhile. Raises `SnapshotDamaged`, `LogDamaged`, `DiskFault`; then it is to be done
    again.
    """
    last_seq = max(seq for each in erasures.values() for seq, _ in each)
    assert last_seq <= info.seq
    change = Forgetting(erasures)
    with log.upkeep:
        if log.statistics().first_seq > info.seq + 1:
            return None
        log.check_place()
        store.verify(info)
        removed = [other.path for other in store.list() if other.seq < info.seq]
        for path in removed:
            store.remove(path)
        removed += store.tidy()  # a snapshot that could be neither finished nor removed, as the disk failed
        disk.sync_directory(store.directory)
        removed += remove_torn(disk, log_directory(data_directory), change)
        removed += remove_aside(disk, data_directory)
        if log.segments()[-1].first_seq <= last_seq:
            log.seal()
        return Settled(_rewrite(disk, log, change, last_seq), removed)


def _rewrite(disk: Disk, log: Log, change: Forgetting, last_seq: int) -> list[str]:
    """Rewrite the segments that may have the users, the oldest first; give their paths."""
    paths = []
    for info in log.segments():
        if info.first_seq > last_seq:
            break
        content = rewritten(disk, SegmentFile(info.path, info.first_seq, info.compressed, info.bytes), change)
        if content is not None:
            log.replace(info, content)
            paths.append(info.path)
    return paths


def remove_aside(disk: Disk, data_directory: str) -> list[str]:
    """Remove what was set aside; give the paths. Empty directories stay."""
    removed: list[str] = []
    for name in disk.list_directory(data_directory):
        if _ASIDE.fullmatch(name):
            for inner in disk.list_directory(f"{data_directory}/{name}"):
                removed += _emptied(disk, f"{data_directory}/{name}/{inner}")
    return removed


def _emptied(disk: Disk, directory: str) -> list[str]:
    paths = [f"{directory}/{name}" for name in disk.list_directory(directory)]
    for path in paths:
        disk.remove(path)
    if paths:
        disk.sync_directory(directory)
    return paths


def remove_downloads(disk: Disk, data_directory: str) -> list[str]:
    """Remove what an earlier process fetched and did not put in place; give the paths. Before anything is fetched."""
    names = disk.list_directory(data_directory) if disk.exists(data_directory) else []
    paths = [f"{data_directory}/{name}" for name in names if _FETCHED.fullmatch(name)]
    for path in paths:
        disk.remove(path)
    if paths:
        disk.sync_directory(data_directory)
    return paths
