"""Which users an event concerns. Pure.

    if user_id in users_of(event): …

Rules:
- An event with a `user_id` concerns this user: an action, a registration, a score that was imported.
- A reversal, and the decision of a review, concern the users whose scores they changed, of now and of past periods.
- An erasure concerns its user until the log is rewritten, and nobody afterwards.
"""

from __future__ import annotations

from engine.erased import is_erased
from engine.events import Event, Reversed, ReviewDecided


def users_of(event: Event) -> set[str]:
    """Give the users that an event concerns, but those who were erased."""
    if isinstance(event, Reversed | ReviewDecided):
        users = {row.user_id for part in event.scores + event.periods for row in part.rows}
    else:
        user_id: str | None = getattr(event, "user_id", None)
        users = set() if user_id is None else {user_id}
    return {user_id for user_id in users if not is_erased(user_id)}
