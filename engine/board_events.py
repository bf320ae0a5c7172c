"""Applying an event about a board itself: its definition, its period, what the public sees of it. Pure.

    ended = apply_to_board(board, event)               the ranking of the period that ended, None if none did

Rule: nothing is decided here, and nothing is computed from a calendar. The event says all of it.
"""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from engine.board import Board, Final
from engine.board_rules import BoardDefinition, Frozen, PastPeriod
from engine.events import BoardClosed, BoardEvent, BoardFrozen, BoardPut, BoardUnfrozen, PeriodChanged, RowsRevealed
from engine.frozen_board import FrozenBoard
from engine.ranking import TOP_WATCHED, Ranking


class EndedPeriod(msgspec.Struct, frozen=True):
    """The final ranking of a period. Nothing changes it any more. After a replay its order is not built."""

    past: PastPeriod
    ranking: Ranking


def apply_to_board(board: Board, event: BoardEvent) -> EndedPeriod | None:
    """Apply an event; give the period that it ended."""
    old = board.definition if board.is_logged else None
    ended: EndedPeriod | None = None
    if isinstance(event, BoardPut):
        definition = _put(old, event)
    else:
        assert old is not None
        if isinstance(event, PeriodChanged):
            definition, ended = _change_period(board, old, event)
        elif isinstance(event, RowsRevealed):
            definition = _reveal(board, old, event)
        else:
            definition = _redefined(old, event)
    board.define(definition, event.seq)
    if definition.frozen is None:
        board.frozen = None
    elif board.frozen is None:
        board.frozen = FrozenBoard.of(board)
    return ended


def _put(old: BoardDefinition | None, event: BoardPut) -> BoardDefinition:
    if old is None:
        return BoardDefinition(event.rules, event.time_ms, event.period)
    return replace(old, rules=event.rules, period=event.period, over=old.over and event.period == old.period)


def _redefined(old: BoardDefinition, event: BoardClosed | BoardFrozen | BoardUnfrozen) -> BoardDefinition:
    if isinstance(event, BoardClosed):
        return replace(old, closed=True)
    if isinstance(event, BoardUnfrozen):
        return replace(old, frozen=None, freeze_at_ms=None)
    if event.at_ms is not None:
        return replace(old, freeze_at_ms=event.at_ms)
    return replace(old, freeze_at_ms=None, frozen=Frozen(event.seq, event.time_ms))


def _change_period(
    board: Board, old: BoardDefinition, event: PeriodChanged
) -> tuple[BoardDefinition, EndedPeriod | None]:
    past = PastPeriod(event.ended, event.seq, board.users_shown)
    if board.is_ordered and not old.over:
        board.final = Final(past, board.final_rows(0, TOP_WATCHED))
    if event.over:
        return replace(old, over=True), None
    passed = (PastPeriod(period, event.seq, 0) for period in event.passed)
    known, keep = (*old.past, past, *passed), old.rules.keep_periods
    forgotten_seq = known[-keep - 1].seq if len(known) > keep else old.forgotten_seq
    begun_ms = event.time_ms if event.following is None else event.following.begins_ms
    definition = replace(
        old, begun_ms=begun_ms, period=event.following, past=known[-keep:], over=False, forgotten_seq=forgotten_seq
    )
    return definition, EndedPeriod(past, board.end_period(passed=bool(event.passed)))


def _reveal(board: Board, old: BoardDefinition, event: RowsRevealed) -> BoardDefinition:
    public, frozen = board.frozen, old.frozen
    assert isinstance(public, FrozenBoard)
    assert public.definition is not None
    assert frozen is not None
    if public.reveal(board, event.step, event.seq):
        return replace(old, frozen=None)
    frozen = replace(frozen, revealed=len(public.revealed))
    public.definition = replace(public.definition, frozen=frozen)
    return replace(old, frozen=frozen)
