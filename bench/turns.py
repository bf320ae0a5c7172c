"""Systems take turns, so a machine that gets slower slows all of them alike.

    measured = take_turns({"ours": run_ours, "peer": run_peer}, rounds=5)
    median(per_second, measured["ours"])
    ratio(per_second, measured["ours"], measured["peer"])

A figure is the median of the rounds. A ratio is the median of the rounds' ratios, each of two loads of one round. When
other programs use the machine, a ratio moves much less than a figure. A ratio of processor times moves least, because
the time of other programs is not in it.
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
