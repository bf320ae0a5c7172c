"""The clock of a process: what it notices, tells and counts; and a leader whose clock is set wrongly."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import structlog
import trio
import trio.testing
from structlog.testing import capture_logs

from engine.disk import RealDisk
from engine.events import ClockCorrected, Event
from engine.log_reader import scan
from engine.record import events_of
from server.metrics import Metrics
from server.node.clock import NodeClock, tell_correction, wall_clock_ms
from snapshots.restore import RestoreReport, restore
from tests.server.node.test_start import client_of, config_of, lines_of, serve_and_use

YEAR_MS = 365 * 86_400_000


class Machine:
    """The clocks of a machine. `off_ms` is what was done to the wall clock."""

    def __init__(self) -> None:
        self.off_ms = 0
        self.metrics = Metrics()
        self.clock = NodeClock(self.metrics, wall_ms=self.wall_ms, monotonic_s=trio.current_time)

    def wall_ms(self) -> int:
        return 1_765_800_000_000 + int(trio.current_time() * 1000) + self.off_ms


@pytest.fixture(autouse=True)
def _log_config() -> Any:
    before = structlog.get_config()
    yield
    structlog.configure(**before)


async def test_a_step_is_noticed_without_a_reader_and_counted(autojump_clock: trio.testing.MockClock) -> None:
    """Within a second: a warning with its size, the metric, and the offset while it is not believed."""
    machine, taken = Machine(), list[float]()
    machine.clock.on_taken(lambda: taken.append(trio.current_time()))
    with capture_logs() as lines:
        async with trio.open_nursery() as nursery:
            await nursery.start(machine.clock.run)
            await trio.sleep(5)
            machine.off_ms = YEAR_MS
            await trio.sleep(2)
            assert [(line["event"], line["log_level"], line["step_seconds"]) for line in lines] == [
                ("clock_stepped", "warning", YEAR_MS / 1000)
            ]
            assert machine.metrics.value("scoreboard_clock_steps_total") == 1
            assert machine.metrics.value("scoreboard_clock_offset_seconds") == YEAR_MS / 1000
            machine.off_ms = 0
            await trio.sleep(2)
            assert lines[1]["event"] == "clock_step_returned"
            assert machine.metrics.value("scoreboard_clock_offset_seconds") == 0
            machine.off_ms = -YEAR_MS
            await trio.sleep(70)
            assert [line["event"] for line in lines[2:]] == ["clock_stepped", "clock_step_taken_over"]
            assert len(taken) == 1
            assert machine.metrics.value("scoreboard_clock_steps_total") == 2
            nursery.cancel_scope.cancel()


async def test_a_clock_that_steps_all_the_time_does_not_fill_the_log(autojump_clock: trio.testing.MockClock) -> None:
    """Steps are told once a second, the newest ones; all are counted."""
    machine = Machine()
    with capture_logs() as lines:
        for number in range(1_000):
            machine.off_ms = number * 5_000
            machine.clock.read()
        machine.clock.look()
    assert len(lines) == 16
    assert machine.metrics.value("scoreboard_clock_steps_total") == 999


def test_a_correction_is_told_with_its_reason() -> None:
    """If the log is ahead at a start, that is a line of its own."""
    with capture_logs() as lines:
        tell_correction(ClockCorrected(7, 1_000, 7, 5_000, "the log is ahead of the clock"))
        tell_correction(ClockCorrected(9, 1_000, 8, 5_000, "stepped back"))
    assert [line["event"] for line in lines] == ["log_ahead_of_clock", "clock_corrected", "clock_corrected"]
    assert lines[0]["ahead_seconds"] == 5.0
    assert lines[2]["from_seq"] == 8


# A whole leader


class Wall:
    """The wall clock of this machine, set by a test."""

    def __init__(self) -> None:
        self.off_ms = 0

    def ms(self) -> int:
        """What it shows."""
        return self.true_ms + self.off_ms

    @property
    def true_ms(self) -> int:
        return wall_clock_ms()


async def write(directory: Path, wall: Wall, names: str, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """Serve for as long as it takes to write an event for each letter; give the lines of the log.

    A letter's clock: `w` is written while the clock is a year ahead.
    """

    async def use(url: str) -> None:
        async with client_of(url) as client:
            for name in names:
                if name != names[0] and "w" in names:
                    wall.off_ms = YEAR_MS if name == "w" else 0
                await trio.sleep(0.05)
                answer = await client.post("/scores/increment", {"userId": name, "actionId": f"{name}-{wall.true_ms}"})
                assert answer.status == 200
        signal.raise_signal(signal.SIGTERM)

    def made(metrics: Metrics) -> NodeClock:
        return NodeClock(metrics, wall_ms=wall.ms)

    with patch("server.node.serving.NodeClock", made):
        assert await serve_and_use(config_of(directory), use) == 0
    return lines_of(capsys)


def events_in(directory: Path) -> list[Event]:
    return [event for frame in scan(RealDisk(), f"{directory}/log") for event in events_of(frame)]


def restored(directory: Path, target: Path, until_ms: int) -> RestoreReport:
    return restore(
        RealDisk(), str(directory), str(target), until_ms=until_ms, clock_ms=lambda: until_ms, tell=lambda _: None
    )


async def test_a_clock_that_is_a_year_ahead_for_one_event_leaves_all_times_true(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The clock is a year ahead for one event of a running leader, and right again: five events have true times.

    A restore up to a moment takes what happened before it.
    """
    wall, data = Wall(), tmp_path / "data"
    began_ms = wall.true_ms
    lines = await write(data, wall, "aw", capsys)
    assert [line["event"] for line in lines if "clock" in line["event"]] in ([], ["clock_stepped"])
    wall.off_ms = 0
    between_ms = wall.true_ms
    await trio.sleep(0.01)
    lines = await write(data, wall, "bcd", capsys)
    events = events_in(data)
    assert [type(event).__name__ for event in events] == ["BoardPut"] + ["Incremented"] * 5
    assert all(began_ms <= event.time_ms <= wall.true_ms + 50 for event in events)
    assert restored(data, tmp_path / "all", wall.true_ms + 50).seq == 6
    assert restored(data, tmp_path / "two", between_ms).seq == 3


async def test_a_log_that_is_ahead_of_the_clock_is_corrected_at_the_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A whole life of a leader with a clock a year ahead; the next start says so, and later times are true again."""
    wall, data = Wall(), tmp_path / "data"
    wall.off_ms = YEAR_MS
    await write(data, wall, "a", capsys)
    wall.off_ms = 0
    lines = await write(data, wall, "bc", capsys)
    ahead = next(line for line in lines if line["event"] == "log_ahead_of_clock")
    assert ahead["level"] == "warning"
    assert abs(ahead["ahead_seconds"] - YEAR_MS / 1000) < 60
    between_ms = wall.true_ms
    await trio.sleep(0.01)
    lines = await write(data, wall, "d", capsys)
    assert [line for line in lines if "clock" in line["event"]] == []
    events = events_in(data)
    assert [type(event).__name__ for event in events] == [
        "BoardPut",
        "Incremented",
        "ClockCorrected",
        "Incremented",
        "Incremented",
        "Incremented",
    ]
    assert all(event.time_ms <= wall.true_ms + 50 for event in events[2:])
    assert restored(data, tmp_path / "four", between_ms).seq == 5
    assert restored(data, tmp_path / "all", wall.true_ms + 50).seq == 6
