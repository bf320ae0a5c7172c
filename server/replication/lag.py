"""The lag of a replica: how far it is behind its leader. Pure: the time comes in.

Theory: each frame or heartbeat is evidence that the leader's log had reached a seq when it was heard. A replica that
has applied everything in evidence has no lag. Otherwise its lag is the age of the oldest evidence that it has not
applied: since then it has known of an event that it does not show. This lag needs no clock of the leader, does not grow
under steady load, and goes on growing when the link is cut.

Before the leader was heard there is no evidence, so the lag in records is unknown. The lag in ms is then the age of the
last event here (`state_age_ms`): the replica can't be further behind. It depends on two clocks, the leader's and ours.
A state without events has no age.

The evidence is bounded. Beyond EVIDENCE_MAX pieces the newest is merged into the one before, so the lag may look longer
than it is, but never shorter.
"""

from __future__ import annotations

from collections import deque

EVIDENCE_MAX = 256
"""Pieces of evidence that are kept: heartbeats of four minutes, or 256 frames that are not applied."""


def state_age_ms(seq: int, time_ms: int, now_ms: int) -> int | None:
    """Give the age of a state's last event, in ms and never below 0; None without an event."""
    return max(0, now_ms - time_ms) if seq else None


class Lag:
    """The evidence, and our own position. Times are in seconds, of a clock that never goes back."""

    def __init__(self, seq: int) -> None:
        self.leader_seq: int | None = None
        self._seq = seq
        self._evidence: deque[tuple[int, float]] = deque()

    def heard(self, leader_seq: int, now_s: float) -> None:
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
        self._seq = seq
        while self._evidence and self._evidence[0][0] <= seq:
            self._evidence.popleft()

    def forget(self) -> None:
        """Begin anew with another leader. Its log may be shorter than the log of the one before."""
        self.leader_seq = None
        self._evidence.clear()

    @property
    def records(self) -> int | None:
        """The records that are in evidence and not applied; None before the leader was heard."""
        return None if self.leader_seq is None else max(0, self.leader_seq - self._seq)

    def ms(self, now_s: float) -> int | None:
        """Give the age in ms of the oldest evidence not applied, 0 without any; None before the leader was heard."""
        if self.leader_seq is None:
            return None
        return max(0, round((now_s - self._evidence[0][1]) * 1000)) if self._evidence else 0

    def _check(self) -> None:
        assert len(self._evidence) <= EVIDENCE_MAX
        assert all(seq > self._seq for seq, _ in self._evidence)
        assert list(self._evidence) == sorted(self._evidence)
        assert bool(self._evidence) == bool(self.records)
