"""Systems take turns, so that a machine whose speed drifts is unfair to all of them alike.

A figure is the median of the rounds. A ratio is the median of the rounds' ratios, each of two loads of the same round:
it moves much less than either figure when others use the machine too. Less still moves the ratio of the times on a
processor that an answer takes, since what others take is not in it.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import TypeVar

from bench.load import Load

Measured = TypeVar("Measured")


def take_turns(runs: Mapping[str, Callable[[], Measured]], rounds: int) -> dict[str, list[Measured]]:
    """Run each system once a round."""
    measured: dict[str, list[Measured]] = {system: [] for system in runs}
    for _ in range(rounds):
        for system, run in runs.items():
            measured[system].append(run())
    return measured


def median(figure: Callable[[Load], float], loads: list[Load]) -> float:
    """The median of a figure over the rounds."""
    return statistics.median(map(figure, loads))


def ratio(figure: Callable[[Load], float], ours: list[Load], theirs: list[Load]) -> float:
    """The median of the rounds' ratios of a figure."""
    return statistics.median(figure(one) / figure(other) for one, other in zip(ours, theirs, strict=True))


def per_second(load: Load) -> float:
    """Answers in a second."""
    return load.per_second


def server_us(load: Load) -> float:
    """The server's time on a processor for an answer."""
    return load.server_us


def ms_p50(load: Load) -> float:
    """The median latency."""
    return load.ms_p50


def ms_p99(load: Load) -> float:
    """The latency that 1 in 100 exceeds."""
    return load.ms_p99
