"""The rare events that webhooks tell of: their places in the log, since the start, or found by reading it.

    rare = RareEvents(scoreboard.seq); rare.took(applied.events)        right after each frame was applied
    rare.after(seq)                                                     the events after a seq, None: read the log
    found = await scan.next()                                           reads on, a bounded piece in a thread

Rules:
- Only places and kinds are remembered, KEPT of them. The event itself is read from the log when it is delivered.
- What is rare has frames of its own: a frame that begins with an increment, or with a row of an import, has nothing
  for us, and is not decoded.
- Where the log no longer has what is asked for, reading goes on with the oldest event that is kept. `lost` says so.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Protocol

import msgspec

from engine.errors import NoLongerKept
from engine.events import Event, PeriodChanged, UserErased
from engine.record import Frame, events_of
from engine.threads import run
from server.settings.webhooks import PERIOD_ENDED, USER_ERASED
from server.webhooks.cursor import Due
from server.webhooks.limits import RARE_EVENTS_KEPT, SCANNED_FOUND_MAX, SCANNED_FRAMES

_PLAIN = (1, 6, 15, 16)
"""The types of records of increments, and of rows of an import (`engine.event_records`)."""


class ReadableLog(Protocol):
    """What is needed of a log (`engine.forgetful_log`)."""

    @property
    def blocks(self) -> bool:
        """Whether reading waits for a disk."""

    def read_from(self, seq: int) -> Iterator[Frame]:
        """Give the durable frames from the one that holds `seq` on. Raises `NoLongerKept`."""

    def event_at(self, seq: int) -> tuple[Frame, Event]:
        """Read one event and its frame. Raises `NoLongerKept`."""


class RareEvents:
    """Knows every rare event after `since`."""

    def __init__(self, since: int) -> None:
        self.since = since
        self._dues: deque[Due] = deque()

    def took(self, events: Sequence[Event]) -> None:
        """Take the events of a frame that was applied."""
        for due in dues_of(events):
            self._dues.append(due)
            if len(self._dues) > RARE_EVENTS_KEPT:
                self.since = self._dues.popleft().seq

    def after(self, seq: int) -> list[Due] | None:
        """Give what is due after an event, None if that is not remembered."""
        return None if seq < self.since else [due for due in self._dues if due.seq > seq]

    def restart(self, seq: int) -> None:
        """Know nothing of what was before an event."""
        self._dues.clear()
        self.since = seq


def dues_of(events: Sequence[Event]) -> Iterator[Due]:
    """Give what these events call for."""
    for event in events:
        if type(event) is PeriodChanged:
            yield Due(event.seq, 0, PERIOD_ENDED, event.board_id)
        elif type(event) is UserErased:
            yield Due(event.seq, 0, USER_ERASED)


class Found(msgspec.Struct, frozen=True):
    """What a piece of the log has: nothing else is due up to `until_seq`. `lost`: events before this seq are gone."""

    dues: list[Due]
    until_seq: int
    lost: int = 0


class Scan:
    """Reads the log from a seq on, up to an event."""

    def __init__(self, log: ReadableLog, from_seq: int, until_seq: int) -> None:
        self._log = log
        self._seq = from_seq
        self._until_seq = until_seq
        self._frames = log.read_from(from_seq)

    async def next(self) -> Found:
        """Read on. Raises `LogDamaged`."""
        return await run(self._next, blocks=self._log.blocks)

    def _next(self) -> Found:
        try:
            return self._read()
        except NoLongerKept as gone:
            if gone.first_seq > self._until_seq:
                return Found([], self._until_seq, lost=gone.first_seq)
            self._seq, self._frames = gone.first_seq, self._log.read_from(gone.first_seq)
            return msgspec.structs.replace(self._read(), lost=gone.first_seq)

    def _read(self) -> Found:
        found: list[Due] = []
        for count, frame in enumerate(self._frames):
            last = min(frame.last_seq, self._until_seq)
            if not _is_plain(frame):
                found += [due for due in dues_of(events_of(frame)) if self._seq <= due.seq <= last]
            if frame.last_seq >= self._until_seq or count >= SCANNED_FRAMES or len(found) >= SCANNED_FOUND_MAX:
                return Found(found, last)
        return Found(found, self._until_seq)


def _is_plain(frame: Frame) -> bool:
    body = frame.body
    return len(body) > 1 and 0x90 <= body[0] <= 0x9F and body[1] in _PLAIN


async def event_of(log: ReadableLog, seq: int) -> Event | None:
    """Read an event; None if the log no longer has it."""
    try:
        _, event = await run(lambda: log.event_at(seq), blocks=log.blocks)
    except NoLongerKept:
        return None
    return event
