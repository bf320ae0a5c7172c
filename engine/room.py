"""The room for the next segment: the one place that knows whether the disk is full, on a leader and on a replica.

    file = room.lay_out(header)                  raises `DiskFull`: then `room.full` is that error
    room.full                                    None: the last segment that was wanted was laid out

Rule: the disk is full from the segment that did not fit to the next one that was laid out. Only that proves that there
is room. A frame that still fits into the live segment proves nothing, because its space was laid out before. And the
free bytes that the system tells say nothing of a quota.
"""

from __future__ import annotations

from engine.disk import Disk, File
from engine.errors import DiskFull
from engine.record import SegmentHeader
from engine.segment import ROOM, create_segment


class Room:
    """The room in the directory of one log. `full` may be read from any thread."""

    def __init__(self, disk: Disk, directory: str, segment_bytes: int) -> None:
        self.full: DiskFull | None = None
        self._disk = disk
        self._directory = directory
        self._segment_bytes = segment_bytes

    def lay_out(self, header: SegmentHeader) -> File:
        """Create the next segment, as `create_segment`. Raises `DiskFull`, with nothing changed."""
        try:
            file = create_segment(self._disk, self._directory, header, self._segment_bytes)
        except DiskFull as full:
            self.full = full.again()
            raise
        self.full = None
        return file

    def check(self, seq: int) -> None:
        """Check that the free bytes allow a segment that begins with `seq`. Raises `DiskFull`, which is not noted."""
        free = self._disk.free_bytes(self._directory)
        if free < self._segment_bytes:
            what = f"the next segment of {self._segment_bytes} bytes does not fit on the disk, which has {free} left"
            raise DiskFull(what, path=self._directory, seq=seq, remedy=ROOM)

    def check_anew(self, seq: int) -> None:
        """Check the same for a log that begins anew, which can't go on before. So its `DiskFull` is noted.

        Here the free bytes end it too: the old log may go on after all, and need no segment for long.
        """
        try:
            self.check(seq)
        except DiskFull as full:
            self.full = full.again()
            raise
        self.full = None
