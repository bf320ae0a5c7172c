"""What a state forgets of a user who was erased. Pure.

    forget_user(event, boards, users, actions, reversals, reviews)          a `UserErased`

Rules:
- Nothing that a state keeps has the id or the name afterwards. Where a place must stay, the pseudonym takes it: in the
  corrections of past periods.
- The same comes out if the events before were rewritten, and had the pseudonym all along (`engine.rewriting`).
- What the user did stays done: scores and ranks of others, points of past periods, flags that were counted.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from engine.actions import Actions
from engine.board import Board
from engine.erased import unpack_seqs
from engine.events import UserErased
from engine.frozen_board import FrozenBoard
from engine.reversals import Reversals
from engine.reviews import Reviews
from engine.users import Users


def forget_user(
    event: UserErased, boards: Iterable[Board], users: Users, actions: Actions, reversals: Reversals, reviews: Reviews
) -> None:
    """Apply an erasure. O(users) on each board that has the user, and O(actions)."""
    for board in boards:
        for shown in (board,) if board.frozen is None else (board, board.frozen):
            moves = shown.leave([event.user_id], event.seq)
            if shown is board:
                reviews.leave(board.board_id, moves)
            shown.past_ranks = shown.past_ranks.forgetting(event.user_id)
        if isinstance(board.frozen, FrozenBoard):
            _count_revealed(board, board.frozen)
    users.forget(event.user_id)
    actions.forget(unpack_seqs(event.actions))
    reversals.rename(event.user_id, event.pseudonym)
    reviews.forget(event.user_id, event.pseudonym)


def _count_revealed(board: Board, public: FrozenBoard) -> None:
    """Let a frozen board say how many of its rows were revealed: the user's may have been one."""
    for shown in (board, public):
        definition = shown.definition
        if definition is not None and definition.frozen is not None:
            frozen = replace(definition.frozen, revealed=len(public.revealed))
            shown.definition = replace(definition, frozen=frozen)
