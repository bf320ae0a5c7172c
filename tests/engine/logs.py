"""What the tests of the log share: events to write, logs to damage, and a way to open them and see what came of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from engine.disk import Disk, RealDisk
from engine.events import Event, Incremented
from engine.log import Finding, Log, Tail
from engine.record import (
    HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    Frame,
    SegmentHeader,
    chain_start,
    events_of,
    pack_frame,
    pack_segment_header,
    unpack_frame,
    unpack_header,
)

LOG_ID = bytes(range(1, 17))
OTHER_LOG_ID = bytes(range(101, 117))
SEGMENT_BYTES = 2200
"""Small segments: seven frames of four events in each."""


def segment_of(frames: Iterable[Sequence[Event]], log_id: bytes) -> bytes:
    """Pack the first segment of a log, without the zeros at its end: golden files are such segments."""
    previous = chain_start(log_id)
    data = pack_segment_header(SegmentHeader(log_id, 1, 1, previous, 0))
    for events in frames:
        frame = pack_frame(events, epoch=1, previous=previous)
        previous = unpack_header(frame).checksum
        data += frame
    return data


def frames_of_segment(data: bytes) -> list[Frame]:
    """Read such a segment to its end."""
    frames, offset = list[Frame](), SEGMENT_HEADER_BYTES
    while offset < len(data):
        frames.append(unpack_frame(data, offset))
        offset += HEADER_BYTES + len(frames[-1].body)
    return frames


def increments(first_seq: int, count: int, time_ms: int = 1_700_000_000_000, user: str = "user") -> list[Event]:
    """Make `count` events of one time that run on from `first_seq`."""
    return [
        Incremented(
            seq=seq,
            time_ms=time_ms,
            board_id="main",
            user_id=f"{user}-{seq % 7}",
            action_id=f"action-{seq:08d}",
            delta=10,
            reason="ACTION_COMPLETED",
            caller="backend",
            new_score=10 * seq + 1,
        )
        for seq in range(first_seq, first_seq + count)
    ]


def append(log: Log, frames: int, *, per_frame: int = 4, user: str = "user") -> None:
    """Append so many frames to a log."""
    for _ in range(frames):
        seq = log.tail.seq + 1
        log.append(increments(seq, per_frame, 1_700_000_000_000 + seq, user), log.tail.epoch)


def make_log(
    directory: Path, frames: int, *, log_id: bytes = LOG_ID, user: str = "user", per_frame: int = 4
) -> list[Path]:
    """Make a log of so many frames of four events, close it, and give its segments."""
    log = Log.create(RealDisk(), str(directory), log_id=log_id, segment_bytes=SEGMENT_BYTES)
    append(log, frames, user=user, per_frame=per_frame)
    log.close()
    return sorted(directory.iterdir())


def frames_in(path: Path) -> list[tuple[int, int, Frame]]:
    """List (begin, end, frame) of the frames in a plain segment."""
    data = path.read_bytes()
    found, offset = [], SEGMENT_HEADER_BYTES
    while data[offset : offset + 4] == b"frm1":
        frame = unpack_frame(data, offset)
        end = offset + HEADER_BYTES + len(frame.body)
        found.append((offset, end, frame))
        offset = end
    return found


def overwrite(path: Path, offset: int, data: bytes) -> None:
    """Write over a part of a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def flip(path: Path, offset: int) -> None:
    """Flip one bit of a file."""
    overwrite(path, offset, bytes([path.read_bytes()[offset] ^ 0x10]))


class Opened:
    """A log that was opened: what was replayed, what was told."""

    def __init__(self, directory: Path, *, after: Tail | None = None, disk: Disk | None = None) -> None:
        self.events: list[Event] = []
        self.findings: list[Finding] = []
        self.progress: list[tuple[int, int]] = []
        self.log = Log.open(
            disk or RealDisk(),
            str(directory),
            after=after,
            apply=lambda frame: self.events.extend(events_of(frame)),
            tell=self.findings.append,
            progress=lambda done, total: self.progress.append((done, total)),
            segment_bytes=SEGMENT_BYTES,
        )

    @property
    def seqs(self) -> list[int]:
        """The seqs that were replayed."""
        return [event.seq for event in self.events]


def tail_after(frames: Sequence[Frame], seq: int, log_id: bytes = LOG_ID) -> Tail:
    """Give the tail as it was after `seq`, the last event of one of these frames."""
    frame = next(frame for frame in frames if frame.last_seq == seq)
    return Tail(log_id=log_id, epoch=frame.epoch, seq=seq, checksum=frame.checksum)
