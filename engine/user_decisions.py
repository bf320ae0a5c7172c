"""Deciding a command about a user, and whether a user may score. Pure.

    decided = decide_user(command, known, seq=seq, now_ms=now_ms)          a `UserPut`, or that nothing has to change
    fault = user_fault(user_id, known, must_be_known=True)                 None, or why the user may not score

`known` is the user as it is after what was decided before, None if it was never registered.
"""

from __future__ import annotations

import msgspec
from msgspec import UNSET

from engine.commands import PutUser, Rejection
from engine.counting import invalid
from engine.events import UserPut
from engine.scoreboard import UNKNOWN_USER
from engine.users import User


class Unchanged(msgspec.Struct, frozen=True, gc=False):
    """The decision that a user is already as the command wants."""

    user_id: str
    user: User


def decide_user(command: PutUser, known: User | None, *, seq: int, now_ms: int) -> UserPut | Unchanged:
    """Decide a command whose event would have this seq and time. UNSET leaves a field as it is."""
    before = known or UNKNOWN_USER
    name = before.display_name if command.display_name is UNSET else command.display_name
    active = before.active if command.active is UNSET else command.active
    if known is not None and before == User(name, active):
        return Unchanged(command.user_id, known)
    return UserPut(seq, now_ms, command.user_id, name, active, command.caller)


def user_fault(user_id: str, known: User | None, *, must_be_known: bool) -> Rejection | None:
    """Say why a user may not score."""
    if known is None:
        return invalid("userId", f"user {user_id!r} is not registered") if must_be_known else None
    return None if known.active else invalid("userId", f"user {user_id!r} is inactive and cannot be incremented")
