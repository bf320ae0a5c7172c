"""The routes of a quorum: what this node knows of it, and a leader that lets another node lead."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from server.access.auth import Principal
from server.api.dependencies import Dependencies, QuorumMember
from server.api.quorum_forms import SteppedDownAnswer
from server.http.messages import NO_STORE, Refused, Request, Response, json_response


class Quorum:
    """A method is the handler of that name in the table of routes. A node that is of no quorum refuses all with 409."""

    def __init__(self, dependencies: Dependencies) -> None:
        self._member = dependencies.quorum

    def handlers(self) -> dict[str, Callable[[Request, Principal], Awaitable[Response]]]:
        return {"quorum": self.quorum, "step_down": self.step_down}

    async def quorum(self, _request: Request, _caller: Principal) -> Response:
        return json_response(self._found().view(), NO_STORE)

    async def step_down(self, _request: Request, _caller: Principal) -> Response:
        epoch, seq = await self._found().step_down()
        return json_response(SteppedDownAnswer(epoch, seq), NO_STORE)

    def _found(self) -> QuorumMember:
        if self._member is None:
            raise Refused(409, "CONFLICT", "This node is of no quorum.")
        return self._member
