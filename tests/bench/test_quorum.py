"""The bench of quorums: what a request holds is counted, and the better peer is the one with the higher rate."""

from __future__ import annotations

import pytest

from bench.load import Load
from bench.quorum import ETCD, LOCAL, MANY, PEERS, QUORUM, REDIS_ALL, Row, better_peer, in_turns, wanted
from bench.writes import Measured


def load(answers: int) -> Load:
    """A load of a second."""
    return Load("C", answers, answers, 0, 1.0, ms_p50=1.0, ms_p99=2.0, cpu_share=0.1, server_us=50.0)


def measured(answers: int) -> Measured:
    """A load with four records in each frame."""
    return load(answers), 4.0


def by_system(rows: list[Row]) -> dict[str, Row]:
    """The rows by their system."""
    return {row.system: row for row in rows}


def test_a_request_of_ours_holds_a_batch_and_one_of_a_peer_does_not() -> None:
    """Rates, processor time and ratios are those of increments."""
    runs = {LOCAL: lambda: measured(100), ETCD: lambda: measured(400)}
    rows = by_system(in_turns("batches of 20", runs, 3, 20, peers=(ETCD,)))
    assert (rows[LOCAL].per_second, rows[ETCD].per_second) == (2_000, 400)
    assert (rows[LOCAL].server_us, rows[ETCD].server_us) == (2.5, 50)
    assert (rows[LOCAL].ratio_to_local, rows[LOCAL].ratio_to_peer) == (1, 5)
    assert rows[ETCD].ratio_to_local == pytest.approx(0.2)
    assert (rows[LOCAL].records_per_frame, rows[ETCD].records_per_frame) == (4, None)


def test_the_better_peer_has_the_higher_rate_under_many_connections() -> None:
    """Whoever is quicker over one connection is not asked."""
    runs = {LOCAL: lambda: measured(900), REDIS_ALL: lambda: measured(300), ETCD: lambda: measured(100)}
    many = in_turns(MANY, runs, 1, 1, peers=PEERS)
    assert better_peer(many) == REDIS_ALL
    assert by_system(many)[ETCD].ratio_to_peer == pytest.approx(1 / 3)
    one = in_turns("single, 1 connection", {LOCAL: runs[LOCAL], ETCD: lambda: measured(500)}, 1, 1, peers=PEERS)
    assert better_peer(one + many) == REDIS_ALL


def test_without_a_peer_there_is_no_ratio_to_one() -> None:
    """The bench runs where none is installed."""
    rows = in_turns(MANY, {LOCAL: lambda: measured(1)}, 1, 1, peers=PEERS)
    assert rows[0].ratio_to_peer is None
    assert better_peer(rows) is None


def test_the_wanted_figure_is_that_of_the_quorum() -> None:
    """Beside the better peer, under many connections; without a quorum it is not measured."""
    runs = {LOCAL: lambda: measured(900), QUORUM: lambda: measured(700), ETCD: lambda: measured(100)}
    rows = in_turns(MANY, runs, 1, 1, peers=PEERS)
    [figure] = wanted(rows)
    assert (figure.measured, figure.reached) == (7, True)
    [missing] = wanted([row for row in rows if row.system != QUORUM])
    assert (missing.measured, missing.reached) == (None, None)
