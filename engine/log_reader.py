"""Reading the log: frames in order, out of one segment after another, each proved to follow the one before.

Recovery, `Log.read_from` and `scan` all read through here, so what one of them accepts the others do.

Theory: a `SegmentCursor` steps through the bytes of one segment and ends at the first bytes that are no frame which
follows on. A `LogReader` goes from segment to segment and checks how they join. Where a cursor ends too early,
`engine.recovery` judges what that means. A segment in the middle ends where the next one begins. The next one's head
proves that the cursor got there with the right checksum; so what lies beyond in the file is not looked at.

To find one frame, `frame_with` reads only the pieces of a plain segment that a bisection comes upon. It proves no less,
by the same steps. What it can't make sense of is judged by reading the whole segment.

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
from collections.abc import Callable, Iterator, Sequence

from engine.disk import Disk, FileMissing
from engine.errors import LogDamaged, NoLongerKept
from engine.record import SEGMENT_HEADER_BYTES, Frame, FrameFault, SegmentHeader, Tail, unpack_segment_header
from engine.recovery import Situation, refusal
from engine.segment import (
    CONTENT_BYTES_MAX,
    GZ,
    SegmentFile,
    list_segments,
    read_content,
    read_header,
    segment_path,
)
from engine.segment_cursor import SegmentCursor, frame_at, pieces_of


def holds_log(disk: Disk, directory: str) -> bool:
    """Tell whether there is a log to open, or one may be created."""
    return disk.exists(directory) and bool(list_segments(disk, directory).segments)


def scan(disk: Disk, directory: str, *, from_seq: int | None = None, until_seq: int | None = None) -> Iterator[Frame]:
    """Read a log that this process does not own: without a lock, changing nothing, while its owner may append to it.

    Gives the frames from the one that holds `from_seq` (None: the oldest kept) to the one that holds `until_seq`, or to
    the last one that is whole. All of them are durable. Nothing after `until_seq` is looked at, so a damaged log can be
    read up to its damage. Raises `LogDamaged`, `NoLongerKept`.
    """
    segments = list_segments(disk, directory).segments
    if not segments:
        raise refusal(Situation.LOG_GONE, directory=directory, path=directory, good=0)
    reading = LogReader(disk, directory, segments, growing=True)
    return reading.frames(segments[0].first_seq if from_seq is None else from_seq, until_seq)


class LogReader:
    """Frames out of segments, in order. `walk` and `segment` tell where it stands; `end` why the last segment ended.

    `log_id`: whose segments these must be; None: whose the first one is. `covered`: the seq of the snapshot to which
    they belong, for what an operator is told where something is wrong.
    """

    def __init__(
        self,
        disk: Disk,
        directory: str,
        segments: Sequence[SegmentFile],
        *,
        log_id: bytes | None = None,
        covered: int = 0,
        growing: bool = False,
    ) -> None:
        assert segments
        self._disk = disk
        self._directory = directory
        self._segments = segments
        self.log_id = log_id
        self._covered = covered
        self._growing = growing
        self.segment = segments[0]
        self.walk: SegmentCursor | None = None
        self.end: Situation | None = None

    def frames(self, from_seq: int, until_seq: int | None = None, *, behind: Tail | None = None) -> Iterator[Frame]:
        """Give the frames from the one that holds `from_seq` to the one that holds `until_seq`, or to the end.

        `behind` a snapshot's end, which lies in the segment of `from_seq`, whatever stands before it is not looked at.

        Raises `NoLongerKept` if the segment of `from_seq` was removed, `LogDamaged` where the log is not as it must be.
        """
        for index in range(self._index_of(from_seq), len(self._segments)):
            if until_seq is not None and until_seq < max(from_seq, self._segments[index].first_seq):
                return
            walk = self._enter(index)
            if behind is None:
                walk.skip(from_seq)
            elif walk.seq < behind.seq:
                walk.jump(behind)
            for frame in self._walk_frames(walk, index, until_seq):
                if frame.last_seq >= from_seq:
                    yield frame
            if until_seq is not None and walk.seq >= until_seq:
                return

    def frame_with(self, seq: int) -> Frame:
        """Give the frame that holds `seq`, which there is; of a plain segment only a few pieces are read.

        Raises as `frames` does.
        """
        segment = self._segments[self._index_of(seq)]
        frame = None if segment.compressed else self._search(segment, seq)
        return next(self.frames(seq, seq)) if frame is None else frame

    def _index_of(self, seq: int) -> int:
        index = bisect_right(self._segments, seq, key=lambda segment: segment.first_seq) - 1
        if index < 0:
            raise NoLongerKept(seq, self._segments[0].first_seq)
        return index

    def _search(self, segment: SegmentFile, seq: int) -> Frame | None:
        """Find a frame in a plain segment; None if anything at all is not as it should be."""
        try:
            file = self._disk.open(segment.path)
        except FileMissing:
            return None
        try:
            read = pieces_of(file)
            header = unpack_segment_header(read(0, SEGMENT_HEADER_BYTES))
            if (header.log_id, header.first_seq) != (self.log_id, segment.first_seq):
                return None
            walk, frame = SegmentCursor(b"", header), None
            walk.bisect(seq, read, min(file.size(), CONTENT_BYTES_MAX))
            while walk.seq < seq:
                frame = frame_at(read, walk.offset)
                if frame is None or not walk.accept(frame):
                    return None
            return frame
        except FrameFault:
            return None
        finally:
            file.close()

    def _walk_frames(self, walk: SegmentCursor, index: int, until_seq: int | None) -> Iterator[Frame]:
        """Give the frames of one segment, and judge its end unless `until_seq` was reached before."""
        if index + 1 == len(self._segments):
            yield from self._last_frames(walk, until_seq)
            return
        join = self._segments[index + 1].first_seq
        yield from walk.frames(join - 1 if until_seq is None else min(until_seq, join - 1))
        if walk.seq != join - 1 and (until_seq is None or walk.seq < until_seq):
            raise self._join_fault(walk, self._segments[index + 1])

    def _last_frames(self, walk: SegmentCursor, until_seq: int | None) -> Iterator[Frame]:
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

    def _enter(self, index: int) -> SegmentCursor:
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
        self.walk = SegmentCursor(data, header)
        return self.walk

    def check_headers(self) -> None:
        """Check the heads of all plain segments, and that none is missing between them, without reading further.

        Compressed ones are covered by snapshots and may be many: of them only the names are looked at. What is missing
        before the snapshot has another remedy than what is missing after it.
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
                    if order is Situation.SEGMENT_MISSING and segment.first_seq <= self._covered + 1:
                        order = Situation.COVERED_MISSING
                    good = min(self._end_of(before), segment.first_seq - 1)
                    raise self._order_error(order, before, segment, head, good=good)
            before = segment

    def _content(self, segment: SegmentFile) -> bytes:
        """Read a segment; what is growing is synced."""
        try:
            return read_content(self._disk, segment, sync=self._growing and segment is self._segments[-1])
        except FrameFault as fault:
            raise self.damaged(
                Situation.SEALED_DAMAGED, segment, good=self._good_before(segment), detail=fault.reason
            ) from fault
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
        return self.damaged(situation, segment, offset=0, good=self._good_before(segment), detail=fault.reason)

    def _check_owner(self, segment: SegmentFile, header: SegmentHeader) -> None:
        """Check that a segment is of this log, and under its own name."""
        if self.log_id is None:
            self.log_id = header.log_id
        if header.log_id != self.log_id:
            detail = f"its log id is {header.log_id.hex()}, not {self.log_id.hex()}"
            situation, good = Situation.SEGMENT_FOREIGN, self._good_before(segment)
            if self._covered and not self._is_any(lambda other: other.log_id == self.log_id):
                # Not one segment is of the snapshot's log: to move them away one by one would be to lose them all.
                situation, good = Situation.SNAPSHOT_FOREIGN, self._covered - 1
            raise self.damaged(situation, segment, offset=0, good=good, detail=detail)
        if header.first_seq != segment.first_seq:
            detail, good = f"it begins at seq {header.first_seq}", self._good_before(segment)
            if any(other.first_seq == header.first_seq for other in self._segments):
                raise self.damaged(Situation.SEGMENT_COPIED, segment, offset=0, good=good, detail=detail)
            good = min(good, header.first_seq - 1)
            name = segment_path("", header.first_seq)[1:] + (GZ if segment.compressed else "")
            raise self.damaged(Situation.SEGMENT_RENAMED, segment, offset=0, good=good, name=name, detail=detail)

    def _good_before(self, segment: SegmentFile) -> int:
        """Tell up to which seq the log is good before a segment: its name alone may claim anything."""
        if self.walk is not None:
            return self.walk.seq
        index = self._segments.index(segment)
        return min(segment.first_seq - 1, self._end_of(self._segments[index - 1])) if index else segment.first_seq - 1

    def _is_any(self, true_of: Callable[[SegmentHeader], bool]) -> bool:
        """Tell whether there is a segment with such a head, leaving out those that can't be read."""
        for segment in self._segments:
            try:
                if true_of(read_header(self._disk, segment)):
                    return True
            except FrameFault:
                continue
        return False

    def _join_fault(self, walk: SegmentCursor, following: SegmentFile) -> LogDamaged:
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
        if before.compressed:
            # Its head was not looked at yet; perhaps it is not what its name says.
            self._header(before, self._content(before))
        if (
            situation is Situation.SEGMENT_STRAY
            and any(other.first_seq == header.before for other in self._segments)
            and not self._is_any(lambda other: other.before == before.first_seq)
        ):
            # This one does follow a segment that is here, and nobody follows the one between them.
            detail = f"{segment.path} follows the segment of seq {header.before}, but this one is between them"
            good = min(good, before.first_seq - 1)
            return self.damaged(situation, before, offset=0, good=good, detail=detail)
        detail = f"this one follows the segment that begins at seq {header.before}, but {before.path} is here before it"
        return self.damaged(situation, segment, offset=0, good=good, next_seq=segment.first_seq, detail=detail)

    def _end_of(self, segment: SegmentFile) -> int:
        """Tell the last seq of a segment, as far as it can be read: only used to say where a log is still good."""
        try:
            data = read_content(self._disk, segment)
            walk = SegmentCursor(data, unpack_segment_header(data))
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
        name: str = "",
        detail: str = "",
    ) -> LogDamaged:
        """Make the error of a row of the table for a place in a segment (None: the one that is being read)."""
        segment = segment or self.segment
        return refusal(
            situation,
            directory=self._directory,
            path=segment.path,
            offset=offset,
            good=good,
            until=self._restorable(situation, segment, good) if until is None else until,
            covered=self._covered,
            next_seq=next_seq,
            name=name,
            detail=detail,
        )

    def _restorable(self, situation: Situation, segment: SegmentFile, good: int) -> int | None:
        """Tell up to which seq a restore can go if that is not `good`: 0 for nowhere, None for what `refusal` says."""
        if good >= self._covered:
            # Of the state before the oldest segment that is kept there is nothing.
            return 0 if good < self._segments[0].first_seq and self._segments[0].first_seq > 1 else None
        if situation in _OF_A_WHOLE_SEGMENT and segment.first_seq <= self._covered + 1:
            after = [other.first_seq for other in self._segments if other.first_seq > segment.first_seq]
            return None if after and after[0] <= self._covered + 1 else self._covered
        return self._covered if situation in _OF_A_WHOLE_SEGMENT else None


_OF_A_WHOLE_SEGMENT = {
    Situation.HEADER_DAMAGED,
    Situation.SEGMENT_MISSING,
    Situation.SEGMENT_STRAY,
    Situation.SEGMENT_RENAMED,
    Situation.SEGMENT_COPIED,
    Situation.SEGMENT_FOREIGN,
    Situation.SEGMENT_NOT_JOINED,
}
"""Where all of a segment is of no use: if it reaches past the snapshot, a restore can't go beyond the snapshot."""


def _order_fault(before: SegmentFile, header: SegmentHeader) -> Situation | None:
    """Say what is wrong if a segment does not name the one that comes before it as the one before it."""
    if header.before == before.first_seq:
        return None
    return Situation.SEGMENT_MISSING if header.before > before.first_seq else Situation.SEGMENT_STRAY
