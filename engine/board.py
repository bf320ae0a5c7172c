"""One board: the scores of its users, and their ranks.

    ranks = board.record_all(events, time_ms)                  the ranks before and after each event
    rows, rank = board.top(10), board.rank(user_id)

The order is total: the higher score first, and of equal scores the one that was reached first (the lower seq). So no
two users share a rank, and nodes that applied the same events have the same order.

A user gets a slot with the first points, and keeps it. Columns (arrays) hold the values of each slot. The order is one
`Order`, a `SortedList` with one integer for each ranked slot. These keys sort as the users rank:

    key = (SCORE_MAX - score) << 85  |  reached_seq << 32  |  slot          53 + 53 + 32 bits

The slot leads from the key to the user. It never decides the order, because no event reaches two scores on one board.
An integer is smaller than a tuple, and quicker to compare. A rank is a bisection of the list, so no second structure
has to agree with it.

Invariants:
- `_slots[_ids[slot]] == slot`; `_ids` and the three columns have the same length. `_ids` only grows: images share it.
- `_order` has exactly the keys of the slots that are not in `_hidden`. During a replay it is None, and is built once at
  the end: sorting once is far cheaper than a million moves.
- `top10_seq <= seq`: the last event that changed what the first ten rows show, and the last that changed the board.
- `_pinned` are pinned orders and other watchers: each is told of a change of a key before it happens.
- `_marks[slot]` is 0, or the mark of user, board and `_marked_reason`. It is a cache: in no image, and shorter than the
  columns until marks are asked for.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Protocol

import msgspec

from engine.actions import mark_of
from engine.events import Incremented
from engine.image import BoardImage, column_bytes, column_of
from engine.limits import SCORE_MAX, SEQ_MAX
from engine.order import Order
from engine.pinned import PinnedOrder

SLOT_BITS = 32
SEQ_BITS = 53
SCORE_SHIFT = SLOT_BITS + SEQ_BITS
SLOT_MASK = (1 << SLOT_BITS) - 1

TOP_WATCHED = 10
"""The number of rows that viewers watch. The live channel tells of changes among them."""

Ranks = tuple[int | None, int | None]
"""Before and after an event. None for a user who is not ranked, and during a replay."""

UNRANKED: Ranks = (None, None)


class Step(msgspec.Struct, frozen=True, gc=False):
    """The new score of a user, with an event."""

    user_id: str
    new_score: int
    seq: int


class Row(msgspec.Struct, frozen=True, gc=False):
    """A row of a ranking. Ranks count from 1."""

    rank: int
    user_id: str
    score: int


class Standing(msgspec.Struct, frozen=True, gc=False):
    """A user's place: `ahead` are the points by which the next better user leads, None for the first."""

    rank: int
    ahead: int | None


class Watcher(Protocol):
    """What wants to know which users move."""

    def note(self, slot: int, key: int | None) -> None:
        """Note that a slot's key is about to change. None: it is not in the order. First points are not told."""

    def _check(self) -> None: ...


class Board:
    """One ranking. Reading the top is O(rows), a rank and a change are O(log users)."""

    def __init__(self, board_id: str) -> None:
        self.board_id = board_id
        self.seq = 0
        self.top10_seq = 0
        self._slots: dict[str, int] = {}
        self._ids: list[str] = []
        self._scores = array("Q")
        self._reached = array("Q")
        self._updated = array("Q")
        self._hidden: set[int] = set()
        self._order: Order | None = Order()
        self._pinned: list[Watcher] = []
        self._marked_reason: str | None = None
        self._marks = array("Q")

    def __len__(self) -> int:
        """Count the users who have a score, active or not."""
        return len(self._ids)

    # Reading

    def score(self, user_id: str) -> int | None:
        """Give a user's score, None before the first points."""
        slot = self._slots.get(user_id)
        return None if slot is None else self._scores[slot]

    def score_and_mark(self, user_id: str, reason: str) -> tuple[int, int]:
        """Give a user's score, 0 before the first points, and the mark of an action of this user and reason.

        The marks of the first reason are cached, 8 bytes a user: most boards have no other.
        """
        slot = self._slots.get(user_id)
        if slot is None:
            return 0, mark_of(user_id, self.board_id, reason)
        if reason != self._marked_reason:
            if self._marked_reason is not None:
                return self._scores[slot], mark_of(user_id, self.board_id, reason)
            self._marked_reason = reason
        marks = self._marks
        if slot >= len(marks):
            marks.frombytes(bytes(8 * (len(self._ids) - len(marks))))
        mark = marks[slot]
        if not mark:
            mark = marks[slot] = mark_of(user_id, self.board_id, reason)
        return self._scores[slot], mark

    def updated_ms(self, user_id: str) -> int | None:
        """Give the time of a user's last points in ms since 1970 UTC, None before the first."""
        slot = self._slots.get(user_id)
        return None if slot is None else self._updated[slot]

    def rank(self, user_id: str) -> int | None:
        """Give a user's rank, None for a user who has no score or is not shown."""
        slot = self._slots.get(user_id)
        if slot is None or slot in self._hidden:
            return None
        return self._ranked().bisect_left(self._key(slot)) + 1

    def standing(self, user_id: str) -> Standing | None:
        """Give a user's rank, and the lead of the user before; None for a user who is not ranked."""
        rank = self.rank(user_id)
        if rank is None:
            return None
        if rank == 1:
            return Standing(1, None)
        next_better = self._ranked()[rank - 2] & SLOT_MASK
        return Standing(rank, self._scores[next_better] - self._scores[self._slots[user_id]])

    @property
    def ranked(self) -> int:
        """The number of users who are ranked."""
        return len(self._ranked())

    def top(self, count: int) -> list[Row]:
        """List the first `count` rows."""
        return self._rows(0, count)

    def around(self, user_id: str, count: int) -> list[Row]:
        """List a user's row with `count` neighbours on each side; empty for a user who is not ranked.

        At the edges of the board the other side has more neighbours, so that the number of rows is the same.
        """
        rank = self.rank(user_id)
        if rank is None:
            return []
        rows = 2 * count + 1
        start = max(0, min(rank - 1 - count, len(self._ranked()) - rows))
        return self._rows(start, start + rows)

    def pin(self) -> PinnedOrder:
        """Keep the order of now, until `unpin`. The caller bounds how many are kept."""
        pinned = PinnedOrder(self._ranked(), self.seq, slots=len(self._ids), slot_mask=SLOT_MASK)
        self.watch(pinned)
        return pinned

    def unpin(self, pinned: PinnedOrder) -> None:
        """Stop keeping it. To do so twice does no harm."""
        pinned.end()
        self.unwatch(pinned)

    def watch(self, watcher: Watcher) -> None:
        """Tell a watcher of each change of a key, until `unwatch`. The caller bounds how many there are."""
        self._pinned.append(watcher)

    def unwatch(self, watcher: Watcher) -> None:
        """Tell it nothing more. To do so twice does no harm."""
        if watcher in self._pinned:
            self._pinned.remove(watcher)

    def slot(self, user_id: str) -> int | None:
        """Give the slot of a user, None before the first points."""
        return self._slots.get(user_id)

    def user(self, slot: int) -> str:
        """Give the user of a slot."""
        return self._ids[slot]

    def keys_of(self, slots: Iterable[int]) -> list[int]:
        """List the keys of those slots whose users are shown. A key leads to its slot by SLOT_MASK."""
        hidden, scores, reached = self._hidden, self._scores, self._reached
        shown = [slot for slot in slots if slot not in hidden]
        return [(SCORE_MAX - scores[slot]) << SCORE_SHIFT | reached[slot] << SLOT_BITS | slot for slot in shown]

    def rows_of(self, keys: Iterable[int], first_rank: int) -> list[Row]:
        """Make rows of keys that a pinned order gave, which have ranks from this one on."""
        ids = self._ids
        return [
            Row(rank, ids[key & SLOT_MASK], SCORE_MAX - (key >> SCORE_SHIFT))
            for rank, key in enumerate(keys, first_rank)
        ]

    def rows_for(self, user_ids: Iterable[str]) -> tuple[list[Row], list[str]]:
        """List the rows of these users in the order of the board, and the users who are not ranked."""
        slots = {user_id: self._slots.get(user_id) for user_id in user_ids}
        keys = sorted(self._key(slot) for slot in slots.values() if slot is not None and slot not in self._hidden)
        find = self._ranked().bisect_left
        rows = [Row(find(key) + 1, self._ids[key & SLOT_MASK], self._scores[key & SLOT_MASK]) for key in keys]
        return rows, [user_id for user_id, slot in slots.items() if slot is None or slot in self._hidden]

    def _note(self, slot: int, key: int | None) -> None:
        for watcher in self._pinned:
            watcher.note(slot, key)

    def _rows(self, start: int, stop: int) -> list[Row]:
        ids, scores = self._ids, self._scores
        rows = []
        for rank, key in enumerate(self._ranked()[start:stop], start + 1):
            slot = key & SLOT_MASK
            rows.append(Row(rank, ids[slot], scores[slot]))
        return rows

    # Changing

    def record(self, user_id: str, new_score: int, seq: int, time_ms: int) -> Ranks:
        """Set a user's score with the event `seq`; give the ranks before and after."""
        return self.record_all((Step(user_id, new_score, seq),), time_ms)[0]

    def record_all(self, steps: Iterable[Step | Incremented], time_ms: int) -> list[Ranks]:
        """Set scores one after the other, at one time; give the ranks before and after each."""
        find, hidden, order, pinned = self._slots.get, self._hidden, self._order, self._pinned
        scores, reached, updated = self._scores, self._reached, self._updated
        all_ranks: list[Ranks] = []
        for step in steps:
            user_id, new_score, seq = step.user_id, step.new_score, step.seq
            assert self.seq < seq <= SEQ_MAX
            slot = find(user_id)
            if slot is None:
                all_ranks.append(self._begin(user_id, new_score, seq, time_ms))
                continue
            score = scores[slot]
            assert score <= new_score <= SCORE_MAX
            self.seq = seq
            if order is None or slot in hidden:
                all_ranks.append(UNRANKED)
            else:
                old = (SCORE_MAX - score) << SCORE_SHIFT | reached[slot] << SLOT_BITS | slot
                new = (SCORE_MAX - new_score) << SCORE_SHIFT | seq << SLOT_BITS | slot
                if pinned:
                    self._note(slot, old)
                had, has = order.move(old, new)
                if has < TOP_WATCHED:
                    self.top10_seq = seq
                all_ranks.append((had + 1, has + 1))
            scores[slot] = new_score
            reached[slot] = seq
            updated[slot] = time_ms
        return all_ranks

    def _begin(self, user_id: str, score: int, seq: int, time_ms: int) -> Ranks:
        """Add a user with the first points."""
        assert 0 <= score <= SCORE_MAX
        slot = len(self._ids)
        self._slots[user_id] = slot
        self._ids.append(user_id)
        self._scores.append(score)
        self._reached.append(seq)
        self._updated.append(time_ms)
        self.seq = seq
        if self._order is None:
            return UNRANKED
        key = self._key(slot)
        self._order.add(key)
        has = self._order.bisect_left(key)
        if has < TOP_WATCHED:
            self.top10_seq = seq
        return None, has + 1

    def hide(self, user_id: str, seq: int) -> None:
        """Take a user off the board with the event `seq`; the score is kept."""
        slot = self._slots.get(user_id)
        if slot is None or slot in self._hidden:
            return
        self.seq = seq
        if self._order is not None:
            if self._is_watched(slot):
                self.top10_seq = seq
            self._note(slot, self._key(slot))
            self._order.remove(self._key(slot))
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
            self._order.add(self._key(slot))
            if self._is_watched(slot):
                self.top10_seq = seq

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
        """Stop keeping the order, until `end_replay`."""
        self._order = None

    def end_replay(self) -> None:
        """Build the order, O(users log users). The first ten rows count as changed."""
        keys: Iterable[int] = (self._key(slot) for slot in range(len(self._ids)) if slot not in self._hidden)
        self._order = Order(keys)
        self.top10_seq = self.seq

    def capture(self) -> BoardImage:
        """Copy what changes in place, 24 bytes a user, and share what only grows."""
        return BoardImage(
            board_id=self.board_id,
            seq=self.seq,
            count=len(self._ids),
            user_ids=self._ids,
            scores=column_bytes(self._scores),
            reached=column_bytes(self._reached),
            updated=column_bytes(self._updated),
        )

    @classmethod
    def from_image(cls, image: BoardImage, inactive: Iterable[str]) -> Board:
        """Make the board of an image, as during a replay; `inactive` users are hidden."""
        board = cls(image.board_id)
        board.seq = image.seq
        board._ids = image.user_ids[: image.count]
        board._slots = {user_id: slot for slot, user_id in enumerate(board._ids)}
        board._scores = column_of(image.scores)
        board._reached = column_of(image.reached)
        board._updated = column_of(image.updated)
        board._hidden = {slot for user_id in inactive if (slot := board._slots.get(user_id)) is not None}
        board._order = None
        return board

    # Inside

    def _key(self, slot: int) -> int:
        return (SCORE_MAX - self._scores[slot]) << SCORE_SHIFT | self._reached[slot] << SLOT_BITS | slot

    def _ranked(self) -> Order:
        assert self._order is not None, "the order is not built during a replay"
        return self._order

    def _is_watched(self, slot: int) -> bool:
        return self._ranked().bisect_left(self._key(slot)) < TOP_WATCHED

    def _check(self) -> None:
        count = len(self._ids)
        assert count == len(self._slots) == len(self._scores) == len(self._reached) == len(self._updated)
        assert all(self._slots[user_id] == slot for slot, user_id in enumerate(self._ids))
        assert self._hidden <= set(range(count))
        assert self.top10_seq <= self.seq
        assert all(0 < reached <= self.seq for reached in self._reached)
        assert len(set(self._reached)) == count
        assert len(self._marks) <= count
        for user_id, mark in zip(self._ids, self._marks, strict=False):
            assert not mark or mark == mark_of(user_id, self.board_id, self._marked_reason or "")
        if self._order is not None:
            self._order._check()
            assert list(self._order) == sorted(self._key(slot) for slot in range(count) if slot not in self._hidden)
        for watcher in self._pinned:
            watcher._check()
