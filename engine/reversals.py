"""Which actions count no more, and what that did to past periods. Pure.

    reversals.apply(event)                             a `Reversed`
    reversals.correct(event)                           a `ReviewDecided`, which may change past periods too
    reversals.of_action(seq)                           which reversal holds an action back; None: none does
    reversals.of_past(board_id, past)                  what corrections made of a past period; None: nothing
    data = reversals.pack(); reversals = Reversals.unpack(data)

Rules:
- An action is taken back by at most one reversal at a time. To take that one back makes the action count again.
- The file of a past period stays as it was written. What corrections made of it stands here: rows that replace those
  of the file. A later correction of a user replaces an earlier one.
- A period that is no longer kept is forgotten here too.
- A period that only passed, because no leader ran, has the seq of the one that ended before it. It has no rows to
  correct.

The state grows by 16 bytes for an action that is taken back, and by a row for each of its users in a past period.
"""

from __future__ import annotations

from collections.abc import Collection
from operator import attrgetter

import msgspec
from msgspec.structs import replace

from engine.board_rules import PastPeriod
from engine.events import PeriodScores, Rescored, Reversed, ReviewDecided


class CorrectedPeriod(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """A past period with `count` rows since the event `seq` at `time_ms` corrected it."""

    seq: int
    time_ms: int
    count: int
    rows: tuple[Rescored, ...]


class _Packed(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    actions: list[tuple[int, int]]
    periods: list[tuple[str, int, CorrectedPeriod]]


_user_of = attrgetter("user_id")
_unpack = msgspec.msgpack.Decoder(_Packed).decode


class Reversals:
    """See above. `of_action` is O(1)."""

    def __init__(self) -> None:
        self._by_action: dict[int, int] = {}
        self._periods: dict[tuple[str, int], CorrectedPeriod] = {}

    def __bool__(self) -> bool:
        return bool(self._by_action or self._periods)

    def of_action(self, seq: int) -> int | None:
        return self._by_action.get(seq)

    def of_period(self, board_id: str, ended_seq: int) -> CorrectedPeriod | None:
        return self._periods.get((board_id, ended_seq))

    def of_past(self, board_id: str, past: PastPeriod) -> CorrectedPeriod | None:
        """Give what corrections made of a past period, one that only passed too: None for it."""
        return self.of_period(board_id, past.seq) if past.count else None

    def actions(self) -> set[int]:
        """Copy the seqs of all actions that are held back."""
        return set(self._by_action)

    def counting(self, reversal_seq: int) -> list[int]:
        """List the actions that a reversal holds back now. O(all that are held back)."""
        return sorted(action for action, reversal in self._by_action.items() if reversal == reversal_seq)

    def apply(self, event: Reversed) -> None:
        """Take over what an event says of actions and past periods."""
        for action in event.actions:
            if event.again:
                del self._by_action[action]
            else:
                assert action not in self._by_action
                self._by_action[action] = event.seq
        self.correct(event)

    def correct(self, event: Reversed | ReviewDecided) -> None:
        """Take over what an event says of past periods."""
        for period in event.periods:
            key = (period.board_id, period.ended_seq)
            self._periods[key] = _corrected(self._periods.get(key), period, event)

    def forget_periods(self, board_id: str, kept: Collection[int]) -> None:
        """Forget the past periods of a board that are no longer kept."""
        gone = [key for key in self._periods if key[0] == board_id and key[1] not in kept]
        for key in gone:
            del self._periods[key]

    def rename(self, user_id: str, pseudonym: str) -> None:
        """Let a pseudonym stand for a user who was erased, as in the files of past periods."""
        for key, period in self._periods.items():
            if any(row.user_id == user_id for row in period.rows):
                rows = [replace(row, user_id=pseudonym) if row.user_id == user_id else row for row in period.rows]
                self._periods[key] = replace(period, rows=tuple(sorted(rows, key=_user_of)))

    def parts(self) -> tuple[tuple[str, bytes], ...]:
        """Give the part of an image that this is; none if nothing was ever reversed."""
        return (("reversals", self.pack()),) if self else ()

    def pack(self) -> bytes:
        """Give the bytes of this state; none if nothing was ever reversed. Equal states have equal bytes."""
        if not self:
            return b""
        periods = [(board_id, seq, self._periods[board_id, seq]) for board_id, seq in sorted(self._periods)]
        return msgspec.msgpack.encode(_Packed(sorted(self._by_action.items()), periods))

    @classmethod
    def unpack(cls, data: bytes) -> Reversals:
        """Make the state of its bytes. Raises `msgspec.DecodeError`."""
        reversals = cls()
        if data:
            packed = _unpack(data)
            reversals._by_action = dict(packed.actions)
            reversals._periods = {(board_id, seq): period for board_id, seq, period in packed.periods}
        return reversals


def _corrected(known: CorrectedPeriod | None, period: PeriodScores, event: Reversed | ReviewDecided) -> CorrectedPeriod:
    rows = {row.user_id: row for row in (() if known is None else known.rows)}
    rows |= {row.user_id: row for row in period.rows}
    return CorrectedPeriod(event.seq, event.time_ms, period.count, tuple(rows[user_id] for user_id in sorted(rows)))
