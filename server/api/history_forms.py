"""The answers of the route about a user's history. Pure.

entry = history_entry(epoch, event, "alice", reversed_by, held)
"""

from __future__ import annotations

from collections.abc import Container
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, UnsetType

from engine.events import (
    BoardScores,
    Event,
    Incremented,
    PeriodScores,
    Reversed,
    ReviewDecided,
    ScoreImported,
    UserErased,
    UserPut,
)
from server.api.answers import (
    AgeMs,
    Delta,
    Epoch,
    FedReceipt,
    ReversedBy,
    Score,
    Seq,
    SeqOrNone,
    Time,
    Worth,
    fed_receipts,
)
from server.http.messages import Id
from server.live.encoding import iso_ms


class Changed(msgspec.Struct, frozen=True, rename="camel"):
    """The user's score on a board after a correction; null: none is left.

    `ended_seq` is there if it is the score of a past period: the seq that ended it.
    """

    board_id: Id
    score: Score | None
    ended_seq: Seq | UnsetType = UNSET


class HistoryEntry(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One event. What the type of the event has not is left out.

    An `increment` and an `import` have the score after it; an `increment` has `reversedBy` while a reversal holds it
    back, and `held` while its board holds it. A `reversal` has the user's scores after it, and so has a `review` whose
    decision let held actions count. A `user` is a registration or its change, an `erasure` the end of all before.
    """

    seq: Seq
    epoch: Epoch
    time: Time
    type: Literal["increment", "import", "user", "reversal", "review", "erasure"]
    caller: Id
    board_id: Id | UnsetType = UNSET
    delta: Delta | UnsetType = UNSET
    new_score: Score | UnsetType = UNSET
    value: Worth | UnsetType = UNSET
    fed: tuple[FedReceipt, ...] | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    action_id: Id | UnsetType = UNSET
    reversed_by: ReversedBy | UnsetType = UNSET
    held: Literal[True] | UnsetType = UNSET
    import_id: Id | UnsetType = UNSET
    reversal_id: Id | UnsetType = UNSET
    review_id: str | UnsetType = UNSET
    again: bool | UnsetType = UNSET
    scores: tuple[Changed, ...] | UnsetType = UNSET
    display_name: str | UnsetType | None = UNSET
    active: bool | UnsetType = UNSET


class HistoryAnswer(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """GET /scores/{userId}/history. `complete`: the log goes back to its beginning; `oldestSeq` is its first seq."""

    user_id: Id
    entries: tuple[HistoryEntry, ...]
    next_cursor: Annotated[str, msgspec.Meta(pattern="^[1-9][0-9]{0,15}$")] | None
    complete: bool
    oldest_seq: Seq
    epoch: Epoch
    seq: SeqOrNone
    stale: Literal[True] | UnsetType = UNSET
    age_ms: AgeMs | UnsetType = UNSET


def history_entry(
    epoch: int, event: Event, user_id: str, reversed_by: ReversedBy | UnsetType, held: Container[str]
) -> HistoryEntry:
    """Make the wire's form of an event. `held` are the boards that hold the action still."""
    seq, time = event.seq, iso_ms(event.time_ms)
    if isinstance(event, Incremented):
        return HistoryEntry(
            seq, epoch, time, "increment", event.caller,
            board_id=event.board_id,
            delta=event.delta,
            new_score=event.new_score,
            value=UNSET if event.value is None else event.value,
            fed=fed_receipts(event, held),
            reason=event.reason,
            action_id=event.action_id,
            reversed_by=reversed_by,
            held=True if event.board_id in held else UNSET,
        )  # fmt: skip
    if isinstance(event, ReviewDecided):
        return HistoryEntry(
            seq, epoch, time, "review", event.caller, board_id=event.board_id, reason=event.note or UNSET,
            review_id=event.review_id, scores=_changed(event, user_id),
        )  # fmt: skip
    if isinstance(event, Reversed):
        return HistoryEntry(
            seq, epoch, time, "reversal", event.caller,
            reason=event.reason, reversal_id=event.reversal_id, again=event.again,
            scores=_changed(event, user_id),
        )  # fmt: skip
    if isinstance(event, ScoreImported):
        return HistoryEntry(
            seq, epoch, time, "import", event.caller,
            board_id=event.board_id, new_score=event.new_score, value=event.value, import_id=event.import_id,
        )  # fmt: skip
    if isinstance(event, UserPut):
        return HistoryEntry(
            seq, epoch, time, "user", event.caller, display_name=event.display_name, active=event.active
        )  # fmt: skip
    assert isinstance(event, UserErased), event
    return HistoryEntry(seq, epoch, time, "erasure", event.caller)


def _changed(event: Reversed | ReviewDecided, user_id: str) -> tuple[Changed, ...]:
    """List the user's scores after a correction, by board: of the running periods, then of past ones."""
    parts: tuple[BoardScores | PeriodScores, ...] = (*event.scores, *event.periods)
    return tuple(
        Changed(part.board_id, row.new_score, part.ended_seq if isinstance(part, PeriodScores) else UNSET)
        for part in parts
        for row in part.rows
        if row.user_id == user_id
    )
