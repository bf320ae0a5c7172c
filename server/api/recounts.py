"""What corrections need before the writer decides them: their actions, all that the users did, rows of past periods.

    recount, rows = await recounts.of(actions, again=False)            for the command
    outcome = await recounts.submit(make_command, "actionIds")         gathers, submits, and begins anew where it must
    changes = recounts.told(receipt.changes)                           for the answer

Rules:
- Reading the log takes a worker thread, one for all corrections, so that increments go on. Few wait for it; the others
  are told to come again.
- If a period ends between reading and writing, or actions come that were not foreseen, the writer refuses, and all of
  it is done again (`server.api.gathered`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

import trio

from engine.commands import BoardChange, Command, Outcome, Rejection
from engine.errors import Overloaded
from engine.events import Incremented, Rescored
from engine.recount import Adds, Recount
from engine.recounting import spans_of
from engine.review_decisions import AGAIN
from engine.threads import run
from server import bounds
from server.api.dependencies import Dependencies
from server.api.gathered import Submit, submit_gathered
from server.api.gathering import recount_of
from server.api.periods import Periods
from server.api.refusals import refused
from server.api.reversal_forms import ChangedBoard, changed_board
from server.live.encoding import entries_of

T = TypeVar("T")
Rows = dict[tuple[str, int], dict[str, Rescored | None]]


class Recounts:
    """See above. `submit` has commands decided and made durable."""

    def __init__(self, dependencies: Dependencies, submit: Submit) -> None:
        self._submit = submit
        self._scoreboard = dependencies.scoreboard
        self._log, self._ledger = dependencies.log, dependencies.ledger
        self._periods = Periods(dependencies.scoreboard, dependencies.periods)
        self._audit = dependencies.audit
        self._readers = trio.CapacityLimiter(1)

    async def submit(self, make: Callable[[], Awaitable[Command]], field: str) -> Outcome:
        """Submit what `make` gathers. `field` is at fault if the log is damaged. Raises `Refused`, `Overloaded`."""
        outcome = await submit_gathered(make, self._submit, self._audit, field, _must_begin_anew)
        if isinstance(outcome, Rejection):
            if AGAIN in outcome.details:
                raise Overloaded("actions keep coming that it must count")
            raise refused(outcome)
        return outcome

    def told(self, changes: Sequence[BoardChange]) -> list[ChangedBoard]:
        """Make the wire's form of changes."""
        return [changed_board(each, entries_of(each.top, self._scoreboard.users)) for each in changes]

    async def of(
        self, actions: Mapping[int, Incremented], *, again: bool = False, adds: Adds | None = None
    ) -> tuple[Recount, Rows]:
        """Count all that the users of actions did, and look up their rows in past periods. Raises `Refused`."""
        from_seq, until_seq = self._from_seq(Recount(actions, again=again, adds=adds)), self._scoreboard.seq
        assert self._ledger is not None, "a node without a log never leads"
        read = partial(
            recount_of, self._ledger, actions, again=again, from_seq=from_seq, until_seq=until_seq, adds=adds
        )  # fmt: skip
        recount = await self.in_thread(read)
        return recount, await self._rows(recount)

    def _from_seq(self, recount: Recount) -> int:
        """Give the first event of the first period in which one of the actions counted, or one that is added may."""
        first, adds = self._scoreboard.seq + 1, recount.adds
        for board_id, user_id in recount.places:
            board = self._scoreboard.boards.get(board_id)
            may_be_added = adds is not None and (adds.board_id, adds.user_id) == (board_id, user_id)
            for past, span in () if board is None else spans_of(board):
                if recount.chosen(board_id, user_id, span) or (past is None and may_be_added):
                    first = min(first, span.after + 1)
                    break
        return first

    async def _rows(self, recount: Recount) -> Rows:
        """Look up the users' rows in the past periods in which one of the actions counted."""
        rows: Rows = {}
        for board_id, user_id in sorted(recount.places):
            board = self._scoreboard.boards.get(board_id)
            for past, span in () if board is None else list(spans_of(board)):
                if past is not None and recount.chosen(board_id, user_id, span):
                    found = rows.setdefault((board_id, past.seq), {})
                    found[user_id] = await self._periods.shown(board_id, past, user_id) if past.count else None
        return rows

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Do work in the one thread that reads for corrections. Raises `Overloaded`."""
        if self._readers.statistics().tasks_waiting >= bounds.REVERSALS_WAITING_MAX:
            raise Overloaded("too many reversals are being worked on")
        return await run(work, blocks=self._log.blocks, limiter=self._readers)


def _must_begin_anew(outcome: Outcome) -> bool:
    return isinstance(outcome, Rejection) and ("period" in outcome.details or AGAIN in outcome.details)
