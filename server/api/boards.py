"""The routes about boards themselves: make, change, close, reset, freeze and reveal one; list them, or read one.

    admitted = boards.admit(request, caller)           form, calendar, limits → a command
    response = boards.render(admitted, outcome, caller)

Rules:
- What a board is, and which period runs, is public as its scores are. Its rules are for tokens with a scope of
  RULES_READ: what an action is worth may be a secret. Where reads are public no token was looked at before, so it is
  done here. A token that does not verify counts as none there.
- A write is charged to its caller as one action is. A form that is refused costs nothing.
- The tz database is read where a form is checked, and where its version is told: some 0.1 ms for each zone.
- PUT tells 201 if the log had no such board when the request was admitted. So of two requests that make a board in the
  same moment both may be told 201. `applied` is exact.
- A shard lists the boards that it holds, and knows of no others.
"""

from __future__ import annotations

from typing import Any

import msgspec

from engine.board import Board
from engine.calendar import tz_version
from engine.commands import (
    BoardCommand,
    BoardReceipt,
    CloseBoard,
    FreezeBoard,
    Outcome,
    PutBoard,
    Rejection,
    ResetBoard,
    RevealRows,
    UnfreezeBoard,
)
from server import bounds
from server.access.auth import ANYBODY, Principal
from server.access.rates import WriteLimits
from server.api.answers import (
    BoardAnswer,
    BoardChangedAnswer,
    BoardObject,
    BoardsAnswer,
    PastPeriodObject,
    PeriodsAnswer,
)
from server.api.decoding import check_content, decode_board, decode_freeze, decode_nothing, decode_reset, decode_reveal
from server.api.dependencies import Dependencies
from server.api.reads import stale_fields
from server.api.refusals import refused
from server.api.routes import RULES_READ
from server.api.views import Views
from server.http.messages import JSON, NO_CACHE, NO_STORE, Refused, Request, Response
from server.http.target import ids_of, query_values
from server.live.encoding import iso_ms, iso_or_none
from server.settings.board_form import form_of

_encode = msgspec.json.Encoder().encode

_DONE: dict[type[BoardCommand], str] = {
    CloseBoard: "closed",
    ResetBoard: "reset",
    FreezeBoard: "frozen",
    UnfreezeBoard: "unfrozen",
    RevealRows: "revealed",
}

Versions = dict[str, str]
"""The version of the tz database that serves a zone, by zone: asked for once in an answer."""


class AdmittedBoard(msgspec.Struct, frozen=True):
    """A command about a board. `is_new`: the log has no such board yet."""

    command: BoardCommand
    is_new: bool


class Boards:
    """Answers to /boards, /boards/{boardId} and its reset."""

    def __init__(self, dependencies: Dependencies, limits: WriteLimits) -> None:
        self._limits = limits
        self._scoreboard = dependencies.scoreboard
        self._checks = dependencies.checks
        self._freshness = dependencies.freshness
        self._authenticator = dependencies.authenticator
        self._audit = dependencies.audit
        self._clock_s = dependencies.clock_s
        self._views = Views(dependencies)

    # Reading

    async def boards(self, request: Request, caller: Principal) -> Response:
        """Answer with all boards, or with the one of the query."""
        if query_values(request.query, ("boardId",)):
            return await self._one(request, caller, ids_of(request.query, ("boardId",))["boardId"])
        shows_rules = await self._shows_rules(request, caller)
        if isinstance(shows_rules, Response):
            return shows_rules
        scoreboard, versions = self._scoreboard, Versions()
        if (refusal := await self._views.check(request, caller)) is not None:
            return refusal
        is_live = self._views.is_live(request)
        served = [scoreboard.boards[board_id] for board_id in scoreboard.served() if self._checks.holds(board_id)]
        answer = BoardsAnswer(
            boards=[
                BoardObject(**self._fields(board, versions, shows_rules=shows_rules, is_live=is_live))
                for board in served
            ],
            epoch=scoreboard.epoch,
            seq=scoreboard.seq,
            **stale_fields(self._freshness),
        )
        return Response(200, _encode(answer), JSON, NO_STORE if shows_rules else NO_CACHE)

    async def board(self, request: Request, caller: Principal) -> Response:
        """Answer with one board."""
        return await self._one(request, caller, request.path_params["boardId"])

    async def _one(self, request: Request, caller: Principal, board_id: str) -> Response:
        shows_rules = await self._shows_rules(request, caller)
        if isinstance(shows_rules, Response):
            return shows_rules
        self._checks.check_board(board_id)
        board = self._scoreboard.board(board_id)
        if board is None:
            raise Refused(404, "NOT_FOUND", "There is no such board.", {"boardId": board_id})
        if (refusal := await self._views.check(request, caller)) is not None:
            return refusal
        fields = self._fields(board, Versions(), shows_rules=shows_rules, is_live=self._views.is_live(request))
        answer = BoardAnswer(**fields, **stale_fields(self._freshness))
        return Response(200, _encode(answer), JSON, NO_STORE if shows_rules else NO_CACHE)

    async def _shows_rules(self, request: Request, caller: Principal) -> bool | Response:
        """Whether a caller may see rules. A response: it is not known yet."""
        authorization = request.headers.get("authorization")
        if caller is not ANYBODY or authorization is None:
            return caller.may(RULES_READ)
        found = await self._authenticator.authenticate(authorization)
        if isinstance(found, Response):
            return found if found.status >= 500 else False
        return found.may(RULES_READ)

    async def periods(self, request: Request, caller: Principal) -> Response:
        """Answer with the past periods of a board."""
        board_id = request.path_params["boardId"]
        self._checks.check_board(board_id)
        served = self._scoreboard.board(board_id)
        if served is None:
            raise Refused(404, "NOT_FOUND", "There is no such board.", {"boardId": board_id})
        board = await self._views.of(request, caller, served)
        if isinstance(board, Response):
            return board
        past = () if board.definition is None else board.definition.past
        answer = PeriodsAnswer(
            board_id=board_id,
            periods=[
                PastPeriodObject(
                    each.period.id, iso_ms(each.period.begins_ms), iso_or_none(each.period.ends_ms),
                    each.count if corrected is None else corrected.count, each.seq,
                    msgspec.UNSET if corrected is None else iso_ms(corrected.time_ms),
                )
                for each in reversed(past)
                for corrected in [self._scoreboard.reversals.of_past(board_id, each)]
            ],
            epoch=self._scoreboard.epoch,
            seq=board.seq,
            **stale_fields(self._freshness),
        )  # fmt: skip
        return Response(200, _encode(answer), JSON, NO_CACHE)

    def _fields(self, board: Board, versions: Versions, *, shows_rules: bool, is_live: bool = False) -> dict[str, Any]:
        """Give the fields of a board as it is now. Rules and plans are of now, also while the board is frozen."""
        present = board.definition
        board = board if is_live else board.public
        definition = board.definition
        assert present is not None
        assert definition is not None
        rules, period = definition.rules, definition.period
        begins_ms = definition.begun_ms if period is None else period.begins_ms
        ends_ms = None if period is None else period.ends_ms
        fields: dict[str, Any] = {
            "board_id": board.board_id,
            "title": rules.title,
            "score": rules.score,
            "order": rules.order,
            "ranks": rules.ranks,
            "starts_at": iso_ms(begins_ms) if begins_ms else None,
            "ends_at": iso_or_none(ends_ms),
            "over": definition.over,
            "closed": present.closed,
            "count": board.ranked,
            "epoch": self._scoreboard.epoch,
            "seq": board.seq,
        }
        if period is not None:
            fields["period"] = period.id
        if present.frozen is not None:
            fields |= {"frozen_at": iso_ms(present.frozen.time_ms), "revealed": present.frozen.revealed}
        if present.freeze_at_ms is not None:
            fields["freezes_at"] = iso_ms(present.freeze_at_ms)
        rules = present.rules
        if shows_rules:
            fields["rules"] = form_of(rules)
            if rules.schedule is not None:
                zone = rules.schedule.zone
                if zone not in versions:
                    versions[zone] = tz_version(zone)
                fields["tzdata"] = versions[zone]
        return fields

    # Writing

    def admit(self, request: Request, caller: Principal) -> AdmittedBoard:
        """Make the command of a request, and charge it to the caller. Raises `Refused`."""
        board_id = request.path_params["boardId"]
        known = self._scoreboard.boards.get(board_id)
        is_new = known is None or not known.is_logged
        command: BoardCommand
        if request.method == "DELETE":
            command = CloseBoard(board_id, caller.sub)
        else:
            check_content(request)
            if request.method == "PUT":
                command = PutBoard(board_id, decode_board(board_id, request.body), caller.sub)
                if known is None and len(self._scoreboard.boards) >= bounds.BOARDS_MAX:
                    message = f"There are {bounds.BOARDS_MAX} boards, and no more are made."
                    raise Refused(409, "CONFLICT", message, {"field": "boardId", "maximum": bounds.BOARDS_MAX})
            else:
                command = self._verb(request, board_id, caller)
        self._limits.pass_caller(caller.sub, self._clock_s())
        return AdmittedBoard(command, is_new)

    @staticmethod
    def _verb(request: Request, board_id: str, caller: Principal) -> BoardCommand:
        """Make the command of a POST, whose path ends with the verb."""
        verb = request.path.rpartition("/")[2]
        if verb == "freeze":
            return FreezeBoard(board_id, caller.sub, decode_freeze(request.body))
        if verb == "reveal":
            return RevealRows(board_id, decode_reveal(request.body), caller.sub)
        if verb == "unfreeze":
            decode_nothing(request.body)
            return UnfreezeBoard(board_id, caller.sub)
        assert verb == "reset"
        return ResetBoard(board_id, caller.sub, decode_reset(request.body))

    def render(self, admitted: AdmittedBoard, outcome: Outcome, caller: Principal) -> Response:
        """Answer with the board as it is now, and the position of the change. Raises `Refused`."""
        if isinstance(outcome, Rejection):
            raise refused(outcome)
        assert isinstance(outcome, BoardReceipt)
        made = outcome.applied and admitted.is_new
        if outcome.applied:
            what = _DONE.get(type(admitted.command), "made" if made else "changed")
            self._audit.board_changed(what, outcome, caller.sub)
        board = self._scoreboard.boards[outcome.board_id]
        fields = self._fields(board, Versions(), shows_rules=True, is_live=True)
        fields |= {"applied": outcome.applied, "epoch": outcome.epoch, "seq": outcome.seq}
        return Response(201 if made else 200, _encode(BoardChangedAnswer(**fields)), JSON, NO_STORE)
