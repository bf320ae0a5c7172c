"""The route that tells of one action: whether it was applied, and its receipt from the log.

Rules:
- An older action is found by a read of the disk (`server.api.action_lookup`), and the receipt is read from the log.
  Both take a worker thread: the disk is slow, and a segment may be compressed.
- What a freeze hides from a caller, and what an erasure took, is not told.
"""

from __future__ import annotations

from functools import partial

import msgspec
import trio

from engine.errors import NoLongerKept, Overloaded
from engine.events import Incremented, Reversed
from engine.recount import boards_of
from engine.threads import run
from server import bounds
from server.access.auth import Principal
from server.api.action_lookup import ActionLookup
from server.api.answers import ActionAnswer, ReversedBy, logged_receipt
from server.api.dependencies import Dependencies
from server.api.reads import stale_fields
from server.api.routes import LIVE_VIEW
from server.http.messages import JSON, NO_STORE, Refused, Request, Response
from server.live.encoding import iso_ms

_encode = msgspec.json.Encoder().encode


class Receipts:
    """Answers to GET /actions/{actionId}."""

    def __init__(self, dependencies: Dependencies) -> None:
        self._scoreboard = dependencies.scoreboard
        self._checks = dependencies.checks
        self._freshness = dependencies.freshness
        self._log = dependencies.log
        self._lookup = ActionLookup(dependencies)
        self._readers = trio.CapacityLimiter(bounds.RECEIPT_READERS_MAX)

    async def action(self, request: Request, caller: Principal) -> Response:
        """Answer whether an action was applied, with its receipt from the log."""
        action_id = request.path_params["actionId"]
        self._checks.check_action()
        seq = await self._lookup.seq(action_id)
        if seq is None:
            raise Refused(404, "NOT_FOUND", "No such action was ever applied.", {"actionId": action_id})
        if self._scoreboard.actions.is_forgotten(action_id):
            epoch = self._scoreboard.epoch_of(seq)
            answer = ActionAnswer(action_id, True, epoch, seq, None, "ERASED", **stale_fields(self._freshness))
            return Response(200, _encode(answer), JSON, NO_STORE)
        try:
            epoch, event = await self._event(seq)
        except NoLongerKept:
            epoch = self._scoreboard.epoch_of(seq)
            answer = ActionAnswer(action_id, True, epoch, seq, None, "NO_LONGER_KEPT", **stale_fields(self._freshness))
        else:
            if isinstance(event, Reversed):
                raise Refused(404, "NOT_FOUND", "This is the id of a reversal.", {"reversalId": action_id})
            assert isinstance(event, Incremented), event
            assert event.action_id == action_id, event
            is_frozen = self._is_frozen_for(event, caller)
            held = self._scoreboard.reviews.holds.boards_of(event)
            answer = ActionAnswer(
                action_id, True, epoch, seq, None if is_frozen else logged_receipt(event, epoch, held),
                "FROZEN" if is_frozen else "KEPT",
                msgspec.UNSET if is_frozen else await self._reversed_by(event, caller),
                **stale_fields(self._freshness),
            )  # fmt: skip
        return Response(200, _encode(answer), JSON, NO_STORE)

    async def _reversed_by(self, action: Incremented, caller: Principal) -> ReversedBy | msgspec.UnsetType:
        """Say which reversal holds an action back, unless a freeze hides that from the caller."""
        seq = self._scoreboard.reversals.of_action(action.seq)
        if seq is None or (not caller.may(LIVE_VIEW) and self._is_after_freeze(action, seq)):
            return msgspec.UNSET
        epoch, event = await self._event(seq)  # later than the action, so it is kept too
        assert isinstance(event, Reversed), event
        return ReversedBy(event.reversal_id, event.reason, event.caller, epoch, event.seq, iso_ms(event.time_ms))

    def _is_frozen_for(self, event: Incremented, caller: Principal) -> bool:
        """Whether a freeze hides from a caller what an event did, on its own board or on one that it fed."""
        if caller.sub == event.caller or caller.may(LIVE_VIEW):
            return False
        return self._is_after_freeze(event, event.seq)

    def _is_after_freeze(self, action: Incremented, seq: int) -> bool:
        """Whether an event came after a board was frozen on which an action counted."""
        definitions = [self._scoreboard.boards[board_id].definition for board_id in boards_of(action)]
        return any(each is not None and each.frozen is not None and seq > each.frozen.seq for each in definitions)

    async def _event(self, seq: int) -> tuple[int, object]:
        """Read one event from the log, with the epoch of its frame."""
        if self._readers.statistics().tasks_waiting >= bounds.RECEIPT_WAITERS_MAX:
            raise Overloaded("too many receipts are being read")
        read = partial(self._log.event_at, seq)
        frame, event = await run(read, blocks=self._log.blocks, limiter=self._readers)
        return frame.epoch, event
