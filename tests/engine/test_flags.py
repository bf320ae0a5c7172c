"""Flags: the record, the state that it makes, what is decided, and that an image has it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import trio

from engine.board_rules import Rules, rules_of_points
from engine.commands import Command, FlagReceipt, PutFlag, Receipt
from engine.event_records import decode_events, encode_events
from engine.events import Event, FlagPut, Incremented
from engine.flags import FlagOff, Flags, flags_in
from engine.record import events_of
from engine.scoreboard import Scoreboard
from tests.engine.logs import frames_of_segment, segment_of
from tests.engine.model import increment, perform
from tests.engine.test_actor import Bench

LOG_ID = bytes.fromhex("00112233445566778899aabbccddeeff")
MS = 1_765_800_896_000
GOLDEN = Path(__file__).parent / "golden" / "flags" / "00000000000000000001.log"
FRAMES: list[list[Event]] = [
    [Incremented(1, MS, "main", "ann", "a1", 10, "WIN", "backend", 10)],
    [FlagPut(2, MS + 1, "live", False, "öps")],
    [Incremented(3, MS + 2, "main", "ann", "a2", 10, "WIN", "backend", 20)],
    [FlagPut(4, MS + 3, "live", True, "")],
    [FlagPut(5, MS + 4, "live", False, "ops")],
]
EVENTS = [event for events in FRAMES for event in events]
RULES = rules_of_points({"main": {"ACTION_COMPLETED": 10}})


def test_the_segment_with_flags_is_as_it_always_was() -> None:
    """Written once, read for ever."""
    data = GOLDEN.read_bytes()
    assert data == segment_of(FRAMES, LOG_ID)
    assert [event for frame in frames_of_segment(data) for event in events_of(frame)] == EVENTS


def test_the_last_event_says_how_a_flag_is() -> None:
    """After each event of the golden log. A state that was made from an image says the same."""
    scoreboard, told = Scoreboard(Rules({})), []
    for event in EVENTS:
        scoreboard.apply(event, 1)
        scoreboard._check()
        image = scoreboard.capture()
        again = Scoreboard.from_image(Rules({}), image)
        assert again.flags == scoreboard.flags
        assert [name for name, _ in image.parts] == ([] if scoreboard.flags.live else ["flags"])
        told.append((scoreboard.flags.live, scoreboard.flags.since_ms("live")))
    assert told == [(True, None), (False, MS + 1), (False, MS + 1), (True, None), (False, MS + 4)]


def test_a_fetched_state_brings_its_flags() -> None:
    """A replica that began anew forgets its own."""
    mine, theirs = Scoreboard(RULES), Scoreboard(RULES)
    perform(theirs, [PutFlag("live", False, "ops")])
    mine.take_over(theirs)
    assert not mine.flags.live
    mine.take_over(Scoreboard(RULES))
    assert mine.flags.live


def test_a_flag_that_is_so_already_logs_nothing() -> None:
    """The answer has the position of the state then, else that of the event."""
    scoreboard = Scoreboard(RULES)
    wanted = [(True, False, 0), (False, True, 1), (False, False, 1), (True, True, 2), (True, False, 2)]
    for enabled, applied, seq in wanted:
        [told] = perform(scoreboard, [PutFlag("live", enabled, "ops")], MS)
        assert told == FlagReceipt("live", enabled, applied, scoreboard.epoch, seq)
        assert (scoreboard.flags.live, scoreboard.seq) == (enabled, seq)


async def test_a_flag_has_a_frame_of_its_own() -> None:
    """Whoever looks at a frame that begins with an increment need not look for a flag in it."""
    bench = Bench()
    async with trio.open_nursery() as nursery:
        sent: list[Command] = [increment("ann", "one"), PutFlag("live", False, "ops"), increment("ann", "two")]
        submissions = [bench.actor.submit_nowait([command], lambda _: None) for command in sent]
        await nursery.start(bench.actor.run)
        await bench.actor.drain()
    assert [[type(event) for event in frame] for frame in bench.log.frames] == [[Incremented], [FlagPut], [Incremented]]
    kinds = [type(outcome) for submission in submissions for outcome in submission.outcomes]
    assert kinds == [Receipt, FlagReceipt, Receipt]


def test_an_unknown_flag_is_refused() -> None:
    """A newer version wrote it, in a log or in a snapshot: a node must not pass over what it can't obey."""
    for fields in ([22, "page", False, "ops"], [22, "live", 0, "ops"], [22, "live", False], [22, "live", False, "", 1]):
        with pytest.raises(msgspec.DecodeError):
            decode_events(msgspec.msgpack.encode(fields), 1, MS, [1])
    [event] = decode_events(encode_events([EVENTS[1]]), 1, MS + 1, [2])
    assert event == EVENTS[1]
    good = Flags((FlagOff("live", MS),))
    assert flags_in(good.parts()) == good
    for off in ([["page", MS]], [["live", "now"]], [["live"]]):
        with pytest.raises(msgspec.DecodeError):
            flags_in((("flags", msgspec.msgpack.encode(off)),))
