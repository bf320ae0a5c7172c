"""What a delivery that the log calls for says: a period ended, a user was flagged, a user was erased.

    telling = Telling(scoreboard, log, periods, unsettled)
    made = await telling.of(due)            its id and body; None: there is nothing to tell any more
    is_hidden(scoreboard, due)              whether it must wait for the end of a freeze

Rules:
- A period's rows are those that GET /scoreboard/top gives of it, with the corrections that were made since.
- A review of a user who was erased is gone, and so is one that was decided so long ago that nobody keeps it.
- An erasure names its user as long as the files of this node do: the receiver can't forget whom it is not told. It is
  the one delivery that names an erased user.
"""

from __future__ import annotations

from contextlib import suppress

import structlog

from engine.board_rules import PastPeriod
from engine.errors import LogDamaged
from engine.events import Event, PeriodChanged, UserErased
from engine.ranking import TOP_WATCHED, FinalRow
from engine.scoreboard import Scoreboard
from engine.unsettled import Unsettled
from server.api.periods import Periods
from server.http.messages import Refused
from server.live.board_view import BoardView
from server.live.encoding import Rows, entries_of
from server.live.names import NameForm, Names
from server.settings.webhooks import PERIOD_ENDED, REVIEW_FLAGGED, USER_ERASED
from server.webhooks.cursor import Due
from server.webhooks.payloads import ErasedData, envelope, id_of, period_data, review_data
from server.webhooks.rare_events import ReadableLog, event_of

Made = tuple[str, bytes]
"""The id and the body of a delivery."""

log = structlog.get_logger()


def is_hidden(scoreboard: Scoreboard, due: Due) -> bool:
    """Whether a delivery is about what a freeze hides: it came after the freeze, and the public does not see it."""
    board = scoreboard.boards.get(due.board_id) if due.board_id else None
    if board is None or board.definition is None or board.definition.frozen is None:
        return False
    return due.seq > board.definition.frozen.seq


class Telling:
    """See above. `form` is that of the names which the public sees."""

    def __init__(
        self, scoreboard: Scoreboard, log_: ReadableLog, periods: Periods, unsettled: Unsettled, form: NameForm
    ) -> None:
        self._scoreboard = scoreboard
        self._log = log_
        self._periods = periods
        self._unsettled = unsettled
        self._form = form

    async def of(self, due: Due) -> Made | None:
        """Give the id and the body of a delivery, as it is said now."""
        if due.kind == REVIEW_FLAGGED:
            return self._review(due)
        event = await self._event(due.seq)
        if isinstance(event, PeriodChanged):
            return await self._period(event)
        if isinstance(event, UserErased):
            return self._erasure(event)
        log.error("webhook_events_lost", seq=due.seq, reason="the log no longer has this event")
        return None

    async def _event(self, seq: int) -> Event | None:
        try:
            return await event_of(self._log, seq)
        except LogDamaged as damaged:
            log.error("webhook_log_unreadable", seq=seq, path=damaged.path, reason=damaged.what)
            return None

    def _review(self, due: Due) -> Made | None:
        review = self._scoreboard.reviews.get(f"{due.seq}-{due.place}")
        if review is None:
            return None
        epoch = self._scoreboard.epoch_of(due.seq)
        body = envelope(REVIEW_FLAGGED, review.time_ms, review_data(review, epoch))
        return id_of(epoch, due.seq, REVIEW_FLAGGED, str(due.place)), body

    async def _period(self, event: PeriodChanged) -> Made:
        epoch, count, rows = self._scoreboard.epoch_of(event.seq), 0, None
        board = self._scoreboard.boards[event.board_id]
        names = BoardView(event.board_id).names(self._scoreboard, self._form)
        definition = board.public.definition
        past = next((each for each in (definition.past if definition else ()) if each.seq == event.seq), None)
        if past is not None:
            count = self._periods.count(event.board_id, past)
            with suppress(Refused):  # it was told in the log why the file can't be read
                rows = self._left(await self._periods.top(event.board_id, past, TOP_WATCHED), event.seq, names)
        elif event.over:
            rows = entries_of(board.public.top(TOP_WATCHED), names)
        body = envelope(PERIOD_ENDED, event.time_ms, period_data(event, epoch, past, count, rows))
        return id_of(epoch, event.seq, PERIOD_ENDED), body

    async def final_rows(self, board_id: str, past: PastPeriod, count: int) -> list[FinalRow]:
        """Give the first rows of a past period; none if it can't be read, which is told in the log."""
        try:
            rows = await self._periods.top(board_id, past, count)
        except Refused:
            return []
        return [row for row in rows if self._unsettled.gone(row.user_id) <= past.seq]

    def _left(self, rows: list[FinalRow], seq: int, names: Names) -> Rows:
        """Give the rows of users who were not erased since. The files of periods forget them a moment later."""
        return entries_of((row for row in rows if self._unsettled.gone(row.user_id) <= seq), names)

    def _erasure(self, event: UserErased) -> Made:
        epoch = self._scoreboard.epoch_of(event.seq)
        named = (
            user_id
            for user_id, erasures in self._unsettled.erasures.items()
            if any(seq == event.seq for seq, _ in erasures)
        )
        body = envelope(USER_ERASED, event.time_ms, ErasedData(next(named, None), epoch, event.seq))
        return id_of(epoch, event.seq, USER_ERASED), body
