"""A past period as corrections left it: the rows of its file, some replaced, ranked anew. Pure.

    correction = Correction(corrected, order, ranks)            `corrected` is from the state (`engine.reversals`)
    rows = correction.rows(reader, reader.head.count)

The file of a past period stays as the log made it. A reader makes a second file of it and the correction, once. That
one is a cache: it has the mark of the correction in its name, and may be removed at any time.

Rules:
- The order of the rows and the mode of the ranks are those that the file shows. If it does not show them, because no
  two scores differ or are equal, they are those of the board.
- The number of an erased user may be another one in the file than in the correction: the file was rewritten by a node
  that did not have the erasure. Then rows of erased users stand for each other, in their order. Nobody is shown them.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from heapq import merge

import msgspec

from engine.board_rules import OrderMode, RankMode
from engine.erased import is_erased
from engine.ranking import FinalRow
from engine.reversals import CorrectedPeriod
from snapshots.past_ranking import PastRanking

ROWS_AT_ONCE = 1_000


class Correction(msgspec.Struct, frozen=True):
    """What corrections made of a past period. `order` and `ranks` are those of its board."""

    corrected: CorrectedPeriod
    order: OrderMode
    ranks: RankMode

    @property
    def mark(self) -> str:
        """Names the correction: another one of the same period has another mark."""
        return blake2b(msgspec.msgpack.encode(self), digest_size=8).hexdigest()

    def rows(self, ranking: PastRanking, count: int) -> Iterator[FinalRow]:
        """Yield the rows of a file with `count` rows as they are now, best first."""
        order, ranks = self._modes(ranking, count)
        sign = 1 if order == "ascending" else -1
        replaced = {row.user_id for row in self.corrected.rows}
        replaced |= _under_other_numbers(ranking, count, replaced)
        kept = (row for row in _all(ranking, count) if row.user_id not in replaced)
        new = [
            FinalRow(0, row.user_id, row.new_score, row.updated_ms, row.reached_seq)
            for row in self.corrected.rows
            if row.new_score is not None
        ]

        def place(row: FinalRow) -> tuple[int, int]:
            return sign * row.score, row.reached_seq

        rank, last = 0, None
        for position, row in enumerate(merge(kept, sorted(new, key=place), key=place), 1):
            if ranks == "unique" or row.score != last:
                rank = rank + 1 if ranks == "dense" else position
            last = row.score
            yield FinalRow(rank, row.user_id, row.score, row.updated_ms, row.reached_seq)

    def _modes(self, ranking: PastRanking, count: int) -> tuple[OrderMode, RankMode]:
        """Find the order and the mode of the ranks in the rows."""
        order, ranks = self.order, self.ranks
        before: FinalRow | None = None
        tied = False
        for row in _all(ranking, count):
            if before is not None and row.score != before.score:
                order = "ascending" if row.score > before.score else "descending"
                if tied:
                    return order, "dense" if row.rank == before.rank + 1 else "shared"
            elif before is not None:
                if row.rank != before.rank:
                    ranks = "unique"
                elif ranks == "unique":
                    ranks = "shared"
                tied = row.rank == before.rank
            before = row
        return order, ranks


def _under_other_numbers(ranking: PastRanking, count: int, replaced: set[str]) -> set[str]:
    """Give as many erased users of the file as there are in a correction that the file does not have."""
    corrected = {user_id for user_id in replaced if is_erased(user_id)}
    if not corrected:
        return set()
    erased = [row.user_id for row in _all(ranking, count) if is_erased(row.user_id)]
    others = [user_id for user_id in erased if user_id not in corrected]
    return set(others[: len(corrected.difference(erased))])


def _all(ranking: PastRanking, count: int) -> Iterator[FinalRow]:
    for start in range(0, count, ROWS_AT_ONCE):
        yield from ranking.rows(start, min(ROWS_AT_ONCE, count - start))
