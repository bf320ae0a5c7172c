"""The write-ahead log: what is in it happened, what is not did not. Segments on disk, appended to by one process.

Invariants:
- `tail` is durable: each event up to `tail.seq` is on disk, synced, and is given by every later opening of the log.
- seqs run from the first segment's first one to `tail.seq` without a gap; each frame's checksum covers the one before.
- Beyond the last frame the segment that is written to holds zeros up to its end; all segments before it are sealed.
- An append is one write and one fdatasync, into space that was laid out before. Where a frame does not fit, the segment
  is sealed (nothing is written to it any more) and a new one appears whole before the frame is written.
- A failed append is final. What is on disk is not known then, and the kernel may say yes to a second fdatasync although
  the pages are gone; so every later append raises as well, and the process is to end. Only `Log.open` finds out.

Rules:
- `Log.open` first reads and judges (`engine.recovery`), then changes; a log that is refused is left as it was.
- Opening writes the last frame once more before it syncs. A process may have died between write and sync, or because a
  sync failed: then the kernel may hold pages as clean that never reached the disk, and a mere sync would skip them.
- One thread at a time appends, one (another, perhaps) compresses or removes; any number read. Readers take the list
  of segments as it was, and find a file that was compressed meanwhile under its new name.
- Who compresses, removes or begins anew (`restart`) holds `upkeep`, from the look at what there is until all is done;
  so does who writes a snapshot beside the log. Otherwise a file of the old history could come to lie in the new one.
- Segments go only from the oldest on, and the one written to never goes: so no gap can come about by retention.

The log knows nothing of Trio, of commands or of boards; `engine.record` has its bytes, `engine.segment` its files.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from time import perf_counter

import msgspec

from engine.disk import Disk, File
from engine.errors import DiskFault, NoLongerKept, WriteFailed
from engine.events import Event
from engine.limits import SEGMENT_BYTES
from engine.log_reader import LogReader
from engine.record import (
    SEGMENT_HEADER_BYTES,
    Frame,
    Header,
    ProvedFrame,
    SegmentHeader,
    Tail,
    chain_start,
    events_of,
    pack_frame,
    unpack_header,
)
from engine.recovery import Finding, Situation, misfit, refusal
from engine.replay import replay, settle_end, tidy
from engine.segment import GZ, SegmentFile, compress_segment, create_segment, list_segments

__all__ = ["Finding", "Log", "LogStatistics", "SegmentInfo", "Synced", "Tail"]


Bytes = bytes
"""`Synced` has a field of that name."""


class Synced(msgspec.Struct, frozen=True, gc=False):
    """How the disk took an append: bytes written, and seconds until they were durable. `frame` is what was written."""

    bytes: int
    seconds: float
    frame: Bytes = b""


class SegmentInfo(msgspec.Struct, frozen=True):
    """A segment of an open log. `bytes` is what it takes on disk; `sealed`: nothing is written to it any more."""

    path: str
    first_seq: int
    last_seq: int
    sealed: bool
    compressed: bool
    bytes: int


class LogStatistics(msgspec.Struct, frozen=True):
    """`appends` and `records` are counted since the log was opened; `bytes` is what the segments take on disk."""

    segments: int
    bytes: int
    appends: int
    records: int
    first_seq: int
    last_seq: int


class Log:
    """A log that this process owns. Make one with `create` or `open`; the data directory's lock is the caller's."""

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
        self.tail = tail
        self.upkeep = threading.Lock()
        self._disk = disk
        self._directory = directory
        self._segments = segments
        self._segments_lock = threading.Lock()
        self._file = file
        self._end = end
        self._segment_bytes = segment_bytes
        self._in_doubt = False
        self._failure: WriteFailed | None = None
        self._appends = 0
        self._records = 0

    @classmethod
    def create(
        cls, disk: Disk, directory: str, *, log_id: bytes, tail: Tail | None = None, segment_bytes: int = SEGMENT_BYTES
    ) -> Log:
        """Make a new log in a directory that holds none: an empty one, or one that goes on from `tail`."""
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
        """Recover a log and open it for writing.

        Every frame after `after` (None: every frame) is proved and given to `apply`, in order; what was put right is
        told; `progress` gets (bytes done, bytes in all). Segments that end before `after` are not read, only their
        names and heads. Raises `LogDamaged` where the table of `engine.recovery` says so; nothing was changed then.
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

    @property
    def blocks(self) -> bool:
        """Whether `append` waits for a real disk, and belongs in a worker thread."""
        return self._disk.blocks

    def append(self, events: Sequence[Event], epoch: int) -> Synced:
        """Make events durable as one frame, all or none. They continue `tail`, and are of one time.

        Raises `WriteFailed` if the disk failed, and from then on always: whether they are on disk is not known. Raises
        ValueError, with nothing written, if they are too many or too long for a frame.
        """
        self._check_certain(events[0].seq)
        assert events[0].seq == self.tail.seq + 1
        assert epoch >= self.tail.epoch
        data = pack_frame(events, epoch=epoch, previous=self.tail.checksum)
        return self._write(data, unpack_header(data))

    def append_frames(self, frames: Sequence[ProvedFrame]) -> list[Synced]:
        """Make frames durable that another node wrote, byte for byte; they continue `tail`. Tells of each as `append`.

        Each is synced before the next is written, although one sync for all would be cheaper: recovery takes an end
        for torn only if nothing valid stands after it. Were several frames in flight, a crash could leave a later one
        whole and an earlier one not, which is what damage looks like, and the log would be refused.

        Raises ValueError for the first that does not follow; those before it are durable then, and nothing of it is
        written. Raises `WriteFailed` as `append` does.
        """
        synced = []
        for proved in frames:
            frame = proved.frame
            self._check_certain(frame.first_seq)
            if misfit(frame, self.tail.seq, self.tail.checksum, self.tail.epoch) is not None:
                raise ValueError(f"the frame of seq {frame.first_seq} does not follow seq {self.tail.seq}")
            synced.append(self._write(proved.data, frame))
        return synced

    def _check_certain(self, seq: int) -> None:
        if self._in_doubt:
            raise self._failure or self._final("an append was cut short, and what it wrote is not known", seq)

    def _write(self, data: bytes, header: Header | Frame) -> Synced:
        """Write a frame that follows on, and sync it."""
        self._in_doubt = True
        try:
            if self._end + len(data) > self._segment_bytes and self._end > SEGMENT_HEADER_BYTES:
                self._begin_segment()
            begun = perf_counter()
            self._file.write_at(self._end, data)
            self._file.sync()
            seconds = perf_counter() - begun
        except DiskFault as fault:
            offset = self._end if fault.offset is None and fault.path == self._file.path else fault.offset
            seq = header.first_seq
            self._failure = self._final(fault.what, seq, path=fault.path, offset=offset, remedy=fault.remedy)
            raise self._failure from fault
        self._end += len(data)
        self.tail = Tail(self.tail.log_id, header.epoch, header.last_seq, header.checksum)
        self._appends += 1
        self._records += header.count
        self._in_doubt = False
        return Synced(len(data), seconds, data)

    def _final(
        self, what: str, seq: int, *, path: str | None = None, offset: int | None = None, remedy: str = ""
    ) -> WriteFailed:
        """Make the error after which nothing is written any more."""
        remedy = f"{remedy} The log takes no more until it is opened again.".strip()
        return WriteFailed(what, path=path or self._file.path, offset=offset, seq=seq, remedy=remedy)

    def _begin_segment(self) -> None:
        """Seal the segment that is written to, by beginning the next one. What is in the old one is synced already."""
        tail = self.tail
        before = self._segments[-1].first_seq
        header = SegmentHeader(tail.log_id, tail.seq + 1, tail.epoch, tail.checksum, before)
        file = create_segment(self._disk, self._directory, header, self._segment_bytes)
        old, self._file, self._end = self._file, file, SEGMENT_HEADER_BYTES
        with self._segments_lock:
            self._segments.append(SegmentFile(file.path, header.first_seq, False, self._segment_bytes))
        old.close()

    def read_from(self, seq: int) -> Iterator[Frame]:
        """Give the frames from the one that holds `seq` up to what is durable now; none if `seq` is still to come.

        From any thread, at any time. Raises `NoLongerKept`; `LogDamaged` if what was written is no longer there.
        """
        assert seq >= 1
        # The tail first: the segments listed after it hold at least as much.
        until = self.tail.seq
        return self._reading(seq).frames(seq, until)

    def event_at(self, seq: int) -> tuple[Frame, Event]:
        """Read one event, with the frame that it is in. `seq` is at most `tail.seq`. Raises `NoLongerKept`."""
        assert 1 <= seq <= self.tail.seq
        frame = self._reading(seq).frame_with(seq)
        return frame, events_of(frame)[seq - frame.first_seq]

    def _reading(self, seq: int) -> LogReader:
        segments = self._listed()
        if seq < segments[0].first_seq:
            raise NoLongerKept(seq, segments[0].first_seq)
        return LogReader(self._disk, self._directory, segments, log_id=self.tail.log_id)

    def segments(self) -> list[SegmentInfo]:
        """List the segments, the oldest first. The last one is written to."""
        tail_seq = self.tail.seq
        files = self._listed()
        lasts = [file.first_seq - 1 for file in files[1:]] + [max(tail_seq, files[-1].first_seq - 1)]
        return [
            SegmentInfo(file.path, file.first_seq, last, file is not files[-1], file.compressed, file.bytes)
            for file, last in zip(files, lasts, strict=True)
        ]

    def last_time_ms(self, info: SegmentInfo) -> int:
        """Read the time of the last event of a segment that has one."""
        return self._reading(info.last_seq).frame_with(info.last_seq).time_ms

    def compress(self, info: SegmentInfo) -> SegmentInfo:
        """Put a sealed segment into its compressed form, after proving all of it; give what is there then.

        Raises `LogDamaged` if it does not verify: then it stays as it is.
        """
        files = self._listed()
        index = next((index for index, file in enumerate(files[:-1]) if file.first_seq == info.first_seq), None)
        if index is None:
            raise ValueError(f"{info.path} is not a sealed segment of this log")
        if files[index].compressed:
            return self.segments()[index]
        reading = LogReader(self._disk, self._directory, files, log_id=self.tail.log_id)
        for _ in reading.frames(info.first_seq, info.last_seq):
            pass
        cursor = reading.cursor
        assert cursor is not None
        compressed = compress_segment(self._disk, files[index], cursor.data[: cursor.offset])
        with self._segments_lock:
            self._segments[index] = compressed
        self._disk.remove(files[index].path)
        self._disk.sync_directory(self._directory)
        return self.segments()[index]

    def remove_before(self, first_seq_to_keep: int) -> list[SegmentInfo]:
        """Remove the oldest segments that hold nothing from `first_seq_to_keep` on; give those that went.

        What stays has no gap, whatever is asked for, and after a crash at any step: each removal is on disk before the
        next, also one of an earlier call that failed half way. The segment written to stays always.
        """
        removed: list[SegmentInfo] = []
        for info in self.segments()[:-1]:
            if info.last_seq >= first_seq_to_keep:
                break
            if not removed:
                self._disk.sync_directory(self._directory)
            with self._segments_lock:
                file = self._segments.pop(0)
            try:
                self._remove_forms(file)
            except DiskFault:
                with self._segments_lock:
                    self._segments.insert(0, file)
                raise
            self._disk.sync_directory(self._directory)
            removed.append(info)
        return removed

    def restart(self, tail: Tail, aside: str, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Go on after `tail`, a place further on, of which there is a snapshot: events in between are not here.

        For a replica that fell too far behind. The old directory is renamed to `aside`, which must not exist, and stays
        there; `meanwhile` is called when it is out of the way and the new log is not there yet. A crash may leave no
        log here, but never half a one. No other thread may append at the same time; `upkeep` is held by the caller.
        """
        assert tail.log_id == self.tail.log_id
        assert tail.seq > self.tail.seq
        self._in_doubt = True
        self._file.close()
        self._disk.rename(self._directory, aside)
        self._disk.sync_directory(aside.rpartition("/")[0] or ".")
        self._disk.make_directory(self._directory)
        meanwhile()
        header = SegmentHeader(tail.log_id, tail.seq + 1, tail.epoch, tail.checksum, before=0)
        file = create_segment(self._disk, self._directory, header, self._segment_bytes)
        with self._segments_lock:
            self._segments = [SegmentFile(file.path, header.first_seq, False, self._segment_bytes)]
        self._file, self._end, self.tail = file, SEGMENT_HEADER_BYTES, tail
        self._in_doubt = False

    def _remove_forms(self, file: SegmentFile) -> None:
        """Remove a segment in each form that is there: when it was compressed, the plain one may have refused to go."""
        other = file.path.removesuffix(GZ) if file.compressed else file.path + GZ
        if self._disk.exists(other):
            self._disk.remove(other)
        self._disk.remove(file.path)

    def statistics(self) -> LogStatistics:
        """Tell how much there is."""
        files = self._listed()
        return LogStatistics(
            segments=len(files),
            bytes=sum(file.bytes for file in files),
            appends=self._appends,
            records=self._records,
            first_seq=files[0].first_seq,
            last_seq=self.tail.seq,
        )

    def close(self) -> None:
        """Close the file. All that was appended is durable already."""
        self._in_doubt = True
        self._file.close()

    def _listed(self) -> list[SegmentFile]:
        with self._segments_lock:
            return list(self._segments)
