"""DELETE /users/{userId}: a user leaves all boards at once, and within a time all files of the data directory.

    request ──► the actions, from the ledger ──► the command ──► the writer completes it ──► past periods ──► answer

Rules:
- It is for tokens with `users:erase`. One that names a user may erase this user only.
- Reading the log takes a worker thread, one for all erasures. Few wait for it; the others are told to come again.
- The answer comes when boards and past periods no longer show the user. The other files follow
  (`server.node.erasure_keeper`).
- A repeat while files still name the user is answered as the first one, with `applied: false`. Afterwards nobody knows
  the id any more, so it is 404. Either way nothing is left to do.
- If the log can't be read, nothing is erased: the actions would not all be known.
- The line in the log of the process has the number of the erasure and who asked, and not the user.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import partial

import msgspec
import trio

from engine.commands import EraseReceipt, EraseUser, Rejection
from engine.erased import unpack_seqs
from engine.errors import DiskFault, Overloaded
from engine.events import Event, UserErased
from engine.threads import run
from engine.traces import Traces, newest_first
from server.access.auth import Principal
from server.access.rates import WriteLimits
from server.api.dependencies import Dependencies, Erasing, LedgerReader
from server.api.erasure_forms import ErasedAnswer
from server.api.gathered import Submit, submit_gathered
from server.api.periods import Periods
from server.api.refusals import not_yours, refused
from server.http.messages import JSON, NO_STORE, Request, Response
from server.live.encoding import iso_ms

FILES_MS_MIN = 60_000
"""The least time that is promised for the files: to read and write a large log takes its time."""

WAITERS_MAX = 8
"""Erasures that wait for one whose actions are read."""


class Erasures:
    """Answers the route. `submit` has commands decided and made durable."""

    def __init__(self, dependencies: Dependencies, limits: WriteLimits, submit: Submit) -> None:
        self._limits = limits
        self._submit = submit
        self._scoreboard = dependencies.scoreboard
        self._log = dependencies.log
        self._ledger = dependencies.ledger
        self._erasing = dependencies.erasing
        self._periods = Periods(dependencies.scoreboard, dependencies.periods)
        self._checks = dependencies.checks
        self._clock_s = dependencies.clock_s
        self._audit = dependencies.audit
        self._readers = trio.CapacityLimiter(1)

    async def erase(self, request: Request, caller: Principal) -> Response:
        """Erase a user. Raises `Refused`, `Overloaded`."""
        user_id = request.path_params["userId"]
        if not caller.may_act_for(user_id):
            raise not_yours()
        self._limits.pass_caller(caller.sub, self._clock_s())
        if self._ledger is None or self._erasing is None:
            raise self._checks.no_past()
        make = partial(self._command, user_id, caller, self._ledger)
        outcome = await submit_gathered(make, self._submit, self._audit, "userId")
        if isinstance(outcome, Rejection):
            before = self._erasing.unsettled.find(user_id)
            if outcome.code != "NOT_FOUND" or before is None:
                raise refused(outcome)
            outcome = self._receipt_again(before)
        assert isinstance(outcome, EraseReceipt)
        if outcome.applied:
            self._audit.erased(outcome, caller.sub, self._scoreboard.erasures.count)
        with suppress(DiskFault):  # the keeper tells it, and tries again
            await self._erasing.hidden()
        return Response(200, msgspec.json.encode(_answer(outcome, self._erasing)), JSON, NO_STORE)

    async def _command(self, user_id: str, caller: Principal, ledger: LedgerReader) -> EraseUser:
        """Gather what the writer needs. Raises `Refused`, `Overloaded`."""
        if self._readers.statistics().tasks_waiting >= WAITERS_MAX:
            raise Overloaded("too many users are being erased")
        assert self._erasing is not None
        await self._erasing.known()
        gather = partial(_gather, ledger, user_id, self._scoreboard.seq)
        traces = await run(gather, blocks=self._log.blocks, limiter=self._readers)
        in_past = not traces.is_present and await self._is_past(user_id)
        return EraseUser(user_id, caller.sub, traces, in_past)

    async def _is_past(self, user_id: str) -> bool:
        """Whether a past period shows the user, whose log may be older than what is kept. Raises `Refused`."""
        for board_id, board in sorted(self._scoreboard.boards.items()):
            for past in () if board.definition is None else board.definition.past:
                if past.count and await self._periods.find(board_id, past, user_id) is not None:
                    return True
        return False

    def _receipt_again(self, event: UserErased) -> EraseReceipt:
        actions, epoch = len(unpack_seqs(event.actions)), self._scoreboard.epoch_of(event.seq)
        return EraseReceipt(event.user_id, False, epoch, event.seq, event.time_ms, actions)


def _answer(receipt: EraseReceipt, erasing: Erasing) -> ErasedAnswer:
    files_by = iso_ms(receipt.time_ms + max(erasing.within_ms, FILES_MS_MIN))
    return ErasedAnswer(
        receipt.user_id, True, receipt.applied, receipt.epoch, receipt.seq, receipt.actions, files_by
    )  # fmt: skip


def _gather(ledger: LedgerReader, user_id: str, seq: int) -> Traces:
    """Read what the log says of a user, up to an event."""

    def events() -> Iterator[Event]:
        for _, event in ledger.events_of(user_id, before_seq=seq + 1):
            yield event

    return newest_first(user_id, seq, events())
