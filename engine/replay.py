"""The three steps of opening a log: replay and judge it, tidy its directory, settle its end.

    cursor = replay(reader, segments, after=tail, apply=apply, progress=progress)
    tidy(disk, directory, listing, tell)
    file = settle_end(disk, path, cursor, segment_bytes, tell)

Rules:
- `replay` changes nothing. If it refuses the log with `LogDamaged`, the other steps do not run.
- A crash may cut any step short; the next opening starts over. Only unused files are removed. Bytes are durable in a
  side file before they are zeroed. A torn frame that is half zeroed is still a torn frame.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from engine.disk import Disk, File
from engine.errors import LogDamaged
from engine.log_reader import LogReader
from engine.record import Frame, FrameFault, Tail
from engine.recovery import Finding, Situation, finding
from engine.segment import Listing, SegmentFile, side_path
from engine.segment_cursor import SegmentCursor

PROGRESS_BYTES = 2**20
"""Bytes that are read between two calls of `progress`."""


def replay(
    reader: LogReader,
    segments: Sequence[SegmentFile],
    *,
    after: Tail | None,
    apply: Callable[[Frame], None],
    progress: Callable[[int, int], None] | None,
) -> SegmentCursor:
    """Give every frame after `after` to `apply`, and prove that they continue the state at `after`.

    The segment that holds `after` is proved as a whole. The segments before it are not read. Raises `LogDamaged`.
    """
    seq = 0 if after is None else after.seq
    needed = [segment for index, segment in enumerate(segments) if _reaches(segments, index, seq)]
    if segments[0].first_seq > seq + 1:
        detail = f"it begins at seq {segments[0].first_seq}"
        raise reader.damaged(Situation.BEGINS_LATE, segments[0], good=seq, detail=detail)
    meter = _Meter(progress, needed)
    joined = after is None
    for frame in reader.frames(needed[0].first_seq):
        if frame.last_seq > seq:
            if not joined:
                assert after is not None
                check_join(reader, after, meets=frame.first_seq == seq + 1, checksum=frame.previous)
                joined = True
            try:
                apply(frame)
            except FrameFault as fault:
                raise newer_version(reader, frame, fault) from fault
        meter.advance(reader)
    cursor = reader.cursor
    assert cursor is not None
    if cursor.seq < seq:
        detail = f"the log ends at seq {cursor.seq}, the snapshot is at seq {seq}"
        raise reader.damaged(Situation.ENDS_EARLY, offset=cursor.offset, good=cursor.seq, until=seq, detail=detail)
    if after is not None and not joined:
        check_join(reader, after, meets=True, checksum=cursor.checksum)
    meter.end()
    return cursor


def _reaches(segments: Sequence[SegmentFile], index: int, seq: int) -> bool:
    """Tell whether a segment may hold an event after `seq`: it is the last one, or the next begins after `seq + 1`."""
    return index + 1 == len(segments) or segments[index + 1].first_seq > seq + 1


def check_join(reader: LogReader, after: Tail, *, meets: bool, checksum: int) -> None:
    """Check that a frame of the log meets the snapshot's end, and that both have the same checksum there."""
    if not meets or checksum != after.checksum:
        assert reader.cursor is not None
        offset, detail = reader.cursor.last_offset, f"the snapshot is at seq {after.seq}"
        raise reader.damaged(Situation.SNAPSHOT_DIFFERS, offset=offset, good=after.seq - 1, detail=detail)


def newer_version(reader: LogReader, frame: Frame, fault: FrameFault) -> LogDamaged:
    """Make the error for a whole frame that a newer version wrote."""
    assert reader.cursor is not None
    offset, good = reader.cursor.last_offset, frame.first_seq - 1
    return reader.damaged(Situation.NEWER_VERSION, offset=offset, good=good, detail=fault.reason)


class _Meter:
    """Calls `progress` with (bytes done, bytes in all), about once for PROGRESS_BYTES."""

    def __init__(self, progress: Callable[[int, int], None] | None, segments: Sequence[SegmentFile]) -> None:
        self._progress = progress
        self._total = sum(segment.bytes for segment in segments)
        self._before = {}
        done = 0
        for segment in segments:
            self._before[segment.first_seq] = done
            done += segment.bytes
        self._next = PROGRESS_BYTES

    def advance(self, reader: LogReader) -> None:
        """Call `progress` if enough was read since the last call."""
        if self._progress is None or reader.cursor is None:
            return
        # A compressed segment unpacks to more bytes than it has on disk, so the count is capped.
        done = self._before[reader.segment.first_seq] + min(reader.cursor.offset, reader.segment.bytes)
        if done >= self._next:
            self._next = done + PROGRESS_BYTES
            self._progress(done, self._total)

    def end(self) -> None:
        if self._progress is not None:
            self._progress(self._total, self._total)


def tidy(disk: Disk, directory: str, listing: Listing, tell: Callable[[Finding], None]) -> None:
    """Remove what interrupted work left in the log directory, and sync the directory.

    A process may have ended after it renamed a new segment and before it synced the directory. The segment is visible
    then, but a power cut would take it away, with everything that was appended to it since.
    """
    left = [(Situation.UNFINISHED_FILE, path) for path in listing.unfinished]
    left += [(Situation.SEGMENT_TWICE, path) for path in listing.twice]
    for situation, path in left:
        disk.remove(path)
        tell(finding(situation, path=path))
    disk.sync_directory(directory)


def settle_end(disk: Disk, path: str, cursor: SegmentCursor, length: int, tell: Callable[[Finding], None]) -> File:
    """Make the last segment durable and ready for appends; give its file, open for writing.

    The bytes of a torn frame are kept in a side file and zeroed. The last frame is written again (`engine.log` says
    why). Space is laid out up to `length`.
    """
    torn = cursor.data[cursor.offset :].rstrip(b"\0")
    if torn:
        side = side_path(disk, path, cursor.offset)
        disk.write_whole(side, [torn])
    file = disk.open(path, write=True)
    try:
        if torn:
            file.write_at(cursor.offset, bytes(len(torn)))
        if cursor.last_offset is not None:
            file.write_at(cursor.last_offset, cursor.data[cursor.last_offset : cursor.offset])
        file.preallocate(length)
        file.sync()
    except BaseException:
        file.close()
        raise
    if torn:
        detail = f"{len(torn)} bytes are kept in {side}"
        tell(finding(Situation.TORN_TAIL, path=path, offset=cursor.offset, seq=cursor.seq + 1, detail=detail))
    return file
