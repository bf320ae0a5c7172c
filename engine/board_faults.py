"""Why nothing counts on a board: it is closed, its season is over, or has not begun. Pure.

fault = write_fault(board_id, definition, now_ms)            None: the board is open
"""

from __future__ import annotations

from engine.board_rules import BoardDefinition
from engine.commands import Rejection


def write_fault(board_id: str, definition: BoardDefinition, now_ms: int) -> Rejection | None:
    """Say why nothing counts on a board now; None: it is open."""
    if definition.closed:
        return closed(board_id)
    if definition.over:
        return over(board_id, definition)
    season = definition.rules.season
    if season is not None and season.begins_ms is not None and now_ms < season.begins_ms:
        return not_open(board_id, definition)
    return None


def unwritten(board_id: str) -> Rejection:
    """Refuse a write to a board of the configuration which the log does not have yet."""
    message = f"board {board_id!r} of the configuration is not in the log yet: is the disk full? Try again"
    return Rejection("BOARD_NOT_OPEN", message, {"field": "boardId", "boardId": board_id})


def closed(board_id: str) -> Rejection:
    """Refuse a write to a closed board."""
    message = f"board {board_id!r} is closed: it can be read, but nothing is written to it any more"
    return Rejection("BOARD_CLOSED", message, {"field": "boardId", "boardId": board_id})


def over(board_id: str, definition: BoardDefinition) -> Rejection:
    """Refuse a write after the end of a season."""
    assert definition.period is not None
    message = f"the season {definition.period.id!r} of board {board_id!r} is over; put a new period to begin another"
    return Rejection("BOARD_CLOSED", message, {"field": "boardId", "boardId": board_id})


def not_open(board_id: str, definition: BoardDefinition) -> Rejection:
    """Refuse a write before the beginning of a season."""
    message = f"the season of board {board_id!r} has not begun yet"
    season = definition.rules.season
    begins_ms = 0 if season is None or season.begins_ms is None else season.begins_ms
    return Rejection("BOARD_NOT_OPEN", message, {"field": "boardId", "boardId": board_id, "startsAtMs": begins_ms})
