"""What many increments do on one board: the steps that a watch sees together. Pure.

    steps = Steps(events, slots)                           each event on its own board
    steps = Steps(events, slots, places)                   what was fed: place 1 is the first board of an event's `fed`

The slots are those of the users on the board once the steps were taken there.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from engine.events import Fed, Incremented

Step = tuple[str, int, int, str]
"""A user, the change and the new score, and the caller."""


class Moved(msgspec.Struct, frozen=True, gc=False):
    """A user left a board: the slot that became free went to the user of the last slot, who may be the same."""

    user_id: str
    slot: int
    last: int


class Steps:
    """The steps on one board, in their order."""

    def __init__(
        self, events: Sequence[Incremented], slots: Sequence[int], places: Sequence[int] | None = None
    ) -> None:
        assert len(slots) == len(events)
        self.slots = slots
        self._events, self._places = events, places

    def origin(self, at: int) -> tuple[Incremented, int]:
        """Give the event of a step, and its place: 0 for its own board, 1 for the first that it fed."""
        return self._events[at], 0 if self._places is None else self._places[at]

    def step(self, at: int) -> Step:
        """Give a step."""
        event = self._events[at]
        place = 0 if self._places is None else self._places[at]
        part = event.fed[place - 1] if place else event
        return event.user_id, part.delta, part.new_score, event.caller

    def deltas(self, start: int, end: int) -> list[int]:
        """Give the changes of some steps."""
        return [part.delta for part in self._parts(start, end)]

    def scores(self, start: int, end: int) -> list[int]:
        """Give the new scores of some steps."""
        return [part.new_score for part in self._parts(start, end)]

    def callers(self, start: int, end: int) -> list[str]:
        """Give the callers of some steps."""
        return [event.caller for event in self._events[start:end]]

    def _parts(self, start: int, end: int) -> Sequence[Incremented | Fed]:
        events = self._events[start:end]
        if self._places is None:
            return events
        places = self._places[start:end]
        return [event.fed[place - 1] if place else event for event, place in zip(events, places, strict=True)]
