"""Editions: the first ten rows of a board at one position, each message encoded once for all viewers. Pure.

A viewer remembers only the number of its edition. So a slow viewer needs no queue, and never gets what it missed.

    published ──┬── (an edition only for viewers that connected or caught up between two ticks)
                └── newest      delta = newest − published

Rules:
- The editions of a channel are numbered 1, 2, 3 … NO_EDITION stands for a viewer that has none yet.
- An edition has the board's position, as every other answer about the board. Points below the first ten rows move it
  too, but a tick publishes only when the rows changed.
- `newest` makes an edition only if the board has changed since the last one; otherwise it costs a few comparisons.
- A delta goes from the last published edition to the newest one. Only a viewer that has exactly that edition gets it.
- When a period ended, a viewer gets its last rows (`scoreboard_period`) and a snapshot, whatever it takes otherwise. If
  several ended between two ticks, it hears of the last one.
- A delta does not cross epochs: after a restore the same seq may mean other rows.
- An edition keeps of its base only what the delta needs, so old editions do not keep each other in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from engine.board import Board
from engine.ranking import TOP_WATCHED
from engine.scoreboard import Scoreboard
from server.http.websocket import text_frame
from server.live import encoding, events
from server.live.board_view import BoardView
from server.live.encoding import Moment, Rows
from server.live.names import NameForm

NO_EDITION = 0

SNAPSHOT = "snapshot"
UPDATE = "update"
DELTA = "delta"
USER = "user"


class Shown(msgspec.Struct, frozen=True, gc=False):
    """A message as the bytes of its frame, and what kind it is."""

    kind: str
    frame: bytes


class AnyEdition(Protocol):
    """An edition as its viewers need it."""

    number: int

    def is_known(self, known: str | None) -> bool:
        """Whether a client whose last event had this id has all of this edition. Raises `Refused` for a wrong one."""

    def for_viewer(self, has: int, *, deltas: bool, as_event: bool = False) -> Shown:
        """Give the message that brings a viewer from the edition `has` to this one."""


class AnyChannel(Protocol):
    """The editions of what some viewers watch."""

    view: BoardView

    @property
    def published(self) -> AnyEdition: ...
    @property
    def is_behind(self) -> bool: ...
    def newest(self) -> AnyEdition: ...
    def publish(self) -> AnyEdition: ...


class Edition:
    """One edition. Each of its messages is encoded when it is first needed."""

    __slots__ = ("_age_ms", "_base", "_ended", "_messages", "_moment", "number", "rows", "stale", "top10_seq")

    def __init__(
        self,
        number: int,
        rows: Rows,
        moment: Moment,
        *,
        top10_seq: int,
        base: Edition | None,
        age_ms: int | None = None,
        ended: tuple[int, bytes] | None = None,
    ) -> None:
        """`ended` is the message about the last period that ended, and the number of the first edition after that."""
        self.number = number
        self.rows = rows
        self.top10_seq = top10_seq
        self.stale = age_ms is not None
        self._age_ms = age_ms
        self._moment = moment
        self._ended = ended
        is_basis = base is not None and base.epoch == moment.epoch and (ended is None or base.number >= ended[0])
        self._base = (base.number, base.seq, base.rows) if base is not None and is_basis else None
        self._messages: dict[tuple[str, bool, bool], Shown] = {}

    @property
    def epoch(self) -> int:
        return self._moment.epoch

    @property
    def seq(self) -> int:
        return self._moment.seq

    @property
    def identity(self) -> str:
        """The id of the event that shows this edition."""
        return events.identity(self._moment.epoch, self._moment.seq, self._moment.history)

    def is_known(self, known: str | None) -> bool:
        """Whether a client whose last event had this id has all of this edition."""
        return known == self.identity and not self.stale

    def for_viewer(self, has: int, *, deltas: bool, as_event: bool = False) -> Shown:
        """Give the message that brings a viewer from the edition `has` to this one.

        `as_event`: as a server-sent event, else as a frame of a WebSocket.
        """
        if self._ended is not None and NO_EDITION < has < self._ended[0]:
            return self._shown(SNAPSHOT, as_event, after_period=True)
        if has != NO_EDITION and not deltas:
            return self._shown(UPDATE, as_event)
        if self._base is not None and self._base[0] == has:
            return self._shown(DELTA, as_event)
        return self._shown(SNAPSHOT, as_event)

    def _shown(self, kind: str, as_event: bool, *, after_period: bool = False) -> Shown:
        shown = self._messages.get((kind, as_event, after_period))
        if shown is None:
            message = self._aged(self._encode(kind))
            frame = events.event(message, self.identity) if as_event else text_frame(message)
            if after_period:
                assert self._ended is not None
                last = self._aged(self._ended[1])
                frame = (events.event(last) if as_event else text_frame(last)) + frame
            shown = self._messages[kind, as_event, after_period] = Shown(kind, frame)
        return shown

    def _aged(self, text: bytes) -> bytes:
        """Add the age of stale data to a message."""
        return text if self._age_ms is None else b'%b,"stale":true,"ageMs":%d}' % (text[:-1], self._age_ms)

    def _encode(self, kind: str) -> bytes:
        if kind == DELTA:
            assert self._base is not None
            _, base_seq, base_rows = self._base
            return encoding.delta_message(base_rows, self.rows, base_seq, self._moment)
        if kind == SNAPSHOT:
            return encoding.snapshot_message(self.rows, self._moment)
        return encoding.update_message(self.rows, self._moment)


class Channel:
    """The editions of one board. What it shows is looked up for each: a fetched snapshot and a freeze change that."""

    def __init__(
        self,
        view: BoardView,
        scoreboard: Scoreboard,
        now_ms: Callable[[], int],
        stale_ms: Callable[[], int | None] = lambda: None,
        form: NameForm = "shown",
    ) -> None:
        self.view = view
        self._form = form
        self._stale_ms = stale_ms
        self._scoreboard = scoreboard
        self._now_ms = now_ms
        final = self._board.final
        self._final_seq = 0 if final is None else final.past.seq
        self._ended: tuple[int, bytes] | None = None
        self._newest = self._published = self._make(NO_EDITION + 1, None)

    @property
    def _board(self) -> Board:
        return self.view.ranking(self._scoreboard)

    @property
    def published(self) -> Edition:
        """The edition of the last tick."""
        return self._published

    @property
    def is_behind(self) -> bool:
        """Whether the rows or the staleness changed since the last tick."""
        published = self._published
        return published.top10_seq != self._board.top10_seq or published.stale != (self._stale_ms() is not None)

    def newest(self) -> Edition:
        """Give the edition of the board as it is now."""
        newest = self._newest
        is_stale = self._stale_ms() is not None
        if newest.seq != self._board.seq or newest.epoch != self._scoreboard.epoch or newest.stale != is_stale:
            newest = self._newest = self._make(newest.number + 1, self._published)
        return newest

    def publish(self) -> Edition:
        """Give the newest edition, and make it the base of the next delta."""
        self._published = self.newest()
        return self._published

    def _make(self, number: int, base: Edition | None) -> Edition:
        board, scoreboard = self._board, self._scoreboard
        names = self.view.names(scoreboard, self._form)
        rows = encoding.entries_of(board.top(TOP_WATCHED), names)
        moment = Moment(
            board.board_id, scoreboard.epoch, board.seq, self._now_ms(), encoding.about(board.definition),
            scoreboard.mark.history,
        )  # fmt: skip
        final = board.final
        if final is not None and final.past.seq > self._final_seq:
            self._final_seq = final.past.seq
            last = encoding.entries_of(final.rows, names)
            following = None if moment.about.over else moment.about.period
            self._ended = (number, encoding.period_message(final.past, last, following, moment))
        return Edition(
            number, rows, moment, top10_seq=board.top10_seq, base=base, age_ms=self._stale_ms(), ended=self._ended
        )
