"""The strict reading of request bodies. Pure: bytes in, values out, or `Refused` that names the field at fault.

Rules:
- A body is JSON of exactly the named fields. Whatever else is in it is refused with the field's name, never ignored:
  a caller that sends `delta` believes that it matters.
- Where a JSON object names a field twice, the last one counts; that is the decoder's way and RFC 8259 allows it.
- `Content-Type` may be missing; when given it is `application/json`, in UTF-8. What curl says of every body that it was
  told nothing about, `application/x-www-form-urlencoded`, counts as missing. Compressed bodies are refused.
- The batch is decoded in one pass, as nearly always every item has the right shape; only when one has not, each is
  decoded by itself, so that a bad item does not spoil its neighbours.
"""

from __future__ import annotations

import re
from typing import Annotated, NoReturn, TypeVar

import msgspec

from engine import limits
from engine.commands import id_fault, name_fault
from server.protocol import DEFAULT_BOARD, JSON, Id, Name, Refused, Request, invalid, quoted

DEFAULT_REASON = "ACTION_COMPLETED"


class IncrementBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", gc=False):
    """Body of POST /scores/increment, and an item of a batch."""

    user_id: Annotated[Id, msgspec.Meta(examples=["alice"])]
    action_id: Annotated[Id, msgspec.Meta(examples=["order-4711"])]
    reason: Annotated[Id, msgspec.Meta(examples=[DEFAULT_REASON])] = DEFAULT_REASON
    board_id: Annotated[Id, msgspec.Meta(examples=[DEFAULT_BOARD])] = DEFAULT_BOARD


class UserBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", gc=False):
    """Body of PUT /users/{userId}; what is not named stays as it is."""

    display_name: Annotated[Name, msgspec.Meta(examples=["Alice"])] | msgspec.UnsetType = msgspec.UNSET
    active: bool | msgspec.UnsetType = msgspec.UNSET


Body = TypeVar("Body")

_increment_decoder = msgspec.json.Decoder(IncrementBody)
_increments_decoder = msgspec.json.Decoder(list[IncrementBody])
_items_decoder = msgspec.json.Decoder(list[msgspec.Raw])
_user_decoder = msgspec.json.Decoder(UserBody)

_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(\w+)`")
_WRONG_TYPE = re.compile(r"Expected `([^`]+)`, got `([^`]+)`(?: - at `\$\.(\w+)`)?")
_ITEM_COMMAS_MAX = 4 * (limits.ID_CHARACTERS_MAX + 1)
_UNSAID = "application/x-www-form-urlencoded"
_TYPE_NAMES = {"str": "a string", "int": "a number", "float": "a number", "bool": "true or false", "null": "null",
               "array": "an array", "object": "an object"}  # fmt: skip


def check_content(request: Request) -> None:
    """Refuse a body that says of itself that it is not plain JSON in UTF-8."""
    content_type = request.headers.get("content-type")
    if content_type is not None:
        kind, _, parameters = content_type.partition(";")
        charset = parameters.strip().lower().replace('"', "")
        if kind.strip().lower() not in (JSON, _UNSAID) or charset not in ("", "charset=utf-8", "charset=utf8"):
            raise invalid("Content-Type", "Content-Type must be application/json, in UTF-8.")
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise invalid("Content-Encoding", "Compressed bodies are not accepted.")


def decode_increment(body: bytes) -> IncrementBody:
    """Read the body of an increment."""
    increment = _decode(_increment_decoder, body)
    check_increment(increment)
    return increment


def decode_batch(body: bytes, items_max: int) -> list[IncrementBody | Refused]:
    """Read a batch; an item that is wrong comes back as its own refusal. Raises `Refused` for the batch as a whole."""
    try:
        shaped: list[IncrementBody] | None = _increments_decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        shaped = None
    if shaped is not None:
        _check_batch_length(len(shaped), items_max)
        return [_increment_or_refused(item) for item in shaped]
    if body.count(b",") > items_max * _ITEM_COMMAS_MAX:  # or millions of tiny items would be taken apart to be counted
        raise invalid("body", f"A batch has 1 to {items_max} items.", minimum=1, maximum=items_max)
    raw = _decode(_items_decoder, body)
    _check_batch_length(len(raw), items_max)
    items: list[IncrementBody | Refused] = []
    for one in raw:
        try:
            items.append(decode_increment(bytes(one)))
        except Refused as refused:
            items.append(refused)
    return items


def decode_user(body: bytes) -> UserBody:
    """Read the body of PUT /users/{userId}."""
    user = _decode(_user_decoder, body)
    if user.display_name is msgspec.UNSET and user.active is msgspec.UNSET:
        raise invalid("body", "Name at least one of displayName and active.")
    if user.display_name is not msgspec.UNSET and (fault := name_fault(user.display_name)):
        raise invalid("displayName", f"displayName {fault}.")
    return user


def check_increment(increment: IncrementBody) -> None:
    """Refuse ids that are empty, too long or have control characters."""
    if fault := id_fault(increment.user_id):
        raise invalid("userId", f"userId {fault}.")
    if fault := id_fault(increment.action_id):
        raise invalid("actionId", f"actionId {fault}.")
    if fault := id_fault(increment.reason):
        raise invalid("reason", f"reason {fault}.")
    if fault := id_fault(increment.board_id):
        raise invalid("boardId", f"boardId {fault}.")


def _increment_or_refused(increment: IncrementBody) -> IncrementBody | Refused:
    try:
        check_increment(increment)
    except Refused as refused:
        return refused
    return increment


def _check_batch_length(count: int, items_max: int) -> None:
    if not 1 <= count <= items_max:
        raise invalid("body", f"A batch has 1 to {items_max} items, not {count}.", minimum=1, maximum=items_max)


def _decode(decoder: msgspec.json.Decoder[Body], body: bytes) -> Body:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as fault:
        _refuse_shape(str(fault))
    except msgspec.DecodeError as fault:
        raise invalid("body", f"The body is not valid JSON: {fault}.") from None
    except UnicodeDecodeError:
        raise invalid("body", "The body is not valid UTF-8.") from None
    except RecursionError:
        raise invalid("body", "The body is nested too deeply.") from None


def _refuse_shape(fault: str) -> NoReturn:
    """Say in the wire's terms what the decoder found wrong; a test pins the decoder's phrases that this reads."""
    if unknown := _UNKNOWN.match(fault):
        name = quoted(unknown[1])
        raise invalid(name, f"Unknown field {name}.")
    if missing := _MISSING.match(fault):
        raise invalid(missing[1], f"{missing[1]} is missing.")
    if wrong := _WRONG_TYPE.match(fault):
        expected, got = (_TYPE_NAMES.get(name, name) for name in wrong.group(1, 2))
        field = wrong[3] or "body"
        raise invalid(field, f"{field} must be {expected}, not {got}.")
    raise invalid("body", f"The body does not have the expected form: {quoted(fault)}.")
