"""A copy of a ranking at one moment, whose rows are listed while the ranking itself goes on. Pure.

    copied = copy_of(board)            the writer waits for this: 24 bytes a user are copied, milliseconds for a million
    copied.sort()                      in a worker thread: sorting releases the interpreter
    for rows in copied.parts(250):     lists of `FinalRow`, best first

A pinned order (`engine.pinned`) is cheaper for a few pages. But it gives up when too many users move, and it does not
know when their scores of then were reached. A copy always comes to its end, and a busy board pays nothing for it.

Rules:
- The copy shares the list of user ids, which only grows, and reads no more of it than there was.
- The ranking may be in the middle of a replay: no order is needed.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from engine.board_rules import RankMode
from engine.image import column_bytes
from engine.ranking import FinalRow, Ranking
from engine.user_ids import UserIds


class RankingCopy:
    """See above. `count` is the number of rows, `seq` the last event that changed the board."""

    def __init__(
        self, seq: int, user_ids: UserIds, scores: bytes, reached: bytes, updated: bytes, hidden: list[int],
        flip: int, ranks: RankMode,
    ) -> None:  # fmt: skip
        self.seq = seq
        self.count = len(scores) // 8 - len(hidden)
        self._ids = user_ids
        self._scores = np.frombuffer(scores, "<u8")
        self._reached = np.frombuffer(reached, "<u8")
        self._updated = np.frombuffer(updated, "<u8")
        self._hidden = hidden
        self._flip = flip
        self._ranks = ranks
        self._order: np.ndarray[tuple[int], np.dtype[np.int64]] | None = None

    def sort(self) -> None:
        """Put the rows in order: the better score first, of equal ones the one that was reached first."""
        order = np.lexsort((self._reached, self._scores ^ np.uint64(self._flip)))
        if self._hidden:
            shown = np.ones(len(self._scores), bool)
            shown[self._hidden] = False
            order = order[shown[order]]
        self._order = order

    def parts(self, rows: int) -> Iterator[list[FinalRow]]:
        """Yield all rows, in lists of up to this many. Sorted first."""
        assert self._order is not None
        ids, rank, last = self._ids, 0, None
        for start in range(0, self.count, rows):
            slots = self._order[start : start + rows]
            columns = (each[slots].tolist() for each in (self._scores, self._updated, self._reached))
            part = []
            for place, (slot, score, updated_ms, reached) in enumerate(
                zip(slots.tolist(), *columns, strict=True), start
            ):
                if self._ranks == "unique":
                    rank = place + 1
                elif score != last:
                    rank, last = (rank + 1 if self._ranks == "dense" else place + 1), score
                part.append(FinalRow(rank, ids[slot], score, updated_ms, reached))
            yield part


def copy_of(ranking: Ranking) -> RankingCopy:
    """Copy what a ranking shows now."""
    return RankingCopy(
        ranking.seq, ranking._ids, column_bytes(ranking._scores), column_bytes(ranking._reached),
        column_bytes(ranking._updated), sorted(ranking._hidden), ranking._flip, ranking._ranks,
    )  # fmt: skip
