"""What a log says of one user, as far as an erasure must know it. Pure.

    traces = Traces("ann")
    for event in events: traces.take(event)                 in the order of the log
    traces = newest_first("ann", 4711, events)              from the ledger, which begins with the newest; then `take`

Rules:
- What came before the last erasure under this id was another user's.
- A user is present whom something names since, be it only a correction.
"""

from __future__ import annotations

from collections.abc import Iterable

from engine.events import Event, Incremented, UserErased
from engine.rewriting import users_in


class Traces:
    """The erasures of a user as (seq, pseudonym), and the seqs of the actions since the last of them, ascending.

    `counts` are the numbers of actions of each erasure. `seq` is that of the last event that was looked at.
    """

    def __init__(self, user_id: str, seq: int = 0) -> None:
        self.user_id = user_id
        self.seq = seq
        self.erasures: list[tuple[int, str]] = []
        self.counts: list[int] = []
        self.actions: list[int] = []
        self.is_present = False

    def take(self, event: Event) -> None:
        """Take the next event, whomever it is about."""
        assert event.seq > self.seq
        self.seq = event.seq
        if self.user_id not in users_in(event):
            return
        is_theirs = getattr(event, "user_id", None) == self.user_id
        self.is_present = not (isinstance(event, UserErased) and is_theirs)
        if isinstance(event, UserErased) and is_theirs:
            self.erasures.append((event.seq, event.pseudonym))
            self.counts.append(len(self.actions))
            self.actions.clear()
        elif isinstance(event, Incremented) and is_theirs:
            self.actions.append(event.seq)


def newest_first(user_id: str, seq: int, events: Iterable[Event]) -> Traces:
    """Make the traces of a user from the user's events up to `seq`, the newest first, back to the last erasure."""
    traces = Traces(user_id, seq)
    for event in events:
        if isinstance(event, Incremented):
            traces.actions.append(event.seq)
        traces.is_present = True
    traces.actions.reverse()
    return traces
