"""The newest durable frames, for all followers that are at the end of the log, and the word that there are more.

Theory: followers at the end all want the same few frames. Those are kept here once, as bytes, in a ring that is bounded
by RING_BYTES; a follower that falls behind the ring reads from the disk, at its own pace, until it is within it again.
So no follower has a queue, and a slow one costs memory to nobody.

Rules:
- A frame comes in here when it is durable and applied; nothing else is ever shipped from here.
- Frames come in without a gap. `seq` is that of the last one.
- A mark stands between two frames: a snapshot was captured there. Its digests come later. MARKS_KEPT of them are
  remembered, for followers that reach the place only afterwards.
- All of it is used from the event loop alone.
"""

from __future__ import annotations

import msgspec
import trio

from engine.record import unpack_header
from server import bounds
from snapshots.digests import StateDigests


class FeedFrame(msgspec.Struct, frozen=True, gc=False):
    """A frame, as it is on disk."""

    first_seq: int
    last_seq: int
    data: bytes


class FrameFeed:
    """Takes each durable frame, and lets any number of readers follow."""

    def __init__(self, seq: int, *, ring_bytes: int = bounds.RING_BYTES) -> None:
        """`seq`: that of the last event of the log now."""
        self.seq = seq
        self.marks: dict[int, StateDigests | None] = {}
        self._ring_bytes = ring_bytes
        self._ring: dict[int, FeedFrame] = {}
        self._bytes = 0
        self._waiting = trio.lowlevel.ParkingLot()

    def append(self, data: bytes) -> None:
        """Take in the next frame, which is durable and applied."""
        header = unpack_header(data)
        assert header.first_seq == self.seq + 1, f"the frame of seq {header.first_seq} cannot follow {self.seq}"
        self._ring[header.first_seq] = FeedFrame(header.first_seq, header.last_seq, data)
        self._bytes += len(data)
        while self._bytes > self._ring_bytes and len(self._ring) > 1:
            oldest = self._ring.pop(next(iter(self._ring)))
            self._bytes -= len(oldest.data)
        self.seq = header.last_seq
        self._wake()

    def restart(self, seq: int) -> None:
        """Go on after another place: what came before is not here."""
        self._ring.clear()
        self._bytes = 0
        self.marks.clear()
        self.seq = seq
        self._wake()

    def next_after(self, seq: int) -> FeedFrame | None:
        """Give the frame that begins right after `seq`, None if it is not in the ring."""
        return self._ring.get(seq + 1)

    def ready_after(self, seq: int, bytes_max: int) -> list[FeedFrame]:
        """Give the frames after `seq` that are in the ring, one at least if any is, and not beyond a mark."""
        ready: list[FeedFrame] = []
        size = 0
        while (entry := self._ring.get(seq + 1)) is not None and (not ready or size + len(entry.data) <= bytes_max):
            ready.append(entry)
            size += len(entry.data)
            seq = entry.last_seq
            if seq in self.marks:
                break
        return ready

    def mark(self, seq: int) -> None:
        """Note that the state was captured here, after the last frame."""
        assert seq == self.seq
        self.marks[seq] = None
        while len(self.marks) > bounds.MARKS_KEPT:
            del self.marks[next(iter(self.marks))]
        self._wake()

    def digest(self, seq: int, digests: StateDigests) -> None:
        """Note the digests of the state at a mark."""
        if seq in self.marks:
            self.marks[seq] = digests
            self._wake()

    async def wait_news(self) -> None:
        """Wait until something of this changes."""
        await self._waiting.park()

    def _wake(self) -> None:
        self._waiting.unpark_all()

    def _check(self) -> None:
        assert self._bytes == sum(len(entry.data) for entry in self._ring.values())
        assert self._bytes <= self._ring_bytes or len(self._ring) == 1
        entries = list(self._ring.values())
        ends = [entry.last_seq + 1 for entry in entries]
        assert ends == [entry.first_seq for entry in entries[1:]] + ([self.seq + 1] if entries else [])
        assert len(self.marks) <= bounds.MARKS_KEPT
