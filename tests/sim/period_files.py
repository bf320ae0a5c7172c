"""The files of past periods in a simulated run: those that the state calls for must be there, and as the periods ended.

A leader has them all after each start, and after a power cut at the end: what ended is in a file, or in the log that is
replayed. A replica that began with a snapshot fetches them, so it has them at the end.
"""

from __future__ import annotations

from contextlib import closing

from msgspec.structs import replace

from engine.disk import Disk
from engine.erased import is_erased
from engine.errors import SnapshotDamaged
from engine.ranking import FinalRow
from engine.scoreboard import Scoreboard
from snapshots.period_file import PeriodReader, verify
from snapshots.period_store import PeriodStore
from snapshots.periods import missing_files
from tests.sim.books import Broken
from tests.sim.plain import Plain


def lacks_files(disk: Disk, directory: str, scoreboard: Scoreboard) -> list[int]:
    """List the periods whose files are missing."""
    return missing_files(PeriodStore(disk, directory), scoreboard)


def check_all_files(disk: Disk, directory: str, scoreboard: Scoreboard, plain: Plain) -> int:
    """Check that there is each file, as the period ended; give their number."""
    if lacking := lacks_files(disk, directory, scoreboard):
        raise Broken(f"{directory} lacks the files of the periods until {lacking}")
    return check_files(disk, directory, scoreboard, plain)


def check_files(
    disk: Disk, directory: str, scoreboard: Scoreboard, plain: Plain, *, may_be_damaged: bool = False
) -> int:
    """Compare each file that is there with the period as it ended; give their number."""
    store, finals, compared = PeriodStore(disk, directory), plain.finals(), 0
    for board_id in scoreboard.served():
        definition = scoreboard.boards[board_id].definition
        assert definition is not None
        for past in definition.past:
            if not past.count or not store.has(past.seq):
                continue
            path = store.path(past.seq)
            with closing(disk.open(path)) as file:
                try:
                    head = verify(file, path)
                    rows = PeriodReader(file, path).rows(0, head.count)
                except SnapshotDamaged as damage:
                    if not may_be_damaged:
                        raise Broken(f"no bit had flipped, and yet: {damage}") from damage
                    continue
            expected = [_named(row, known) for row, known in zip(rows, finals[past.seq], strict=False)]
            expected += finals[past.seq][len(rows) :]
            if (head.board_id, head.period_id, rows) != (board_id, past.period.id, expected):
                raise Broken(f"{path} has {head} with {rows}, {past} of {board_id} ended with {finals[past.seq]}")
            compared += 1
    return compared


def _named(row: FinalRow, known: FinalRow) -> FinalRow:
    """Give a row of the model, with the pseudonym where the file has one: its user was erased."""
    return replace(known, user_id=row.user_id) if is_erased(row.user_id) else known
