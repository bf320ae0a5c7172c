"""The routes that read many rows: a whole board page by page, and the ranks of chosen users.

Rules:
- A walk shows one moment (`server.api.cursors`): each user who was ranked then is listed once.
- The ranks of chosen users are of one moment too, in one answer. `rankAmong` counts the chosen users only.
- An inactive user and one without a score look alike here: neither is ranked.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from engine.board import Board
from engine.board_rules import PastPeriod
from engine.ranking import Row
from server import bounds
from server.access.auth import Principal
from server.api.answers import QueryAnswer, QueryEntry, WalkAnswer
from server.api.cursors import Walks
from server.api.decoding import check_content, decode_query
from server.api.dependencies import Dependencies
from server.api.names import CallerNames, Sight
from server.api.periods import Periods, named_period
from server.api.reads import past_fields, served_board, stale_fields
from server.api.views import Views, period_fields
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
        self._views = Views(dependencies)
        self._names = CallerNames(dependencies)
        self._periods = Periods(dependencies.scoreboard, dependencies.periods)

    async def walk(self, request: Request, caller: Principal) -> Response:
        """Answer with a page of a board, of now or of a past period."""
        sight = await self._names.of(request, caller)
        values = query_values(request.query, ("boardId", "limit", "cursor", "minSeq", "period"))
        served = served_board(self._scoreboard, self._checks, board_of(values))
        board = await self._views.of(request, caller, served)
        if isinstance(board, Response):
            return board
        limit = limit_of(values, bounds.LIST_LIMIT_DEFAULT, bounds.LIST_LIMIT_MAX)
        cursor = values.get("cursor")
        if "period" in values and cursor != "":
            past = named_period(board.board_id, board, values["period"])
            return await self._walk_past(board, past, limit, cursor, sight)
        if cursor is None:
            newest = "minSeq" in values
            page = self._walks.begin(board, self._scoreboard.mark, limit, self._clock_s(), newest=newest)
        elif not cursor:
            raise invalid("cursor", "cursor is empty.")
        else:
            page = self._walks.resume(cursor, board, limit, self._clock_s())
        answer = WalkAnswer(
            entries=entries_of(page.rows, self._names.shown(sight)),
            count=page.count,
            next_cursor=page.cursor,
            generated_at=iso_ms(self._clock_ms()),
            board_id=board.board_id,
            epoch=page.mark.epoch,
            seq=page.seq,
            history=page.mark.history,
            **period_fields(board.definition),
            **stale_fields(self._freshness),
        )
        return Response(200, _encode(answer), JSON, NO_STORE)

    async def _walk_past(
        self, board: Board, past: PastPeriod, limit: int, cursor: str | None, sight: Sight
    ) -> Response:
        corrected, count = self._periods.corrected(board.board_id, past), self._periods.count(board.board_id, past)
        place = (board.board_id, past.seq if corrected is None else corrected.seq)
        start = 0 if cursor is None else self._walks.past_place(cursor, *place)
        rows = await self._periods.rows(board.board_id, past, start, limit)
        following = start + limit
        answer = WalkAnswer(
            entries=entries_of(rows, self._names.shown(sight)),
            count=count,
            next_cursor=self._walks.past_cursor(*place, following) if following < count else None,
            generated_at=iso_ms(self._clock_ms()),
            board_id=board.board_id,
            epoch=self._scoreboard.epoch_of(past.seq),
            seq=past.seq,
            history=self._scoreboard.mark.history,
            **past_fields(past),
            **stale_fields(self._freshness),
        )
        return Response(200, _encode(answer), JSON, NO_STORE)

    async def query(self, request: Request, caller: Principal) -> Response:
        """Answer with the ranks of chosen users."""
        check_content(request)
        sight = await self._names.of(request, caller)
        user_ids, board_id = decode_query(request.body, bounds.QUERY_USERS_MAX)
        served = served_board(self._scoreboard, self._checks, board_id)
        board = await self._views.of(request, caller, served)
        if isinstance(board, Response):
            return board
        rows, unranked = board.rows_for(user_ids)
        entries = entries_of(rows, self._names.shown(sight))
        answer = QueryAnswer(
            entries=tuple(
                QueryEntry(**msgspec.structs.asdict(entry), rank_among=among)
                for entry, among in zip(entries, ranks_among(board, rows), strict=True)
            ),
            unranked=tuple(unranked),
            count=board.ranked,
            generated_at=iso_ms(self._clock_ms()),
            board_id=board.board_id,
            epoch=self._scoreboard.epoch,
            seq=board.seq,
            **period_fields(board.definition),
            **stale_fields(self._freshness),
        )
        return Response(200, _encode(answer), JSON, NO_STORE)


def ranks_among(board: Board, rows: Sequence[Row]) -> list[int]:
    """Give the ranks of chosen rows among each other, in the mode of their board."""
    mode = "unique" if board.definition is None else board.definition.rules.ranks
    ranks: list[int] = []
    for place, row in enumerate(rows):
        if mode != "unique" and place and rows[place - 1].score == row.score:
            ranks.append(ranks[-1])
        else:
            ranks.append(ranks[-1] + 1 if mode == "dense" and place else place + 1)
    return ranks
