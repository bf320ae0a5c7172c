"""Recording many increments at once: each board gets its steps together. Pure.

    ranks, seen = record(found, board_of, watched, time_ms)      the ranks on the own boards; the steps on watched ones
    ranks, seen = record_held(found, board_of, watched, time_ms) the same where boards may hold some of them

Boards do not depend on each other. So what is fed waits until the board is scored on directly, or to the end: each
board gets its steps in the order of the seqs, and many steps of one board together are quicker.

A board that holds an action does not change, and its watch does not see it. Its user may have no row, and gets none.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from itertools import groupby
from operator import itemgetter

from engine.actions import Key
from engine.board import Board
from engine.events import Incremented
from engine.scored_ranking import FedStep, Ranks
from engine.steps import Steps

FoundIncrement = tuple[Incremented, Board, Key, int, int]
"""An increment, its board, the key and mark of its action, and the slot of its user: NOBODY before the first points."""

Seen = list[tuple[str, Steps]]
"""Boards and steps. A board may be there several times: its steps are in order."""

_board_of = itemgetter(1)


class _Waiting:
    """What is fed to a board, and not recorded yet."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._steps: list[FedStep] = []
        self._events: list[Incremented] = []
        self._places: list[int] = []

    def add(self, event: Incremented, place: int, delta: int, new_score: int) -> None:
        self._steps.append((event.user_id, delta, new_score, event.seq))
        self._events.append(event)
        self._places.append(place)

    def record(self, time_ms: int) -> Steps:
        slots = self._board.feed(self._steps, time_ms)
        return Steps(
            self._events, self._board.known(slots, [user_id for user_id, _, _, _ in self._steps]), self._places
        )


def record(
    found: Sequence[FoundIncrement], board_of: Callable[[str], Board], watched: Container[str], time_ms: int
) -> tuple[list[Ranks], Seen]:
    """Set the scores of increments of one time."""
    if len(found) == 1 and not found[0][0].fed and found[0][1].board_id not in watched:  # most frames are so
        return found[0][1].record_all(found[0][:1], time_ms, found[0][4:]), []
    ranks: list[Ranks] = []
    seen: Seen = []
    waiting: dict[str, _Waiting] = {}
    for board, some in groupby(found, key=_board_of):
        board_id = board.board_id
        if board_id in waiting:
            steps = waiting.pop(board_id).record(time_ms)
            if board_id in watched:
                seen.append((board_id, steps))
        events, _, _, _, slots = zip(*some, strict=True)
        ranks += board.record_all(events, time_ms, slots)
        if board_id in watched:
            seen.append((board_id, Steps(events, board.known(slots, [event.user_id for event in events]))))
        for event in [event for event in events if event.fed]:
            for place, fed in enumerate(event.fed, 1):
                if fed.board_id not in waiting:
                    waiting[fed.board_id] = _Waiting(board_of(fed.board_id))
                waiting[fed.board_id].add(event, place, fed.delta, fed.new_score)
    for board_id, fed_steps in waiting.items():
        steps = fed_steps.record(time_ms)
        if board_id in watched:
            seen.append((board_id, steps))
    return ranks, seen


def record_held(
    found: Sequence[FoundIncrement], board_of: Callable[[str], Board], watched: Container[str], time_ms: int
) -> tuple[list[Ranks], Seen]:
    """Do the same where boards may hold some of the actions: these are recorded one by one."""
    ranks: list[Ranks] = []
    seen: Seen = []
    for is_held, some in groupby(found, key=_is_held):
        if not is_held:
            more, steps = record(list(some), board_of, watched, time_ms)
            ranks += more
            seen += steps
            continue
        for event, board, _, _, slot in some:
            if 0 in event.held:
                ranks.append(board.stay(event.user_id))
            else:
                ranks += board.record_all([event], time_ms, [slot])
                seen.append((board.board_id, Steps([event], board.known([slot], [event.user_id]))))
            for place, fed in enumerate(event.fed, 1):
                if place not in event.held:
                    waiting = _Waiting(board_of(fed.board_id))
                    waiting.add(event, place, fed.delta, fed.new_score)
                    seen.append((fed.board_id, waiting.record(time_ms)))
    return ranks, [each for each in seen if each[0] in watched]


def _is_held(found: FoundIncrement) -> bool:
    return bool(found[0].held)
