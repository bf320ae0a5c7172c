"""The feed: the newest durable frames, for all followers that are at the end of the log.

    feed.append(synced.frame)                                  after each frame was applied
    frames = feed.ready_after(seq, bytes_max)                  [] if they are not in the ring
    await feed.wait_news()

Theory: followers at the end all want the same few frames. The feed keeps them once, as bytes, in a ring of at most
RING_BYTES. A follower that falls behind the ring reads from the disk, at its own pace, until the ring has what it
needs. So a follower needs no queue, and a slow one costs no memory.

Rules:
- A frame is appended when it is durable and applied. Frames have no gap; `seq` is that of the last one.
- A mark stands between two frames, where a snapshot was captured. Its digests come later. MARKS_KEPT marks are kept,
  for followers that reach the place afterwards.
- Only the event loop uses the feed.
"""

from __future__ import annotations

import msgspec
import trio

from engine.record import unpack_header
from server import bounds
from snapshots.digests import StateDigests


class FeedFrame(msgspec.Struct, frozen=True, gc=False):
    """A frame; `data` is its bytes as on disk."""

    first_seq: int
    last_seq: int
    data: bytes


class FrameFeed:
    """The ring, and the marks. It begins after `seq`, the last event of the log."""

    def __init__(self, seq: int, *, ring_bytes: int = bounds.RING_BYTES) -> None:
        self.seq = seq
        self.marks: dict[int, StateDigests | None] = {}
        self._ring_bytes = ring_bytes
        self._ring: dict[int, FeedFrame] = {}
        self._bytes = 0
        self._waiting = trio.lowlevel.ParkingLot()

    def append(self, data: bytes) -> None:
        """Add the next frame, which is durable and applied."""
        header = unpack_header(data)
        assert header.first_seq == self.seq + 1, f"the frame of seq {header.first_seq} cannot follow {self.seq}"
        self._ring[header.first_seq] = FeedFrame(header.first_seq, header.last_seq, data)
        self._bytes += len(data)
        while self._bytes > self._ring_bytes and len(self._ring) > 1:
            self._bytes -= len(self._ring.pop(next(iter(self._ring))).data)
        self.seq = header.last_seq
        self._wake()

    def restart(self, seq: int) -> None:
        """Go on after another place, with an empty ring."""
        self._ring.clear()
        self._bytes = 0
        self.marks.clear()
        self.seq = seq
        self._wake()

    def next_after(self, seq: int) -> FeedFrame | None:
        """Give the frame that begins right after `seq`, None if it is not in the ring."""
        return self._ring.get(seq + 1)

    def ready_after(self, seq: int, bytes_max: int) -> list[FeedFrame]:
        """Give the frames after `seq` that are in the ring, up to `bytes_max` (but at least one) or to a mark."""
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
        """Note that the state was captured after the last frame."""
        assert seq == self.seq
        self.marks[seq] = None
        while len(self.marks) > bounds.MARKS_KEPT:
            del self.marks[next(iter(self.marks))]
        self._wake()

    def digest(self, seq: int, digests: StateDigests) -> None:
        if seq in self.marks:
            self.marks[seq] = digests
            self._wake()

    async def wait_news(self) -> None:
        """Wait for the next frame, mark or digest."""
        await self._waiting.park()

    def wake(self) -> None:
        """Have the followers' links look what else is due, such as a heartbeat."""
        self._wake()

    def _wake(self) -> None:
        self._waiting.unpark_all()

    def _check(self) -> None:
        assert self._bytes == sum(len(entry.data) for entry in self._ring.values())
        assert self._bytes <= self._ring_bytes or len(self._ring) == 1
        entries = list(self._ring.values())
        ends = [entry.last_seq + 1 for entry in entries]
        assert ends == [entry.first_seq for entry in entries[1:]] + ([self.seq + 1] if entries else [])
        assert len(self.marks) <= bounds.MARKS_KEPT
