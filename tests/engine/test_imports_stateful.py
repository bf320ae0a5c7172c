"""Imports among all else that happens to boards: the machine of `test_boards_stateful` with rows that come in.

The plain model keeps what is left of each import as a list. A row is to it what an action of that value would be, with
the time that the row says; where actions are counted, as many actions as the row says.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from engine.batch import Batch
from engine.calendar import period_at
from engine.commands import ImportReceipt, ImportRow, ImportRows, Rejection
from tests.engine.plain_boards import LARGEST, Answer, Done, PlainBoard, PlainBoards, scores_after
from tests.engine.test_boards_stateful import BOARDS, BoardsMachine
from tests.seeds import in_ci

SCORES = st.integers(1, 20) | st.sampled_from([1, LARGEST - 30])
SMALL = st.integers(1, 4)


class PlainImport:
    """An import: its board, the period in which it began, all of its rows and how many are done."""

    def __init__(self, command: ImportRows, rows: list[ImportRow], period_number: int) -> None:
        self.board_id, self.digest, self.merge = command.board_id, command.digest, command.merge
        self.rows, self.period_number, self.done = rows, period_number, 0


class PlainImports(PlainBoards):
    """The plain boards, and the imports to them. `sources` are the rows of each import, by its id."""

    def __init__(self) -> None:
        super().__init__()
        self.imports: dict[str, PlainImport] = {}
        self.sources: dict[str, list[ImportRow]] = {}

    def perform_rows(self, command: ImportRows, now_ms: int) -> Answer:
        """Take in rows: what became of them."""
        board = self.boards.get(command.board_id)
        if board is None:
            return ("NOT_FOUND",)
        known = self.imports.get(command.import_id)
        done = 0 if known is None else known.done
        if known is not None:
            same = (known.board_id, known.digest, known.merge)
            if same != (command.board_id, command.digest, command.merge):
                return ("CONFLICT",)
        if command.first_row > done:
            return ("CONFLICT",)
        rows = list(command.rows)[done - command.first_row :]
        if not rows:
            return "imported", done, 0, self.seq
        return self._import(command, board, known, rows, max(now_ms, self.time_ms))

    def _import(
        self, command: ImportRows, board: PlainBoard, known: PlainImport | None, rows: list[ImportRow], now_ms: int
    ) -> Answer:
        if (fault := self._write_fault(board, now_ms)) is not None:
            return (fault,)
        if known is None:
            if board.done and not command.merge:
                return ("CONFLICT",)
        elif known.period_number != board.period_number:
            return ("CONFLICT",)
        counts = board.rules.score == "count"
        for row in rows:
            values = [done.value for done in board.done.get(row.user_id, [])]
            if scores_after(board.rules, [*values, *([1] * row.score if counts else [row.score])])[-1] > LARGEST:
                return ("INVALID_REQUEST",)
        if known is None:
            known = PlainImport(command, self.sources[command.import_id], board.period_number)
            self.imports[command.import_id] = known
            self._next(now_ms)
        for row in rows:
            name, active = self.users.get(row.user_id, (None, True))
            if row.display_name is not None and name != row.display_name:
                self.users[row.user_id] = (row.display_name, active)
                self._next(now_ms)
            done = Done(row.score, self._next(now_ms), now_ms if row.reached_ms is None else row.reached_ms)
            board.done.setdefault(row.user_id, []).extend([done] * (row.score if counts else 1))
        known.done += len(rows)
        return "imported", known.done, len(rows), self.seq


class ImportsMachine(BoardsMachine):
    """The boards of every kind, with imports."""

    def __init__(self) -> None:
        super().__init__()
        self.plain: PlainImports = PlainImports()

    @initialize(data=st.data())
    def draw_sources(self, data: st.DataObject) -> None:
        """Make the rows of some imports, each user once."""
        users = [f"user-{number}" for number in range(6)]
        for import_id in ("first", "second", "third"):
            self.plain.sources[import_id] = [
                ImportRow(
                    user,
                    data.draw(SMALL),
                    data.draw(st.sampled_from([None, None, 0, 1_700_000_000_000])),
                    data.draw(st.sampled_from([None, None, "Ann", "Bob"])),
                )
                for user in data.draw(st.permutations(users))[: data.draw(st.integers(1, 6))]
            ]

    @rule(
        import_id=st.sampled_from(["first", "second", "third"]),
        board_id=BOARDS | st.just("nowhere"),
        first=st.integers(0, 3),
        count=st.integers(1, 6),
        merge=st.sampled_from([True, True, False]),
        factor=SCORES,
        again=st.booleans(),
    )
    def take_rows(
        self, import_id: str, board_id: str, first: int, count: int, merge: bool, factor: int, again: bool
    ) -> None:
        """Send rows of an import: from its beginning, from where it is, or somewhere else, perhaps to another board."""
        source, known = self.plain.sources[import_id], self.plain.imports.get(import_id)
        if known is not None and again:
            board_id, merge, first = known.board_id, known.merge, min(known.done, len(source) - 1)
        first = min(first, len(source) - 1)
        board = self.plain.boards.get(board_id)
        if known is None and board is not None and board.rules.score != "count":
            source[:] = [ImportRow(row.user_id, row.score * factor, row.reached_ms, row.display_name) for row in source]
            source[:] = [row for row in source if row.score <= LARGEST] or [ImportRow("user-0", LARGEST)]
            first = min(first, len(source) - 1)
        elif board is not None and board.rules.score == "count" and max(row.score for row in source) > 100:
            return  # the model would make a list of as many actions
        rows = source[first : first + count]
        self._write_rows(ImportRows(board_id, import_id, first, len(source), import_id, merge, rows, "ops"))

    def _write_rows(self, command: ImportRows) -> None:
        self._change_periods()
        expected = self.plain.perform_rows(command, self.now_ms)
        batch = Batch(self.scoreboard, max(self.now_ms, self.scoreboard.time_ms), period_at)
        batch.decide([command])
        self._log(batch.events)
        [outcome] = batch.settle()
        self._settled()
        if isinstance(outcome, ImportReceipt):
            assert ("imported", outcome.rows_done, outcome.applied, outcome.seq) == expected
        else:
            assert isinstance(outcome, Rejection)
            assert (outcome.code,) == expected

    @precondition(lambda self: self.plain.imports)
    @rule(data=st.data())
    def send_another_source(self, data: st.DataObject) -> None:
        """Use the id of an import for other rows."""
        import_id = data.draw(st.sampled_from(sorted(self.plain.imports)))
        known = self.plain.imports[import_id]
        rows = known.rows[:1]
        self._write_rows(ImportRows(known.board_id, import_id, 0, len(known.rows), "another", known.merge, rows, "ops"))

    @invariant()
    def is_as_the_model_says(self) -> None:
        """Also how far each import is."""
        super().is_as_the_model_says()
        for import_id, plain in self.plain.imports.items():
            real = self.scoreboard.imports.get(import_id)
            assert real is not None
            assert (real.board_id, real.rows, real.rows_done) == (plain.board_id, len(plain.rows), plain.done)
        assert len(self.scoreboard.imports) == len(self.plain.imports)


TestImports = ImportsMachine.TestCase
TestImports.settings = settings(max_examples=in_ci(40, 100), stateful_step_count=40)
