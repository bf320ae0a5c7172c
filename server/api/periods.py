"""The past periods of boards: their list, and the reading of one.

    past = named_period(ranking, "previous")            a `PastPeriod` of what the caller sees; raises `Refused`
    rows = await periods.top(board_id, past, 10)

Rules:
- A past period never changes. Names are of now. A user who is inactive or was erased is left out, with a gap in the
  ranks.
- A period in which nobody scored has no file, and no rows.
- A file that is not here, not whole, or not readable is 503 `PERIOD_UNAVAILABLE`: other nodes may have it.
- While a board is frozen the public sees the periods that had ended then (`engine.frozen_board`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import structlog

from engine.board_rules import PastPeriod
from engine.disk import FileMissing
from engine.erased import is_erased
from engine.errors import DiskFault
from engine.events import Rescored
from engine.limits import ID_CHARACTERS_MAX
from engine.ranking import FinalRow, Ranking
from engine.reversals import CorrectedPeriod
from engine.scoreboard import Scoreboard
from server.http.messages import RETRY_SOON, Refused, invalid
from snapshots.corrected_period import Correction
from snapshots.past_ranking import PastRanking
from snapshots.periods import correction_of

PREVIOUS = "previous"

_LOOK_BACK = 200
"""Rows that are read at once in search of the next better rank: users may share one."""

T = TypeVar("T")

log = structlog.get_logger()


class PeriodReader(Protocol):
    """What reads past periods (`server.node.period_keeper`)."""

    async def read(self, seq: int, work: Callable[[PastRanking], T], /, correction: Correction | None = None) -> T:
        """Do `work` with the period that the event `seq` ended, as a correction left it.

        Raises `FileMissing`, `SnapshotDamaged`, `Overloaded`.
        """


class NoPeriods:
    """Stands in on a node that keeps no files: a replica of one shard."""

    async def read(self, seq: int, _work: Callable[[PastRanking], T], /, correction: Correction | None = None) -> T:  # noqa: ARG002
        raise FileMissing("this node keeps no past periods", path="periods", seq=seq)


def named_period(board_id: str, ranking: Ranking, name: str) -> PastPeriod:
    """Give the past period of a name: an id, or "previous" for the last one that ended. Raises `Refused`."""
    if len(name) > ID_CHARACTERS_MAX:
        raise invalid("period", f"period must be at most {ID_CHARACTERS_MAX} characters, not {len(name)}.")
    past = () if ranking.definition is None else ranking.definition.past
    if name == PREVIOUS and past:
        return past[-1]
    for each in reversed(past):
        if each.period.id == name:
            return each
    message = f"Board {board_id!r} has no past period {name!r}." if past else f"Board {board_id!r} has no past periods."
    raise Refused(404, "NOT_FOUND", message, {"field": "period", "boardId": board_id, "period": name})


class Periods:
    """Reads past periods for the routes."""

    def __init__(self, scoreboard: Scoreboard, reader: PeriodReader) -> None:
        self._scoreboard = scoreboard
        self._reader = reader
        self._told: set[int] = set()

    def corrected(self, board_id: str, past: PastPeriod) -> CorrectedPeriod | None:
        """Give what corrections made of a period, None if they did not touch it."""
        return self._scoreboard.reversals.of_past(board_id, past)

    def count(self, board_id: str, past: PastPeriod) -> int:
        """Give the number of rows that a period has now."""
        corrected = self.corrected(board_id, past)
        return past.count if corrected is None else corrected.count

    async def shown(self, board_id: str, past: PastPeriod, user_id: str) -> Rescored | None:
        """Give a user's score in a period as it is now, None without a row. Raises `Refused`."""
        corrected = self.corrected(board_id, past)
        for row in () if corrected is None else corrected.rows:
            if row.user_id == user_id:
                return None if row.new_score is None else row
        found = await self.find(board_id, past, user_id)
        if found is None:
            return None
        return Rescored(user_id, found[0].score, found[0].reached_seq, found[0].updated_ms)

    async def top(self, board_id: str, past: PastPeriod, count: int) -> list[FinalRow]:
        """List the first rows. Raises `Refused`."""
        return self._shown(await self._read(board_id, past, lambda ranking: ranking.top(count), ()))

    async def rows(self, board_id: str, past: PastPeriod, start: int, count: int) -> list[FinalRow]:
        """List rows from this position on, 0 for the first. Raises `Refused`."""
        return self._shown(await self._read(board_id, past, lambda ranking: ranking.rows(start, count), ()))

    async def find(self, board_id: str, past: PastPeriod, user_id: str) -> tuple[FinalRow, FinalRow | None] | None:
        """Give a user's row and that of the next better rank, None for a user without a row. Raises `Refused`.

        An erased user is nobody's next: the lead would tell the score.
        """

        def look(ranking: PastRanking) -> tuple[FinalRow, FinalRow | None] | None:
            found = ranking.find(user_id)
            if found is None:
                return None
            position, row = found
            while position:
                start = max(0, position - _LOOK_BACK)
                for better in reversed(ranking.rows(start, position - start)):
                    if better.rank != row.rank and not is_erased(better.user_id):
                        return row, better
                position = start
            return row, None

        return await self._read(board_id, past, look, None)

    async def around(self, board_id: str, past: PastPeriod, user_id: str, count: int) -> list[FinalRow]:
        """List a user's row with neighbours, as `Ranking.around` does; empty without a row. Raises `Refused`."""

        def look(ranking: PastRanking) -> Sequence[FinalRow]:
            found = ranking.find(user_id)
            if found is None:
                return ()
            rows = 2 * count + 1
            return ranking.rows(max(0, min(found[0] - count, self.count(board_id, past) - rows)), rows)

        return self._shown(await self._read(board_id, past, look, ()))

    async def _read(self, board_id: str, past: PastPeriod, work: Callable[[PastRanking], T], empty: T) -> T:
        if not self.count(board_id, past):
            return empty
        try:
            return await self._reader.read(past.seq, work, correction=correction_of(self._scoreboard, board_id, past))
        except DiskFault as fault:
            if past.seq not in self._told:
                self._told.add(past.seq)
                name = past.period.id
                log.error("period_unreadable", board_id=board_id, period=name, reason=fault.what, path=fault.path)
            message = f"The past period {past.period.id!r} can't be read on this node."
            details = {"boardId": board_id, "period": past.period.id}
            raise Refused(503, "PERIOD_UNAVAILABLE", message, details, RETRY_SOON) from fault

    def _shown(self, rows: Sequence[FinalRow]) -> list[FinalRow]:
        return [row for row in rows if not is_erased(row.user_id) and self._scoreboard.is_active(row.user_id)]
