"""GET /scoreboard/top?asOfSeq= and ?asOf=: the first rows of a board as they were after an event, or at a time.

    if asks_for_past(request.query):
        return await as_of.top(request, caller, board_id, limit)

Rules:
- It is for tokens with `scores:read`, also where reads are public, and shows what counted: no freeze hides it.
- The state at a seq never changes within one history, so answers are kept: PAST_KEPT_MAX of them, the ones that were
  used last. They are kept for PAST_KEPT_SECONDS only, because a correction of the clock changes what a time means. An
  erasure makes them void. A time that has not passed for the log yet is not kept.
- The reading is done elsewhere (`server.past`). A node without a log refuses.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from datetime import UTC, datetime
from typing import NamedTuple

import structlog

from engine.errors import Overloaded
from engine.limits import SEQ_MAX
from server import bounds
from server.access.auth import ANYBODY, Principal, require
from server.api.dependencies import Dependencies, Past
from server.api.routes import LIVE_VIEW
from server.http.messages import JSON, NO_STORE, RETRY_SOON, Refused, Request, Response, invalid
from server.http.target import query_values
from server.metrics import LONG_READS
from server.past.questions import Failed, NoBoard, NotKept, Question, Reply

AS_OF = ("asOfSeq", "asOf")
"""The parameters that ask for the past."""

PAST = LONG_READS[1]

_OTHERS = ("period", "view", "minSeq", "minEpoch")
_SEQ = re.compile(r"[1-9][0-9]{0,15}")
_NO_TIME = "asOf must be a time such as 2025-12-15T12:34:56Z (a + is sent as %2B), or ms since 1970."
_MS = re.compile(r"[0-9]{1,15}")

log = structlog.get_logger()


class _Key(NamedTuple):
    history: str
    erasures: int
    question: Question


def asks_for_past(query: str) -> bool:
    """Whether a query asks for the past. Raises `Refused`."""
    return bool(query) and bool(query_values(query, AS_OF))


class AsOf:
    """Answers about the past."""

    def __init__(self, dependencies: Dependencies) -> None:
        self._scoreboard = dependencies.scoreboard
        self._authenticator = dependencies.authenticator
        self._checks = dependencies.checks
        self._past = dependencies.past
        self._metrics = dependencies.metrics
        self._asking = 0
        self._erasing = dependencies.erasing
        self._clock_ms = dependencies.clock_ms
        self._clock_s = dependencies.clock_s
        self._kept: OrderedDict[_Key, tuple[Response, float]] = OrderedDict()

    async def top(self, request: Request, caller: Principal, board_id: str, limit: int) -> Response:
        """Answer with the first rows. Raises `Refused`, `Overloaded`."""
        found: Principal | Response = caller
        if caller is ANYBODY:
            found = await self._authenticator.authenticate(request.headers.get("authorization"))
        if isinstance(found, Response):
            return found
        if (lacking := require(found, LIVE_VIEW)) is not None:
            return lacking.response()
        question = self._question(request.query, board_id, limit)
        if self._past is None:
            raise self._checks.no_past()
        key = _Key(self._scoreboard.mark.history, self._scoreboard.erasures.count, question)
        kept = self._recall(key)
        if kept is not None:
            return kept
        reply = await self._ask(self._past, question)
        return self._keep(key, self._response(reply, question))

    async def _ask(self, past: Past, question: Question) -> Reply:
        since_s, metrics = self._clock_s(), self._metrics
        self._asking += 1
        metrics.long_reads_running(PAST, self._asking)
        try:
            return await past.ask(question)
        except Overloaded:
            metrics.long_read_refused(PAST)
            raise
        finally:
            self._asking -= 1
            metrics.long_reads_running(PAST, self._asking)
            metrics.long_read(PAST, self._clock_s() - since_s)

    def _question(self, query: str, board_id: str, limit: int) -> Question:
        """Read what is asked for. Raises `Refused`."""
        values = query_values(query, (*AS_OF, *_OTHERS))
        if len(values) > 1:
            [first, *_] = [name for name in AS_OF if name in values]
            other = next(name for name in values if name != first)
            raise invalid(other, f"{other} can't be given with {first}.")
        if "asOfSeq" in values:
            text, newest = values["asOfSeq"], self._scoreboard.seq
            if not _SEQ.fullmatch(text) or int(text) > SEQ_MAX:
                raise invalid("asOfSeq", f"asOfSeq must be a whole number from 1 to {SEQ_MAX}.")
            if int(text) > newest:
                raise invalid("asOfSeq", f"asOfSeq is ahead of this node, which is at seq {newest}.", seq=newest)
            return Question(board_id, limit, seq=int(text), erased=self._erased())
        time_ms = _moment(values["asOf"])
        if time_ms > self._clock_ms():
            raise invalid("asOf", "asOf is in the future.")
        return Question(board_id, limit, time_ms=time_ms, erased=self._erased())

    def _erased(self) -> tuple[tuple[str, int], ...]:
        """List the users who must not be shown, though the files may still have them."""
        erasures = {} if self._erasing is None else self._erasing.unsettled.erasures
        return tuple((user_id, each[-1][0]) for user_id, each in erasures.items())

    def _response(self, reply: Reply, question: Question) -> Response:
        """Make the answer. Raises `Refused`."""
        field = "asOf" if question.seq is None else "asOfSeq"
        if isinstance(reply, NotKept):
            message = "Snapshots and log no longer go back so far."
            raise Refused(410, "NO_LONGER_KEPT", message, {"field": field})
        if isinstance(reply, NoBoard):
            message = f"There was no board {question.board_id!r} at seq {reply.seq}."
            raise Refused(404, "NOT_FOUND", message, {"boardId": question.board_id, "seq": reply.seq})
        if isinstance(reply, Failed):
            log.error("past_unreadable", board_id=question.board_id, seq=question.seq, reason=reply.reason)
            message = "The past can't be read on this node; its log says why."
            raise Refused(503, "PAST_UNAVAILABLE", message, {"field": field}, RETRY_SOON)
        return Response(200, bytes(reply.body), JSON, NO_STORE)

    def _recall(self, key: _Key) -> Response | None:
        kept = self._kept.get(key)
        if kept is None:
            return None
        if self._clock_s() >= kept[1]:
            del self._kept[key]
            return None
        self._kept.move_to_end(key)
        return kept[0]

    def _keep(self, key: _Key, response: Response) -> Response:
        time_ms = key.question.time_ms
        if time_ms is None or time_ms < self._scoreboard.time_ms:
            self._kept[key] = response, self._clock_s() + bounds.PAST_KEPT_SECONDS
            while len(self._kept) > bounds.PAST_KEPT_MAX:
                self._kept.popitem(last=False)
        return response


def _moment(text: str) -> int:
    """Read a time: ISO 8601, UTC unless it says otherwise, or ms since 1970. Raises `Refused`."""
    if _MS.fullmatch(text):
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        return round(moment.timestamp() * 1000)
    except (ValueError, OverflowError):
        raise invalid("asOf", _NO_TIME) from None
