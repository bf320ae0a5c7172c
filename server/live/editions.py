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
- A delta does not cross epochs: after a restore the same seq may mean other rows.
- An edition keeps of its base only what the delta needs, so old editions do not keep each other in memory.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from engine.board import TOP_WATCHED, Board
from engine.scoreboard import Scoreboard
from server.http.websocket import text_frame
from server.live import encoding
from server.live.encoding import Rows

NO_EDITION = 0

SNAPSHOT = "snapshot"
UPDATE = "update"
DELTA = "delta"
USER = "user"


class Shown(msgspec.Struct, frozen=True, gc=False):
    """A message as the bytes of its frame, and what kind it is."""

    kind: str
    frame: bytes


class Edition:
    """One edition. Each of its messages is encoded when it is first needed."""

    __slots__ = (
        "_age_ms", "_base", "_board_id", "_generated_ms", "_history", "_messages", "epoch", "number", "rows", "seq",
        "stale", "top10_seq",
    )  # fmt: skip

    def __init__(
        self,
        number: int,
        board: Board,
        epoch: int,
        rows: Rows,
        generated_ms: int,
        base: Edition | None,
        age_ms: int | None = None,
        history: str = "",
    ) -> None:
        self.number = number
        self.epoch = epoch
        self.seq = board.seq
        self.top10_seq = board.top10_seq
        self.rows = rows
        self.stale = age_ms is not None
        self._age_ms = age_ms
        self._history = history
        self._board_id = board.board_id
        self._generated_ms = generated_ms
        self._base = (base.number, base.seq, base.rows) if base is not None and base.epoch == epoch else None
        self._messages: dict[str, Shown] = {}

    def for_viewer(self, has: int, *, deltas: bool) -> Shown:
        """Give the message that brings a viewer from the edition `has` to this one."""
        if has != NO_EDITION and not deltas:
            return self._shown(UPDATE)
        if self._base is not None and self._base[0] == has:
            return self._shown(DELTA)
        return self._shown(SNAPSHOT)

    def _shown(self, kind: str) -> Shown:
        if kind not in self._messages:
            text = self._encode(kind)
            if self._age_ms is not None:
                text = b'%b,"stale":true,"ageMs":%d}' % (text[:-1], self._age_ms)
            self._messages[kind] = Shown(kind, text_frame(text))
        return self._messages[kind]

    def _encode(self, kind: str) -> bytes:
        board_id, epoch, seq, generated_ms = self._board_id, self.epoch, self.seq, self._generated_ms
        if kind == DELTA:
            assert self._base is not None
            _, base_seq, base_rows = self._base
            return encoding.delta_message(base_rows, self.rows, board_id, epoch, base_seq, seq, generated_ms)
        if kind == SNAPSHOT:
            return encoding.snapshot_message(self.rows, board_id, epoch, seq, generated_ms, self._history)
        return encoding.update_message(self.rows, board_id, epoch, seq, generated_ms)


class Channel:
    """The editions of one board, which is looked up for each: a replica replaces its boards with a new snapshot."""

    def __init__(
        self,
        board: Board,
        scoreboard: Scoreboard,
        now_ms: Callable[[], int],
        stale_ms: Callable[[], int | None] = lambda: None,
    ) -> None:
        self.board_id = board.board_id
        self._stale_ms = stale_ms
        self._scoreboard = scoreboard
        self._now_ms = now_ms
        self._newest = self._published = self._make(NO_EDITION + 1, None)

    @property
    def _board(self) -> Board:
        return self._scoreboard.boards[self.board_id]

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
        return Edition(
            number=number,
            board=self._board,
            epoch=self._scoreboard.epoch,
            rows=encoding.entries_of(self._board.top(TOP_WATCHED), self._scoreboard.users),
            generated_ms=self._now_ms(),
            base=base,
            age_ms=self._stale_ms(),
            history=self._scoreboard.mark.history,
        )
