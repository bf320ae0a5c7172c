"""The refusals that several writes share. Pure."""

from __future__ import annotations

from engine.commands import Rejection, RejectionCode
from engine.errors import FrameTooLong, NoQuorum, Overloaded
from server.access.auth import AuthFault
from server.api.routes import VALUE
from server.http.messages import Details, Refused, no_quorum, overloaded
from server.live.encoding import iso_ms

_STATUS: dict[RejectionCode, int] = {
    "INVALID_REQUEST": 400,
    "NOT_FOUND": 404,
    "CONFLICT": 409,
    "BOARD_NOT_OPEN": 409,
    "BOARD_CLOSED": 410,
    "ERASED": 410,
}


def not_yours() -> Refused:
    return Refused(403, "UNAUTHORIZED", "This token may only act for its own user.", {"field": "userId"})


def no_value() -> Refused:
    """Make the answer to a value whose sender may choose none."""
    fault = AuthFault("scope", "the token lacks the scope scores:value, without which it may send no value", VALUE)
    details: Details = {"field": "value", "anyOf": list(VALUE)}
    return Refused(403, "UNAUTHORIZED", fault.sentence, details, (("www-authenticate", fault.challenge),))


def not_taken(fault: Overloaded | FrameTooLong) -> Refused:
    """Make the answer to a command that the actor did not take."""
    if isinstance(fault, FrameTooLong):
        return Refused(413, "PAYLOAD_TOO_LARGE", f"Nothing was done, because {fault}. Ask for it in parts.")
    if isinstance(fault, NoQuorum):  # which server said what is for the log, and for the operator
        return no_quorum("Nothing was done, because no majority of the log's servers takes it now. Try again later.")
    return overloaded(f"Nothing was done, because {fault}. Try again later.")


def refused(rejection: Rejection) -> Refused:
    """Make the answer to a command that the actor rejected."""
    details: Details = dict(rejection.details)
    if "startsAtMs" in details:
        details["startsAt"] = iso_ms(details.pop("startsAtMs"))
    return Refused(_STATUS[rejection.code], rejection.code, rejection.message, details)
