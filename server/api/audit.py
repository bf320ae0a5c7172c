"""What the pipeline writes to the log of the process: refusals, rate-limit hits, bugs.

    audit.refused(request, response, details, caller)

The write-ahead log is the audit trail of applied actions: it has the user, points, reason, action, caller, time and seq
of each event. A refused request is in no write-ahead log, so it is logged here.

Rules:
- Each event has at most LOG_LINES_PER_SECOND lines. The others are counted. A flood of bad requests must not fill the
  disk, nor hide the one line that matters.
- No header, query or body is logged: they may hold tokens. Ids and paths are short, or cut.
- A bug is logged by kind and place, without its text, which may quote a request. The errors that this project raises
  itself are logged with their text: it tells operators what to do.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

from structlog.typing import FilteringBoundLogger

from engine.commands import (
    BoardReceipt,
    EraseReceipt,
    FlagReceipt,
    ImportReceipt,
    Outcome,
    Receipt,
    ReversalReceipt,
    ReviewReceipt,
)
from engine.errors import LogDamaged, ScoreboardError
from engine.reviews import Review
from server import bounds
from server.faults import describe
from server.http.messages import Details, Refused, Request, Response, quoted
from server.logs import Bounded

_NOTABLE = {
    "UNAUTHENTICATED", "UNAUTHORIZED", "RATE_LIMITED", "CONFLICT", "OVERLOADED", "DISK_FULL", "KEYS_UNAVAILABLE",
    "BOARD_CLOSED", "BOARD_NOT_OPEN", "NO_QUORUM",
}  # fmt: skip


class Audit:
    """Writes the lines. `tells_increments`: the level of `logger` lets single increments through. Ask it first: a call
    for a line that nobody reads costs more.
    """

    def __init__(self, logger: FilteringBoundLogger, clock_s: Callable[[], float]) -> None:
        # Bound once: structlog binds its lazy logger anew for each line, even for a line that its level leaves out.
        self._lazy = logger
        self._logger = logger.bind()
        self._bounded = Bounded(logger, bounds.LOG_LINES_PER_SECOND, clock_s=clock_s)
        self.tells_increments = self._logger.is_enabled_for(logging.DEBUG)

    def relevel(self) -> None:
        """Take the level that the log of the process has now."""
        self._logger = self._lazy.bind()
        self.tells_increments = self._logger.is_enabled_for(logging.DEBUG)

    def refused(self, request: Request, refusal: Response, details: Details, caller: str | None) -> None:
        """Log a request that was answered with an error of the caller's. NOT_FOUND is common: debugging only."""
        tell = self._bounded.warning if refusal.code in _NOTABLE else self._bounded.info
        if refusal.code == "NOT_FOUND":
            tell = self._logger.debug
        event = "rate_limited" if refusal.code == "RATE_LIMITED" else "refused"
        fields = {"code": refusal.code, "status": refusal.status, "caller": caller, "details": _short(details)}
        tell(event, **fields, **_where(request))

    def items_refused(self, request: Request, refusals: list[Refused], caller: str) -> None:
        """Log the refused items of a batch in one line: the count of each code, and the details of its first item."""
        codes = Counter(refused.code for refused in refusals)
        firsts = {refused.code: _short(refused.details) for refused in reversed(refusals)}
        event = "rate_limited" if "RATE_LIMITED" in codes else "refused"
        self._bounded.warning(event, items=dict(codes), details=firsts, caller=caller, **_where(request))

    def applied(self, outcome: Outcome, caller: str) -> None:
        """Log one increment, for debugging. The durable record is in the write-ahead log."""
        if not isinstance(outcome, Receipt):
            return
        self._logger.debug(
            "increment",
            user_id=outcome.user_id,
            action_id=outcome.action_id,
            board_id=outcome.board_id,
            delta=outcome.delta,
            applied=outcome.applied,
            seq=outcome.seq,
            caller=caller,
        )

    def board_changed(self, what: str, receipt: BoardReceipt, caller: str) -> None:
        """Log that a board was made, changed, closed or reset. Operators ask for that, and it is rare."""
        self._bounded.info("board_changed", what=what, board_id=receipt.board_id, seq=receipt.seq, caller=caller)

    def reversed(self, receipt: ReversalReceipt, reason: str, caller: str) -> None:
        """Log that actions were taken back, or count again: who did it, and why."""
        self._bounded.warning(
            "actions_counted_again" if receipt.again else "actions_reversed",
            reversal_id=receipt.reversal_id,
            actions=len(receipt.actions),
            seq=receipt.seq,
            reason=reason,
            caller=caller,
        )

    def erased(self, receipt: EraseReceipt, caller: str, number: int) -> None:
        """Log that a user was erased: who asked for it, and not whom. This log is not rewritten."""
        by = "the user" if caller == receipt.user_id else caller
        self._bounded.warning("user_erased", number=number, actions=receipt.actions, seq=receipt.seq, caller=by)

    def review_decided(self, review: Review, receipt: ReviewReceipt) -> None:
        """Log who decided a review, and why; how many actions count now, or no more."""
        self._bounded.info(
            "review_decided", review_id=review.review_id, board_id=review.board_id, user_id=review.user_id,
            state=review.state, note=review.note, seq=review.decided_seq, caller=review.decided_by,
            actions=len(receipt.actions), reversal_id=review.reversal_id,
        )  # fmt: skip

    def imported(self, receipt: ImportReceipt, *, merge: bool, caller: str) -> None:
        """Log who began an import, and who finished it. Of the pieces between, the write-ahead log has every row."""
        began, finished = receipt.rows_done == receipt.applied, receipt.rows_done == receipt.rows
        if began or finished:
            self._bounded.info(
                "import_finished" if finished else "import_began", import_id=receipt.import_id,
                board_id=receipt.board_id, rows=receipt.rows, rows_done=receipt.rows_done, merge=merge,
                seq=receipt.seq, caller=caller,
            )  # fmt: skip

    def flag_put(self, receipt: FlagReceipt, caller: str) -> None:
        """Log that something was switched off on every node, or on again: who did it."""
        self._bounded.warning(
            "flag_changed", flag=receipt.flag, enabled=receipt.enabled, seq=receipt.seq, caller=caller
        )

    def webhook_enabled(self, name: str, caller: str) -> None:
        """Log who had a webhook deliver again."""
        self._bounded.info("webhook_enabled", name=name, caller=caller)

    def log_unreadable(self, damage: LogDamaged) -> None:
        """Log that a segment can't be read: for the operator, with what to do."""
        self._bounded.error("log_unreadable", reason=str(damage))

    def outcome_unknown(self, request: Request, caller: str | None) -> None:
        """Log that the disk failed, or the leader was deposed, during a request."""
        self._bounded.error("outcome_unknown", caller=caller, **_where(request))

    def fault(self, request: Request, error: Exception) -> None:
        """Log a bug. The client gets only the request id."""
        fault = describe(error)
        text = str(error) if isinstance(error, ScoreboardError) else None
        self._bounded.error("internal_error", kind=fault.kind, text=text, where=fault.where, **_where(request))


def _where(request: Request) -> dict[str, str]:
    return {
        "request_id": request.request_id,
        "method": quoted(request.method),
        "path": quoted(request.path),
        "address": request.address,
    }


def _short(details: Details) -> dict[str, Any]:
    """Keep the field, the limit, the user; leave out the lists of allowed values."""
    return {name: value for name, value in details.items() if isinstance(value, str | int)}
