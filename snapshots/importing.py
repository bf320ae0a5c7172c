"""An import into a stopped leader's directory: rows of a source become events of its log, and a snapshot follows.

    with OpenDirectory(disk, data_directory, rules, clock_ms=clock_ms, tell=tell) as opened:      the lock is held
        rules = opened.board_rules("main")
        receipt = opened.take(plan, rows_from, progress)

Rules:
- What a leader would refuse is refused here: rows are decided by `engine.import_decisions`, as over a running leader.
- A frame has IMPORT_ROWS_MAX rows and is synced before the next one. After a kill the import goes on at the row that
  the log has last.
- No order is kept meanwhile, because nobody reads. A start builds it.
- The end of a period is logged by a leader only. If one is due, the import is refused until the server has run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import TracebackType

import msgspec

from engine.board_rules import BoardRules, Rules
from engine.commands import ImportReceipt, ImportRow, ImportRows, Rejection
from engine.disk import Disk
from engine.errors import ScoreboardError
from engine.import_decisions import decide_import, settle_import
from engine.limits import IMPORT_ROWS_MAX
from snapshots.membership import write_refusal
from snapshots.opening import ShowProgress, Tell, no_progress, open_directory
from snapshots.restore import LOCK_FILE
from snapshots.store import Store


class ImportRefused(ScoreboardError):
    """Nothing more of the import was written."""


class ImportPlan(msgspec.Struct, frozen=True):
    """An import: where its rows go, how many they are, and what names their source."""

    board_id: str
    import_id: str
    total: int
    digest: str
    merge: bool
    caller: str


class OpenDirectory:
    """A leader's directory that is open for an import."""

    def __init__(
        self,
        disk: Disk,
        data_directory: str,
        rules: Rules,
        *,
        clock_ms: Callable[[], int],
        tell: Tell,
        progress: ShowProgress = no_progress,
    ) -> None:
        """Take the lock and read the state. Raises `DirectoryInUse`, `LogDamaged`, `ImportRefused`."""
        self._disk = disk
        self._directory = data_directory
        self._clock_ms = clock_ms
        if (why_not := write_refusal(disk, data_directory)) is not None:
            raise ImportRefused(why_not)
        self._lock = disk.lock(f"{data_directory}/{LOCK_FILE}")
        try:
            opened = open_directory(disk, data_directory, rules, tell=tell, progress=progress)
        except BaseException:
            self._lock.release()
            raise
        self._scoreboard, self._log = opened.scoreboard, opened.log
        if opened.ended:  # a snapshot must not cover the log that makes these files
            self.__exit__(None, None, None)
            raise ImportRefused("the disk is full: files of past periods could not be written")

    def __enter__(self) -> OpenDirectory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._log.close()
        self._lock.release()

    def board_rules(self, board_id: str) -> BoardRules:
        """Give the rules of a board that the log has. Raises `ImportRefused`."""
        board = self._scoreboard.board(board_id)
        if board is None or board.definition is None:
            known = ", ".join(self._scoreboard.served())
            raise ImportRefused(f"there is no board {board_id!r}; there are: {known or 'none'}")
        if not board.is_logged:
            raise ImportRefused(f"board {board_id!r} is not in the log yet: start the server once, then stop it")
        return board.definition.rules

    def take(
        self,
        plan: ImportPlan,
        rows_from: Callable[[int, int], Iterator[Sequence[ImportRow]]],
        progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> ImportReceipt:
        """Log what is left of an import, then save a snapshot; give the receipt of all of it.

        `rows_from(first, count)` gives the rows from the `first` on, `count` at a time. Raises `ImportRefused`.
        """
        scoreboard, log = self._scoreboard, self._log
        known = scoreboard.imports.get(plan.import_id)
        first = done = 0 if known is None else known.rows_done
        if first >= plan.total:
            receipt = self._chunk(plan, 0, ())
        scoreboard.begin_replay()
        for rows in rows_from(first, IMPORT_ROWS_MAX):
            receipt = self._chunk(plan, done, rows)
            done = receipt.rows_done
            progress(done, plan.total)
        Store(self._disk, self._directory).save(scoreboard.capture(), log.tail)
        return msgspec.structs.replace(receipt, applied=done - first)

    def _chunk(self, plan: ImportPlan, first_row: int, rows: Sequence[ImportRow]) -> ImportReceipt:
        scoreboard = self._scoreboard
        now_ms = max(self._clock_ms(), scoreboard.time_ms)
        board = scoreboard.boards[plan.board_id]
        due_ms = None if board.definition is None else board.definition.due_ms
        if rows and due_ms is not None and due_ms <= now_ms:
            why = f"something is due on board {plan.board_id!r} that only a leader logs, such as the end of a period"
            raise ImportRefused(f"{why}: start the server once, then stop it")
        command = ImportRows(
            plan.board_id, plan.import_id, first_row, plan.total, plan.digest, plan.merge, rows, plan.caller
        )
        decision = decide_import(scoreboard, command, scoreboard.seq + 1, now_ms)
        if isinstance(decision, Rejection):
            raise ImportRefused(decision.message)
        if decision.events:
            self._log.append(decision.events, scoreboard.epoch)
        return settle_import(scoreboard, decision)
