"""The routes that read many rows: a whole board page by page, and the ranks of chosen users.

Rules:
- A walk shows one moment (`server.api.cursors`): each user who was ranked then is listed once.
- The ranks of chosen users are of one moment too, in one answer. `rankAmong` counts the chosen users only.
- An inactive user and one without a score look alike here: neither is ranked.
"""

from __future__ import annotations

import msgspec

from server import bounds
from server.access.auth import Principal
from server.api.answers import QueryAnswer, QueryEntry, WalkAnswer
from server.api.cursors import Walks
from server.api.decoding import check_content, decode_query
from server.api.dependencies import Dependencies
from server.api.reads import served_board, stale_fields
from server.http.messages import JSON, NO_STORE, Request, Response, invalid
from server.http.target import board_of, limit_of, query_values
from server.live.encoding import entries_of, iso_ms

_encode = msgspec.json.Encoder().encode


class Lists:
    """Answers to GET /scoreboard and POST /scores/query."""

    def __init__(self, dependencies: Dependencies) -> None:
        self._scoreboard = dependencies.scoreboard
        self._checks = dependencies.checks
        self._freshness = dependencies.freshness
        self._clock_ms = dependencies.clock_ms
        self._clock_s = dependencies.clock_s
        self._walks = Walks()

    async def walk(self, request: Request, _caller: Principal) -> Response:
        """Answer with a page of a board."""
        values = query_values(request.query, ("boardId", "limit", "cursor", "minSeq"))
        board = served_board(self._scoreboard, self._checks, board_of(values))
        limit = limit_of(values, bounds.LIST_LIMIT_DEFAULT, bounds.LIST_LIMIT_MAX)
        cursor = values.get("cursor")
        if cursor is None:
            newest = "minSeq" in values
            page = self._walks.begin(board, self._scoreboard.mark, limit, self._clock_s(), newest=newest)
        elif not cursor:
            raise invalid("cursor", "cursor is empty.")
        else:
            page = self._walks.resume(cursor, board, limit, self._clock_s())
        answer = WalkAnswer(
            entries=entries_of(page.rows, self._scoreboard.users),
            count=page.count,
            next_cursor=page.cursor,
            generated_at=iso_ms(self._clock_ms()),
            board_id=board.board_id,
            epoch=page.mark.epoch,
            seq=page.seq,
            history=page.mark.history,
            **stale_fields(self._freshness),
        )
        return Response(200, _encode(answer), JSON, NO_STORE)

    async def query(self, request: Request, _caller: Principal) -> Response:
        """Answer with the ranks of chosen users."""
        check_content(request)
        user_ids, board_id = decode_query(request.body, bounds.QUERY_USERS_MAX)
        board = served_board(self._scoreboard, self._checks, board_id)
        rows, unranked = board.rows_for(user_ids)
        entries = entries_of(rows, self._scoreboard.users)
        answer = QueryAnswer(
            entries=tuple(
                QueryEntry(**msgspec.structs.asdict(entry), rank_among=place) for place, entry in enumerate(entries, 1)
            ),
            unranked=tuple(unranked),
            count=board.ranked,
            generated_at=iso_ms(self._clock_ms()),
            board_id=board.board_id,
            epoch=self._scoreboard.epoch,
            seq=board.seq,
            **stale_fields(self._freshness),
        )
        return Response(200, _encode(answer), JSON, NO_STORE)
