"""Imports over HTTP: POST and GET /boards/{boardId}/imports, and GET /boards/{boardId}/imports/{importId}.

    body → form → a place → the command → the actor → how far the import is

Rules:
- A piece is one frame, and the writer takes nothing else meanwhile. So a piece has at most IMPORT_PIECE_ROWS_MAX rows,
  and the node works on one piece at a time: between two of them the writer takes what others sent. A few pieces wait
  for their turn, the others are told to come again.
- A piece may be sent again: rows that are done are passed over. So a sender that does not know what became of a piece
  sends it once more.
- The rates of increments do not apply. Only `admin` may import, and the pieces bound what an import takes.
- Who began and who finished an import stands in the log of the process, and each row in the log with its caller.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import msgspec
import trio

from engine.commands import Command, ImportReceipt, ImportRows, Outcome, Rejection
from engine.errors import Overloaded
from engine.imports import Import
from server import bounds
from server.access.auth import Principal
from server.api.decoding import check_content
from server.api.dependencies import Dependencies
from server.api.import_forms import (
    ImportAnswer,
    ImportObject,
    ImportsAnswer,
    decode_piece,
    import_fields,
    imported_answer,
)
from server.api.reads import stale_fields
from server.api.refusals import refused
from server.http.messages import JSON, NO_STORE, Refused, Request, Response, quoted
from server.http.target import ids_of, query_values

Submit = Callable[[Sequence[Command]], Awaitable[list[Outcome]]]

_encode = msgspec.json.Encoder().encode


class Imports:
    """Answers the routes of imports. `submit` has commands decided and made durable."""

    def __init__(self, dependencies: Dependencies, submit: Submit) -> None:
        self._scoreboard = dependencies.scoreboard
        self._freshness = dependencies.freshness
        self._checks = dependencies.checks
        self._audit = dependencies.audit
        self._metrics = dependencies.metrics
        self._submit = submit
        self._turn = trio.CapacityLimiter(1)

    def handlers(self) -> dict[str, Callable[[Request, Principal], Awaitable[Response]]]:
        """Give the handler of each route."""
        return {"import_rows": self.take, "imports": self.list, "import": self.one}

    async def take(self, request: Request, caller: Principal) -> Response:
        """Have the rows of a piece logged, and say how far the import is. Raises `Refused`, `Overloaded`."""
        kind = check_content(request, may_be_packed=True)
        if caller.user is not None:
            raise Refused(403, "UNAUTHORIZED", "A token that names a user may not import.", {"field": "userId"})
        if self._turn.statistics().tasks_waiting >= bounds.IMPORT_PIECES_WAITING_MAX:
            raise Overloaded("too many imports are going on")
        piece = decode_piece(request.body, kind)
        command = ImportRows(
            request.path_params["boardId"], piece.import_id, piece.first_row, piece.total, piece.digest, piece.merge,
            piece.rows, caller.sub,
        )  # fmt: skip
        async with self._turn:
            [outcome] = await self._submit([command])
        if isinstance(outcome, Rejection):
            raise refused(outcome)
        assert isinstance(outcome, ImportReceipt)
        if outcome.applied:
            self._metrics.imported(outcome.applied)
            self._audit.imported(outcome, merge=piece.merge, caller=caller.sub)
        answer = imported_answer(outcome)
        return Response(200, _encode(answer) if kind == JSON else msgspec.msgpack.encode(answer), kind, NO_STORE)

    async def list(self, request: Request, _caller: Principal) -> Response:
        """Answer with the imports of a board, or with the one of the query."""
        board_id = self._board_of(request)
        if query_values(request.query, ("importId",)):
            return self._answer(board_id, ids_of(request.query, ("importId",))["importId"])
        found = self._scoreboard.imports.of_board(board_id)
        answer = ImportsAnswer(
            board_id, [ImportObject(**import_fields(each)) for each in found], self._scoreboard.epoch,
            self._scoreboard.seq, **stale_fields(self._freshness),
        )  # fmt: skip
        return Response(200, _encode(answer), JSON, NO_STORE)

    async def one(self, request: Request, _caller: Principal) -> Response:
        """Answer with how far an import is."""
        return self._answer(self._board_of(request), request.path_params["importId"])

    def _board_of(self, request: Request) -> str:
        board_id = request.path_params["boardId"]
        self._checks.check_board(board_id)
        if self._scoreboard.board(board_id) is None:
            raise Refused(404, "NOT_FOUND", "There is no such board.", {"field": "boardId", "boardId": board_id})
        return board_id

    def _answer(self, board_id: str, import_id: str) -> Response:
        known: Import | None = self._scoreboard.imports.get(import_id)
        if known is None or known.board_id != board_id:
            message = f"There is no import {quoted(import_id)} to this board."
            raise Refused(404, "NOT_FOUND", message, {"field": "importId", "importId": quoted(import_id)})
        scoreboard = self._scoreboard
        answer = ImportAnswer(
            **import_fields(known), epoch=scoreboard.epoch, seq=scoreboard.seq, **stale_fields(self._freshness)
        )
        return Response(200, _encode(answer), JSON, NO_STORE)
