"""How many increments a second, and how long does each take? Beside FastAPI and Redis with the same promise.

    python -m bench.writes [--seconds 1.5] [--rounds 5]

Every system runs on processor 0, the load on processor 1, and systems take turns (`bench.turns`). Every increment is a
new action and is on disk before its answer. After each load the number of answers must equal the leader's count of
durable records. The peer has no batches, so its single increments over 256 connections take turns with our batches.

Single increments are those of 10,000 users, batches those of 100,000, for the peer too. All of them are on the board
before. Bodies are made beforehand, but for the digits of users and actions: see "load CPU".
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import msgspec

from bench import tables
from bench.filling import fill_ours, fill_peer
from bench.history import record
from bench.load import JSON, MSGPACK, Load, Workload, run_load
from bench.servers import Missing, Server, fastapi_redis, leader
from bench.turns import median, ms_p50, ms_p99, per_second, ratio, server_us, take_turns
from bench.wanted import Wanted, show_wanted

SERVER_PROCESSOR, LOAD_PROCESSOR = 0, 1
CONNECTIONS = (1, 32, 256)
BATCHES = (1, 10, 100, 1_000)
BATCH_CONNECTIONS = 8
SINGLE_USERS, BATCH_USERS = 10_000, 100_000
BATCH_PATH = "/scores/increment/batch"
COLD = "GET /healthz HTTP/1.1\r\nHost: bench\r\n\r\n"
"""Sent first, it moves a connection to the Hypercorn lane for good."""

EXPRESS, HYPERCORN, PEER = "express lane", "Hypercorn lane", "FastAPI + Redis"
Measured = tuple[Load, float]
"""A load, and the records per fsync during it."""

Run = Callable[[], Measured]


class Row(msgspec.Struct, kw_only=True):
    """A system under a workload, as medians of the rounds. `per_second` counts increments, not requests.

    `server_us` is the processor time of an increment; `server_ratio_to_peer` is its ratio to the peer's.
    `missing` says why there are no figures, if there are none.
    """

    workload: str
    system: str
    per_second: float = 0.0
    ms_p50: float = 0.0
    ms_p99: float = 0.0
    records_per_fsync: float | None = None
    load_cpu_share: float = 0.0
    generator: str = ""
    server_us: float = 0.0
    ratio_to_peer: float | None = None
    server_ratio_to_peer: float | None = None
    p50_ratio_to_peer: float | None = None
    missing: str = ""


def measure_ours(server: Server, workload: Workload) -> Measured:
    """Run one load on the leader; give it, and the records per fsync during it."""
    names = ("scoreboard_batch_records_sum", "scoreboard_batch_records_count")
    records_before, fsyncs_before = map(server.metric, names)
    load = run_load(workload, LOAD_PROCESSOR, server_pids=server.pids)
    assert load.errors == 0, f"{load.errors} answers were errors"
    records_after, fsyncs_after = map(server.metric, names)
    records = records_after - records_before
    assert records == load.answers_all * max(1, workload.batch), "answers and durable records differ"
    return load, records / (fsyncs_after - fsyncs_before)


def measure_peer(server: Server, workload: Workload) -> Measured:
    """Run one load on the peer. Its records per fsync are not counted, so that figure is 0."""
    load = run_load(workload, LOAD_PROCESSOR, server_pids=server.pids)
    assert load.errors == 0, f"{load.errors} answers were errors"
    return load, 0.0


def in_turns(name: str, runs: dict[str, Run], rounds: int, each: int, *, same: bool = True) -> list[Row]:
    """Let the systems take turns, and give a row for each; a request of ours holds `each` increments.

    Without `same` the peer runs another workload: it only gives the ratios, and gets no row.
    """
    measured = take_turns(runs, rounds)
    beside = [load for load, _ in measured.get(PEER, ())]
    rows = []
    for system, results in measured.items():
        if system == PEER and not same:
            continue
        loads = [load for load, _ in results]
        rows.append(
            Row(
                workload=name,
                system=system,
                per_second=median(per_second, loads) * each,
                ms_p50=median(ms_p50, loads),
                ms_p99=median(ms_p99, loads),
                records_per_fsync=None if system == PEER else statistics.median(records for _, records in results),
                load_cpu_share=max(load.cpu_share for load in loads),
                generator=loads[0].generator,
                server_us=median(server_us, loads) / each,
                ratio_to_peer=ratio(per_second, loads, beside) * each if beside else None,
                server_ratio_to_peer=ratio(server_us, loads, beside) / each if beside else None,
                p50_ratio_to_peer=ratio(ms_p50, loads, beside) if beside and same else None,
            )
        )
    return rows


def single(
    server: Server, connections: int, seconds: float, first: str = "", users: int = SINGLE_USERS
) -> Workload:  # fmt: skip
    """Single increments."""
    return Workload(
        port=server.port, connections=connections, seconds=seconds, token=server.token, first=first, users=users
    )


def batch(server: Server, size: int, content_type: str, seconds: float, users: int = SINGLE_USERS) -> Workload:
    """Batches of a size."""
    return Workload(
        port=server.port,
        connections=BATCH_CONNECTIONS,
        seconds=seconds,
        token=server.token,
        path=BATCH_PATH,
        batch=size,
        users=users,
        content_type=content_type,
        headers=(("Accept", content_type),),
    )


def run_singles(ours: Server, peer: Server | None, missing: str, seconds: float, rounds: int) -> list[Row]:
    """Run the single increments of every system."""
    rows: list[Row] = []
    for connections in CONNECTIONS:
        name = f"single, {connections} connection{'s' if connections > 1 else ''}"
        runs: dict[str, Run] = {EXPRESS: partial(measure_ours, ours, single(ours, connections, seconds))}
        if peer is not None:
            runs[PEER] = partial(measure_peer, peer, single(peer, connections, seconds))
        runs[HYPERCORN] = partial(measure_ours, ours, single(ours, connections, seconds, COLD))
        rows += in_turns(name, runs, rounds, 1)
        if peer is None:
            rows.append(Row(workload=name, system=PEER, missing=missing))
    return rows


def run_batches(ours: Server, peer: Server | None, seconds: float, rounds: int) -> list[Row]:
    """Run the batches: each size in JSON, the largest in msgpack too if the server understands it."""
    fill_ours(ours, BATCH_USERS)
    if peer is not None:
        fill_peer(peer, BATCH_USERS)
    understood = run_load(batch(ours, 1, MSGPACK, 0.5), LOAD_PROCESSOR).errors == 0
    rows: list[Row] = []
    for size in BATCHES:
        name, packed = f"batches of {size:,}", f"{EXPRESS}, msgpack"
        runs: dict[str, Run] = {EXPRESS: partial(measure_ours, ours, batch(ours, size, JSON, seconds, BATCH_USERS))}
        if peer is not None:
            runs[PEER] = partial(measure_peer, peer, single(peer, max(CONNECTIONS), seconds, users=BATCH_USERS))
        if size == max(BATCHES) and understood:
            runs[packed] = partial(measure_ours, ours, batch(ours, size, MSGPACK, seconds, BATCH_USERS))
        rows += in_turns(name, runs, rounds, size, same=False)
    if not understood:
        rows.append(Row(workload=name, system=packed, missing="not understood"))
    return rows


def show(rows: list[Row]) -> None:
    """Print the table."""
    columns = ("increments/s", "× peer", "CPU µs", "× peer", "p50 ms", "× peer", "p99 ms", "records/fsync", "load CPU")
    table = tables.table("increments, durable before the answer", ("workload", "system"), columns)
    for row in rows:
        if row.missing:
            table.add_row(row.workload, f"{row.system}: {row.missing}", *(["–"] * 9))
            continue
        records = "–" if row.records_per_fsync is None else f"{row.records_per_fsync:.1f}"
        table.add_row(
            row.workload,
            row.system,
            f"{row.per_second:,.0f}",
            shown(row.ratio_to_peer),
            f"{row.server_us:.1f}",
            shown(row.server_ratio_to_peer, 3),
            f"{row.ms_p50:.2f}",
            shown(row.p50_ratio_to_peer),
            f"{row.ms_p99:.2f}",
            records,
            f"{row.load_cpu_share:.0%}",
        )
    tables.show(table)
    print(f"\nThe load is generated in {' and '.join(sorted({row.generator for row in rows if row.generator}))}.")


def shown(value: float | None, digits: int = 2) -> str:
    """A ratio for the table."""
    return "–" if value is None else f"{value:.{digits}f}"


def by_processor(row: Row) -> str:
    """A note: the ratio to the peer by processor time instead of by rate."""
    return f"({1 / row.server_ratio_to_peer:.1f}× by time on a processor)" if row.server_ratio_to_peer else ""


def wanted(rows: list[Row]) -> list[Wanted]:
    """The wanted figures with what was measured."""
    found = {(row.workload, row.system): row for row in rows if not row.missing}
    many, one = found["single, 256 connections", EXPRESS], found["single, 1 connection", EXPRESS]
    largest = [row for (workload, _), row in found.items() if workload == f"batches of {max(BATCHES):,}"]
    figures = [
        Wanted("single POST, 256 connections, against the peer", many.ratio_to_peer, 8, True, "×", by_processor(many)),
        Wanted("single POST, 256 connections", many.per_second, 15_000, True, "/s"),
        Wanted("single POST, 1 connection, p50 against the peer's", one.p50_ratio_to_peer, 0.8, False, "×"),
    ]
    for row in largest:
        name = f"{row.workload}{', msgpack' if 'msgpack' in row.system else ', JSON'}"
        figures += [
            Wanted(f"{name}, against the peer's single POSTs", row.ratio_to_peer, 70, True, "×", by_processor(row)),
            Wanted(name, row.per_second, 150_000, True, "/s", "(an aim)"),
        ]
    return figures


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each load, after its warm-up")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only-batches", action="store_true", help="no single increments, and no line in the history")
    options = parser.parse_args()
    with ExitStack() as stack:
        ours = stack.enter_context(leader(SERVER_PROCESSOR))
        peer, missing = None, ""
        try:
            peer = stack.enter_context(fastapi_redis(SERVER_PROCESSOR))
        except Missing as lacking:
            missing = str(lacking)
        rows = [] if options.only_batches else run_singles(ours, peer, missing, options.seconds, options.rounds)
        rows += run_batches(ours, peer, options.seconds, options.rounds)
    show(rows)
    if options.only_batches:
        return
    figures = wanted(rows)
    show_wanted(figures)
    record("writes", {"rows": [msgspec.to_builtins(row) for row in rows], "wanted": msgspec.to_builtins(figures)})


if __name__ == "__main__":
    main()
