"""Walks over a whole board, page by page, each in the order of one moment.

    page = walks.begin(board, mark, 1_000, now_s)            the first rows; a cursor if there are more
    page = walks.resume(cursor, board, 1_000, now_s)         the next ones; raises `Refused` with 410

Rules:
- A walk pins the order of its board (`engine.pinned`). So each user who was ranked at its beginning is listed once,
  with the rank and the score of that moment.
- A cursor holds all of its place, so it may be used again and gives the same rows. It is signed with a key that is
  drawn at the start of the process: nobody makes one up, and one of another node is refused.
- A walk ends when it was not asked for WALK_IDLE_SECONDS, when its board changed too much, and with the process.
- Walks of one board that begin within WALK_SHARED_SECONDS share an order, but for callers that name a position.
- At most WALKS_MAX orders are pinned. The one that was unused for longest makes room, but none that was begun within
  WALK_SHARED_SECONDS: then a new walk is refused, so nobody can end the walks of others at will.
"""

from __future__ import annotations

import secrets

import msgspec
from itsdangerous import BadData, URLSafeSerializer

from engine.board import Board
from engine.history import EpochMark
from engine.pinned import PinnedOrder
from engine.ranking import Row
from server import bounds
from server.http.messages import Refused, invalid, overloaded


class Page(msgspec.Struct, frozen=True):
    """Rows of a walk. `cursor` leads to the next ones, None after the last."""

    rows: list[Row]
    count: int
    mark: EpochMark
    seq: int
    cursor: str | None


class _Walk:
    """A pinned order, and when it was used."""

    __slots__ = ("begun_s", "board", "mark", "number", "pinned", "used_s")

    def __init__(self, number: int, board: Board, mark: EpochMark, now_s: float) -> None:
        self.number = number
        self.board = board
        self.mark = mark
        self.pinned: PinnedOrder = board.pin()
        self.begun_s = self.used_s = now_s


class Walks:
    """The walks of one node. `now_s` is of a clock that never goes back."""

    def __init__(self) -> None:
        self._signer = URLSafeSerializer(secrets.token_bytes(32), salt="cursor")
        self._walks: dict[int, _Walk] = {}
        self._begun = 0

    def begin(self, board: Board, mark: EpochMark, limit: int, now_s: float, *, newest: bool = False) -> Page:
        """Give the first page; `newest`: of no earlier moment than now. Raises `Refused`.

        Nothing is pinned where one page has all rows.
        """
        if board.ranked <= limit:
            return Page(board.top(limit), board.ranked, mark, board.seq, None)
        self._sweep(now_s)
        walk = self._shared(board, mark, now_s, newest=newest)
        if walk is None:
            self._make_room(now_s)
            self._begun += 1
            walk = self._walks[self._begun] = _Walk(self._begun, board, mark, now_s)
        return self._page(walk, 0, None, limit, now_s)

    def resume(self, cursor: str, board: Board, limit: int, now_s: float) -> Page:
        """Give the page that a cursor leads to. Raises `Refused`."""
        self._sweep(now_s)
        try:
            board_id, number, position, rank, key = self._signer.loads(cursor)
        except (BadData, ValueError):
            raise _expired() from None
        if board_id != board.board_id:
            raise invalid("cursor", f"The cursor is of the board {board_id!r}.")
        walk = self._walks.get(number)
        if walk is None or walk.board is not board:
            raise _expired()
        return self._page(walk, position, (rank, key), limit, now_s)

    def past_cursor(self, board_id: str, seq: int, position: int) -> str:
        """Make the cursor that leads on in a past period, which never changes and pins nothing."""
        cursor = self._signer.dumps((board_id, seq, position))
        assert isinstance(cursor, str)
        return cursor

    def past_place(self, cursor: str, board_id: str, seq: int) -> int:
        """Give the position of such a cursor. Raises `Refused` if it is of another period, or no such cursor."""
        try:
            of_board, of_seq, position = self._signer.loads(cursor)
        except (BadData, ValueError):
            raise _expired() from None
        if (of_board, of_seq) != (board_id, seq):
            raise invalid("cursor", "The cursor is of another board or period.")
        return int(position)

    def _page(self, walk: _Walk, position: int, before: tuple[int, int] | None, limit: int, now_s: float) -> Page:
        """Give the rows from this position on. `before` is the rank and the key of the row before."""
        walk.used_s = now_s
        keys = walk.pinned.keys_after(None if before is None else before[1], limit)
        rows = walk.board.rows_of(keys, position, before, walk.pinned.past_ranks)
        position += len(keys)
        cursor = None
        if position < walk.pinned.count:
            cursor = self._signer.dumps((walk.board.board_id, walk.number, position, rows[-1].rank, keys[-1]))
        assert isinstance(cursor, str | None)
        return Page(rows, walk.pinned.count, walk.mark, walk.pinned.seq, cursor)

    def _shared(self, board: Board, mark: EpochMark, now_s: float, *, newest: bool) -> _Walk | None:
        """Give a walk that a new one may share."""
        for walk in self._walks.values():
            is_young = now_s - walk.begun_s < bounds.WALK_SHARED_SECONDS and not newest
            if walk.board is board and walk.mark == mark and (is_young or walk.pinned.seq == board.seq):
                return walk
        return None

    def _sweep(self, now_s: float) -> None:
        """Drop what ended."""
        for walk in list(self._walks.values()):
            if walk.pinned.ended or now_s - walk.used_s >= bounds.WALK_IDLE_SECONDS:
                self._drop(walk)

    def _make_room(self, now_s: float) -> None:
        if len(self._walks) < bounds.WALKS_MAX:
            return
        walk = min(self._walks.values(), key=lambda one: one.used_s)
        if now_s - walk.begun_s < bounds.WALK_SHARED_SECONDS:
            raise overloaded("Too many lists of boards were begun at once. Try again later.")
        self._drop(walk)

    def _drop(self, walk: _Walk) -> None:
        walk.board.unpin(walk.pinned)
        del self._walks[walk.number]


def _expired() -> Refused:
    message = "This cursor has expired, or is another node's. Begin again without a cursor."
    return Refused(410, "CURSOR_EXPIRED", message, {"field": "cursor"})
