"""The refusals that several writes share. Pure."""

from __future__ import annotations

from engine.commands import Rejection, RejectionCode
from server.http.messages import Refused

_STATUS: dict[RejectionCode, int] = {
    "INVALID_REQUEST": 400,
    "NOT_FOUND": 404,
    "CONFLICT": 409,
    "BOARD_NOT_OPEN": 409,
    "BOARD_CLOSED": 410,
}


def not_yours() -> Refused:
    return Refused(403, "UNAUTHORIZED", "This token may only act for its own user.", {"field": "userId"})


def refused(rejection: Rejection) -> Refused:
    """Make the answer to a command that the actor rejected."""
    return Refused(_STATUS[rejection.code], rejection.code, rejection.message, rejection.details)
