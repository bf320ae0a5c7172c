"""The facts that are logged. An event is decided once, by the leader; applying it is deterministic and never fails.

Each event knows its seq and its time; the epoch belongs to the frame that carries it. `engine.record` has the bytes.
"""

from __future__ import annotations

import msgspec


class Incremented(msgspec.Struct, frozen=True, gc=False):
    """`delta` points for one action. `new_score` is what the user has on this board from this event on.

    `time_ms` is in milliseconds since 1970-01-01 UTC and never goes back from one event to the next.
    """

    seq: int
    time_ms: int
    board_id: str
    user_id: str
    action_id: str
    delta: int
    reason: str
    caller: str
    new_score: int


class UserPut(msgspec.Struct, frozen=True, gc=False):
    """What is known of a user from this event on: whole, so that applying it needs nothing that came before."""

    seq: int
    time_ms: int
    user_id: str
    display_name: str | None
    active: bool
    caller: str


class EpochBegun(msgspec.Struct, frozen=True, gc=False):
    """A new leader's first event: from here on the log is of this epoch. `note` says what made it begin."""

    seq: int
    time_ms: int
    epoch: int
    note: str


Event = Incremented | UserPut | EpochBegun
