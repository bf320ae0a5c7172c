"""Deciding about boards themselves: from a command to the event that must be logged. Pure.

    decided = decide_board(scoreboard, PutBoard("cup", rules, "ops"), seq=8, now_ms=now_ms)

Rules:
- A command that would change nothing is answered as unchanged: it may be sent again.
- How scores grow and which one is better never changes while the board has scores. The old scores would mean nothing.
- A closed board stays closed.
"""

from __future__ import annotations

from collections.abc import Set

from engine.board_rules import BoardRules
from engine.commands import BoardCommand, CloseBoard, PutBoard, Rejection
from engine.events import BoardClosed, BoardEvent, BoardPut
from engine.scoreboard import Scoreboard


def decide_board(
    scoreboard: Scoreboard, command: BoardCommand, made: Set[str], seq: int, now_ms: int
) -> BoardEvent | Rejection | None:
    """Decide a command; None: nothing has to change. `made` are the boards that commands before it put."""
    if isinstance(command, PutBoard):
        return _put(scoreboard, command, made, seq, now_ms)
    return _close(scoreboard, command, seq, now_ms)


def _put(
    scoreboard: Scoreboard, command: PutBoard, made: Set[str], seq: int, now_ms: int
) -> BoardEvent | Rejection | None:
    board_id, rules = command.board_id, command.rules
    known = set(scoreboard.served()) | made
    for fed in rules.feeds:
        if fed not in known:
            return _invalid("feeds", f"feeds names an unknown board: {fed!r}", allowed=sorted(known))
    board = scoreboard.boards.get(board_id)
    definition = None if board is None or not board.is_logged else board.definition
    if definition is not None and definition.closed:
        return closed(board_id)
    if definition is not None and definition.rules == rules:
        return None
    if board is not None and len(board):
        old = BoardRules({}) if definition is None else definition.rules
        for field, now, then in (("score", rules.score, old.score), ("order", rules.order, old.order)):
            if now != then:
                message = f"{field} can't become {now!r} while the board has scores, which were counted by {then!r}"
                return Rejection("CONFLICT", message, {"field": field, "boardId": board_id})
    return BoardPut(seq, now_ms, board_id, rules, command.caller)


def _close(scoreboard: Scoreboard, command: CloseBoard, seq: int, now_ms: int) -> BoardEvent | Rejection | None:
    board = scoreboard.board(command.board_id)
    if board is None or board.definition is None or not board.is_logged:
        return Rejection("NOT_FOUND", f"there is no board {command.board_id!r}", {"boardId": command.board_id})
    if board.definition.closed:
        return None
    return BoardClosed(seq, now_ms, command.board_id, command.caller)


def closed(board_id: str) -> Rejection:
    """Refuse a write to a closed board."""
    message = f"board {board_id!r} is closed: it can be read, but nothing is written to it any more"
    return Rejection("BOARD_CLOSED", message, {"field": "boardId", "boardId": board_id})


def _invalid(field: str, message: str, allowed: list[str]) -> Rejection:
    return Rejection("INVALID_REQUEST", message, {"field": field, "allowed": allowed})
