"""The golden log, read as another program would: struct for the heads, the `msgpack` package for the records.

Nothing here unpacks with our own code; it only compares. The offsets are those of the drawing in `engine/record.py`.
So the drawing is complete, and the records are plain msgpack that any library reads.
"""

from __future__ import annotations

import gzip
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import msgpack
import msgspec
import pytest

from engine import record
from engine.events import (
    BoardClosed,
    BoardEvent,
    BoardFrozen,
    BoardPut,
    BoardUnfrozen,
    EpochBegun,
    Event,
    FlagPut,
    ImportBegun,
    Incremented,
    PeriodChanged,
    RanksNoted,
    Reversed,
    ReviewDecided,
    RowsRevealed,
    ScoreImported,
    UserErased,
    UserPut,
)

GOLDEN = Path(__file__).parent / "golden"
SEGMENTS = (
    "version-1/00000000000000000001.log.gz",
    "version-1/00000000000000000005.log",
    "version-1-corrected/00000000000000000001.log",
    "histories/00000000000000000001.log",
    "boards/00000000000000000001.log",
    "notes/00000000000000000001.log",
    "reversals/00000000000000000001.log",
    "reviews/00000000000000000001.log",
    "holds/00000000000000000001.log",
    "erased/00000000000000000001.log",
    "imports/00000000000000000001.log",
    "flags/00000000000000000001.log",
)
SEGMENT_HEADER = struct.Struct("<8s I I 16s Q Q I I Q")
FRAME_HEADER = struct.Struct("<4s I I I Q Q Q I I")

Found = tuple[int, int, list[Any]]
"""Seq, time and record of an event."""


def golden(name: str) -> bytes:
    """Read a golden segment."""
    data = (GOLDEN / name).read_bytes()
    return gzip.decompress(data) if name.endswith(".gz") else data


def frames(data: bytes) -> Iterator[tuple[tuple[Any, ...], bytes]]:
    """Yield the fields of each frame's head and its body, up to the zeros."""
    offset = SEGMENT_HEADER.size
    while data[offset : offset + 4] == b"frm1":
        head = FRAME_HEADER.unpack_from(data, offset)
        start = offset + FRAME_HEADER.size
        offset = start + head[2]
        assert head[1] == google_crc32c.value(data[start - FRAME_HEADER.size + 8 : offset])
        yield head, data[start:offset]
    assert not data[offset:].strip(b"\0")


def records(data: bytes) -> list[Found]:
    """Decode the records of a segment by the msgpack package."""
    found: list[Found] = []
    for (_, _, _, _, _, first_seq, time_ms, count, _), body in frames(data):
        unpacker = msgpack.Unpacker()
        unpacker.feed(body)
        arrays = list(unpacker)
        assert len(arrays) == count
        found += [(seq, time_ms, array) for seq, array in enumerate(arrays, first_seq)]
    return found


def drawn(event: Event) -> Found:
    """Write an event that our code read as the drawing has it."""
    if isinstance(event, Incremented):
        names = [event.board_id, event.user_id, event.action_id]
        fields = [1, *names, event.delta, event.reason, event.caller, event.new_score]
        if event.value is not None or event.fed:
            fed = [[each.board_id, each.delta, each.new_score, each.value] for each in event.fed]
            fields = [6, *fields[1:], event.value, event.chosen, fed]
        if event.held:
            fields = [16, *fields[1:], list(event.held)]
    elif isinstance(event, UserPut):
        fields = [2, event.user_id, event.display_name, event.active, event.caller]
    elif isinstance(event, EpochBegun):
        fields = [5, event.epoch, event.note, event.history] if event.history else [3, event.epoch, event.note]
    elif isinstance(event, BoardEvent):
        types = {BoardPut: 7, BoardClosed: 8, PeriodChanged: 9, BoardFrozen: 10, BoardUnfrozen: 11, RowsRevealed: 12}
        fields = [types[type(event)], *msgspec.json.decode(msgspec.json.encode(msgspec.structs.astuple(event)[2:]))]
    elif isinstance(event, Reversed):
        fields = [14, *msgspec.json.decode(msgspec.json.encode(msgspec.structs.astuple(event)[2:]))]
    elif isinstance(event, ScoreImported | ImportBegun):
        fields = [15 if isinstance(event, ScoreImported) else 21, *msgspec.structs.astuple(event)[2:]]
    elif isinstance(event, RanksNoted):
        fields = [13, event.as_of_ms]
    elif isinstance(event, ReviewDecided):
        fields = [17, event.board_id, event.review_id, event.decision, event.reversal_id, event.note, event.caller]
        if event.scores or event.periods:
            fields += msgspec.json.decode(msgspec.json.encode([event.scores, event.periods]))
    elif isinstance(event, UserErased):
        fields = [18, event.user_id, event.pseudonym, event.caller, event.actions]
    elif isinstance(event, FlagPut):
        fields = [22, event.flag, event.enabled, event.caller]
    else:
        fields = [4, event.from_seq, event.ahead_ms, event.note]
    return event.seq, event.time_ms, fields


def plain(found: Found) -> Found:
    """Take a record out of the one around it that balances a rewritten frame."""
    seq, time_ms, fields = found
    if fields[0] != 19:
        return found
    assert len(fields) == 3
    assert len(fields[2]) == 4
    return seq, time_ms, fields[1]


def read_by_us(data: bytes) -> list[Event]:
    """Read the events of a segment with our own code."""
    events: list[Event] = []
    offset = record.SEGMENT_HEADER_BYTES
    while data[offset : offset + 1].strip(b"\0"):
        frame = record.unpack_frame(data, offset)
        events += record.events_of(frame)
        offset += len(record.frame_bytes(frame))
    return events


@pytest.mark.parametrize("name", SEGMENTS)
def test_a_foreign_reader_finds_the_same_events(name: str) -> None:
    """Every record type, texts that are not ASCII, nil, booleans, and numbers up to 2^53 - 1."""
    data = golden(name)
    found = records(data)
    assert found
    assert [plain(each) for each in found] == [drawn(event) for event in read_by_us(data)]


def test_the_golden_log_has_every_type_of_record() -> None:
    """Otherwise the comparison above would prove less than it says."""
    found = [each for name in SEGMENTS for each in records(golden(name))]
    assert {fields[0] for _, _, fields in found} == {*range(1, 20), 21, 22}


@pytest.mark.parametrize("name", SEGMENTS)
def test_a_foreign_reader_finds_the_same_head_of_a_segment(name: str) -> None:
    """Also its checksum, over all of the head but itself."""
    data = golden(name)
    head = SEGMENT_HEADER.unpack_from(data)
    magic, version, checksum, log_id, first_seq, epoch, previous, zero, before = head
    assert (magic, version, zero) == (b"scorelog", 1, 0)
    assert checksum == google_crc32c.value(data[:12] + data[16:64])
    assert record.unpack_segment_header(data) == record.SegmentHeader(log_id, first_seq, epoch, previous, before)
    assert f"{first_seq:020}" == Path(name).name.split(".", maxsplit=1)[0]


def test_a_foreign_reader_can_follow_the_chain() -> None:
    """From the log id through each frame of one segment into the next; the seqs run on, and the epochs do not fall."""
    link = None
    next_seq, last_epoch = 1, 1
    for name in SEGMENTS[:2]:
        data = golden(name)
        _, _, _, log_id, first_seq, _, previous, _, _ = SEGMENT_HEADER.unpack_from(data)
        assert first_seq == next_seq
        link = google_crc32c.value(log_id) if link is None else link
        assert previous == link
        for (_, checksum, _, before, epoch, seq, _, count, zero), _body in frames(data):
            assert (before, seq, zero) == (link, next_seq, 0)
            assert epoch >= last_epoch
            link, next_seq, last_epoch = checksum, seq + count, epoch
