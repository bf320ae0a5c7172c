"""The bodies and answers of the routes about reviews. Pure.

    asked = decode_decision(request.body)
    body = decided_answer(review_object(review, holds), receipt, changes, preview=False)

Rules:
- A time is left out while there is none, and so is what only a decided review has.
- What a decision changed is told where it changed anything, in the form of a reversal's answer.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

import msgspec
from msgspec import UNSET, Meta, UnsetType

from engine.board_rules import Decision, ReviewRule
from engine.commands import ReviewReceipt
from engine.holds import Holds
from engine.limits import NOTE_CHARACTERS_MAX
from engine.reviews import Review, ReviewState
from engine.texts import id_fault, text_fault
from server.api.answers import AgeMs, Epoch, Score, Seq, SeqOrNone, Time
from server.api.decoding import decode_strictly
from server.api.reversal_forms import ChangedBoard
from server.http.messages import Id, invalid
from server.live.encoding import iso_ms

STATES = (*get_args(ReviewState), "all")
"""What GET /reviews takes as `state`."""

ReviewId = Annotated[str, Meta(pattern="^[0-9]{1,16}-[0-9]{1,2}$", examples=["42-0"])]


class DecisionBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Body of POST /reviews/{reviewId}. `preview`: nothing is changed, the answer says what would be.

    `reversal_id` goes with `reverse`. It names a reversal that took the actions back, or the one that is made now.
    """

    decision: Annotated[str, Meta(extra_json_schema={"enum": ["accept", "reverse"]})]
    note: Annotated[str, Meta(extra_json_schema={"maxLength": NOTE_CHARACTERS_MAX})] | None = None
    reversal_id: Id | None = None
    preview: bool = False


class Asked(msgspec.Struct, frozen=True):
    """What is asked for. Without a note, or a reversal's id, these are empty."""

    decision: Decision
    note: str
    reversal_id: str
    preview: bool


class ReviewObject(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A user whom a board's watch flagged: `value` was found, and more than `limit`.

    `since` is when the actions began that count to it. `score` was the score then, `seq` and `time` are those of the
    action that broke the rule. `held` counts the actions that the board holds of this user until the decision. What
    begins with `decided` is there after it.
    """

    review_id: ReviewId
    board_id: Id
    user_id: Id
    rule: ReviewRule
    value: Score
    limit: Score
    score: Score
    since: Time
    seq: Seq
    time: Time
    state: ReviewState
    held: Annotated[int, Meta(ge=0)] = 0
    decided_at: Time | UnsetType = UNSET
    decided_by: str | UnsetType = UNSET
    decided_seq: Seq | UnsetType = UNSET
    note: str | UnsetType = UNSET
    reversal_id: Id | UnsetType = UNSET


class ReviewsAnswer(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """GET /reviews. `open` counts the open ones of all boards; `passed_over` the flags for which there was no room."""

    reviews: list[ReviewObject]
    open: Annotated[int, Meta(ge=0)]
    passed_over: Annotated[int, Meta(ge=0)]
    next_cursor: str | None
    epoch: Epoch
    seq: SeqOrNone
    stale: Literal[True] | UnsetType = UNSET
    age_ms: AgeMs | UnsetType = UNSET


class ReviewAnswer(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """GET /reviews/{reviewId}."""

    review: ReviewObject
    epoch: Epoch
    seq: SeqOrNone
    stale: Literal[True] | UnsetType = UNSET
    age_ms: AgeMs | UnsetType = UNSET


class DecidedAnswer(msgspec.Struct, frozen=True, rename="camel"):
    """POST /reviews/{reviewId}. `applied` is false for a preview, and if it was decided so before.

    `seq` is that of the decision. `actions` counts those that count now after an `accept`, or no more. `forgotten` of
    them were only in periods that are no longer kept, or in which nobody else had points.
    """

    review: ReviewObject
    applied: bool
    preview: bool
    epoch: Epoch
    seq: Seq
    actions: Annotated[int, Meta(ge=0)] | UnsetType = UNSET
    forgotten: Annotated[int, Meta(ge=0)] | UnsetType = UNSET
    changes: list[ChangedBoard] | UnsetType = UNSET


_decision_decoder = msgspec.json.Decoder(DecisionBody)


def decided_answer(
    review: ReviewObject, receipt: ReviewReceipt, changes: list[ChangedBoard], *, preview: bool
) -> DecidedAnswer:
    """Make the wire's form of a receipt."""
    common = (review, receipt.applied, preview, receipt.epoch, receipt.seq)
    if not receipt.actions:
        return DecidedAnswer(*common)
    return DecidedAnswer(*common, len(receipt.actions), receipt.forgotten, changes)


def decode_decision(body: bytes) -> Asked:
    """Decode the body of a decision. Raises `Refused`."""
    decided = decode_strictly(_decision_decoder, body.removeprefix(b"\xef\xbb\xbf"))
    note = decided.note or ""
    if note and (fault := text_fault(note, NOTE_CHARACTERS_MAX)):
        raise invalid("note", f"note {fault}.")
    reversal_id = decided.reversal_id
    if decided.decision == "accept":
        if reversal_id is not None:
            raise invalid("reversalId", "reversalId goes with reverse, not with accept.")
        return Asked("accept", note, "", decided.preview)
    if decided.decision != "reverse":
        raise invalid("decision", "decision must be accept or reverse.", allowed=["accept", "reverse"])
    if reversal_id is not None and (fault := id_fault(reversal_id)):
        raise invalid("reversalId", f"reversalId {fault}.")
    return Asked("reverse", note, reversal_id or "", decided.preview)


def review_object(review: Review, holds: Holds) -> ReviewObject:
    """Make the wire's form of a review. `holds` are what all boards hold now."""
    told = ReviewObject(
        review.review_id, review.board_id, review.user_id, review.rule, review.value, review.limit, review.score,
        iso_ms(review.since_ms), review.seq, iso_ms(review.time_ms), review.state,
    )  # fmt: skip
    if review.state == "open":
        return msgspec.structs.replace(told, held=len(holds.of((review.board_id, review.user_id))))
    return msgspec.structs.replace(
        told, decided_at=iso_ms(review.decided_ms), decided_by=review.decided_by, decided_seq=review.decided_seq,
        note=review.note, reversal_id=review.reversal_id or UNSET,
    )  # fmt: skip
