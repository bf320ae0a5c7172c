"""Which state of a board a caller sees: what the public sees, or with `view=live` what counts now.

    ranking = await views.of(request, caller, board)        a `Response` if it is not known whether the caller may

They differ only while a board is frozen (`engine.frozen_board`).

Rules:
- The present needs a token with a scope of LIVE_VIEW. Where reads are public no token was looked at before, so it is
  done here. A token that does not verify is told so: its caller wants more than the public.
- Whatever is answered about a board on behalf of the public comes from `Board.public`: rows, counts, positions, ETags,
  walks, past periods, metrics.
"""

from __future__ import annotations

from typing import Any

from engine.board import Board
from engine.board_rules import BoardDefinition
from server.access.auth import ANYBODY, Principal
from server.api.dependencies import Dependencies
from server.api.routes import LIVE_VIEW
from server.http.messages import Refused, Request, Response
from server.http.target import PUBLIC, query_values, view_of
from server.live.encoding import about

_MORE_STEPS = ("minSeq", "minEpoch", "period", "view", "asOf", "asOfSeq")


def is_plain_top(query: str) -> bool:
    """Whether the express lane can answer a top: a wait, a past period or another view takes all steps.

    Names are decoded first, because `per%69od` is `period`. Raises `Refused`.
    """
    return not query_values(query, _MORE_STEPS)


class Views:
    """Gives each caller the state that it may see."""

    def __init__(self, dependencies: Dependencies) -> None:
        self._authenticator = dependencies.authenticator

    async def of(self, request: Request, caller: Principal, board: Board) -> Board | Response:
        """Give what a request shows of a board. Raises `Refused`."""
        refusal = await self.check(request, caller)
        if refusal is not None:
            return refusal
        return board if self.is_live(request) else board.public

    async def check(self, request: Request, caller: Principal) -> Response | None:
        """Check that a caller may have the view that it asks for. Raises `Refused`."""
        if not self.is_live(request):
            return None
        found: Principal | Response = caller
        if caller is ANYBODY:
            found = await self._authenticator.authenticate(request.headers.get("authorization"))
        if isinstance(found, Response):
            return found
        if not found.may(LIVE_VIEW):
            raise Refused(403, "UNAUTHORIZED", "view=live needs a token with scores:read.", {"field": "view"})
        return None

    @staticmethod
    def is_live(request: Request) -> bool:
        """Whether a request asks for the present. Raises `Refused`."""
        return view_of(query_values(request.query, ("view",))) != PUBLIC


def period_fields(definition: BoardDefinition | None) -> dict[str, Any]:
    """Give the fields of an answer about the running period and the freeze; none where there is neither."""
    told = about(definition)
    fields = {"period": told.period, "ends_at": told.ends_at, "frozen_at": told.frozen_at}
    return {name: value for name, value in fields.items() if value is not None}
