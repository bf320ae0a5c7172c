"""POST /reversals takes actions back, or says what that would change. GET /reversals/{reversalId} says what one did.

    response = await reversals.reverse(request, caller)

    body → form → the actions, from the log → all that their users did → the command → the writer completes it → answer

Rules:
- The reason and the caller stand in the log for good, and in the log of the process.
- `applied: false` with the position of the first one is the answer to a reversalId that was used for the same before.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import msgspec

from engine.commands import ReversalReceipt, Reverse
from engine.erased import is_erased
from engine.errors import NoLongerKept
from engine.events import Rescored, Reversed
from engine.recount import Recount
from server.access.auth import Principal
from server.access.rates import WriteLimits
from server.api.action_lookup import ActionLookup
from server.api.decoding import check_content
from server.api.dependencies import Dependencies
from server.api.gathered import Submit
from server.api.gathering import actions_at, actions_of_caller, actions_of_user
from server.api.recounts import Recounts
from server.api.reversal_forms import Asked, ChangedPlace, LoggedReversal, UserScore, decode_reversal, reversal_answer
from server.http.messages import JSON, NO_STORE, Refused, Request, Response, invalid
from server.live.encoding import iso_ms

_encode = msgspec.json.Encoder().encode


class Reversals:
    """Answers both routes. `recounts` may be used by who else corrects scores."""

    def __init__(self, dependencies: Dependencies, limits: WriteLimits, submit: Submit) -> None:
        self._limits = limits
        self._scoreboard = dependencies.scoreboard
        self._log, self._ledger = dependencies.log, dependencies.ledger
        self._lookup = ActionLookup(dependencies)
        self._checks = dependencies.checks
        self._clock_s = dependencies.clock_s
        self._audit = dependencies.audit
        self._metrics = dependencies.metrics
        self.recounts = Recounts(dependencies, submit)

    # Making one

    async def reverse(self, request: Request, caller: Principal) -> Response:
        """Take actions back, or say what that would change. Raises `Refused`."""
        check_content(request)
        asked = decode_reversal(request.body)
        if caller.user is not None:
            raise Refused(
                403, "UNAUTHORIZED", "A token that names a user may not reverse actions.", {"field": "userId"}
            )
        self._limits.pass_caller(caller.sub, self._clock_s())
        outcome = await self.recounts.submit(partial(self._command, asked, caller), "actionIds")
        assert isinstance(outcome, ReversalReceipt)
        if outcome.applied:
            self._metrics.reversed(len(outcome.actions), again=outcome.again)
            self._audit.reversed(outcome, asked.reason, caller.sub)
        answer = reversal_answer(outcome, self.recounts.told(outcome.changes), preview=asked.preview)
        return Response(200, _encode(answer), JSON, NO_STORE)

    async def _command(self, asked: Asked, caller: Principal) -> Reverse:
        """Gather what the writer needs. Raises `Refused`, `Overloaded`."""
        scoreboard, ledger, of = self._scoreboard, self._ledger, None
        assert ledger is not None, "a node without a log never leads"
        known = await self._lookup.seq(asked.reversal_id)
        if known is not None:  # the writer says whether it was the same
            event = await self._event(known)
            again = isinstance(event, Reversed) and event.again
            empty = Recount({}, again=again, seq=scoreboard.seq)
            return Reverse(asked.reversal_id, asked.reason, caller.sub, asked.mark, empty, preview=asked.preview)
        if asked.action_ids:
            seqs = await self._seqs(asked)
            of = await self._reversal_of(seqs)
            if of is not None:
                seqs = scoreboard.reversals.counting(of)
            else:
                seqs = [seq for seq in seqs if scoreboard.reversals.of_action(seq) is None]
            actions = await self.recounts.in_thread(partial(actions_at, self._log, seqs))
        elif asked.user_id is not None:
            held = scoreboard.reversals.actions()
            actions = await self.recounts.in_thread(partial(actions_of_user, ledger, asked, held, scoreboard.seq))
        else:
            held = scoreboard.reversals.actions()
            actions = await self.recounts.in_thread(partial(actions_of_caller, self._log, asked, held))
        recount, rows = await self.recounts.of(actions, again=of is not None)
        return Reverse(asked.reversal_id, asked.reason, caller.sub, asked.mark, recount, of, rows, asked.preview)

    async def _seqs(self, asked: Asked) -> list[int]:
        """Find the events of actions, ascending. Raises `Refused` for one that was never applied."""
        seqs = []
        found = await self._lookup.seqs(asked.action_ids)
        for index, (action_id, seq) in enumerate(zip(asked.action_ids, found, strict=True)):
            if seq is None:
                message = f"actionIds[{index}], {action_id!r}, was never applied; nothing was changed."
                raise invalid("actionIds", message, actionId=action_id)
            seqs.append(seq)
        return sorted(seqs)

    async def _reversal_of(self, seqs: list[int]) -> int | None:
        """Give the seq of the reversal that is named alone, None if actions are. Raises `Refused`."""
        event = await self._event(seqs[0]) if len(seqs) == 1 else None
        if not isinstance(event, Reversed):
            return None
        if event.again:
            raise invalid("actionIds", "This reversal let actions count again. Reverse the actions themselves.")
        return event.seq

    async def _event(self, seq: int) -> object:
        try:
            _, event = await self.recounts.in_thread(partial(self._log.event_at, seq))
        except NoLongerKept as gone:
            message = f"The log no longer has the event of seq {seq}; it is kept from seq {gone.first_seq} on."
            raise Refused(409, "CONFLICT", message, {"field": "actionIds", "seq": seq}) from gone
        return event

    # Reading one

    async def reversal(self, request: Request, _caller: Principal) -> Response:
        """Answer what a reversal did. Raises `Refused`."""
        reversal_id = request.path_params["reversalId"]
        self._checks.check_action()
        seq = await self._lookup.seq(reversal_id)
        event = None if seq is None else await self._event(seq)
        if not isinstance(event, Reversed):
            raise Refused(404, "NOT_FOUND", "There is no such reversal.", {"reversalId": reversal_id})
        running = [ChangedPlace(part.board_id, _users(part.rows)) for part in event.scores]
        past = [ChangedPlace(part.board_id, _users(part.rows), part.ended_seq) for part in event.periods]
        holding = self._scoreboard.actions.count_remembered(self._scoreboard.reversals.counting(event.seq))
        answer = LoggedReversal(
            reversal_id, event.reason, event.caller, event.again, len(event.actions), holding, running + past,
            self._scoreboard.epoch_of(event.seq), event.seq, iso_ms(event.time_ms),
        )  # fmt: skip
        return Response(200, _encode(answer), JSON, NO_STORE)


def _users(rows: Sequence[Rescored]) -> list[UserScore]:
    return [UserScore(row.user_id, row.new_score) for row in rows if not is_erased(row.user_id)]
