"""What shows a board outside of this server's own page: /embed for a frame, /wall for a projector or a stream.

    showing = Showing(dependencies)
    showing.reload(frame_ancestors)             other sites may frame from now on
    handlers |= showing.handlers()

    /embed     the element alone; the sites of `[live] allowed_origins` may frame it
    /wall      the whole width, a QR code, how many watch; `?theme=transparent` lies over a stream
    /qr.svg    the code: it leads to the page
    /viewers   how many watch a board on this node

Rules:
- Only /embed may be framed, and by nobody but the allowed sites. What a policy has no form for may not frame.
- A wall asks for the number of viewers now and then. It is not in the live messages: they are made once for all, and a
  number that changes whenever somebody comes would make a message for each of them.
- The number is that of this node. Nodes know nothing of each other's viewers.
- A board that is not there gets 400 everywhere, as for /scoreboard/top. Only a private server draws the code of any
  board: a picture in a page carries no token, and who has none must not learn which boards there are.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from server.access.auth import Principal
from server.api.dependencies import Dependencies
from server.api.pages import Page, document, framed
from server.api.qr_code import page_address, qr_svg
from server.api.reads import served_board
from server.api.showing_forms import ViewersAnswer
from server.http.messages import JSON, NO_CACHE, Request, Response
from server.http.target import board_of, query_values

SVG = "image/svg+xml"
SVG_POLICY = ("content-security-policy", "default-src 'none'; frame-ancestors 'none'; sandbox")


class Showing:
    """Answers the routes."""

    def __init__(self, dependencies: Dependencies) -> None:
        self._pages = dependencies.pages
        self._scoreboard = dependencies.scoreboard
        self._checks = dependencies.checks
        self._viewers = dependencies.viewers
        self._public_reads = dependencies.public_reads
        self._frame_ancestors = dependencies.frame_ancestors
        self._embed: Page | None = None  # made when it is first asked for

    def reload(self, frame_ancestors: str) -> None:
        """Let other sites frame /embed from now on."""
        self._frame_ancestors, self._embed = frame_ancestors, None

    def handlers(self) -> dict[str, Callable[[Request, Principal], Awaitable[Response]]]:
        """Give the handler of each route."""
        return {"embed": self.embed, "wall": self.wall, "qr": self.qr, "viewers": self.viewers}

    async def embed(self, request: Request, _caller: Principal) -> Response:
        """Answer with the page for a frame."""
        if self._embed is None:
            self._embed = framed(self._pages["embed"], self._frame_ancestors)
        return self._embed.answer(request)

    async def wall(self, request: Request, _caller: Principal) -> Response:
        """Answer with the page for a projector."""
        return self._pages["wall"].answer(request)

    async def qr(self, request: Request, _caller: Principal) -> Response:
        """Answer with the code of the page that shows a board, on the host of the request."""
        values = query_values(request.query, ("boardId", "base"))
        board_id = board_of(values)
        if self._public_reads:
            served_board(self._scoreboard, self._checks, board_id)
        address = page_address(request.headers.get("host", ""), board_id, values.get("base"))
        return document(qr_svg(address), SVG, (SVG_POLICY,)).answer(request)

    async def viewers(self, request: Request, _caller: Principal) -> Response:
        """Answer with how many watch a board here."""
        board_id = board_of(query_values(request.query, ("boardId",)))
        served_board(self._scoreboard, self._checks, board_id)
        answer = ViewersAnswer(board_id, self._viewers(board_id))
        return Response(200, msgspec.json.encode(answer), JSON, NO_CACHE)
