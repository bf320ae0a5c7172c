"""What does an import over HTTP cost the others, by the size of its pieces? `python -m bench.imports_http`.

A leader on one processor gets --rows rows, piece by piece, each sent when the one before was answered. Meanwhile one
caller sends an increment every 10 ms and notes how long each takes; a caller that is late sends at once. `none` is that
caller alone. The sender and the caller share the other processor. Each size has a new leader; --runs repeats it, and
the fastest import and the least p99 count, because other guests of a machine only add time.

The size that the server takes, IMPORT_PIECE_ROWS_MAX, was chosen by this table, with a server that took more.
"""

from __future__ import annotations

import argparse
import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec

from bench import tables
from bench.history import record
from bench.servers import Server, leader, token
from bench.wanted import Wanted, show_wanted
from server import bounds

SEED = 20_251_216
EVERY_SECONDS = 0.01
ALONE_SECONDS = 3.0
SIZES = (100, 250, 500, 1_000)


def pieces(rows: int, size: int) -> Iterator[bytes]:
    """Make the bodies of an import: the best first, with many ties."""
    chance = random.Random(SEED)
    scores = sorted((chance.randrange(rows // 10 + 1) for _ in range(rows)), reverse=True)
    for first in range(0, rows, size):
        many = [
            {"userId": f"user-{number:08}", "score": scores[number]} for number in range(first, min(rows, first + size))
        ]
        body = {"importId": "bench", "digest": "bench", "total": rows, "firstRow": first, "merge": True, "rows": many}
        yield msgspec.msgpack.encode(body)


class Caller(threading.Thread):
    """Sends an increment every EVERY_SECONDS until it is told to stop."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self._server = server
        self.stopped = threading.Event()
        self.ms: list[float] = []

    def run(self) -> None:
        """Send, one after the other."""
        headers = {"authorization": f"Bearer {self._server.token}"}
        with httpx.Client(base_url=f"http://127.0.0.1:{self._server.port}", headers=headers, timeout=60) as client:
            number, due_s = 0, time.perf_counter()
            while not self.stopped.is_set():
                body = {"userId": f"player-{number % 1_000}", "actionId": f"action-{number}"}
                began_s = time.perf_counter()
                client.post("/scores/increment", json=body).raise_for_status()
                ended_s = time.perf_counter()
                self.ms.append((ended_s - began_s) * 1_000)
                number += 1
                due_s = max(due_s + EVERY_SECONDS, ended_s)
                time.sleep(due_s - ended_s)


def run(rows: int, size: int) -> dict[str, float]:
    """Import with pieces of this size beside a caller; size 0: only the caller."""
    bodies = list(pieces(rows, size)) if size else []
    with leader(processor=0, name=f"imports-{size}") as server:
        headers = {"authorization": f"Bearer {token(server.secret, 'admin')}", "content-type": "application/msgpack"}
        with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", headers=headers, timeout=60) as client:
            caller = Caller(server)
            caller.start()
            began_s = time.perf_counter()
            for body in bodies:
                client.post("/boards/main/imports", content=body).raise_for_status()
            if not bodies:
                time.sleep(ALONE_SECONDS)
            seconds = time.perf_counter() - began_s
            caller.stopped.set()
            caller.join()
    ms = sorted(caller.ms)
    return {
        "rows_per_s": rows / seconds if size else 0.0, "increments": len(ms), "ms_p50": ms[len(ms) // 2],
        "ms_p99": ms[len(ms) * 99 // 100], "ms_max": ms[-1],
    }  # fmt: skip


def best(rows: int, size: int, runs: int) -> dict[str, float]:
    """The fastest import and the least waits of several runs."""
    found = [run(rows, size) for _ in range(runs)]
    return {name: (max if name == "rows_per_s" else min)(each[name] for each in found) for name in found[0]}


def main() -> None:
    """Parse the arguments; measure, print, record."""
    parser = argparse.ArgumentParser(prog="python -m bench.imports_http", description="Imports beside increments.")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    arguments = parser.parse_args()
    figures: dict[str, Any] = {"rows": arguments.rows}
    table = tables.table("an increment every 10 ms, beside an import over HTTP", ("rows of a piece",),
                         ("rows/s", "p50 ms", "p99 ms", "max ms"))  # fmt: skip
    for size in (0, *arguments.sizes):
        figure = figures["none" if not size else str(size)] = best(arguments.rows, size, arguments.runs)
        table.add_row(
            str(size or "none"), f"{figure['rows_per_s']:,.0f}" if size else "–", f"{figure['ms_p50']:.1f}",
            f"{figure['ms_p99']:.1f}", f"{figure['ms_max']:.1f}",
        )  # fmt: skip
    tables.show(table)
    chosen = figures.get(str(bounds.IMPORT_PIECE_ROWS_MAX))
    if chosen is not None:
        wanted = [
            Wanted("p99 of an increment beside an import over HTTP", chosen["ms_p99"], 50, False, " ms"),
            Wanted("rows a second of an import over HTTP", chosen["rows_per_s"], 20_000, True, "/s"),
        ]
        show_wanted(wanted)
        figures["wanted"] = msgspec.to_builtins(wanted)
    record("imports_http", figures)


if __name__ == "__main__":
    main()
