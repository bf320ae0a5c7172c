"""A ranking whose scores change: the steps of events.

    ranks = ranking.record_all(events, time_ms)                the ranks before and after each event
    ranking.feed(steps, time_ms)                               the same for steps whose ranks nobody asks for
    ranking.rescore(rows, seq)                                 what a correction gave; users may leave the board

Invariants, beside those of a ranking:
- A user's score and the seq at which it was reached change together. An action that leaves the score leaves the place.

Rules:
- Each step has a later seq than the steps before it.
- The answer to an action has its ranks on its own board, not on the boards that are fed. So these find no positions,
  which takes a quarter of a move.
- A correction gives a score and the event that reached it: one of the user's own, so no two users have the same.
- A user who leaves is forgotten: slots have no gaps, so the user of the last slot takes the free one.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from itertools import islice

import msgspec
import numpy as np

from engine.events import Incremented, Rescored
from engine.keys import CODE_SCORES, CODE_SEQS, SCORE_SHIFT, SEQ_BITS, SLOT_BITS, SLOT_MASK, codes_of
from engine.limits import SCORE_MAX, SEQ_MAX
from engine.moving import NOT_THERE, Words, chains_of, move_all
from engine.order import Order
from engine.ranking import TOP_WATCHED, Ranking, Row
from engine.slots import NOBODY
from engine.steps import Moved

Ranks = tuple[int | None, int | None]
"""Before and after an event. None for a user who is not ranked, and during a replay."""

TOGETHER = 64
"""From this number of steps on, a large board takes them together (`engine.moving`)."""

UNRANKED: Ranks = (None, None)


class Step(msgspec.Struct, frozen=True, gc=False):
    """The new score of a user, with an event."""

    user_id: str
    new_score: int
    seq: int


FedStep = tuple[str, int, int, int]
"""A user, the change and the new score, and the seq of the event."""


class ScoredRanking(Ranking):
    """A ranking whose scores change. A step is O(log users)."""

    def record(self, user_id: str, new_score: int, seq: int, time_ms: int) -> Ranks:
        """Set a user's score with the event `seq`; give the ranks before and after."""
        return self.record_all((Step(user_id, new_score, seq),), time_ms)[0]

    def find(self, user_ids: Sequence[str]) -> list[int]:
        """Give the slots of users, NOBODY before the first points."""
        return self._slots.find_all(user_ids)

    def known(self, slots: Sequence[int], user_ids: Sequence[str]) -> Sequence[int]:
        """Complete what `find` gave, once all of the users have points."""
        if NOBODY not in slots:
            return slots
        return self.find(user_ids)

    def record_all(
        self, steps: Sequence[Step | Incremented], time_ms: int, slots: Sequence[int] | None = None
    ) -> list[Ranks]:
        """Set scores one after the other, at one time; give the ranks before and after each.

        `slots` is what `find` gives for the users, if the caller has it already.
        """
        hidden, order, pinned = self._hidden, self._order, self._pinned
        scores, reached, updated, flip = self._scores, self._reached, self._updated, self._flip
        unique = self._ranks == "unique"
        all_ranks: list[Ranks] = []
        last = self.seq
        if slots is None:
            slots = self.find([step.user_id for step in steps])
        if len(steps) >= TOGETHER and unique and order is not None and order.is_compact:
            together = self._record_together(order, steps, time_ms, np.array(slots, np.int64))
            if together is not None:
                return together
        for slot, step in zip(slots, steps, strict=True):
            new_score, seq = step.new_score, step.seq
            assert last < seq <= SEQ_MAX
            self.seq = last = seq
            if slot == NOBODY and (slot := self._slot_of(step.user_id)) == NOBODY:
                all_ranks.append(self._begin(step.user_id, new_score, seq, time_ms))
                continue
            score = scores[slot]
            if new_score == score:
                rank = None if order is None or slot in hidden else self._rank(self._key(slot))
                all_ranks.append((rank, rank))
                continue
            assert 0 <= new_score <= SCORE_MAX
            if order is None or slot in hidden:
                all_ranks.append(UNRANKED)
            else:
                old = (flip ^ score) << SCORE_SHIFT | reached[slot] << SLOT_BITS | slot
                new = (flip ^ new_score) << SCORE_SHIFT | seq << SLOT_BITS | slot
                if pinned:
                    self._note(slot, old)
                if unique:
                    had, has = order.move(old, new)
                    all_ranks.append((had + 1, has + 1))
                else:
                    tied = self._tied(old)
                    had, has = order.move(old, new)
                    all_ranks.append(self._shared_ranks(old, new, had, has, tied))
                if has < TOP_WATCHED or had < TOP_WATCHED:
                    self.top10_seq = seq
            scores[slot] = new_score
            reached[slot] = seq
            updated[slot] = time_ms
        return all_ranks

    def _record_together(
        self, order: Order, steps: Sequence[Step | Incremented], time_ms: int, slots: Words
    ) -> list[Ranks] | None:
        """Do the same by `move_all`. None: nothing was done, because keys don't fit, or users are hidden."""
        new = np.array([step.new_score for step in steps], np.uint64)
        seqs = np.array([step.seq for step in steps], np.uint64)
        assert self.seq < seqs[0]
        assert (seqs[1:] > seqs[:-1]).all()
        count, begun = len(self), dict[str, int]()
        for place in np.flatnonzero(slots == NOBODY).tolist():
            user_id = steps[place].user_id
            known = self._slot_of(user_id)
            slots[place] = begun.setdefault(user_id, count + len(begun)) if known == NOBODY else known
        chains = chains_of(slots)
        again, befores = chains.befores >= 0, chains.befores
        begins = (slots >= count) & ~again
        score = np.where(again, new[befores], np.frombuffer(self._scores, np.uint64).take(slots, mode="clip"))
        moves = (new != score) | begins
        if new.max() >= CODE_SCORES or seqs[-1] >= CODE_SEQS or not self._hidden.isdisjoint(slots.tolist()):
            return None
        reached, last = np.frombuffer(self._reached, np.uint64).take(slots, mode="clip"), int(seqs[-1])
        has_reached = seqs.copy()
        for place in np.flatnonzero(~moves).tolist():  # who does not move keeps the place
            has_reached[place] = has_reached[befores[place]] if again[place] else reached[place]
        reached = np.where(again, has_reached[befores], reached)
        olds = np.where(begins, np.uint64(NOT_THERE), codes_of(self._flip, score, reached))
        if self._pinned:
            for place in np.flatnonzero(moves & ~begins).tolist():
                first = (self._flip ^ int(score[place])) << SCORE_SHIFT
                self._note(int(slots[place]), first | int(reached[place]) << SLOT_BITS | int(slots[place]))
        had, has = move_all(order, olds, codes_of(self._flip, new, has_reached), slots, chains)
        for user_id in begun:
            self._slots.add(user_id)
        for column in (self._scores, self._reached, self._updated):
            column.extend([0] * len(begun))
        lasts = chains.lasts
        np.frombuffer(self._scores, np.uint64)[slots[lasts]] = new[lasts]
        np.frombuffer(self._reached, np.uint64)[slots[lasts]] = has_reached[lasts]
        np.frombuffer(self._updated, np.uint64)[slots[moves]] = time_ms
        watched = np.flatnonzero(moves & ((has < TOP_WATCHED) | (had < TOP_WATCHED) & ~begins))
        if len(watched):
            self.top10_seq = int(seqs[watched[-1]])
        self.seq = last
        ranks: list[Ranks] = [*zip((had + 1).tolist(), (has + 1).tolist(), strict=True)]
        for place in np.flatnonzero(begins).tolist():
            ranks[place] = (None, ranks[place][1])
        return ranks

    def stay(self, user_id: str) -> Ranks:
        """Give the ranks of an event that changes nothing here. The user may have no row."""
        rank = None if self._order is None else self.rank(user_id)
        return rank, rank

    def feed(self, steps: Sequence[FedStep], time_ms: int) -> list[int]:
        """Do the same where nobody asks for ranks: with what actions did on boards that feed this one.

        Give the slots as `find` does.
        """
        hidden, order, pinned, tiers = self._hidden, self._order, self._pinned, self._tiers
        scores, reached, updated, flip = self._scores, self._reached, self._updated, self._flip
        last = self.seq
        found = self.find([user_id for user_id, _, _, _ in steps])
        for slot, (user_id, delta, new_score, seq) in zip(found, steps, strict=True):
            assert last < seq <= SEQ_MAX
            last = seq
            if slot == NOBODY and (slot := self._slot_of(user_id)) == NOBODY:
                self._begin(user_id, new_score, seq, time_ms)
                continue
            if not delta:
                continue
            score = new_score - delta
            assert 0 <= new_score <= SCORE_MAX
            if order is not None and slot not in hidden:
                old = (flip ^ score) << SCORE_SHIFT | reached[slot] << SLOT_BITS | slot
                if pinned:
                    self._note(slot, old)
                if order.shift(old, (flip ^ new_score) << SCORE_SHIFT | seq << SLOT_BITS | slot, TOP_WATCHED):
                    self.top10_seq = seq
                if tiers is not None:
                    tiers.remove(flip ^ score)
                    tiers.add(flip ^ new_score)
            scores[slot] = new_score
            reached[slot] = seq
            updated[slot] = time_ms
        self.seq = last
        return found

    def rescore(self, rows: Sequence[Rescored], seq: int) -> list[Moved]:
        """Set scores that a correction gave, with the event `seq`; give who left. O(users) if anybody did."""
        for row in rows:
            if row.new_score is not None:
                self._set(row.user_id, row.new_score, row.reached_seq, row.updated_ms, seq)
        moves = self.leave([row.user_id for row in rows if row.new_score is None], seq)
        self.seq = seq
        return moves

    def _set(self, user_id: str, score: int, reached_seq: int, updated_ms: int, seq: int) -> None:
        assert 0 <= score <= SCORE_MAX
        assert reached_seq < seq
        slot = self._slots.get(user_id)
        if slot is None:
            top10_seq = self.top10_seq
            self._begin(user_id, score, reached_seq, updated_ms)
            self.top10_seq = top10_seq if self.top10_seq == top10_seq else seq
            return
        old = self._key(slot)
        self._scores[slot], self._reached[slot], self._updated[slot] = score, reached_seq, updated_ms
        new, order = self._key(slot), self._order
        if new == old or order is None or slot in self._hidden:
            return
        self._note(slot, old)
        had, has = order.move(old, new)
        if self._tiers is not None:
            self._tiers.remove(old >> SCORE_SHIFT)
            self._tiers.add(new >> SCORE_SHIFT)
        if has < TOP_WATCHED or had < TOP_WATCHED:
            self.top10_seq = seq

    def place_of(self, user_id: str) -> Rescored | None:
        """Give a user's score and which event reached it, None before the first points."""
        slot = self._slots.get(user_id)
        if slot is None:
            return None
        return Rescored(user_id, self._scores[slot], self._reached[slot], self._updated[slot])

    def top_after(self, rows: Sequence[Rescored], count: int, hidden: Container[str] = ()) -> list[Row]:
        """List the first `count` rows as `rescore` would leave them. Those `hidden` are not shown."""
        changed = {row.user_id for row in rows}
        keys = (key for key in self._ranked() if self._ids[key & SLOT_MASK] not in changed)
        kept = [(key >> SLOT_BITS, self._ids[key & SLOT_MASK]) for key in islice(keys, count)]
        new = [
            ((self._flip ^ row.new_score) << SEQ_BITS | row.reached_seq, row.user_id)
            for row in rows
            if row.new_score is not None and row.user_id not in hidden
        ]
        first = sorted([*kept, *new])[:count]
        ranks = self.ranks_of([place << SLOT_BITS for place, _ in first])
        return [
            Row(rank, user_id, self._flip ^ (place >> SEQ_BITS))
            for (place, user_id), rank in zip(first, ranks, strict=True)
        ]

    def leave(self, user_ids: Sequence[str], seq: int) -> list[Moved]:
        """Take users off the board for good, with the event `seq`: as if they never had points here. O(users).

        Give who left, and which slots others have now.

        Who watches is told that all slots are void: the slot of a user who leaves goes to the user of the last slot.
        """
        leaving = [user_id for user_id in user_ids if user_id in self._slots]
        if not leaving:
            return []
        self._end_watching()
        moves = [Moved(*each) for each in self._slots.leave(leaving)]
        for slot, last in [(each.slot, each.last) for each in moves]:
            self._take_out(slot, seq)
            self.past_ranks = self.past_ranks.without(slot, last)
            if slot != last:
                self._move_slot(last, slot)
            for column in (self._scores, self._reached, self._updated):
                column.pop()
            self._hidden.discard(last)
        self.seq = seq
        return moves

    def _take_out(self, slot: int, seq: int) -> None:
        """Take a slot out of the order."""
        if self._order is None or slot in self._hidden:
            self._hidden.discard(slot)
            return
        if self._is_watched(slot):
            self.top10_seq = seq
        key = self._key(slot)
        self._order.remove(key)
        if self._tiers is not None:
            self._tiers.remove(key >> SCORE_SHIFT)

    def _move_slot(self, last: int, slot: int) -> None:
        """Give the slot of a user who left to the user of the last one."""
        is_ordered = self._order is not None and last not in self._hidden
        if is_ordered:
            self._ranked().remove(self._key(last))
        for column in (self._scores, self._reached, self._updated):
            column[slot] = column[last]
        if last in self._hidden:
            self._hidden.add(slot)
        if is_ordered:
            self._ranked().add(self._key(slot))

    def _tied(self, key: int) -> int:
        """Count the users of one score who are ahead of a key, or of dense ranks the distinct better scores."""
        if self._tiers is not None:
            return self._tiers.before(key >> SCORE_SHIFT)
        return self._ranked().ties_ahead(key, key >> SCORE_SHIFT << SCORE_SHIFT)

    def _shared_ranks(self, old: int, new: int, had: int, has: int, tied: int) -> Ranks:
        """Give the ranks of a move, by its positions and what `_tied` gave before it."""
        if self._tiers is None:
            return had - tied + 1, has - self._tied(new) + 1
        self._tiers.remove(old >> SCORE_SHIFT)
        self._tiers.add(new >> SCORE_SHIFT)
        return tied + 1, self._tied(new) + 1

    def _slot_of(self, user_id: str) -> int:
        """Look a user up again, who may have begun with an earlier step."""
        slot = self._slots.get(user_id)
        return NOBODY if slot is None else slot

    def _begin(self, user_id: str, score: int, seq: int, time_ms: int) -> Ranks:
        """Add a user with the first points."""
        assert 0 <= score <= SCORE_MAX
        slot = self._slots.add(user_id)
        self._scores.append(score)
        self._reached.append(seq)
        self._updated.append(time_ms)
        self.seq = seq
        if self._order is None:
            return UNRANKED
        return None, self._enter(slot, seq)

    def _enter(self, slot: int, seq: int) -> int:
        """Put a slot into the order; give its rank."""
        order, key = self._ranked(), self._key(slot)
        order.add(key)
        if self._tiers is not None:
            self._tiers.add(key >> SCORE_SHIFT)
        position = order.bisect_left(key)
        if position < TOP_WATCHED:
            self.top10_seq = seq
        return position + 1 if self._ranks == "unique" else self._rank(key)
