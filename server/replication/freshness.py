"""The age of what this node serves, for answers, headers, live messages and readiness.

    leader      fresh; once it is deposed, as old as its deposition; in a quorum, as old as a majority's last answer
    replica     its lag behind the leader, and the time since it heard the leader

    lag = freshness.lag()              # None on a leader
    age_ms = freshness.stale_ms()      # None if what is served is fresh

Rules:
- The role says whether the state is stale; the figures here say how old it is. They are computed when asked for, and
  nothing stores them.
- The age is counted from the time when the leader sent its last word. A relay passes on that age, so it makes no word
  younger.
- A stale state is behind by its age at least, so the lag in ms is then never shorter than the age.
- Replicas that follow each other in a loop are not ready.
- Why there is no link is told with it: a token that expired is nothing that waiting mends.
- No number is made up. Before the leader was heard the lag in records is unknown. The lag in ms is then the age of the
  last event here (`server.replication.lag` says why), or unknown without an event.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import trio

from engine.scoreboard import Scoreboard
from server import bounds
from server.replication.lag import state_age_ms
from server.replication.progress import FollowerStatus, Progress
from server.role import CurrentRole, State
from snapshots.promotion import began_elsewhere


class LagFigures(msgspec.Struct, frozen=True):
    """How far a replica is behind. `age_ms` is the time since the leader was heard, or since the start if it never was.

    `records` is None before the leader was heard. `ms` is then the age of the last event here, None without an event.
    """

    records: int | None
    ms: int | None
    age_ms: int
    connected: bool


@dataclass(slots=True)
class Freshness:
    """The freshness of one node. `progress` is None on a leader. A replica older than `ready_age_s` is not ready."""

    role: CurrentRole
    scoreboard: Scoreboard
    clock_ms: Callable[[], int]
    progress: Progress | None = None
    ready_age_s: float = 0.0

    def lag(self) -> LagFigures | None:
        """Give the lag of a replica, None on a leader."""
        if self.progress is None or not self.role.now.is_replica:
            return None
        return self._lag_of(self.progress, self.progress.status())

    def _lag_of(self, progress: Progress, status: FollowerStatus) -> LagFigures:
        age_s = status.heard_age_s
        if age_s is None:
            age_s = trio.current_time() - progress.begun_s
        ms = status.lag_ms
        if status.lag_records is None:
            ms = state_age_ms(self.scoreboard.seq, self.scoreboard.time_ms, self.clock_ms())
        age_ms = round(age_s * 1000)
        if ms is not None and self.role.now.is_aged:
            ms = max(1, ms, age_ms)
        return LagFigures(status.lag_records, ms, age_ms, status.connected_since_ms is not None)

    @property
    def is_behind(self) -> bool:
        """Whether this replica has not applied all that the leader had at the last welcome. False on a leader."""
        return self.progress is not None and self.progress.state != "following" and self.role.now.is_replica

    def stale_ms(self) -> int | None:
        """Give the age of the state in ms if it is stale, None if it is fresh."""
        role = self.role.now
        if not role.is_aged:
            return None
        if role.state is State.DEPOSED or role.unconfirmed:
            since_s = role.confirmed_s if role.unconfirmed else role.since_s
            return max(1, round((trio.current_time() - since_s) * 1000))
        lag = self.lag()
        assert lag is not None
        if lag.records is None and lag.ms is not None:
            return max(lag.age_ms, lag.ms)  # the leader was never heard, and the state is older than the start
        return lag.age_ms

    def not_ready(self) -> str | None:
        """Say why requests should go to another node, None if this one is ready."""
        role = self.role.now
        if role.draining:
            return "the server is stopping"
        if role.successor is not None:
            return f"{began_elsewhere(role.successor)}; this node is no longer the leader"
        age_ms = self.stale_ms() or 0
        if role.unconfirmed and age_ms > 1000 * self.ready_age_s:
            return f"no majority of the log's servers answered for {age_ms // 1000} seconds"
        if self.progress is None or not role.is_replica:
            return None
        if not role.vouches:
            return role.reason
        status = self.progress.status()
        if status.loop:
            return status.loop
        lag, limit_ms = self._lag_of(self.progress, status), 1000 * self.ready_age_s
        if not status.caught_up_once:
            return f"this replica has not caught up since it was started ({status.state}{_because(status)})"
        if lag.age_ms > limit_ms:
            return f"the leader was not heard for {lag.age_ms // 1000} seconds{_because(status)}"
        if (lag.ms or 0) > limit_ms:
            return f"this replica is {lag.ms} ms behind"
        return None


def _because(status: FollowerStatus) -> str:
    """Say why there is no link, as far as the follower knows. A link that is there has no reason."""
    return f": {status.reason[: bounds.REASON_CHARACTERS_TOLD_MAX]}" if status.reason else ""
