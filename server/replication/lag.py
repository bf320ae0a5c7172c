"""How far a replica is behind. Pure: the time comes in.

Theory of lag: whatever the leader says, a frame or a heartbeat, is evidence that its log reached a seq at the time when
it was heard. A replica has no lag while it has applied everything of which it has evidence. Otherwise its lag is the
age of the oldest evidence that it has not applied: so long has it known of something that it does not show yet. That
needs no clock of the leader's, does not grow under steady load, and does not stop when the link does.

Before the leader was heard for the first time there is no evidence, and no number of records may be made up. What is
known then is when the last event that is here was logged: the state is true of that moment, so its age
(`state_age_ms`) is as far as it can be behind, and is told as the lag in ms. It is by the leader's clock and ours, so
only as good as they agree. A state without any event has no age either.

The evidence is bounded: beyond EVIDENCE_MAX pieces the newest is merged into the one before, which makes the lag look
longer than it is and never shorter.
"""

from __future__ import annotations

from collections import deque

EVIDENCE_MAX = 256
"""Pieces of evidence that are kept: a heartbeat a second for four minutes, or so many frames that are not applied."""


def state_age_ms(seq: int, time_ms: int, now_ms: int) -> int | None:
    """Give the age of the last event that a state has, in ms and never below 0; None for a state that has none."""
    return max(0, now_ms - time_ms) if seq else None


class Lag:
    """What is known of the leader's position and of our own. Times are of a clock that does not go back, in seconds."""

    def __init__(self, seq: int) -> None:
        self.leader_seq: int | None = None
        self._seq = seq
        self._evidence: deque[tuple[int, float]] = deque()

    def heard(self, leader_seq: int, now_s: float) -> None:
        """Take in that the leader's log reaches to `leader_seq`."""
        if self.leader_seq is not None and leader_seq <= self.leader_seq:
            return
        self.leader_seq = leader_seq
        if leader_seq <= self._seq:
            return
        if len(self._evidence) == EVIDENCE_MAX:
            self._evidence[-1] = (leader_seq, self._evidence[-1][1])
        else:
            self._evidence.append((leader_seq, now_s))

    def applied(self, seq: int) -> None:
        """Take in that everything up to `seq` is applied."""
        self._seq = seq
        while self._evidence and self._evidence[0][0] <= seq:
            self._evidence.popleft()

    def forget(self) -> None:
        """Begin anew with another leader, whose log may be shorter than what the one before claimed."""
        self.leader_seq = None
        self._evidence.clear()

    @property
    def records(self) -> int | None:
        """Records that are known of and not applied; None before the leader was heard."""
        return None if self.leader_seq is None else max(0, self.leader_seq - self._seq)

    def ms(self, now_s: float) -> int | None:
        """Age in ms of the oldest evidence that is not applied, 0 without any; None before the leader was heard."""
        if self.leader_seq is None:
            return None
        return max(0, round((now_s - self._evidence[0][1]) * 1000)) if self._evidence else 0

    def _check(self) -> None:
        assert len(self._evidence) <= EVIDENCE_MAX
        assert all(seq > self._seq for seq, _ in self._evidence)
        assert list(self._evidence) == sorted(self._evidence)
        assert bool(self._evidence) == bool(self.records)
