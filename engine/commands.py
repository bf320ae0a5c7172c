"""What a caller asks (commands), and what the caller is told (receipts, rejections). Values, without behaviour.

Rule: the ids and names in a command are valid. Constructors do not check that. Code that builds a command from outside
input calls `id_fault` and `name_fault` first. Names in an old log may break a rule that is newer: they are kept.
"""

from __future__ import annotations

import unicodedata
from typing import Literal

import msgspec

from engine import limits

RejectionCode = Literal["INVALID_REQUEST", "CONFLICT"]


class Increment(msgspec.Struct, frozen=True, gc=False):
    """Count one action for one user. The board's catalogue decides the points, never the caller.

    `key` is the digest of the actionId (`engine.actions.key_of`) where the sender has made it already, else empty.
    """

    user_id: str
    action_id: str
    reason: str
    board_id: str
    caller: str
    key: bytes = b""


class PutUser(msgspec.Struct, frozen=True, gc=False):
    """Register a user, or change its name or its state. UNSET leaves a field as it is; the name None takes it away."""

    user_id: str
    display_name: str | msgspec.UnsetType | None
    active: bool | msgspec.UnsetType
    caller: str


Command = Increment | PutUser


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """The answer to an `Increment`. `applied` is True if this command was applied, False for a duplicate.

    `delta` is what this command added. It is 0 for a duplicate, so callers may sum deltas. A duplicate has the `epoch`
    and `seq` of the original event, and the score and ranks of now. `rank` is None for an inactive user, who is not on
    the board. `previous_rank` is also None before the user's first points.
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


class UserReceipt(msgspec.Struct, frozen=True, gc=False):
    """The answer to a `PutUser`: the user as it is now. `applied` is False when nothing had to change."""

    user_id: str
    display_name: str | None
    active: bool
    applied: bool
    epoch: int
    seq: int


class Rejection(msgspec.Struct, frozen=True, gc=False):
    """A command that the rules refused. Nothing was logged. `details` names the field at fault."""

    code: RejectionCode
    message: str
    details: dict[str, str | int | list[str]]


Outcome = Receipt | UserReceipt | Rejection


def id_fault(value: str) -> str | None:
    """Say what is wrong with an id (userId, actionId, boardId, reason), None if it is good.

    Control characters are refused because ids appear in logs and terminals. Lone surrogates are refused because UTF-8
    can't encode them.
    """
    return _text_fault(value, limits.ID_CHARACTERS_MAX)


def name_fault(value: str) -> str | None:
    fault = _text_fault(value, limits.NAME_CHARACTERS_MAX)
    if fault is None and not any(map(_is_visible, value)):
        return "shows nothing: it needs at least one character that can be seen"
    return fault


_UNSEEN_CATEGORIES = frozenset({"Zs", "Zl", "Zp", "Mn", "Mc", "Me", "Cc", "Cf", "Cs"})
"""White space, marks that only combine with a character before them, controls, formats (zero width, tags), surrogates.

Letters, numbers, punctuation and symbols are seen. So are private and unassigned characters: a font may draw them, and
newer versions of Unicode assign more."""

_UNSEEN_OTHERS = (
    (0x115F, 0x1160), (0x3164, 0x3164), (0xFFA0, 0xFFA0),  # Hangul fillers: letters
    (0x2800, 0x2800), (0x1D159, 0x1D159), (0x13441, 0x13442),  # blanks: of Braille, of music, of Egyptian
    (0x2065, 0x2065), (0xFFF0, 0xFFF8), (0xE0000, 0xE0FFF),  # unassigned, reserved for formats
    (0xFDD0, 0xFDEF),  # no characters at all, as the last two of each plane
)  # fmt: skip
"""Unseen characters of other categories: the rest of Default_Ignorable_Code_Point (Unicode Standard Annex 44), the
blanks, and the noncharacters."""


def _is_visible(character: str) -> bool:
    if unicodedata.category(character) in _UNSEEN_CATEGORIES:
        return False
    code = ord(character)
    return code & 0xFFFE != 0xFFFE and not any(first <= code <= last for first, last in _UNSEEN_OTHERS)


def _text_fault(value: str, characters_max: int) -> str | None:
    if not value:
        return "must not be empty"
    if len(value) > characters_max:
        return f"must be at most {characters_max} characters, not {len(value)}"
    if value.isascii() and value.isprintable():
        return None
    for character in value:
        code = ord(character)
        if code < 0x20 or 0x7F <= code < 0xA0 or code in (0x2028, 0x2029):
            return f"must not have control characters (found U+{code:04X})"
        if 0xD800 <= code < 0xE000:
            return f"must be valid Unicode (found the lone surrogate U+{code:04X})"
    return None
