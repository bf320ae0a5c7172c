"""How many polls of the top a second, and how long does each take? Beside FastAPI and Redis.

    python -m bench.reads [--seconds 1.5] [--rounds 5] [--users 10000]

Servers are on processor 0, the load is on processor 1, and systems take turns (`bench.turns`). Both boards have the
same users with the same scores. There are three ways to poll `GET /scoreboard/top`:

    quiet       nobody writes
    busy        a backend increments WRITES_PER_SECOND times a second, so a kept answer grows old
    ETag        as quiet, and the poller says which version it has: 304, without a body

The peer reads Redis and encodes for each poll, as tutorials do. It has no ETag: a team would have to keep a version
beside the board, in the script too. So a poller of the peer gets the whole answer. That answer stands beside our 304,
and the row says so.
"""

from __future__ import annotations

import argparse
import http.client
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import msgspec

from bench import tables
from bench.filling import fill_ours, fill_peer
from bench.history import record
from bench.load import Load, Workload, item_of, run_load
from bench.servers import Missing, Server, fastapi_redis, leader
from bench.turns import median, ms_p50, ms_p99, per_second, ratio, server_us, take_turns
from bench.wanted import Wanted, show_wanted

SERVER_PROCESSOR, LOAD_PROCESSOR = 0, 1
CONNECTIONS = (1, 32)
WRITES_PER_SECOND = 100
TOP = "/scoreboard/top"
EXPRESS, PEER = "express lane", "FastAPI + Redis"
QUIET, BUSY, ETAG = "quiet", "busy", "ETag"
NO_ETAG = "no ETag, so its whole answers"

Run = Callable[[], Load]


class Row(msgspec.Struct, kw_only=True):
    """A system under a workload, as medians of the rounds. `missing`: why there are no figures, or what differs.

    `server_us` is the processor time of a poll; `server_ratio_to_peer` is its ratio to the peer's.
    """

    workload: str
    connections: int
    system: str
    per_second: float = 0.0
    ms_p50: float = 0.0
    ms_p99: float = 0.0
    load_cpu_share: float = 0.0
    server_us: float = 0.0
    ratio_to_peer: float | None = None
    server_ratio_to_peer: float | None = None
    missing: str = ""


# Measuring


@contextmanager
def writer(server: Server) -> Iterator[None]:
    """A backend that increments WRITES_PER_SECOND times a second, one at a time."""
    stop = threading.Event()
    failed: list[BaseException] = []

    def write() -> None:
        backend = http.client.HTTPConnection("127.0.0.1", server.port)
        headers = {"Authorization": f"Bearer {server.token}", "Content-Type": "application/json"}
        prefix, number, due = f"busy-{time.time_ns()}", 0, time.monotonic()
        while not stop.wait(max(0.0, due - time.monotonic())):
            due = max(due + 1 / WRITES_PER_SECOND, time.monotonic() - 1)
            number += 1
            backend.request("POST", "/scores/increment", msgspec.json.encode(item_of(prefix, number)), headers)
            answer = backend.getresponse()
            answer.read()
            assert answer.status == 200, answer.status
        backend.close()

    def guarded() -> None:
        try:
            write()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if failed:
        raise failed[0]


def poll(server: Server, way: str, connections: int, seconds: float) -> Load:
    """Run one load of polls."""
    headers: tuple[tuple[str, str], ...] = ()
    if way == ETAG:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{TOP}") as answer:
            headers = (("If-None-Match", answer.headers["ETag"]),)
    workload = Workload(
        port=server.port, connections=connections, seconds=seconds, method="GET", path=TOP, headers=headers
    )
    with ExitStack() as stack:
        if way == BUSY:
            stack.enter_context(writer(server))
        load = run_load(workload, LOAD_PROCESSOR, server_pids=server.pids)
    assert load.errors == 0, f"{load.errors} answers were errors"
    return load


def in_turns(workload: str, connections: int, runs: dict[str, Run], rounds: int) -> list[Row]:
    """Let the systems take turns, and give a row for each."""
    measured = take_turns(runs, rounds)
    beside = measured.get(PEER)
    return [
        Row(
            workload=workload,
            connections=connections,
            system=system,
            per_second=median(per_second, loads),
            ms_p50=median(ms_p50, loads),
            ms_p99=median(ms_p99, loads),
            load_cpu_share=max(load.cpu_share for load in loads),
            server_us=median(server_us, loads),
            ratio_to_peer=ratio(per_second, loads, beside) if beside else None,
            server_ratio_to_peer=ratio(server_us, loads, beside) if beside else None,
            missing=NO_ETAG if system == PEER and workload == ETAG else "",
        )
        for system, loads in measured.items()
    ]


def run_all(ours: Server, peer: Server | None, missing: str, seconds: float, rounds: int) -> list[Row]:
    """Run every way of polling on every system."""

    def polls(server: Server, way: str, connections: int) -> Run:
        return lambda: poll(server, way, connections, seconds)

    rows: list[Row] = []
    for way in (QUIET, BUSY, ETAG):
        for connections in CONNECTIONS:
            runs = {EXPRESS: polls(ours, way, connections)}
            if peer is not None:
                runs[PEER] = polls(peer, QUIET if way == ETAG else way, connections)
            rows += in_turns(way, connections, runs, rounds)
            if peer is None:
                rows.append(Row(workload=way, connections=connections, system=PEER, missing=missing))
    return rows


# The table


def show(rows: list[Row], users: int) -> None:
    """Print the table."""
    columns = ("polls/s", "× peer", "CPU µs", "× peer", "p50 ms", "p99 ms", "load CPU")
    table = tables.table(f"GET {TOP}, {users:,} users", ("poll", "system"), columns)
    for row in rows:
        name = f"{row.workload}, {row.connections} connection{'s' if row.connections > 1 else ''}"
        system = f"{row.system}: {row.missing}" if row.missing else row.system
        if not row.per_second:
            table.add_row(name, system, *(["–"] * 7))
            continue
        beside = "–" if row.ratio_to_peer is None else f"{row.ratio_to_peer:.2f}"
        cpu_beside = "–" if row.server_ratio_to_peer is None else f"{row.server_ratio_to_peer:.3f}"
        figures = (f"{row.per_second:,.0f}", beside, f"{row.server_us:.1f}", cpu_beside)
        table.add_row(name, system, *figures, f"{row.ms_p50:.3f}", f"{row.ms_p99:.3f}", f"{row.load_cpu_share:.0%}")
    tables.show(table)


def wanted(rows: list[Row]) -> list[Wanted]:
    """The wanted figures with what was measured."""
    found = {(row.workload, row.connections): row for row in rows if row.system == EXPRESS}
    figures = []
    for way in (QUIET, BUSY):
        row = found[way, 32]
        by = f"({1 / row.server_ratio_to_peer:.1f}× by time on a processor)" if row.server_ratio_to_peer else ""
        name = f"GET {TOP}, 32 connections, {way}, against the peer"
        figures.append(Wanted(name, row.ratio_to_peer, 8, True, "×", by))
    return figures


def main() -> None:
    """Fill, measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each load, after its warm-up")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--users", type=int, default=10_000)
    options = parser.parse_args()
    with ExitStack() as stack:
        ours = stack.enter_context(leader(SERVER_PROCESSOR))
        fill_ours(ours, options.users)
        peer, missing = None, ""
        try:
            peer = stack.enter_context(fastapi_redis(SERVER_PROCESSOR))
        except Missing as lacking:
            missing = str(lacking)
        else:
            fill_peer(peer, options.users)
        rows = run_all(ours, peer, missing, options.seconds, options.rounds)
    show(rows, options.users)
    figures = wanted(rows)
    show_wanted(figures)
    builtins = msgspec.to_builtins
    record("reads", {"users": options.users, "rows": builtins(rows), "wanted": builtins(figures)})


if __name__ == "__main__":
    main()
