"""How long from a POST to the message at the slowest viewer?

    python -m bench.end_to_end [--viewers 1000] [--probes 100]

    quiet board      nothing happens between two increments, so each goes out at once: the leading edge of a tick
    steady writes    32 connections increment all the time, so each interval (250 ms) has a tick,
                     and an increment waits for the next one

A probe is one increment. It notes when its POST began, when its receipt came, and when the last viewer had a message
with its seq or a later one. Under steady writes the moments of the probes are random, so they meet every part of an
interval. The leader is on processor 0; viewers, probes and writes are on processor 1.
"""

from __future__ import annotations

import argparse
import random
import statistics
import threading
import time

import msgspec
from rich.console import Console
from rich.table import Table

from bench.history import record
from bench.load import Load, Workload, run_load
from bench.servers import Server, leader
from bench.viewers import ViewerLoad, processor_seconds
from bench.viewers_peers import LIVE_CONFIG, USERS, Poster

SERVER_PROCESSOR, LOAD_PROCESSOR = 0, 1
SEED = 20_251_215
QUIET_SECONDS = 0.3
"""Between two probes of a quiet board: longer than the interval."""

WRITERS = 32


class Row(msgspec.Struct):
    """Medians and 99th percentiles in ms. `load_cpu_share` is how busy the processor was with the viewers' process."""

    case: str
    viewers: int
    probes: int
    ms_p50: float
    ms_p99: float
    ms_max: float
    receipt_ms_p50: float
    receipt_ms_p99: float
    load_cpu_share: float
    writes_per_second: float = 0.0
    writers_cpu_share: float = 0.0


def percentile(sorted_values: list[float], share: float) -> float:
    """Give the value that this share of the values does not exceed."""
    return sorted_values[min(len(sorted_values) - 1, int(len(sorted_values) * share))]


def probe(case: str, poster: Poster, viewers: ViewerLoad, count: int, probes: int, pause: tuple[float, float]) -> Row:
    """Send probes, each after a pause from the given span."""
    chance = random.Random(SEED)
    seen: list[float] = []
    receipts: list[float] = []
    busy, start = processor_seconds(viewers.pid), time.monotonic()
    for _ in range(probes):
        time.sleep(chance.uniform(*pause))
        began = time.monotonic()
        seq = poster.post()
        receipts.append((time.monotonic() - began) * 1000)
        seen.append((viewers.wait_version(seq) - began) * 1000)
    share = (processor_seconds(viewers.pid) - busy) / (time.monotonic() - start)
    seen.sort()
    receipts.sort()
    latencies = (statistics.median(seen), percentile(seen, 0.99), seen[-1])
    return Row(case, count, probes, *latencies, statistics.median(receipts), percentile(receipts, 0.99), share)


def steadily(server: Server, poster: Poster, viewers: ViewerLoad, count: int, probes: int) -> Row:
    """Send probes while 32 connections write. The writes last longer than the probes should take."""
    interval = 0.25
    seconds = probes * interval * 1.5 + 2
    workload = Workload(
        port=server.port, connections=WRITERS, seconds=seconds, token=server.token, users=USERS, warm_seconds=0.0
    )
    loads: list[Load] = []
    writers = threading.Thread(target=lambda: loads.append(run_load(workload, LOAD_PROCESSOR)))
    writers.start()
    try:
        time.sleep(1.0)
        row = probe("steady writes", poster, viewers, count, probes, (0.0, interval))
        assert writers.is_alive(), "the writes ended before the probes did"
    finally:
        writers.join()
    row.writes_per_second, row.writers_cpu_share = loads[0].per_second, loads[0].cpu_share
    return row


def show(rows: list[Row]) -> None:
    """Print the table."""
    table = Table(title="from POST to the message at the slowest viewer")
    columns = ("p50 ms", "p99 ms", "longest ms", "receipt p50 ms", "receipt p99 ms", "writes/s", "load CPU")
    for column in ("case", "viewers", "probes", *columns):
        table.add_column(column, justify="left" if column == "case" else "right")
    for row in rows:
        waits = (row.ms_p50, row.ms_p99, row.ms_max, row.receipt_ms_p50, row.receipt_ms_p99)
        load = f"{row.load_cpu_share + row.writers_cpu_share:.0%}"
        cells = (*(f"{wait:.1f}" for wait in waits), f"{row.writes_per_second:,.0f}", load)
        table.add_row(row.case, f"{row.viewers:,}", str(row.probes), *cells)
    Console(width=140).print(table)


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--viewers", type=int, default=1_000)
    parser.add_argument("--probes", type=int, default=100)
    options = parser.parse_args()
    count, probes = options.viewers, options.probes
    with leader(SERVER_PROCESSOR, LIVE_CONFIG) as server, ViewerLoad(server.port, LOAD_PROCESSOR) as viewers:
        poster = Poster(server)
        for _ in range(USERS):
            poster.post()
        viewers.connect(count)
        viewers.forget_versions()
        rows = [
            probe("quiet board", poster, viewers, count, probes, (QUIET_SECONDS, 1.5 * QUIET_SECONDS)),
            steadily(server, poster, viewers, count, probes),
        ]
        closed = viewers.statistics()["closed"]
        assert closed == 0, f"{closed} viewers were dropped"
    show(rows)
    record("end_to_end", {"rows": [msgspec.to_builtins(row) for row in rows]})


if __name__ == "__main__":
    main()
