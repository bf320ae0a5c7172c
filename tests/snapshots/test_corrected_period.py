"""Rows of a past period as a correction left them, where an erased user has another number than in the file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from engine.events import Rescored
from engine.ranking import FinalRow
from engine.reversals import CorrectedPeriod
from snapshots.corrected_period import Correction


@dataclass
class File:
    """A file with these users, who have 50, 40, 30 … points."""

    users: Sequence[str]

    def rows(self, start: int, count: int) -> Sequence[FinalRow]:
        rows = [FinalRow(at + 1, user, 50 - 10 * at, 0, at + 1) for at, user in enumerate(self.users)]
        return rows[start : start + count]

    def top(self, count: int) -> Sequence[FinalRow]:
        return self.rows(0, count)

    def find(self, _user_id: str) -> tuple[int, FinalRow] | None:
        raise NotImplementedError


@pytest.mark.parametrize("number", ["\x001", "\x002", "\x000"])
def test_a_row_is_replaced_whatever_number_the_file_has(number: str) -> None:
    """There is one row of the erased user, and as many as the correction counts."""
    rows = (Rescored("\x001", 5, 2, 0), Rescored("cid", None, 0, 0))
    corrected = Correction(CorrectedPeriod(9, 0, 2, rows), "descending", "unique")
    found = [(row.rank, row.user_id, row.score) for row in corrected.rows(File(["ann", number, "cid"]), 3)]
    assert found == [(1, "ann", 50), (2, "\x001", 5)]


def test_erased_users_who_were_not_corrected_stay() -> None:
    """The correction names one of them as the file does."""
    corrected = Correction(CorrectedPeriod(9, 0, 1, (Rescored("\x001", None, 0, 0),)), "descending", "unique")
    found = [(row.rank, row.user_id, row.score) for row in corrected.rows(File(["\x001", "\x002"]), 2)]
    assert found == [(1, "\x002", 40)]
