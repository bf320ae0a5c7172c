"""The imports of the plain model: how far each is. It refuses a row that is done twice, left out, or of no import."""

from __future__ import annotations

from dataclasses import dataclass

from engine.events import ImportBegun, ScoreImported
from engine.imports import Imports
from tests.sim.plain_board import PlainBoard


@dataclass
class PlainImport:
    """One import, as its first event says it, and the number of its rows that are done."""

    begun: ImportBegun
    done: int = 0

    @property
    def is_finished(self) -> bool:
        """Whether all rows are done."""
        return self.done == self.begun.rows


class PlainImports:
    """See above. `known` has the imports by their ids."""

    def __init__(self) -> None:
        self.known: dict[str, PlainImport] = {}

    def take(self, event: ImportBegun | ScoreImported, board: PlainBoard) -> None:
        """Take the next event of an import to this board."""
        what = f"seq {event.seq} of the import {event.import_id}"
        assert board.definition is not None, f"{what} is for a board without rules"
        assert board.is_open(event.time_ms), f"{what} counts on {event.board_id}, which is not open"
        if isinstance(event, ImportBegun):
            assert event.import_id not in self.known, f"{what} begins it a second time"
            assert event.rows > 0
            assert event.merge or not board.scores, f"{what} begins on a board with scores, and does not merge"
            self.known[event.import_id] = PlainImport(event)
            return
        known = self.known[event.import_id]
        assert event.board_id == known.begun.board_id, f"{what} is for another board"
        assert event.row == known.done < known.begun.rows, f"{what} is row {event.row}, and {known.done} are done"
        ended = [seq for seq in board.finals if seq > known.begun.seq]
        assert not ended, f"{what} runs on into another period: {ended}"
        reached_ms = event.time_ms if event.reached_ms is None else event.reached_ms
        score = board.take_row(event.user_id, event.value, event.seq, event.time_ms, reached_ms)
        assert event.new_score == score, f"{what} gives {event.new_score}, a plain sum {score}"
        known.done += 1

    def check(self, real: Imports) -> None:
        """Compare what a real state knows of them."""
        assert len(real) == len(self.known)
        for import_id, plain in self.known.items():
            begun, found = plain.begun, real.get(import_id)
            assert found is not None, f"the import {import_id} is forgotten"
            theirs = (found.board_id, found.rows, found.rows_done, found.digest, found.merge, found.begun_seq)
            ours = (begun.board_id, begun.rows, plain.done, begun.digest, begun.merge, begun.seq)
            assert theirs == ours, f"the import {import_id} is {theirs}, and not {ours}"
