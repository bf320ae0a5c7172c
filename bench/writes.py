"""How many increments a second, and how long does each take? Beside FastAPI and Redis with the same promise.

    python -m bench.writes [--seconds 2] [--rounds 3]

Every system runs on processor 0, the load on processor 1. For each workload the systems take turns, `rounds` times, and
the medians are shown, so that a machine whose speed drifts is unfair to all of them alike. Every increment is a new
action, on disk before its answer. The peer has no batches: its single increments at 256 connections stand beside ours.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from contextlib import ExitStack

import msgspec
from rich.console import Console
from rich.table import Table

from bench.history import record
from bench.load import Load, Workload, run_load
from bench.servers import Missing, Server, fastapi_redis, leader

SERVER_PROCESSOR, LOAD_PROCESSOR = 0, 1
CONNECTIONS = (1, 32, 256)
BATCHES = (1, 10, 100, 1_000)
BATCH_CONNECTIONS = 4
COLD = "GET /healthz HTTP/1.1\r\nHost: bench\r\n\r\n"
"""Sent first, it takes a connection to the Hypercorn lane for good."""

Run = Callable[[str], tuple[Load, float]]


class Row(msgspec.Struct):
    """A system under a workload, as medians of the rounds. `per_second` counts increments, not requests."""

    workload: str
    system: str
    per_second: float
    ms_p50: float
    ms_p99: float
    records_per_fsync: float
    load_cpu_share: float
    ratio_to_peer: float | None = None


def measure(server: Server, workload: Workload, *, counts_fsyncs: bool) -> tuple[Load, float]:
    """Run one load; give it, and the records per fsync meanwhile."""
    names = ("scoreboard_batch_records_sum", "scoreboard_batch_records_count")
    before = [server.metric(name) for name in names] if counts_fsyncs else [0.0, 0.0]
    load = run_load(workload, LOAD_PROCESSOR)
    assert load.errors == 0, f"{load.errors} answers were errors"
    after = [server.metric(name) for name in names] if counts_fsyncs else [0.0, 1.0]
    return load, (after[0] - before[0]) / max(1.0, after[1] - before[1])


def in_turns(name: str, runs: dict[str, Run], rounds: int, each: int) -> list[Row]:
    """Let the systems take turns, and give a row of medians for each."""
    measured: dict[str, list[tuple[Load, float]]] = {system: [] for system in runs}
    for turn in range(rounds):
        for system, run in runs.items():
            measured[system].append(run(f"{name}-{turn}-{system}".replace(" ", "")))
    rows = []
    for system, results in measured.items():
        loads = [load for load, _ in results]
        rows.append(
            Row(
                name,
                system,
                statistics.median(load.per_second for load in loads) * each,
                statistics.median(load.ms_p50 for load in loads),
                statistics.median(load.ms_p99 for load in loads),
                statistics.median(records for _, records in results),
                max(load.cpu_share for load in loads),
            )
        )
    return rows


def run_all(ours: Server, peer: Server | None, seconds: float, rounds: int) -> list[Row]:
    """Run every workload."""
    rows: list[Row] = []

    def single(server: Server, connections: int, first: str, *, counts_fsyncs: bool) -> Run:
        def run(prefix: str) -> tuple[Load, float]:
            workload = Workload(server.port, connections, seconds, server.token, prefix, first=first)
            return measure(server, workload, counts_fsyncs=counts_fsyncs)

        return run

    def batch(size: int) -> Run:
        def run(prefix: str) -> tuple[Load, float]:
            path = "/scores/increment/batch"
            workload = Workload(ours.port, BATCH_CONNECTIONS, seconds, ours.token, prefix, path=path, batch=size)
            return measure(ours, workload, counts_fsyncs=True)

        return run

    for connections in CONNECTIONS:
        runs = {
            "express lane": single(ours, connections, "", counts_fsyncs=True),
            "Hypercorn lane": single(ours, connections, COLD, counts_fsyncs=True),
        }
        if peer is not None:
            runs["FastAPI + Redis"] = single(peer, connections, "", counts_fsyncs=False)
        rows += in_turns(f"single, {connections} connections", runs, rounds, 1)
    for size in BATCHES:
        rows += in_turns(f"batches of {size}", {"express lane": batch(size)}, rounds, size)
    return rows


def compare(rows: list[Row]) -> None:
    """Set each row beside the peer's under the same workload; batches beside its single increments."""
    peers = {row.workload: row.per_second for row in rows if row.system == "FastAPI + Redis"}
    for row in rows:
        beside = peers.get(row.workload, peers.get("single, 256 connections"))
        row.ratio_to_peer = None if beside is None else row.per_second / beside


def show(rows: list[Row]) -> None:
    """Print the table."""
    table = Table(title="increments")
    for column in ("workload", "system", "increments/s", "× peer", "p50 ms", "p99 ms", "records/fsync", "load CPU"):
        table.add_column(column, justify="left" if column in ("workload", "system") else "right")
    for row in rows:
        records = "–" if row.system == "FastAPI + Redis" else f"{row.records_per_fsync:.1f}"
        ratio = "–" if row.ratio_to_peer is None else f"{row.ratio_to_peer:.2f}"
        figures = (f"{row.per_second:,.0f}", ratio, f"{row.ms_p50:.2f}", f"{row.ms_p99:.2f}", records)
        table.add_row(row.workload, row.system, *figures, f"{row.load_cpu_share:.0%}")
    Console(width=120).print(table)


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each load")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with ExitStack() as stack:
        ours = stack.enter_context(leader(SERVER_PROCESSOR))
        peer = None
        try:
            peer = stack.enter_context(fastapi_redis(SERVER_PROCESSOR))
        except Missing as missing:
            print(f"The peer FastAPI + Redis is left out: {missing}")
        rows = run_all(ours, peer, options.seconds, options.rounds)
    compare(rows)
    show(rows)
    record("writes", {"rows": [msgspec.to_builtins(row) for row in rows]})


if __name__ == "__main__":
    main()
