"""The ledger: every event that concerns a user, the newest first, read from the log.

    ledger = Ledger(disk, log)
    for epoch, event in ledger.events_of("alice", before_seq=4711): …
    for frame in ledger.frames_of({"alice"}, from_seq=1, until_seq=4711): …          the oldest first

Theory: a sealed segment has an index (`engine.user_index`), which leads to the frames. The live one has none, so that a
write costs nothing more: its bytes are searched for the bytes of the id, from the end on. msgpack keeps the bytes of a
string, so nothing is missed. A sealed segment whose index is missing or damaged is searched like the live one.

Rules:
- What is given is durable, and proved by the checksum of its frame. Whoever needs the whole chain proved reads the log.
- Only what is asked for is read: a caller that stops after twenty events costs the search for twenty.
- Any thread may read, also while the log is written, compressed, and removed. Events whose segment is removed meanwhile
  are missing, as those are that were removed before: `oldest_seq` says from which seq on the answer is complete.
- Nothing is written here. `make_missing` makes indexes at a checkpoint.
- The heads of the indexes that were read are kept: a segment in which a user has nothing costs one read. A head that
  fits no more, because the log was rewritten, shows by a wrong checksum, and is dropped.
- Event times are those that the events carry. A later correction of the clock may say that they were wrong.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from engine.concerned import users_of
from engine.disk import Disk, FileMissing
from engine.errors import LogDamaged
from engine.events import Event
from engine.log import Log, SegmentInfo
from engine.record import FRAME_MAGIC, HEADER_BYTES, SEGMENT_HEADER_BYTES, Frame, FrameFault, events_of, unpack_frame
from engine.segment import SegmentFile, read_content
from engine.user_frames import frames_of
from engine.user_index import Heads, UserIndex

Entry = tuple[int, Event]
"""The epoch of the event's frame, and the event."""


class Ledger:
    """Reads the events of users from a log that this process owns."""

    def __init__(self, disk: Disk, log: Log) -> None:
        self._disk = disk
        self._log = log
        self._heads: Heads = {}

    @property
    def oldest_seq(self) -> int:
        """The first seq that the log still has."""
        return self._log.segments()[0].first_seq

    def events_of(self, user_id: str, *, before_seq: int | None = None, from_seq: int = 1) -> Iterator[Entry]:
        """Give the events that concern a user, the newest first, those with `from_seq` ≤ seq < `before_seq`.

        Raises `LogDamaged` if a segment can't be read.
        """
        # The tail first: the segments that are listed after it hold at least as much.
        last = self._log.tail.seq
        until = last if before_seq is None else min(last, before_seq - 1)
        segments = self._log.segments()
        if len(self._heads) > len(segments):
            self._heads = {}  # of segments that were removed or compressed since
        for info in reversed(segments):
            if info.first_seq > until:
                continue
            if info.last_seq < from_seq:
                return
            try:
                for frame in self._frames(info, user_id):
                    for event in reversed(events_of(frame)):
                        if from_seq <= event.seq <= until and user_id in users_of(event):
                            yield frame.epoch, event
            except FrameFault as fault:
                remedy = "`scoreboard log verify` says more."
                raise LogDamaged(fault.reason, path=info.path, remedy=remedy) from fault

    def frames_of(self, users: Collection[str], *, from_seq: int, until_seq: int) -> Iterator[Frame]:
        """Give the frames that may concern users, the oldest first (`engine.user_frames`).

        Raises `LogDamaged`, and `NoLongerKept` if a segment is removed meanwhile.
        """

        def read(first: int, _last: int) -> Iterator[Frame]:
            return self._log.read_from(first)

        return frames_of(self._disk, self._log.segments(), users, read, from_seq=from_seq, until_seq=until_seq)

    def _frames(self, info: SegmentInfo, user_id: str) -> Iterator[Frame]:
        """Give the frames of a segment that may concern a user, the newest first."""
        below = info.last_seq + 1
        index = UserIndex.open(self._disk, info, self._heads) if info.sealed else None
        if index is not None:
            try:
                for offset in reversed(index.places(user_id)):
                    frame = unpack_frame(index.frame(offset))
                    below = frame.first_seq
                    yield frame
            except FrameFault:
                self._heads.pop(info.path, None)  # the segment itself is read: if it is whole, nothing is missing
            else:
                return
            finally:
                index.close()
        for frame in self._searched(info, user_id):
            if frame.first_seq < below:
                yield frame

    def _searched(self, info: SegmentInfo, user_id: str) -> Iterator[Frame]:
        file = SegmentFile(info.path, info.first_seq, info.compressed, info.bytes)
        try:
            content = read_content(self._disk, file)
        except FileMissing:
            return  # it was removed for its age
        yield from frames_with(content, user_id.encode())


def frames_with(content: bytes, needle: bytes) -> Iterator[Frame]:
    """Give the frames of a segment whose bytes have a needle, the last one first."""
    end = len(content)
    while (hit := content.rfind(needle, SEGMENT_HEADER_BYTES, end)) >= 0:
        end = hit + len(needle) - 1
        place = content.rfind(FRAME_MAGIC, SEGMENT_HEADER_BYTES, hit)
        while place >= 0:
            try:
                frame = unpack_frame(content, place)
            except FrameFault:
                # A text that looks like the beginning of a frame, or the frame in flight.
                place = content.rfind(FRAME_MAGIC, SEGMENT_HEADER_BYTES, place + len(FRAME_MAGIC) - 1)
                continue
            if hit < place + HEADER_BYTES + len(frame.body):
                yield frame
                end = place
            break
