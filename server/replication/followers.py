"""Who follows us, how far each has come, and what may therefore not be removed from the log.

Rules:
- A follower counts with the position that it was heard to have, never with what was sent: after a cut it comes back
  there.
- A pin holds as long as its link, or the download that it stands for. Who is away holds nothing: one that comes back
  too late fetches a snapshot.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec


class FollowerInfo(msgspec.Struct, frozen=True):
    """A follower with a link. `shard` is "K/N" or None; the position is what it said last."""

    address: str
    shard: str | None
    epoch: int
    seq: int
    durable: bool
    connected_ms: int


class Followers:
    """The links to followers. `pinned_seq` is for the checkpointer."""

    def __init__(self) -> None:
        self._links: dict[object, FollowerInfo] = {}
        self._pins: dict[object, int] = {}

    def __len__(self) -> int:
        return len(self._links)

    @contextmanager
    def linked(self, info: FollowerInfo) -> Iterator[object]:
        """Count a link for as long as it is there; give the key to tell its positions with."""
        key = object()
        self._links[key] = info
        try:
            yield key
        finally:
            del self._links[key]

    def heard(self, key: object, epoch: int, seq: int, *, durable: bool) -> None:
        """Take in the position of a follower."""
        self._links[key] = msgspec.structs.replace(self._links[key], epoch=epoch, seq=seq, durable=durable)

    @contextmanager
    def pinned(self, seq: int) -> Iterator[None]:
        """Keep what follows `seq` for one who will come with that position."""
        key = object()
        self._pins[key] = seq
        try:
            yield
        finally:
            del self._pins[key]

    def pinned_seq(self) -> int | None:
        """Give the lowest position of all: what follows it is still wanted. None if nobody is there."""
        return min([*self._pins.values(), *[info.seq for info in self._links.values()]], default=None)

    def statistics(self) -> list[FollowerInfo]:
        """List the links, in the order in which they came."""
        return list(self._links.values())
