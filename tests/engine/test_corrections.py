"""When a leader corrects the clock in the log, and which times the logged times stand for."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.board_rules import rules_of_points
from engine.clock import ClockBounds, SteadyClock
from engine.corrections import Corrector, TrueTimes
from engine.events import ClockCorrected, Event, Incremented
from engine.record import (
    FrameFault,
    SegmentHeader,
    chain_start,
    correction_of,
    events_of,
    pack_frame,
    pack_segment_header,
    unpack_frame,
    unpack_header,
)
from engine.scoreboard import Scoreboard
from server.replication.sharding import Shard
from tests.engine.logs import frames_of_segment

BEGUN_MS = 1_765_800_000_000
YEAR_MS = 365 * 86_400_000
GOLDEN = Path(__file__).parent / "golden" / "version-1-corrected" / "00000000000000000001.log"
LOG_ID = bytes.fromhex("00112233445566778899aabbccddeeff")


class Writer:
    """A leader's times without its log: a clock that a test sets, and the events that it would log."""

    def __init__(self) -> None:
        self.true_s = 1_000.0  # monotonic
        self.off_ms = 0
        self.logged: list[tuple[int, int, int]] = []
        """Seq, logged time, and the true time."""
        self.corrections: list[ClockCorrected] = []
        self.restart()

    @property
    def true_ms(self) -> int:
        return BEGUN_MS + int(self.true_s * 1000)

    def restart(self) -> None:
        self.clock = SteadyClock(self.true_ms + self.off_ms, self.true_s)
        self.corrector = Corrector(ClockBounds())

    def pass_time(self, seconds: int) -> None:
        """A second at a time, as the process looks at its clock."""
        for _ in range(seconds):
            self.true_s += 1
            self.clock.read(self.true_ms + self.off_ms, self.true_s)

    def write(self, events: int = 1) -> None:
        """Log events, ten seconds apart."""
        for _ in range(events):
            self.pass_time(10)
            reading = self.clock.read(self.true_ms + self.off_ms, self.true_s)
            seq, time_ms, _ = self.logged[-1] if self.logged else (0, 0, 0)
            correction = self.corrector.due(reading, seq, time_ms)
            if correction is not None:
                assert correction.seq == seq + 1
                self.corrections.append(correction)
                seq, time_ms = correction.seq, correction.time_ms
                self.logged.append((seq, time_ms, self.true_ms))
            self.logged.append((seq + 1, max(time_ms, reading.now_ms), self.true_ms))

    def check_exact(self) -> None:
        """The corrected times are the true ones, to the second, and never go back."""
        times = TrueTimes(self.corrections)
        found = [times.of(seq, time_ms) for seq, time_ms, _ in self.logged]
        wrong = [
            (seq, time - true_ms)
            for (seq, _, true_ms), time in zip(self.logged, found, strict=True)
            if abs(time - true_ms) > 1_000 and seq not in {one.seq for one in self.corrections}
        ]
        assert not wrong


def test_a_clock_that_is_right_is_never_corrected() -> None:
    """Also not at a restart, and not for a clock that lags behind the log by less than a second."""
    writer = Writer()
    writer.write(3)
    writer.off_ms = -900
    writer.restart()
    writer.write(3)
    assert writer.corrections == []


def test_a_step_that_does_not_last_reaches_no_event() -> None:
    """A year ahead, a year back, each for 50 seconds: five events each have their true time."""
    writer = Writer()
    for off_ms in (YEAR_MS, 0, -YEAR_MS, 0):
        writer.off_ms = off_ms
        writer.write(5)
    assert writer.corrections == []
    assert all(abs(time_ms - true_ms) < 10 for _, time_ms, true_ms in writer.logged)


def test_after_a_restart_with_a_clock_that_is_right_the_times_are_true_again() -> None:
    """A process whose clock was a year ahead wrote one event; nobody knows when, but it was before the next start."""
    writer = Writer()
    writer.off_ms = YEAR_MS
    writer.restart()
    writer.write()
    writer.off_ms = 0
    writer.restart()
    writer.write(4)
    [correction] = writer.corrections
    assert (correction.seq, correction.from_seq) == (2, 2)
    assert abs(correction.ahead_ms - YEAR_MS) < 20_000
    assert all(abs(time_ms - true_ms) < 10 for _, time_ms, true_ms in writer.logged[1:])
    assert TrueTimes(writer.corrections).of(*writer.logged[0][:2]) == correction.time_ms


@pytest.mark.parametrize("off_ms", [YEAR_MS, 5_000])
def test_a_wrong_step_forward_that_lasted_is_known_to_the_event_when_it_is_repaired(off_ms: int) -> None:
    """The events of the wrong hour have wrong times in the log, and the correction says by how much."""
    writer = Writer()
    writer.write(3)
    writer.off_ms = off_ms
    writer.write(20)
    assert abs(writer.logged[-1][1] - writer.true_ms - off_ms) < 10, "it has lasted, and is believed"
    writer.off_ms = 0
    writer.write(20)
    [correction] = writer.corrections
    assert correction.from_seq <= 11
    assert abs(correction.ahead_ms - off_ms) < 1_000
    writer.check_exact()
    assert abs(writer.logged[-1][1] - writer.true_ms) < 10


def test_a_wrong_step_back_that_lasted_is_undone_when_it_is_repaired() -> None:
    """Its correction is void then: what was logged before it keeps its times, what came after is put right."""
    writer = Writer()
    writer.write(3)
    writer.off_ms = -YEAR_MS
    writer.write(20)
    writer.off_ms = 0
    writer.write(20)
    back, undone = writer.corrections
    assert (undone.from_seq, undone.ahead_ms) == (back.seq, -back.ahead_ms)
    assert "wrong" in undone.note
    writer.check_exact()


def test_a_clock_that_is_behind_at_the_start_and_repaired_soon_spoils_no_time() -> None:
    """As on a machine without a battery: the log seems ahead by a year, until a time server is reached."""
    writer = Writer()
    writer.write(5)
    writer.off_ms = -YEAR_MS
    writer.restart()
    writer.write(8)
    writer.off_ms = 0
    writer.write(20)
    assert [one.from_seq for one in writer.corrections] == [6, 6]
    writer.check_exact()


def test_a_step_forward_long_after_a_correction_does_not_undo_it() -> None:
    """The clock was right for an hour since: it is trusted, and the step says nothing of what was before."""
    writer = Writer()
    writer.off_ms = YEAR_MS
    writer.restart()
    writer.write()
    writer.off_ms = 0
    writer.restart()
    writer.write(400)
    writer.off_ms = 2 * YEAR_MS
    writer.write(20)
    assert len(writer.corrections) == 1


def test_a_false_repair_is_undone_as_well() -> None:
    """A right correction, then a wrong step forward that seems to undo it, then the right time again."""
    writer = Writer()
    writer.off_ms = 20_000
    writer.restart()
    writer.write()
    writer.off_ms = 0
    writer.restart()
    writer.write(10)
    writer.off_ms = YEAR_MS
    writer.write(20)
    writer.off_ms = 0
    writer.write(20)
    assert len(writer.corrections) == 3
    times = TrueTimes(writer.corrections)
    for seq, time_ms, true_ms in writer.logged[2:10]:
        assert abs(times.of(seq, time_ms) - true_ms) < 1_000


def test_everything_before_a_correction_happened_before_its_time() -> None:
    """Worked by hand: the log of the drawing in `engine/corrections.py`, with an older poisoned event before it."""
    times = TrueTimes([ClockCorrected(4, 400, 4, 600, ""), ClockCorrected(9, 900, 7, 5_000, "")])
    assert [times.of(seq, time) for seq, time in [(2, 200), (3, 1_000), (4, 400), (5, 500)]] == [200, 400, 400, 500]
    assert [times.of(seq, time) for seq, time in [(6, 600), (7, 5_700), (8, 6_500), (9, 900)]] == [600, 700, 900, 900]


def test_a_correction_changes_nothing_but_the_time_of_the_state() -> None:
    """Also on a shard, which is sent it as it is sent the events of users."""
    for follow in (False, True):
        scoreboard = Scoreboard(rules_of_points({"main": {"WON": 10}}))
        scoreboard.apply(Incremented(1, 5_000, "main", "anna", "a", 10, "WON", "c", 10), 1)
        before = scoreboard.capture()
        event = ClockCorrected(2, 1_000, 1, 4_000, "stepped back")
        assert Shard(1, 2).wants(event)
        assert Shard(2, 2).wants(event)
        if follow:
            scoreboard.follow(event, 1, "main".__eq__)
        else:
            scoreboard.apply(event, 1)
        after = scoreboard.capture()
        assert (after.seq, after.time_ms, after.epochs) == (2, 1_000, before.epochs)
        assert (after.boards, after.users.count, after.actions.count) == (before.boards, 0, 1)


# The record

EVENTS: list[Event] = [
    Incremented(1, BEGUN_MS + YEAR_MS, "main", "123", "action-1", 10, "WON", "backend", 10),
    ClockCorrected(2, BEGUN_MS, 2, YEAR_MS, "the log is ahead of the clock"),
    Incremented(3, BEGUN_MS + 5, "main", "123", "action-2", 10, "WON", "backend", 20),
    ClockCorrected(4, BEGUN_MS + YEAR_MS, 2, -YEAR_MS, "the correction of seq 2 was wrong"),
]


def golden() -> bytes:
    """Pack the golden segment anew."""
    previous = chain_start(LOG_ID)
    data = pack_segment_header(SegmentHeader(LOG_ID, 1, 1, previous, 0))
    for event in EVENTS:
        frame = pack_frame([event], epoch=1, previous=previous)
        previous = unpack_header(frame).checksum
        data += frame
    return data


def test_the_golden_segment_with_corrections_is_written_and_read_as_ever() -> None:
    """Byte for byte; it is never made anew."""
    data = GOLDEN.read_bytes()
    assert data == golden()
    found = list[Event]()
    for frame in frames_of_segment(data):
        [event] = events_of(frame)
        assert correction_of(frame) == (event if isinstance(event, ClockCorrected) else None)
        found.append(event)
    assert found == EVENTS


def test_a_correction_of_a_newer_version_is_recognised() -> None:
    """With a field more than ours, it is neither damage nor passed over."""
    frame = unpack_frame(pack_frame([EVENTS[1]], epoch=1, previous=0))
    body = b"\x95" + frame.body[1:] + b"\x01"
    newer = type(frame)(1, 2, BEGUN_MS, 1, 0, 0, body)
    with pytest.raises(FrameFault) as caught:
        events_of(newer)
    assert caught.value.newer
    assert correction_of(newer) is None
