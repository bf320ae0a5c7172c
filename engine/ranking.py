"""What a board shows: its users in order, with their scores and ranks.

    rows, rank = ranking.top(10), ranking.rank(user_id)

The order is total: the better score first, and of equal scores the one that was reached first (the lower seq). So nodes
that applied the same events have the same order. The rules of the board say which score is better, and whether users
with equal scores share a rank.

A user gets a slot with the first points, and keeps it (`engine.slots`). Columns (arrays) hold the values of each slot.
The order is one `Order`, a `SortedList` with one integer for each ranked slot. These keys sort as the users rank:

    key = (flip ^ score) << 85  |  reached_seq << 32  |  slot              53 + 53 + 32 bits

`flip` is 0 if the least score is the best, else SCORE_MAX, which has all 53 bits. The slot leads from the key to the
user. It never decides the order, because no event reaches two scores on one board. An integer is smaller than a tuple,
and quicker to compare. A rank is a bisection of the list, so no second structure has to agree with it. The exception
are dense ranks, which count distinct scores (`engine.tiers`).

Invariants:
- `_slots` and the three columns have the same length.
- `_order` has exactly the keys of the slots that are not in `_hidden`. During a replay it is None, and is built once at
  the end: sorting once is far cheaper than a million moves.
- `_tiers` has the first word of each key in `_order` if ranks are dense; otherwise it is None.
- `_pinned` are pinned orders and other watchers: each is told of a change of a key before it happens.
- `top10_seq <= seq`: the last event that changed what the first ten rows show, and the last that changed the board.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import msgspec

from engine.board_rules import BoardDefinition, RankMode
from engine.first_rows import first_slots
from engine.keys import SCORE_SHIFT, SLOT_BITS, SLOT_MASK
from engine.limits import SCORE_MAX
from engine.order import Order
from engine.past_ranks import NOTED_ROWS, NOTHING, Change, PastRanks
from engine.pinned import PinnedOrder
from engine.slots import Slots
from engine.tiers import Tiers
from engine.user_ids import UserIds

ROWS_AT_ONCE = 1_000
"""Rows that are made at once where all are needed."""

TOP_WATCHED = 10
"""The number of rows that viewers watch. The live channel tells of changes among them."""


class Row(msgspec.Struct, frozen=True, gc=False):
    """A row of a ranking. Ranks count from 1. `change` says how far one of the first rows moved, if that is known."""

    rank: int
    user_id: str
    score: int
    change: Change | None = None


class FinalRow(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, gc=False):
    """A row of a past period: when the score was reached (ms since 1970 UTC), and by which event."""

    rank: int
    user_id: str
    score: int
    updated_ms: int
    reached_seq: int


class Standing(msgspec.Struct, frozen=True, gc=False):
    """A user's place: `ahead` are the points by which the next better user leads, None for the first.

    With unique ranks the next better user may have the same score. With other ranks it has another.
    """

    rank: int
    ahead: int | None


class Watcher(Protocol):
    """What wants to know which users move."""

    def note(self, slot: int, key: int | None) -> None:
        """Note that a slot's key is about to change. None: it is not in the order. First points are not told."""

    def end(self) -> None:
        """Note that all keys and slots are void: the board was emptied, or ordered anew."""

    def _check(self) -> None: ...


class Ranking:
    """One ranking. Reading the top is O(rows), a rank is O(log users)."""

    def __init__(self, board_id: str, definition: BoardDefinition | None = None) -> None:
        """Without a definition: only events named the board, and it is not served."""
        self.board_id = board_id
        self.definition = definition
        self.seq = 0
        self.top10_seq = 0
        self._slots = Slots()
        self._scores = array("Q")
        self._reached = array("Q")
        self._updated = array("Q")
        self._hidden: set[int] = set()
        self._flip, self._ranks = ranking_of(definition)
        self._order: Order | None = self._sorted()
        self._tiers: Tiers | None = Tiers(()) if self._ranks == "dense" else None
        self._pinned: list[Watcher] = []
        self.past_ranks = NOTHING

    def __len__(self) -> int:
        """Count the users who have a score, active or not."""
        return len(self._slots)

    # Reading

    @property
    def _ids(self) -> UserIds:
        return self._slots.ids

    def score(self, user_id: str) -> int | None:
        """Give a user's score, None before the first points."""
        slot = self._slots.get(user_id)
        return None if slot is None else self._scores[slot]

    def updated_ms(self, user_id: str) -> int | None:
        """Give the time of a user's last points in ms since 1970 UTC, None before the first."""
        slot = self._slots.get(user_id)
        return None if slot is None else self._updated[slot]

    def rank(self, user_id: str) -> int | None:
        """Give a user's rank, None for a user who has no score or is not shown."""
        slot = self._slots.get(user_id)
        if slot is None or slot in self._hidden:
            return None
        return self._rank(self._key(slot))

    def standing(self, user_id: str) -> Standing | None:
        """Give a user's rank, and the lead of the next better user; None for a user who is not ranked."""
        slot = self._slots.get(user_id)
        if slot is None or slot in self._hidden:
            return None
        key = self._key(slot)
        better = self._ranked().bisect_left(key if self._ranks == "unique" else key >> SCORE_SHIFT << SCORE_SHIFT)
        if not better:
            return Standing(1, None)
        next_better = self._ranked()[better - 1] & SLOT_MASK
        return Standing(self._rank(key), abs(self._scores[next_better] - self._scores[slot]))

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
        slot = self._slots.get(user_id)
        if slot is None or slot in self._hidden:
            return []
        rows = 2 * count + 1
        position = self._ranked().bisect_left(self._key(slot))
        start = max(0, min(position - count, len(self._ranked()) - rows))
        return self._rows(start, start + rows)

    def pin(self) -> PinnedOrder:
        """Keep the order of now, until `unpin`. The caller bounds how many are kept."""
        pinned = PinnedOrder(
            self._ranked(), self.seq, slots=len(self._slots), slot_mask=SLOT_MASK, past_ranks=self.past_ranks
        )
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
        return [self._key(slot) for slot in slots if slot not in self._hidden]

    def rows_of(
        self, keys: Sequence[int], position: int = 0, before: tuple[int, int] | None = None,
        past: PastRanks | None = None,
    ) -> list[Row]:  # fmt: skip
        """Make rows of keys that a pinned order gave: they have positions from this one on, 0 for the first.

        `before` is the rank and the key of the row before them: users of one score may share its rank. `past` are the
        ranks to compare with, those of now if there are none.
        """
        ids, flip, past = self._ids, self._flip, self.past_ranks if past is None else past
        places = enumerate(keys, position + 1)
        if past is NOTHING and self._ranks == "unique":  # quick, as most are
            return [Row(place, ids[key & SLOT_MASK], flip ^ (key >> SCORE_SHIFT)) for place, key in places]
        return [
            Row(rank, ids[key & SLOT_MASK], flip ^ (key >> SCORE_SHIFT), self._change(past, place, key, rank))
            for (place, key), rank in zip(places, self.ranks_of(keys, position, before), strict=True)
        ]

    def ranks_of(self, keys: Sequence[int], position: int = 0, before: tuple[int, int] | None = None) -> Sequence[int]:
        """Give the ranks of keys, as `rows_of` does."""
        if self._ranks == "unique":
            return range(position + 1, position + 1 + len(keys))
        rank, last = (0, None) if before is None else (before[0], before[1] >> SCORE_SHIFT)
        dense, ranks = self._ranks == "dense", []
        for place, key in enumerate(keys, position + 1):
            score = key >> SCORE_SHIFT
            if score != last:
                rank, last = (rank + 1 if dense else place), score
            ranks.append(rank)
        return ranks

    def rows_for(self, user_ids: Iterable[str]) -> tuple[list[Row], list[str]]:
        """List the rows of these users in the order of the board, and the users who are not ranked."""
        slots = {user_id: self._slots.get(user_id) for user_id in user_ids}
        keys = sorted(self._key(slot) for slot in slots.values() if slot is not None and slot not in self._hidden)
        rows = [self._row(key) for key in keys]
        return rows, [user_id for user_id, slot in slots.items() if slot is None or slot in self._hidden]

    def _row(self, key: int) -> Row:
        slot, rank = key & SLOT_MASK, self._rank(key)
        place = rank if self._ranks == "unique" or rank > NOTED_ROWS else self._ranked().bisect_left(key) + 1
        return Row(rank, self._ids[slot], self._scores[slot], self._change(self.past_ranks, place, key, rank))

    def _change(self, past: PastRanks, place: int, key: int, rank: int) -> Change | None:
        if place > NOTED_ROWS or past is NOTHING:
            return None
        return past.change(key & SLOT_MASK, self._ids[key & SLOT_MASK], rank)

    def _note(self, slot: int, key: int | None) -> None:
        for watcher in self._pinned:
            watcher.note(slot, key)

    def _rows(self, start: int, stop: int) -> list[Row]:
        keys = self._ranked()[start:stop]
        if not keys or start == 0 or self._ranks == "unique":
            return self.rows_of(keys, start)
        last = self._ranked()[start - 1]
        return self.rows_of(keys, start, (self._rank(last), last))

    def _rank(self, key: int) -> int:
        """Give the rank of a key, whether or not it is in the order."""
        if self._ranks == "unique":
            return self._ranked().bisect_left(key) + 1
        if self._tiers is not None:
            return self._tiers.before(key >> SCORE_SHIFT) + 1
        return self._ranked().bisect_left(key >> SCORE_SHIFT << SCORE_SHIFT) + 1

    # Replay, and the end of a period

    def begin_replay(self) -> None:
        """Stop keeping the order, until `end_replay`."""
        self._order = self._tiers = None

    def end_replay(self) -> None:
        """Build the order, O(users log users). The first ten rows count as changed."""
        self._end_watching()
        self._order = self._sorted()
        self._build_tiers(self._order)
        self.top10_seq = self.seq

    def _sorted(self) -> Order:
        """Sort the users who are shown."""
        return Order.of_board(self._flip, self._scores, self._reached, self._hidden)

    def _end_watching(self) -> None:
        watchers, self._pinned = self._pinned, []
        for watcher in watchers:
            watcher.end()

    def _build_tiers(self, order: Order) -> None:
        """Count the distinct scores if ranks are dense, O(users); else forget them."""
        if self._ranks != "dense":
            self._tiers = None
        elif self._tiers is None:
            self._tiers = Tiers(key >> SCORE_SHIFT for key in order)

    def take(self, other: Ranking) -> None:
        """Take what another ranking shows. The other one must not be changed afterwards."""
        self.seq, self.top10_seq = other.seq, other.top10_seq
        self._slots, self._hidden = other._slots, other._hidden
        self._scores, self._reached, self._updated = other._scores, other._reached, other._updated
        self._order, self._tiers, self._pinned = other._order, other._tiers, other._pinned
        self.past_ranks = other.past_ranks

    @property
    def users_shown(self) -> int:
        """The number of users with a score who are not hidden, also during a replay."""
        return len(self._ids) - len(self._hidden)

    @property
    def is_ordered(self) -> bool:
        """Whether the order is built: it is not during a replay."""
        return self._order is not None

    def first_keys(self, count: int) -> list[int]:
        """List the keys of the first rows. During a replay, which has no order, this is O(users)."""
        if self._order is not None:
            return self._order[:count]
        return [self._key(slot) for slot in first_slots(self._scores, self._reached, self._flip, self._hidden, count)]

    def position(self, user_id: str) -> int | None:
        """Give a user's position, 0 for the first; None for a user who is not ranked."""
        slot = self._slots.get(user_id)
        return None if slot is None or slot in self._hidden else self._ranked().bisect_left(self._key(slot))

    def final_rows(self, start: int, stop: int) -> list[FinalRow]:
        """List rows with their times, from one position to before another."""
        keys = self._ranked()[start:stop]
        return [
            FinalRow(row.rank, row.user_id, row.score, self._updated[key & SLOT_MASK], self._reached[key & SLOT_MASK])
            for key, row in zip(keys, self._rows(start, stop), strict=True)
        ]

    def all_rows(self) -> Iterator[FinalRow]:
        """Yield every row with its times, best first. The ranking must not change meanwhile."""
        for start in range(0, len(self._ranked()), ROWS_AT_ONCE):
            yield from self.final_rows(start, start + ROWS_AT_ONCE)

    def dismantle(self) -> Iterator[None]:
        """Free the memory in portions: freed at once, a million users would stop every thread for a tenth of a second.

        The ranking shows nothing afterwards.
        """
        lists, self._order, self._tiers = ([] if self._order is None else self._order._lists), None, None
        while lists:
            lists.pop()
            yield
        self._slots = Slots()
        yield

    # Inside

    def _key(self, slot: int) -> int:
        return (self._flip ^ self._scores[slot]) << SCORE_SHIFT | self._reached[slot] << SLOT_BITS | slot

    def _ranked(self) -> Order:
        assert self._order is not None, "the order is not built during a replay"
        return self._order

    def _is_watched(self, slot: int) -> bool:
        return self._ranked().bisect_left(self._key(slot)) < TOP_WATCHED

    def _check(self) -> None:
        count = len(self._ids)
        assert count == len(self._scores) == len(self._reached) == len(self._updated)
        self._slots._check()
        assert self._hidden <= set(range(count))
        assert self.top10_seq <= self.seq
        self.past_ranks._check()
        assert all(0 < reached <= self.seq for reached in self._reached)
        assert len(set(self._reached)) == count
        if self._order is not None:
            self._order._check()
            keys = sorted(self._key(slot) for slot in range(count) if slot not in self._hidden)
            assert list(self._order) == keys
            assert (self._tiers is not None) == (self._ranks == "dense")
            if self._tiers is not None:
                self._tiers._check()
                assert self._tiers._counts == Counter(key >> SCORE_SHIFT for key in keys)
        for watcher in self._pinned:
            watcher._check()


def ranking_of(definition: BoardDefinition | None) -> tuple[int, RankMode]:
    """Give the flip of the keys and the mode of the ranks."""
    if definition is None:
        return SCORE_MAX, "unique"
    return 0 if definition.rules.order == "ascending" else SCORE_MAX, definition.rules.ranks
