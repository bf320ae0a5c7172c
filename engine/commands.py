"""What a caller asks (commands), and what the caller is told (receipts, rejections). Values, without behaviour.

Rule: the ids and names in a command are valid. Constructors do not check that. Code that builds a command from outside
input calls `engine.texts` first. Names in an old log may break a rule that is newer: they are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from engine.board_rules import BoardRules, Decision
from engine.events import FlagName, Rescored
from engine.ranking import Row
from engine.recount import Recount
from engine.traces import Traces

RejectionCode = Literal["INVALID_REQUEST", "CONFLICT", "NOT_FOUND", "BOARD_CLOSED", "BOARD_NOT_OPEN", "ERASED"]


class Increment(msgspec.Struct, frozen=True, gc=False):
    """Count one action for one user. The board's catalogue decides the points, never the caller.

    `value` is for a reason with a range: the sender may choose within it. None: the reason has fixed points.
    `key` is the digest of the actionId (`engine.actions.key_of`) where the sender has made it already, else empty.
    """

    user_id: str
    action_id: str
    reason: str
    board_id: str
    caller: str
    key: bytes = b""
    value: int | None = None


class PutUser(msgspec.Struct, frozen=True, gc=False):
    """Register a user, or change its name or its state. UNSET leaves a field as it is; the name None takes it away."""

    user_id: str
    display_name: str | msgspec.UnsetType | None
    active: bool | msgspec.UnsetType
    caller: str


class PutBoard(msgspec.Struct, frozen=True, gc=False):
    """Make a board, or replace its rules. The rules have no fault (`engine.board_rules.rules_fault`)."""

    board_id: str
    rules: BoardRules
    caller: str


class CloseBoard(msgspec.Struct, frozen=True, gc=False):
    """Let nothing be written to a board any more."""

    board_id: str
    caller: str


class ResetBoard(msgspec.Struct, frozen=True, gc=False):
    """End the running period of a board now. `period` is its id if the sender knows it: then it must be this one."""

    board_id: str
    caller: str
    period: str | None = None


class FreezeBoard(msgspec.Struct, frozen=True, gc=False):
    """Let the public see the board as it is now, or as it will be at `at_ms`."""

    board_id: str
    caller: str
    at_ms: int | None = None


class UnfreezeBoard(msgspec.Struct, frozen=True, gc=False):
    """Let the public see the board of now again, and plan no freeze."""

    board_id: str
    caller: str


class RevealRows(msgspec.Struct, frozen=True, gc=False):
    """Show the public the last `step` rows of a frozen board that it has not seen yet."""

    board_id: str
    step: int
    caller: str


class Reverse(msgspec.Struct, frozen=True, gc=False):
    """Take actions back, or let them count again after the reversal with the seq `of` took them back.

    `asked` is a mark of what the sender asked for. `recount` has the actions; the writer completes it. `rows` are the
    rows that users of it have in past periods, None for those without one, by board and the seq that ended the period.
    `preview`: nothing is logged, the answer says what would change.
    """

    reversal_id: str
    reason: str
    caller: str
    asked: int
    recount: Recount
    of: int | None = None
    rows: Mapping[tuple[str, int], Mapping[str, Rescored | None]] = {}
    preview: bool = False


BoardCommand = PutBoard | CloseBoard | ResetBoard | FreezeBoard | UnfreezeBoard | RevealRows
"""A command about a board itself. A submission has only such commands, or none."""


class DecideReview(msgspec.Struct, frozen=True, gc=False):
    """Decide a review. `note` says why. `reversal_id` names the reversal that a `reverse` follows, or makes.

    `recount` and `rows` are as those of `Reverse`: of what is held, or for a new reversal of what is taken back. They
    are needed where a score changes. `preview`: nothing is logged. It is alone in its submission.
    """

    review_id: str
    decision: Decision
    note: str
    caller: str
    reversal_id: str = ""
    recount: Recount | None = None
    rows: Mapping[tuple[str, int], Mapping[str, Rescored | None]] = {}
    preview: bool = False


class ImportRow(msgspec.Struct, frozen=True, gc=False):
    """One row of an import: a user's score, when it was reached, and the user's name, if the source says these."""

    user_id: str
    score: int
    reached_ms: int | None = None
    display_name: str | None = None


class ImportRows(msgspec.Struct, frozen=True, gc=False):
    """Take in rows of an import, at most IMPORT_ROWS_MAX. The first of them is the import's row number `first_row`.

    The import has `total` rows. `digest` names its source. `merge`: the board may have scores. It is alone in its
    submission.
    """

    board_id: str
    import_id: str
    first_row: int
    total: int
    digest: str
    merge: bool
    rows: Sequence[ImportRow]
    caller: str


class EraseUser(msgspec.Struct, frozen=True, gc=False):
    """Forget a user. `traces` are what the log says of the user; the writer completes them. `in_past`: a past period
    has a row of the user. It is alone in its submission.
    """

    user_id: str
    caller: str
    traces: Traces
    in_past: bool = False


class PutFlag(msgspec.Struct, frozen=True, gc=False):
    """Switch something off, or on again, on every node. It is alone in its submission."""

    flag: FlagName
    enabled: bool
    caller: str


AloneCommand = BoardCommand | Reverse | DecideReview | ImportRows | EraseUser | PutFlag
"""A command that never shares a frame with another submission."""

Command = Increment | PutUser | AloneCommand


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """The answer to an `Increment`. `applied` is True if this command was applied, False for a duplicate.

    `delta` is what this command added. It is 0 for a duplicate, so callers may sum deltas. A duplicate has the `epoch`
    and `seq` of the original event, and the score and ranks of now. `rank` is None for a user who is not on the board:
    inactive, or without points there. `previous_rank` is also None before the user's first points. `held`: the board
    holds the action until somebody decides (`engine.holds`).
    """

    user_id: str
    new_score: int
    delta: int
    applied: bool
    action_id: str
    board_id: str
    epoch: int
    seq: int
    rank: int | None
    previous_rank: int | None
    held: Literal[True] | UnsetType = UNSET


class UserReceipt(msgspec.Struct, frozen=True, gc=False):
    """The answer to a `PutUser`: the user as it is now. `applied` is False when nothing had to change."""

    user_id: str
    display_name: str | None
    active: bool
    applied: bool
    epoch: int
    seq: int


class BoardReceipt(msgspec.Struct, frozen=True, gc=False):
    """The answer to a `BoardCommand`. `applied` is False when nothing had to change; then `seq` is the board's."""

    board_id: str
    applied: bool
    epoch: int
    seq: int


class UserChange(msgspec.Struct, frozen=True, gc=False):
    """A user's score before and after a reversal; None: the user is not on the board."""

    user_id: str
    old_score: int | None
    new_score: int | None


class BoardChange(msgspec.Struct, frozen=True, gc=False):
    """What a reversal does on a board. `period` is the id of a past period, None for the running one.

    `top` are the first rows of the running period after it.
    """

    board_id: str
    period: str | None
    users: tuple[UserChange, ...]
    top: tuple[Row, ...] = ()


class ReversalReceipt(msgspec.Struct, frozen=True, gc=False):
    """The answer to a `Reverse`. `applied` is False for a repeat, which has the seq of the first, and for a preview.

    `actions` are the seqs that count no more, or again. `forgotten` of them counted only in periods that are no longer
    kept.
    """

    reversal_id: str
    applied: bool
    again: bool
    epoch: int
    seq: int
    actions: tuple[int, ...] = ()
    changes: tuple[BoardChange, ...] = ()
    forgotten: int = 0


class ReviewReceipt(msgspec.Struct, frozen=True, gc=False):
    """The answer to a `DecideReview`. `applied` is False when it was decided so before; `seq` is of the decision.

    `actions` are the seqs that count now, or no more. The rest is as of `ReversalReceipt`. `reversal_id` names the
    reversal that was made.
    """

    review_id: str
    applied: bool
    epoch: int
    seq: int
    actions: tuple[int, ...] = ()
    changes: tuple[BoardChange, ...] = ()
    forgotten: int = 0
    reversal_id: str = ""


class ImportReceipt(msgspec.Struct, frozen=True, gc=False):
    """The answer to `ImportRows`: how much of the import is done now, and how many rows this command applied."""

    import_id: str
    board_id: str
    rows: int
    rows_done: int
    applied: int
    epoch: int
    seq: int


class EraseReceipt(msgspec.Struct, frozen=True, gc=False):
    """The answer to an `EraseUser`. So many `actions` of the user stay used."""

    user_id: str
    applied: bool
    epoch: int
    seq: int
    time_ms: int
    actions: int


class FlagReceipt(msgspec.Struct, frozen=True, gc=False):
    """The answer to a `PutFlag`. `applied` is False when the flag was so already."""

    flag: FlagName
    enabled: bool
    applied: bool
    epoch: int
    seq: int


class Rejection(msgspec.Struct, frozen=True, gc=False):
    """A command that the rules refused. Nothing was logged. `details` names the field at fault."""

    code: RejectionCode
    message: str
    details: dict[str, str | int | list[str]]


Outcome = (
    Receipt
    | UserReceipt
    | BoardReceipt
    | ReversalReceipt
    | ReviewReceipt
    | ImportReceipt
    | EraseReceipt
    | FlagReceipt
    | Rejection
)
