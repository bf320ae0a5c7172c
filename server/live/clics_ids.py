"""The ids of boards and users as the CLICS Contest API can have them. Pure.

    clics_id("ann")                     "ann"
    clics_id("a/b")                     "id_" and 32 hexadecimal digits
    board_of("id_c14cd…", served)       the board that has this id there

Such an id has 1 to 36 of the characters `[A-Za-z0-9_.-]`. It begins with neither `-` nor `.`, and ends with no `.`.

Rules:
- An id that is one already stays as it is. Any other becomes the beginning of its SHA-256. So it is the same on every
  node, in every version, for ever, and nothing has to be kept.
- What looks like such a digest is never kept as it is. So no caller can choose an id that is another one's there.
- The digests of two ids have their first 128 bits in common by no chance that matters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import sha256

CHARACTERS_MAX = 36
_DIGITS = 32
_PREFIX = "id_"

PATTERN = "^[A-Za-z0-9_]([A-Za-z0-9_.-]{0,34}[A-Za-z0-9_-])?$"
_GOOD = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,34}[A-Za-z0-9_-])?")
_DIGEST = re.compile(rf"{_PREFIX}[0-9a-f]{{{_DIGITS}}}")


def clics_id(own_id: str) -> str:
    """Give the id that a board or a user of this id has in the Contest API."""
    if _GOOD.fullmatch(own_id) and not _DIGEST.fullmatch(own_id):
        return own_id
    return _PREFIX + sha256(own_id.encode()).hexdigest()[:_DIGITS]


def board_of(contest_id: str, board_ids: Iterable[str]) -> str:
    """Give the id of the board of a contest. What is no contest's id stands for itself."""
    if _DIGEST.fullmatch(contest_id):
        return next((board_id for board_id in board_ids if clics_id(board_id) == contest_id), contest_id)
    return contest_id
