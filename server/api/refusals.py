"""The refusals that several writes share. Pure."""

from __future__ import annotations

from engine.commands import Rejection
from server.http.messages import Refused


def not_yours() -> Refused:
    return Refused(403, "UNAUTHORIZED", "This token may only act for its own user.", {"field": "userId"})


def refused(rejection: Rejection) -> Refused:
    """Make the answer to a command that the actor rejected."""
    status = 409 if rejection.code == "CONFLICT" else 400
    return Refused(status, rejection.code, rejection.message, rejection.details)
