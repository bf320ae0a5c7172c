"""Deciding many increments together that differ in little: new actions, on one board, by one reason of fixed points.

    found = decide_alike(increments, keys, place, begun, seq, now_ms)       None: they must be decided one by one

Most batches are so. `engine.batch` decides any commands one by one, and each of these in the same way. What is the same
for all of them is looked up and asked once here, and the rest goes from column to column.

`place` has the scores of users after this batch, and `begun` the actions that are decided already: both are completed.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat

from engine.actions import Key
from engine.board import Board
from engine.commands import Increment, Rejection
from engine.counting import too_high
from engine.events import Fed, Incremented
from engine.limits import SCORE_MAX
from engine.recording import FoundIncrement

FedPlace = tuple[Board, int, dict[str, int]]
"""A board that is fed, the points of a reason there, and the scores of its users after this batch."""

Place = tuple[Board, int, dict[str, int], Sequence[FedPlace]]
"""A board, the points of a reason there, the scores of its users after this batch, and what it feeds. 0 points: the
rules of one of the boards are more than fixed points (`engine.counting`), or it may hold actions."""


def are_alike(increments: Sequence[Increment]) -> bool:
    """Whether increments name one board and one reason, and no value."""
    first = increments[0]
    boards, reasons = [each.board_id for each in increments], [each.reason for each in increments]
    return (
        boards.count(first.board_id) == reasons.count(first.reason) == len(increments)
        and [each.value for each in increments].count(None) == len(increments)
    )  # fmt: skip


def decide_alike(
    increments: Sequence[Increment], keys: Sequence[Key], place: Place, begun: dict[Key, FoundIncrement], seq: int,
    now_ms: int,
) -> list[FoundIncrement] | None:  # fmt: skip
    """Decide increments that are alike, of actions that the index has not. Their events have the seqs after `seq`."""
    board, points, scores, feeds = place
    if not points or feeds or len(set(keys)) < len(keys) or not begun.keys().isdisjoint(keys):
        return None
    board_id, reason, user_ids = board.board_id, increments[0].reason, [each.user_id for each in increments]
    slots, known, marks = board.columns_of(user_ids)
    new_scores = []
    for user_id, score in zip(user_ids, known, strict=True):
        scores[user_id] = new_score = scores.get(user_id, score) + points
        new_scores.append(new_score)
    if max(new_scores) > SCORE_MAX:
        for user_id in user_ids:
            scores[user_id] -= points
        return None
    events = [
        Incremented(at, now_ms, board_id, each.user_id, each.action_id, points, reason, each.caller, new_score)
        for at, (each, new_score) in enumerate(zip(increments, new_scores, strict=True), seq + 1)
    ]
    all_marks = board.complete(marks, slots, user_ids, reason)
    found: list[FoundIncrement] = [*zip(events, repeat(board, len(events)), keys, all_marks, slots, strict=True)]
    begun.update(zip(keys, found, strict=True))
    return found


def feed_points(user_id: str, feeds: Sequence[FedPlace]) -> tuple[Fed, ...] | Rejection:
    """Add fixed points on the boards that are fed."""
    fed: tuple[Fed, ...] = ()
    for board, points, scores in feeds:
        score = scores.get(user_id)
        new_score = ((board.score(user_id) or 0) if score is None else score) + points
        if new_score > SCORE_MAX:
            for (_, _, added), each in zip(feeds, fed, strict=False):  # those before this one
                added[user_id] -= each.delta
            return too_high(user_id, board.board_id)
        scores[user_id] = new_score
        fed += (Fed(board.board_id, points, new_score, points),)
    return fed
