"""The fan-out bench: what its figures are compared with, and what a missing peer leaves open."""

from __future__ import annotations

from bench import viewers_nchan as nchan
from bench.fanout import FLOOR, OURS, PEER, Row, compare, wanted


def row(viewers: int, system: str, us: float, weight: float = 1.0) -> Row:
    """A row of the bench before it is compared."""
    return Row(viewers, system, us, 1.0, weight, 0.1, 0)


def test_each_figure_is_compared_with_the_peer_of_its_own_round() -> None:
    """The peers of one number of viewers say nothing about another."""
    rows = [row(1_000, OURS, 6.0), row(1_000, PEER, 12.0), row(1_000, FLOOR, 5.0)]
    rows += [row(8_000, OURS, 9.0, 2_000.0), row(8_000, PEER, 15.0), row(8_000, nchan.NAME, 10.0, 10_000.0)]
    compare(rows)
    assert (rows[0].ratio_to_peer, rows[0].ratio_to_nchan, rows[0].ratio_to_floor) == (0.5, None, 1.2)
    assert (rows[3].ratio_to_peer, rows[3].ratio_to_nchan, rows[3].ratio_to_floor) == (0.6, 0.9, None)
    figures = [(figure.measured, figure.bound, figure.reached) for figure in wanted(rows)]
    assert figures == [(0.5, 0.6, True), (0.9, 0.8, False), (0.2, 0.4, True), (1.2, 1.5, True), (None, 1.5, None)]


def test_without_its_peer_a_figure_is_not_dropped() -> None:
    """It stands in the table as not measured."""
    rows = [row(1_000, OURS, 6.0), row(8_000, OURS, 9.0)]
    compare(rows)
    assert [figure.reached for figure in wanted(rows)] == [None] * 5
