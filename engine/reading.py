"""Reading the log: frames in order, out of one segment after another, each proved to follow the one before.

Recovery, `Log.read_from` and `scan` all read through here, so what one of them accepts the others do.

Theory: a `Walk` steps through the bytes of one segment and ends at the first that is not a frame which follows on. A
`Reading` goes from segment to segment, checks how they join, and where a walk ends otherwise than it should has
`engine.recovery` judge what that means. A segment in the middle ends where the next one begins: whether it got there
with the right checksum is proved by the next one's head, so what lies beyond in the file is not looked at.

Rules:
- Memory holds one segment at a time, whatever the length of the log.
- Only what is asked for is proved: on the way to `from_seq` frames are left out, and nothing after `until_seq` is
  looked at. So the part of a damaged log before the damage can always be read.
- A log may grow while it is read (`growing`). The frame in flight is then like a torn one, and ends the reading. Bytes
  are read at slightly different times, so a later frame may be seen without an earlier one: what looks like damage in
  the last segment is believed only if it is still there when it is read again.
- What another process wrote but has not synced yet may be lost again in a crash; so what was read of a growing segment
  is synced before any of it is given out. Whoever makes a snapshot of it is never ahead of the log.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence

from engine.disk import Disk, FileMissing
from engine.errors import LogDamaged, NoLongerKept
from engine.record import (
    HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    Frame,
    FrameFault,
    SegmentHeader,
    find_frame,
    unpack_frame,
    unpack_segment_header,
)
from engine.recovery import Situation, judge_end, misfit, refusal
from engine.segment import SegmentFile, list_segments, read_content, read_header

SKIP_BYTES = 64 * 2**10
"""Bisection ends at a stretch of this length; the rest is walked."""

_UNWRITTEN = bytes(HEADER_BYTES)


class Walk:
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
        """Go close to the frame that holds `seq`, by bisection: from anywhere, the next frame can be found and proved.

        Walking there takes up to 0.1 s where each frame has one event, this a fraction of a millisecond.
        """
        low, high = self.offset, len(self.data)
        while high - low > SKIP_BYTES and self.seq < seq - 1:
            middle = (low + high) // 2
            found = None
            # Space that was not written yet is passed over without being searched; no frame has so many zeros in a row.
            if self.data[middle : middle + HEADER_BYTES] != _UNWRITTEN:
                found = find_frame(self.data, middle, high)
            if found is not None and self.seq < found[1].first_seq <= found[1].last_seq < seq:
                self._step(*found)
                low = self.offset
            else:
                high = middle

    def frames(self, until_seq: int | None) -> Iterator[Frame]:
        """Give the frames that follow on, up to the one that holds `until_seq`."""
        while until_seq is None or self.seq < until_seq:
            try:
                frame = unpack_frame(self.data, self.offset)
            except FrameFault:
                return
            if misfit(frame, self.seq, self.checksum, self.epoch) is not None:
                return
            self._step(self.offset, frame)
            yield frame

    def _step(self, offset: int, frame: Frame) -> None:
        self.last_offset, self.offset = offset, offset + HEADER_BYTES + len(frame.body)
        self.seq, self.checksum, self.epoch = frame.last_seq, frame.checksum, frame.epoch

    def judge(self, *, sealed: bool) -> Situation:
        """Say what it means that there are no more frames that follow on."""
        return judge_end(self.data, self.offset, seq=self.seq, checksum=self.checksum, epoch=self.epoch, sealed=sealed)


class Reading:
    """Frames out of segments, in order. `walk` and `segment` tell where it stands; `end` why the last segment ended.

    `log_id`: whose segments these must be; None: whose the first one is.
    """

    def __init__(
        self,
        disk: Disk,
        directory: str,
        segments: Sequence[SegmentFile],
        *,
        log_id: bytes | None = None,
        growing: bool = False,
    ) -> None:
        assert segments
        self._disk = disk
        self._directory = directory
        self._segments = segments
        self.log_id = log_id
        self._growing = growing
        self.segment = segments[0]
        self.walk: Walk | None = None
        self.end: Situation | None = None

    def frames(self, from_seq: int, until_seq: int | None = None) -> Iterator[Frame]:
        """Give the frames from the one that holds `from_seq` to the one that holds `until_seq`, or to the end.

        Raises `NoLongerKept` if the segment of `from_seq` was removed, `LogDamaged` where the log is not as it must be.
        """
        start = bisect_right(self._segments, from_seq, key=lambda segment: segment.first_seq) - 1
        if start < 0:
            raise NoLongerKept(from_seq, self._segments[0].first_seq)
        for index in range(start, len(self._segments)):
            if until_seq is not None and until_seq < max(from_seq, self._segments[index].first_seq):
                return
            walk = self._enter(index)
            walk.skip(from_seq)
            for frame in self._walk_frames(walk, index, until_seq):
                if frame.last_seq >= from_seq:
                    yield frame
            if until_seq is not None and walk.seq >= until_seq:
                return

    def _walk_frames(self, walk: Walk, index: int, until_seq: int | None) -> Iterator[Frame]:
        """Give the frames of one segment, and judge its end unless `until_seq` was reached before."""
        if index + 1 == len(self._segments):
            yield from self._last_frames(walk, until_seq)
            return
        join = self._segments[index + 1].first_seq
        yield from walk.frames(join - 1 if until_seq is None else min(until_seq, join - 1))
        if walk.seq != join - 1 and (until_seq is None or walk.seq < until_seq):
            raise self._join_fault(walk, self._segments[index + 1])

    def _last_frames(self, walk: Walk, until_seq: int | None) -> Iterator[Frame]:
        """Give the frames of the last segment; if it is growing, what looks like damage is read once more."""
        stuck = None
        while True:
            yield from walk.frames(until_seq)
            if until_seq is not None and walk.seq >= until_seq:
                return
            self.end = walk.judge(sealed=self.segment.compressed)
            if self.end in {Situation.CLEAN_END, Situation.TORN_TAIL}:
                return
            if not self._growing or walk.offset == stuck:
                raise self.damaged(self.end, offset=walk.offset, good=walk.seq)
            stuck = walk.offset
            walk.data = self._content(self.segment)

    def _enter(self, index: int) -> Walk:
        """Read a segment and check that it is the one that comes next."""
        before, self.segment = self.segment, self._segments[index]
        data = self._content(self.segment)
        header = self._header(self.segment, data)
        if self.walk is not None:
            order = _order_fault(before, header)
            if order is not None:
                raise self._order_error(order, before, self.segment, header, good=self.walk.seq)
            if header.previous != self.walk.checksum:
                raise self.damaged(Situation.SEGMENT_NOT_JOINED, offset=0, good=self.walk.seq)
        self.walk = Walk(data, header)
        return self.walk

    def check_headers(self, covered_seq: int) -> None:
        """Check the heads of all plain segments, and that none is missing between them, without reading further.

        Compressed ones are covered by snapshots and may be many: of them only the names are looked at. What is missing
        up to `covered_seq` has another remedy than what is missing after it.
        """
        before: SegmentFile | None = None
        for segment in self._segments:
            if not segment.compressed:
                try:
                    head = read_header(self._disk, segment)
                except FrameFault as fault:
                    raise self._header_fault(segment, fault) from fault
                self._check_owner(segment, head)
                order = _order_fault(before, head) if before is not None else None
                if before is not None and order is not None:
                    if order is Situation.SEGMENT_MISSING and segment.first_seq <= covered_seq + 1:
                        order = Situation.COVERED_MISSING
                    good = min(self._end_of(before), segment.first_seq - 1)
                    raise self._order_error(order, before, segment, head, good=good)
            before = segment

    def _content(self, segment: SegmentFile) -> bytes:
        """Read a segment; what is growing is synced."""
        try:
            return read_content(self._disk, segment, sync=self._growing and segment is self._segments[-1])
        except FrameFault as fault:
            good = segment.first_seq - 1 if self.walk is None else self.walk.seq
            raise self.damaged(Situation.SEALED_DAMAGED, segment, good=good, detail=fault.reason) from fault
        except FileMissing as fault:
            kept = list_segments(self._disk, self._directory).segments
            if kept and kept[0].first_seq > segment.first_seq:
                raise NoLongerKept(segment.first_seq, kept[0].first_seq) from fault
            raise

    def _header(self, segment: SegmentFile, data: bytes) -> SegmentHeader:
        try:
            header = unpack_segment_header(data)
        except FrameFault as fault:
            raise self._header_fault(segment, fault) from fault
        self._check_owner(segment, header)
        return header

    def _header_fault(self, segment: SegmentFile, fault: FrameFault) -> LogDamaged:
        situation = Situation.NEWER_VERSION if fault.newer else Situation.HEADER_DAMAGED
        return self.damaged(situation, segment, offset=0, good=segment.first_seq - 1, detail=fault.reason)

    def _check_owner(self, segment: SegmentFile, header: SegmentHeader) -> None:
        """Check that a segment is of this log, and under its own name."""
        if self.log_id is None:
            self.log_id = header.log_id
        good = segment.first_seq - 1
        if header.log_id != self.log_id:
            detail = f"its log id is {header.log_id.hex()}, not {self.log_id.hex()}"
            raise self.damaged(Situation.SEGMENT_FOREIGN, segment, offset=0, good=good, detail=detail)
        if header.first_seq != segment.first_seq:
            detail = f"it begins at seq {header.first_seq}"
            good = min(good, header.first_seq - 1)
            raise self.damaged(Situation.SEGMENT_RENAMED, segment, offset=0, good=good, detail=detail)

    def _join_fault(self, walk: Walk, following: SegmentFile) -> LogDamaged:
        """Make the error for a segment whose frames do not reach the next one, or reach into it."""
        if walk.seq >= following.first_seq:
            detail = f"{self.segment.path} reaches to seq {walk.seq}"
            return self.damaged(Situation.SEGMENT_STRAY, following, offset=0, good=walk.seq, detail=detail)
        situation = walk.judge(sealed=True)
        if situation is Situation.CLEAN_END:
            head = self._header(following, self._content(following))
            order = _order_fault(self.segment, head)
            if order is not None:
                return self._order_error(order, self.segment, following, head, good=walk.seq)
            situation = Situation.FRAMES_MISSING
        return self.damaged(situation, offset=walk.offset, good=walk.seq)

    def _order_error(
        self, situation: Situation, before: SegmentFile, segment: SegmentFile, header: SegmentHeader, *, good: int
    ) -> LogDamaged:
        """Make the error for a segment that does not name the one before it."""
        detail = f"this one follows the segment that begins at seq {header.before}, but {before.path} is here before it"
        return self.damaged(situation, segment, offset=0, good=good, next_seq=segment.first_seq, detail=detail)

    def _end_of(self, segment: SegmentFile) -> int:
        """Tell the last seq of a segment, as far as it can be read: only used to say where a log is still good."""
        try:
            data = read_content(self._disk, segment)
            walk = Walk(data, unpack_segment_header(data))
        except FrameFault:
            return segment.first_seq - 1
        for _ in walk.frames(None):
            pass
        return walk.seq

    def damaged(
        self,
        situation: Situation,
        segment: SegmentFile | None = None,
        *,
        offset: int | None = None,
        good: int,
        until: int | None = None,
        next_seq: int = 0,
        detail: str = "",
    ) -> LogDamaged:
        """Make the error of a row of the table for a place in a segment (None: the one that is being read)."""
        return refusal(
            situation,
            directory=self._directory,
            path=(segment or self.segment).path,
            offset=offset,
            good=good,
            until=until,
            next_seq=next_seq,
            detail=detail,
        )


def _order_fault(before: SegmentFile, header: SegmentHeader) -> Situation | None:
    """Say what is wrong if a segment does not name the one that comes before it as the one before it."""
    if header.before == before.first_seq:
        return None
    return Situation.SEGMENT_MISSING if header.before > before.first_seq else Situation.SEGMENT_STRAY
