"""Reading the log: frames in order, from one segment after another, each proved to follow the one before.

    for frame in scan(disk, directory, until_seq=seq): …            a log that another process may be writing
    reader = LogReader(disk, directory, segments, log_id=log_id)
    frames, frame = reader.frames(from_seq), reader.frame_with(seq)

Recovery, `Log.read_from` and `scan` all read through here, so they accept the same logs.

Theory: a `SegmentCursor` steps through one segment and stops at the first bytes that are not the next frame. A
`LogReader` goes from segment to segment and checks that they join. If a cursor stops too early, `engine.recovery`
judges what that means. A segment in the middle ends at the first seq of the next one, whose header proves that the
cursor arrived with the right checksum. The bytes after that end are not read as frames.

To find one frame in a plain segment, `frame_with` reads only the pieces that a bisection needs. It proves the frame by
the same steps. If it finds anything unexpected, the whole segment is read and judged instead.

Rules:
- Memory holds one segment at a time, however long the log is.
- Only the frames that are asked for are proved: frames before `from_seq` are skipped, and nothing after `until_seq` is
  read. So a damaged log can always be read up to its damage.
- A log may grow while it is read (`growing`). The frame in flight looks like a torn one, and ends the reading. Bytes
  are read at slightly different times, so a later frame may be visible before an earlier one. Damage in the last
  segment is therefore believed only if a second reading finds it too.
- A crash may take back what another process has not synced. So a growing segment is synced after it is read and before
  any of its frames is given out. A snapshot that is made from them is never ahead of the log.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

from engine.disk import Disk, FileMissing
from engine.errors import LogDamaged, NoLongerKept
from engine.record import SEGMENT_HEADER_BYTES, Frame, FrameFault, SegmentHeader, Tail, unpack_segment_header
from engine.recovery import Situation, refusal
from engine.segment import CONTENT_BYTES_MAX, GZ, SegmentFile, list_segments, read_content, read_header, segment_path
from engine.segment_cursor import SegmentCursor, frame_at, pieces_of


def holds_log(disk: Disk, directory: str) -> bool:
    """Tell whether a directory holds a log. If not, one may be created there."""
    return disk.exists(directory) and bool(list_segments(disk, directory).segments)


def scan(disk: Disk, directory: str, *, from_seq: int | None = None, until_seq: int | None = None) -> Iterator[Frame]:
    """Read a log that another process may own and append to. Takes no lock and changes nothing.

    Gives the frames from the one that holds `from_seq` (None: the oldest) to the one that holds `until_seq` (None: the
    last whole one). All of them are durable. Nothing after `until_seq` is read, so a damaged log can be read up to its
    damage. Raises `LogDamaged`, `NoLongerKept`.
    """
    segments = list_segments(disk, directory).segments
    if not segments:
        raise refusal(Situation.LOG_GONE, directory=directory, path=directory, good=0)
    reader = LogReader(disk, directory, segments, growing=True)
    return reader.frames(segments[0].first_seq if from_seq is None else from_seq, until_seq)


class LogReader:
    """Gives frames from segments, in order. `segment` is the current one, `cursor` its place in it.

    `end` says how the last segment ended. `log_id` is the log that the segments must belong to; if it is None, the
    first segment decides. `covered` is the seq of the snapshot, which decides what an operator can do about damage.
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
        self.cursor: SegmentCursor | None = None
        self.end: Situation | None = None

    def frames(self, from_seq: int, until_seq: int | None = None, *, behind: Tail | None = None) -> Iterator[Frame]:
        """Give the frames from the one that holds `from_seq` to the one that holds `until_seq`, or to the end.

        With `behind`, the end of a snapshot in the segment of `from_seq`, the bytes before that end are not judged.
        Raises `NoLongerKept` if the segment of `from_seq` was removed, `LogDamaged` if the log is damaged.
        """
        for index in range(self._index_of(from_seq), len(self._segments)):
            if until_seq is not None and until_seq < max(from_seq, self._segments[index].first_seq):
                return
            cursor = self._enter(index)
            if behind is None:
                cursor.skip(from_seq)
            elif cursor.seq < behind.seq:
                cursor.jump(behind)
            for frame in self._segment_frames(cursor, index, until_seq):
                if frame.last_seq >= from_seq:
                    yield frame
            if until_seq is not None and cursor.seq >= until_seq:
                return

    def frame_with(self, seq: int) -> Frame:
        """Give the frame that holds `seq`, which must exist. Of a plain segment only a few pieces are read.

        Raises the same errors as `frames`.
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
        """Find a frame in a plain segment; None if anything is unexpected."""
        try:
            with closing(self._disk.open(segment.path)) as file:
                read = pieces_of(file)
                header = unpack_segment_header(read(0, SEGMENT_HEADER_BYTES))
                if (header.log_id, header.first_seq) != (self.log_id, segment.first_seq):
                    return None
                cursor, frame = SegmentCursor(b"", header), None
                cursor.bisect(seq, read, min(file.size(), CONTENT_BYTES_MAX))
                while cursor.seq < seq:
                    frame = frame_at(read, cursor.offset)
                    if frame is None or not cursor.accept(frame):
                        return None
                return frame
        except (FileMissing, FrameFault):
            return None

    def _segment_frames(self, cursor: SegmentCursor, index: int, until_seq: int | None) -> Iterator[Frame]:
        """Give the frames of one segment, and judge its end unless `until_seq` comes first."""
        if index + 1 == len(self._segments):
            yield from self._last_frames(cursor, until_seq)
            return
        join = self._segments[index + 1].first_seq
        yield from cursor.frames(join - 1 if until_seq is None else min(until_seq, join - 1))
        if cursor.seq != join - 1 and (until_seq is None or cursor.seq < until_seq):
            raise self._join_fault(cursor, self._segments[index + 1])

    def _last_frames(self, cursor: SegmentCursor, until_seq: int | None) -> Iterator[Frame]:
        """Give the frames of the last segment. If it is growing, apparent damage is read a second time."""
        stuck = None
        while True:
            yield from cursor.frames(until_seq)
            if until_seq is not None and cursor.seq >= until_seq:
                return
            self.end = cursor.judge(sealed=self.segment.compressed)
            if self.end in {Situation.CLEAN_END, Situation.TORN_TAIL}:
                return
            if not self._growing or cursor.offset == stuck:
                raise self.damaged(self.end, offset=cursor.offset, good=cursor.seq)
            stuck = cursor.offset
            cursor.data = self._content(self.segment)

    def _enter(self, index: int) -> SegmentCursor:
        """Read a segment, and check that it follows the one before."""
        before, self.segment = self.segment, self._segments[index]
        data = self._content(self.segment)
        header = self._header(self.segment, data)
        if self.cursor is not None:
            order = _order_fault(before, header)
            if order is not None:
                raise self._order_error(order, before, self.segment, header, good=self.cursor.seq)
            if header.previous != self.cursor.checksum:
                raise self.damaged(Situation.SEGMENT_NOT_JOINED, offset=0, good=self.cursor.seq)
        self.cursor = SegmentCursor(data, header)
        return self.cursor

    def check_headers(self) -> None:
        """Check the headers of all plain segments, and that no segment is missing between them.

        Compressed segments may be many, and snapshots cover them: only their names are used. A segment that is missing
        before the snapshot has another remedy than one after it.
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
        """Read a whole segment; sync it if it is growing."""
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
        """Check that a segment belongs to this log and has its own name."""
        if self.log_id is None:
            self.log_id = header.log_id
        if header.log_id != self.log_id:
            detail = f"its log id is {header.log_id.hex()}, not {self.log_id.hex()}"
            situation, good = Situation.SEGMENT_FOREIGN, self._good_before(segment)
            if self._covered and not self._is_any(lambda other: other.log_id == self.log_id):
                # No segment belongs to the snapshot's log. Moving them away one by one would lose the whole log.
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
        """Give the last good seq before a segment. The segment's name is not trusted: it may be wrong."""
        if self.cursor is not None:
            return self.cursor.seq
        index = self._segments.index(segment)
        return min(segment.first_seq - 1, self._end_of(self._segments[index - 1])) if index else segment.first_seq - 1

    def _is_any(self, true_of: Callable[[SegmentHeader], bool]) -> bool:
        """Tell whether `true_of` holds for the header of any segment. Unreadable headers are left out."""
        for segment in self._segments:
            try:
                if true_of(read_header(self._disk, segment)):
                    return True
            except FrameFault:
                continue
        return False

    def _join_fault(self, cursor: SegmentCursor, following: SegmentFile) -> LogDamaged:
        """Make the error for a segment whose frames stop before the next segment, or overlap it."""
        if cursor.seq >= following.first_seq:
            detail = f"{self.segment.path} reaches to seq {cursor.seq}"
            return self.damaged(Situation.SEGMENT_STRAY, following, offset=0, good=cursor.seq, detail=detail)
        situation = cursor.judge(sealed=True)
        if situation is Situation.CLEAN_END:
            head = self._header(following, self._content(following))
            order = _order_fault(self.segment, head)
            if order is not None:
                return self._order_error(order, self.segment, following, head, good=cursor.seq)
            situation = Situation.FRAMES_MISSING
        return self.damaged(situation, offset=cursor.offset, good=cursor.seq)

    def _order_error(
        self, situation: Situation, before: SegmentFile, segment: SegmentFile, header: SegmentHeader, *, good: int
    ) -> LogDamaged:
        """Make the error for a segment whose header names another one before it."""
        if before.compressed:
            # Its header was not checked yet, and its name may be wrong.
            self._header(before, self._content(before))
        if (
            situation is Situation.SEGMENT_STRAY
            and any(other.first_seq == header.before for other in self._segments)
            and not self._is_any(lambda other: other.before == before.first_seq)
        ):
            # This segment follows one that is here. None follows the segment between them, so that one is stray.
            detail = f"{segment.path} follows the segment of seq {header.before}, but this one is between them"
            good = min(good, before.first_seq - 1)
            return self.damaged(situation, before, offset=0, good=good, detail=detail)
        detail = f"this one follows the segment that begins at seq {header.before}, but {before.path} is here before it"
        return self.damaged(situation, segment, offset=0, good=good, next_seq=segment.first_seq, detail=detail)

    def _end_of(self, segment: SegmentFile) -> int:
        """Give the last readable seq of a segment. Only messages use it, to say up to where a log is good."""
        try:
            data = read_content(self._disk, segment)
            cursor = SegmentCursor(data, unpack_segment_header(data))
        except FrameFault:
            return segment.first_seq - 1
        for _ in cursor.frames(None):
            pass
        return cursor.seq

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
        """Make the error of a row of the table, for a place in a segment (None: the current one)."""
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
        """Give the last seq that a restore can reach: 0 if there is none, None if `refusal` decides."""
        if good >= self._covered:
            # Neither a snapshot nor a segment has the state before the oldest segment.
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
"""Situations in which a whole segment is unusable. If it reaches past the snapshot, a restore ends at the snapshot."""


def _order_fault(before: SegmentFile, header: SegmentHeader) -> Situation | None:
    """Say what is wrong if a header does not name `before` as the segment before it; None if it does."""
    if header.before == before.first_seq:
        return None
    return Situation.SEGMENT_MISSING if header.before > before.first_seq else Situation.SEGMENT_STRAY
