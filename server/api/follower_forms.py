"""The answer of GET /replication/followers. Pure.

body = followers_answer(followers.statistics(), epoch=3, seq=4711)
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from server.api.answers import SeqOrNone, Time
from server.live.encoding import iso_ms
from server.replication.followers import FollowerInfo

FollowerEpoch = Annotated[int, Meta(ge=0, description="0 while it has nothing")]
Lag = Annotated[int, Meta(ge=0, description="Events that it has not reported yet; null: it is in another epoch")]


class FollowerObject(msgspec.Struct, frozen=True, rename="camel"):
    """A replica with a link to this node. `seq` is what it reported last.

    `shard` is there for one that holds some boards only. `durable`: it keeps its log on its own disk.
    """

    address: str
    epoch: FollowerEpoch
    seq: SeqOrNone
    lag_records: Lag | None
    durable: bool
    connected_at: Time
    shard: Annotated[str, Meta(examples=["2/4"])] | UnsetType = UNSET


class FollowersAnswer(msgspec.Struct, frozen=True):
    """GET /replication/followers: those that follow this node itself, the one that connected first before others."""

    followers: list[FollowerObject]
    epoch: FollowerEpoch
    seq: SeqOrNone


def followers_answer(followers: Iterable[FollowerInfo], epoch: int, seq: int) -> FollowersAnswer:
    """Make the wire's form. `epoch` and `seq` are those of this node."""
    told = [
        FollowerObject(
            each.address, each.epoch, each.seq, max(0, seq - each.seq) if each.epoch == epoch else None, each.durable,
            iso_ms(each.connected_ms), UNSET if each.shard is None else each.shard,
        )
        for each in sorted(followers, key=lambda each: each.connected_ms)
    ]  # fmt: skip
    return FollowersAnswer(told, epoch, seq)
