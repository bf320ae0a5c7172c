"""A part of a frame ⇄ bytes: what a replica of some boards gets of a frame. All integers little endian.

       0   4s  magic "prt1"
       4  u32  link: CRC32C over the link of the part before it and bytes 8 .. end
       8  48s  the head of the frame, as it is on disk
      56  u32  count of the records that were kept
      60  u32  zero
      64  u16  for each kept record its place in the frame, 0, 1, 2 …, ascending
       …       the kept records as they are in the frame's body, one after the other

Theory: a frame's checksum covers its whole body, so whoever gets only a part of it can't compute that. Two chains take
its place. The head is the frame's own, and its `previous` and `checksum` prove the place in the history: no frame was
lost, doubled, moved or taken from another log. The link is computed by the sender over what it sends and over the link
before, from the beginning of a connection on: it proves that the kept records arrived as they were sent, all of them,
in order. That the sender kept what it should is proved at checkpoints, by comparing digests of boards.

Rules:
- A part without records is sent like any other: it moves the position, and the chain of heads has no gap.
- Whatever the bytes, reading them gives a value or raises `FrameFault`, nothing else.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable
from itertools import pairwise

import google_crc32c
import msgspec

from engine.events import Event
from engine.limits import FRAME_BYTES_MAX, FRAME_RECORDS_MAX
from engine.record import HEADER_BYTES, Frame, FrameFault, Header, events_of, frame_bytes, unpack_header

FILTERED_MAGIC = b"prt1"
FILTERED_HEADER_BYTES = 64
FILTERED_BYTES_MAX = FILTERED_HEADER_BYTES + 2 * FRAME_RECORDS_MAX + FRAME_BYTES_MAX

_WORD = struct.Struct("<I")
_COUNT = struct.Struct("<II")
_PLACE_BYTES = 2

_raws = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode


class FilteredFrame(msgspec.Struct, frozen=True):
    """A part that proved itself: the head of its frame, and the events that were kept. `link` goes into the next."""

    header: Header
    events: list[Event]
    link: int


def link_start(checksum: int) -> int:
    """Give the link before the first part of a connection that begins after the frame with this checksum."""
    return int(google_crc32c.value(FILTERED_MAGIC + _WORD.pack(checksum)))


def pack_filtered(frame: Frame, wanted: Callable[[Event], bool], link: int) -> tuple[bytes, int]:
    """Pack the wanted events of a frame; give the bytes, and the link for the next part. Raises `FrameFault`."""
    events = events_of(frame)
    places = [place for place, event in enumerate(events) if wanted(event)]
    raws = _raws(b"\xdd" + frame.count.to_bytes(4, "big") + frame.body) if places else []
    covered = b"".join(
        [
            frame_bytes(frame)[:HEADER_BYTES],
            _COUNT.pack(len(places), 0),
            struct.pack(f"<{len(places)}H", *places),
            *[bytes(raws[place]) for place in places],
        ]
    )
    link = _link(link, covered)
    return FILTERED_MAGIC + _WORD.pack(link) + covered, link


def unpack_filtered(data: bytes, link: int) -> FilteredFrame:
    """Read a part that follows the one with this link, and prove its content. Raises `FrameFault`."""
    if len(data) < FILTERED_HEADER_BYTES or data[:4] != FILTERED_MAGIC:
        raise FrameFault("this is not a part of a frame")
    link = _link(link, data[8:])
    if _WORD.unpack_from(data, 4)[0] != link:
        raise FrameFault("the link of a part is wrong: something was changed, lost or doubled on the way")
    header = unpack_header(data, 8)
    count, zero = _COUNT.unpack_from(data, 8 + HEADER_BYTES)
    start = FILTERED_HEADER_BYTES + _PLACE_BYTES * count
    if zero or count > header.count or start > len(data):
        raise FrameFault("the head of the part has values that no part has")
    places = array("H", struct.unpack_from(f"<{count}H", data, FILTERED_HEADER_BYTES))
    ascending = all(place < later for place, later in pairwise(places))
    if not ascending or max(places, default=0) >= header.count:
        raise FrameFault("the records of the part have places that no frame has")
    if not count and start != len(data):
        raise FrameFault("a part without records has something after its end")
    frame = Frame(header.epoch, header.first_seq, header.time_ms, count, header.previous, header.checksum, data[start:])
    events = events_of(frame, [header.first_seq + place for place in places]) if count else []
    return FilteredFrame(header, events, link)


def _link(link: int, covered: bytes) -> int:
    return int(google_crc32c.extend(google_crc32c.value(_WORD.pack(link)), covered))
