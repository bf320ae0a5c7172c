"""Which users an event concerns. Pure.

    if user_id in users_of(event): …

Rules:
- An action concerns its user, on every board that it fed. A registration concerns its user.
- A reversal concerns the users whose scores it changed, of now and of past periods.
- An erasure concerns its user until the log is rewritten, and nobody afterwards.
"""

from __future__ import annotations

from engine.erased import is_erased
from engine.events import Event, Incremented, Reversed, UserErased, UserPut


def users_of(event: Event) -> set[str]:
    """Give the users that an event concerns, but those who were erased."""
    if isinstance(event, Reversed):
        users = {row.user_id for part in event.scores + event.periods for row in part.rows}
    elif isinstance(event, Incremented | UserPut | UserErased):
        users = {event.user_id}
    else:
        users = set()
    return {user_id for user_id in users if not is_erased(user_id)}
