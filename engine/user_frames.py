"""The frames that may concern some users, the oldest first: found by the indexes, else by reading.

    for frame in scan_of(disk, directory, {"alice"}): …                      a log that another process may own
    for frame in frames_of(disk, log.segments(), {"alice"}, read): …         `read(first, last)` reads the log

Theory: a sealed segment has an index (`engine.user_index`), which leads to the frames of a user. All other segments are
read as a whole: the live one, and those whose index is missing or damaged. Of what is read, a frame is given if its
bytes have the bytes of a userId: msgpack keeps them, so nothing is missed. The newest first is `engine.ledger`'s way.

Rules:
- Frames are given in the order of the log, each once. A frame may hold events of others, and may concern nobody who was
  asked for: the caller looks at the events.
- What an index leads to is proved by the checksum of its frame. What is read is proved as `engine.log_reader` does. So
  damage in a segment is not seen if its index is whole and leads past it.
- For more than USERS_SOUGHT users everything is read and given: that is quicker than to look for each.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

from engine.disk import Disk
from engine.errors import NoLongerKept
from engine.limits import SEQ_MAX
from engine.log_facts import SegmentInfo
from engine.log_reader import scan
from engine.record import Frame, FrameFault, unpack_frame
from engine.segment import list_segments
from engine.user_index import UserIndex

USERS_SOUGHT = 50
"""Up to this number of users are sought. Each costs a search in every index, and in the bytes of every other frame."""

Read = Callable[[int, int], Iterator[Frame]]
"""(first seq, last seq) → the frames that hold the events between them."""


def scan_of(
    disk: Disk, directory: str, users: Collection[str], *, from_seq: int | None = None, until_seq: int | None = None
) -> Iterator[Frame]:
    """Read what may concern users from a log that another process may own. Raises as `engine.log_reader.scan`."""

    def read(first: int, last: int) -> Iterator[Frame]:
        return scan(disk, directory, from_seq=first, until_seq=None if last == SEQ_MAX else last)

    files = list_segments(disk, directory).segments
    if not files:
        return scan(disk, directory)
    oldest = files[0].first_seq
    if from_seq is not None and from_seq < oldest:
        raise NoLongerKept(from_seq, oldest)
    lasts = [*(file.first_seq - 1 for file in files[1:]), SEQ_MAX]
    segments = [
        SegmentInfo(file.path, file.first_seq, last, file is not files[-1], file.compressed, file.bytes)
        for file, last in zip(files, lasts, strict=True)
    ]
    return frames_of(disk, segments, users, read, from_seq=from_seq or oldest, until_seq=until_seq or SEQ_MAX)


def frames_of(
    disk: Disk, segments: Sequence[SegmentInfo], users: Collection[str], read: Read, *, from_seq: int, until_seq: int
) -> Iterator[Frame]:
    """Give the frames with events from `from_seq` up to `until_seq` that may concern users.

    Raises what `read` raises.
    """
    unread: int | None = None  # from here on the segments have no index
    for info in segments:
        if info.last_seq < from_seq or info.first_seq > until_seq:
            continue
        index = UserIndex.open(disk, info) if info.sealed and len(users) <= USERS_SOUGHT else None
        if index is None:
            unread = max(from_seq, info.first_seq) if unread is None else unread
            continue
        try:
            if unread is not None:
                yield from _searched(read, unread, info.first_seq - 1, users)
            unread = max(from_seq, info.first_seq)
            for offset in sorted({place for user_id in users for place in index.places(user_id)}):
                frame = unpack_frame(index.frame(offset))
                if frame.first_seq > min(info.last_seq, until_seq):
                    break
                if frame.last_seq >= unread:
                    yield frame
                    unread = frame.last_seq + 1
            unread = None
        except FrameFault:
            pass  # the rest of the segment itself is read instead: if it is whole, nothing is missing
        finally:
            index.close()
    if unread is not None:
        yield from _searched(read, unread, until_seq, users)


def _searched(read: Read, first: int, last: int, users: Collection[str]) -> Iterator[Frame]:
    """Read frames, and give those that may concern the users."""
    needles = [user_id.encode() for user_id in users] if len(users) <= USERS_SOUGHT else [b""]
    for frame in read(first, last):
        if any(needle in frame.body for needle in needles):
            yield frame
        if frame.last_seq >= last:
            return
