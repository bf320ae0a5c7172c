"""The fan-out bench: what its figures are compared with, and what a missing peer leaves open."""

from __future__ import annotations

import msgspec
import pytest

from bench import viewers_nchan as nchan
from bench.fanout import (
    FLOOR,
    OURS,
    PEER,
    POST,
    WITHOUT_POST,
    Row,
    Turn,
    compare,
    in_round,
    softirq_pids,
    wanted,
    without_post,
)
from bench.viewers import ViewerLoad, processor_seconds
from bench.viewers_peers import RING_LOOP, System


def rows_of(viewers: int, us: dict[str, list[float]], weights: dict[str, float]) -> list[Row]:
    """The rows of systems that took so many us for a message in each round."""
    rows = [Row(viewers, system, 1.0, 1.0, weights.get(system, 1.0), 0.1, 0) for system in us]
    turns = {
        system: [Turn(viewers, each * viewers / 1e6, 0.1, 0.1) for each in rounds] for system, rounds in us.items()
    }
    compare(rows, turns)
    return rows


def rounded(ratio: float | None) -> float | None:
    return None if ratio is None else round(ratio, 6)


def test_a_round_is_compared_with_the_same_round_of_the_peers() -> None:
    """A machine that is slow for a round slows all of them: the ratio is the median of the rounds' ratios."""
    few = rows_of(1_000, {OURS: [6.0, 60.0, 5.0], PEER: [12.0, 120.0, 10.0], FLOOR: [5.0, 40.0, 5.0]}, {})
    many = rows_of(8_000, {OURS: [9.0], PEER: [15.0], nchan.NAME: [10.0]}, {OURS: 2_000.0, nchan.NAME: 10_000.0})
    ratios = [
        tuple(map(rounded, (row.ratio_to_peer, row.ratio_to_nchan, row.ratio_to_floor))) for row in (few[0], many[0])
    ]
    assert ratios == [(0.5, None, 1.2), (0.6, 0.9, None)]
    figures = [(rounded(figure.measured), figure.bound, figure.reached) for figure in wanted([*few, *many])]
    assert figures == [(0.5, 0.6, True), (0.9, 0.8, False), (0.2, 0.4, True), (1.2, 1.5, True), (None, 1.5, None)]


def test_without_its_peer_a_figure_is_not_dropped() -> None:
    """It stands in the table as not measured."""
    rows = [*rows_of(1_000, {OURS: [6.0]}, {}), *rows_of(8_000, {OURS: [9.0]}, {})]
    assert [figure.reached for figure in wanted(rows)] == [None] * 5


def test_the_post_is_taken_out_of_the_same_round() -> None:
    """What is left is a row of its own, compared as the others are; the whole figure stays as it is."""
    turns = {
        system: [Turn(messages, each / 1e6, 0.1, 0.1) for each in us]
        for system, messages, us in ((OURS, 1_000, [9e3, 90e3, 8e3]), (POST, 0, [2e3, 20e3, 1e3]))
    }
    [row] = rows_of(1_000, {OURS: [9.0, 90.0, 8.0]}, {})
    [left] = without_post(row, turns)
    assert list(turns) == [OURS, WITHOUT_POST]
    assert [turn.us for turn in turns[WITHOUT_POST]] == pytest.approx([7.0, 70.0, 7.0])
    assert left.system == WITHOUT_POST
    assert left.us_per_message == pytest.approx(7.0)
    assert msgspec.structs.replace(left, system=OURS, us_per_message=row.us_per_message) == row


def test_the_note_names_what_the_kernel_and_the_post_cost() -> None:
    """Beside the figure that is wanted stands what of it is no message of ours, as far as it was measured."""
    us = {OURS: [8.0], WITHOUT_POST: [7.0], RING_LOOP: [6.0], PEER: [10.0]}
    assert wanted(rows_of(1_000, us, {}))[0].note == f"({WITHOUT_POST} 0.70×, {RING_LOOP} 0.60×)"
    assert wanted(rows_of(1_000, {OURS: [8.0]}, {}))[0].note == ""


def test_each_system_is_the_first_of_a_round_in_its_turn() -> None:
    """Who comes first, comes after the pause; who comes second, comes after another's work."""
    systems = [System(name, (), ViewerLoad(0, 0), int) for name in "abc"]
    assert ["".join(system.name for system in in_round(systems, number)) for number in range(4)] == [
        "abc", "bca", "cab", "abc",
    ]  # fmt: skip


def test_the_time_of_the_kernels_own_thread_is_found_by_its_name() -> None:
    """A processor that is not there has none, and each other at most one."""
    assert softirq_pids(4_095) == ()
    found = softirq_pids(0)
    assert len(found) <= 1
    assert [processor_seconds(pid) >= 0 for pid in found] == [True] * len(found)
