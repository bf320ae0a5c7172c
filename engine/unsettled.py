"""The erasures whose users the files of a directory still name. Pure.

    unsettled.add(event)                    when a `UserErased` was applied that names its user
    unsettled.gone("ann")                   the seq of the last erasure of this id, 0: none is unsettled
    unsettled.change                        rewrites events as the files will have them; None: nothing is unsettled
    unsettled.settle(4711)                  the files are free of whom these erasures name, up to this seq

Theory: the state forgets a user at once, and files are rewritten later, all users together. In between a reader of the
log must see what it will say then. So the ids are kept here, in memory. After a restart they come from the log, where
each `UserErased` names its user until its segment was rewritten (`unsettled_in`).

Rules:
- A log is rewritten from its oldest segment on. So if the last erasure no longer names its user, none does.
- The one object is shared: whoever holds it sees what was added and settled since.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from engine.erased import is_erased
from engine.errors import NoLongerKept
from engine.event_records import encode_events
from engine.events import Event, UserErased
from engine.record import Frame, events_of
from engine.rewriting import ErasedBy, Forgetting

_RECORD = encode_events([UserErased(1, 1, "", "", "", b"")])[:2]
"""How the record of an erasure begins: as an array of so many, with its number."""


class Unsettled:
    """See above."""

    def __init__(self, events: Iterable[UserErased] = ()) -> None:
        self._events: list[UserErased] = []
        self.change: Forgetting | None = None
        for event in events:
            self.add(event)

    def __len__(self) -> int:
        return len(self._events)

    def add(self, event: UserErased) -> None:
        """Add an erasure, later than the others. One that names nobody any more is settled already."""
        if not is_erased(event.user_id):
            assert not self._events or self._events[-1].seq < event.seq
            self._events.append(event)
            self._changed()

    def begin_with(self, events: Iterable[UserErased]) -> None:
        """Put erasures before the others that are found only now. Those that are here already stay once."""
        first = self.seqs[0] if self._events else None
        self._events[:0] = [event for event in events if first is None or event.seq < first]
        self._changed()

    def settle(self, seq: int) -> None:
        """Forget the erasures up to `seq`."""
        self._events = [event for event in self._events if event.seq > seq]
        self._changed()

    def _changed(self) -> None:
        self.change = Forgetting(self.erasures) if self._events else None

    @property
    def erasures(self) -> dict[str, list[ErasedBy]]:
        """List the erasures of each user, in the order of their seqs."""
        erasures: dict[str, list[ErasedBy]] = {}
        for event in self._events:
            erasures.setdefault(event.user_id, []).append((event.seq, event.pseudonym))
        return erasures

    @property
    def seqs(self) -> list[int]:
        """List the seqs of the erasures."""
        return [event.seq for event in self._events]

    @property
    def oldest_ms(self) -> int | None:
        """The time of the first erasure, None if all are settled."""
        return min((event.time_ms for event in self._events), default=None)

    def find(self, user_id: str) -> UserErased | None:
        """Give the last erasure of an id, None if none is unsettled."""
        return next((event for event in reversed(self._events) if event.user_id == user_id), None)

    def gone(self, user_id: str) -> int:
        """Give the seq of the last erasure of an id; 0 if none is unsettled."""
        event = self.find(user_id)
        return 0 if event is None else event.seq


def unsettled_in(
    event_at: Callable[[int], tuple[Frame, Event]], frames: Callable[[], Iterator[Frame]], last_seq: int
) -> list[UserErased]:
    """Find the unsettled erasures of a log. `last_seq` is that of the last erasure of the state, 0 if there is none.

    Reads one event. Only if that one still names its user, reads all `frames`. Raises `LogDamaged`.
    """
    if not last_seq:
        return []
    try:
        _, last = event_at(last_seq)
    except NoLongerKept:
        return []  # a segment goes only when it is settled
    assert isinstance(last, UserErased), last
    if is_erased(last.user_id):
        return []
    found = [event for frame in frames() if frame.body.startswith(_RECORD) for event in events_of(frame)]
    return [event for event in found if isinstance(event, UserErased) and not is_erased(event.user_id)]
