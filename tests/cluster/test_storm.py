"""A short slice of the storm; the long form is `make storm`."""

from __future__ import annotations

from pathlib import Path

import trio

from tests.cluster.cluster import REPLICAS
from tests.cluster.storm import run_storm
from tests.seeds import first_seed

ROUNDS = 2
ALARM_SECONDS = 600.0


async def test_a_short_storm_passes_over_a_leader_and_three_replicas(tmp_path: Path) -> None:
    """All nodes are equal after each round, no reader goes back, and a promotion loses nothing."""
    seed = first_seed("STORM_SEED")
    with trio.fail_after(ALARM_SECONDS):
        storm = await run_storm(tmp_path, ROUNDS, seed, long_stalls=False)
    # The rounds prove something only if each of these happened.
    assert storm.blows.total() >= 2 * ROUNDS
    assert storm.promotions.total() == 1
    assert len(storm.books.acknowledged) > 100
    assert all(storm.seen.answers[slot] for slot in REPLICAS)
    assert storm.seen.stale
