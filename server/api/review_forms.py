"""The bodies and answers of the routes about reviews. Pure.

    decision, note, reversal_id = decode_decision(request.body)
    body = decided_answer(review, applied=True, epoch=1, seq=42)

Rule: a time is left out while there is none, and so is what only a decided review has.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

import msgspec
from msgspec import UNSET, Meta, UnsetType

from engine.board_rules import Decision, ReviewRule
from engine.limits import NOTE_CHARACTERS_MAX
from engine.reviews import Review, ReviewState
from engine.texts import id_fault, text_fault
from server.api.answers import AgeMs, Epoch, Score, Seq, SeqOrNone, Time
from server.api.decoding import decode_strictly
from server.http.messages import Id, invalid
from server.live.encoding import iso_ms

STATES = (*get_args(ReviewState), "all")
"""What GET /reviews takes as `state`."""

ReviewId = Annotated[str, Meta(pattern="^[0-9]{1,16}-[0-9]{1,2}$", examples=["42-0"])]


class DecisionBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Body of POST /reviews/{reviewId}. `reversal_id` goes with `reverse`: the reversal that took the actions back."""

    decision: Annotated[str, Meta(extra_json_schema={"enum": ["accept", "reverse"]})]
    note: Annotated[str, Meta(extra_json_schema={"maxLength": NOTE_CHARACTERS_MAX})] | None = None
    reversal_id: Id | None = None


class ReviewObject(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A user whom a board's watch flagged: `value` was found, and more than `limit`.

    `since` is when the actions began that count to it. `score` was the score then, `seq` and `time` are those of the
    action that broke the rule. What begins with `decided` is there after a decision.
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
    """POST /reviews/{reviewId}. `applied` is false if it was decided so before; `seq` is that of the decision."""

    review: ReviewObject
    applied: bool
    epoch: Epoch
    seq: Seq


_decision_decoder = msgspec.json.Decoder(DecisionBody)


def decode_decision(body: bytes) -> tuple[Decision, str, str]:
    """Decode the body of a decision: what, why, and the reversal that goes with it. Raises `Refused`."""
    decided = decode_strictly(_decision_decoder, body.removeprefix(b"\xef\xbb\xbf"))
    note = decided.note or ""
    if note and (fault := text_fault(note, NOTE_CHARACTERS_MAX)):
        raise invalid("note", f"note {fault}.")
    reversal_id = decided.reversal_id
    if decided.decision == "accept":
        if reversal_id is not None:
            raise invalid("reversalId", "reversalId goes with reverse, not with accept.")
        return "accept", note, ""
    if decided.decision != "reverse":
        raise invalid("decision", "decision must be accept or reverse.", allowed=["accept", "reverse"])
    if reversal_id is None:
        message = "reversalId is missing: POST /reversals takes the actions back, and its id goes with reverse."
        raise invalid("reversalId", message)
    if fault := id_fault(reversal_id):
        raise invalid("reversalId", f"reversalId {fault}.")
    return "reverse", note, reversal_id


def review_object(review: Review) -> ReviewObject:
    """Make the wire's form of a review."""
    told = ReviewObject(
        review.review_id, review.board_id, review.user_id, review.rule, review.value, review.limit, review.score,
        iso_ms(review.since_ms), review.seq, iso_ms(review.time_ms), review.state,
    )  # fmt: skip
    if review.state == "open":
        return told
    return msgspec.structs.replace(
        told, decided_at=iso_ms(review.decided_ms), decided_by=review.decided_by, decided_seq=review.decided_seq,
        note=review.note, reversal_id=review.reversal_id or UNSET,
    )  # fmt: skip
