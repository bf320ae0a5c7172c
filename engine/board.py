"""One board: a ranking that events change.

    ranks = board.record_all(events, time_ms)                  the ranks before and after each event
    rows, rank = board.top(10), board.rank(user_id)            and the rest of `engine.ranking`

Invariants, beside those of a ranking (`engine.scored_ranking` says how its scores change):
- `_marks[slot]` is 0, or the mark of user, board and `marked_reason`: the first reason, and most boards have no other.
  It is a cache of 8 bytes a user, in no image, and shorter than the columns until marks are asked for.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence

import msgspec
import numpy as np

from engine.actions import mark_of
from engine.board_rules import BoardDefinition, PastPeriod
from engine.events import RanksNoted, Rescored
from engine.image import BoardImage
from engine.keys import SCORE_SHIFT, SLOT_MASK
from engine.past_ranks import LONG_MS, NOTED_ROWS, NOTHING, began_after
from engine.ranking import FinalRow, Ranking, ranking_of
from engine.scored_ranking import ScoredRanking
from engine.slots import NOBODY, Slots
from engine.steps import Moved


class Final(msgspec.Struct, frozen=True):
    """The last period that ended, and its first rows, for those who watch. In no image."""

    past: PastPeriod
    rows: Sequence[FinalRow]


Known = tuple[int, int, int]
"""The slot and score of a user, NOBODY and 0 before the first points; the mark of `marked_reason`, 0: not kept."""

NOBODY_KNOWN: Known = (NOBODY, 0, 0)


class Board(ScoredRanking):
    """A ranking that events change. A change is O(log users)."""

    def __init__(self, board_id: str, definition: BoardDefinition | None = None, *, is_logged: bool = False) -> None:
        """Without a definition only events named the board, and it is not served. `is_logged`: events defined it."""
        super().__init__(board_id, definition)
        self.is_logged = is_logged
        self.frozen: Board | None = None
        self.final: Final | None = None
        self._noted_at = 0  # `seq` at the last note
        self.marked_reason: str | None = None
        self._marks = array("Q")

    def look_up(self, user_id: str) -> Known:
        """Give what an action of this user needs to know."""
        slot = self._slots.get(user_id)
        if slot is None:
            return NOBODY_KNOWN
        return slot, self._scores[slot], self._marks[slot] if slot < len(self._marks) else 0

    def look_up_all(self, user_ids: Sequence[str]) -> Iterable[Known]:
        """Do the same for MANY users or more, which is much quicker for each."""
        return zip(*self.columns_of(user_ids), strict=True)

    def columns_of(self, user_ids: Sequence[str]) -> tuple[list[int], list[int], list[int]]:
        """Do the same for MANY users or more, and give columns: slots, scores, marks."""
        slots = self._slots.column_of(user_ids)
        if not self._scores:
            nothing = [0] * len(slots)
            return slots.tolist(), nothing, nothing
        marks = np.zeros(1, np.uint64) if not self._marks else np.frombuffer(self._marks, np.uint64)
        found = (slots >= 0) & (slots < len(marks))
        scores = np.frombuffer(self._scores, np.uint64)[slots] * (slots >= 0)
        return slots.tolist(), scores.tolist(), (marks.take(slots, mode="clip") * found).tolist()

    def mark(self, slot: int, user_id: str, reason: str) -> int:
        """Give the mark of an action of this user, who has this slot or is NOBODY, and keep it if it is to be kept."""
        mark = mark_of(user_id, self.board_id, reason)
        if self.marked_reason is None:
            self.marked_reason = reason
        if slot != NOBODY and reason == self.marked_reason:
            marks = self._marks
            if slot >= len(marks):
                marks.frombytes(bytes(8 * (len(self._slots) - len(marks))))
            marks[slot] = mark
        return mark

    def complete(
        self, marks: Sequence[int], slots: Sequence[int], user_ids: Sequence[str], reason: str
    ) -> Sequence[int]:
        """Give the marks of actions of one reason, where these are kept."""
        if reason == self.marked_reason and 0 not in marks:
            return marks
        are_kept = reason == self.marked_reason
        return [
            mark if mark and are_kept else self.mark(slot, user_id, reason)
            for mark, slot, user_id in zip(marks, slots, user_ids, strict=True)
        ]

    def score_at(self, slot: int) -> int:
        """Give the score of the user who has a slot."""
        return self._scores[slot]

    @property
    def public(self) -> Board:
        """What the public sees: this board, or what it was when it was frozen."""
        return self if self.frozen is None else self.frozen

    @property
    def known_past(self) -> set[PastPeriod]:
        """The past periods that events say are kept. The public of a frozen board reads those of then, too."""
        shown = (self, self.public) if self.is_logged else ()
        return {past for each in shown if each.definition is not None for past in each.definition.past}

    # Changing

    def take_from_file(self, definition: BoardDefinition | None) -> None:
        """Take what the operator's file says, while no event defines the board and the order is not built."""
        assert self._order is None
        assert not self.is_logged
        self.definition = definition
        self._flip, self._ranks = ranking_of(definition)

    def define(self, definition: BoardDefinition, seq: int) -> None:
        """Take the definition of the event `seq`. O(users) if the order is turned round, or if ranks become dense."""
        was, old_ranks = self._flip, self._ranks
        self.definition, self.is_logged = definition, True
        self._flip, self._ranks = ranking_of(definition)
        self.seq = self.top10_seq = seq
        if (self._flip, self._ranks) != (was, old_ranks):
            self.past_ranks = NOTHING
        if self._order is None:
            return
        if self._flip != was and len(self):
            self.begin_replay()
            self.end_replay()
        else:
            if self._flip != was:
                self._order = self._sorted()
            if self._ranks != old_ranks:
                self._end_watching()
            self._build_tiers(self._order)

    def end_period(self, *, passed: bool = False) -> Ranking:
        """Empty the board; give the ranking that it was, which the board does not touch any more. O(1).

        `passed`: another period without anybody came after it.
        """
        self._end_watching()
        ended = Ranking(self.board_id, self.definition)
        ended.take(self)
        fresh = Ranking(self.board_id, self.definition)
        fresh.seq = self.seq
        if self._order is None:
            fresh.begin_replay()
        keys = [] if passed else ended.first_keys(NOTED_ROWS)
        fresh.past_ranks = began_after([ended.user(key & SLOT_MASK) for key in keys], ended.ranks_of(keys))
        self.take(fresh)
        self.marked_reason, self._marks = None, array("Q")
        return ended

    @property
    def needs_notes(self) -> bool:
        """Whether the running period may become older than a day, so that notes of ranks are of use."""
        if self.definition is None or not self.is_logged:
            return False
        period = self.definition.period
        is_short = period is not None and period.ends_ms is not None and period.ends_ms - period.begins_ms < LONG_MS
        return not is_short or bool(self.past_ranks.notes)

    @property
    def notes_settled(self) -> bool:
        """Whether a note would change nothing if nobody moved since the last one."""
        return self.past_ranks.is_settled or not len(self)

    def note_ranks(self, event: RanksNoted) -> None:
        """Note the ranks of the first users. O(users) during a replay, if the board has changed since the last note."""
        if not self.needs_notes or not len(self):
            return
        past = self.past_ranks
        if self.seq == self._noted_at:
            self.past_ranks = past.aged(event.time_ms)
        else:
            keys = self.first_keys(NOTED_ROWS)
            slots = [key & SLOT_MASK for key in keys]
            self.past_ranks = past.noted(event.as_of_ms, event.time_ms, slots, self.ranks_of(keys))
        if self.past_ranks.day != past.day:
            self.seq = self.top10_seq = event.seq  # what rows show has changed
        self._noted_at = self.seq

    def hide(self, user_id: str, seq: int) -> None:
        """Take a user off the board with the event `seq`; the score is kept."""
        slot = self._slots.get(user_id)
        if slot is None or slot in self._hidden:
            return
        self.seq = seq
        if self._order is not None:
            key = self._key(slot)
            if self._is_watched(slot):
                self.top10_seq = seq
            self._note(slot, key)
            self._order.remove(key)
            if self._tiers is not None:
                self._tiers.remove(key >> SCORE_SHIFT)
        self._hidden.add(slot)

    def show(self, user_id: str, seq: int) -> None:
        """Put a hidden user back on the board with the event `seq`."""
        slot = self._slots.get(user_id)
        if slot is None or slot not in self._hidden:
            return
        self.seq = seq
        self._hidden.remove(slot)
        if self._order is not None:
            self._note(slot, None)
            self._enter(slot, seq)

    def correct(self, rows: Sequence[Rescored], seq: int, is_active: Callable[[str], bool]) -> list[Moved]:
        """Set scores that a correction gave, as `rescore` does. Users who come back are shown if they are active."""
        moves = self.rescore(rows, seq)
        for row in rows:
            if not is_active(row.user_id):
                self.hide(row.user_id, seq)
        return moves

    def leave(self, user_ids: Sequence[str], seq: int) -> list[Moved]:
        moves = super().leave(user_ids, seq)
        self._marks = array("Q")
        return moves

    def touch(self, user_id: str, seq: int) -> None:
        """Note that the display name of a user, if shown here, changed with the event `seq`."""
        slot = self._slots.get(user_id)
        if slot is None or slot in self._hidden:
            return
        self.seq = seq
        if self._order is not None and self._is_watched(slot):
            self.top10_seq = seq

    # Replay and images

    def begin_replay(self) -> None:
        super().begin_replay()
        if self.frozen is not None:
            self.frozen.begin_replay()

    def end_replay(self) -> None:
        super().end_replay()
        if self.frozen is not None:
            self.frozen.end_replay()

    def capture(self) -> BoardImage:
        """Copy what changes in place, 24 bytes a user, and share what only grows."""
        return BoardImage(
            board_id=self.board_id,
            seq=self.seq,
            count=len(self),
            user_ids=self._ids,
            scores=self._scores[:],
            reached=self._reached[:],
            updated=self._updated[:],
            definition=self.definition if self.is_logged else None,
            frozen=None if self.frozen is None else self.frozen.capture(),
            past_ranks=self.past_ranks,
        )

    @classmethod
    def from_image(cls, image: BoardImage, inactive: Iterable[str], *, owned: bool = False) -> Board:
        """Make the board of an image, as during a replay, without what is frozen; `inactive` users are hidden.

        `owned`: the image is nobody else's (`engine.image`).
        """
        board = cls(image.board_id, image.definition, is_logged=image.definition is not None)
        board._fill(image, inactive, owned)
        return board

    def _fill(self, image: BoardImage, inactive: Iterable[str], owned: bool) -> None:
        self.seq = image.seq
        columns = image.scores, image.reached, image.updated
        self._slots = Slots(image.user_ids if owned else image.user_ids.copy(image.count))
        self._scores, self._reached, self._updated = columns if owned else (column[:] for column in columns)
        self._hidden = {slot for user_id in inactive if (slot := self._slots.get(user_id)) is not None}
        self.past_ranks = image.past_ranks
        self.begin_replay()

    def _check(self) -> None:
        super()._check()
        assert len(self._marks) <= len(self._ids)
        for user_id, mark in zip(self._ids, self._marks, strict=False):
            assert not mark or mark == mark_of(user_id, self.board_id, self.marked_reason or "")
        assert not self.is_logged or self.definition is not None
        if self.frozen is not None:
            assert self.definition is not None
            assert self.definition.frozen is not None
            self.frozen._check()
