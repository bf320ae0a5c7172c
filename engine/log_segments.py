"""The segments of a log that is open: reading them, compressing, rewriting and removing sealed ones.

    log.read_from(seq), log.event_at(seq), log.segments()               from any thread
    log.compress(info), log.replace(info, content), log.remove_before(seq)      one thread, which holds `upkeep`

`engine.log` is the rest of the log: what appends to the last segment, seals it, and begins anew.

Rules:
- A reader keeps the list of segments that it began with, and finds a file that was compressed meanwhile under its new
  name. A segment that is replaced has the same frames by seq and checksum, so whoever reads on finds the chain whole.
- Nothing is written to a segment but the last one, and only sealed ones are changed here.
- The last segment never goes, and the others from the oldest on. So retention leaves no gap.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

from engine.disk import Disk
from engine.errors import DiskFault, NoLongerKept
from engine.events import Event
from engine.log_facts import SegmentInfo
from engine.log_reader import LogReader
from engine.record import Frame, Tail, events_of
from engine.segment import SegmentFile, compress_segment, remove_segment, replace_segment


class LogSegments(ABC):
    """The segments of an open log, the oldest first. The last one is written to. `tail` is the end of the log."""

    def __init__(self, disk: Disk, directory: str, tail: Tail, segments: list[SegmentFile]) -> None:
        self.tail = tail
        self.upkeep = threading.Lock()
        self.blocks = disk.blocks
        self._disk = disk
        self._directory = directory
        self._segments = segments
        self._segments_lock = threading.Lock()

    @abstractmethod
    def check_place(self) -> None:
        """Check that these files are still ours. Raises `PlaceLost`; `DiskFault` if that can't be known."""

    def read_from(self, seq: int) -> Iterator[Frame]:
        """Give the durable frames from the one that holds `seq` on; none if `seq` is not yet written.

        May be called from any thread. Raises `NoLongerKept`, and `LogDamaged` if a frame can't be read any more.
        """
        assert seq >= 1
        # The tail first: the segments listed after it hold at least as much.
        until = self.tail.seq
        return self._reading(seq).frames(seq, until)

    def event_at(self, seq: int) -> tuple[Frame, Event]:
        """Read one event and its frame. `seq` is at most `tail.seq`. Raises `NoLongerKept`."""
        assert 1 <= seq <= self.tail.seq
        frame = self._reading(seq).frame_with(seq)
        return frame, events_of(frame)[seq - frame.first_seq]

    def _reading(self, seq: int) -> LogReader:
        segments = self._listed()
        if seq < segments[0].first_seq:
            raise NoLongerKept(seq, segments[0].first_seq)
        return LogReader(self._disk, self._directory, segments, log_id=self.tail.log_id)

    def segments(self) -> list[SegmentInfo]:
        """List the segments, the oldest first."""
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
        """Prove a sealed segment and compress it; give it as it is then. Raises `LogDamaged`, with nothing changed."""
        files = self._listed()
        index = next((index for index, file in enumerate(files[:-1]) if file.first_seq == info.first_seq), None)
        if index is None:
            raise ValueError(f"{info.path} is not a sealed segment of this log")
        if files[index].compressed:
            return self.segments()[index]
        self.check_place()
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

    def replace(self, info: SegmentInfo, content: bytes) -> None:
        """Put another content of the same frames in the place of a sealed segment, durably (`engine.rewriting`).

        Readers that have the file open go on with the old one. The caller holds `upkeep`.
        """
        files = self._listed()
        index = next((index for index, file in enumerate(files[:-1]) if file.first_seq == info.first_seq), None)
        if index is None:
            raise ValueError(f"{info.path} is not a sealed segment of this log")
        self.check_place()
        replaced = replace_segment(self._disk, files[index], content)
        with self._segments_lock:
            self._segments[index] = replaced

    def remove_before(
        self, first_seq_to_keep: int, tell: Callable[[SegmentInfo], None] = lambda _: None
    ) -> list[SegmentInfo]:
        """Remove the oldest segments, which have only events before `first_seq_to_keep`; give the removed ones.

        `tell` gets each of them when its removal is durable. The rest never has a gap, even after a crash: each removal
        is synced before the next one, also a removal of an earlier call that failed. The last segment always stays.
        """
        removed: list[SegmentInfo] = []
        for info in self.segments()[:-1]:
            if info.last_seq >= first_seq_to_keep:
                break
            self.check_place()
            if not removed:
                self._disk.sync_directory(self._directory)
            with self._segments_lock:
                file = self._segments.pop(0)
            try:
                remove_segment(self._disk, file)
            except DiskFault:
                with self._segments_lock:
                    self._segments.insert(0, file)
                raise
            self._disk.sync_directory(self._directory)
            removed.append(info)
            tell(info)
        return removed

    def _listed(self) -> list[SegmentFile]:
        with self._segments_lock:
            return list(self._segments)
