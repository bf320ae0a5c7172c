"""The actions that boards hold: they do not count there until somebody decides a review of their user. Pure.

    holds.add(event)                                   an `Incremented`, after its flags were found
    board_id, user_id in place; holds.of(place)        the seqs that this board holds of this user, ascending
    seqs = holds.release(place)                        a review of the two was decided

Theory: an action belongs to several boards, and each of them is watched on its own. So an action is held by boards, not
as a whole. An action counts on a board exactly if no reversal holds it back and the board does not hold it.

Rules:
- Only the leader decides what is held (`engine.foresight`). The event says which of its boards hold it.
- What is held stays held until the decision, over the end of a period, and if the board is no longer watched.
- A board holds at most HELD_ACTIONS_MAX actions of a user, all boards together HELD_MAX. Beyond that the leader refuses
  actions of users who are held.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import pairwise

from engine.erased import pack_seqs, unpack_seqs
from engine.events import Incremented

Place = tuple[str, str]
"""A board and a user."""

Packed = list[tuple[str, str, bytes]]
"""Board, user and seqs of each place, as an image has them."""


class Holds:
    """See above. 8 bytes an action."""

    def __init__(self) -> None:
        self._seqs: dict[Place, array[int]] = {}
        self.count = 0  # of all places

    def __bool__(self) -> bool:
        return bool(self._seqs)

    def of(self, place: Place) -> Sequence[int]:
        """Give the seqs that a board holds of a user, ascending."""
        return self._seqs.get(place, ())

    def has(self, place: Place, seq: int) -> bool:
        """Tell whether a board holds the action of an event."""
        seqs = self._seqs.get(place)
        if seqs is None:
            return False
        at = bisect_left(seqs, seq)
        return at < len(seqs) and seqs[at] == seq

    def boards_of(self, event: Incremented) -> set[str]:
        """Give the boards that hold the action of an event still."""
        boards = boards_that_hold(event) if event.held else ()
        return {board_id for board_id in boards if self.has((board_id, event.user_id), event.seq)}

    def places(self) -> list[Place]:
        """List the places that hold something."""
        return list(self._seqs)

    def by_board(self) -> dict[str, int]:
        """Count what each board holds."""
        counts: dict[str, int] = {}
        for (board_id, _), seqs in self._seqs.items():
            counts[board_id] = counts.get(board_id, 0) + len(seqs)
        return counts

    def add(self, event: Incremented, is_here: Callable[[str], bool] = lambda _: True) -> None:
        """Let the boards that an event names hold its action, as far as they are here."""
        for board_id in filter(is_here, boards_that_hold(event)):
            self._seqs.setdefault((board_id, event.user_id), array("Q")).append(event.seq)
            self.count += 1

    def release(self, place: Place) -> Sequence[int]:
        """Hold nothing of a user on a board any more; give what was held."""
        seqs = self._seqs.pop(place, ())
        self.count -= len(seqs)
        return seqs

    def forget(self, user_id: str) -> None:
        """Forget a user who was erased."""
        for place in [place for place in self._seqs if place[1] == user_id]:
            self.release(place)

    def pack(self) -> Packed:
        """Give what is held in the order of boards and users: equal holds give equal lists."""
        return [(*place, pack_seqs(self._seqs[place])) for place in sorted(self._seqs)]

    @classmethod
    def unpack(cls, packed: Packed) -> Holds:
        """Make the holds of a list."""
        holds = cls()
        for board_id, user_id, seqs in packed:
            held = holds._seqs[board_id, user_id] = array("Q", unpack_seqs(seqs))
            holds.count += len(held)
        return holds

    def _check(self) -> None:
        assert self.count == sum(map(len, self._seqs.values()))
        for seqs in self._seqs.values():
            assert seqs, "a place that holds nothing is not kept"
            assert all(a < b for a, b in pairwise(seqs))


def boards_that_hold(event: Incremented) -> list[str]:
    """List the boards that hold the action of an event."""
    return [event.fed[at - 1].board_id if at else event.board_id for at in event.held]
