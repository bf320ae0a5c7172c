"""Requests about a quorum, and a stand-in for the member that a node is."""

from __future__ import annotations

from typing import Any

import msgspec

from server.api import examples
from server.api.quorum_forms import QuorumAnswer
from server.http.messages import Refused


class OneMember:
    """A member that leads, as in the example. It steps down once."""

    def __init__(self) -> None:
        self.leads = True

    def view(self) -> QuorumAnswer:
        """See `server.api.dependencies.QuorumMember`."""
        return msgspec.convert(examples.ANSWERS["quorum"], QuorumAnswer)

    async def step_down(self) -> tuple[int, int]:
        """See `server.api.dependencies.QuorumMember`."""
        if not self.leads:
            raise Refused(409, "CONFLICT", "This node does not lead: it is following.")
        self.leads = False
        return 1, 3


ADMIN, REPLICA, READER = "Bearer ops admin", "Bearer replica log:read", "Bearer reader scores:read"

QUORUM: list[tuple[str, str, Any, str | None, int]] = [
    ("GET", "/quorum", None, None, 401),
    ("GET", "/quorum", None, READER, 403),
    ("GET", "/quorum", None, REPLICA, 200),
    ("GET", "/quorum", None, ADMIN, 200),
    ("GET", "/quorum?name=a", None, ADMIN, 400),
    ("POST", "/quorum/step-down", None, None, 401),
    ("POST", "/quorum/step-down", None, REPLICA, 403),
    ("POST", "/quorum/step-down?to=a", None, ADMIN, 400),
    ("POST", "/quorum/step-down", None, ADMIN, 200),
    ("POST", "/quorum/step-down", None, ADMIN, 409),
    ("GET", "/readyz", None, None, 200),
    ("GET", "/readyz?role=leader", None, None, 200),
    ("GET", "/readyz?role=replica", None, None, 400),
    ("GET", "/readyz?rol=leader", None, None, 400),
]
"""Method, path, body, token and status."""
