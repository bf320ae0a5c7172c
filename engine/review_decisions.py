"""Deciding a command about a review: the event, or why there is none. Pure.

    decided = decide_review(scoreboard, command, pending, seq=seq, now_ms=now_ms)

Gives a `ReviewDecided`, a `Rejection`, or the seq of the same decision before.

Rules:
- A review is decided once. The same decision again changes nothing, whatever its note; another one is refused.
- Who decides `reverse` has reversed the actions before, and names the reversal.
- What was decided earlier in the same batch counts as decided.
"""

from __future__ import annotations

from engine.commands import DecideReview, Rejection
from engine.events import ReviewDecided
from engine.reviews import DECIDED_AS
from engine.scoreboard import Scoreboard


def decide_review(
    scoreboard: Scoreboard, command: DecideReview, pending: ReviewDecided | None, *, seq: int, now_ms: int
) -> ReviewDecided | Rejection | int:
    """Decide a command. `pending` is the decision of this review earlier in the batch."""
    review = scoreboard.reviews.get(command.review_id)
    if review is None:
        message = f"there is no review {command.review_id!r}, or it was decided long ago and is no longer kept"
        return Rejection("NOT_FOUND", message, {"field": "reviewId", "reviewId": command.review_id})
    wanted = DECIDED_AS[command.decision]
    state = review.state if pending is None else DECIDED_AS[pending.decision]
    if state == "open" and command.decision == "reverse" and not _holds_back(scoreboard, command):
        message = f"{command.reversal_id!r} is no reversal that holds actions back: reverse them first"
        return Rejection("CONFLICT", message, {"field": "reversalId", "reversalId": command.reversal_id})
    if state == "open":
        return ReviewDecided(
            seq, now_ms, review.board_id, command.review_id, command.decision, command.reversal_id, command.note,
            command.caller,
        )  # fmt: skip
    if state == wanted:
        return review.decided_seq if pending is None else pending.seq
    message = f"review {command.review_id!r} was decided already, and is {state}"
    return Rejection("CONFLICT", message, {"field": "decision", "reviewId": command.review_id, "state": state})


def _holds_back(scoreboard: Scoreboard, command: DecideReview) -> bool:
    """Whether the named reversal holds actions back now."""
    seq = scoreboard.action_seq(command.reversal_id)
    return seq is not None and bool(scoreboard.reversals.counting(seq))
