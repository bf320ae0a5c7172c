"""The records of reviews: a golden segment, and what is refused."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from engine.board_rules import BoardRules, Rules, WatchRules
from engine.event_records import decode_events, encode_events
from engine.events import BoardPut, Event, Incremented, ReviewDecided
from engine.scoreboard import Scoreboard
from tests.engine.logs import segment_of
from tests.engine.test_foreign_reader import read_by_us

LOG_ID = bytes.fromhex("00112233445566778899aabbccddeeff")
MS = 1_795_388_400_000
GOLDEN = Path(__file__).parent / "golden" / "reviews" / "00000000000000000001.log"
WATCHED = BoardRules({"WIN": 10}, watch=WatchRules(15, 100, 3, 3.5))
FRAMES: list[list[Event]] = [
    [BoardPut(1, MS, "größer", WATCHED, "ops")],
    [Incremented(seq, MS, "größer", "ann", f"a{seq}", 10, "WIN", "backend", 10 * (seq - 1)) for seq in range(2, 5)],
    [ReviewDecided(5, MS + 1, "größer", "3-0", "accept", "", "ein guter Tag 🏁", "judge")],
    [Incremented(seq, MS + 1, "größer", "ann", f"b{seq}", 10, "WIN", "backend", 10 * (seq - 2)) for seq in range(6, 8)],
    [ReviewDecided(8, MS + 2, "größer", "7-0", "reverse", "dispute-1", "", "judge")],
]
EVENTS = [event for events in FRAMES for event in events]


def test_the_segment_with_reviews_is_as_it_always_was() -> None:
    """A watch of each kind, and both decisions. Written once, read and written for ever."""
    data = GOLDEN.read_bytes()
    assert data == segment_of(FRAMES, LOG_ID)
    assert read_by_us(data) == EVENTS


def test_the_golden_events_make_the_reviews_that_they_say() -> None:
    """They are a history that could have happened: each decision has its review."""
    scoreboard = Scoreboard(Rules({}))
    for event in EVENTS:
        scoreboard.apply(event, 1)
        scoreboard._check()
    found = [(each.review_id, each.state, each.note) for each in scoreboard.reviews.all()]
    assert found == [("3-0", "accepted", "ein guter Tag 🏁"), ("7-0", "reversed", "")]


@pytest.mark.parametrize(
    "record",
    [
        [17, "cup", "3-0", "perhaps", "", "", "judge"],
        [17, "cup", "3-0", "accept", "", "", "judge", 1],
        [17, "cup", "3-0", "accept", "", ""],
        [17, "cup", 3, "accept", "", "", "judge"],
    ],
)
def test_a_decision_that_a_newer_version_wrote_is_refused(record: list[object]) -> None:
    """Another decision, or another number of fields, is not skipped."""
    with pytest.raises(msgspec.DecodeError):
        decode_events(msgspec.msgpack.encode(record), 1, MS, [1])


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: f"{event.seq}-{type(event).__name__}")
def test_an_event_has_one_record(event: Event) -> None:
    """What is decoded is encoded to the same bytes."""
    assert decode_events(encode_events([event]), 1, event.time_ms, [event.seq]) == [event]
