"""What the public sees of a board that is frozen. Pure.

    board.frozen = FrozenBoard.of(board)               while it is frozen
    done = board.frozen.reveal(board, 1, seq)          the last row that was not revealed yet, as it is now

What the operator does to users holds here too: names, and who is shown. Only scores stand still.

Invariants, beside those of a board:
- `revealed` are the slots whose scores are those that the board had at a reveal.
- Users who came after the freeze get a slot here when they are revealed, another one than on the board.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from engine.board import Board
from engine.board_rules import BoardDefinition
from engine.image import BoardImage
from engine.keys import SCORE_SHIFT, SLOT_MASK
from engine.steps import Moved


class FrozenBoard(Board):
    """A board as it was at its freeze, but for the rows that were revealed since."""

    def __init__(self, board_id: str, definition: BoardDefinition | None = None, *, is_logged: bool = True) -> None:
        super().__init__(board_id, definition, is_logged=is_logged)
        self.revealed: set[int] = set()
        # Found out when the first row is revealed:
        self._newcomers: set[int] = set()  # slots on the board of users who are not here
        self._scanned_ids = self._ids  # of the board
        self._scanned = 0  # slots of the board below this one were looked at for newcomers
        self._bottom = 0  # rows at the end of the order that are all revealed

    @classmethod
    def of(cls, board: Board) -> FrozenBoard:
        """Copy what a board shows now: some 50 ms for a million users."""
        copy = cls(board.board_id, board.definition)
        copy.seq, copy.top10_seq, copy.final = board.seq, board.top10_seq, board.final
        copy._slots, copy._hidden = board._slots.copy(), board._hidden.copy()
        copy._scores, copy._reached, copy._updated = board._scores[:], board._reached[:], board._updated[:]
        copy._order = None if board._order is None else board._order.clone()
        copy._tiers = None if board._tiers is None else board._tiers.clone()
        copy.past_ranks = board.past_ranks
        return copy

    def reveal(self, board: Board, step: int, seq: int) -> bool:
        """Show the next rows as they are on the board, from the last place up; tell whether all are shown now.

        First come the users who are not here yet, then the rows from the last one up. A row that was revealed may have
        moved up: then the one that came to its place is next.
        """
        if self._order is None:  # in a replay
            board.end_replay()  # and ours
        for _ in range(step):
            user_id = self._next_to_reveal(board)
            if user_id is None:
                break
            self._show_as_on(board, user_id)
        self.seq = self.top10_seq = seq
        return self._next_to_reveal(board) is None

    def hide(self, user_id: str, seq: int) -> None:
        super().hide(user_id, seq)
        self._bottom = 0

    def show(self, user_id: str, seq: int) -> None:
        super().show(user_id, seq)
        self._bottom = 0

    def leave(self, user_ids: Sequence[str], seq: int) -> list[Moved]:
        revealed = [self._ids[slot] for slot in self.revealed]
        moves = super().leave(user_ids, seq)
        self.revealed = {slot for user_id in revealed if (slot := self._slots.get(user_id)) is not None}
        self._bottom = 0
        return moves

    def capture(self) -> BoardImage:
        flags = bytearray(len(self._ids))
        for slot in self.revealed:
            flags[slot] = 1
        return replace(super().capture(), revealed=bytes(flags))

    @classmethod
    def from_image(cls, image: BoardImage, inactive: Iterable[str], *, owned: bool = False) -> FrozenBoard:
        board = cls(image.board_id, image.definition)
        board._fill(image, inactive, owned)
        board.revealed = {slot for slot, flag in enumerate(image.revealed) if flag}
        return board

    def _next_to_reveal(self, board: Board) -> str | None:
        if self._scanned_ids is not board._ids:  # users left the board, and others have their slots
            self._scanned_ids, self._scanned, self._newcomers = board._ids, 0, set()
        for slot in range(self._scanned, len(board._ids)):
            if board._ids[slot] not in self._slots:
                self._newcomers.add(slot)
        self._scanned = len(board._ids)
        shown = [slot for slot in self._newcomers if slot not in board._hidden]
        if shown:
            return board._ids[max(shown, key=board._key)]
        order = self._ranked()
        while self._bottom < len(order):
            slot = order[len(order) - 1 - self._bottom] & SLOT_MASK
            if slot not in self.revealed:
                return self._ids[slot]
            self._bottom += 1
        return None

    def _show_as_on(self, board: Board, user_id: str) -> None:
        """Take over a user's score, and when it was reached. A user who left the board since leaves here too."""
        order, theirs, slot = self._ranked(), board._slots.get(user_id), self._slots.get(user_id)
        if theirs is None:
            self.leave([user_id], self.seq)
            return
        self._newcomers.discard(theirs)
        if slot is None:
            slot = self._slots.add(user_id)
            for column in (self._scores, self._reached, self._updated):
                column.append(0)
        else:
            old = self._key(slot)
            self._note(slot, old)
            order.remove(old)
            if self._tiers is not None:
                self._tiers.remove(old >> SCORE_SHIFT)
        self._scores[slot] = board._scores[theirs]
        self._reached[slot] = board._reached[theirs]
        self._updated[slot] = board._updated[theirs]
        self._enter(slot, self.seq)
        self.revealed.add(slot)
