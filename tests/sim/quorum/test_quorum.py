"""Simulated runs of a quorum: a slice of them, the same run from the same seed, and broken variants that must fail."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter

import pytest

from tests.seeds import first_seed, in_ci
from tests.sim.__main__ import main
from tests.sim.quorum.variants import (
    ABSENCE_BELIEVED,
    BID_ANYWHERE,
    BROKEN,
    GIVEN_UP,
    LOST_IGNORED,
    STAYED,
    TWO_IN_FLIGHT,
    WRITTEN_FIRST,
)
from tests.sim.quorum.world import simulate_quorum
from tests.sim.variant import Variant

RUNS = in_ci(10, 40)
CANARY_RUNS_MAX = 200
SEARCHED_FROM = {
    TWO_IN_FLIGHT: 25, GIVEN_UP: 16, ABSENCE_BELIEVED: 32, WRITTEN_FIRST: 3, BID_ANYWHERE: 1, LOST_IGNORED: 3,
    STAYED: 6,
}  # fmt: skip
"""Where the search for each fault begins: close to a seed that shows it, so the test is short."""

EVERYTHING_SEEN = {
    "takeovers", "epochs", "applied", "duplicates", "OUTCOME_UNKNOWN", "NO_QUORUM", "answers of the stream lost",
    "requests that came late", "requests held up", "leaders of the stream", "stale reads", "logs compared",
    "directories filled", "BoardPut", "PeriodChanged", "messages lost",
}  # fmt: skip


def test_whatever_befalls_nodes_and_servers_every_promise_is_kept() -> None:
    """Runs from a seed on; `SIM_SEED=` repeats them, `python -m tests.sim --quorum --seed` one of them."""
    first = first_seed("SIM_SEED", 2**40)
    counts = Counter[str]()
    for seed in range(first, first + RUNS):
        report = simulate_quorum(seed)
        assert report.fault is None, f"python -m tests.sim --quorum --seed {seed}: {report.fault}"
        counts += report.counts
    missing = {what for what in EVERYTHING_SEEN if not counts[what]}
    assert not missing, f"in {RUNS} runs there was no {missing}"


@pytest.mark.parametrize("variant", BROKEN, ids=[variant.name for variant in BROKEN])
def test_a_broken_variant_is_found_out(variant: Variant) -> None:
    """A bounded number of runs finds the fault, and the sound system passes the run that found it."""
    first = SEARCHED_FROM[variant.name]
    seeds = range(first, first + CANARY_RUNS_MAX)
    found = next((seed for seed in seeds if simulate_quorum(seed, variant=variant).fault is not None), None)
    assert found is not None, f"{CANARY_RUNS_MAX} runs did not find out that {variant.name}"
    assert simulate_quorum(found).fault is None


def test_the_same_seed_gives_the_same_run_in_any_process() -> None:
    """To the last message, whatever the hash seed."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.sim", "--quorum", "--seed", "3"],
        env={**os.environ, "PYTHONHASHSEED": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    match = re.search(r"digest ([0-9a-f]{32})", done.stdout)
    assert match is not None
    assert match[1] == simulate_quorum(3).digest
    assert match[1] != simulate_quorum(4).digest


def test_a_failure_of_a_quorum_names_the_command_that_repeats_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With `--quorum`, or it would be another run."""
    broken = next(variant for variant in BROKEN if variant.name == BID_ANYWHERE)
    seed = SEARCHED_FROM[BID_ANYWHERE]
    monkeypatch.setattr(
        "tests.sim.__main__.simulate_quorum", lambda seed, keep_all: simulate_quorum(seed, variant=broken)
    )
    monkeypatch.setattr(sys, "argv", ["tests.sim", "--quorum", "--seed", str(seed)])
    assert main() == 1
    assert f"python -m tests.sim --quorum --seed {seed}\n" in capsys.readouterr().out
