"""Crashes at steps of the workload and of recoveries from it: a slice of them (`make crash` does them all)."""

from __future__ import annotations

import pytest

from engine.events import RanksNoted
from tests.sim.boards import short_days
from tests.sim.broken_indexes import BROKEN_INDEXES, NAMED_EARLY, RENAMED_EARLY, TIDIED
from tests.sim.crash import try_share
from tests.sim.crashes import Tally, Workload, try_point
from tests.sim.disk import Moment
from tests.sim.indexed_workload import IndexedWorkload, small_blocks
from tests.sim.runs import cheap_starts
from tests.sim.station import DATA, DAY_MS, NOTE_EVERY_MS

STRIDE = 6
STRIDE_WITHIN_RECOVERY = 251
STRIDE_OF_INDEX = 17
"""One of how many points is tried here: with a crash, with crashes within the recovery, in the life with an index."""

FOUND_BY_CRASHES = (
    (RENAMED_EARLY, "rename /data/actions"),
    (NAMED_EARLY, "sync_directory /data/"),
    (TIDIED, "sync_directory /data/"),
)
"""Faults, and the steps at which a power cut shows them."""


async def test_the_workload_has_what_can_happen_in_the_life_of_a_leader() -> None:
    """Otherwise the crashes would miss the steps that matter."""
    workload = Workload()
    with cheap_starts(), short_days(DAY_MS, NOTE_EVERY_MS):
        await workload.run()
    done = {point.what for point in workload.points}
    for step, directory, ending in (
        ("make_directory", DATA, ""),
        ("create", f"{DATA}/log", ".log.tmp"),
        ("rename", f"{DATA}/log", ".log"),
        ("rename", f"{DATA}/log", ".log.gz"),
        ("remove", f"{DATA}/log", ".log"),
        ("remove", f"{DATA}/log", ".log.gz"),
        ("rename", f"{DATA}/log", ".torn-"),
        ("rename", f"{DATA}/snapshots", ".snapshot"),
        ("remove", f"{DATA}/snapshots", ".snapshot"),
        ("rename", f"{DATA}/periods", ".period"),
        ("rename", "/restored", ""),
        ("sync_directory", "/", ""),
    ):
        for moment in (Moment.BEFORE, Moment.AFTER):
            begin = f"{moment.value} {step} {directory}"
            assert any(what.startswith(begin) and ending in what for what in done), begin + ending
    assert any(what.startswith(Moment.WITHIN.value) for what in done)
    during = {bool(point.flying) for point in workload.points if "/snapshots/" in point.what}
    assert during == {False}, "who writes while a snapshot is taken is done before its next step"
    # Events were written during checkpoints, as by the other thread of a real leader.
    saves = [len(point.plain) for point in workload.points if ".snapshot.tmp" in point.what]
    assert len(set(saves)) > 6
    assert any(isinstance(event, RanksNoted) for point in workload.points for event in point.flying)


def test_a_power_cut_at_any_step_loses_and_doubles_nothing() -> None:
    """Before, within or after it; with all that is unsynced lost, with all of it there, with the machine still on."""
    tally = try_share("leader", 0, STRIDE, depth=0, chances=0)
    assert tally.crashes == 3 * tally.points.total() > 600
    assert tally.recoveries > 2 * tally.crashes
    assert tally.failures > 100


def test_a_power_cut_within_the_recovery_from_a_power_cut_does_no_harm() -> None:
    """Crashes at every step of a recovery; here only from some of the points."""
    tally = try_share("leader", 60, STRIDE_WITHIN_RECOVERY, depth=1, chances=1)
    assert tally.points["recovery"] > 100


async def test_the_workload_of_an_index_has_what_can_happen_to_it() -> None:
    """Files are written, joined, rewritten, made anew and removed, also by a start."""
    workload = IndexedWorkload()
    with cheap_starts(), short_days(DAY_MS, NOTE_EVERY_MS), small_blocks():
        await workload.run()
    written = [
        (point.what.rpartition("/")[2][:21], point.damaged)
        for point in workload.points
        if point.what.startswith(f"{Moment.AFTER.value} rename {DATA}/actions")
    ]
    assert {("0000000000-0000000001", False), ("0000000000-0000000004", False)} < set(written)
    assert sum(damaged for _, damaged in written) == 2, "made anew: one that was missing, one that was damaged"
    assert len(written) > len(set(written)), "an erasure rewrites files"
    removal = f"{Moment.AFTER.value} remove {DATA}/actions"
    assert any(point.what.startswith(removal) for point in workload.points)


def test_a_power_cut_at_any_step_of_sealing_loses_and_doubles_no_action() -> None:
    """Of joining, making anew and forgetting too."""
    tally = try_share("index", 0, STRIDE_OF_INDEX, depth=0, chances=0)
    assert tally.crashes == 3 * tally.points.total() > 120
    assert tally.failures > 20


@pytest.mark.parametrize(("fault", "step"), FOUND_BY_CRASHES, ids=[fault for fault, _ in FOUND_BY_CRASHES])
async def test_crashes_find_a_broken_index(fault: str, step: str) -> None:
    """A power cut at one of the steps that matter is enough."""
    broken = next(variant for variant in BROKEN_INDEXES if variant.name == fault)
    with broken.patched(), cheap_starts(), short_days(DAY_MS, NOTE_EVERY_MS), small_blocks():
        workload = IndexedWorkload()
        await workload.run()
        points = [(number, point) for number, point in enumerate(workload.points) if step in point.what]
        found = False
        for number, point in points:
            try:
                await try_point(point, number, Tally(), depth=0, chances=0)
            except AssertionError:
                found = True
                break
    assert found, f"{len(points)} power cuts did not find out that {fault}"
