"""Frames and segment headers: what is packed is read back, and no other bytes are taken for it."""

from __future__ import annotations

import zlib
from pathlib import Path

import google_crc32c
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import limits
from engine.events import EpochBegun, Event, Incremented, RanksNoted, UserPut
from engine.record import (
    FRAME_MAGIC,
    HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    Frame,
    FrameFault,
    SegmentHeader,
    chain_start,
    events_of,
    find_frame,
    pack_frame,
    pack_segment_header,
    unpack_frame,
    unpack_header,
    unpack_segment_header,
)
from tests.engine.logs import LOG_ID, increments

GOLDEN = Path(__file__).parent / "golden" / "version-1"

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
words = st.integers(0, 2**32 - 1)
seqs = st.integers(1, limits.SEQ_MAX - limits.FRAME_RECORDS_MAX)
scores = st.integers(0, limits.SCORE_MAX)


@st.composite
def batches(draw: st.DrawFn) -> list[Event]:
    """Draw events of all types that run on from any seq."""
    first_seq = draw(seqs)
    time_ms = draw(st.integers(0, 2**53))
    events: list[Event] = []
    for kind in draw(st.lists(st.integers(1, 4), min_size=1, max_size=12)):
        seq = first_seq + len(events)
        if kind == 1:
            names = draw(st.tuples(texts, texts, texts))
            delta, reason, caller = draw(st.integers(-limits.SCORE_MAX, limits.SCORE_MAX)), draw(texts), draw(texts)
            events.append(Incremented(seq, time_ms, *names, delta, reason, caller, draw(scores)))
        elif kind == 2:
            events.append(UserPut(seq, time_ms, draw(texts), draw(st.none() | texts), draw(st.booleans()), draw(texts)))
        elif kind == 3:
            events.append(RanksNoted(seq, time_ms, draw(st.integers(0, 2**53))))
        else:
            events.append(EpochBegun(seq, time_ms, draw(st.integers(1, limits.SEQ_MAX)), draw(texts)))
    return events


def sealed(header: bytes, body: bytes) -> bytes:
    """Give a frame its right checksum, whatever is in it."""
    covered = header[8:HEADER_BYTES] + body
    return FRAME_MAGIC + int(google_crc32c.value(covered)).to_bytes(4, "little") + covered


def with_body(body: bytes, count: int = 1) -> Frame:
    """Make a frame with a right checksum around a body that our own code would not write."""
    header = bytearray(pack_frame(increments(1, 1), epoch=1, previous=0)[:HEADER_BYTES])
    header[8:12] = len(body).to_bytes(4, "little")
    header[40:44] = count.to_bytes(4, "little")
    return unpack_frame(sealed(bytes(header), body))


@given(batches(), st.integers(1, limits.SEQ_MAX), words, st.binary(max_size=40), st.binary(max_size=40))
def test_what_is_packed_is_read_back(
    events: list[Event], epoch: int, previous: int, before: bytes, after: bytes
) -> None:
    """Events of any content come back the same, wherever in the bytes the frame stands."""
    packed = pack_frame(events, epoch=epoch, previous=previous)
    frame = unpack_frame(before + packed + after, len(before))
    assert events_of(frame) == events
    assert (frame.epoch, frame.previous, frame.time_ms) == (epoch, previous, events[0].time_ms)
    assert (frame.first_seq, frame.last_seq, frame.count) == (events[0].seq, events[-1].seq, len(events))
    assert unpack_header(packed).length == len(packed) - HEADER_BYTES
    assert pack_frame(events_of(frame), epoch=epoch, previous=previous) == packed


@given(st.binary(max_size=300), st.integers(0, 50))
def test_any_bytes_are_no_frame_or_one(data: bytes, offset: int) -> None:
    """Bytes that nobody packed are refused with the one exception, before and after a frame's magic."""
    for bytes_ in (data, FRAME_MAGIC + data):
        with pytest.raises(FrameFault):
            unpack_frame(bytes_, offset if bytes_ is data else 0)
        with pytest.raises(FrameFault):
            unpack_segment_header(bytes_)


@given(st.binary(min_size=1, max_size=200), st.integers(1, 20))
def test_any_body_gives_events_or_the_fault(body: bytes, count: int) -> None:
    """A body of any bytes under a right checksum is decoded or refused as of a newer version."""
    fault = None
    try:
        events = events_of(with_body(body, count))
    except FrameFault as error:
        fault = error
    assert fault.newer if fault is not None else len(events) == count


def test_every_flipped_bit_of_a_frame_is_noticed() -> None:
    """There is no bit in a frame, head or body, whose change goes unseen."""
    packed = pack_frame(increments(7, 3), epoch=2, previous=99)
    for place in range(len(packed)):
        for bit in range(8):
            damaged = bytearray(packed)
            damaged[place] ^= 1 << bit
            with pytest.raises(FrameFault):
                unpack_frame(bytes(damaged))


def test_every_shorter_frame_is_noticed() -> None:
    """A frame that was cut off anywhere is refused, and so is one that begins too late."""
    packed = pack_frame(increments(7, 3), epoch=2, previous=99)
    for length in range(len(packed)):
        with pytest.raises(FrameFault):
            unpack_frame(packed[:length])
        with pytest.raises(FrameFault):
            unpack_frame(packed, length + 1)


def test_zeros_are_no_frame_and_no_segment() -> None:
    """Space that was laid out and not written is taken for nothing."""
    with pytest.raises(FrameFault, match="no frame begins here"):
        unpack_frame(bytes(4096))
    with pytest.raises(FrameFault, match="no segment begins here"):
        unpack_segment_header(bytes(4096))
    with pytest.raises(FrameFault, match="values that no frame has"):
        unpack_header(FRAME_MAGIC + bytes(4) + b"\1" + bytes(HEADER_BYTES - 9))


def test_a_length_is_refused_before_anything_is_allocated() -> None:
    """A head that promises four gigabytes is refused for its length, although its checksum may be right."""
    packed = bytearray(pack_frame(increments(1, 1), epoch=1, previous=0))
    packed[8:12] = (2**32 - 1).to_bytes(4, "little")
    with pytest.raises(FrameFault, match="a length of 4294967295 bytes"):
        unpack_frame(bytes(packed))
    packed[8:12] = (limits.FRAME_BYTES_MAX + 1).to_bytes(4, "little")
    with pytest.raises(FrameFault, match="which no frame has"):
        unpack_frame(sealed(bytes(packed[:HEADER_BYTES]), bytes(packed[HEADER_BYTES:])))


@pytest.mark.parametrize(
    ("place", "length", "value"),
    [(16, 8, 0), (16, 8, 2**53), (24, 8, 0), (24, 8, 2**53), (40, 4, 0), (40, 4, 8193), (44, 4, 1)],
)  # fmt: skip
def test_values_that_no_frame_has_are_refused_under_a_right_checksum(place: int, length: int, value: int) -> None:
    """Epoch, seq and count have limits, and what is reserved is zero."""
    packed = pack_frame(increments(1, 1), epoch=1, previous=0)
    head = bytearray(packed[:HEADER_BYTES])
    head[place : place + length] = value.to_bytes(length, "little")
    with pytest.raises(FrameFault, match="values that no frame has"):
        unpack_frame(sealed(bytes(head), packed[HEADER_BYTES:]))


@pytest.mark.parametrize(
    "record",
    [
        [6, "a type that is not known yet"],
        [0],
        [],
        {"type": 1},
        "text",
        [1, "main", "user", "action", 10, "REASON", "caller"],
        [1, "main", "user", "action", 10, "REASON", "caller", 10, "one more"],
        [1, "main", "user", "action", "ten", "REASON", "caller", 10],
        [1, "main", "user", "action", 10, "REASON", "caller", 2**53],
        [1, "main", "user", "action", 10, "REASON", "caller", -1],
        [1, "main", "user", None, 10, "REASON", "caller", 10],
        [2, "user", "name", 1, "caller"],
        [3, 0, "an epoch that can't be"],
    ],
)
def test_a_record_of_another_shape_was_written_by_a_newer_version(record: object) -> None:
    """Under a right checksum it is not damage: it says so, and is never skipped."""
    with pytest.raises(FrameFault, match="written by a newer version") as caught:
        events_of(with_body(msgspec.msgpack.encode(record)))
    assert caught.value.newer


def test_more_or_fewer_records_than_the_count_are_refused() -> None:
    """The count in the head and the records in the body must agree."""
    record = msgspec.msgpack.encode([3, 1, "note"])
    assert len(events_of(with_body(record * 2, count=2))) == 2
    for count in (1, 3):
        with pytest.raises(FrameFault):
            events_of(with_body(record * 2, count=count))
    with pytest.raises(FrameFault):
        events_of(with_body(record + b"\xc1"))


def test_text_that_is_not_utf8_is_refused() -> None:
    """The decoder's own exception for it does not get out."""
    with pytest.raises(FrameFault):
        events_of(with_body(b"\x93\x03\x01\xa1\xff"))


def test_what_no_reader_would_accept_is_not_written() -> None:
    """Too many events, too many bytes, a score or an epoch out of range: refused before there is a frame."""
    many = increments(1, limits.FRAME_RECORDS_MAX)
    assert unpack_frame(pack_frame(many, epoch=1, previous=0)).count == limits.FRAME_RECORDS_MAX
    with pytest.raises(ValueError, match="too much for one frame"):
        pack_frame(increments(1, limits.FRAME_RECORDS_MAX + 1), epoch=1, previous=0)
    long = [EpochBegun(seq, 0, 1, "x" * 2**20) for seq in range(1, 17)]
    with pytest.raises(ValueError, match="too much for one frame"):
        pack_frame(long, epoch=1, previous=0)
    high = msgspec.structs.replace(increments(1, 1)[0], new_score=limits.SCORE_MAX + 1)
    with pytest.raises(ValueError, match="a score of"):
        pack_frame([high], epoch=1, previous=0)
    with pytest.raises(ValueError, match="in epoch 0"):
        pack_frame(increments(1, 1), epoch=0, previous=0)
    with pytest.raises(ValueError, match="begin at seq"):
        pack_frame(increments(limits.SEQ_MAX, 1), epoch=1, previous=0)


def test_a_gap_or_two_times_in_a_frame_are_our_own_bug() -> None:
    """A frame has one time, and seqs that run on."""
    with pytest.raises(AssertionError):
        pack_frame([*increments(1, 1), *increments(3, 1)], epoch=1, previous=0)
    with pytest.raises(AssertionError):
        pack_frame([*increments(1, 1, 5), *increments(2, 1, 6)], epoch=1, previous=0)


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_a_frame_is_found_behind_anything(before: bytes, after: bytes) -> None:
    """Even behind bytes that look like the beginning of one."""
    packed = pack_frame(increments(1, 2), epoch=1, previous=5)
    data = before + FRAME_MAGIC + packed + after
    found = find_frame(data, 0)
    assert found is not None
    assert found == (len(before) + 4, unpack_frame(packed))
    assert find_frame(data, len(before) + 5) is None
    assert find_frame(data, 0, len(before) + 4) is None


def test_every_change_in_a_frame_changes_the_chain() -> None:
    """The checksum covers the one before it, so two logs that differ once differ from there on."""
    one = unpack_frame(pack_frame(increments(1, 1), epoch=1, previous=chain_start(LOG_ID)))
    other = unpack_frame(pack_frame(increments(1, 1), epoch=1, previous=chain_start(LOG_ID) ^ 1))
    assert one.checksum != other.checksum


headers = st.builds(
    SegmentHeader,
    log_id=st.binary(min_size=16, max_size=16),
    first_seq=st.integers(2, limits.SEQ_MAX),
    epoch=st.integers(1, limits.SEQ_MAX),
    previous=words,
    before=st.integers(0, 1),
)


@given(headers, st.binary(max_size=10))
def test_a_segment_header_is_read_back(header: SegmentHeader, after: bytes) -> None:
    """What is packed is 64 bytes, and says the same when it is read."""
    packed = pack_segment_header(header)
    assert len(packed) == SEGMENT_HEADER_BYTES
    assert unpack_segment_header(packed + after) == header


def test_every_flipped_bit_of_a_segment_header_is_noticed() -> None:
    """And so is every shorter one."""
    packed = pack_segment_header(SegmentHeader(LOG_ID, 1, 1, 5, 0))
    for place in range(len(packed)):
        for bit in range(8):
            damaged = bytearray(packed)
            damaged[place] ^= 1 << bit
            with pytest.raises(FrameFault) as caught:
                unpack_segment_header(bytes(damaged))
            assert not caught.value.newer
        with pytest.raises(FrameFault):
            unpack_segment_header(packed[:place])


def test_a_newer_format_version_is_recognised_and_not_taken_for_damage() -> None:
    """The first 16 bytes stay as they are in all versions; the checksum tells a newer one from a damaged one."""
    packed = bytearray(pack_segment_header(SegmentHeader(LOG_ID, 1, 1, 5, 0)))
    packed[8:12] = (2).to_bytes(4, "little")
    packed[12:16] = int(google_crc32c.value(bytes(packed[:12] + packed[16:]))).to_bytes(4, "little")
    with pytest.raises(FrameFault, match="format version 2") as caught:
        unpack_segment_header(bytes(packed))
    assert caught.value.newer


# Golden files: what version 1 wrote must be read for as long as there is version 1. They are never made anew.

GOLDEN_LOG_ID = bytes.fromhex("00112233445566778899aabbccddeeff")
GOLDEN_FRAMES: list[tuple[int, list[Event]]] = [
    (1, [Incremented(1, 1_765_800_896_000, "main", "123", "action-uuid-123", 10, "ACTION_COMPLETED", "backend", 10)]),
    (
        1,
        [
            UserPut(2, 1_765_800_896_001, "123", "Alice", True, "backend"),
            UserPut(3, 1_765_800_896_001, "größer-名前-🎯", None, False, "bäckend"),
            Incremented(4, 1_765_800_896_001, "weekly", "x" * 128, "y" * 128, 2**53 - 1, "R", "c", 2**53 - 1),
        ],
    ),
    (2, [EpochBegun(5, 1_765_800_896_002, 2, "restored from a backup up to seq 4")]),
    (
        2,
        [
            Incremented(6 + i, 1_765_800_897_000, "main", f"user-{i}", f"action-{i}", 1, "LEVEL", "backend", 2**i)
            for i in range(20)
        ],
    ),
]
GOLDEN_SEGMENTS = [("00000000000000000001.log.gz", [0, 1], 1, 0), ("00000000000000000005.log", [2, 3], 1, 1)]
"""Name, frames, epoch of the header, first seq of the segment before."""


def golden_contents() -> list[tuple[str, bytes]]:
    """Pack the golden segments from the events above: (name, header and frames)."""
    contents = []
    previous = chain_start(GOLDEN_LOG_ID)
    for name, frames, epoch, before in GOLDEN_SEGMENTS:
        first_seq = GOLDEN_FRAMES[frames[0]][1][0].seq
        content = pack_segment_header(SegmentHeader(GOLDEN_LOG_ID, first_seq, epoch, previous, before))
        for index in frames:
            packed = pack_frame(GOLDEN_FRAMES[index][1], epoch=GOLDEN_FRAMES[index][0], previous=previous)
            previous = unpack_header(packed).checksum
            content += packed
        contents.append((name, content))
    return contents


def golden_bytes(name: str) -> bytes:
    """Read a golden segment, unpacked."""
    data = (GOLDEN / name).read_bytes()
    return zlib.decompress(data, 31) if name.endswith(".gz") else data


@pytest.mark.parametrize(("name", "content"), golden_contents())
def test_version_1_is_still_written_byte_for_byte(name: str, content: bytes) -> None:
    """The same events give the same bytes as when the golden files were made; after them come only zeros."""
    golden = golden_bytes(name)
    assert golden[: len(content)] == content
    assert not golden[len(content) :].strip(b"\0")


def test_version_1_is_still_read() -> None:
    """The golden segments give the events that were written."""
    found: list[tuple[int, list[Event]]] = []
    for name, frames, epoch, before in GOLDEN_SEGMENTS:
        data = golden_bytes(name)
        header = unpack_segment_header(data)
        assert (header.log_id, header.epoch, header.before) == (GOLDEN_LOG_ID, epoch, before)
        offset = SEGMENT_HEADER_BYTES
        for _ in frames:
            frame = unpack_frame(data, offset)
            found.append((frame.epoch, events_of(frame)))
            offset += HEADER_BYTES + len(frame.body)
    assert found == GOLDEN_FRAMES
