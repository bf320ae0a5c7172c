"""What boards hold of the actions of a batch, before any of them is applied. Pure.

    foresight = Foresight(scoreboard, now_ms)          one for each batch
    foresight.holds(board)                             False: nothing is ever held there
    found = foresight.held(board, user_id)             True, False, or why the action is refused
    foresight.note(event)                              an increment of the batch, in order

A board holds what a user does from the event on that comes after the one that was flagged. Both may be in one batch,
and a batch changes no state. So a copy of what the watch knows of this user sees the events of the batch first. Most
users have one action in a batch: for them nothing is copied.

Rules:
- What is foreseen is what the watch finds when the events are applied. Near the bound of open reviews, where that
  depends on all others too, nothing is foreseen: the hold then begins with the next batch.
- A command about a review is in a batch of its own. So who is on the queue stays there during a batch.
"""

from __future__ import annotations

from engine.board import Board
from engine.commands import Rejection
from engine.events import Incremented
from engine.holds import Place
from engine.limits import HELD_ACTIONS_MAX, HELD_MAX, OPEN_HOLDS_MORE, OPEN_REVIEWS_MAX
from engine.scoreboard import Scoreboard
from engine.steps import Steps
from engine.watch import Watch


class Foresight:
    """See above."""

    def __init__(self, scoreboard: Scoreboard, now_ms: int) -> None:
        self._reviews = scoreboard.reviews
        self._holding, self._is_open = self._reviews.holding, self._reviews.is_open
        self._now_ms = now_ms
        self._steps: dict[Place, list[tuple[Incremented, int]]] = {}
        self._copies: dict[Place, Watch] = {}
        self._limits: dict[str, list[int | None]] = {}
        self._flagged: set[Place] = set()
        self._held: dict[Place, int] = {}
        self._held_count = 0

    def holds(self, board: Board) -> bool:
        """Whether the watch of a board says `hold`."""
        return board.board_id in self._holding

    def held(self, board: Board, user_id: str) -> bool | Rejection:
        """Tell whether a board holds the next action of a user, or why it can't."""
        place = (board.board_id, user_id)
        if place[0] not in self._holding:
            return False
        # Most users have no action in this batch yet, and are not on the queue.
        if not self._is_open(place) and (place not in self._steps or not self._is_flagged(board, place)):
            return False
        holds = self._reviews.holds
        if len(holds.of(place)) + self._held.get(place, 0) >= HELD_ACTIONS_MAX:
            return _no_room(place, f"{HELD_ACTIONS_MAX} actions of {user_id!r} wait")
        if holds.count + self._held_count >= HELD_MAX:
            return _no_room(place, f"{HELD_MAX} actions wait on all boards")
        return True

    def note(self, event: Incremented) -> None:
        """Note an increment: what it does on boards that hold, and which of them hold it."""
        user_id, steps = event.user_id, self._steps
        boards = (event.board_id, *[fed.board_id for fed in event.fed]) if event.fed else (event.board_id,)
        for at, board_id in enumerate(boards):
            place = (board_id, user_id)
            if at in event.held:
                self._held[place] = self._held.get(place, 0) + 1
                self._held_count += 1
            elif place in steps:
                steps[place].append((event, at))
            elif board_id in self._holding:
                steps[place] = [(event, at)]

    def _is_flagged(self, board: Board, place: Place) -> bool:
        """Whether an action that was noted puts the user on the queue."""
        steps = self._steps.get(place)
        others = max(self._reviews.open_count, OPEN_REVIEWS_MAX)  # boards that only flag bring no more
        if steps and others + len(self._steps) <= OPEN_REVIEWS_MAX + OPEN_HOLDS_MORE:
            copy = self._copies.get(place)
            if copy is None:
                copy = self._copies[place] = self._copy(board, place)
            events, places = [event for event, _ in steps], [at for _, at in steps]
            if copy.see(Steps(events, [0] * len(events), places), self._now_ms):
                self._flagged.add(place)
            steps.clear()
        return place in self._flagged

    def _copy(self, board: Board, place: Place) -> Watch:
        board_id, user_id = place
        watch = self._reviews.watches[board_id]
        limits = self._limits.get(board_id)
        if limits is None:
            limits = self._limits[board_id] = watch.limits_at(self._now_ms, board)
        return watch.of_one(board.slot(user_id), user_id, limits)


def _no_room(place: Place, what: str) -> Rejection:
    board_id, user_id = place
    message = f"board {board_id!r} holds the actions of {user_id!r}, and no more: {what} for a decision (GET /reviews)"
    return Rejection("CONFLICT", message, {"field": "userId", "userId": user_id, "boardId": board_id})
