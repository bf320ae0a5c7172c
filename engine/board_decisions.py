"""Deciding about boards themselves: from a command to the events that must be logged. Pure.

    events = decide_board(scoreboard, PutBoard("cup", rules, "ops"), made=set(), seq=8, now_ms=ms, period_at=period_at)

Rules:
- A command that would change nothing is answered as unchanged: it may be sent again.
- How scores grow and which one is better never changes while the board has scores, or holds actions. The old scores
  would mean nothing, and what is held will be counted by the rules under which it came.
- A closed board stays closed.
- A reveal needs the scores that count now, so it is refused once the frozen period has ended. Then its file has them.
- New rules for periods hold at once: the running period keeps its scores, and gets the id and the end that the new
  rules have for now. Without rules it goes on for ever. After a season is over, new rules begin an empty period.
"""

from __future__ import annotations

from collections.abc import Sequence, Set

from engine.board import Board
from engine.board_faults import closed, not_open, over
from engine.board_rules import BoardDefinition, BoardRules, as_logged
from engine.commands import (
    BoardCommand,
    CloseBoard,
    FreezeBoard,
    PutBoard,
    Rejection,
    ResetBoard,
    RevealRows,
    UnfreezeBoard,
)
from engine.events import BoardClosed, BoardEvent, BoardFrozen, BoardPut, BoardUnfrozen, PeriodChanged, RowsRevealed
from engine.periods import PeriodAt, first_period, reset
from engine.schedule import Period
from engine.scoreboard import Scoreboard

Decided = Sequence[BoardEvent] | Rejection
"""The events; none: nothing has to change."""


def decide_board(
    scoreboard: Scoreboard, command: BoardCommand, *, made: Set[str], seq: int, now_ms: int, period_at: PeriodAt
) -> Decided:
    """Decide a command; its first event has this seq. `made` are the boards that commands beside it put."""
    if isinstance(command, PutBoard):
        return _put(scoreboard, command, made, seq, now_ms, period_at)
    board = scoreboard.board(command.board_id)
    definition = None if board is None or not board.is_logged else board.definition
    if definition is None:
        return Rejection("NOT_FOUND", f"there is no board {command.board_id!r}", {"boardId": command.board_id})
    if isinstance(command, CloseBoard):
        return () if definition.closed else (BoardClosed(seq, now_ms, command.board_id, command.caller),)
    if isinstance(command, FreezeBoard):
        return _freeze(definition, command, seq, now_ms)
    if isinstance(command, UnfreezeBoard):
        is_idle = definition.frozen is None and definition.freeze_at_ms is None
        return () if is_idle else (BoardUnfrozen(seq, now_ms, command.board_id, command.caller),)
    if isinstance(command, RevealRows):
        assert board is not None
        return _reveal(board, definition, command, seq, now_ms)
    return _reset(definition, command, seq, now_ms, period_at)


def _put(
    scoreboard: Scoreboard, command: PutBoard, made: Set[str], seq: int, now_ms: int, period_at: PeriodAt
) -> Decided:
    board_id, rules = command.board_id, command.rules
    known = set(scoreboard.served()) | made
    for fed in rules.feeds:
        if fed not in known:
            message = f"feeds names an unknown board: {fed!r}"
            return Rejection("INVALID_REQUEST", message, {"field": "feeds", "allowed": sorted(known)})
    if waiting := scoreboard.unwritten() - made - {board_id}:
        names = ", ".join(sorted(waiting))
        message = f"boards of the configuration are not in the log yet ({names}): is the disk full? Try again"
        return Rejection("CONFLICT", message, {"field": "boardId", "boardId": board_id})
    board = scoreboard.boards.get(board_id)
    definition = None if board is None or not board.is_logged else board.definition
    if definition is not None and definition.closed:
        return closed(board_id)
    if definition is not None and definition.rules == rules:
        return ()
    begins_anew = (
        definition is not None
        and definition.over
        and (definition.rules.schedule, definition.rules.season) != (rules.schedule, rules.season)
    )
    holds = board_id in scoreboard.reviews.holds.by_board()
    if holds or (board is not None and len(board) and not begins_anew):
        old = BoardRules({}) if definition is None else definition.rules
        for field, now, then in (("score", rules.score, old.score), ("order", rules.order, old.order)):
            if now != then:
                what = "holds actions, which will be" if holds else "has scores, which were"
                message = f"{field} can't become {now!r} while the board {what} counted by {then!r}"
                return Rejection("CONFLICT", message, {"field": field, "boardId": board_id})
    ends_ms = None if rules.season is None else rules.season.ends_ms
    is_new = definition is None or definition.rules.season != rules.season
    if is_new and ends_ms is not None and ends_ms <= now_ms:
        return Rejection("INVALID_REQUEST", "period.ends must be in the future", {"field": "period.ends"})
    try:
        return _put_events(definition, command, seq, now_ms, period_at)
    except ValueError as fault:
        return Rejection("INVALID_REQUEST", f"period can't be used: {fault}", {"field": "period"})


def _put_events(
    definition: BoardDefinition | None, command: PutBoard, seq: int, now_ms: int, period_at: PeriodAt
) -> Decided:
    """Give the events of new rules. Raises ValueError if the calendar has no period for now."""
    board_id, rules, caller = command.board_id, as_logged(command.rules), command.caller
    if definition is None:
        return (BoardPut(seq, now_ms, board_id, rules, caller, first_period(rules, (), now_ms, period_at)),)
    old = definition.rules
    same = (old.schedule, old.season) == (rules.schedule, rules.season)
    if same:
        return (BoardPut(seq, now_ms, board_id, rules, caller, definition.period),)
    past = [each.period.id for each in definition.past]
    if definition.over:
        last = definition.period
        assert last is not None
        following = first_period(rules, [*past, last.id], now_ms, period_at)
        # A clock that was ahead may have ended it later than now, and was corrected since.
        ended_ms = now_ms if last.ends_ms is None else min(last.ends_ms, now_ms)
        ended = Period(last.id, min(last.begins_ms, now_ms), ended_ms)
        changed = PeriodChanged(seq, now_ms, board_id, ended, following, False, (), caller)
        return (changed, BoardPut(seq + 1, now_ms, board_id, rules, caller, following))
    running, period = definition.period, first_period(rules, past, now_ms, period_at)
    if running is not None and period is None:
        period = Period(running.id, running.begins_ms, None)
    return (BoardPut(seq, now_ms, board_id, rules, caller, period),)


def _reset(definition: BoardDefinition, command: ResetBoard, seq: int, now_ms: int, period_at: PeriodAt) -> Decided:
    board_id = command.board_id
    if definition.closed or definition.over:
        return closed(board_id) if definition.closed else over(board_id, definition)
    running = definition.period
    if command.period is not None and (running is None or running.id != command.period):
        now = "none with an id does" if running is None else f"{running.id!r} does"
        message = f"the period {command.period!r} does not run on board {board_id!r}: {now}"
        return Rejection("CONFLICT", message, {"field": "period", "boardId": board_id})
    if running is not None and running.begins_ms > now_ms and definition.rules.season is not None:
        return not_open(board_id, definition)
    try:
        return (reset(board_id, definition, command.caller, seq, now_ms, period_at),)
    except ValueError as fault:
        return Rejection("INVALID_REQUEST", f"the next period can't be known: {fault}", {"field": "boardId"})


def _freeze(definition: BoardDefinition, command: FreezeBoard, seq: int, now_ms: int) -> Decided:
    board_id, at_ms = command.board_id, command.at_ms
    if at_ms is None:
        return () if definition.frozen is not None else (BoardFrozen(seq, now_ms, board_id, None, command.caller),)
    if definition.frozen is not None:
        message = f"board {board_id!r} is frozen already; unfreeze it before you plan another freeze"
        return Rejection("CONFLICT", message, {"field": "at", "boardId": board_id})
    if at_ms <= now_ms:
        return Rejection(
            "INVALID_REQUEST", "at must be in the future; without it the board is frozen now", {"field": "at"}
        )
    return () if at_ms == definition.freeze_at_ms else (BoardFrozen(seq, now_ms, board_id, at_ms, command.caller),)


def _reveal(board: Board, definition: BoardDefinition, command: RevealRows, seq: int, now_ms: int) -> Decided:
    public = board.frozen
    details: dict[str, str | int | list[str]] = {"field": "boardId", "boardId": command.board_id}
    if public is None or public.definition is None:
        return Rejection(
            "CONFLICT", f"board {command.board_id!r} is not frozen, so there is nothing to reveal", details
        )
    if public.definition.past != definition.past:
        message = f"the period in which board {command.board_id!r} was frozen has ended: unfreeze it"
        return Rejection("CONFLICT", message, details)
    return (RowsRevealed(seq, now_ms, command.board_id, command.step, command.caller),)
