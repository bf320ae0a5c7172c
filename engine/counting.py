"""What an action does by the rules of its board, where these are more than fixed points. Pure.

    worth = worth_of(rules, board_id, reason, value)          a number, or a `Rejection` that names the field
    fed, held = feed(...)                                      what it does on the boards that its board feeds

Rules:
- A reason with a range needs a value within it. A reason with fixed points takes none: callers choose no numbers.
- A fed board counts by its own catalogue. It leaves out an action whose reason it does not list, and so does a board
  that is not open. Where it has a range, its value is what the action was worth on its own board, and must be within.
- A board that holds the user's actions is left as it is: the change is 0, and the score is the one that is shown.
- A score above SCORE_MAX on any of the boards refuses the action on all of them: it counts on all or on none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from engine.board import Board
from engine.board_faults import write_fault
from engine.board_rules import BoardRules, Range, Worth, next_score
from engine.commands import Increment, Rejection
from engine.events import Fed
from engine.limits import SCORE_MAX

Score = Callable[[Board, str], int | None]
"""Gives a user's score after what was decided before, None before the first points."""


Held = Callable[[Board, str], bool | Rejection]
"""Tells whether a board holds the next action of a user, or why it can't."""


def never_held(_board: Board, _user_id: str) -> bool:
    """Tell that no board holds anything."""
    return False


def worth_of(rules: BoardRules, board_id: str, reason: str, value: int | None) -> int | Rejection:
    """Give what an action is worth. The reason must be in the catalogue."""
    worth = rules.points[reason]
    if isinstance(worth, Range):
        if value is None:
            return invalid("value", f"value is missing: {reason!r} on board {board_id!r} takes one, {_ends(worth)}")
        if not worth.min <= value <= worth.max:
            return invalid(
                "value", f"value {value} is not allowed: {reason!r} on board {board_id!r} takes {_ends(worth)}"
            )
        return value
    if value is not None:
        return invalid("value", f"{reason!r} on board {board_id!r} has fixed points and takes no value")
    return worth


def fed_boards(
    rules: BoardRules, boards: dict[str, Board], reason: str, now_ms: int
) -> Iterator[tuple[Board, BoardRules, Worth]]:
    """Yield the boards on which an action counts too, with their rules, and what the reason is worth there."""
    for board_id in rules.feeds:
        board = boards.get(board_id)
        if board is None or board.definition is None or write_fault(board_id, board.definition, now_ms) is not None:
            continue
        worth = board.definition.rules.points.get(reason)
        if worth is not None:
            yield board, board.definition.rules, worth


def feed(
    rules: BoardRules, boards: dict[str, Board], command: Increment, worth: int, score: Score, holds: Held, now_ms: int
) -> tuple[tuple[Fed, ...], tuple[int, ...]] | Rejection:
    """Decide what an action does on boards that its board feeds. The places, from 1 on, are of those that hold it."""
    fed: list[Fed] = []
    places: list[int] = []
    for board, theirs, listed in fed_boards(rules, boards, command.reason, now_ms):
        board_id, its_worth = board.board_id, worth
        if not isinstance(listed, Range):
            its_worth = listed
        elif not listed.min <= worth <= listed.max:
            what = f"{worth} is not allowed on board {board_id!r}, which is fed: it takes {_ends(listed)}"
            return invalid("value", f"a value of {what}")
        old = score(board, command.user_id)
        held = holds(board, command.user_id)
        if isinstance(held, Rejection):
            return held
        if held:
            fed.append(Fed(board_id, 0, old or 0, its_worth))
            places.append(len(fed))
            continue
        new_score = next_score(theirs, old, its_worth)
        if new_score > SCORE_MAX:
            return too_high(command.user_id, board_id)
        fed.append(Fed(board_id, new_score - (old or 0), new_score, its_worth))
    return tuple(fed), tuple(places)


def invalid(field: str, message: str) -> Rejection:
    """Refuse a command for one of its fields."""
    return Rejection("INVALID_REQUEST", message, {"field": field})


def unknown(field: str, value: str, what: str, known: Iterable[str]) -> Rejection:
    """Refuse a name that is not among those that are known."""
    allowed = sorted(known)
    message = f"unknown {what}: {value!r}; known: {', '.join(allowed)}"
    return Rejection("INVALID_REQUEST", message, {"field": field, "allowed": allowed})


def too_high(user_id: str, board_id: str) -> Rejection:
    """Refuse an action that would pass the largest score."""
    return invalid(
        "userId", f"the score of {user_id!r} on board {board_id!r} would pass the largest score, {SCORE_MAX}"
    )


def _ends(worth: Range) -> str:
    return f"{worth.min} to {worth.max}"


def erased(command: Increment, seq: int) -> Rejection:
    """Refuse an action that was applied to a user who was erased since."""
    message = f"action {command.action_id!r} was applied to a user who was erased since; nothing was changed"
    return Rejection("ERASED", message, {"field": "actionId", "actionId": command.action_id, "seq": seq})


def conflict(command: Increment, seq: int) -> Rejection:
    """Refuse an action that was applied to something else."""
    message = f"action {command.action_id!r} was already applied to another user, board or reason; nothing was changed"
    return Rejection("CONFLICT", message, {"field": "actionId", "actionId": command.action_id, "seq": seq})
