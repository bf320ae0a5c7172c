"""What is wrong with an id or a name. Pure.

fault = id_fault(user_id)            None, or the rest of a sentence: "must not be empty"
fault = name_fault(display_name)
"""

from __future__ import annotations

import unicodedata

from engine import limits


def id_fault(value: str) -> str | None:
    """Say what is wrong with an id (userId, actionId, boardId, reason), None if it is good.

    Control characters are refused because ids appear in logs and terminals. Lone surrogates are refused because UTF-8
    can't encode them.
    """
    return text_fault(value, limits.ID_CHARACTERS_MAX)


def name_fault(value: str) -> str | None:
    fault = text_fault(value, limits.NAME_CHARACTERS_MAX)
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


def text_fault(value: str, characters_max: int) -> str | None:
    """Say what is wrong with a text of one line, None if it is good."""
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
