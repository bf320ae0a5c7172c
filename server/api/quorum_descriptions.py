"""The routes of a quorum, as `server.api.descriptions` describes the others. Pure."""

from __future__ import annotations

from server.api.descriptions import Operation
from server.api.quorum_forms import QuorumAnswer, SteppedDownAnswer

QUORUM: dict[str, Operation] = {
    "quorum": Operation(
        "Operations",
        "Each node says again and again how far it is. `CONFLICT` on a node that is of no quorum.",
        QuorumAnswer,
        (400, 401, 403, 409, 500, 503),
    ),
    "step_down": Operation(
        "Operations",
        "For a leader of a quorum. Another node leads within some tenths of a second, and this one follows it. Nothing "
        "that was acknowledged is lost. `CONFLICT` if this node does not lead (`details.leader` does), or nobody could "
        "take over.",
        SteppedDownAnswer,
        (400, 401, 403, 409, 500, 503),
    ),
}
