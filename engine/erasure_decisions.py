"""Deciding the erasure of a user: from what the log says of the user to the event that must be logged. Pure.

    erasure = decide_erasure(scoreboard, command, seq, now_ms)          an `Erasure`, or a `Rejection`

The traces of the command have seen every event up to the state, so no action of the user is left out.

Rules:
- A user is erased who is in the log, on a board, registered, or in a past period. Nobody else: there is nothing to
  forget, and a repeat after a lost answer changes nothing.
- One event names all actions of the user. If they are too many for that, nothing is erased.
- The number of the erasure is the user's pseudonym.
"""

from __future__ import annotations

import msgspec

from engine.commands import EraseReceipt, EraseUser, Rejection
from engine.erased import pack_seqs, pseudonym_of
from engine.events import Event, UserErased
from engine.limits import FRAME_BYTES_MAX
from engine.scoreboard import Scoreboard

PACKED_BYTES_MAX = FRAME_BYTES_MAX // 2
"""The longest list of actions. A frame must have room for the rest of the record, and for its later form."""


class Erasure(msgspec.Struct, frozen=True, gc=False):
    """A decided erasure."""

    event: UserErased
    receipt: EraseReceipt

    @property
    def events(self) -> tuple[Event]:
        """What must be logged."""
        return (self.event,)


def decide_erasure(scoreboard: Scoreboard, command: EraseUser, seq: int, now_ms: int) -> Erasure | Rejection:
    """Decide a command whose event would have this seq and time."""
    user_id, traces = command.user_id, command.traces
    assert traces.seq == scoreboard.seq == seq - 1
    details: dict[str, str | int | list[str]] = {"field": "userId", "userId": user_id}
    if not (traces.is_present or command.in_past or is_known(scoreboard, user_id)):
        return Rejection("NOT_FOUND", f"there is no user {user_id!r} here, or no longer", details)
    packed = pack_seqs(traces.actions)
    if len(packed) > PACKED_BYTES_MAX:
        count = len(traces.actions)
        message = f"user {user_id!r} has {count} actions: more than one event can name; nothing was changed"
        return Rejection("CONFLICT", message, details)
    pseudonym = pseudonym_of(scoreboard.erasures.count + 1)
    event = UserErased(seq, now_ms, user_id, pseudonym, command.caller, packed)
    return Erasure(event, EraseReceipt(user_id, True, scoreboard.epoch, seq, now_ms, len(traces.actions)))


def is_known(scoreboard: Scoreboard, user_id: str) -> bool:
    """Whether a state has a user, whose log may be older than what is kept.

    Registered, on a board, in the ranks of the period before; or in what corrections and watches keep beside boards.
    """
    boards = [shown for board in scoreboard.boards.values() for shown in (board, board.frozen) if shown is not None]
    if scoreboard.users.get(user_id) is not None or any(board.slot(user_id) is not None for board in boards):
        return True
    if any(board.past_ranks.forgetting(user_id) is not board.past_ranks for board in boards):
        return True
    text = msgspec.msgpack.encode(user_id)
    parts = (*scoreboard.reversals.parts(), *scoreboard.reviews.parts())
    return any(text in data for _, data in parts)
