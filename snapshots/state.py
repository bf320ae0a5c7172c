"""The state of a data directory at any seq or time, read without owning the directory and without changing it.

What opening does for the one who serves, this does for everybody else: the tools, a restore, a snapshot that is taken
beside a running leader. It differs in three ways: it can stop at any event, it takes the end of a log that is being
written to for what it is, and it repairs nothing.

    segments   |---------|---------|---------|----
    snapshots        a         b         c
    until                           ^             the newest valid snapshot not after it is b; what follows b is applied

Rules:
- What is read joins: the log's chain must have, at the snapshot's seq, the checksum that the snapshot has.
- Nothing after the bound is looked at, so a damaged log can be read up to its damage; and if the bound is the
  snapshot's own seq, no log is needed at all.
- Everything that is read is durable: `engine.log_reader` syncs the end of a growing log before it gives out any of it.
  So a snapshot of it never holds an event that a power cut could take back.
- A leader may take away a snapshot or a segment between listing and reader. Then it has made newer ones, and reader
  begins anew; ATTEMPTS is only reached if that happens each time.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from engine.disk import Disk, FileMissing
from engine.errors import LogDamaged, NoLongerKept
from engine.log_reader import LogReader
from engine.record import Frame, FrameFault, Tail, chain_start, events_of, pack_frame, unpack_header
from engine.recovery import Situation, refusal
from engine.scoreboard import Rules, Scoreboard
from engine.segment import SegmentFile
from snapshots.opening import (
    Base,
    Progress,
    ShowProgress,
    Tell,
    begin_from,
    list_log,
    log_directory,
    newest_valid,
    no_progress,
)
from snapshots.store import Store

ATTEMPTS = 5
"""How often reading begins anew because files went meanwhile. A leader checkpoints minutes apart at the quickest."""

PROGRESS_BYTES = 2**20
"""How much of the log is read between two calls of `progress`."""


class Until(msgspec.Struct, frozen=True):
    """Where to stop: after the last event with this seq or an earlier one, of this time or an earlier one."""

    seq: int | None = None
    time_ms: int | None = None

    def holds(self, seq: int, time_ms: int) -> bool:
        """Tell whether an event is within."""
        return (self.seq is None or seq <= self.seq) and (self.time_ms is None or time_ms <= self.time_ms)


def read_state(
    disk: Disk,
    data_directory: str,
    rules: Rules,
    *,
    until_seq: int | None = None,
    until_ms: int | None = None,
    tell: Tell,
    progress: ShowProgress = no_progress,
) -> tuple[Scoreboard, Tail]:
    """Read the state after the last event within the bounds, and where the log stands there.

    The scoreboard is as in the middle of a replay: `end_replay` builds the order if it is wanted. If the bound lies
    within a frame, the tail is that of the frame cut short there. Raises `LogDamaged` for damage before the bound.
    """
    until = Until(until_seq, until_ms)
    for _ in range(ATTEMPTS - 1):
        try:
            return _read_once(disk, data_directory, rules, until, tell, progress)
        except (FileMissing, NoLongerKept):
            continue
    return _read_once(disk, data_directory, rules, until, tell, progress)


def _read_once(
    disk: Disk, data_directory: str, rules: Rules, until: Until, tell: Tell, progress: ShowProgress
) -> tuple[Scoreboard, Tail]:
    base = find_base(Store(disk, data_directory), until, tell, progress)
    scoreboard = begin_from(base, rules)
    after = None if base is None else base.tail
    del base  # the image is not needed any more, and is as large as the state
    if after is not None and after.seq == until.seq:
        return scoreboard, after
    directory = log_directory(data_directory)
    segments = list_log(disk, directory)
    check_reach(directory, segments, after)
    log_id, covered = (None, 0) if after is None else (after.log_id, after.seq)
    reader = LogReader(disk, directory, segments, log_id=log_id, covered=covered, growing=True)
    from_seq = max(segments[0].first_seq, 1 if after is None else after.seq)
    meter = Meter(segments, progress)
    tail = after
    for frame in joined_frames(reader, after, from_seq, until):
        tail = apply_within(scoreboard, frame, until, reader)
        meter.advance(reader, frame.count)
    if tail is None:
        assert reader.log_id is not None
        tail = Tail(reader.log_id, 1, 0, chain_start(reader.log_id))
    return scoreboard, tail


def find_base(store: Store, until: Until, tell: Tell, progress: ShowProgress = no_progress) -> Base | None:
    """Load the newest valid snapshot within the bounds."""
    snapshots = [info for info in store.list() if until.seq is None or info.seq <= until.seq]
    return newest_valid(store, snapshots, tell=tell, progress=progress, until_ms=until.time_ms)


def check_reach(directory: str, segments: list[SegmentFile], after: Tail | None) -> None:
    """Check that there is a log, and that it reaches back to the snapshot, or to the first event without one."""
    seq = 0 if after is None else after.seq
    if not segments:
        raise refusal(Situation.LOG_GONE, directory=directory, path=directory, good=seq)
    first = segments[0]
    if first.first_seq > seq + 1:
        detail = f"it begins at seq {first.first_seq}"
        raise refusal(Situation.BEGINS_LATE, directory=directory, path=first.path, good=seq, detail=detail)


def joined_frames(
    reader: LogReader, after: Tail | None, from_seq: int, until: Until, *, only_after: bool = False
) -> Iterator[Frame]:
    """Give the frames from the one that holds `from_seq` on that have an event within the bounds.

    Proves on the way that the chain goes through the end of the snapshot, `after`. `only_after`: what stands before
    that in its segment is passed over. Raises `LogDamaged`.
    """
    joined = after is None
    for frame in reader.frames(from_seq, until.seq, behind=after if only_after else None):
        if after is not None and not joined and frame.last_seq >= after.seq:
            at_end = frame.last_seq == after.seq
            checksum = frame.checksum if at_end else frame.previous
            _check_join(reader, after, at_end or frame.first_seq == after.seq + 1, checksum)
            joined = True
        if not until.holds(frame.first_seq, frame.time_ms):
            return
        yield frame
    cursor = reader.walk
    if after is None or joined or cursor is None:
        return
    if cursor.seq < after.seq:
        detail = f"the log ends at seq {cursor.seq}, the snapshot is at seq {after.seq}"
        situation = Situation.ENDS_EARLY
        raise reader.damaged(situation, offset=cursor.offset, good=cursor.seq, until=after.seq, detail=detail)
    _check_join(reader, after, cursor.seq == after.seq, cursor.checksum)


def _check_join(reader: LogReader, after: Tail, meets: bool, checksum: int) -> None:
    if not meets or checksum != after.checksum:
        assert reader.walk is not None
        detail = f"the snapshot is at seq {after.seq}"
        offset = reader.walk.last_offset
        raise reader.damaged(Situation.SNAPSHOT_DIFFERS, offset=offset, good=after.seq - 1, detail=detail)


def apply_within(scoreboard: Scoreboard, frame: Frame, until: Until, reader: LogReader) -> Tail:
    """Apply what a frame has after the state and within the bounds; give the tail, as if the frame ended there."""
    assert reader.log_id is not None
    if frame.last_seq <= scoreboard.seq:
        return Tail(reader.log_id, frame.epoch, frame.last_seq, frame.checksum)
    try:
        events = events_of(frame)
    except FrameFault as fault:
        raise newer_version(reader, frame, fault) from fault
    within = [event for event in events if until.holds(event.seq, event.time_ms)]
    for event in within:
        if event.seq > scoreboard.seq:
            scoreboard.apply(event, frame.epoch)
    checksum = frame.checksum
    if len(within) < frame.count:
        checksum = unpack_header(pack_frame(within, epoch=frame.epoch, previous=frame.previous)).checksum
    return Tail(reader.log_id, frame.epoch, within[-1].seq, checksum)


def newer_version(reader: LogReader, frame: Frame, fault: FrameFault) -> LogDamaged:
    """Make the error for a frame that is whole but can't be understood."""
    assert reader.walk is not None
    offset, good = reader.walk.last_offset, frame.first_seq - 1
    return reader.damaged(Situation.NEWER_VERSION, offset=offset, good=good, detail=fault.reason)


class Meter:
    """Tells how far a reading has come, each time that it has come far enough."""

    def __init__(self, segments: list[SegmentFile], progress: ShowProgress) -> None:
        self._progress = progress
        self._before: dict[int, int] = {}
        self._total = 0
        for segment in segments:
            self._before[segment.first_seq] = self._total
            self._total += segment.bytes
        self._events = 0
        self._next = 0

    def advance(self, reader: LogReader, events: int) -> None:
        """Count a frame."""
        assert reader.walk is not None
        self._events += events
        # A compressed segment unpacks to more than it takes on disk; it never counts for more than that.
        done = self._before[reader.segment.first_seq] + min(reader.walk.offset, reader.segment.bytes)
        if done >= self._next:
            self._next = done + PROGRESS_BYTES
            self._progress(Progress("log", self._events, done, self._total))
