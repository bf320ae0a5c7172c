"""The routes that read: a board's top, one user's score, the neighbours.

Rules:
- An answer is one moment's state, and that state is on disk: the scoreboard is read between two awaits.
- The encoded answer to GET /scoreboard/top is kept per board and limit, until the board changes. Serving it is O(1) in
  users and rows. There are at most 2 × boards × TOP_LIMIT_MAX of them: with the names of the public, and with all.
- An answer has the current epoch, and the seq of the last event on its board. The epoch is not that event's: after a
  restore, a client that keeps the highest position must take the new answers for newer.
- An inactive user is not public: without a token that may read, the answer is that of a user who does not exist. Where
  reads are public no token was looked at before, so it is done here.
- An ETag has the identity of the epoch (`engine.history`). Two leaders of one epoch may show different rows at one
  position, and neither answers 304 to an ETag of the other.
- ETags are weak: two servers at one position give the same rows, but each with its own `generatedAt`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from engine.board import Board
from engine.board_rules import PastPeriod
from engine.ranking import FinalRow, Row
from engine.scoreboard import Scoreboard
from server import bounds
from server.access.auth import ANYBODY, Principal
from server.api.answers import AroundAnswer, ScoreAnswer, TopAnswer
from server.api.as_of import AsOf, asks_for_past
from server.api.dependencies import Dependencies
from server.api.names import CallerNames, Sight
from server.api.periods import Periods, named_period
from server.api.role_checks import RoleChecks
from server.api.routes import READ
from server.api.views import Views, period_fields
from server.http.messages import JSON, NO_CACHE, NO_STORE, Headers, Refused, Request, Response, etag_matches, invalid
from server.http.target import board_of, limit_of, query_values
from server.live.encoding import Moment, about, entries_of, iso_ms, top_body
from server.replication.freshness import Freshness

ETAG_HISTORY = 16
"""Digits of an epoch's identity in an ETag: 64 bits, so two identities never look alike by chance."""

_encode = msgspec.json.Encoder().encode


class Top(NamedTuple):
    """Which top is asked for. `all_names`: with the names that the public does not see."""

    board_id: str
    limit: int
    all_names: bool


class KeptTop(msgspec.Struct, frozen=True):
    """An encoded top, and its position."""

    epoch: int
    seq: int
    etag: str
    full: Response
    not_modified: Response


class _Asked(msgspec.Struct, frozen=True):
    """What a request about one user asks for: the board that it may see, and a past period; None: the running one."""

    board: Board
    user_id: str
    past: PastPeriod | None
    sight: Sight
    values: dict[str, str]
    headers: Headers


class Reads:
    """Answers to GET /scoreboard/top, /scores, /scores/{userId} and the neighbours."""

    def __init__(self, dependencies: Dependencies) -> None:
        self._scoreboard = dependencies.scoreboard
        self._checks = dependencies.checks
        self._freshness = dependencies.freshness
        self._authenticator = dependencies.authenticator
        self._clock_ms = dependencies.clock_ms
        self._views = Views(dependencies)
        self._as_of = AsOf(dependencies)
        self._names = CallerNames(dependencies)
        self._periods = Periods(dependencies.scoreboard, dependencies.periods)
        self._kept: dict[Top, KeptTop] = {}

    async def top(self, request: Request, caller: Principal) -> Response:
        """Answer with the first rows of a board, of now or of a past period."""
        sight = await self._names.of(request, caller)
        board_id, limit, _ = top = self._top(request, sight)
        if asks_for_past(request.query):
            return await self._as_of.top(request, caller, board_id, limit)
        board = await self._views.of(request, caller, self._scoreboard.boards[board_id])
        if isinstance(board, Response):
            return board
        past = self._past(request, board)
        if past is not None:
            return await self._past_top(board, past, limit, sight)
        if self._views.is_live(request) or sight.own is not None:
            kept = self._make_top(board, limit, sight, "-live" if self._views.is_live(request) else "")
            return self._kept_answer(kept, request.headers.get("if-none-match"))
        return self.render_top(top, request.headers.get("if-none-match"))

    def top_of(self, request: Request, caller: Principal) -> Top | None:
        """Give the top that a request asks for; None if it must be waited for. Raises `Refused`."""
        sight = self._names.at_once(request, caller)
        return None if sight is None or sight.own is not None else self._top(request, sight)

    def _top(self, request: Request, sight: Sight) -> Top:
        values = query_values(request.query, ("boardId", "limit"))
        limit = limit_of(values, bounds.TOP_LIMIT_DEFAULT, bounds.TOP_LIMIT_MAX)
        return Top(self._board(values).board_id, limit, sight.all)

    def render_top(self, top: Top, if_none_match: str | None) -> Response:
        """Answer with the first rows of a board, or 304."""
        board = self._scoreboard.boards[top.board_id].public
        kept = self._kept.get(top)
        if kept is None or kept.seq != board.seq or kept.epoch != self._scoreboard.epoch:
            kept = self._kept[top] = self._make_top(board, top.limit, Sight(top.all_names))
        return self._kept_answer(kept, if_none_match)

    def _kept_answer(self, kept: KeptTop, if_none_match: str | None) -> Response:
        age_ms = self._freshness.stale_ms()
        if age_ms is not None:
            return _stale_top(kept, age_ms, if_none_match)
        if if_none_match is not None and etag_matches(if_none_match, kept.etag):
            return kept.not_modified
        return kept.full

    def _make_top(self, board: Board, limit: int, sight: Sight, view: str = "") -> KeptTop:
        scoreboard = self._scoreboard
        epoch, seq = scoreboard.epoch, board.seq
        history = scoreboard.mark.history
        moment = Moment(board.board_id, epoch, seq, self._clock_ms(), about(board.definition), history)
        body = top_body(entries_of(board.top(limit), self._names.shown(sight)), moment)
        etag = f'W/"{epoch}-{history[:ETAG_HISTORY]}-{seq}-{limit}{view}{self._names.tag(sight)}"'
        headers = (("etag", etag), *NO_CACHE)
        full, not_modified = Response(200, body, JSON, headers), Response(304, headers=headers)
        return KeptTop(epoch, seq, etag, full, not_modified)

    def _past(self, request: Request, board: Board) -> PastPeriod | None:
        """Give the past period that a request asks for, None for the running one. Raises `Refused`."""
        name = query_values(request.query, ("period",)).get("period")
        return None if name is None else named_period(board.board_id, board, name)

    async def _past_top(self, board: Board, past: PastPeriod, limit: int, sight: Sight) -> Response:
        corrected = self._periods.corrected(board.board_id, past)
        rows = await self._periods.top(board.board_id, past, limit)
        scoreboard = self._scoreboard
        answer = TopAnswer(
            entries=entries_of(rows, self._names.shown(sight)),
            generated_at=iso_ms(self._clock_ms()),
            board_id=board.board_id,
            epoch=scoreboard.epoch_of(past.seq),
            seq=past.seq,
            history=scoreboard.mark.history,
            corrected_at=None if corrected is None else iso_ms(corrected.time_ms),
            **past_fields(past),
            **stale_fields(self._freshness),
        )
        return Response(200, _encode(answer), JSON, NO_CACHE)

    async def _asked(self, request: Request, caller: Principal, names: tuple[str, ...]) -> _Asked | Response:
        """Give what a request about one user asks for. Raises `Refused`; a response is the refusal."""
        values = query_values(request.query, names)
        board = self._board(values)
        user_id = request.path_params["userId"]
        hidden = not self._scoreboard.is_active(user_id)
        if hidden and (refusal := await self._refusal(request, caller, board.board_id)) is not None:
            return refusal
        sight = await self._names.of(request, caller)
        shown = await self._views.of(request, caller, self._scoreboard.boards[board.board_id])
        if isinstance(shown, Response):
            return shown
        headers = NO_STORE if hidden else NO_CACHE
        return _Asked(shown, user_id, self._past(request, shown), sight, values, headers)

    async def score(self, request: Request, caller: Principal) -> Response:
        """Answer with one user's score and rank, of now or of a past period."""
        asked = await self._asked(request, caller, ("boardId",))
        if isinstance(asked, Response):
            return asked
        board, user_id, past = asked.board, asked.user_id, asked.past
        if past is not None:
            return await self._past_score(asked, past)
        score, updated_ms = self._score(board, user_id)
        standing = board.standing(user_id)
        answer = ScoreAnswer(
            user_id=user_id,
            display_name=self._names.shown(asked.sight).name(user_id) or msgspec.UNSET,
            board_id=board.board_id,
            score=score,
            rank=None if standing is None else standing.rank,
            count=board.ranked,
            percentile=None if standing is None else _percentile(standing.rank, board.ranked),
            gap_to_next=None if standing is None else standing.ahead,
            updated_at=iso_ms(updated_ms),
            epoch=self._scoreboard.epoch,
            seq=board.seq,
            **period_fields(board.definition),
            **stale_fields(self._freshness),
        )
        return Response(200, _encode(answer), JSON, asked.headers)

    async def _past_score(self, asked: _Asked, past: PastPeriod) -> Response:
        board, user_id = asked.board, asked.user_id
        found = await self._periods.find(board.board_id, past, user_id)
        if found is None:
            raise _no_score(board.board_id, user_id)
        row, better = found
        count = self._periods.count(board.board_id, past)
        answer = ScoreAnswer(
            user_id=user_id,
            display_name=self._names.shown(asked.sight).name(user_id) or msgspec.UNSET,
            board_id=board.board_id,
            score=row.score,
            rank=row.rank,
            count=count,
            percentile=_percentile(row.rank, count),
            gap_to_next=None if better is None else abs(better.score - row.score),
            updated_at=iso_ms(row.updated_ms),
            epoch=self._scoreboard.epoch_of(past.seq),
            seq=past.seq,
            **past_fields(past),
            **stale_fields(self._freshness),
        )
        return Response(200, _encode(answer), JSON, asked.headers)

    async def around(self, request: Request, caller: Principal) -> Response:
        """Answer with a user's row, and up to `limit` neighbours on each side."""
        asked = await self._asked(request, caller, ("boardId", "limit"))
        if isinstance(asked, Response):
            return asked
        limit = limit_of(asked.values, bounds.AROUND_LIMIT_DEFAULT, bounds.AROUND_LIMIT_MAX)
        board, user_id, past = asked.board, asked.user_id, asked.past
        rows: Sequence[Row | FinalRow]
        if past is None:
            self._score(board, user_id)
            rows, fields, seq = board.around(user_id, limit), period_fields(board.definition), board.seq
        else:
            rows = await self._periods.around(board.board_id, past, user_id, limit)
            if not rows:
                raise _no_score(board.board_id, user_id)
            fields, seq = past_fields(past), past.seq
        answer = AroundAnswer(
            board_id=board.board_id,
            user_id=user_id,
            entries=entries_of(rows, self._names.shown(asked.sight)),
            epoch=self._scoreboard.epoch if past is None else self._scoreboard.epoch_of(seq),
            seq=seq,
            generated_at=iso_ms(self._clock_ms()),
            **fields,
            **stale_fields(self._freshness),
        )
        return Response(200, _encode(answer), JSON, asked.headers)

    async def _refusal(self, request: Request, caller: Principal, board_id: str) -> Response | None:
        """Give the answer about an inactive user to a caller who may not read it. Raises `Refused`."""
        if caller is not ANYBODY:
            return None
        found = await self._authenticator.authenticate(request.headers.get("authorization"))
        if isinstance(found, Principal) and found.may(READ):
            return None
        if isinstance(found, Response) and found.status >= 500:
            return found  # it is not known whether this caller may
        raise _no_score(board_id, request.path_params["userId"])

    def _board(self, values: dict[str, str]) -> Board:
        return served_board(self._scoreboard, self._checks, board_of(values))

    def _score(self, board: Board, user_id: str) -> tuple[int, int]:
        """A user's score and when it was reached, or 404."""
        score, updated_ms = board.score(user_id), board.updated_ms(user_id)
        if score is None or updated_ms is None:
            raise _no_score(board.board_id, user_id)
        return score, updated_ms


def served_board(scoreboard: Scoreboard, checks: RoleChecks, board_id: str) -> Board:
    """Give a board that this node serves. Raises `Refused`. A shard does not know which boards the others have."""
    board = scoreboard.board(board_id)
    checks.check_board(board_id)
    if board is None:
        raise _no_board(scoreboard)
    return board


def check_known(scoreboard: Scoreboard, checks: RoleChecks, board_id: str) -> None:
    """Refuse a board that never was, where one that is no longer served may be asked for. Raises `Refused`."""
    checks.check_board(board_id)
    if board_id not in scoreboard.boards:
        raise _no_board(scoreboard)


def _no_board(scoreboard: Scoreboard) -> Refused:
    return invalid("boardId", "There is no such board.", allowed=scoreboard.served())


def stale_fields(freshness: Freshness) -> dict[str, Any]:
    """Give the two more fields of a stale replica's answer."""
    age_ms = freshness.stale_ms()
    return {} if age_ms is None else {"stale": True, "age_ms": age_ms}


def past_fields(past: PastPeriod) -> dict[str, Any]:
    """Give the fields of an answer about a past period."""
    period = past.period
    return {"period": period.id} | ({} if period.ends_ms is None else {"ends_at": iso_ms(period.ends_ms)})


def _percentile(rank: int, count: int) -> float:
    """Give the percentage of the other ranked users who are behind this rank, to two digits; 100 for the only one."""
    return 100.0 if count == 1 else round(100 * (count - rank) / (count - 1), 2)


def _no_score(board_id: str, user_id: str) -> Refused:
    details = {"userId": user_id, "boardId": board_id}
    return Refused(404, "NOT_FOUND", "This user has no score on this board.", details)


def _stale_top(kept: KeptTop, age_ms: int, if_none_match: str | None) -> Response:
    """Answer with a top that has its age. Its ETag differs from the fresh top's."""
    etag = f'{kept.etag[:-1]}-stale"'
    headers = (("etag", etag), *NO_CACHE)
    if etag_matches(if_none_match, etag):
        return Response(304, headers=headers)
    return Response(200, b'%b,"stale":true,"ageMs":%d}' % (kept.full.body[:-1], age_ms), JSON, headers)
