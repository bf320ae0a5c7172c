"""The error that ends following for good: the replica has, or was sent, what is not the leader's history. Pure.

A replica that went on could serve a wrong state. So it applies nothing more and does not try again by itself. It tells
the operator what it found, where, and what to do.
"""

from __future__ import annotations

from engine.errors import ScoreboardError

REBUILD = (
    "Nothing more is applied. Move this replica's data directory away (or start one that has none) and start it again: "
    "it fetches the leader's snapshot. Keep the old directory to look into it."
)


class FollowingFailed(ScoreboardError):
    """Following has ended for good. `epoch` and `seq` are the replica's own position: up to there all is proved."""

    def __init__(self, what: str, *, epoch: int, seq: int, remedy: str = REBUILD) -> None:
        super().__init__(f"{what} (epoch {epoch}, seq {seq}). {remedy}")
        self.what = what
        self.epoch = epoch
        self.seq = seq
        self.remedy = remedy
