"""Bounds of time in a log whose clock was corrected, and retention under clocks that are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.batch import Batch
from engine.clock import ClockReading, GivenClock
from engine.commands import Increment
from engine.errors import LogDamaged
from engine.events import ClockCorrected
from snapshots.restore import RestoreRefused, restore
from snapshots.retention import KeptSegment, KeptSnapshot, Plan, Removed, decide
from snapshots.state import read_state
from tests.snapshots.directories import BEGUN_MS, RULES, InlineDisk, Leader, Told, damage_frame, snapshot_files
from tests.snapshots.restoring import check, run
from tests.snapshots.serving import DAY_MS, Served, serving

YEAR_MS = 365 * DAY_MS
SECOND = 1_000


def write(leader: Leader, time_ms: int) -> None:
    """Write one event while the clock shows this time."""
    batch = Batch(leader.scoreboard, BEGUN_MS + time_ms)
    seq = leader.scoreboard.seq + 1
    batch.decide([Increment(f"user-{seq % 5}", f"action-{seq}", "ACTION_COMPLETED", "main", "backend")])
    leader.log.append(batch.events, leader.scoreboard.epoch)
    batch.settle()


def correct(leader: Leader, time_ms: int, *, from_seq: int, ahead_ms: int = YEAR_MS) -> None:
    """Log a correction, as the actor does."""
    event = ClockCorrected(leader.scoreboard.seq + 1, BEGUN_MS + time_ms, from_seq, ahead_ms, "tested")
    leader.log.append([event], leader.scoreboard.epoch)
    leader.scoreboard.apply(event, leader.scoreboard.epoch)


def poisoned(directory: Path, *, snapshots: bool = True) -> None:
    """Make a log of one event a second, whose clock was a year ahead twice.

    Seq 2 and 3 are of a process whose clock was wrong from the start; 7 and 8 of a step that lasted. Each ends with a
    correction, 4 and 9. There is a snapshot in each wrong year, and one of the right times.
    """
    leader = Leader(directory)
    write(leader, 1 * SECOND)
    write(leader, YEAR_MS + 2 * SECOND)
    write(leader, YEAR_MS + 3 * SECOND)
    if snapshots:
        leader.snapshot()
    correct(leader, 4 * SECOND, from_seq=4)
    write(leader, 5 * SECOND)
    write(leader, 6 * SECOND)
    if snapshots:
        leader.snapshot()
    write(leader, YEAR_MS + 7 * SECOND)
    if snapshots:
        leader.snapshot()
    write(leader, YEAR_MS + 8 * SECOND)
    correct(leader, 9 * SECOND, from_seq=7)
    write(leader, 10 * SECOND)
    leader.close()


@pytest.mark.parametrize("snapshots", [True, False])
def test_a_restore_up_to_a_moment_takes_what_happened_before_it(tmp_path: Path, snapshots: bool) -> None:
    """At each second. When 2 and 3 happened nobody knows, but it was before the correction at second 4."""
    source = tmp_path / "source"
    poisoned(source, snapshots=snapshots)
    for second, seq in [(1, 1), (2, 1), (3, 1), (4, 4), (5, 5), (6, 6), (7, 7), (8, 8), (9, 9), (10, 10), (11, 10)]:
        for ms, expected in ((0, seq), (-1, seq - 1 if second not in (2, 3, 4, 11) else {4: 1, 11: 10}.get(second, 1))):
            until_ms = BEGUN_MS + second * SECOND + ms
            if expected == 0:
                with pytest.raises(RestoreRefused, match="no event at or before"):
                    run(source, tmp_path / f"to-{second}{ms}", until_ms=until_ms)
                continue
            report = run(source, tmp_path / f"to-{second}{ms}", until_ms=until_ms)
            assert report.seq == expected, (second, ms)
            state, tail = read_state(InlineDisk(), str(source), RULES, until_ms=until_ms, tell=Told())
            assert (state.seq, tail.seq) == (expected, expected)
            check(source, tmp_path / f"to-{second}{ms}", report)


def test_a_restored_directory_is_served_with_true_times_again(tmp_path: Path) -> None:
    """The cut is in a wrong year, and its correction stays behind; the next start corrects the clock anew."""
    poisoned(tmp_path / "source")
    now_ms = BEGUN_MS + 20 * SECOND
    report = restore(
        InlineDisk(), str(tmp_path / "source"), str(tmp_path / "target"), until_ms=BEGUN_MS + 7 * SECOND,
        clock_ms=lambda: now_ms, tell=Told(),
    )  # fmt: skip
    assert report.seq == 7
    leader = Leader(tmp_path / "target")
    assert leader.scoreboard.time_ms > now_ms
    leader.close()


def test_damage_after_the_bound_does_not_matter_and_damage_at_it_is_refused(tmp_path: Path) -> None:
    """As for a bound of a seq: what can't be read is never passed over."""
    source = tmp_path / "source"
    poisoned(source, snapshots=False)
    damage_frame(source, 9)
    report = run(source, tmp_path / "until-6", until_ms=BEGUN_MS + 6 * SECOND)
    assert report.seq == 6
    with pytest.raises(LogDamaged, match="--until-seq 8"):
        run(source, tmp_path / "until-10", until_ms=BEGUN_MS + 10 * SECOND + 2 * YEAR_MS)


def test_a_bound_before_the_log_begins_needs_a_snapshot_from_before_it(tmp_path: Path) -> None:
    """The first segment is gone, with the snapshots that it continued: nothing can be restored to that moment."""
    source = tmp_path / "source"
    poisoned(source)
    for path in snapshot_files(source)[1:]:
        path.unlink()
    report = run(source, tmp_path / "good", until_ms=BEGUN_MS + 4 * SECOND)
    assert report.seq == 4


# Retention

NOW_MS = BEGUN_MS + 200 * DAY_MS


def kept(last_days: list[int], *, trusted: bool = True, keep_days: int = 90) -> Plan:
    """Decide about segments of 100 events whose last ones are so many days old, and one that is written to."""
    count = len(last_days)
    log = [
        KeptSegment(f"segment-{n}", 100 * n + 1, 100 * n + 100, sealed=n < count, compressed=True)
        for n in range(count + 1)
    ]
    snapshots = [KeptSnapshot(f"snapshot-{n}", 100 * count + n, valid=True) for n in range(2)]
    return decide(
        snapshots,
        log,
        keep=2,
        last_ms=lambda segment: NOW_MS - last_days[segment.first_seq // 100] * DAY_MS,
        keep_ms=keep_days * DAY_MS,
        now=ClockReading(NOW_MS, 0, 0.0, trusted=trusted),
    )


def test_what_is_old_goes_with_its_age() -> None:
    """By a clock that was steady for an hour."""
    plan = kept([100, 95, 80, 70])
    assert plan.remove_segments == ["segment-0", "segment-1"]
    assert plan.ages_ms == {"segment-0": 100 * DAY_MS, "segment-1": 95 * DAY_MS}


def test_a_clock_that_is_not_trusted_removes_nothing() -> None:
    """However old everything seems to be."""
    plan = kept([1000, 1000, 1000], trusted=False)
    assert (plan.remove_segments, plan.first_seq) == ([], 1)


def test_a_segment_with_a_time_in_the_future_goes_with_the_one_after_it() -> None:
    """It was written by a wrong clock, and would keep all later ones for a year; alone it proves nothing."""
    assert kept([100, -365, 95, 80]).ages_ms == {
        "segment-0": 100 * DAY_MS,
        "segment-1": 95 * DAY_MS,
        "segment-2": 95 * DAY_MS,
    }
    assert kept([-365, -365]).remove_segments == []
    assert kept([-365, 80]).remove_segments == []


async def test_removals_are_told_with_seqs_and_age_and_wait_for_a_trusted_clock(tmp_path: Path) -> None:
    """The clock is 100 days ahead for some seconds: nothing goes. An hour of steady time later what is old goes."""
    removed: list[Removed] = []
    clock = SetClock()
    async with serving(
        Served(tmp_path, log_keep_seconds=90 * 86_400, clock=clock, on_removed=removed.append)
    ) as served:
        for _ in range(3):
            await served.write(120)
            await served.checkpointer.take()
        clock.at_ms += 100 * DAY_MS
        clock.trusted = False
        await served.write(120)
        await served.checkpointer.take()
        assert removed == []
        assert served.opened.log.segments()[0].first_seq == 1
        clock.trusted = True
        await served.write(1)
        await served.checkpointer.take()
        infos = served.opened.log.segments()
    assert removed
    assert removed[0].first_seq == 1
    assert removed[-1].last_seq + 1 == infos[0].first_seq
    assert {one.age_ms for one in removed} == {100 * DAY_MS}


class SetClock(GivenClock):
    """A clock that the test sets, and trusts or not."""

    def __init__(self) -> None:
        super().__init__(lambda: self.at_ms)
        self.at_ms = BEGUN_MS
        self.trusted = True

    def read(self) -> ClockReading:
        """See `Clock`."""
        return ClockReading(self.at_ms, 0, 0.0, trusted=self.trusted)
