"""Refusals that several writes share, as errors of the wire. Pure."""

from __future__ import annotations

from engine.commands import Rejection
from server.http.messages import Refused


def not_yours() -> Refused:
    """403: the token may only act for its own user."""
    return Refused(403, "UNAUTHORIZED", "This token may only act for its own user.", {"field": "userId"})


def refused(rejection: Rejection) -> Refused:
    """Put what the actor rejected in the wire's terms."""
    status = 409 if rejection.code == "CONFLICT" else 400
    return Refused(status, rejection.code, rejection.message, rejection.details)
