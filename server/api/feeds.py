"""The routes in formats of the field: CTFtime's scoreboard feed, and the CLICS Contest API (`server.live.clics`).

    GET /feeds/ctftime.json?boardId=        {"standings": [{"pos", "team", "score", "lastAccept"}]}, all ASCII
    GET /feeds/clics/contests/{boardId}/…   contest, access, teams, state, scoreboard

Rules:
- What a caller sees is what GET /scoreboard/top shows: the frozen rows of a frozen board, and the names of the public,
  unless a token asks for more. A user's own token sees here what the public sees: a feed is for programs.
- A feed shows one moment. Its rows are copied first, then written part by part, and others have their turn between two.
- Feeds are made one at a time, and kept while the board is unchanged. Whoever waits for one takes one that was begun
  after he came. So many callers cost as much as one.
- An ETag is the digest of the body. So two nodes at one position give the same.
- CTFtime's `tasks` stand only with `taskStats` in every row. There are no tasks here, so both are left out.
- A contest is found by the id that it has there, and by the board's own.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

import msgspec
import trio

from engine.board import Board
from server.access.auth import Principal
from server.api.dependencies import Dependencies
from server.api.feed_forms import Standing, access, information
from server.api.names import CallerNames
from server.api.reads import served_board
from server.api.views import Views
from server.http.messages import JSON, NO_CACHE, Refused, Request, Response, etag_matches
from server.http.target import board_of, query_values
from server.live import clics, clics_ids
from server.live.clics import Contestant, contest_of, contestants, has_started, state_of, times_of
from server.live.names import names_for

FEEDS_KEPT_MAX = 64
"""Feeds that are kept until their board changes. One has at most a megabyte."""

PART_ROWS = 500
"""Rows that are written before others have their turn: a millisecond of work."""

HANDLERS = (
    "ctftime", "clics", "clics_contests", "clics_contest", "clics_access", "clics_teams", "clics_state",
    "clics_scoreboard", "clics_event_feed",
)  # fmt: skip

_encode = msgspec.json.Encoder().encode

Rows = list[Standing] | list[clics.ScoreRow] | list[clics.Team]


class _Asked(NamedTuple):
    """Which feed is asked for. `is_live`, `all_names`: with what the public does not see."""

    kind: str
    board_id: str
    is_live: bool
    all_names: bool


class _Copied(msgspec.Struct, frozen=True):
    """A feed at one moment: what stands around its rows, how they are written, and whether it may be kept."""

    before: bytes
    rows: Rows
    after: bytes
    write: Callable[[Any], bytes]
    lasts: bool


class _Kept(msgspec.Struct, frozen=True):
    """A feed that was written. `number` counts them by when they were begun."""

    moment: tuple[int, str, int]
    number: int
    body: bytes
    etag: str
    lasts: bool


Copy = Callable[[Board, Sequence[Contestant]], _Copied]


class Feeds:
    """Answers to /feeds/…"""

    def __init__(self, dependencies: Dependencies) -> None:
        self._scoreboard = dependencies.scoreboard
        self._checks = dependencies.checks
        self._clock_ms = dependencies.clock_ms
        self._form = dependencies.names
        self._version = dependencies.clics_version
        self._views = Views(dependencies)
        self._names = CallerNames(dependencies)
        self._kept: dict[_Asked, _Kept] = {}
        self._begun = 0
        self._making = trio.Lock()

    def handlers(self) -> dict[str, Callable[[Request, Principal], Awaitable[Response]]]:
        """Give the handlers by their names in the table of routes."""
        return {name: getattr(self, name) for name in HANDLERS}

    # CTFtime

    async def ctftime(self, request: Request, caller: Principal) -> Response:
        """Answer with the standings of a board."""
        board_id = board_of(query_values(request.query, ("boardId",)))
        board = served_board(self._scoreboard, self._checks, board_id)
        return await self._feed(request, caller, "ctftime", board, self._standings)

    def _standings(self, _board: Board, users: Sequence[Contestant]) -> _Copied:
        rows = [Standing(user.rank, user.name, user.score, user.updated_ms // 1000) for user in users]
        return _Copied(b'{"standings":[', rows, b"]}", _write_ascii, lasts=True)

    # CLICS

    async def clics(self, request: Request, _caller: Principal) -> Response:
        """Answer which version is served."""
        return _answer(request, _encode(information(self._version)))

    async def clics_contests(self, request: Request, caller: Principal) -> Response:
        """Answer with all boards that are here, as contests."""
        if (refusal := await self._views.check(request, caller)) is not None:
            return refusal
        scoreboard, is_live = self._scoreboard, self._views.is_live(request)
        served = [scoreboard.boards[board_id] for board_id in scoreboard.served() if self._checks.holds(board_id)]
        shown = served if is_live else [board.public for board in served]
        return _answer(request, _encode([contest_of(board.board_id, board.definition) for board in shown]))

    async def clics_contest(self, request: Request, caller: Principal) -> Response:
        """Answer with one board as a contest."""
        board = await self._views.of(request, caller, self._contest(request))
        if isinstance(board, Response):
            return board
        return _answer(request, _encode(contest_of(board.board_id, board.definition)))

    async def clics_access(self, request: Request, _caller: Principal) -> Response:
        """Answer what there is of a contest."""
        self._contest(request)
        return _answer(request, _encode(access()))

    async def clics_state(self, request: Request, caller: Principal) -> Response:
        """Answer whether a contest runs, is frozen, has ended."""
        board = await self._views.of(request, caller, self._contest(request))
        if isinstance(board, Response):
            return board
        return _answer(request, _encode(state_of(board.definition, self._clock_ms())))

    async def clics_teams(self, request: Request, caller: Principal) -> Response:
        """Answer with the users of a board as teams."""
        return await self._feed(request, caller, "teams", self._contest(request), self._teams)

    async def clics_scoreboard(self, request: Request, caller: Principal) -> Response:
        """Answer with the rows of a board."""
        return await self._feed(request, caller, "scoreboard", self._contest(request), self._rows)

    async def clics_event_feed(self, _request: Request, _caller: Principal) -> Response:
        """Refuse: the live lane serves this."""
        raise Refused(400, "INVALID_REQUEST", "This is a stream of events: open it with GET.", {"field": "method"})

    def _teams(self, _board: Board, users: Sequence[Contestant]) -> _Copied:
        return _Copied(b"[", clics.teams_of(users), b"]", _encode, lasts=True)

    def _rows(self, board: Board, users: Sequence[Contestant]) -> _Copied:
        now_ms, times = self._clock_ms(), times_of(board.definition)
        time, contest_time = clics.scoreboard_times(users, times, now_ms)
        empty = clics.ContestScoreboard(time, contest_time, state_of(board.definition, now_ms), [])
        rows = clics.score_rows(users, times, self._version)
        return _Copied(_encode(empty).removesuffix(b"]}"), rows, b"]}", _encode, lasts=has_started(times, now_ms))

    def _contest(self, request: Request) -> Board:
        """Give the board of a contest. Raises `Refused`."""
        contest_id = request.path_params["boardId"]
        board_id = clics_ids.board_of(contest_id, self._scoreboard.served())
        self._checks.check_board(board_id)
        board = self._scoreboard.board(board_id)
        if board is None:
            raise Refused(404, "NOT_FOUND", "There is no such board.", {"boardId": contest_id})
        return board

    # Making a feed once for all

    async def _feed(self, request: Request, caller: Principal, kind: str, served: Board, copy: Copy) -> Response:
        """Answer with a feed of many rows. Raises `Refused`."""
        sight = await self._names.of(request, caller)
        if (refusal := await self._views.check(request, caller)) is not None:
            return refusal
        asked, came = _Asked(kind, served.board_id, self._views.is_live(request), sight.all), self._begun
        kept = self._kept.get(asked)
        if kept is None or not self._is_current(asked, kept):
            async with self._making:
                kept = self._kept.get(asked)
                if kept is None or not (kept.number > came or self._is_current(asked, kept)):
                    kept = await self._make(asked, copy)
        return _answer(request, kept.body, kept.etag)

    def _board(self, asked: _Asked) -> Board:
        """Give the board that is shown now: a freeze may have come since the feed was asked for."""
        board = self._scoreboard.boards[asked.board_id]
        return board if asked.is_live else board.public

    def _is_current(self, asked: _Asked, kept: _Kept) -> bool:
        return kept.lasts and kept.moment == self._moment(self._board(asked))

    def _moment(self, board: Board) -> tuple[int, str, int]:
        return self._scoreboard.epoch, self._scoreboard.mark.history, board.seq

    async def _make(self, asked: _Asked, copy: Copy) -> _Kept:
        self._begun += 1
        board = self._board(asked)
        number, moment = self._begun, self._moment(board)
        names = names_for(self._scoreboard.users, "shown" if asked.all_names else self._form)
        copied = copy(board, contestants(board, names))
        parts = []
        for start in range(0, len(copied.rows), PART_ROWS):
            parts.append(copied.write(copied.rows[start : start + PART_ROWS])[1:-1])
            await trio.lowlevel.checkpoint()
        body = copied.before + b",".join(parts) + copied.after
        kept = _Kept(moment, number, body, _etag(body), copied.lasts)
        self._kept.pop(asked, None)
        self._kept[asked] = kept
        while len(self._kept) > FEEDS_KEPT_MAX:
            del self._kept[next(iter(self._kept))]
        return kept


def _answer(request: Request, body: bytes, etag: str | None = None) -> Response:
    """Answer with a body, or with 304 to a client that has it."""
    etag = etag or _etag(body)
    headers = (("etag", etag), *NO_CACHE)
    if etag_matches(request.headers.get("if-none-match"), etag):
        return Response(304, headers=headers)
    return Response(200, body, JSON, headers)


def _etag(body: bytes) -> str:
    return f'"{sha256(body).hexdigest()[:32]}"'


def _write_ascii(rows: Any) -> bytes:
    r"""Write rows with `\u` for every letter that is not ASCII: CTFtime wants names so."""
    return json.dumps(msgspec.to_builtins(rows), ensure_ascii=True, separators=(",", ":")).encode("ascii")
