"""The shapes of the answers, one struct each. Pure. The OpenAPI document is made from these structs.

Rules:
- Field names are in camelCase on the wire.
- Rows and scores leave out an unknown display name: it is "optional" in the specification. The answer to PUT /users
  tells everything about one user, so there it is null.
- The rows of a top come from `server.live.encoding`, which the live channel uses too.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from engine.board_rules import OrderMode, RankMode, ScoreMode
from engine.events import Incremented
from engine.limits import SCORE_MAX, SEQ_MAX
from server.http.messages import Code, Id, Name
from server.live.encoding import Entry, iso_ms
from server.settings.board_form import BoardForm

Score = Annotated[int, Meta(ge=0, le=SCORE_MAX)]
Delta = Annotated[int, Meta(ge=-SCORE_MAX, le=SCORE_MAX, description="What the action added; below 0 it took away")]
Worth = Annotated[int, Meta(ge=-SCORE_MAX, le=SCORE_MAX, description="What the action was worth, if not its delta")]
Rank = Annotated[int, Meta(ge=1)]
Count = Annotated[int, Meta(ge=0, description="Ranked users of the board")]
Percentile = Annotated[float, Meta(ge=0, le=100, description="Of the other ranked users, the percentage behind")]
GapToNext = Annotated[int, Meta(ge=0, le=SCORE_MAX, description="Points to the next better user; null for the first")]
Epoch = Annotated[int, Meta(ge=1, le=SEQ_MAX)]
Seq = Annotated[int, Meta(ge=1, le=SEQ_MAX)]
SeqOrNone = Annotated[int, Meta(ge=0, le=SEQ_MAX, description="0 while nothing has happened")]
History = Annotated[str, Meta(pattern="^[0-9a-f]{32}$", description="The identity of the epoch")]
AgeMs = Annotated[int, Meta(ge=0, description="With `stale`: ms since the leader was heard")]
PeriodId = Annotated[str, Meta(description="The id of a period, such as 2026-W48")]
Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"}, examples=["2025-12-15T12:34:56.000Z"])]


class IncrementAnswer(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """POST /scores/increment. With `held` the action is kept, and does not count on this board until somebody decides.

    Then `delta` is 0, and `new_score` is the score that is shown, 0 for a user without one.
    """

    user_id: Id
    new_score: Score
    delta: Delta
    applied: bool
    action_id: Id
    board_id: Id
    epoch: Epoch
    seq: Seq
    rank: Rank | None
    previous_rank: Rank | None
    held: Literal[True] | msgspec.UnsetType = msgspec.UNSET


# The tag comes first on the wire.
class BatchItemAnswer(IncrementAnswer, frozen=True, rename="camel", gc=False, tag_field="status", tag=200):
    """One item of POST /scores/increment/batch that was applied, now or before."""


class TopAnswer(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """GET /scoreboard/top. What is not so is left out: of a past period `period` and `ends_at` are those of it.

    `over`: a season ended, and these are its last rows. `frozen_at`: since when the public sees no change.
    `revealed`: the rows that were shown since. `corrected_at`: the last reversal that changed a past period.
    """

    entries: tuple[Entry, ...]
    generated_at: Time
    board_id: Id
    epoch: Epoch
    seq: SeqOrNone
    history: History
    title: str = ""
    period: PeriodId | None = None
    ends_at: Time | None = None
    over: bool = False
    frozen_at: Time | None = None
    revealed: int = 0
    corrected_at: Time | None = None
    stale: Literal[True] | msgspec.UnsetType = msgspec.UNSET
    age_ms: AgeMs | msgspec.UnsetType = msgspec.UNSET


class WalkAnswer(msgspec.Struct, frozen=True, rename="camel"):
    """GET /scoreboard. `count` is the number of ranked users. `next_cursor` is null after the last row."""

    entries: tuple[Entry, ...]
    count: Count
    next_cursor: str | None
    generated_at: Time
    board_id: Id
    epoch: Epoch
    seq: SeqOrNone
    history: History
    period: PeriodId | msgspec.UnsetType = msgspec.UNSET
    ends_at: Time | msgspec.UnsetType = msgspec.UNSET
    frozen_at: Time | msgspec.UnsetType = msgspec.UNSET
    stale: Literal[True] | msgspec.UnsetType = msgspec.UNSET
    age_ms: AgeMs | msgspec.UnsetType = msgspec.UNSET


class QueryEntry(Entry, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """One of the users that were asked for, with the rank among them."""

    rank_among: Rank


class QueryAnswer(msgspec.Struct, frozen=True, rename="camel"):
    """POST /scores/query. `unranked` are those of no rank on the board: without a score, or inactive."""

    entries: tuple[QueryEntry, ...]
    unranked: tuple[Id, ...]
    count: Count
    generated_at: Time
    board_id: Id
    epoch: Epoch
    seq: SeqOrNone
    period: PeriodId | msgspec.UnsetType = msgspec.UNSET
    ends_at: Time | msgspec.UnsetType = msgspec.UNSET
    frozen_at: Time | msgspec.UnsetType = msgspec.UNSET
    stale: Literal[True] | msgspec.UnsetType = msgspec.UNSET
    age_ms: AgeMs | msgspec.UnsetType = msgspec.UNSET


class ScoreAnswer(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """GET /scores/{userId}. An inactive user is on no board: `rank`, `percentile` and `gap_to_next` are null."""

    user_id: Id
    display_name: Name | msgspec.UnsetType = msgspec.UNSET
    board_id: Id
    score: Score
    rank: Rank | None
    count: Count
    percentile: Percentile | None
    gap_to_next: GapToNext | None
    updated_at: Time
    epoch: Epoch
    seq: Seq
    period: PeriodId | msgspec.UnsetType = msgspec.UNSET
    ends_at: Time | msgspec.UnsetType = msgspec.UNSET
    frozen_at: Time | msgspec.UnsetType = msgspec.UNSET
    stale: Literal[True] | msgspec.UnsetType = msgspec.UNSET
    age_ms: AgeMs | msgspec.UnsetType = msgspec.UNSET


class AroundAnswer(msgspec.Struct, frozen=True, rename="camel"):
    """GET /scores/{userId}/around. `entries` is empty for an inactive user, who is on no board."""

    board_id: Id
    user_id: Id
    entries: tuple[Entry, ...]
    epoch: Epoch
    seq: Seq
    generated_at: Time
    period: PeriodId | msgspec.UnsetType = msgspec.UNSET
    ends_at: Time | msgspec.UnsetType = msgspec.UNSET
    frozen_at: Time | msgspec.UnsetType = msgspec.UNSET
    stale: Literal[True] | msgspec.UnsetType = msgspec.UNSET
    age_ms: AgeMs | msgspec.UnsetType = msgspec.UNSET


class UserAnswer(msgspec.Struct, frozen=True, rename="camel"):
    """PUT /users/{userId}. `applied` is false where the request changed nothing."""

    user_id: Id
    display_name: Name | None
    active: bool
    applied: bool
    epoch: Epoch
    seq: SeqOrNone


class BoardObject(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A board, with what runs on it now.

    `period` is the id of the running one, and of the last one of a season that is `over`. `starts_at` is null while
    nothing says it, `ends_at` if nothing ends by itself. `rules` and `tzdata`, the version of the tz database that
    gives the ends of periods, are for tokens with `boards:write` or `scores:read`.
    """

    board_id: Id
    title: str
    score: ScoreMode
    order: OrderMode
    ranks: RankMode
    period: str | msgspec.UnsetType = msgspec.UNSET
    starts_at: Time | None
    ends_at: Time | None
    over: bool
    closed: bool
    frozen_at: Time | msgspec.UnsetType = msgspec.UNSET
    freezes_at: Time | msgspec.UnsetType = msgspec.UNSET
    revealed: int | msgspec.UnsetType = msgspec.UNSET
    count: Count
    epoch: Epoch
    seq: SeqOrNone
    rules: BoardForm | msgspec.UnsetType = msgspec.UNSET
    tzdata: str | msgspec.UnsetType = msgspec.UNSET


class BoardAnswer(BoardObject, frozen=True, rename="camel", kw_only=True):
    """GET /boards/{boardId}."""

    stale: Literal[True] | msgspec.UnsetType = msgspec.UNSET
    age_ms: AgeMs | msgspec.UnsetType = msgspec.UNSET


class BoardsAnswer(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """GET /boards: the boards that this node serves, by boardId."""

    boards: list[BoardObject]
    epoch: Epoch
    seq: SeqOrNone
    stale: Literal[True] | msgspec.UnsetType = msgspec.UNSET
    age_ms: AgeMs | msgspec.UnsetType = msgspec.UNSET


class BoardChangedAnswer(BoardObject, frozen=True, rename="camel", kw_only=True):
    """PUT and DELETE /boards/{boardId}, and a reset. `applied` is false where the request changed nothing.

    `epoch` and `seq` are those of the change.
    """

    applied: bool


class PastPeriodObject(msgspec.Struct, frozen=True, rename="camel"):
    """A period that has ended, with `count` ranked users. `seq` is that of the event that ended it.

    `corrected_at` is the time of the last reversal that changed it.
    """

    period: PeriodId
    starts_at: Time
    ends_at: Time | None
    count: Count
    seq: Seq
    corrected_at: Time | msgspec.UnsetType = msgspec.UNSET


class PeriodsAnswer(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """GET /boards/{boardId}/periods: the periods that are kept, the last one first."""

    board_id: Id
    periods: list[PastPeriodObject]
    epoch: Epoch
    seq: SeqOrNone
    stale: Literal[True] | msgspec.UnsetType = msgspec.UNSET
    age_ms: AgeMs | msgspec.UnsetType = msgspec.UNSET


class FedReceipt(msgspec.Struct, frozen=True, rename="camel"):
    """What an action did on a board that its own board feeds. `held`: this board holds it still."""

    board_id: Id
    delta: Delta
    new_score: Score
    held: Literal[True] | msgspec.UnsetType = msgspec.UNSET


class LoggedReceipt(msgspec.Struct, frozen=True, rename="camel"):
    """What the log says of an applied action. `new_score` is the score right after it.

    `held` is there while its board holds it: then `value` is what it will be worth.
    """

    user_id: Id
    board_id: Id
    delta: Delta
    new_score: Score
    reason: Id
    caller: Id
    epoch: Epoch
    seq: Seq
    time: Time
    value: Worth | msgspec.UnsetType = msgspec.UNSET
    fed: tuple[FedReceipt, ...] | msgspec.UnsetType = msgspec.UNSET
    held: Literal[True] | msgspec.UnsetType = msgspec.UNSET


class ReversedBy(msgspec.Struct, frozen=True, rename="camel"):
    """The reversal that holds an action back."""

    reversal_id: Id
    reason: str
    caller: Id
    epoch: Epoch
    seq: Seq
    time: Time


class ActionAnswer(msgspec.Struct, frozen=True, rename="camel"):
    """GET /actions/{actionId}. The receipt is null once its segment was removed, or its user was erased.

    `reversed_by` is there while a reversal holds the action back. While the board is frozen the receipt is null for
    callers who neither sent the action nor may see the present.
    """

    action_id: Id
    applied: Literal[True]
    epoch: Epoch
    seq: Seq
    receipt: LoggedReceipt | None
    receipt_status: Literal["KEPT", "NO_LONGER_KEPT", "FROZEN", "ERASED"]
    reversed_by: ReversedBy | msgspec.UnsetType = msgspec.UNSET
    stale: Literal[True] | msgspec.UnsetType = msgspec.UNSET
    age_ms: AgeMs | msgspec.UnsetType = msgspec.UNSET


class HealthAnswer(msgspec.Struct, frozen=True):
    """GET /healthz."""

    status: Literal["ok"] = "ok"


class ReadyAnswer(msgspec.Struct, frozen=True):
    """GET /readyz, on a node that is ready. `warnings` are there if an operator should do something."""

    epoch: Epoch
    seq: SeqOrNone
    status: Literal["ready"] = "ready"
    warnings: list[str] | msgspec.UnsetType = msgspec.UNSET


class PromotedAnswer(msgspec.Struct, frozen=True):
    """POST /replication/promote. `seq` is that of the event that began the epoch."""

    epoch: Epoch
    seq: Seq


class ErrorObject(msgspec.Struct, frozen=True):
    """What went wrong: `code` is for programs, `message` for people. `details` name the field or the limit."""

    code: Code
    message: str
    details: dict[str, Any]


class ErrorAnswer(msgspec.Struct, frozen=True):
    """Any error of any route."""

    error: ErrorObject


class BatchItemError(msgspec.Struct, frozen=True):
    """One item of a batch that was refused."""

    status: int
    error: ErrorObject


def fed_receipts(event: Incremented, held: Container[str]) -> tuple[FedReceipt, ...] | msgspec.UnsetType:
    """Make the wire's form of what an action did on the boards that are fed. `held` are boards that hold it still."""
    receipts = tuple(
        FedReceipt(fed.board_id, fed.delta, fed.new_score, True if fed.board_id in held else msgspec.UNSET)
        for fed in event.fed
    )
    return receipts or msgspec.UNSET


def logged_receipt(event: Incremented, epoch: int, held: Container[str]) -> LoggedReceipt:
    """Make the wire's form of a logged event. `held` are the boards that hold the action still."""
    return LoggedReceipt(
        event.user_id,
        event.board_id,
        event.delta,
        event.new_score,
        event.reason,
        event.caller,
        epoch,
        event.seq,
        iso_ms(event.time_ms),
        msgspec.UNSET if event.value is None else event.value,
        fed_receipts(event, held),
        True if event.board_id in held else msgspec.UNSET,
    )
