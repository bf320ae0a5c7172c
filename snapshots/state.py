"""Reading the state of a data directory at any seq or time, without owning the directory and without changing it.

    scoreboard, tail = read_state(disk, data_directory, rules, until_seq=seq, tell=tell)

A server opens its directory with `snapshots.opening`. The tools, a restore, and a snapshot beside a running leader use
this file. It can stop at any event, it expects that a leader is writing to the end of the log, and it repairs nothing.

    segments   |---------|---------|---------|----
    snapshots        a         b         c
    until                           ^             the newest valid snapshot not after it is b; what follows b is applied

Rules:
- At the snapshot's seq, the log must have the checksum that the snapshot has.
- A bound of time goes by the corrected times. So the whole log is searched for corrections of the clock first, as far
  as it can be read. If there are any, the bound becomes the seq of the last event that happened before it.
- Nothing else after the bound is read. So a damaged log can be read up to its damage, and if the bound is the
  snapshot's own seq, no log is needed.
- Everything that is read is durable: `engine.log_reader` syncs the end of a growing log before it gives out frames. So
  a snapshot of the state never has an event that a power cut could take back.
- A leader may remove a snapshot or a segment between listing and reading. It has made newer ones then, and the reading
  begins again, up to ATTEMPTS times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

import msgspec

from engine.board_events import EndedPeriod
from engine.board_rules import Rules
from engine.corrections import TrueTimes
from engine.disk import Disk, FileMissing
from engine.errors import LogDamaged, NoLongerKept
from engine.events import ClockCorrected
from engine.log_reader import LogReader
from engine.record import Frame, FrameFault, Tail, chain_start, correction_of, events_of, pack_frame, unpack_header
from engine.recovery import Situation, refusal
from engine.replay import check_join, newer_version
from engine.scoreboard import Scoreboard
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
from snapshots.periods import log_id_of
from snapshots.store import Store

ATTEMPTS = 5
"""Attempts to read while files are removed meanwhile. A leader's checkpoints are at least minutes apart."""

PROGRESS_BYTES = 2**20
"""Bytes of the log that are read between two calls of `progress`."""


class BeginsLate(LogDamaged):
    """The log begins, with `first_seq`, after the state that it must continue: it no longer goes back to the bound."""

    def __init__(self, fault: LogDamaged, first_seq: int) -> None:
        super().__init__(fault.what, path=fault.path, offset=fault.offset, seq=fault.seq, remedy=fault.remedy)
        self.first_seq = first_seq


class Until(msgspec.Struct, frozen=True):
    """The bounds: the last event that counts has at most this seq and at most this time."""

    seq: int | None = None
    time_ms: int | None = None

    def holds(self, seq: int, time_ms: int) -> bool:
        """Tell whether an event is within the bounds."""
        return (self.seq is None or seq <= self.seq) and (self.time_ms is None or time_ms <= self.time_ms)


def corrected(disk: Disk, data_directory: str, until: Until) -> Until:
    """Give the bounds by the corrected times: with a seq if the clock was ever corrected, else as they are.

    The seq is 0 if nothing in the log happened before the bound. Events that can't be read have no times. If the bound
    is among them, the seq is that of the last of them, and reading up to it finds the damage.
    """
    if until.time_ms is None:
        return until
    directory = log_directory(data_directory)
    segments = list_log(disk, directory)
    corrections = corrections_in(disk, directory, segments)
    if not corrections:
        return until
    times, first_seq = TrueTimes(corrections), segments[0].first_seq
    for frame in _readable_frames(disk, directory, segments):
        if times.of(frame.first_seq, frame.time_ms) > until.time_ms:
            seq = frame.first_seq - 1
            # An older snapshot has only its own time.
            time_ms = until.time_ms if seq < first_seq else None
            return Until(seq if until.seq is None else min(seq, until.seq), time_ms)
    return Until(until.seq)


def corrections_in(disk: Disk, directory: str, segments: list[SegmentFile]) -> list[ClockCorrected]:
    """List the corrections of the clock in a log, as far as it can be read."""
    corrections: list[ClockCorrected] = []
    for frame in _readable_frames(disk, directory, segments):
        with suppress(FrameFault):  # of a newer version; the reading itself refuses it
            correction = correction_of(frame)
            if correction is not None:
                corrections.append(correction)
    return corrections


def _readable_frames(disk: Disk, directory: str, segments: list[SegmentFile]) -> Iterator[Frame]:
    """Give the frames of a log, segment by segment, each up to its end or its damage."""
    for segment in segments:
        with suppress(LogDamaged):
            yield from LogReader(disk, directory, [segment], growing=True).frames(segment.first_seq)


def read_state(
    disk: Disk,
    data_directory: str,
    rules: Rules,
    *,
    until_seq: int | None = None,
    until_ms: int | None = None,
    tell: Tell,
    progress: ShowProgress = no_progress,
    on_ended: Callable[[EndedPeriod], None] = lambda _: None,
) -> tuple[Scoreboard, Tail]:
    """Read the state after the last event within the bounds, and the tail of the log there.

    The scoreboard is in the middle of a replay: call `end_replay` to build the order. `on_ended` gets the periods that
    ended after the snapshot where the reading began. If the bound is within a frame,
    the tail is that of the frame cut short there. Raises `LogDamaged` for damage before the bound.
    """
    until = Until(until_seq, until_ms)
    for _ in range(ATTEMPTS - 1):
        try:
            return _read_marked(disk, data_directory, rules, until, tell, progress, on_ended)
        except (FileMissing, NoLongerKept):
            continue
    return _read_marked(disk, data_directory, rules, until, tell, progress, on_ended)


def _read_marked(
    disk: Disk, data_directory: str, rules: Rules, until: Until, tell: Tell, progress: ShowProgress,
    on_ended: Callable[[EndedPeriod], None],
) -> tuple[Scoreboard, Tail]:  # fmt: skip
    scoreboard, tail = _read_once(disk, data_directory, rules, until, tell, progress, on_ended)
    scoreboard.belongs_to(tail.log_id)
    return scoreboard, tail


def _read_once(
    disk: Disk, data_directory: str, rules: Rules, until: Until, tell: Tell, progress: ShowProgress,
    on_ended: Callable[[EndedPeriod], None],
) -> tuple[Scoreboard, Tail]:  # fmt: skip
    until = corrected(disk, data_directory, until)
    base = find_base(Store(disk, data_directory), until, tell, progress)
    scoreboard = begin_from(base, rules)
    after = None if base is None else base.tail
    del base  # the state has what was in its image, and may let go of it
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
        tail = apply_within(scoreboard, frame, until, reader, on_ended)
        meter.advance(reader, frame.count)
    if tail is None:
        log_id = log_id_of(disk, directory) if reader.log_id is None else reader.log_id  # nothing is before the bound
        tail = Tail(log_id, 1, 0, chain_start(log_id))
    return scoreboard, tail


def find_base(store: Store, until: Until, tell: Tell, progress: ShowProgress = no_progress) -> Base | None:
    """Load the newest valid snapshot within the bounds."""
    snapshots = [info for info in store.list() if until.seq is None or info.seq <= until.seq]
    return newest_valid(store, snapshots, tell=tell, progress=progress, until_ms=until.time_ms)


def check_reach(directory: str, segments: list[SegmentFile], after: Tail | None) -> None:
    """Check that there is a log, and that it reaches back to the snapshot, or to seq 1 without one."""
    seq = 0 if after is None else after.seq
    if not segments:
        raise refusal(Situation.LOG_GONE, directory=directory, path=directory, good=seq)
    first = segments[0]
    if first.first_seq > seq + 1:
        detail = f"it begins at seq {first.first_seq}"
        fault = refusal(Situation.BEGINS_LATE, directory=directory, path=first.path, good=seq, detail=detail)
        raise BeginsLate(fault, first.first_seq)


def joined_frames(
    reader: LogReader, after: Tail | None, from_seq: int, until: Until, *, only_after: bool = False
) -> Iterator[Frame]:
    """Give the frames with events within the bounds, from the one that holds `from_seq` on.

    Proves that the chain goes through `after`, the end of the snapshot. With `only_after`, the bytes before that end in
    its segment are not judged. Raises `LogDamaged`.
    """
    joined = after is None
    for frame in reader.frames(from_seq, until.seq, behind=after if only_after else None):
        if after is not None and not joined and frame.last_seq >= after.seq:
            at_end = frame.last_seq == after.seq
            checksum = frame.checksum if at_end else frame.previous
            check_join(reader, after, meets=at_end or frame.first_seq == after.seq + 1, checksum=checksum)
            joined = True
        if not until.holds(frame.first_seq, frame.time_ms):
            return
        yield frame
    cursor = reader.cursor
    if after is None or joined or cursor is None:
        return
    if cursor.seq < after.seq:
        detail = f"the log ends at seq {cursor.seq}, the snapshot is at seq {after.seq}"
        situation = Situation.ENDS_EARLY
        raise reader.damaged(situation, offset=cursor.offset, good=cursor.seq, until=after.seq, detail=detail)
    check_join(reader, after, meets=cursor.seq == after.seq, checksum=cursor.checksum)


def apply_within(
    scoreboard: Scoreboard, frame: Frame, until: Until, reader: LogReader,
    on_ended: Callable[[EndedPeriod], None] = lambda _: None,
) -> Tail:  # fmt: skip
    """Apply the events of a frame that are new and within the bounds; give the tail after them.

    `on_ended` gets each period that ended; nobody else will have it.
    """
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
    for ended in scoreboard.take_ended():
        on_ended(ended)
    checksum = frame.checksum
    if len(within) < frame.count:
        checksum = unpack_header(pack_frame(within, epoch=frame.epoch, previous=frame.previous)).checksum
    return Tail(reader.log_id, frame.epoch, within[-1].seq, checksum)


class Meter:
    """Shows the progress of a reading, about once for PROGRESS_BYTES."""

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
        assert reader.cursor is not None
        self._events += events
        # A compressed segment unpacks to more bytes than it has on disk, so the count is capped.
        done = self._before[reader.segment.first_seq] + min(reader.cursor.offset, reader.segment.bytes)
        if done >= self._next:
            self._next = done + PROGRESS_BYTES
            self._progress(Progress("log", self._events, done, self._total))
