"""GET /scores/{userId}/history: what the log says of a user, the newest first: why a score is what it is.

Rules:
- It is for tokens with `scores:read`, and for the user's own.
- A position in the log is the cursor. So a page never changes, on this node or another, and is never doubled.
- Times are those that events have in the log. A later correction of the clock may say that they were wrong.
- What a freeze hides from a caller on a board is left out, as in GET /actions/{actionId}.
- The log is read in a worker thread: READERS_MAX at once, each for one page and at most EVENTS_MAX events. A page may
  thus have fewer entries than asked for, even none, and lead on all the same.
- What was removed from the log is no longer known: `complete` is false then.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Sequence
from functools import partial
from itertools import islice

import msgspec
import trio
from msgspec import UNSET

from engine.errors import NoLongerKept, Overloaded
from engine.events import Event, Incremented, Reversed, ReviewDecided, ScoreImported
from engine.limits import SEQ_MAX
from engine.recount import boards_of
from engine.texts import id_fault
from engine.threads import run
from server import bounds
from server.access.auth import Principal, require
from server.api.answers import ReversedBy
from server.api.dependencies import Dependencies, LedgerReader, ReceiptLog
from server.api.history_forms import HistoryAnswer, history_entry
from server.api.reads import check_known, stale_fields
from server.api.routes import LIVE_VIEW
from server.http.messages import JSON, NO_STORE, Request, Response, invalid
from server.http.target import limit_of, query_values
from server.live.encoding import iso_ms

READERS_MAX = 2
WAITERS_MAX = 16
"""Pages that are read from the log at once, and requests that wait for that; others get 503."""

EVENTS_MAX = 10_000
"""Events that are looked at for one page: some 50 ms of a thread where none is on the board that was asked for."""

_CURSOR = re.compile(r"[1-9][0-9]{0,15}")
_encode = msgspec.json.Encoder().encode

Logged = tuple[int, Event]
"""The epoch of an event, and the event."""


class History:
    """Answers about the history of users."""

    def __init__(self, dependencies: Dependencies) -> None:
        self._scoreboard = dependencies.scoreboard
        self._checks = dependencies.checks
        self._freshness = dependencies.freshness
        self._log = dependencies.log
        self._ledger = dependencies.ledger
        self._readers = trio.CapacityLimiter(READERS_MAX)

    async def history(self, request: Request, caller: Principal) -> Response:
        """Answer with a page. Raises `Refused`, `Overloaded`."""
        page = await self.page(request, caller)
        return page if isinstance(page, Response) else Response(200, _encode(page), JSON, NO_STORE)

    async def page(self, request: Request, caller: Principal) -> HistoryAnswer | Response:
        """Read the page that a request asks for. A response refuses the caller. Raises `Refused`, `Overloaded`."""
        user_id = request.path_params["userId"]
        if caller.user != user_id and (lacking := require(caller, LIVE_VIEW)) is not None:
            return lacking.response()
        values = query_values(request.query, ("boardId", "limit", "cursor"))
        board_id, before = values.get("boardId"), _position(values.get("cursor"))
        if board_id is not None and (fault := id_fault(board_id)):
            raise invalid("boardId", f"boardId {fault}.")
        limit = limit_of(values, bounds.LIST_LIMIT_DEFAULT, bounds.LIST_LIMIT_MAX)
        if self._ledger is None:
            raise self._checks.no_past()
        if board_id is not None:
            check_known(self._scoreboard, self._checks, board_id)
        if self._readers.statistics().tasks_waiting >= WAITERS_MAX:
            raise Overloaded("too many histories are being read")
        hides = self._hidden_after(caller)
        read = partial(_read, self._ledger, user_id, before, limit, board_id, hides)
        found, following = await run(read, blocks=self._log.blocks, limiter=self._readers)
        held = {event.seq: self._held_back(event, hides) for _, event in found}
        reversals = sorted({seq for seq in held.values() if seq is not None})
        look_up = partial(_reversals, self._log, reversals)
        by = await run(look_up, blocks=self._log.blocks, limiter=self._readers) if reversals else {}
        oldest = self._ledger.oldest_seq
        return HistoryAnswer(
            user_id=user_id,
            entries=tuple(
                history_entry(epoch, event, user_id, by.get(held[event.seq] or 0, UNSET), self._held(event))
                for epoch, event in found
            ),
            next_cursor=None if following is None else str(following),
            complete=oldest == 1,
            oldest_seq=oldest,
            epoch=self._scoreboard.epoch,
            seq=self._scoreboard.seq,
            **stale_fields(self._freshness),
        )

    def _held_back(self, event: Event, hides: dict[str, tuple[int, str]]) -> int | None:
        """Give the reversal that holds an action back, as far as no freeze hides it."""
        seq = self._scoreboard.reversals.of_action(event.seq)
        if seq is None or not isinstance(event, Incremented):
            return seq
        is_hidden = any(seq > hides[board_id][0] for board_id in boards_of(event) if board_id in hides)
        return None if is_hidden else seq

    def _held(self, event: Event) -> Container[str]:
        """Give the boards that hold an action still."""
        return self._scoreboard.reviews.holds.boards_of(event) if isinstance(event, Incremented) else ()

    def _hidden_after(self, caller: Principal) -> dict[str, tuple[int, str]]:
        """Give the boards on which a freeze hides from this caller what came after a seq, but what it sent itself."""
        if caller.may(LIVE_VIEW):
            return {}
        definitions = ((board_id, board.definition) for board_id, board in self._scoreboard.boards.items())
        return {
            board_id: (definition.frozen.seq, caller.sub)
            for board_id, definition in definitions
            if definition is not None and definition.frozen is not None
        }


def _position(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    if not _CURSOR.fullmatch(cursor) or int(cursor) > SEQ_MAX:
        raise invalid("cursor", "cursor must be the nextCursor of a page.")
    return int(cursor)


def _read(
    ledger: LedgerReader, user_id: str, before: int | None, limit: int, board_id: str | None,
    hidden_after: dict[str, tuple[int, str]],
) -> tuple[list[Logged], int | None]:  # fmt: skip
    """Read a page, and the position that leads on; None: there is no more."""
    found: list[Logged] = []
    events: Iterator[Logged] = ledger.events_of(user_id, before_seq=before)
    last = None
    for epoch, event in islice(events, EVENTS_MAX):
        if len(found) == limit:
            return found, last
        last = event.seq
        boards = _boards(event, user_id)
        if board_id is not None and board_id not in boards:
            continue
        if not any(_hides(hidden_after.get(board), event) for board in boards):
            found.append((epoch, event))
    return found, last if last is not None and next(events, None) is not None else None


def _hides(frozen: tuple[int, str] | None, event: Event) -> bool:
    return frozen is not None and event.seq > frozen[0] and getattr(event, "caller", None) != frozen[1]


def _boards(event: Event, user_id: str) -> Sequence[str]:
    """Give the boards on which an event changed something for a user."""
    if isinstance(event, Incremented):
        return [*boards_of(event)]
    if isinstance(event, ScoreImported):
        return [event.board_id]
    if isinstance(event, Reversed | ReviewDecided):
        parts = event.scores + event.periods
        return [part.board_id for part in parts if any(row.user_id == user_id for row in part.rows)]
    return []


def _reversals(log: ReceiptLog, seqs: Sequence[int]) -> dict[int, ReversedBy]:
    """Read who took actions back. A reversal is later than its actions, so it is kept, unless it goes right now."""
    read: dict[int, ReversedBy] = {}
    for seq in seqs:
        try:
            frame, event = log.event_at(seq)
        except NoLongerKept:
            continue
        assert isinstance(event, Reversed), event
        time = iso_ms(event.time_ms)
        read[seq] = ReversedBy(event.reversal_id, event.reason, event.caller, frame.epoch, event.seq, time)
    return read
