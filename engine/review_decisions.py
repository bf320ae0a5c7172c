"""Deciding a command about a review: the events, or why there are none. Pure.

    decided = decide_review(scoreboard, command, pending, seq=seq, now_ms=now_ms)

Gives a `ReviewDecision`, a `Rejection`, or the seq of the same decision before.

Rules:
- A review is decided once. The same decision again changes nothing, whatever its note; another one is refused. So is
  one that names another reversal than the one that took the points back.
- `accept` lets what the board holds of the user count, in its order. The event has the scores that come of it.
- `reverse` takes back what the user did on the board since the review's `since_ms`, and all that the board holds, on
  every board that the actions fed. The reversal and the decision are in one frame.
- `reverse` may name a reversal that was made before. It must hold actions back, and no held action may be left.
- After a decision the board holds nothing of the user. So an action counts there exactly if no reversal holds it back.
- What was decided earlier in the same batch counts as decided.
- A rejection with `again` in its details is no answer: what must be recounted was not, and the sender gathers it anew.
"""

from __future__ import annotations

import msgspec

from engine.actions import key_of, mark_of
from engine.commands import DecideReview, Rejection, ReviewReceipt
from engine.events import Reversed, ReviewDecided
from engine.recounting import NotExplained, Work
from engine.reviews import DECIDED_AS, Review
from engine.scoreboard import Scoreboard

AGAIN = "again"
"""In the details of a rejection: gather what the decision needs, and send it again."""


class ReviewDecision(msgspec.Struct, frozen=True, gc=False):
    """A decision, and its answer. A preview has no events. Otherwise the `ReviewDecided` is the last one."""

    events: tuple[Reversed | ReviewDecided, ...]
    receipt: ReviewReceipt


def reversal_of(review_id: str) -> str:
    """Give the id of the reversal that a review makes if none is named."""
    return f"review-{review_id}"


def decide_review(
    scoreboard: Scoreboard, command: DecideReview, pending: ReviewDecided | None, *, seq: int, now_ms: int
) -> ReviewDecision | Rejection | int:
    """Decide a command. `pending` is the decision of this review earlier in the batch."""
    review = scoreboard.reviews.get(command.review_id)
    if review is None:
        message = f"there is no review {command.review_id!r}, or it was decided long ago and is no longer kept"
        return Rejection("NOT_FOUND", message, {"field": "reviewId", "reviewId": command.review_id})
    wanted = DECIDED_AS[command.decision]
    state = review.state if pending is None else DECIDED_AS[pending.decision]
    if state == wanted:
        return _known(review if pending is None else pending, command)
    if state != "open":
        message = f"review {command.review_id!r} was decided already, and is {state}"
        return Rejection("CONFLICT", message, {"field": "decision", "reviewId": command.review_id, "state": state})
    deciding = _Deciding(scoreboard, command, review, seq, now_ms)
    try:
        return deciding.accept() if command.decision == "accept" else deciding.reverse()
    except NotExplained as fault:
        return fault.rejection


def _known(decided: Review | ReviewDecided, command: DecideReview) -> Rejection | int:
    """Give the seq of the same decision before."""
    if command.reversal_id not in ("", decided.reversal_id):
        message = f"review {command.review_id!r} was decided already, by the reversal {decided.reversal_id!r}"
        return Rejection("CONFLICT", message, {"field": "reversalId", "reviewId": command.review_id})
    return decided.decided_seq if isinstance(decided, Review) else decided.seq


class _Deciding:
    """One decision of an open review."""

    def __init__(self, scoreboard: Scoreboard, command: DecideReview, review: Review, seq: int, now_ms: int) -> None:
        self._scoreboard = scoreboard
        self._command = command
        self._review = review
        self._seq = seq
        self._now_ms = now_ms
        self._place = (review.board_id, review.user_id)
        self._held = set(scoreboard.reviews.holds.of(self._place))

    def accept(self) -> ReviewDecision | Rejection:
        """Let what is held count."""
        if not self._held:
            return self._decision((), None, set(), self._event(self._seq, ""))
        recount = self._command.recount
        if recount is None or not self._held <= recount.actions.keys():
            return self._again()
        work = Work(self._scoreboard, recount, self._command.rows, self._held, released=self._place)
        event = self._event(self._seq, "", work)
        return self._decision((), work, self._held, event)

    def reverse(self) -> ReviewDecision | Rejection:
        """Take back what the user did, or follow a reversal that did so."""
        reversal_id = self._command.reversal_id or reversal_of(self._command.review_id)
        if self._scoreboard.action_seq(reversal_id) is not None:
            return self._follow(reversal_id)
        recount, reversals = self._command.recount, self._scoreboard.reversals
        if recount is None or not self._held <= recount.actions.keys() or recount.is_short:
            return self._again()
        since_ms = self._review.since_ms
        chosen = {
            seq for seq, event in recount.actions.items()
            if reversals.of_action(seq) is None and (event.time_ms >= since_ms or seq in self._held)
        }  # fmt: skip
        if not chosen:
            message = "there is nothing left to reverse: name the reversal that took the actions back"
            return Rejection("CONFLICT", message, {"field": "reversalId", "reviewId": self._command.review_id})
        work = Work(
            self._scoreboard, recount, self._command.rows, chosen, flipped=chosen, released=self._place
        )  # fmt: skip
        reason = self._command.note or f"review {self._command.review_id}: {self._review.rule}"
        asked = mark_of(self._review.user_id, self._review.board_id, self._command.review_id)
        reversed_ = Reversed(
            self._seq, self._now_ms, reversal_id, reason, self._command.caller, asked, False, tuple(sorted(chosen)),
            tuple(work.scores), tuple(work.periods),
        )  # fmt: skip
        return self._decision((reversed_,), work, chosen, self._event(self._seq + 1, reversal_id))

    def _follow(self, reversal_id: str) -> ReviewDecision | Rejection:
        """Decide by a reversal that was made before."""
        scoreboard = self._scoreboard
        position = scoreboard.actions.find(key_of(reversal_id))
        if not scoreboard.reversals.counting(scoreboard.actions.seq_at(position)):
            message = f"{reversal_id!r} is no reversal that holds actions back: name another reversalId, or none"
            return Rejection("CONFLICT", message, {"field": "reversalId", "reversalId": reversal_id})
        left = sum(1 for seq in self._held if scoreboard.reversals.of_action(seq) is None)
        if left:
            what = "is held" if left == 1 else "are held"
            message = (
                f"{left} of this user's actions {what} and not reversed: leave reversalId out, or name a new one, "
                "and they are taken back with the decision"
            )
            return Rejection("CONFLICT", message, {"field": "reversalId", "reversalId": reversal_id, "held": left})
        return self._decision((), None, set(), self._event(self._seq, reversal_id))

    def _event(self, seq: int, reversal_id: str, work: Work | None = None) -> ReviewDecided:
        scores = () if work is None else tuple(work.scores)
        periods = () if work is None else tuple(work.periods)
        return ReviewDecided(
            seq, self._now_ms, self._review.board_id, self._command.review_id, self._command.decision, reversal_id,
            self._command.note, self._command.caller, scores, periods,
        )  # fmt: skip

    def _decision(
        self, before: tuple[Reversed, ...], work: Work | None, chosen: set[int], event: ReviewDecided
    ) -> ReviewDecision:
        is_preview = self._command.preview
        changes, kept = ((), chosen) if work is None else (tuple(work.changes), work.kept)
        receipt = ReviewReceipt(
            self._command.review_id, not is_preview, self._scoreboard.epoch,
            self._scoreboard.seq if is_preview else event.seq, tuple(sorted(chosen)), changes,
            len(chosen) - len(kept), event.reversal_id if before else "",
        )  # fmt: skip
        return ReviewDecision(() if is_preview else (*before, event), receipt)

    def _again(self) -> Rejection:
        message = "actions came meanwhile that the decision must count; send it again"
        return Rejection("CONFLICT", message, {"field": "reviewId", "reviewId": self._command.review_id, AGAIN: 1})
