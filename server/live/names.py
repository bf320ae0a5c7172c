"""Who is shown which display names: `[privacy] names`. Pure.

    initials("Ann Kathrin")                                       "A. K."
    names = names_for(scoreboard.users, "initials", own="ann")    names.name("ann"): the whole name

    form        the public sees                      a token with scores:read, and the user's own, see
    shown       the whole name                       the whole name
    initials    the first letters of its words       the whole name
    hidden      no name                              the whole name

Rules:
- The form changes answers only. Log, snapshots and state keep the whole name.
- Ids are shown in every form: a board's rows are known by them.
- Initials are at most INITIALS_MAX: a name of single letters must not come out whole. A name that is one letter does.
- A word begins at its first letter or digit, with the marks that belong to it. A word without any has no initial, and
  a name without any initial counts as none: a sign or an emoji could be all of the name.
"""

from __future__ import annotations

import unicodedata
from itertools import takewhile
from typing import Literal, Protocol

from engine.users import Users

NameForm = Literal["shown", "initials", "hidden"]

INITIALS_MAX = 3
_MARKS_MAX = 2
"""Marks that belong to a letter. More are decoration, and could be counted to know a name by."""


class Names(Protocol):
    """Gives the name that is shown of a user."""

    def name(self, user_id: str) -> str | None:
        """Give the name; None: none is shown."""


class _PublicNames:
    """What the public sees, with the whole name of one user."""

    def __init__(self, users: Users, form: NameForm, own: str | None) -> None:
        self._users = users
        self._form = form
        self._own = own

    def name(self, user_id: str) -> str | None:
        whole = self._users.name(user_id)
        if whole is None or user_id == self._own:
            return whole
        return initials(whole) if self._form == "initials" else None


def names_for(users: Users, form: NameForm, own: str | None = None) -> Names:
    """Give the names in a form. The name of the user `own` is whole."""
    return users if form == "shown" else _PublicNames(users, form, own)


def initials(name: str) -> str | None:
    """Give the first letters of the words of a name, with dots; None if no word has a letter or digit."""
    found = [letter for word in unicodedata.normalize("NFC", name).split() if (letter := _initial(word))]
    return " ".join(f"{letter}." for letter in found[:INITIALS_MAX]) or None


def _initial(word: str) -> str:
    for place, letter in enumerate(word):
        if letter.isalnum():
            following = word[place + 1 : place + 1 + _MARKS_MAX]
            marks = "".join(takewhile(lambda mark: unicodedata.category(mark).startswith("M"), following))
            capital = letter.upper()
            return (capital if len(capital) == 1 else letter) + marks  # ß has no capital of one letter
    return ""
