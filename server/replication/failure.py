"""The end of following: what a replica has, or is sent, is not the leader's history. Pure.

This is never tried again by itself. A replica that went on would serve what nobody can vouch for; so it stops applying,
says what it found and where, and what an operator can do.
"""

from __future__ import annotations

from engine.errors import ScoreboardError

REBUILD = (
    "Nothing more is applied. Move this replica's data directory away (or start one that has none) and start it again: "
    "it fetches the leader's snapshot. Keep the old directory to look into it."
)


class FollowingFailed(ScoreboardError):
    """Following has ended for good. The position is the replica's own, up to which all is proved."""

    def __init__(self, what: str, *, epoch: int, seq: int, remedy: str = REBUILD) -> None:
        super().__init__(f"{what} (epoch {epoch}, seq {seq}). {remedy}")
        self.what = what
        self.epoch = epoch
        self.seq = seq
        self.remedy = remedy
