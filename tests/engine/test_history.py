"""The identity of a history: what is drawn, what is derived for old logs, and which of two marks outranks the other."""

from __future__ import annotations

from pathlib import Path

import msgpack
import msgspec
import pytest

from engine.board_rules import rules_of_points
from engine.errors import ScoreboardError
from engine.events import EpochBegun, Event, Incremented
from engine.history import EpochMark, history_of
from engine.record import (
    HEADER_BYTES,
    FrameFault,
    SegmentHeader,
    chain_start,
    events_of,
    pack_frame,
    pack_segment_header,
    unpack_frame,
    unpack_header,
)
from engine.scoreboard import Scoreboard
from tests.engine.logs import frames_of_segment

LOG_ID = bytes.fromhex("00112233445566778899aabbccddeeff")
DRAWN = bytes(range(100, 116))
GOLDEN = Path(__file__).parent / "golden" / "histories" / "00000000000000000001.log"
FRAMES: list[tuple[int, list[Event]]] = [
    (1, [Incremented(1, 1_765_800_896_000, "main", "123", "action-1", 10, "ACTION_COMPLETED", "backend", 10)]),
    (2, [EpochBegun(2, 1_765_800_896_001, 2, "promoted")]),
    (5, [EpochBegun(3, 1_765_800_896_002, 5, "promoted", DRAWN)]),
    (5, [Incremented(4, 1_765_800_896_003, "main", "123", "action-2", 10, "ACTION_COMPLETED", "backend", 20)]),
]
RULES = rules_of_points({"main": {"ACTION_COMPLETED": 10}})


def golden_bytes() -> bytes:
    """Pack the golden segment."""
    previous = chain_start(LOG_ID)
    data = pack_segment_header(SegmentHeader(LOG_ID, 1, 1, previous, 0))
    for epoch, events in FRAMES:
        frame = pack_frame(events, epoch=epoch, previous=previous)
        previous = unpack_header(frame).checksum
        data += frame
    return data


def scoreboard_of(frames: list[tuple[int, list[Event]]]) -> Scoreboard:
    """Apply the events."""
    scoreboard = Scoreboard(RULES)
    scoreboard.belongs_to(LOG_ID)
    for epoch, events in frames:
        for event in events:
            scoreboard.apply(event, epoch)
    return scoreboard


def test_the_segment_with_both_forms_of_an_epoch_is_as_it_always_was() -> None:
    """The old form without an identity, and the new one: written once, read and written for ever."""
    data = GOLDEN.read_bytes()
    assert data == golden_bytes()
    assert [(frame.epoch, events_of(frame)) for frame in frames_of_segment(data)] == FRAMES


def test_another_program_reads_an_identity_as_bytes() -> None:
    """By the msgpack package."""
    frame = pack_frame(FRAMES[2][1], epoch=5, previous=0)
    assert msgpack.unpackb(frame[HEADER_BYTES:]) == [5, 5, "promoted", DRAWN]


@pytest.mark.parametrize("history", [b"", bytes(15), bytes(17)])
def test_an_identity_of_another_length_is_refused(history: bytes) -> None:
    """A newer version may have written it."""
    body = msgpack.packb([5, 5, "promoted", history])
    frame = unpack_frame(pack_frame(FRAMES[2][1], epoch=5, previous=0))
    with pytest.raises(FrameFault) as caught:
        events_of(msgspec.structs.replace(frame, body=body))
    assert isinstance(caught.value, ScoreboardError)
    assert caught.value.newer


def test_each_epoch_has_its_mark() -> None:
    """The log's id, one that is derived for an old event, and a drawn one; also through an image."""
    scoreboard = scoreboard_of(FRAMES)
    derived = history_of(LOG_ID, 2, 2, b"")
    marks = [EpochMark(1, 1, LOG_ID.hex()), EpochMark(2, 2, derived), EpochMark(5, 3, DRAWN.hex())]
    again = Scoreboard.from_image(RULES, scoreboard.capture())
    again.belongs_to(LOG_ID)
    other = Scoreboard(RULES)
    other.take_over(again)
    for one in (scoreboard, again, other):
        assert one.marks() == marks
        assert (one.mark, one.mark_of(2), one.mark_of(3)) == (marks[2], marks[1], None)
        one.end_replay()
        one._check()


def test_a_derived_identity_tells_logs_epochs_and_places_apart() -> None:
    """And every node derives the same one."""
    assert history_of(LOG_ID, 2, 7, b"") == history_of(LOG_ID, 2, 7, b"")
    ways = {history_of(*way, b"") for way in ((LOG_ID, 2, 7), (LOG_ID, 2, 8), (LOG_ID, 3, 7), (DRAWN, 2, 7))}
    assert len(ways) == 4


def test_marks_have_one_order_on_all_nodes() -> None:
    """The epoch, then the seq where it began, as more was acknowledged before it, then the identity."""
    marks = [
        EpochMark(2),
        EpochMark(2, 7, "aa"),
        EpochMark(2, 9, "00"),
        EpochMark(2, 9, "01"),
        EpochMark(3),
        EpochMark(3, 1),
    ]
    assert sorted(marks[3:] + marks[:3]) == marks
