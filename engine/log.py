"""The write-ahead log: an event happened if and only if it is in the log. One process appends to segments on disk.

    log = Log.open(disk, directory, after=tail, apply=apply, tell=tell)
    synced = log.append(events, epoch)
    for frame in log.read_from(seq): ...

Invariants:
- `tail` is durable: every event up to `tail.seq` is synced, and every later opening of the log gives it.
- Seqs run from the first segment's first seq to `tail.seq` without a gap. Each frame's checksum covers the one before.
- The last segment has zeros after its last frame. All segments before it are sealed: nothing is written to them.
- An append is one write and one fdatasync, into space that was laid out before. If a frame does not fit, the segment is
  sealed, and a new one appears whole before the frame is written.
- A segment that does not fit on the disk (`DiskFull`) is no failed append: nothing of the frame was written, all is as
  before. The log is `full` then: what fits into the live segment is taken, the rest is refused without an attempt.
  The writer calls `make_room` now and then, which lays out the segment and so ends it (`engine.room`).
- A failed append is final. What is on disk is unknown then, and a second fdatasync may succeed although the kernel has
  dropped the pages. So every later append raises too, and the process must end. Only `Log.open` finds out.

Rules:
- `Log.open` reads and judges first (`engine.recovery`), then repairs. A refused log is not changed.
- Opening writes the last frame again before it syncs. If a sync failed before, the kernel may hold pages as clean that
  never reached the disk, and a sync alone would skip them.
- One thread at a time appends, and one compresses, replaces or removes (`engine.log_segments`). Any number read.
- `seal` is the one change of the live segment that another thread may ask for. It takes turns with appends.
- Compressing, replacing, removing, `restart` and writing a snapshot hold `upkeep`, from the first look at the files to
  the last change. Otherwise a file of the old history could get into the new one.
- Before a segment is begun, compressed or removed, the path of the last one must still lead to the open file, uncut.
  Otherwise these files are not ours. Appends don't look: a watch calls `check_place`, and `give_up` if that fails.

The log does not know Trio, commands or boards. `engine.record` has its bytes, `engine.segment` its files.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from time import perf_counter

from engine.disk import Disk, File
from engine.errors import DiskFault, DiskFull, LostPlace, WriteFailed
from engine.events import Event
from engine.limits import SEGMENT_BYTES
from engine.log_facts import LogStatistics, SegmentInfo, Synced
from engine.log_reader import LogReader
from engine.log_segments import LogSegments
from engine.record import (
    SEGMENT_HEADER_BYTES,
    Frame,
    Header,
    ProvedFrame,
    SegmentHeader,
    Tail,
    chain_start,
    pack_frame,
    unpack_header,
)
from engine.recovery import Finding, Situation, misfit, refusal
from engine.replay import replay, settle_end, tidy
from engine.room import Room
from engine.segment import SegmentFile, check_segment, create_segment, list_segments

__all__ = ["Finding", "Log", "LogStatistics", "SegmentInfo", "Synced", "Tail"]


class Log(LogSegments):
    """A log that this process owns, made by `create` or `open`. The caller holds the lock of the data directory."""

    def __init__(
        self,
        disk: Disk,
        directory: str,
        tail: Tail,
        segments: list[SegmentFile],
        file: File,
        end: int,
        segment_bytes: int,
    ) -> None:
        super().__init__(disk, directory, tail, segments)
        self._file = file
        self._end = end
        self._segment_bytes = segment_bytes
        self._room = Room(disk, directory, segment_bytes)
        self._in_doubt = False
        self._failure: WriteFailed | None = None
        self._restarting = False
        self._writing = threading.Lock()
        self._appends = 0
        self._records = 0

    @classmethod
    def create(
        cls, disk: Disk, directory: str, *, log_id: bytes, tail: Tail | None = None, segment_bytes: int = SEGMENT_BYTES
    ) -> Log:
        """Make a new log in a directory without one. It is empty, or goes on from `tail`."""
        if tail is None:
            tail = Tail(log_id=log_id, epoch=1, seq=0, checksum=chain_start(log_id))
        assert tail.log_id == log_id
        disk.make_directory(directory)
        listing = list_segments(disk, directory)
        if listing.segments:
            raise DiskFault("there is a log here already", path=listing.segments[0].path)
        for path in listing.unfinished:
            disk.remove(path)
        header = SegmentHeader(log_id, tail.seq + 1, tail.epoch, tail.checksum, before=0)
        file = create_segment(disk, directory, header, segment_bytes)
        segment = SegmentFile(file.path, header.first_seq, False, segment_bytes)
        return cls(disk, directory, tail, [segment], file, SEGMENT_HEADER_BYTES, segment_bytes)

    @classmethod
    def open(
        cls,
        disk: Disk,
        directory: str,
        *,
        after: Tail | None,
        apply: Callable[[Frame], None],
        tell: Callable[[Finding], None],
        progress: Callable[[int, int], None] | None = None,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> Log:
        """Recover a log and open it for writing. Raises `LogDamaged`, with nothing changed (`engine.recovery`).

        Every frame after `after` (None: every frame) is proved and given to `apply`, in order. Repairs are told, and
        `progress` gets (bytes done, bytes in all). Of segments that end before `after` only names and headers are read.
        """
        listing = list_segments(disk, directory)
        if not listing.segments:
            good = 0 if after is None else after.seq
            raise refusal(Situation.LOG_GONE, directory=directory, path=directory, good=good)
        log_id, covered = (None, 0) if after is None else (after.log_id, after.seq)
        reading = LogReader(disk, directory, listing.segments, log_id=log_id, covered=covered)
        reading.check_headers()
        cursor = replay(reading, listing.segments, after=after, apply=apply, progress=progress)
        assert reading.log_id is not None
        tail = Tail(log_id=reading.log_id, epoch=cursor.epoch, seq=cursor.seq, checksum=cursor.checksum)
        tidy(disk, directory, listing, tell)
        segments = listing.segments
        if segments[-1].compressed:
            header = SegmentHeader(tail.log_id, tail.seq + 1, tail.epoch, tail.checksum, segments[-1].first_seq)
            file = create_segment(disk, directory, header, segment_bytes)
            segments.append(SegmentFile(file.path, header.first_seq, False, segment_bytes))
            return cls(disk, directory, tail, segments, file, SEGMENT_HEADER_BYTES, segment_bytes)
        file = settle_end(disk, segments[-1].path, cursor, segment_bytes, tell)
        return cls(disk, directory, tail, segments, file, cursor.offset, segment_bytes)

    def append(self, events: Sequence[Event], epoch: int) -> Synced:
        """Make events durable as one frame, all or none. They follow `tail` and have one time.

        Raises `WriteFailed` if the disk failed, and from then on always; whether they are on disk is unknown. With
        nothing written, raises `DiskFull`, and ValueError if they are too many or too long for a frame.
        """
        assert events[0].seq == self.tail.seq + 1
        assert epoch >= self.tail.epoch
        return self.append_frame(self.tail.seq, pack_frame(events, epoch=epoch, previous=self.tail.checksum))

    def append_frame(self, expected_seq: int, data: bytes) -> Synced:
        """Make a frame of ours durable, all or nothing. It was packed to follow `tail`, which is at `expected_seq`.

        Raises `LostPlace` if the log ends elsewhere, `WriteFailed` and `DiskFull` as `append`.
        """
        header = unpack_header(data)
        self._check_certain(header.first_seq)
        if expected_seq != self.tail.seq:
            raise LostPlace(f"the log ends at seq {self.tail.seq}, not at {expected_seq}")
        assert header.first_seq == expected_seq + 1
        assert header.previous == self.tail.checksum
        return self._write(data, header)

    def reserve(self, length: int) -> None:
        """Lay out the space for a frame of this length, so that its append can't find the disk full.

        Raises `DiskFull` with nothing changed, `WriteFailed`.
        """
        with self._writing:
            self._check_certain(self.tail.seq + 1)
            if self._end + length > self._segment_bytes and self._end > SEGMENT_HEADER_BYTES:
                if self.full is not None:
                    raise self.full.again()
                self._seal_now()

    def append_frames(self, frames: Sequence[ProvedFrame]) -> list[Synced]:
        """Make frames of another node durable, byte for byte; give what `append` gives for each. They follow `tail`.

        Each is synced before the next is written. One sync for all would be cheaper, but a crash could then leave a
        later frame whole and an earlier one not. To recovery that is damage, and it would refuse the log.

        Raises ValueError for the first frame that does not follow. The ones before it are durable then, and nothing of
        it is written. Raises `WriteFailed` and `DiskFull`, as `append`. If the disk is full after some of the frames,
        gives what it has for those; the caller applies them and tries the others later.
        """
        synced = []
        for proved in frames:
            frame = proved.frame
            self._check_certain(frame.first_seq)
            if misfit(frame, self.tail.seq, self.tail.checksum, self.tail.epoch) is not None:
                raise ValueError(f"the frame of seq {frame.first_seq} does not follow seq {self.tail.seq}")
            try:
                synced.append(self._write(proved.data, frame))
            except DiskFull:
                if not synced:
                    raise
                break
        return synced

    def _check_certain(self, seq: int) -> None:
        if self._in_doubt or self._failure is not None:
            raise self._failure or self._final("an append was cut short, and what it wrote is not known", seq)

    def _write(self, data: bytes, header: Header | Frame) -> Synced:
        """Write a frame that follows `tail`, and sync it."""
        with self._writing:
            return self._write_now(data, header)

    def _write_now(self, data: bytes, header: Header | Frame) -> Synced:
        self._in_doubt = True
        try:
            if self._end + len(data) > self._segment_bytes and self._end > SEGMENT_HEADER_BYTES:
                if self.full is not None:
                    raise self.full.again()
                self._begin_segment()
            begun = perf_counter()
            self._file.write_at(self._end, data)
            self._file.sync()
            seconds = perf_counter() - begun
        except DiskFull:
            self._in_doubt = False
            raise
        except DiskFault as fault:
            offset = self._end if fault.offset is None and fault.path == self._file.path else fault.offset
            seq = header.first_seq
            self._failure = self._final(fault.what, seq, path=fault.path, offset=offset, remedy=fault.remedy)
            raise self._failure from fault
        if self._failure is not None:
            raise self._failure  # given up while it was written
        self._end += len(data)
        self.tail = Tail(self.tail.log_id, header.epoch, header.last_seq, header.checksum)
        self._appends += 1
        self._records += header.count
        self._in_doubt = False
        return Synced(len(data), seconds, data)

    def _final(
        self, what: str, seq: int, *, path: str | None = None, offset: int | None = None, remedy: str = ""
    ) -> WriteFailed:
        """Make the error that every append raises from now on."""
        remedy = f"{remedy} The log takes no more until it is opened again.".strip()
        return WriteFailed(what, path=path or self._file.path, offset=offset, seq=seq, remedy=remedy)

    def _begin_segment(self) -> None:
        """Seal the last segment, whose frames are all synced, and begin the next one. Raises `DiskFull`."""
        check_segment(self._file, self._segment_bytes)
        tail, before = self.tail, self._segments[-1].first_seq
        header = SegmentHeader(tail.log_id, tail.seq + 1, tail.epoch, tail.checksum, before)
        file = self._room.lay_out(header)
        old, self._file, self._end = self._file, file, SEGMENT_HEADER_BYTES
        with self._segments_lock:
            self._segments.append(SegmentFile(file.path, header.first_seq, False, self._segment_bytes))
        old.close()

    @property
    def full(self) -> DiskFull | None:
        """Why the log is full; None if it is not."""
        return self._room.full

    def make_room(self) -> None:
        """Begin the next segment if the log is full. Raises `DiskFull` if it still is, `WriteFailed`."""
        with self._writing:
            self._check_certain(self.tail.seq + 1)
            if self.full is not None:
                # If the live segment is empty, only a new log wanted another.
                self._begin_segment() if self._end > SEGMENT_HEADER_BYTES else self.check_restart()

    def seal(self) -> None:
        """Seal the live segment and begin the next one, unless it has no frame. May be called from any thread.

        Raises `DiskFull` with nothing changed. Any other fault is final, as that of an append.
        """
        with self._writing:
            self._check_certain(self.tail.seq + 1)
            if self._end > SEGMENT_HEADER_BYTES:
                self._seal_now()

    def _seal_now(self) -> None:
        try:
            self._begin_segment()
        except DiskFull:
            raise
        except DiskFault as fault:
            self._failure = self._final(fault.what, self.tail.seq + 1, path=fault.path, remedy=fault.remedy)
            raise self._failure from fault

    def check_room(self, length: int) -> None:
        """Check that there is room for a frame of this length, or for the segment that it needs. Raises `DiskFull`."""
        if self._end + length > self._segment_bytes:
            self._room.check(self.tail.seq + 1)

    def check_restart(self) -> None:
        """Check that there is room for a new log. Raises `DiskFull`; then the log is full until there is."""
        self._room.check_anew(self.tail.seq + 1)

    def check_place(self) -> None:
        """Check that the path of the last segment leads to the open file, and that nobody cut it (`check_segment`).

        May be called from any thread. Raises `PlaceLost`; `DiskFault` if that can't be known.
        """
        while not self._restarting:
            file = self._file
            try:
                check_segment(file, self._segment_bytes)
            except DiskFault:
                # Another thread may have sealed and compressed this segment, or begun the log anew.
                if file is self._file and not self._restarting:
                    raise
            else:
                return

    def give_up(self, fault: DiskFault) -> None:
        """Append nothing more: this log is no longer ours to write. May be called while another thread appends."""
        self._failure = self._final(fault.what, self.tail.seq + 1, path=fault.path, remedy=fault.remedy)

    def restart(self, tail: Tail, aside: str, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Begin a new log after `tail`, which is further on and has a snapshot. For a replica that fell too far behind.

        The old directory is renamed to `aside`, which must not exist. Then `meanwhile` is called, before the new log is
        made. A crash may leave no log here, but never half a log. The caller holds `upkeep`, and no thread may append.
        """
        assert tail.log_id == self.tail.log_id
        assert tail.seq > self.tail.seq
        self.check_place()
        self._in_doubt = self._restarting = True
        self._file.close()
        self._disk.rename(self._directory, aside)
        self._disk.sync_directory(aside.rpartition("/")[0] or ".")
        self._disk.make_directory(self._directory)
        meanwhile()
        header = SegmentHeader(tail.log_id, tail.seq + 1, tail.epoch, tail.checksum, before=0)
        file = self._room.lay_out(header)
        with self._segments_lock:
            self._segments = [SegmentFile(file.path, header.first_seq, False, self._segment_bytes)]
        self._file, self._end, self.tail = file, SEGMENT_HEADER_BYTES, tail
        self._in_doubt = self._restarting = False

    def statistics(self) -> LogStatistics:
        files = self._listed()
        taken = sum(file.bytes for file in files)
        return LogStatistics(len(files), taken, self._appends, self._records, files[0].first_seq, self.tail.seq)

    def close(self) -> None:
        """Close the file. Everything that was appended is durable already."""
        self._in_doubt = True
        self._file.close()
