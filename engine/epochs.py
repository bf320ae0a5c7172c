"""Which epochs a history has: when each began, and its identity (`engine.history`). Pure.

Invariant: `_epochs` lists (first seq, epoch), both ascending, and ends with the current one. `_histories` has the
identities that events said.
"""

from __future__ import annotations

from bisect import bisect_right

from engine.events import EpochBegun
from engine.history import EpochMark, history_of

FIRST_EPOCH = 1


class Epochs:
    """See above. `epoch` is the current one."""

    def __init__(self) -> None:
        self.epoch = FIRST_EPOCH
        self._epochs = [(1, FIRST_EPOCH)]
        self._histories: dict[int, bytes] = {}
        self._log_id = b""

    def epoch_of(self, seq: int) -> int:
        """Give the epoch in which an event was written."""
        return self._epochs[bisect_right(self._epochs, (seq, 2**63)) - 1][1]

    @property
    def mark(self) -> EpochMark:
        """The mark of the current epoch."""
        return self._mark(*self._epochs[-1])

    def mark_of(self, epoch: int) -> EpochMark | None:
        """Give the mark of an epoch of this history, None if it has no such epoch."""
        return next((self._mark(seq, known) for seq, known in self._epochs if known == epoch), None)

    def marks(self) -> list[EpochMark]:
        """Give the marks of all epochs, the first one first."""
        return [self._mark(first_seq, epoch) for first_seq, epoch in self._epochs]

    def _mark(self, first_seq: int, epoch: int) -> EpochMark:
        history = history_of(self._log_id, epoch, first_seq, self._histories.get(epoch, b""))
        return EpochMark(epoch, first_seq, history)

    def belongs_to(self, log_id: bytes) -> None:
        """Take the id of the log: the identities of old epochs are derived from it. It is no part of the state."""
        self._log_id = log_id

    def epoch_after(self, epoch: int) -> tuple[int, int] | None:
        """Give (first seq, epoch) of the first epoch after `epoch`, None if there is none."""
        return next(((seq, later) for seq, later in self._epochs if later > epoch), None)

    def _begin_epoch(self, event: EpochBegun) -> None:
        self.epoch = event.epoch
        self._epochs.append((event.seq, event.epoch))
        if event.history:
            self._histories[event.epoch] = event.history

    def _check_epochs(self) -> None:
        assert self._epochs[-1][1] == self.epoch
        assert self._epochs == sorted(self._epochs)
        assert set(self._histories) <= {epoch for _, epoch in self._epochs}
