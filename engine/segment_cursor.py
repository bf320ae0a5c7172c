"""Stepping through one segment: from frame to frame, each proved to follow the one before.

Theory: a `SegmentCursor` knows its place in the chain: seq, checksum, epoch. It accepts only a frame that is whole and
follows on. Frames prove themselves, so the next one can be found from anywhere in a segment: a bisection brings the
cursor close to a seq without reading all that is before it.

Rules:
- What a walk has stepped over was proved; how far it got is all that it says. What it means that it got no further is
  for `judge` to say, and needs the bytes up to the segment's end.
- A segment is read whole (`data`) or piece by piece (`Read`); the steps are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from engine.disk import File
from engine.record import (
    FRAME_MAGIC,
    HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    Frame,
    FrameFault,
    SegmentHeader,
    Tail,
    find_frame,
    unpack_frame,
    unpack_header,
)
from engine.recovery import Situation, judge_end, misfit

SKIP_BYTES = 64 * 2**10
"""Bisection ends at a stretch of this length; the rest is walked."""

PIECE_BYTES = 16 * 2**10
"""What a search in a file reads at once: some frames of single events, and cheap where it was for nothing."""

_UNWRITTEN = bytes(HEADER_BYTES)

Read = Callable[[int, int], bytes]
"""Gives so many bytes of a segment from an offset on, fewer at its end."""


def pieces_of(file: File) -> Read:
    """Read a file through one buffer, so that going on from where one was costs no call of the system."""
    start, buffer = 0, b""

    def read(offset: int, length: int) -> bytes:
        nonlocal start, buffer
        if not start <= offset <= offset + length <= start + len(buffer):
            start, buffer = offset, file.read_at(offset, max(length, PIECE_BYTES))
        return buffer[offset - start : offset - start + length]

    return read


def frame_at(read: Read, offset: int) -> Frame | None:
    """Read and prove the frame that begins at `offset`; None if none does."""
    try:
        length = unpack_header(read(offset, HEADER_BYTES)).length
        return unpack_frame(read(offset, HEADER_BYTES + length))
    except FrameFault:
        return None


def _frame_after(read: Read, offset: int, end: int) -> tuple[int, Frame] | None:
    """Find the first frame that begins between `offset` and `end` and proves itself, whatever stands before it."""
    while offset < end:
        piece = read(offset, PIECE_BYTES)
        place = piece.find(FRAME_MAGIC)
        while 0 <= place < end - offset:
            frame = frame_at(read, offset + place)
            if frame is not None:
                return offset + place, frame
            place = piece.find(FRAME_MAGIC, place + 1)
        if len(piece) < PIECE_BYTES:
            break
        # So far back that no magic is cut in two, and none is found twice.
        offset += PIECE_BYTES - len(FRAME_MAGIC) + 1
    return None


class SegmentCursor:
    """Steps through one segment. `offset` is where the next frame would begin, `last_offset` where the last one did.

    `seq`, `checksum` and `epoch` are those of the last frame, or of the segment's head before the first one.
    """

    __slots__ = ("checksum", "data", "epoch", "last_offset", "offset", "seq")

    def __init__(self, data: bytes, header: SegmentHeader) -> None:
        self.data = data
        self.offset = SEGMENT_HEADER_BYTES
        self.last_offset: int | None = None
        self.seq = header.first_seq - 1
        self.checksum = header.previous
        self.epoch = header.epoch

    def skip(self, seq: int) -> None:
        """Go close to the frame that holds `seq`, without walking all the way."""
        self.bisect(seq, lambda offset, length: self.data[offset : offset + length], len(self.data))

    def bisect(self, seq: int, read: Read, size: int) -> None:
        """Go close to the frame that holds `seq`, by bisection: from anywhere, the next frame can be found and proved.

        Walking there takes up to 0.1 s where each frame has one event, this a fraction of a millisecond.
        """
        low, high = self.offset, size
        while high - low > SKIP_BYTES and self.seq < seq - 1:
            middle = (low + high) // 2
            found = None
            # Space that was not written yet is passed over without being searched; no frame has so many zeros in a row.
            if read(middle, HEADER_BYTES) != _UNWRITTEN:
                found = _frame_after(read, middle, high)
            if found is not None and self.seq < found[1].first_seq <= found[1].last_seq < seq:
                self._step(*found)
                low = self.offset
            else:
                high = middle

    def jump(self, tail: Tail) -> None:
        """Go to where a snapshot ends, over damage too: its checksum proves the frame that ends or begins there.

        Stays where it is if there is no such frame.
        """
        offset = self.offset
        while (found := find_frame(self.data, offset)) is not None:
            offset, frame = found
            if (frame.last_seq, frame.checksum) == (tail.seq, tail.checksum):
                self._step(offset, frame)
                return
            if (frame.first_seq, frame.previous) == (tail.seq + 1, tail.checksum):
                self.offset, self.seq, self.checksum = offset, tail.seq, tail.checksum
                return
            offset += HEADER_BYTES + len(frame.body)

    def frames(self, until_seq: int | None) -> Iterator[Frame]:
        """Give the frames that follow on, up to the one that holds `until_seq`."""
        while until_seq is None or self.seq < until_seq:
            try:
                frame = unpack_frame(self.data, self.offset)
            except FrameFault:
                return
            if not self.accept(frame):
                return
            yield frame

    def accept(self, frame: Frame) -> bool:
        """Step over the frame that begins at `offset`, if it follows on."""
        if misfit(frame, self.seq, self.checksum, self.epoch) is not None:
            return False
        self._step(self.offset, frame)
        return True

    def _step(self, offset: int, frame: Frame) -> None:
        self.last_offset, self.offset = offset, offset + HEADER_BYTES + len(frame.body)
        self.seq, self.checksum, self.epoch = frame.last_seq, frame.checksum, frame.epoch

    def judge(self, *, sealed: bool) -> Situation:
        """Say what it means that there are no more frames that follow on."""
        return judge_end(self.data, self.offset, seq=self.seq, checksum=self.checksum, epoch=self.epoch, sealed=sealed)
