"""Simulated runs: a slice of them, the same run from the same seed, and broken variants that must fail."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter

import pytest

from tests.seeds import first_seed, in_ci
from tests.sim.__main__ import main
from tests.sim.seeds import SEARCHED, SEEDS, SOUGHT
from tests.sim.variant import Variant
from tests.sim.variants import BROKEN
from tests.sim.world import simulate

RUNS = in_ci(60, 200)
CANARY_RUNS_MAX = 400
WITH_REPLICAS = 1_145
"""A run with a replica that becomes the leader."""

EVERYTHING_SEEN = {
    "applied", "duplicates", "CONFLICT", "INVALID_REQUEST", "OUTCOME_UNKNOWN", "recovered in flight", "TORN_TAIL",
    "UNFINISHED_FILE", "boards shown", "scoreboard_snapshot", "scoreboard_update", "scoreboard_delta", "receipts read",
    "ended by cut", "ended by kill", "ended by stop", "power cuts at a step", "kills at a step", "slow steps",
    "error of sync", "error of write", "full of write", "bits flipped", "refused after a flip", "damage told",
    "messages lost", "requests doubled", "requests without an answer", "network cuts", "viewers cut off", "restored",
    "writes that failed", "starts that failed", "lines opened", "lines cut", "snapshots fetched",
    "replicas started", "events followed", "replica disconnected", "replica ended by cut", "replica ended by kill",
    "replica ended by stop", "reads of a replica", "reads that came too early", "stale reads", "viewers refused",
    "replicas equal in the end", "promotions", "demotions", "lock lost", "segment lost", "directory lost", "DISK_FULL",
    "no room to preallocate", "no room to create", "clock corrections", "events under a wrong clock",
    "times judged", "times put right", "states read at a time",
    "loops named", "rivals settled", "BoardPut", "BoardClosed", "PeriodChanged", "BoardFrozen", "BoardUnfrozen",
    "RowsRevealed", "RanksNoted", "BOARD_CLOSED", "periods that passed", "frozen boards shown",
    "receipts hidden by a freeze", "rows that moved", "scoreboard_period", "past periods shown",
    "reviews read", "reviews decided", "period files compared", "replays compared",
    "reversals", "reversals again", "past periods corrected", "reversals on sum", "reversals on best",
    "reversals on count", "reversals on a board with imports",
    "users erased", "users erased with a past period", "users erased with a review",
    "users erased with a reversed action", "users erased a second time", "users erased from other nodes",
    "actions held", "disks searched", "ERASED", "receipts of erased users",
    "users erased while serving", "disks searched while serving", "histories of erased users", "restores compared",
    "rows imported", "imports finished", "merged imports", "fresh imports", "import pieces known before",
    "flags put", "flags that were so already",
    "runs written", "runs joined", "sealed actions read",
}  # fmt: skip


def test_whatever_goes_wrong_every_promise_is_kept() -> None:
    """Runs from a seed on; `SIM_SEED=` repeats them, `python -m tests.sim --seed` one of them."""
    first = first_seed("SIM_SEED", 2**40)
    counts = Counter[str]()
    for seed in range(first, first + RUNS):
        report = simulate(seed)
        assert report.fault is None, f"python -m tests.sim --seed {seed}: {report.fault}"
        counts += report.counts
    # The runs prove something only if each kind of trouble came up, and what it troubles came up as well.
    missing = {what for what in EVERYTHING_SEEN if not counts[what]}
    assert not missing, f"in {RUNS} runs there was no {missing}"


@pytest.mark.parametrize(("seed", "fault", "sentence"), SEEDS, ids=[str(seed) for seed, _, _ in SEEDS])
def test_a_seed_that_once_failed_fails_no_more(seed: int, fault: str, sentence: str) -> None:
    """And the variant with the fault still fails, so the seed still proves something."""
    assert simulate(seed).fault is None, sentence
    broken = next(variant for variant in BROKEN if variant.name == fault)
    assert simulate(seed, variant=broken).fault is not None, f"the seed proves no more that {sentence}"


SEEDED = {fault for _, fault, _ in SEEDS}
NEVER_MADE = [variant for variant in BROKEN if variant.name not in SEEDED.union(SOUGHT)][:: in_ci(12, 1)]
"""The variants of faults that were made here have a seed, or one is sought that some hundred runs do not have.

A verdict on a commit takes every twelfth one.
"""


@pytest.mark.parametrize("variant", NEVER_MADE, ids=[variant.name for variant in NEVER_MADE])
def test_a_broken_variant_is_found_out(variant: Variant) -> None:
    """A bounded number of runs finds the fault, and the sound system passes the run that found it."""
    first, step = SEARCHED.get(variant.name, (1, 1))
    seeds = range(first, first + CANARY_RUNS_MAX * step, step)
    found = next((seed for seed in seeds if simulate(seed, variant=variant).fault is not None), None)
    assert found is not None, f"{CANARY_RUNS_MAX} runs did not find out that {variant.name}"
    assert simulate(found).fault is None


@pytest.mark.parametrize("seed", [178, WITH_REPLICAS])
def test_the_same_seed_gives_the_same_run_in_any_process(seed: int) -> None:
    """To the last message, whatever the hash seed; another seed gives another run."""
    digests = set()
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-m", "tests.sim", "--seed", str(seed)],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        match = re.search(r"digest ([0-9a-f]{32})", done.stdout)
        assert match is not None
        digests.add(match[1])
    assert digests == {simulate(seed).digest}
    assert simulate(seed).digest in digests
    assert simulate(seed + 1).digest not in digests


def test_a_failure_names_seed_and_commit_and_the_command_that_repeats_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And what happened in it, in order."""
    broken = next(variant for variant in BROKEN if variant.name == "no file is ever synced")
    monkeypatch.setattr("tests.sim.__main__.simulate", lambda seed, keep_all: simulate(seed, variant=broken))
    monkeypatch.setattr(sys, "argv", ["tests.sim", "--seed", "1"])
    assert main() == 1
    shown = capsys.readouterr().out
    assert re.search(r"FAILED: seed 1, commit [0-9a-f]{7,40}(-dirty)?: .+", shown)
    assert "python -m tests.sim --seed 1\n" in shown
    assert " start 1\n" in shown


def test_many_runs_in_several_processes_are_counted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sums are those of the runs."""
    monkeypatch.setattr(sys, "argv", ["tests.sim", "--seed", "1", "--runs", "23"])
    assert main() == 0
    shown = capsys.readouterr().out
    assert "from seed 1, commit" in shown
    assert re.search(r"^23 runs, \d+ starts, 0 failures; \d+ s$", shown, re.MULTILINE)
    applied = sum(simulate(seed).counts["applied"] for seed in range(1, 24))
    assert re.search(rf"^applied +{applied}$", shown, re.MULTILINE)
