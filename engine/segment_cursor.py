"""A cursor in one segment: it steps from frame to frame, each proved to follow the one before.

    cursor = SegmentCursor(data, header)
    cursor.skip(seq)                                    close to the frame that holds seq
    for frame in cursor.frames(until_seq): …            then cursor.judge(sealed=…) says why they end

Theory: a `SegmentCursor` knows its place in the chain: seq, checksum, epoch. It accepts only a whole frame that
continues there. Every frame proves itself, so the next one can be found from anywhere in a segment. A bisection brings
the cursor close to a seq without reading everything before it.

Rules:
- `frames` proves each frame that it gives. Where it ends, `judge` says what that means; it needs the whole segment.
- A segment is read whole (`data`) or piece by piece (`Read`). The steps are the same.
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
"""Bisection ends when the range is this short. The cursor steps through the rest."""

PIECE_BYTES = 16 * 2**10
"""Bytes that a search reads from a file at once: some frames of single events, and cheap if they are not needed."""

_UNWRITTEN = bytes(HEADER_BYTES)

Read = Callable[[int, int], bytes]
"""(offset, length) → bytes of a segment; fewer at its end."""


def pieces_of(file: File) -> Read:
    """Read a file through one buffer, so that reading on needs no system call for each frame."""
    start, buffer = 0, b""

    def read(offset: int, length: int) -> bytes:
        nonlocal start, buffer
        if not start <= offset <= offset + length <= start + len(buffer):
            start, buffer = offset, file.read_at(offset, max(length, PIECE_BYTES))
        return buffer[offset - start : offset - start + length]

    return read


def frame_at(read: Read, offset: int) -> Frame | None:
    """Read and prove the frame that begins at `offset`; None if no valid one does."""
    try:
        length = unpack_header(read(offset, HEADER_BYTES)).length
        return unpack_frame(read(offset, HEADER_BYTES + length))
    except FrameFault:
        return None


def _frame_after(read: Read, offset: int, end: int) -> tuple[int, Frame] | None:
    """Find the first valid frame that begins between `offset` and `end`, whatever precedes it."""
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
        # The next piece overlaps this one, so that no magic is cut in two, and none is found twice.
        offset += PIECE_BYTES - len(FRAME_MAGIC) + 1
    return None


class SegmentCursor:
    """Steps through one segment. The next frame begins at `offset`; the last one began at `last_offset`.

    `seq`, `checksum` and `epoch` are those after the last frame, or at the beginning of the segment.
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
        """Go close to the frame that holds `seq`, by bisection of `data`."""
        self.bisect(seq, lambda offset, length: self.data[offset : offset + length], len(self.data))

    def bisect(self, seq: int, read: Read, size: int) -> None:
        """Go close to the frame that holds `seq`, by bisection.

        It takes a fraction of a millisecond. Stepping there takes up to 0.1 s if each frame has one event.
        """
        low, high = self.offset, size
        while high - low > SKIP_BYTES and self.seq < seq - 1:
            middle = (low + high) // 2
            found = None
            # Unwritten space is not searched. No frame has as many zeros in a row.
            if read(middle, HEADER_BYTES) != _UNWRITTEN:
                found = _frame_after(read, middle, high)
            if found is not None and self.seq < found[1].first_seq <= found[1].last_seq < seq:
                self._step(*found)
                low = self.offset
            else:
                high = middle

    def jump(self, tail: Tail) -> None:
        """Go to where a snapshot ends, past any damage. Its checksum proves the frame that ends or begins there.

        Without such a frame the cursor does not move.
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
        """Give the next frames, up to the one that holds `until_seq`."""
        while until_seq is None or self.seq < until_seq:
            try:
                frame = unpack_frame(self.data, self.offset)
            except FrameFault:
                return
            if not self.accept(frame):
                return
            yield frame

    def accept(self, frame: Frame) -> bool:
        """Step over the frame that begins at `offset` if it follows; tell whether it does."""
        if misfit(frame, self.seq, self.checksum, self.epoch) is not None:
            return False
        self._step(self.offset, frame)
        return True

    def _step(self, offset: int, frame: Frame) -> None:
        self.last_offset, self.offset = offset, offset + HEADER_BYTES + len(frame.body)
        self.seq, self.checksum, self.epoch = frame.last_seq, frame.checksum, frame.epoch

    def judge(self, *, sealed: bool) -> Situation:
        """Say what it means that no further frame follows."""
        return judge_end(self.data, self.offset, seq=self.seq, checksum=self.checksum, epoch=self.epoch, sealed=sealed)
