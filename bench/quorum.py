"""What does a majority cost? Increments that three nodes keep, beside a leader alone and peers that promise as much.

    python -m bench.quorum [--seconds 1.5] [--rounds 5]

Every system runs on processor 0 with all its nodes, the load on processor 1, and systems take turns (`bench.turns`).
All disks are one disk. What an answer of each system means:

    local               the increment is on the disk of its one node
    quorum              on the disks of a majority of three servers of NATS, and no takeover loses it
    Redis, WAIT 1       on the disks of two of three nodes; a failover may still lose it, as Redis says of WAIT
    Redis, WAIT 2       on the disks of all three: if one is away, nothing is answered
    etcd                on the disks of a majority, and no failover loses it

`WAIT` promises that a replica received it. With `appendfsync always` a replica's answer leaves after its own fdatasync.
A peer has no batches, so its single increments over 256 connections stand beside ours.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import msgspec

from bench import tables
from bench.history import record
from bench.load import JSON
from bench.quorum_servers import etcd_three, quorum_three, redis_three
from bench.servers import Missing, Server, leader
from bench.turns import median, ms_p50, ms_p99, per_second, ratio, server_us, take_turns
from bench.wanted import Wanted, show_wanted
from bench.writes import Measured, batch, measure_ours, measure_peer, single

SERVER_PROCESSOR = 0
CONNECTIONS = (1, 256)
BATCHES = (100, 1_000)
MANY = f"single, {max(CONNECTIONS)} connections"

LOCAL, QUORUM = "local", "quorum"
REDIS_MAJORITY, REDIS_ALL, ETCD = "FastAPI + Redis, WAIT 1", "FastAPI + Redis, WAIT 2", "FastAPI + etcd"
OURS = (LOCAL, QUORUM)
PEERS = (REDIS_MAJORITY, REDIS_ALL, ETCD)
WAITS = {REDIS_MAJORITY: 1, REDIS_ALL: 2}

Run = Callable[[], Measured]


class Row(msgspec.Struct, kw_only=True):
    """A system under a workload, as medians of the rounds. `per_second` counts increments, not requests.

    `server_us` is the processor time of an increment in all processes of the system. `records_per_frame`: of our group
    commits. The ratios of rates are to the local leader, and to the better peer under 256 connections.
    """

    workload: str
    system: str
    per_second: float
    ms_p50: float
    ms_p99: float
    server_us: float
    records_per_frame: float | None
    ratio_to_local: float
    ratio_to_peer: float | None


def started(stack: ExitStack) -> tuple[dict[str, Server], dict[str, str]]:
    """Start every system that this machine has. Give them, and what is missing for the others."""
    servers = {LOCAL: stack.enter_context(leader(SERVER_PROCESSOR))}
    missing: dict[str, str] = {}
    try:
        servers[QUORUM] = stack.enter_context(quorum_three(SERVER_PROCESSOR))
    except Missing as lacking:
        missing[QUORUM] = str(lacking)
    try:
        servers |= dict(
            zip(WAITS, stack.enter_context(redis_three(SERVER_PROCESSOR, tuple(WAITS.values()))), strict=True)
        )
    except Missing as lacking:
        missing |= dict.fromkeys(WAITS, str(lacking))
    try:
        servers[ETCD] = stack.enter_context(etcd_three(SERVER_PROCESSOR))
    except Missing as lacking:
        missing[ETCD] = str(lacking)
    return servers, missing


def run_singles(servers: dict[str, Server], seconds: float, rounds: int) -> list[Row]:
    """Run the single increments of every system."""
    rows = []
    for connections in CONNECTIONS:
        runs: dict[str, Run] = {
            system: partial(
                measure_ours if system in OURS else measure_peer, server, single(server, connections, seconds)
            )
            for system, server in servers.items()
        }
        name = f"single, {connections} connection{'s' if connections > 1 else ''}"
        rows += in_turns(name, runs, rounds, 1, peers=PEERS)
    return rows


def run_batches(servers: dict[str, Server], better: str | None, seconds: float, rounds: int) -> list[Row]:
    """Run our batches, with the single increments of the better peer in between."""
    rows = []
    for size in BATCHES:
        runs: dict[str, Run] = {
            system: partial(measure_ours, servers[system], batch(servers[system], size, JSON, seconds))
            for system in OURS
            if system in servers
        }
        if better is not None:
            peer = servers[better]
            runs[better] = partial(measure_peer, peer, single(peer, max(CONNECTIONS), seconds))
        made = in_turns(f"batches of {size:,}", runs, rounds, size, peers=(better,) if better else ())
        rows += [row for row in made if row.system != better]
    return rows


def in_turns(name: str, runs: dict[str, Run], rounds: int, each: int, peers: tuple[str, ...]) -> list[Row]:
    """Let the systems take turns, and give a row for each. A request of ours holds `each` increments."""
    measured = take_turns(runs, rounds)
    loads = {system: [load for load, _ in results] for system, results in measured.items()}
    found = [peer for peer in peers if peer in loads]
    better = max(found, key=lambda peer: median(per_second, loads[peer]), default=None)
    rows = []
    for system, results in measured.items():
        held = each if system in OURS else 1
        rows.append(
            Row(
                workload=name,
                system=system,
                per_second=median(per_second, loads[system]) * held,
                ms_p50=median(ms_p50, loads[system]),
                ms_p99=median(ms_p99, loads[system]),
                server_us=median(server_us, loads[system]) / held,
                records_per_frame=statistics.median(records for _, records in results) if system in OURS else None,
                ratio_to_local=ratio(per_second, loads[system], loads[LOCAL]) * held / each,
                ratio_to_peer=ratio(per_second, loads[system], loads[better]) * held if better else None,
            )
        )
    return rows


def better_peer(rows: list[Row]) -> str | None:
    """The peer that does most single increments over 256 connections."""
    many = [row for row in rows if row.system in PEERS and row.workload == MANY]
    return max(many, key=lambda row: row.per_second).system if many else None


def show(rows: list[Row], missing: dict[str, str]) -> None:
    """Print the table."""
    columns = ("increments/s", "× local", "× better peer", "CPU µs", "p50 ms", "p99 ms", "records/frame")
    table = tables.table("increments that three nodes keep", ("workload", "system"), columns)
    for row in rows:
        table.add_row(
            row.workload,
            row.system,
            f"{row.per_second:,.0f}",
            f"{row.ratio_to_local:.3f}",
            "–" if row.ratio_to_peer is None else f"{row.ratio_to_peer:.2f}",
            f"{row.server_us:.1f}",
            f"{row.ms_p50:.2f}",
            f"{row.ms_p99:.2f}",
            "–" if row.records_per_frame is None else f"{row.records_per_frame:.1f}",
        )
    for system, remedy in missing.items():
        table.add_row("all", f"{system}: {remedy}", *(["–"] * len(columns)))
    tables.show(table)


def wanted(rows: list[Row]) -> list[Wanted]:
    """The wanted figures with what was measured."""
    found = {(row.workload, row.system): row for row in rows}
    many = found.get((MANY, QUORUM))
    note = "" if many else "(no quorum here)"
    return [Wanted(f"{MANY}, against the better peer", many.ratio_to_peer if many else None, 3, True, "×", note)]


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each load, after its warm-up")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with ExitStack() as stack:
        servers, missing = started(stack)
        rows = run_singles(servers, options.seconds, options.rounds)
        rows += run_batches(servers, better_peer(rows), options.seconds, options.rounds)
    show(rows, missing)
    figures = wanted(rows)
    show_wanted(figures)
    record("quorum", {"rows": [msgspec.to_builtins(row) for row in rows], "wanted": msgspec.to_builtins(figures)})


if __name__ == "__main__":
    main()
