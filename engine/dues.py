"""When something happens to the boards by themselves: a period ends, a board is frozen, the ranks are noted. Pure.

    dues = Dues(boards)                    `boards` is the scoreboard's own dict
    dues.next_ms(seq)                      the next such instant after the event `seq`, None if there is none
    dues.note_ms(seq)                      the instant at which the ranks are noted next
    dues.stale = True                      after an event about a board: the instants are found again when asked for

Invariants:
- `noted` is the seq and the time of the last note of the ranks.
- Before the first event about a board nothing is due: boards that only the operator's file defines do nothing.
- While nothing happens after a note, there is none to come, if none would change anything.
"""

from __future__ import annotations

from collections.abc import Mapping

from engine.board import Board
from engine.limits import NOTE_EVERY_MS


class Dues:
    """See above. O(boards) when asked for the first time after it became stale, else O(1): increments are many."""

    __slots__ = ("_boards", "_due_ms", "_note_due_ms", "_notes_settled", "noted", "stale")

    def __init__(self, boards: Mapping[str, Board]) -> None:
        self._boards = boards
        self.noted = (0, 0)
        self.stale = False
        self._due_ms: int | None = None
        self._note_due_ms: int | None = None  # if anything happens before it
        self._notes_settled = True

    def next_ms(self, seq: int) -> int | None:
        """Give the next instant at which something happens by itself."""
        if self.stale:
            self._find()
        due_ms, note_due_ms = self._due_ms, self._note_due_ms
        if note_due_ms is None or (due_ms is not None and due_ms < note_due_ms):
            return due_ms
        return due_ms if seq == self.noted[0] and self._notes_settled else note_due_ms

    def note_ms(self, seq: int) -> int | None:
        """Give the instant at which the ranks are noted next, None if nothing happened that a note would tell."""
        if self.stale:
            self._find()
        return None if seq == self.noted[0] and self._notes_settled else self._note_due_ms

    def note(self, seq: int, time_ms: int) -> None:
        """Take over that the ranks were noted."""
        self.noted, self.stale = (seq, time_ms), True

    def correct(self, time_ms: int) -> None:
        """Let the last note not lie in the future after a correction of the clock."""
        self.note(self.noted[0], min(self.noted[1], time_ms))

    def _find(self) -> None:
        definitions = [board.definition for board in self._boards.values() if board.definition is not None]
        dues = [definition.due_ms for definition in definitions]
        self._due_ms = min((due_ms for due_ms in dues if due_ms is not None), default=None)
        noting = [board for board in self._boards.values() if board.needs_notes]
        begun_ms = min((board.definition.begun_ms for board in noting if board.definition is not None), default=None)
        self._note_due_ms = None if begun_ms is None else max(begun_ms, self.noted[1]) + NOTE_EVERY_MS
        self._notes_settled = all(board.notes_settled for board in noting)
        self.stale = False
