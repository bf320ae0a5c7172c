"""The followers of this node and their positions. The log after the lowest position must stay.

    with followers.linked(info) as key: followers.heard(key, epoch, seq, durable=True)
    with followers.pinned(seq): ...                                  while a snapshot is sent

Rules:
- A follower counts with the position that it reported, not with what was sent: after a cut it resumes there.
- A position counts while its link is open, and a pin while its download runs. A follower that is away keeps nothing.
  If it comes back too late, it fetches a snapshot.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec


class FollowerInfo(msgspec.Struct, frozen=True):
    """A follower with a link. `shard` is "K/N" or None; the position is the one that it reported last."""

    address: str
    shard: str | None
    epoch: int
    seq: int
    durable: bool
    connected_ms: int


class Followers:
    """The open links and the pins of this node."""

    def __init__(self) -> None:
        self._links: dict[object, FollowerInfo] = {}
        self._pins: dict[object, int] = {}

    def __len__(self) -> int:
        return len(self._links)

    @contextmanager
    def linked(self, info: FollowerInfo) -> Iterator[object]:
        """Count a link while it is open; give the key for its positions."""
        key = object()
        self._links[key] = info
        try:
            yield key
        finally:
            del self._links[key]

    def heard(self, key: object, epoch: int, seq: int, *, durable: bool) -> None:
        self._links[key] = msgspec.structs.replace(self._links[key], epoch=epoch, seq=seq, durable=durable)

    @contextmanager
    def pinned(self, seq: int) -> Iterator[None]:
        """Keep what follows `seq`, for a follower that will resume there."""
        key = object()
        self._pins[key] = seq
        try:
            yield
        finally:
            del self._pins[key]

    def pinned_seq(self) -> int | None:
        """Give the lowest position of all: the log after it is still needed. None without any."""
        return min([*self._pins.values(), *[info.seq for info in self._links.values()]], default=None)

    def statistics(self) -> list[FollowerInfo]:
        return list(self._links.values())
