"""What can be read of a past period, wherever it is: in its file, or in memory until the file is written. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from engine.ranking import FinalRow


class PastRanking(Protocol):
    """A past period that can be read: in its file (`PeriodReader`), or in memory until the file is written."""

    def top(self, count: int) -> Sequence[FinalRow]: ...

    def rows(self, start: int, count: int) -> Sequence[FinalRow]:
        """Give rows from this position on, 0 for the first."""

    def find(self, user_id: str) -> tuple[int, FinalRow] | None:
        """Give a user's position and row."""
