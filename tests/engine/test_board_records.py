"""The records of boards, and of actions that say more than points: a golden segment, and what is refused."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from engine.board_events import EndedPeriod
from engine.board_rules import BoardDefinition, BoardRules, Frozen, PastPeriod, Range, Rules
from engine.event_records import decode_events, encode_events
from engine.events import (
    BoardClosed,
    BoardFrozen,
    BoardPut,
    BoardUnfrozen,
    Event,
    Fed,
    Incremented,
    PeriodChanged,
    RowsRevealed,
)
from engine.limits import SCORE_MAX
from engine.record import events_of
from engine.schedule import Period, Schedule
from engine.scoreboard import Scoreboard
from tests.engine.logs import frames_of_segment, segment_of
from tests.engine.model import rows

LOG_ID = bytes.fromhex("00112233445566778899aabbccddeeff")
MS = 1_765_800_896_000
GOLDEN = Path(__file__).parent / "golden" / "boards" / "00000000000000000001.log"
YEAR = BoardRules({"WIN": 1})
LAPS = BoardRules(
    {"LAP": Range(1, SCORE_MAX), "größer-🎯": Range(0, 0)}, "Runden 🏁",
    score="best", order="ascending", ranks="dense", keep_periods=3,
)  # fmt: skip
CUP = BoardRules({"WIN": 10, "FOUL": -4, "LAP": Range(0, 100)}, ranks="shared", feeds=("year", "laps"))
WEEK = BoardRules({"WIN": 1}, schedule=Schedule("week", "Europe/Berlin", "monday 00:00"), keep_periods=2)
DAY_MS = 86_400_000
WEEK_MS = 1_765_753_200_000
"""Monday, 15 December 2025, midnight in Berlin."""
FRAMES: list[list[Event]] = [
    [
        BoardPut(1, MS, "year", YEAR, "configuration"),
        BoardPut(2, MS, "laps", LAPS, "configuration"),
        BoardPut(3, MS, "cup", CUP, "bäckend"),
    ],
    [
        Incremented(4, MS + 1, "cup", "ann", "a1", 10, "WIN", "backend", 10, None, False, (Fed("year", 1, 1, 1),)),
        Incremented(5, MS + 1, "cup", "ann", "a2", 50, "LAP", "backend", 60, 50, True, (Fed("laps", 50, 50, 50),)),
        Incremented(6, MS + 1, "cup", "ann", "a3", 40, "LAP", "backend", 100, 40, True, (Fed("laps", -10, 40, 40),)),
        Incremented(7, MS + 1, "laps", "ben", "b1", SCORE_MAX, "LAP", "backend", SCORE_MAX, SCORE_MAX, True),
        Incremented(8, MS + 1, "cup", "ben", "b2", 0, "FOUL", "backend", 0, -4),
        Incremented(9, MS + 1, "year", "ben", "b3", 1, "WIN", "backend", 1),
    ],
    [BoardPut(10, MS + 2, "cup", BoardRules({"WIN": 5}), "ops")],
    [BoardClosed(11, MS + 3, "cup", "ops"), BoardClosed(12, MS + 3, "laps", "ops")],
    [BoardPut(13, MS + 4, "week", WEEK, "ops", Period("2025-W51", WEEK_MS, WEEK_MS + 7 * DAY_MS))],
    [Incremented(14, MS + 5, "week", "ann", "w1", 1, "WIN", "backend", 1)],
    [BoardFrozen(15, MS + 6, "week", MS + 7, "ops"), BoardFrozen(16, MS + 6, "week", None, "")],
    [Incremented(17, MS + 8, "week", "ben", "w2", 1, "WIN", "backend", 1)],
    [RowsRevealed(18, MS + 9, "week", 1, "ops")],
    [BoardUnfrozen(19, MS + 10, "week", "ops")],
    [
        PeriodChanged(
            20, WEEK_MS + 15 * DAY_MS, "week",
            Period("2025-W51", WEEK_MS, WEEK_MS + 7 * DAY_MS),
            Period("2026-W01", WEEK_MS + 14 * DAY_MS, WEEK_MS + 21 * DAY_MS), False,
            (Period("2025-W52", WEEK_MS + 7 * DAY_MS, WEEK_MS + 14 * DAY_MS),), "",
        ),
        PeriodChanged(
            21, WEEK_MS + 15 * DAY_MS, "year", Period("2025-12-30", MS, WEEK_MS + 15 * DAY_MS), None, False, (), "ops"
        ),
    ],
]  # fmt: skip
EVENTS = [event for events in FRAMES for event in events]


def rows_of(ended: EndedPeriod) -> list[tuple[str, int]]:
    """The final rows of a period."""
    return [(row.user_id, row.score) for row in ended.ranking.top(9)]


def test_the_segment_with_boards_is_as_it_always_was() -> None:
    """Boards put, replaced and closed; values, chosen or not; feeds. Written once, read and written for ever."""
    data = GOLDEN.read_bytes()
    assert data == segment_of(FRAMES, LOG_ID)
    assert [event for frame in frames_of_segment(data) for event in events_of(frame)] == EVENTS


def test_the_golden_events_make_the_state_that_they_say() -> None:
    """They are a history that could have happened: applying checks each delta."""
    scoreboard = Scoreboard(Rules({"old": YEAR}))
    for event in EVENTS:
        scoreboard.apply(event, 1)
        scoreboard._check()
    assert scoreboard.served() == ["cup", "laps", "week", "year"]
    assert rows(scoreboard.boards["cup"]) == [(1, "ann", 100), (2, "ben", 0)]
    assert rows(scoreboard.boards["laps"]) == [(1, "ann", 40), (2, "ben", SCORE_MAX)]
    assert rows(scoreboard.boards["year"]) == rows(scoreboard.boards["week"]) == []
    assert scoreboard.boards["cup"].definition == BoardDefinition(BoardRules({"WIN": 5}), begun_ms=MS, closed=True)
    ended = {each.ranking.board_id: each for each in scoreboard.take_ended()}
    assert {board_id: rows_of(each) for board_id, each in ended.items()} == {
        "week": [("ann", 1), ("ben", 1)],
        "year": [("ann", 1), ("ben", 1)],
    }
    first, second, third = (
        Period(name, WEEK_MS + n * 7 * DAY_MS, WEEK_MS + (n + 1) * 7 * DAY_MS)
        for n, name in enumerate(("2025-W51", "2025-W52", "2026-W01"))
    )
    assert scoreboard.boards["week"].definition == BoardDefinition(
        WEEK, third.begins_ms, third, (PastPeriod(first, 20, 2), PastPeriod(second, 20, 0))
    )
    reset = Period("2025-12-30", MS, WEEK_MS + 15 * DAY_MS)
    assert scoreboard.boards["year"].definition == BoardDefinition(
        YEAR, WEEK_MS + 15 * DAY_MS, None, (PastPeriod(reset, 21, 2),)
    )


def test_the_golden_freeze_and_reveal_are_what_the_public_sees() -> None:
    """A plan, a freeze, a row that is revealed and the end of it: after each event the board says so."""
    scoreboard = Scoreboard(Rules({}))
    found = {}
    for event in EVENTS:
        scoreboard.apply(event, 1)
        week = scoreboard.boards.get("week")
        if week is not None and week.definition is not None:
            definition = week.definition
            found[event.seq] = definition.freeze_at_ms, definition.frozen, len(week), len(week.public)
    assert found[15] == (MS + 7, None, 1, 1)
    assert found[16] == (None, Frozen(16, MS + 6), 1, 1)
    assert found[17] == (None, Frozen(16, MS + 6), 2, 1)
    assert found[18] == (None, Frozen(16, MS + 6, 1), 2, 2)
    assert found[19] == (None, None, 2, 2)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: f"{event.seq}-{type(event).__name__}")
def test_an_event_has_one_record(event: Event) -> None:
    """What is decoded is encoded to the same bytes."""
    body = encode_events([event])
    assert decode_events(body, 1, event.time_ms, [event.seq]) == [event]


def test_rules_have_only_what_is_not_the_default() -> None:
    """So a rule that is added later changes no record of now."""
    assert encode_events([BoardPut(1, MS, "b", BoardRules({"W": 1}), "c")]) == (
        b"\x95\x07\xa1b\x81\xa6points\x81\xa1W\x01\xa1c\xc0"
    )


def with_one(event: Event, place: int, value: object) -> bytes:
    """The record of an event with another value in one place."""
    fields = msgspec.msgpack.decode(encode_events([event]))
    fields[place] = value
    return msgspec.msgpack.encode(fields)


def fields_of(kind: type[Event]) -> list[object]:
    """The fields of the record of the first event of a kind."""
    event = next(event for event in EVENTS if isinstance(event, kind))
    fields: list[object] = msgspec.msgpack.decode(encode_events([event]))
    return fields


FED = EVENTS[3]
REFUSED: dict[str, bytes] = {
    "a new score below 0": with_one(FED, 7, -1),
    "a new score too high": with_one(FED, 7, SCORE_MAX + 1),
    "a value too high": with_one(FED, 8, SCORE_MAX + 1),
    "chosen is no boolean": with_one(FED, 9, 1),
    "a fed board with a field more": with_one(FED, 10, [["year", 1, 1, 1, 1]]),
    "a fed board with a field less": with_one(FED, 10, [["year", 1, 1]]),
    "rules with an unknown field": with_one(EVENTS[0], 2, {"points": {"WIN": 1}, "colour": "red"}),
    "rules without points": with_one(EVENTS[0], 2, {"title": "x"}),
    "an unknown mode": with_one(EVENTS[0], 2, {"points": {"WIN": 1}, "score": "median"}),
    "a range with a field more": with_one(EVENTS[0], 2, {"points": {"WIN": {"min": 1, "max": 2, "step": 1}}}),
    "a closed board with a field more": b"\x94\x08\xa1b\xa1c\x01",
    "rules with an unknown period": with_one(EVENTS[12], 2, {"points": {"WIN": 1}, "schedule": {"every": "year"}}),
    "a schedule with a field more": with_one(
        EVENTS[12], 2, {"points": {"WIN": 1}, "schedule": {"every": "week", "skip": 1}}
    ),
    "a period with a field more": with_one(EVENTS[12], 4, ["2025-W51", 1, 2, 3]),
    "a period with a field less": with_one(EVENTS[12], 4, ["2025-W51", 1]),
    "a board that is put with a field more": b"\x96\x07\xa1b\x81\xa6points\x80\xa1c\xc0\xc0",
    "a board that is put with a field less": b"\x94\x07\xa1b\x81\xa6points\x80\xa1c",
    "a change of periods with a field less": msgspec.msgpack.encode(fields_of(PeriodChanged)[:-1]),
    "a change of periods with a field more": msgspec.msgpack.encode([*fields_of(PeriodChanged), 1]),
    "a freeze with a field more": b"\x95\x0a\xa1b\xc0\xa1c\x01",
    "a freeze with a field less": b"\x93\x0a\xa1b\xc0",
    "the end of a freeze with a field more": b"\x94\x0b\xa1b\xa1c\x01",
    "a reveal with a field more": b"\x95\x0c\xa1b\x01\xa1c\x01",
    "a type of later": b"\x93\x0d\xa1b\xa1c",
}


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED)
def test_a_record_that_a_newer_version_wrote_is_refused(body: bytes) -> None:
    """An unknown type, another number of fields, an unknown key or mode: never passed over, never guessed."""
    with pytest.raises(msgspec.DecodeError):
        decode_events(body, 1, MS, [1])
