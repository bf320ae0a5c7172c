"""Which events `scoreboard log dump` prints: those of a user, a caller, a reason, a board, a time. Pure.

    wanted = Wanted(user="alice", since_ms=ms)
    if wanted.of_time(times.of(seq, time_ms)) and wanted.of(event): …

Rules:
- An event must match each filter that is given. One that has no such field does not match.
- A reversal matches the users and boards whose scores it changed.
- A board matches where an action counted: on its own board, and on those that it fed. A user matches a change of the
  user, too.
- Times are those when events happened, after all corrections of the clock. `until_ms` counts too.
"""

from __future__ import annotations

import msgspec

from engine.concerned import users_of
from engine.events import Event, Incremented, Reversed


class Wanted(msgspec.Struct, frozen=True):
    """The filters; None: not given."""

    user: str | None = None
    caller: str | None = None
    reason: str | None = None
    board: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None

    @property
    def by_time(self) -> bool:
        """Whether a time was given."""
        return self.since_ms is not None or self.until_ms is not None

    def of_time(self, true_ms: int) -> bool:
        """Tell whether events that happened at a time may match."""
        is_early = self.since_ms is not None and true_ms < self.since_ms
        is_late = self.until_ms is not None and true_ms > self.until_ms
        return not is_early and not is_late

    def of(self, event: Event) -> bool:
        """Tell whether an event matches, but for its time."""
        if self.user is not None and self.user not in users_of(event):
            return False
        fields = ((self.caller, "caller"), (self.reason, "reason"))
        if any(value is not None and getattr(event, name, None) != value for value, name in fields):
            return False
        return self.board is None or self.board in _boards(event)


def _boards(event: Event) -> tuple[str, ...]:
    if isinstance(event, Reversed):
        return tuple(part.board_id for part in event.scores + event.periods)
    if isinstance(event, Incremented):
        return (event.board_id, *(fed.board_id for fed in event.fed))
    board_id = getattr(event, "board_id", None)
    return () if board_id is None else (board_id,)
