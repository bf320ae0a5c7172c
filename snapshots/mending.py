"""Making a file of older actions anew from the log, where it is missing or damaged.

    runs = open_or_mend(store, log_directory, manifest, log_id, tell=tell)

The log is the truth: the actions of a run are the increments and reversals of its seqs, and the digests of its blocks,
which a snapshot has, prove that they are the same ones again.

Rules:
- What is wrong with a file is told before it is made anew, and so is that it was.
- If the log no longer has the segments, or has other actions, the start is refused: without the file nobody knows
  which actions were applied, and one could count twice.
- A file that is there may have been renamed by a process that ended before it synced the directory. So a start syncs
  it: a power cut could take the file back later, when the log no longer has its events.
- Memory holds GROUP_BLOCKS blocks at a time, however large the run is.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator

from engine import action_blocks
from engine.action_blocks import DIGEST_BYTES, FORGOTTEN, RunInfo, block_digest
from engine.action_run import Columns, Run, write_run
from engine.action_run_bytes import REMEDY as ANEW
from engine.actions import key_of, key_of_logged, mark_of
from engine.disk import Disk, FileMissing
from engine.erased import is_erased
from engine.errors import DiskFault, LogDamaged, NoLongerKept, RunDamaged
from engine.events import Incremented, Reversed
from engine.image import column_of
from engine.log_reader import scan
from engine.record import events_of
from engine.sealed_actions import Manifest
from snapshots.action_store import ActionStore

GROUP_BLOCKS = 16
"""Blocks that are read from the log and sorted at once: 130 MB."""

REMEDY = "Put the file back from a backup or from another node. Without it nobody knows which actions were applied."


class Mended(DiskFault):
    """A file of older actions was missing or damaged, and was made anew. So nothing is wrong any more."""

    def __init__(self, path: str, seq: int) -> None:
        super().__init__("a file of older actions was made anew", path=path, seq=seq)


def missing_fault(path: str, seq: int) -> RunDamaged:
    """Say that a file of older actions is missing."""
    return RunDamaged("a file of older actions is missing", path=path, seq=seq, remedy=ANEW)


def open_or_mend(
    store: ActionStore, log_directory: str, manifest: Manifest, log_id: bytes, *, tell: Callable[[DiskFault], None]
) -> list[Run]:
    """Open the runs of a snapshot; make those anew that can't be used. Raises `RunDamaged` if that fails."""
    runs: list[Run] = []
    for info in manifest.runs:
        try:
            runs.append(store.open(info, log_id))
            continue
        except FileMissing:
            fault = missing_fault(store.path(info), info.first_seq)
        except RunDamaged as damage:
            fault = damage
        tell(fault)
        mend(store, log_directory, info, manifest.digests, log_id)
        tell(Mended(store.path(info), info.first_seq))
        runs.append(store.open(info, log_id))
    store.disk.sync_directory(store.directory)
    return runs


def mend(store: ActionStore, log_directory: str, info: RunInfo, digests: bytes, log_id: bytes) -> None:
    """Make a run anew from the log. `digests` has those of all blocks. Raises `RunDamaged` if that can't be done."""
    its = [digests[DIGEST_BYTES * at : DIGEST_BYTES * (at + 1)] for at in range(info.first, info.end)]
    groups: list[RunInfo] = []
    try:
        for first, columns in _groups(store.disk, log_directory, info):
            length = action_blocks.BLOCK_ACTIONS
            for start in range(0, len(columns.seqs), length):
                words, seqs = columns.digests[2 * start : 2 * (start + length)], columns.seqs[start : start + length]
                if block_digest(words, seqs) != its[first - info.first + start // length]:
                    raise _unlike(store, info, columns.seqs[start])
            end = first + len(columns.seqs) // length
            if (first, end) == (info.first, info.end):
                write_run(store.disk, store.directory, [columns], log_id, first, end)
                return
            groups.append(write_run(store.disk, store.directory, [columns], log_id, first, end))
        if not groups or groups[-1].end != info.end:
            raise _unlike(store, info, info.last_seq)
        runs = store.open_all(groups, log_id)
        write_run(store.disk, store.directory, runs, log_id, info.first, info.end)
    except (LogDamaged, NoLongerKept) as fault:
        what = f"a file of older actions can't be made anew, because the log can't be read there: {fault}"
        raise RunDamaged(what, path=store.path(info), seq=info.first_seq, remedy=REMEDY) from fault


def _unlike(store: ActionStore, info: RunInfo, seq: int) -> RunDamaged:
    what = "a file of older actions can't be made anew: the log has other actions there than the snapshot says"
    return RunDamaged(what, path=store.path(info), seq=seq, remedy=REMEDY)


def _groups(disk: Disk, log_directory: str, info: RunInfo) -> Iterator[tuple[int, Columns]]:
    """Yield the actions of a run in groups of whole blocks, each with its first block."""
    digests, seqs, marks, first = array("Q"), array("Q"), array("Q"), info.first
    most = GROUP_BLOCKS * action_blocks.BLOCK_ACTIONS
    left = info.count
    for event in _events(disk, log_directory, info):
        key, mark = action_in(event)
        digests.extend(column_of(key))
        seqs.append(event.seq)
        marks.append(mark)
        left -= 1
        if len(seqs) == most or not left:
            yield first, Columns(digests, seqs, marks)
            first += GROUP_BLOCKS
            digests, seqs, marks = array("Q"), array("Q"), array("Q")
        if not left:
            return


def _events(disk: Disk, log_directory: str, info: RunInfo) -> Iterator[Incremented | Reversed]:
    for frame in scan(disk, log_directory, from_seq=info.first_seq, until_seq=info.last_seq):
        for event in events_of(frame):
            if isinstance(event, Incremented | Reversed) and info.first_seq <= event.seq <= info.last_seq:
                yield event


def action_in(event: Incremented | Reversed) -> tuple[bytes, int]:
    """Give the key and the mark of the action that an event of the log applied, as the state has them."""
    if isinstance(event, Reversed):
        return key_of(event.reversal_id), event.asked
    key = key_of_logged(event.action_id)
    if is_erased(event.user_id):
        return key, FORGOTTEN
    return key, mark_of(event.user_id, event.board_id, event.reason, event.chosen_value)
