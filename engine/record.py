"""Frames and segment headers ⇄ bytes: the log on disk, format version 1. All integers are little endian.

    data = pack_frame(events, epoch=epoch, previous=checksum)
    frame = unpack_frame(data, offset); events = events_of(frame)

    segment  = header  frame*  zeros up to the end of the file
    frame    = header  body            1 to FRAME_RECORDS_MAX events of one time, made durable by one fdatasync

    segment header, 64 bytes                           frame header, 48 bytes
       0   8s  magic "scorelog"                           0   4s  magic "frm1"
       8  u32  version = 1                                4  u32  checksum: CRC32C over bytes 8 .. end of the body
      12  u32  CRC32C over bytes 0..11 and 16..63         8  u32  length of the body, 1 .. FRAME_BYTES_MAX
      16  16s  log id                                    12  u32  previous: the checksum of the frame before this one
      32  u64  seq of the first event in it              16  u64  epoch
      40  u64  epoch in which it was begun               24  u64  seq of the first event
      48  u32  previous: the checksum of the last        32  u64  time, ms since 1970-01-01 UTC
               frame before this segment                 40  u32  count of events
      52  u32  zero                                      44  u32  zero
      56  u64  seq of the first event of the segment
               before this one, 0 if this is the first

    body: `count` records (`engine.event_records`), one after the other; their seqs run on from the first one

Rules:
- Every checksum covers the one before it (`previous`), back to the log id, where the chain begins. So a frame proves
  its bytes and its place. A frame that was lost, doubled, moved or taken from another log is found.
- Zero is never valid, as a magic, a length, an epoch, a seq or a count. Space that was laid out but never written can't
  pass for a frame.
- A length is compared with its limit before anything of that length is read or allocated.
- Reading any bytes gives a value or raises `FrameFault`, nothing else.
- A record that can't be decoded was written by a newer version if the checksum is right. It is never skipped: a state
  that leaves out an event is wrong.
- The first 16 bytes of a segment header are the same in all versions, so a newer version can be recognised.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

import google_crc32c
import msgspec

from engine.errors import ScoreboardError
from engine.event_records import CORRECTION_HEAD, decode_events, encode_events
from engine.events import ClockCorrected, Event
from engine.limits import FRAME_BYTES_MAX, FRAME_RECORDS_MAX, SEQ_MAX

FRAME_MAGIC = b"frm1"
SEGMENT_MAGIC = b"scorelog"
VERSION = 1
HEADER_BYTES = 48
SEGMENT_HEADER_BYTES = 64
LOG_ID_BYTES = 16
LENGTH_OFFSET = 8
"""Offset of the length in a frame header."""

_FRAME = struct.Struct("<4sIIIQQQII")
_FRAME_COVERED = struct.Struct("<IIQQQII")
"""The part of a frame header that its checksum covers."""
_SEGMENT_HEAD = struct.Struct("<8sI")
_SEGMENT_REST = struct.Struct("<16sQQIIQ")
_WORD = struct.Struct("<I")

assert _FRAME.size == HEADER_BYTES
assert _FRAME_COVERED.size == HEADER_BYTES - 8
assert _SEGMENT_HEAD.size + _WORD.size + _SEGMENT_REST.size == SEGMENT_HEADER_BYTES


class FrameFault(ScoreboardError, ValueError):
    """Bytes that are no frame, record or segment header. `newer`: a later version may have written them."""

    def __init__(self, reason: str, *, newer: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.newer = newer


class Tail(msgspec.Struct, frozen=True):
    """A place between two frames: after the event `seq`, whose frame has `checksum`. Each snapshot has one.

    Before the first event `seq` is 0 and `checksum` is `chain_start(log_id)`.
    """

    log_id: bytes
    epoch: int
    seq: int
    checksum: int


class Header(msgspec.Struct, frozen=True, gc=False):
    """The fields of a frame header. Nothing in it is proved before the checksum is. `length` is that of the body."""

    epoch: int
    first_seq: int
    time_ms: int
    count: int
    previous: int
    checksum: int
    length: int

    @property
    def last_seq(self) -> int:
        return self.first_seq + self.count - 1


class Frame(msgspec.Struct, frozen=True, gc=False):
    """A frame whose checksum is right. `events_of` decodes its `body`."""

    epoch: int
    first_seq: int
    time_ms: int
    count: int
    previous: int
    checksum: int
    body: bytes

    @property
    def last_seq(self) -> int:
        return self.first_seq + self.count - 1


class ProvedFrame(msgspec.Struct, frozen=True, gc=False):
    """A frame that came as bytes and was proved, once: `data` is its bytes, `events` what they say."""

    data: bytes
    frame: Frame
    events: list[Event]


class SegmentHeader(msgspec.Struct, frozen=True):
    """The fields of a segment header. `before` is the first seq of the segment before it, 0 if the log begins here."""

    log_id: bytes
    first_seq: int
    epoch: int
    previous: int
    before: int


def chain_start(log_id: bytes) -> int:
    """Give the checksum where the chain of a new log begins."""
    assert len(log_id) == LOG_ID_BYTES
    return _crc(log_id)


def pack_frame(events: Sequence[Event], *, epoch: int, previous: int) -> bytes:
    """Pack consecutive events of one time into a frame that follows the frame with the checksum `previous`.

    Raises ValueError if the events do not fit: a frame that no reader accepts must never be written.
    """
    first = events[0]
    assert events[-1].seq - first.seq == len(events) - 1, "seqs must run on without a gap"
    assert events[-1].time_ms == first.time_ms, "a frame has one time"
    if not 1 <= first.seq <= SEQ_MAX - len(events) or not 1 <= epoch <= SEQ_MAX:
        raise ValueError(f"no frame can begin at seq {first.seq} in epoch {epoch}")
    body = encode_events(events)
    if len(events) > FRAME_RECORDS_MAX or len(body) > FRAME_BYTES_MAX:
        raise ValueError(f"{len(events)} events of {len(body)} bytes are too much for one frame")
    covered = _FRAME_COVERED.pack(len(body), previous, epoch, first.seq, first.time_ms, len(events), 0) + body
    return FRAME_MAGIC + _WORD.pack(_crc(covered)) + covered


def unpack_header(data: bytes, offset: int = 0) -> Header:
    """Read a frame header and compare every field with its limits. Raises `FrameFault`."""
    if len(data) - offset < HEADER_BYTES:
        raise FrameFault(f"{max(len(data) - offset, 0)} bytes are too few for the head of a frame")
    magic, checksum, length, previous, epoch, first_seq, time_ms, count, zero = _FRAME.unpack_from(data, offset)
    if magic != FRAME_MAGIC:
        raise FrameFault("no frame begins here")
    if not 1 <= length <= FRAME_BYTES_MAX:
        raise FrameFault(f"the head gives a length of {length} bytes, which no frame has")
    if (
        zero
        or not 1 <= count <= FRAME_RECORDS_MAX
        or not 1 <= first_seq <= SEQ_MAX - count
        or not 1 <= epoch <= SEQ_MAX
    ):
        raise FrameFault("the head of the frame has values that no frame has")
    return Header(epoch, first_seq, time_ms, count, previous, checksum, length)


def impossible_fields(data: bytes, offset: int) -> int:
    """Count the fields with impossible values in what may be a damaged frame header: 0 to 5. Only for recovery."""
    if len(data) - offset < HEADER_BYTES:
        return 5
    _, _, length, _, epoch, first_seq, _, count, zero = _FRAME.unpack_from(data, offset)
    possible = (
        1 <= length <= FRAME_BYTES_MAX,
        1 <= epoch <= SEQ_MAX,
        1 <= first_seq <= SEQ_MAX,
        1 <= count <= FRAME_RECORDS_MAX,
        zero == 0,
    )
    return possible.count(False)


def unpack_frame(data: bytes, offset: int = 0) -> Frame:
    """Read the frame that begins at `offset` and prove its checksum. Raises `FrameFault`."""
    header = unpack_header(data, offset)
    start = offset + HEADER_BYTES
    body = data[start : start + header.length]
    if len(body) < header.length:
        raise FrameFault(f"the frame is cut off: {len(body)} bytes of {header.length}")
    if google_crc32c.extend(_crc(data[offset + 8 : start]), body) != header.checksum:
        raise FrameFault("the checksum of the frame is wrong")
    return Frame(header.epoch, header.first_seq, header.time_ms, header.count, header.previous, header.checksum, body)


def prove_frame(data: bytes) -> ProvedFrame:
    """Prove a frame that came as bytes, and decode its events. Raises `FrameFault`, also for bytes behind its end."""
    frame = unpack_frame(data)
    if len(data) != HEADER_BYTES + len(frame.body):
        raise FrameFault("there is something after the end of a frame")
    return ProvedFrame(data, frame, events_of(frame))


def frame_bytes(frame: Frame) -> bytes:
    """Give the bytes of a frame as they are on disk: a frame has one form only."""
    header = (frame.previous, frame.epoch, frame.first_seq, frame.time_ms, frame.count, 0)
    covered = _FRAME_COVERED.pack(len(frame.body), *header)
    return FRAME_MAGIC + _WORD.pack(frame.checksum) + covered + frame.body


def events_of(frame: Frame, seqs: Iterable[int] | None = None) -> list[Event]:
    """Decode the records of a frame. Raises `FrameFault` if a newer version wrote them. About 0.4 µs an event.

    `seqs` are the seqs of the records, for a filtered frame, where they have gaps.
    """
    try:
        return decode_events(
            frame.body, frame.count, frame.time_ms, seqs or range(frame.first_seq, frame.first_seq + frame.count)
        )
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FrameFault(f"a record was written by a newer version of scoreboard: {error}", newer=True) from error


def correction_of(frame: Frame) -> ClockCorrected | None:
    """Give the correction of the clock that a frame is, None if it is anything else. Decodes no other frame."""
    if frame.count != 1 or frame.body[:2] != CORRECTION_HEAD:
        return None
    event = events_of(frame)[0]
    assert isinstance(event, ClockCorrected)
    return event


def find_frame(data: bytes, offset: int, end: int | None = None) -> tuple[int, Frame] | None:
    """Find the first frame that begins between `offset` and `end` and has a right checksum, whatever precedes it."""
    end = len(data) if end is None else end
    place = data.find(FRAME_MAGIC, offset, end)
    while place >= 0:
        try:
            return place, unpack_frame(data, place)
        except FrameFault:
            place = data.find(FRAME_MAGIC, place + 1, end)
    return None


def pack_segment_header(header: SegmentHeader) -> bytes:
    """Pack a segment header: the first SEGMENT_HEADER_BYTES of a segment."""
    assert len(header.log_id) == LOG_ID_BYTES
    assert header.before < header.first_seq
    head = _SEGMENT_HEAD.pack(SEGMENT_MAGIC, VERSION)
    rest = _SEGMENT_REST.pack(header.log_id, header.first_seq, header.epoch, header.previous, 0, header.before)
    return head + _WORD.pack(_crc(head + rest)) + rest


def unpack_segment_header(data: bytes) -> SegmentHeader:
    """Read a segment header. Raises `FrameFault`, with `newer` if only its version is wrong."""
    if len(data) < SEGMENT_HEADER_BYTES:
        raise FrameFault(f"{len(data)} bytes are too few for the head of a segment")
    head = data[: _SEGMENT_HEAD.size]
    magic, version = _SEGMENT_HEAD.unpack(head)
    if magic != SEGMENT_MAGIC:
        raise FrameFault("no segment begins here")
    rest = data[_SEGMENT_HEAD.size + _WORD.size : SEGMENT_HEADER_BYTES]
    if _WORD.unpack_from(data, _SEGMENT_HEAD.size)[0] != _crc(head + rest):
        raise FrameFault("the checksum of the segment's head is wrong")
    if version != VERSION:
        raise FrameFault(f"format version {version} is not known here, only version {VERSION}", newer=True)
    log_id, first_seq, epoch, previous, zero, before = _SEGMENT_REST.unpack(rest)
    if zero or not 1 <= first_seq <= SEQ_MAX or not 1 <= epoch <= SEQ_MAX or before >= first_seq:
        raise FrameFault("the head of the segment has values that no segment has")
    return SegmentHeader(log_id, first_seq, epoch, previous, before)


def _crc(data: bytes) -> int:
    return int(google_crc32c.value(data))
