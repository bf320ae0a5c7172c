"""The log as a writer appends to it, on one node: each frame is written and synced in a worker thread.

    log = LocalLog(Log.open(...))
    synced = await log.append(log.tail.seq, frame)

It is one of the two that `engine.machine.WriteLog` stands for. `server.quorum.quorum_log` is the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Protocol

from engine.errors import DiskFull
from engine.limits import FRAME_BYTES_MAX
from engine.log_facts import Synced
from engine.record import HEADER_BYTES, Frame, Tail
from engine.threads import ONE_AT_A_TIME, run


class FrameLog(Protocol):
    """What is needed of a log on disk (`engine.log`)."""

    @property
    def blocks(self) -> bool: ...
    @property
    def tail(self) -> Tail: ...
    @property
    def full(self) -> DiskFull | None: ...

    def make_room(self) -> None: ...

    def append_frame(self, expected_seq: int, data: bytes, /) -> Synced: ...

    def read_from(self, seq: int) -> Iterator[Frame]: ...


class LocalLog:
    """Appends to the log of this node. One task at a time appends."""

    __slots__ = ("_log", "blocks")

    frame_bytes_max = HEADER_BYTES + FRAME_BYTES_MAX

    def __init__(self, log: FrameLog) -> None:
        self._log = log
        self.blocks = log.blocks

    @property
    def tail(self) -> Tail:
        return self._log.tail

    @property
    def full(self) -> DiskFull | None:
        return self._log.full

    def make_room(self) -> None:
        """As `Log.make_room`."""
        self._log.make_room()

    def read_from(self, seq: int) -> Iterator[Frame]:
        """As `Log.read_from`."""
        return self._log.read_from(seq)

    async def append(self, expected_seq: int, frame: bytes) -> Synced:
        """Make a frame durable, as `Log.append_frame`."""
        return await run(
            partial(self._log.append_frame, expected_seq, frame), blocks=self.blocks, limiter=ONE_AT_A_TIME
        )
