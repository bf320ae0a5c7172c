"""The records of held actions and of decisions about them: a golden segment, and what is refused."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from engine.board_rules import BoardRules, Rules, WatchRules
from engine.event_records import decode_events, encode_events
from engine.events import (
    BoardPut,
    BoardScores,
    Event,
    Fed,
    Incremented,
    PeriodScores,
    Rescored,
    Reversed,
    ReviewDecided,
)
from engine.scoreboard import Scoreboard
from tests.engine.logs import segment_of
from tests.engine.test_foreign_reader import read_by_us

LOG_ID = bytes.fromhex("00112233445566778899aabbccddeeff")
MS = 1_795_388_400_000
GOLDEN = Path(__file__).parent / "golden" / "holds" / "00000000000000000001.log"
HOLDING = BoardRules({"WIN": 10}, feeds=("all",), watch=WatchRules(15, action="hold"))
FRAMES: list[list[Event]] = [
    [BoardPut(1, MS, "all", BoardRules({"WIN": 1}), "ops"), BoardPut(2, MS, "größer", HOLDING, "ops")],
    [
        Incremented(3, MS, "größer", "ann", "a3", 10, "WIN", "backend", 10, None, False, (Fed("all", 1, 1, 1),)),
        Incremented(4, MS, "größer", "ann", "a4", 10, "WIN", "backend", 20, None, False, (Fed("all", 1, 2, 1),)),
        Incremented(5, MS, "größer", "ann", "a5", 0, "WIN", "backend", 20, 10, False, (Fed("all", 1, 3, 1),), (0,)),
    ],
    [
        ReviewDecided(
            6, MS + 1, "größer", "4-0", "accept", "", "ein guter Tag 🏁", "judge",
            (BoardScores("größer", (Rescored("ann", 30, 5, MS),)),),
        )
    ],
    [Incremented(7, MS + 1, "größer", "ann", "a7", 10, "WIN", "backend", 40, None, False, (Fed("all", 1, 4, 1),))],
    [Incremented(8, MS + 1, "größer", "ann", "a8", 10, "WIN", "backend", 50, None, False, (Fed("all", 1, 5, 1),))],
    [Incremented(9, MS + 1, "größer", "ann", "a9", 0, "WIN", "backend", 50, 10, False, (Fed("all", 1, 6, 1),), (0,))],
    [
        Reversed(
            10, MS + 2, "review-8-0", "review 8-0: growth_per_minute", "judge", 7, False, (8, 9),
            (
                BoardScores("all", (Rescored("ann", 4, 7, MS + 1),)),
                BoardScores("größer", (Rescored("ann", 40, 7, MS + 1),)),
            ),
            (),
        ),
        ReviewDecided(11, MS + 2, "größer", "8-0", "reverse", "review-8-0", "", "judge"),
    ],
]  # fmt: skip
EVENTS = [event for events in FRAMES for event in events]


def test_the_segment_with_holds_is_as_it_always_was() -> None:
    """Held on its own board, and both decisions. Written once, read and written for ever."""
    data = GOLDEN.read_bytes()
    assert data == segment_of(FRAMES, LOG_ID)
    assert read_by_us(data) == EVENTS


def test_the_golden_events_make_the_state_that_they_say() -> None:
    """They are a history that could have happened: what is held has a review, and counts after its decision."""
    scoreboard = Scoreboard(Rules({}))
    held = []
    for event in EVENTS:
        scoreboard.apply(event, 1)
        scoreboard._check()
        held.append(list(scoreboard.reviews.holds.of(("größer", "ann"))))
    assert held == [[], [], [], [], [5], [], [], [], [9], [9], []]
    assert (scoreboard.boards["größer"].score("ann"), scoreboard.boards["all"].score("ann")) == (40, 4)


@pytest.mark.parametrize(
    "record",
    [
        [16, "cup", "ann", "a", 0, "WIN", "backend", 0, 10, False, [], []],
        [16, "cup", "ann", "a", 0, "WIN", "backend", 0, 10, False, [], [9]],
        [16, "cup", "ann", "a", 0, "WIN", "backend", 0, 10, False, [], ["cup"]],
        [16, "cup", "ann", "a", 0, "WIN", "backend", 0, 10, False, []],
        [16, "cup", "ann", "a", 0, "WIN", "backend", 0, 10, False, [], [0], 1],
        [17, "cup", "3-0", "accept", "", "", "judge", [], [], 1],
        [17, "cup", "3-0", "accept", "", "", "judge", 1],
    ],
)
def test_a_record_that_a_newer_version_wrote_is_refused(record: list[object]) -> None:
    """A hold by no board, by one that is not there, or another number of fields, is not skipped."""
    with pytest.raises(msgspec.DecodeError):
        decode_events(msgspec.msgpack.encode(record), 1, MS, [1])


LATE = ReviewDecided(
    5, MS, "cup", "3-0", "accept", "", "", "judge", (), (PeriodScores("cup", 4, 2, (Rescored("ann", 7, 2, MS),)),)
)


@pytest.mark.parametrize("event", [*EVENTS, LATE], ids=lambda event: f"{event.seq}-{type(event).__name__}")
def test_an_event_has_one_record(event: Event) -> None:
    """What is decoded is encoded to the same bytes."""
    assert decode_events(encode_events([event]), 1, event.time_ms, [event.seq]) == [event]
