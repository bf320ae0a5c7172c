"""Copying a log to another directory up to a bound, and computing the state there.

    copied = copy_log(disk, directory, target, segments=…, scoreboard=scoreboard, after=tail, until=Until(seq=…), …)
    copy_actions(disk, source, target, image, log_id, tell)        then the files of older actions that the state names

    segments     |----a----|----b----|----c-^--|----d----|        until: within a frame of c
    copied       |----a----|----b----|----c-|                     c ends with a frame that was cut short there

The events after the snapshot make the state, so they must be whole. The segments before it are only the audit trail, so
damage among them must not prevent a restore. The attempts, in this order:

    all segments from the oldest on                  the usual case
    from the first segment after the damage on       if the snapshot covers the damage; repeated for each damage
    only the frames after the snapshot               if the damage is in the segment where the snapshot stands
    refuse, and name the last good seq               if the damage comes after the snapshot

Rules:
- Every copied frame is proved and joins the one before. What can't be proved is left behind, and that is told.
- A compressed segment stays compressed, and its copy is read back. A plain one loses the zeros at its end.
- The source is only read.
- A file of older actions that is missing or damaged is made anew from the copied log.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

import msgspec

from engine.board_events import EndedPeriod
from engine.disk import Disk
from engine.errors import DiskFault, HistoriesDiffer, LogDamaged
from engine.image import StateImage
from engine.log_reader import LogReader
from engine.record import Frame, SegmentHeader, Tail, events_of, pack_frame, pack_segment_header
from engine.scoreboard import Scoreboard
from engine.sealed_actions import manifest_in
from engine.segment import GZ, SegmentFile, read_content, segment_path
from engine.segment_cursor import SegmentCursor
from snapshots.action_store import ActionStore, copy_runs
from snapshots.mending import open_or_mend
from snapshots.opening import ShowProgress, Tell, log_directory
from snapshots.state import Meter, Until, apply_within, check_reach, joined_frames

PIECE_BYTES = 2**20
"""The length of the pieces in which a file is copied."""


class Copied(msgspec.Struct, frozen=True):
    """What was copied: its end (None if it is empty), its first seq (None without a segment), and its events."""

    tail: Tail | None
    first_seq: int | None
    events: int


def copy_log(
    disk: Disk,
    directory: str,
    target: str,
    *,
    segments: list[SegmentFile],
    scoreboard: Scoreboard,
    after: Tail | None,
    until: Until,
    tell: Tell,
    progress: ShowProgress,
    on_ended: Callable[[EndedPeriod], None],
) -> Copied:
    """Copy the log into the directory `target`, and apply the events after `after` to `scoreboard`.

    Raises `LogDamaged` for damage after `after`. The remedy names the last good seq.
    """
    seq = 0 if after is None else after.seq
    needed = until.seq is None or until.seq > seq
    if needed:
        try:
            check_reach(directory, segments, after)
        except LogDamaged as damage:
            raise _refused(damage, directory, seq) from damage
    begins = [index for index, segment in enumerate(segments) if segment.first_seq <= seq + 1]
    while begins:
        copy = _Copy(disk, directory, target, segments[begins[0] :], scoreboard, after, until, progress, on_ended)
        try:
            return copy.run(segments[begins[0]].first_seq)
        except HistoriesDiffer:
            raise
        except LogDamaged as damage:
            copy.discard()
            if after is None or scoreboard.seq > seq:
                raise _refused(damage, directory, max(scoreboard.seq, (damage.seq or 1) - 1)) from damage
            tell(damage)
            # With an offset the damage is inside the segment. At its header perhaps only the join before it is bad.
            damaged = segments.index(copy.reader.segment) + bool(damage.offset)
            begins = [index for index in begins if index >= max(damaged, begins[0] + 1)]
    if not needed:
        return Copied(after, None, 0)
    assert after is not None
    copy = _Copy(disk, directory, target, segments, scoreboard, after, until, progress, on_ended, only_after=True)
    try:
        return copy.run(after.seq)
    except HistoriesDiffer:
        raise
    except LogDamaged as damage:
        raise _refused(damage, directory, scoreboard.seq) from damage


def copy_actions(disk: Disk, source: str, target: str, image: StateImage, log_id: bytes, tell: Tell) -> None:
    """Copy the files of older actions that a state names from one data directory to another, which has its log.

    Raises `RunDamaged` if one is missing or damaged and can't be made anew: the target could not be served.
    """
    manifest = manifest_in(image.parts)
    if manifest is not None:
        store = ActionStore(disk, target)
        copy_runs(ActionStore(disk, source), store, manifest.runs, log_id)
        open_or_mend(store, log_directory(target), manifest, log_id, tell=tell)


def _refused(damage: LogDamaged, directory: str, good: int) -> LogDamaged:
    """Make the error that names the last seq that a restore can reach."""
    data = directory.rpartition("/")[0] or "."
    remedy = f"Up to seq {good} all is good: restore from {data} with --until-seq {good}."
    if good < 1:
        remedy = "Nothing before it is left, so only a backup helps."
    return LogDamaged(damage.what, path=damage.path, offset=damage.offset, seq=damage.seq, remedy=remedy)


class _Carried(msgspec.Struct):
    """The copy of one segment, until it is written: `head`, the source's bytes from `start` to `end`, then `rest`."""

    file: SegmentFile
    cursor: SegmentCursor
    first_seq: int
    head: bytes
    start: int
    end: int
    rest: bytes


class _Copy:
    """One attempt. `only_after`: only frames after the snapshot are copied, and each segment gets a new header."""

    def __init__(
        self,
        disk: Disk,
        directory: str,
        target: str,
        segments: list[SegmentFile],
        scoreboard: Scoreboard,
        after: Tail | None,
        until: Until,
        progress: ShowProgress,
        on_ended: Callable[[EndedPeriod], None],
        *,
        only_after: bool = False,
    ) -> None:
        log_id, covered = (None, 0) if after is None else (after.log_id, after.seq)
        self.reader = LogReader(disk, directory, segments, log_id=log_id, covered=covered, growing=True)
        self._disk = disk
        self._target = target
        self._scoreboard = scoreboard
        self._after = after
        self._until = until
        self._on_ended = on_ended
        self._only_after = only_after
        self._meter = Meter(segments, progress)
        self._carried: _Carried | None = None
        self._written: list[tuple[int, str]] = []
        self._events = 0

    def run(self, from_seq: int) -> Copied:
        """Copy and apply from `from_seq` on."""
        tail = self._after
        frames = joined_frames(self.reader, self._after, from_seq, self._until, only_after=self._only_after)
        for frame in frames:
            if self._only_after and frame.last_seq <= self._scoreboard.seq:
                continue
            tail = apply_within(self._scoreboard, frame, self._until, self.reader, self._on_ended)
            self._take(frame, tail)
            self._meter.advance(self.reader, frame.count)
        self._write()
        first_seq = self._written[0][0] if self._written else None
        return Copied(tail, first_seq, self._events)

    def discard(self) -> None:
        """Remove what this attempt wrote, because it does not lead to the snapshot."""
        for _, path in self._written:
            self._disk.remove(path)

    def _take(self, frame: Frame, tail: Tail) -> None:
        """Add a frame to the copy, or its events up to the bound."""
        cursor = self.reader.cursor
        assert cursor is not None
        assert cursor.last_offset is not None
        if self._carried is None or self._carried.cursor is not cursor:
            self._write()
            self._carried = self._begin(cursor, cursor.last_offset, frame)
        carried = self._carried
        if tail.seq == frame.last_seq:
            carried.end = cursor.offset
        else:
            within = [event for event in events_of(frame) if event.seq <= tail.seq]
            carried.end = cursor.last_offset
            carried.rest = pack_frame(within, epoch=frame.epoch, previous=frame.previous)
        self._events += tail.seq - frame.first_seq + 1

    def _begin(self, cursor: SegmentCursor, offset: int, frame: Frame) -> _Carried:
        segment = self.reader.segment
        if not self._only_after:
            return _Carried(segment, cursor, segment.first_seq, b"", 0, offset, b"")
        assert self._after is not None
        before = self._written[-1][0] if self._written else 0
        header = SegmentHeader(self._after.log_id, frame.first_seq, frame.epoch, frame.previous, before)
        return _Carried(segment, cursor, frame.first_seq, pack_segment_header(header), offset, offset, b"")

    def _write(self) -> None:
        """Write the current segment, which is complete."""
        carried, self._carried = self._carried, None
        if carried is None:
            return
        self._disk.make_directory(self._target)
        path = segment_path(self._target, carried.first_seq)
        if carried.file.compressed and not carried.head and carried.end == len(carried.cursor.data):
            path += GZ
            _copy_file(self._disk, carried.file.path, path)
            if read_content(self._disk, msgspec.structs.replace(carried.file, path=path)) != carried.cursor.data:
                raise DiskFault("what was read back is not what was written", path=path)
        else:
            self._disk.write_whole(
                path, [carried.head + carried.cursor.data[carried.start : carried.end] + carried.rest]
            )
        self._written.append((carried.first_seq, path))


def _copy_file(disk: Disk, path: str, target: str) -> None:
    with closing(disk.open(path)) as file:
        offsets = range(0, file.size(), PIECE_BYTES)
        disk.write_whole(target, (file.read_at(offset, PIECE_BYTES) for offset in offsets))
