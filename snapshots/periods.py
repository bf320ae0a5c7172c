"""The past periods of a directory: which files the state calls for, and how an ended period becomes one.

    write_ended(store, ended, log_id)              the file of a period that just ended, or nothing if it is there
    missing = missing_files(store, scoreboard)     the seqs of periods that have no file here
    period = RankedPeriod(ended)                   read an ended period before it has its file

The state names the past periods of each board, the files hold their rankings. So a past period costs no memory. The
content of a file follows from the log, so any node makes the same one.

Rules:
- A snapshot is saved only when the periods that ended before it have their files. So no file depends on a part of the
  log that may be removed.
- A replay makes the files that are missing. A file that is there already is not read.
- A file that the state does not call for may be removed.
- What corrections made of a period stands in the state (`snapshots.corrected_period`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing

from engine.board_events import EndedPeriod
from engine.board_rules import PastPeriod
from engine.disk import Disk
from engine.errors import SnapshotDamaged
from engine.ranking import FinalRow
from engine.record import SEGMENT_HEADER_BYTES, unpack_segment_header
from engine.scoreboard import Scoreboard
from engine.segment import list_segments, read_content
from snapshots.corrected_period import Correction
from snapshots.period_file import PeriodHead, verify
from snapshots.period_store import PeriodStore

PIECE_BYTES = 2**20
"""The length of the pieces in which a file is copied."""


class RankedPeriod:
    """An ended period in memory, whose order is built. Only for the event loop."""

    def __init__(self, ended: EndedPeriod) -> None:
        self._ranking = ended.ranking

    def top(self, count: int) -> Sequence[FinalRow]:
        return self.rows(0, count)

    def rows(self, start: int, count: int) -> Sequence[FinalRow]:
        return self._ranking.final_rows(start, start + count)

    def find(self, user_id: str) -> tuple[int, FinalRow] | None:
        position = self._ranking.position(user_id)
        return None if position is None else (position, self.rows(position, 1)[0])


def expected_files(scoreboard: Scoreboard) -> set[int]:
    """Give the seqs of the periods that the state calls for.

    The public of a frozen board reads the periods of then, so they stay even if the board has dropped them since.
    """
    return {past.seq for board in scoreboard.boards.values() for past in board.known_past if past.count}


def correction_of(scoreboard: Scoreboard, board_id: str, past: PastPeriod) -> Correction | None:
    """Give what corrections made of a past period, None if they did not touch it."""
    corrected, board = scoreboard.reversals.of_past(board_id, past), scoreboard.boards.get(board_id)
    if corrected is None or board is None or board.definition is None:
        return None
    return Correction(corrected, board.definition.rules.order, board.definition.rules.ranks)


def correction_marks(scoreboard: Scoreboard) -> set[str]:
    """Give the marks of all corrections that the state has."""
    found = (
        correction_of(scoreboard, board_id, past)
        for board_id, board in scoreboard.boards.items()
        for past in board.known_past
    )
    return {correction.mark for correction in found if correction is not None}


def missing_files(store: PeriodStore, scoreboard: Scoreboard) -> list[int]:
    """List the seqs of the periods that have no file here, lowest first."""
    return sorted(expected_files(scoreboard) - set(store.list()))


def write_ended(store: PeriodStore, ended: EndedPeriod, log_id: bytes) -> None:
    """Write the file of an ended period, unless it is there. The ranking must not change meanwhile."""
    past, ranking = ended.past, ended.ranking
    if not ranking.is_ordered and store.keep(past.seq):
        return
    if not ranking.is_ordered:
        ranking.end_replay()
    period = past.period
    head = PeriodHead(ranking.board_id, period.id, period.begins_ms, period.ends_ms, past.seq, past.count, log_id)
    store.write(head, ranking.all_rows())


def copy_files(disk: Disk, source: str, target: PeriodStore, seqs: Iterable[int]) -> list[int]:
    """Copy the files of these periods from another data directory, each proved; list those that it lacks."""
    lacking = []
    origin = PeriodStore(disk, source)
    for seq in seqs:
        if target.has(seq):
            continue
        path = origin.path(seq)
        if not disk.exists(path):
            lacking.append(seq)
            continue
        with closing(disk.open(path)) as file:
            try:
                verify(file, path)
            except SnapshotDamaged:
                lacking.append(seq)
                continue
            offsets = range(0, file.size(), PIECE_BYTES)
            target.take(seq, (file.read_at(offset, PIECE_BYTES) for offset in offsets))
    return lacking


def carry_over(disk: Disk, source: str, target: str, scoreboard: Scoreboard) -> list[str]:
    """Copy what the state calls for and the directory `target` lacks; name the periods that `source` lacks too."""
    store = PeriodStore(disk, target)
    lacking = set(copy_files(disk, source, store, missing_files(store, scoreboard)))
    return [
        f"{past.period.id} of board {board_id!r}"
        for board_id, board in sorted(scoreboard.boards.items())
        for past in sorted(board.known_past, key=lambda past: past.seq)
        if past.seq in lacking and past.count
    ]


def log_id_of(disk: Disk, directory: str) -> bytes:
    """Give the id of a log that was proved, from its first segment."""
    segment = list_segments(disk, directory).segments[0]
    return unpack_segment_header(read_content(disk, segment)[:SEGMENT_HEADER_BYTES]).log_id
