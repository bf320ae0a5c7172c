"""A filtered frame ⇄ bytes: what a replica of one shard gets of a frame. All integers are little endian.

    data, link = pack_filtered(frame, wanted, link)        at the sender; the first link is link_start(checksum)
    filtered = unpack_filtered(data, link)                 at the replica; filtered.link is the next link

       0   4s  magic "prt1"
       4  u32  link: CRC32C over the link of the filtered frame before it and bytes 8 .. end
       8  48s  the header of the frame, as it is on disk
      56  u32  count of the records that were kept
      60  u32  zero
      64  u16  the index in the frame of each kept record, 0, 1, 2 …, ascending
       …       the kept records as they are in the frame's body, one after the other

Theory: a frame's checksum covers its whole body. A replica that gets only some records can't compute it, so two chains
take its place. The `previous` and `checksum` of the frame's own header prove the place in the history: no frame was
lost, doubled, moved or taken from another log. The sender computes a link over each filtered frame and the link before
it, from the start of a connection. It proves that all kept records arrived, unchanged and in order. It does not prove
that the sender kept the right records; the digests of boards do, which are compared at checkpoints.

Rules:
- A filtered frame without records is sent too: it moves the position, and the chain of headers has no gap.
- Reading any bytes gives a value or raises `FrameFault`, nothing else.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable
from itertools import pairwise

import google_crc32c
import msgspec

from engine.events import Event
from engine.record import HEADER_BYTES, Frame, FrameFault, Header, events_of, frame_bytes, unpack_header

FILTERED_MAGIC = b"prt1"
FILTERED_HEADER_BYTES = 64

_WORD = struct.Struct("<I")
_COUNT = struct.Struct("<II")
_PLACE_BYTES = 2

_raws = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode


class FilteredFrame(msgspec.Struct, frozen=True):
    """A filtered frame that was proved: its frame's header, and the kept events. `link` is for the next one."""

    header: Header
    events: list[Event]
    link: int


def link_start(checksum: int) -> int:
    """Give the first link of a connection that begins after the frame with this checksum."""
    return int(google_crc32c.value(FILTERED_MAGIC + _WORD.pack(checksum)))


def pack_filtered(frame: Frame, wanted: Callable[[Event], bool], link: int) -> tuple[bytes, int]:
    """Pack the wanted events of a frame; give the bytes and the next link. Raises `FrameFault`."""
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
    """Read and prove the filtered frame that follows the one with this link. Raises `FrameFault`."""
    if len(data) < FILTERED_HEADER_BYTES or data[:4] != FILTERED_MAGIC:
        raise FrameFault("this is not a filtered frame")
    link = _link(link, data[8:])
    if _WORD.unpack_from(data, 4)[0] != link:
        raise FrameFault("the link of a filtered frame is wrong: something was changed, lost or doubled on the way")
    header = unpack_header(data, 8)
    count, zero = _COUNT.unpack_from(data, 8 + HEADER_BYTES)
    start = FILTERED_HEADER_BYTES + _PLACE_BYTES * count
    if zero or count > header.count or start > len(data):
        raise FrameFault("the header of the filtered frame has impossible values")
    places = array("H", struct.unpack_from(f"<{count}H", data, FILTERED_HEADER_BYTES))
    ascending = all(place < later for place, later in pairwise(places))
    if not ascending or max(places, default=0) >= header.count:
        raise FrameFault("the records of the filtered frame have impossible places")
    if not count and start != len(data):
        raise FrameFault("a filtered frame without records has something after its end")
    frame = Frame(header.epoch, header.first_seq, header.time_ms, count, header.previous, header.checksum, data[start:])
    events = events_of(frame, [header.first_seq + place for place in places]) if count else []
    return FilteredFrame(header, events, link)


def _link(link: int, covered: bytes) -> int:
    return int(google_crc32c.extend(google_crc32c.value(_WORD.pack(link)), covered))
