"""The shapes of POST /reversals and GET /reversals/{reversalId}, and the strict reading of the first. Pure.

    asked = decode_reversal(request.body)              `Asked`, or `Refused` that names the field at fault

Rules:
- A body names actions in one of three ways: `actionIds`, or all of `userId`, or all of `caller`. The last two may be
  bounded by `from` and `to`. Both are included.
- A bound is a seq, or a time with an offset. A time is that of the event in the log.
- `actionIds` may hold one reversalId and nothing else: then that reversal is taken back.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from engine.commands import BoardChange, ReversalReceipt
from engine.limits import SEQ_MAX
from engine.texts import id_fault, name_fault
from server import bounds
from server.api.answers import Delta, Epoch, Score, Seq, Time
from server.api.decoding import decode_strictly
from server.http.messages import Id, invalid
from server.live.encoding import Entry
from server.settings.board_form import AN_INSTANT, instant_ms

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_FORMS = ("actionIds", "userId", "caller")

Bound = Annotated[int | str, Meta(description="A seq, or a time such as 2025-12-15T12:00:00Z")]


class ReversalBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Body of POST /reversals."""

    reversal_id: Annotated[Id, Meta(examples=["dispute-17"])]
    reason: Annotated[str, Meta(examples=["played with a bot"])]
    action_ids: (
        Annotated[list[Id], Meta(extra_json_schema={"minItems": 1, "maxItems": bounds.REVERSAL_ACTIONS_MAX})] | None
    ) = None
    user_id: Id | None = None
    caller: Id | None = None
    from_: Bound | None = msgspec.field(name="from", default=None)
    to: Bound | None = None
    preview: bool = False


class Range(msgspec.Struct, frozen=True):
    """Events from one place to another, both included."""

    from_seq: int = 1
    to_seq: int = SEQ_MAX
    from_ms: int = 0
    to_ms: int = 2**63

    def holds(self, seq: int, time_ms: int) -> bool:
        """Tell whether an event is in the range."""
        return self.from_seq <= seq <= self.to_seq and self.from_ms <= time_ms <= self.to_ms


class Asked(msgspec.Struct, frozen=True):
    """What is asked for. `mark` is of all but the reason: the same reversalId must ask for the same again."""

    reversal_id: str
    reason: str
    action_ids: tuple[str, ...]
    user_id: str | None
    caller: str | None
    within: Range
    preview: bool
    mark: int


class ChangedUser(msgspec.Struct, frozen=True, rename="camel"):
    """A user's score before and after; null: the user is not on the board."""

    user_id: Id
    old_score: Score | None
    new_score: Score | None
    delta: Delta


class ChangedBoard(msgspec.Struct, frozen=True, rename="camel"):
    """What changes on a board. With `period` it is a past one. `top` are the first rows after it."""

    board_id: Id
    users: list[ChangedUser]
    period: str | UnsetType = UNSET
    top: tuple[Entry, ...] | UnsetType = UNSET


class ReversalAnswer(msgspec.Struct, frozen=True, rename="camel"):
    """POST /reversals. `applied` is false for a preview, and where the reversal was made before.

    `again`: it took back a reversal, so that actions count again. `actions` counts them. `forgotten` of them counted
    only in periods that are no longer kept. `changes` are left out where the reversal was made before.
    """

    reversal_id: Id
    applied: bool
    preview: bool
    again: bool
    epoch: Epoch
    seq: int
    actions: Annotated[int, Meta(ge=0)] | UnsetType = UNSET
    users: Annotated[int, Meta(ge=0)] | UnsetType = UNSET
    forgotten: Annotated[int, Meta(ge=0)] | UnsetType = UNSET
    changes: list[ChangedBoard] | UnsetType = UNSET


class LoggedReversal(msgspec.Struct, frozen=True, rename="camel"):
    """GET /reversals/{reversalId}: what the log says of a reversal. `holding`: how many actions it holds back now.

    Actions of users who were erased are not among them: nothing lets these count again.
    """

    reversal_id: Id
    reason: str
    caller: Id
    again: bool
    actions: Annotated[int, Meta(ge=0)]
    holding: Annotated[int, Meta(ge=0)]
    changes: list[ChangedPlace]
    epoch: Epoch
    seq: Seq
    time: Time


class ChangedPlace(msgspec.Struct, frozen=True, rename="camel"):
    """A board, or with `period` the seq that ended a past one, and the scores that users had after it."""

    board_id: Id
    users: list[UserScore]
    ended_seq: Seq | UnsetType = UNSET


class UserScore(msgspec.Struct, frozen=True, rename="camel"):
    """A user's score; null: the user left the board."""

    user_id: Id
    score: Score | None


_decoder = msgspec.json.Decoder(ReversalBody)


def decode_reversal(body: bytes) -> Asked:
    """Read a body. Raises `Refused`."""
    form = decode_strictly(_decoder, body.removeprefix(_BYTE_ORDER_MARK))
    _check_id("reversalId", form.reversal_id)
    if not form.reason.strip():
        raise invalid("reason", "reason is empty: say why, the log keeps it.")
    if fault := name_fault(form.reason):
        raise invalid("reason", f"reason {fault}.")
    given = [name for name, value in zip(_FORMS, (form.action_ids, form.user_id, form.caller), strict=True)
             if value is not None]  # fmt: skip
    if len(given) != 1:
        found = "none of them" if not given else " and ".join(given)
        message = f"Name the actions in one way, by actionIds, userId or caller, not by {found}."
        raise invalid(given[1] if len(given) > 1 else "actionIds", message, allowed=list(_FORMS))
    if form.action_ids is not None and (form.from_ is not None or form.to is not None):
        raise invalid("from" if form.from_ is not None else "to", "from and to go with userId or caller only.")
    within = _range(form.from_, form.to)
    what = (sorted(set(form.action_ids or ())), form.user_id, form.caller, msgspec.structs.astuple(within))
    mark = blake2b(msgspec.msgpack.encode(what), digest_size=8).digest()
    return Asked(
        form.reversal_id, form.reason, _ids(form.action_ids), form.user_id, form.caller, within, form.preview,
        int.from_bytes(mark, "little"),
    )  # fmt: skip


def _check_id(field: str, value: str) -> None:
    if fault := id_fault(value):
        raise invalid(field, f"{field} {fault}.")


def _ids(action_ids: list[str] | None) -> tuple[str, ...]:
    ids = tuple(dict.fromkeys(action_ids or ()))
    if action_ids is not None and not 1 <= len(ids) <= bounds.REVERSAL_ACTIONS_MAX:
        most = bounds.REVERSAL_ACTIONS_MAX
        raise invalid("actionIds", f"actionIds has 1 to {most} ids, not {len(ids)}.", minimum=1, maximum=most)
    for index, action_id in enumerate(ids):
        if fault := id_fault(action_id):
            raise invalid("actionIds", f"actionIds[{index}] {fault}.")
    return ids


def _range(first: int | str | None, last: int | str | None) -> Range:
    bounds_of: dict[str, int] = {}
    for field, value, seq_field, ms_field in (
        ("from", first, "from_seq", "from_ms"), ("to", last, "to_seq", "to_ms"),
    ):  # fmt: skip
        if isinstance(value, str):
            at_ms = instant_ms(value)
            if at_ms is None:
                raise invalid(field, f"{field} {AN_INSTANT}, or a seq.")
            bounds_of[ms_field] = at_ms
        elif value is not None:
            if not 1 <= value <= SEQ_MAX:
                raise invalid(field, f"{field} must be a seq from 1 to {SEQ_MAX}, or a time.")
            bounds_of[seq_field] = value
    within = Range(**bounds_of)
    if within.from_seq > within.to_seq or within.from_ms > within.to_ms:
        raise invalid("to", "to is before from.")
    return within


def changed_board(change: BoardChange, top: tuple[Entry, ...]) -> ChangedBoard:
    """Make the wire's form of what changes on a board."""
    users = [
        ChangedUser(user.user_id, user.old_score, user.new_score, (user.new_score or 0) - (user.old_score or 0))
        for user in change.users
    ]
    if change.period is None:
        return ChangedBoard(change.board_id, users, top=top)
    return ChangedBoard(change.board_id, users, change.period)


def reversal_answer(receipt: ReversalReceipt, changes: list[ChangedBoard], *, preview: bool) -> ReversalAnswer:
    """Make the wire's form of a receipt."""
    common = (receipt.reversal_id, receipt.applied, preview, receipt.again, receipt.epoch, receipt.seq)
    if not receipt.actions:
        return ReversalAnswer(*common)
    users = {user.user_id for change in changes for user in change.users}
    return ReversalAnswer(*common, len(receipt.actions), len(users), receipt.forgotten, changes)
