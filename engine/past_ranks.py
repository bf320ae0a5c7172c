"""The ranks that the first users of a board had at earlier moments, and how far they moved since. Pure.

    past = past.noted(as_of_ms, now_ms, slots, ranks)        after a `RanksNoted`: the ranks of now are kept
    past = began_after(users, ranks)                          a period began: these were the first of the one before
    change = past.change(slot, user_id, rank)                 Change(day=2, period=-1): up two places, down one

    notes, hourly   ├──┼──┼── … ──┼──┼──┤ now        the first one is at least a day old: `day` compares with it
                    day

Rules:
- A rank is compared with that of the first NOTED_ROWS rows of then. Who was not among them has None.
- `day` compares with the newest note that is a day old. So it says how far a user moved in 24 to 25 hours. It is not
  known before the period is a day old.
- `period` compares with the last ranking of the period before: that is what was shown when this one began. It is not
  known in the first period of a board. A period that passed without anybody counts.
- Other rules for ranks make all of them void: else users would seem to move who stayed.
- A note holds from `as_of_ms` on, the time of the last event before it: nothing changed between the two.
- Only notes change what is compared with, so that one position of a board always shows the same.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Sequence
from functools import cached_property
from operator import attrgetter
from typing import TypeVar

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from engine.limits import NOTES_MAX

DAY_MS = 86_400_000

LONG_MS = 2 * DAY_MS
"""Periods from this length on have notes. A day is shorter, also one of 25 hours; a week is longer."""

NOTED_ROWS = 100
"""Rows whose ranks are noted, and rows that show a change."""

_WORD_BYTES = 4
_as_of = attrgetter("as_of_ms")

K = TypeVar("K")


class Change(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Places that a user went up, below 0: down. `day`: within 24 hours. `period`: since the period before ended.

    null: the user was not in the first 100 rows then. What is not known is left out.
    """

    day: int | UnsetType | None = UNSET
    period: int | UnsetType | None = UNSET


class Note(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, gc=False):
    """Slots and ranks of the first rows, best first: u32 each, little endian. No ranks: they are 1, 2, 3 …"""

    as_of_ms: int
    slots: bytes
    ranks: bytes


class Start(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, gc=False):
    """Users, a msgpack list, and ranks, as in a note, of the first rows of the period before, when it ended."""

    users: bytes
    ranks: bytes


class PastRanks(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, dict=True):
    """What is kept of one board, the oldest note first. `has_day`: that one is a day old. `start`: None at first."""

    notes: tuple[Note, ...] = ()
    has_day: bool = False
    start: Start | None = None

    @property
    def day(self) -> Note | None:
        """The note that `day` compares with."""
        return self.notes[0] if self.has_day else None

    @property
    def is_settled(self) -> bool:
        """Whether a note would change nothing if nobody moved since the last one."""
        return len(self.notes) == 1 and self.has_day

    def noted(self, as_of_ms: int, now_ms: int, slots: Sequence[int], ranks: Sequence[int]) -> PastRanks:
        """Keep the ranks of now, if they are not those of the last note, and drop what is older than a day."""
        note = Note(as_of_ms, _packed(slots), _packed_ranks(ranks))
        known = self.notes
        if known and (known[-1].slots, known[-1].ranks) == (note.slots, note.ranks):
            return self.aged(now_ms)
        return PastRanks((*known, note)[-NOTES_MAX:], self.has_day, self.start).aged(now_ms)

    def aged(self, now_ms: int) -> PastRanks:
        """Drop what is older than a day, but for the newest such note."""
        old = bisect_right(self.notes, now_ms - DAY_MS, key=_as_of)
        if old == self.has_day:
            return self
        return PastRanks(self.notes[max(0, old - 1) :], old > 0, self.start)

    def corrected(self, now_ms: int) -> PastRanks:
        """Let no note lie in the future, after a correction of the clock."""
        notes = tuple(replace(note, as_of_ms=min(note.as_of_ms, now_ms)) for note in self.notes)
        return replace(self, notes=notes)

    def without(self, slot: int, last: int) -> PastRanks:
        """Forget the user of a slot, who left the board. The slot belongs to the user of the slot `last` now."""
        if not self.notes:
            return self
        return replace(self, notes=tuple(_without(note, slot, last) for note in self.notes))

    def forgetting(self, user_id: str) -> PastRanks:
        """Forget a user of the period before, who was erased. The others keep their ranks of then."""
        ranked = self._start
        if ranked is None or user_id not in ranked:
            return self
        others = {other: rank for other, rank in ranked.items() if other != user_id}
        start = Start(msgspec.msgpack.encode(list(others)), _packed_ranks(list(others.values())))
        return PastRanks(self.notes, self.has_day, start)

    def change(self, slot: int, user_id: str, rank: int) -> Change | None:
        """Say how far a user of the first rows moved; None if there is nothing to compare with."""
        day, start = self._day, self._start
        if day is None and start is None:
            return None
        return Change(
            UNSET if day is None else _moved(day.get(slot), rank),
            UNSET if start is None else _moved(start.get(user_id), rank),
        )

    @cached_property
    def _day(self) -> dict[int, int] | None:
        return None if self.day is None else _ranked(_unpacked(self.day.slots), self.day.ranks)

    @cached_property
    def _start(self) -> dict[str, int] | None:
        return None if self.start is None else _ranked(_users(self.start.users), self.start.ranks)

    def _check(self) -> None:
        times = [note.as_of_ms for note in self.notes]
        assert times == sorted(times)
        assert len(times) <= NOTES_MAX
        for note in self.notes:
            assert len(note.slots) <= _WORD_BYTES * NOTED_ROWS
            assert len(note.ranks) in (0, len(note.slots))
        assert self.notes or not self.has_day


NOTHING = PastRanks()
"""Of a board whose ranks were never noted."""

_users = msgspec.msgpack.Decoder(list[str]).decode


def began_after(users: Sequence[str], ranks: Sequence[int]) -> PastRanks:
    """Give what is kept when a period begins: who was first at the end of the one before, best first."""
    return PastRanks(start=Start(msgspec.msgpack.encode(users), _packed_ranks(ranks)))


def _without(note: Note, slot: int, last: int) -> Note:
    slots = _unpacked(note.slots)
    places = zip(slots, _unpacked(note.ranks) if note.ranks else range(1, len(slots) + 1), strict=True)
    kept = [(slot if one == last else one, rank) for one, rank in places if one != slot]
    return Note(note.as_of_ms, _packed([one for one, _ in kept]), _packed_ranks([rank for _, rank in kept]))


def _moved(before: int | None, rank: int) -> int | None:
    return None if before is None else before - rank


def _ranked(keys: Sequence[K], ranks: bytes) -> dict[K, int]:
    return dict(zip(keys, _unpacked(ranks) if ranks else range(1, len(keys) + 1), strict=True))


def _packed_ranks(ranks: Sequence[int]) -> bytes:
    places = range(1, len(ranks) + 1)
    return b"" if ranks == places or list(ranks) == list(places) else _packed(ranks)


def _packed(numbers: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(numbers)}I", *numbers)


def _unpacked(data: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(data) // _WORD_BYTES}I", data)
