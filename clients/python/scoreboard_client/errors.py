"""What can go wrong, one class for each thing that a caller may do about it. Pure.

    ScoreboardError
    ├── ApiError                 the server said no; `code` is for programs
    │   ├── InvalidRequest       400: correct the field that `details["field"]` names
    │   ├── Unauthenticated      401, and Unauthorized 403: use another token
    │   ├── NotFound             404
    │   ├── Conflict             409: the actionId was used for something else
    │   ├── BoardNotOpen         409: its season begins at `details["startsAt"]`
    │   ├── BoardClosed          410
    │   ├── Erased               410: the user was erased
    │   ├── NotLeader            421, 307: no node that is configured leads
    │   ├── RateLimited          429: nothing was counted
    │   ├── OutcomeUnknown       503: send it again with the same actionId
    │   └── Unavailable          503, any other code
    ├── DeadlineExceeded         the time is over; `last` says why it took so long
    ├── UnexpectedAnswer         no scoreboard answered
    ├── BatcherClosed            the batcher ended first
    ├── ClientClosed             the client was closed before the call; nothing was sent
    └── OutboxFull, OutboxFault  the outbox takes no more; its file can't be used

Rules:
- A 429, a 503 and a connection that fails are tried again. So callers meet them as `DeadlineExceeded.last`.
- A code that this version does not know becomes an `ApiError` of its status.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class ScoreboardError(Exception):
    """Anything that this package raises about a board."""


class ApiError(ScoreboardError):
    """An error answer. `status` is HTTP's; `code`, `message` and `details` are the server's own."""

    def __init__(self, status: int, code: str, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.details: Mapping[str, Any] = dict(details or {})

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep the fields when it is pickled: a worker process hands errors on."""
        return type(self), (self.status, self.code, self.message, self.details)


class InvalidRequest(ApiError):
    """400. `details["field"]` names the field."""


class Unauthenticated(ApiError):
    """401. The token is missing, expired or not for this server."""


class Unauthorized(ApiError):
    """403. The token lacks a scope, or is another user's."""


class NotFound(ApiError):
    """404."""


class Conflict(ApiError):
    """409 `CONFLICT`: this actionId was used for another user, board, reason or value."""


class BoardNotOpen(ApiError):
    """409. The board opens at `details["startsAt"]`."""


class BoardClosed(ApiError):
    """410. The board is closed, or its season is over."""


class Erased(ApiError):
    """410. The action belonged to a user who was erased: drop it."""


class NotLeader(ApiError):
    """421, or 307. `details["leader"]` is an address that is not configured here, so nothing is sent there."""


class RateLimited(ApiError):
    """429. Nothing was counted."""


class OutcomeUnknown(ApiError):
    """503. The action may have been counted. It is always safe to send it again with the same actionId."""


class Unavailable(ApiError):
    """503. Nothing was counted."""


class DeadlineExceeded(ScoreboardError):
    """There was no final answer in time.

    `last` is what stood in the way at the end: an `ApiError`, or a `ScoreboardError` that names the fault of the
    connection. With `may_have_counted` the action may be on the board. Send it again with the same actionId: that is
    always safe.
    """

    def __init__(self, last: ScoreboardError, attempts: int, *, may_have_counted: bool) -> None:
        unknown = "; it may have been counted: send it again with the same actionId" if may_have_counted else ""
        super().__init__(f"no final answer after {attempts} attempts{unknown}. The last trouble: {last}")
        self.last = last
        self.attempts = attempts
        self.may_have_counted = may_have_counted

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep the fields when it is pickled."""
        return _exceeded, (self.last, self.attempts, self.may_have_counted)


def _exceeded(last: ScoreboardError, attempts: int, may_have_counted: bool) -> DeadlineExceeded:
    return DeadlineExceeded(last, attempts, may_have_counted=may_have_counted)


class NotAnswered(ScoreboardError):
    """The connection failed, or no answer came in time."""


class UnexpectedAnswer(ScoreboardError):
    """The answer is not a scoreboard's. Perhaps a proxy gave it, or the address is wrong."""


class OutboxFull(ScoreboardError):
    """The outbox takes no more actions. This one was not put in."""


class OutboxFault(ScoreboardError):
    """The file can't be used as an outbox: it is something else, or of a newer version, or its folder is not there."""


class BatcherClosed(ScoreboardError):
    """The batcher ended before this action had a receipt. It may have been counted."""


class ClientClosed(ScoreboardError):
    """The client was closed. Nothing was sent."""


_BY_CODE: dict[str, type[ApiError]] = {
    "INVALID_REQUEST": InvalidRequest,
    "UNAUTHENTICATED": Unauthenticated,
    "UNAUTHORIZED": Unauthorized,
    "NOT_FOUND": NotFound,
    "CONFLICT": Conflict,
    "BOARD_NOT_OPEN": BoardNotOpen,
    "BOARD_CLOSED": BoardClosed,
    "ERASED": Erased,
    "NOT_LEADER": NotLeader,
    "RATE_LIMITED": RateLimited,
    "OUTCOME_UNKNOWN": OutcomeUnknown,
}

_BY_STATUS: dict[int, type[ApiError]] = {429: RateLimited, 503: Unavailable}


def api_error(status: int, body: Any) -> ApiError:
    """Make the error of an answer. A body without the server's shape gives the code `HTTP_<status>`."""
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return _BY_STATUS.get(status, ApiError)(status, f"HTTP_{status}", "The answer has no error object.")
    code, message, details = error.get("code"), error.get("message"), error.get("details")
    code = code if isinstance(code, str) else f"HTTP_{status}"
    kind = _BY_CODE.get(code) or _BY_STATUS.get(status, ApiError)
    return kind(status, code, str(message or ""), details if isinstance(details, dict) else {})
