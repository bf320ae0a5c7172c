"""The storm over the client: three rounds; CLIENT_STORM_ROUNDS=20 is the long form."""

from __future__ import annotations

import os
from pathlib import Path

import trio
from storm import Storm

from tests.seeds import first_seed

ROUNDS = int(os.environ.get("CLIENT_STORM_ROUNDS", "3"))
ALARM_SECONDS = 300.0
"""For each round."""


async def test_what_returned_is_counted_once_and_the_outbox_loses_nothing(tmp_path: Path) -> None:
    """The leader is killed in each round, wires are cut, a replica is promoted, and the outbox's sender is killed."""
    storm = Storm(tmp_path, first_seed("STORM_SEED"))
    with trio.fail_after(ALARM_SECONDS * ROUNDS):
        await storm.run(ROUNDS)
    counts = f"{len(storm.receipts)} receipts, {len(storm.put)} put, {storm.kills} kills, {storm.promotions} promotions"
    print(counts)  # noqa: T201  # pytest shows it with -rP
    assert storm.kills == ROUNDS
    assert storm.promotions == (ROUNDS + 1) // 3
    assert storm.sender_kills == ROUNDS + 1
    assert len(storm.receipts) > 25 * ROUNDS
    assert storm.put
