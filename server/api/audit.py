"""What the service tells the log of the process: refusals, rate-limit hits, faults of our own.

The audit trail of what was applied is the write-ahead log itself, with every event's user, points, reason, action,
caller, time and seq; writing each of them here once more would only be slower and less durable. What was refused is in
no write-ahead log, so it is told here.

Rules:
- Bounded: at most LOG_LINES_PER_SECOND of each event; what is left out is counted. Whoever floods us with bad requests
  must not fill the disk, nor drown the one line that matters.
- Never a header, a query or a body: tokens come in those. Ids and paths are short, or cut.
- Of a fault of ours its kind and place are told, not its text, which may quote a request; but the text of an error that
  this project raises on purpose is, for it says what an operator can do.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

from structlog.typing import FilteringBoundLogger

from engine.commands import Outcome, Receipt
from engine.errors import ScoreboardError
from server import bounds
from server.faults import describe
from server.http.messages import Details, Refused, Request, Response, quoted
from server.logs import Bounded

_NOTABLE = {"UNAUTHENTICATED", "UNAUTHORIZED", "RATE_LIMITED", "CONFLICT", "OVERLOADED"}


class Audit:
    """Writes the lines. `logger` is structlog's; its level decides whether single increments are told
    (`tells_increments`): asking first costs less than telling nobody.
    """

    def __init__(self, logger: FilteringBoundLogger, clock_s: Callable[[], float]) -> None:
        # Bound once: structlog's lazy logger is bound anew for each line, also for those that its level leaves out.
        self._logger = logger.bind()
        self._bounded = Bounded(logger, bounds.LOG_LINES_PER_SECOND, clock_s=clock_s)
        self.tells_increments = self._logger.is_enabled_for(logging.DEBUG)

    def refused(self, request: Request, refusal: Response, details: Details, caller: str | None) -> None:
        """Tell that a request was answered with an error that is not our fault. That there is nothing is no news."""
        tell = self._bounded.warning if refusal.code in _NOTABLE else self._bounded.info
        if refusal.code == "NOT_FOUND":
            tell = self._logger.debug
        event = "rate_limited" if refusal.code == "RATE_LIMITED" else "refused"
        fields = {"code": refusal.code, "status": refusal.status, "caller": caller, "details": _short(details)}
        tell(event, **fields, **_where(request))

    def items_refused(self, request: Request, refusals: list[Refused], caller: str) -> None:
        """Tell, in one line, what was refused of a batch: how many by code, and details of the first of each."""
        codes = Counter(refused.code for refused in refusals)
        firsts = {refused.code: _short(refused.details) for refused in reversed(refusals)}
        event = "rate_limited" if "RATE_LIMITED" in codes else "refused"
        self._bounded.warning(event, items=dict(codes), details=firsts, caller=caller, **_where(request))

    def applied(self, outcome: Outcome, caller: str) -> None:
        """Tell of a single increment, for those who debug; the durable record is in the write-ahead log."""
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

    def outcome_unknown(self, request: Request, caller: str | None) -> None:
        """Tell that the disk failed under a request."""
        self._bounded.error("outcome_unknown", caller=caller, **_where(request))

    def fault(self, request: Request, error: Exception) -> None:
        """Tell a bug of ours; the client gets nothing but the request id."""
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
    """Which field, which limit, which user; not the lists of what is allowed."""
    return {name: value for name, value in details.items() if isinstance(value, str | int)}
