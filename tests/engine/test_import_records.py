"""The records of imports: a golden segment, the state that it makes, and what is refused."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from engine.board_rules import BoardRules, Range, Rules
from engine.event_records import decode_events, encode_events
from engine.events import BoardPut, Event, ImportBegun, Incremented, ScoreImported, UserPut
from engine.imports import Import
from engine.limits import SCORE_MAX
from engine.record import events_of
from engine.scoreboard import Scoreboard
from tests.engine.logs import frames_of_segment, segment_of
from tests.engine.model import rows

LOG_ID = bytes.fromhex("00112233445566778899aabbccddeeff")
MS = 1_765_800_896_000
GOLDEN = Path(__file__).parent / "golden" / "imports" / "00000000000000000001.log"
LAPS = BoardRules({"LAP": Range(1, SCORE_MAX)}, score="best", order="ascending")
FRAMES: list[list[Event]] = [
    [BoardPut(1, MS, "cup", BoardRules({"WIN": 10}), "ops"), BoardPut(2, MS, "laps", LAPS, "ops")],
    [
        ImportBegun(3, MS + 1, "cup", "season 1/größer-🎯", 3, "sha256:00ff", False, "ops"),
        UserPut(4, MS + 1, "ann", "Änn 🏁", True, "ops"),
        ScoreImported(5, MS + 1, "cup", "ann", 30, 30, 1_000, "season 1/größer-🎯", 0, "ops"),
        ScoreImported(6, MS + 1, "cup", "bén", 30, 30, None, "season 1/größer-🎯", 1, "ops"),
    ],
    [Incremented(7, MS + 2, "cup", "bén", "b1", 10, "WIN", "backend", 40)],
    [ScoreImported(8, MS + 3, "cup", "cat", SCORE_MAX, SCORE_MAX, 0, "season 1/größer-🎯", 2, "")],
    [
        ImportBegun(9, MS + 4, "laps", "laps", 2, "", True, "ops"),
        ScoreImported(10, MS + 4, "laps", "ann", 0, 0, None, "laps", 0, "ops"),
    ],
]
EVENTS = [event for events in FRAMES for event in events]


def test_the_segment_with_imports_is_as_it_always_was() -> None:
    """Rows with a time and without, a name beside a row, an action between rows. Written once, read for ever."""
    data = GOLDEN.read_bytes()
    assert data == segment_of(FRAMES, LOG_ID)
    assert [event for frame in frames_of_segment(data) for event in events_of(frame)] == EVENTS


def test_the_golden_events_make_the_state_that_they_say() -> None:
    """Scores, their times, the order of ties, and how far each import is."""
    scoreboard = Scoreboard(Rules({}))
    for event in EVENTS:
        scoreboard.apply(event, 1)
        scoreboard._check()
    cup = scoreboard.boards["cup"]
    assert rows(cup) == [(1, "cat", SCORE_MAX), (2, "bén", 40), (3, "ann", 30)]
    assert [cup.updated_ms(user) for user in ("cat", "bén", "ann")] == [0, MS + 2, 1_000]
    assert rows(scoreboard.boards["laps"]) == [(1, "ann", 0)]
    name = "season 1/größer-🎯"
    assert scoreboard.imports.of_board("cup") == [Import(name, "cup", 3, 3, "sha256:00ff", False, 3)]
    laps = scoreboard.imports.get("laps")
    assert laps == Import("laps", "laps", 2, 1, "", True, 9)
    assert laps is not None
    assert not laps.is_finished


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: f"{event.seq}-{type(event).__name__}")
def test_an_event_has_one_record(event: Event) -> None:
    """What is decoded is encoded to the same bytes."""
    body = encode_events([event])
    assert decode_events(body, 1, event.time_ms, [event.seq]) == [event]


def with_one(event: Event, place: int, value: object) -> bytes:
    """The record of an event with another value in one place."""
    fields = msgspec.msgpack.decode(encode_events([event]))
    fields[place] = value
    return msgspec.msgpack.encode(fields)


ROW, BEGUN = EVENTS[4], EVENTS[2]
REFUSED = {
    "a value below 0": with_one(ROW, 3, -1),
    "a value too high": with_one(ROW, 3, SCORE_MAX + 1),
    "a new score that is no whole number": with_one(ROW, 4, 1.5),
    "a time that is a text": with_one(ROW, 5, "1970-01-01"),
    "a row below 0": with_one(ROW, 7, -1),
    "an import of no rows": with_one(BEGUN, 3, 0),
    "merge is no boolean": with_one(BEGUN, 5, 1),
    "a field more": msgspec.msgpack.encode([*msgspec.msgpack.decode(encode_events([ROW])), 1]),
    "a field less": msgspec.msgpack.encode(msgspec.msgpack.decode(encode_events([BEGUN]))[:-1]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_version_wrote_is_refused(name: str) -> None:
    """Each is one step away from a good record."""
    with pytest.raises(msgspec.DecodeError):
        decode_events(REFUSED[name], 1, MS, [1])


@pytest.mark.parametrize("field", ["value", "new_score"])
def test_a_score_that_no_board_can_have_is_not_written(field: str) -> None:
    """Readers refuse it, so it must not get into a log."""
    for score in (-1, SCORE_MAX + 1):
        with pytest.raises(ValueError, match="seq 5"):
            encode_events([msgspec.structs.replace(ROW, **{field: score})])
