"""What viewers of a board are shown: editions of its first ten rows, each encoded once for everybody. Pure.

An edition is the top of the board at one position. A viewer remembers only the number of the edition it has; so a slow
one holds no state of its own, and what it missed in between is never made up for.

    published ──┬── (an edition that only those got who connected, or caught up, between two ticks)
                └── newest      delta = newest − published

Rules:
- Editions of a channel are numbered from 1, and a later one has the higher number. 0 stands for "has none yet".
- An edition has the board's own position, the one that every other answer about this board has, so that a client may
  compare them. Points below the first ten rows move it too; a tick publishes only when the rows themselves changed.
- `newest` makes an edition only if the board has moved on since the last one; otherwise it costs two comparisons.
- A delta goes from the edition that the last tick published to the newest one, whatever was made in between; it suits
  only who has exactly that. It does not cross epochs: after a restore the same seq may mean other rows.
- An edition keeps of the one before it no more than the delta needs, so old editions do not hang on to each other.
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


class Shown(msgspec.Struct, frozen=True, gc=False):
    """A message as the bytes of its frame, and what kind it is."""

    kind: str
    frame: bytes


class Edition:
    """The first rows of a board at one position. Each of its messages is encoded when it is first wanted."""

    __slots__ = (
        "_age_ms",
        "_base",
        "_board_id",
        "_delta",
        "_generated_ms",
        "_snapshot",
        "_update",
        "epoch",
        "number",
        "rows",
        "seq",
        "stale",
        "top10_seq",
    )

    def __init__(
        self,
        number: int,
        board: Board,
        epoch: int,
        rows: Rows,
        generated_ms: int,
        base: Edition | None,
        age_ms: int | None = None,
    ) -> None:
        self.number = number
        self.epoch = epoch
        self.seq = board.seq
        self.top10_seq = board.top10_seq
        self.rows = rows
        self.stale = age_ms is not None
        self._age_ms = age_ms
        self._board_id = board.board_id
        self._generated_ms = generated_ms
        self._base = (base.number, base.seq, base.rows) if base is not None and base.epoch == epoch else None
        self._snapshot: Shown | None = None
        self._update: Shown | None = None
        self._delta: Shown | None = None

    def for_viewer(self, has: int, *, deltas: bool) -> Shown:
        """Give the message that brings a viewer from the edition `has` to this one."""
        if has == NO_EDITION:
            return self.snapshot()
        if not deltas:
            return self.update()
        if self._base is not None and self._base[0] == has:
            return self._from_base(self._base)
        return self.snapshot()

    def snapshot(self) -> Shown:
        """Give the message that a viewer begins with, or begins anew with."""
        if self._snapshot is None:
            text = encoding.snapshot_message(self.rows, self._board_id, self.epoch, self.seq, self._generated_ms)
            self._snapshot = self._shown(SNAPSHOT, text)
        return self._snapshot

    def update(self) -> Shown:
        """Give the message with all rows."""
        if self._update is None:
            text = encoding.update_message(self.rows, self._board_id, self.epoch, self.seq, self._generated_ms)
            self._update = self._shown(UPDATE, text)
        return self._update

    def _from_base(self, base: tuple[int, int, Rows]) -> Shown:
        if self._delta is None:
            _, base_seq, base_rows = base
            text = encoding.delta_message(
                base_rows, self.rows, self._board_id, self.epoch, base_seq, self.seq, self._generated_ms
            )
            self._delta = self._shown(DELTA, text)
        return self._delta

    def _shown(self, kind: str, text: bytes) -> Shown:
        if self._age_ms is not None:
            text = b'%b,"stale":true,"ageMs":%d}' % (text[:-1], self._age_ms)
        return Shown(kind, text_frame(text))


class Channel:
    """The editions of one board."""

    def __init__(
        self,
        board: Board,
        scoreboard: Scoreboard,
        now_ms: Callable[[], int],
        stale_ms: Callable[[], int | None] = lambda: None,
    ) -> None:
        """The board is looked up anew each time: a replica that begins from a new snapshot has others."""
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
        """Whether the board shows something that was not published yet."""
        published = self._published
        return published.top10_seq != self._board.top10_seq or published.stale != (self._stale_ms() is not None)

    def newest(self) -> Edition:
        """Give the edition of what the board shows now."""
        newest = self._newest
        is_stale = self._stale_ms() is not None
        if newest.seq != self._board.seq or newest.epoch != self._scoreboard.epoch or newest.stale != is_stale:
            newest = self._newest = self._make(newest.number + 1, self._published)
        return newest

    def publish(self) -> Edition:
        """Give the newest edition, and let the next delta begin with it."""
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
        )
