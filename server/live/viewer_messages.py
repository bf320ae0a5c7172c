"""The messages that viewers send: bytes in, a wish out. Pure.

    wish = read_wish(message)                   # raises `Refused`
    frame = error_frame(refused)

    {"type": "subscribe", "boardId"?, "userId"?}        to be told of one user's place
    {"type": "unsubscribe", "boardId"?, "userId"?}      no longer

Rules:
- A message is a text with one JSON object, and has only these fields. `null` is as if the field was left out.
- A refusal names the field at fault, as the refusals of requests do. It does not end the connection.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from engine.texts import id_fault
from server.http.messages import Refused, invalid, quoted
from server.http.websocket import TEXT, Message, text_frame

SUBSCRIBE: Literal["subscribe"] = "subscribe"
UNSUBSCRIBE: Literal["unsubscribe"] = "unsubscribe"

FIELDS = ("type", "boardId", "userId")


class Wish(msgspec.Struct, frozen=True):
    """What a viewer asks for. What it left out is None."""

    kind: Literal["subscribe", "unsubscribe"]
    board_id: str | None
    user_id: str | None


class _Error(msgspec.Struct, frozen=True, tag="error", tag_field="type"):
    code: str
    message: str
    details: dict[str, Any]


def read_wish(message: Message) -> Wish:
    """Read a message. Raises `Refused`."""
    if message.opcode != TEXT:
        raise invalid("message", "A message must be a text.")
    try:
        fields = msgspec.json.decode(message.payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise invalid("message", "The message is not valid JSON.") from None
    if not isinstance(fields, dict):
        raise invalid("message", "The message must be an object.")
    for name in fields:
        if name not in FIELDS:
            raise invalid(quoted(name), f"Unknown field {quoted(name)}.", allowed=list(FIELDS))
    kind = fields.get("type")
    if kind not in (SUBSCRIBE, UNSUBSCRIBE):
        raise invalid("type", f"type must be {SUBSCRIBE} or {UNSUBSCRIBE}.", allowed=[SUBSCRIBE, UNSUBSCRIBE])
    return Wish(kind, _id_of(fields, "boardId"), _id_of(fields, "userId"))


def _id_of(fields: dict[str, Any], name: str) -> str | None:
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise invalid(name, f"{name} must be a string.")
    if fault := id_fault(value):
        raise invalid(name, f"{name} {fault}.")
    return value


def error_frame(refused: Refused) -> bytes:
    """Make the answer to a message that is refused."""
    return text_frame(msgspec.json.encode(_Error(refused.code, refused.message, refused.details)))
