"""The replicated stream that holds the log of a quorum: what a node may ask of it, and what an answer means.

    place      1    2    3    4    5  …          one frame of the log each, byte for byte as on every node's disk
    message    ┌────┬────┬────┬────┬────┐
               └────┴────┴────┴────┴────┘  ◄── place(after=5, frame): only as the next one

    await stream.place(5, frame)    True: it is at place 6, on the disks of a majority
                                    False: place 6 is taken, by these bytes or by others; `read` tells

`server.quorum.nats_stream` is it on NATS JetStream. The simulation has a model of it.

Rules:
- A place is given once, to one frame, for ever. Frames leave only at the beginning, by `purge`.
- **No answer is not "no".** Who gets `Unanswered` from `place` sends the same bytes to the same place again, until it
  knows who has it. The frame may be placed much later, when a quorum is back.
- `read` gives only what a majority has. It may give less than there is: a server that was cut off answers with what it
  had. So an end that was read is a guess, and `place` proves it.
- A beat shows that a majority answers this node now. It says nothing about who leads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from engine.errors import ScoreboardError
from engine.record import Tail


class Unanswered(ScoreboardError):
    """The stream gave no answer in time. What was asked may be done already, later, or never."""


class StreamRefused(ScoreboardError):
    """The stream is missing, sealed, set up wrongly, or not ours to use. Waiting does not mend it.

    `what` says what is wrong, `key` names the setting, `remedy` says what to do. An error shows `key: what remedy`, so
    `what` does not begin with the key.
    """

    def __init__(self, what: str, *, key: str = "", remedy: str = "") -> None:
        super().__init__(" ".join(part for part in (what, remedy) if part))
        self.what, self.key, self.remedy = what, key, remedy


class PlacePurged(ScoreboardError):
    """The frame at a place is purged. `first` is the oldest place that is left; every frame is in nodes' archives."""

    def __init__(self, place: int, first: int) -> None:
        super().__init__(f"place {place} of the stream is purged; the oldest that is left is {first}")
        self.place, self.first = place, first


class StreamServer(msgspec.Struct, frozen=True):
    """A server that has a copy of the stream beside the one that leads it, as that one sees it.

    `current`: it has all, or is heard. `lag` are the entries that it is behind.
    """

    name: str
    current: bool
    lag: int


class Bounds(msgspec.Struct, frozen=True):
    """The oldest and the newest place, and the bytes between. `last == first - 1`: the stream holds nothing."""

    first: int
    last: int
    bytes: int = 0
    servers: tuple[StreamServer, ...] = ()


class Origin(msgspec.Struct, frozen=True):
    """What place 1 of the stream follows: the end of the log that was imported, or of an empty one (`seq` 0)."""

    tail: Tail


class Stream(Protocol):
    """See above. Every call may raise `Unanswered` and `StreamRefused`."""

    @property
    def origin(self) -> Origin:
        """What the stream's first frame follows. Known once the stream is open."""

    async def place(self, after: int, frame: bytes) -> bool:
        """Put a frame at place `after + 1`. False: `after` is not the newest place."""

    async def read(self, place: int, at_most: int) -> Sequence[bytes]:
        """Give at most `at_most` frames from `place` on, in order; none if the stream ends before. Waits for nothing.

        Raises `PlacePurged`.
        """

    async def bounds(self) -> Bounds:
        """Give the ends of the stream, as its leading server knows them."""

    async def beat(self, word: bytes) -> None:
        """Have a majority take a word, which all nodes hear. Returns when a majority has it."""

    def say(self, word: bytes) -> None:
        """Tell all nodes a word, without an answer. It may get lost. Never waits, never raises."""

    async def hear(self) -> bytes:
        """Wait for the next word of any node, our own ones too. Old ones are dropped if nobody listens."""

    async def purge(self, first: int) -> None:
        """Remove the frames before place `first`."""
