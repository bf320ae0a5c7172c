"""The log as it will be when its unsettled erasures are settled, for whoever shows it to callers.

    log = ForgetfulLog(log, unsettled); ledger = ForgetfulLedger(ledger, unsettled)

Rules:
- What is given is what the rewritten log would give, frame by frame, with the same checksums.
- While nothing is unsettled it is the log itself, without a look into the frames.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from engine.events import Event
from engine.ledger import Entry, Ledger
from engine.log import Log
from engine.record import Frame
from engine.rewriting import rewrite_frame
from engine.unsettled import Unsettled


class ForgetfulLog:
    """Gives the frames of a log without the users who were erased."""

    def __init__(self, log: Log, unsettled: Unsettled) -> None:
        self.blocks = log.blocks
        self._log = log
        self._unsettled = unsettled

    def read_from(self, seq: int) -> Iterator[Frame]:
        """Give the durable frames from the one that holds `seq` on, as `Log.read_from`."""
        for frame in self._log.read_from(seq):
            yield _shown(frame, self._unsettled)

    def event_at(self, seq: int) -> tuple[Frame, Event]:
        """Read one event and its frame, as `Log.event_at`."""
        frame, event = self._log.event_at(seq)
        change = self._unsettled.change
        if change is None:
            return frame, event
        return _shown(frame, self._unsettled), change.event(event)


class ForgetfulLedger:
    """Gives the events of users, without those of users who were erased."""

    def __init__(self, ledger: Ledger, unsettled: Unsettled) -> None:
        self._ledger = ledger
        self._unsettled = unsettled

    @property
    def oldest_seq(self) -> int:
        """The first seq that the log still has."""
        return self._ledger.oldest_seq

    def events_of(self, user_id: str, *, before_seq: int | None = None) -> Iterator[Entry]:
        """Give the events that concern a user since the last erasure under this id, the newest first."""
        from_seq = self._unsettled.gone(user_id) + 1
        for epoch, event in self._ledger.events_of(user_id, before_seq=before_seq, from_seq=from_seq):
            change = self._unsettled.change
            yield epoch, event if change is None else change.event(event)

    def frames_of(self, users: Collection[str], *, from_seq: int, until_seq: int) -> Iterator[Frame]:
        """Give the frames that may concern users, the oldest first, as `Ledger.frames_of`."""
        for frame in self._ledger.frames_of(users, from_seq=from_seq, until_seq=until_seq):
            yield _shown(frame, self._unsettled)


def _shown(frame: Frame, unsettled: Unsettled) -> Frame:
    change = unsettled.change
    return frame if change is None else rewrite_frame(frame, change) or frame
