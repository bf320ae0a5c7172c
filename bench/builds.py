"""What did a change cost? One build beside another.

    git worktree add ../before REVISION && (cd ../before && make .venv/.installed-bench)
    python -m bench.builds ../before [--starts 6] [--rounds 6] [--seconds 0.3] [--viewers 1000] [--sizes 1000000]

Both builds run at once and take turns in one run (`bench.turns`): leaders on processor 0, the load on processor 1.
Which build goes first changes from round to round. For rates more is better, for processor time and latencies less.

Two processes of one build differ by some percent as long as they live. So each build is started several times. A start
gives the median of its rounds' ratios, this build's figure divided by the other's. A row has the geometric mean of the
starts, and its standard error in percent.
"""

from __future__ import annotations

import argparse
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import msgspec

from bench import tables
from bench.history import record
from bench.load import JSON, MSGPACK, Load, Workload, run_load
from bench.servers import ROOT, Server, leader
from bench.viewers import ViewerLoad, processor_seconds
from bench.viewers_peers import LIVE_CONFIG, USERS, Poster

SERVER_PROCESSOR, LOAD_PROCESSOR = 0, 1
SETTLE_SECONDS, APART_SECONDS = 0.1, 0.3
FIGURES = ("/s", "CPU us", "p50 ms", "last viewer ms", "ours", "rank", "rows", "increment", "all")
ENGINE_TASKS = ("move", "rank", "top", "frame 1", "frame 100", "frame 1000", "chain")


class Row(msgspec.Struct):
    """One figure of both builds: medians of the rounds; the mean ratio of the starts, and its error in percent."""

    workload: str
    figure: str
    this: float
    other: float
    ratio: float
    error: float


Figures = dict[str, float]


class Comparison:
    """What both builds did in turns."""

    def __init__(self, rounds: int) -> None:
        self._rounds = rounds
        self._pairs: dict[tuple[str, str], list[tuple[float, float]]] = {}
        self._ratios: dict[tuple[str, str], list[float]] = {}

    def take(self, name: str, this: Callable[[], Figures], other: Callable[[], Figures]) -> None:
        """Let both builds of one start do the same, in turns."""
        pairs: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for number in range(self._rounds):
            if number % 2:
                theirs, ours = other(), this()
            else:
                ours, theirs = this(), other()
            for figure in sorted(ours.keys() & theirs.keys()):
                pairs.setdefault((name, figure), []).append((ours[figure], theirs[figure]))
        for row, found in pairs.items():
            self._pairs.setdefault(row, []).extend(found)
            self._ratios.setdefault(row, []).append(statistics.median(ours / theirs for ours, theirs in found))

    def rows(self) -> list[Row]:
        """Give what was found."""
        return [
            Row(
                name,
                figure,
                statistics.median(ours for ours, _ in found),
                statistics.median(theirs for _, theirs in found),
                statistics.geometric_mean(ratios := self._ratios[name, figure]),
                100 * statistics.stdev(map(math.log, ratios)) / math.sqrt(len(ratios)) if len(ratios) > 1 else math.nan,
            )
            for (name, figure), found in self._pairs.items()
        ]


def requests(server: Server, workload: Workload) -> Figures:
    """Run a load; give its rate, the processor time of an answer, and latencies."""
    load: Load = run_load(workload, LOAD_PROCESSOR, server_pids=server.pids)
    assert load.errors == 0, f"{load.errors} answers were errors"
    return {"/s": load.per_second, "CPU us": load.server_us, "p50 ms": load.ms_p50}


def compare_http(comparison: Comparison, builds: tuple[Server, Server], seconds: float) -> None:
    """Increments, batches and polls."""
    batch = {"connections": 16, "path": "/scores/increment/batch", "batch": 1_000}
    loads: dict[str, dict[str, object]] = {
        "single, 1 connection": {"connections": 1},
        "single, 32 connections": {"connections": 32},
        "single, 256 connections": {"connections": 256},
        "single, 32 connections, Hypercorn lane": {
            "connections": 32, "first": "GET /healthz HTTP/1.1\r\nHost: bench\r\n\r\n"
        },
        "batches of 1,000": {**batch, "content_type": JSON},
        "batches of 1,000, msgpack": {**batch, "content_type": MSGPACK, "headers": (("Accept", MSGPACK),)},
        "top, 32 connections": {"connections": 32, "method": "GET", "path": "/scoreboard/top"},
    }  # fmt: skip
    for name, fields in loads.items():
        ways = [
            partial(
                requests,
                server,
                msgspec.convert(
                    {"port": server.port, "seconds": seconds, "warm_seconds": seconds, "token": server.token, **fields},
                    Workload,
                ),
            )
            for server in builds
        ]
        comparison.take(name, ways[0], ways[1])


class Watched:
    """A leader with viewers. `tick` increments once, and waits until every viewer has it."""

    def __init__(self, server: Server, viewers: ViewerLoad) -> None:
        self._pid = server.pids[0]
        self._poster = Poster(server)
        self._viewers = viewers

    def begin(self, viewers: int) -> None:
        """Connect viewers until there are so many."""
        for _ in range(USERS):
            self._poster.post()
        self._viewers.connect(viewers)

    def tick(self) -> Figures:
        """Give the processor time of a message, and the time to the last viewer."""
        self._viewers.forget_versions()
        messages, spent = self._viewers.statistics()["messages"], processor_seconds(self._pid)
        began = time.monotonic()
        last = self._viewers.wait_version(self._poster.post())
        time.sleep(SETTLE_SECONDS)
        spent = processor_seconds(self._pid) - spent
        messages = self._viewers.statistics()["messages"] - messages
        time.sleep(APART_SECONDS)
        return {"CPU us": spent / messages * 1e6, "last viewer ms": (last - began) * 1e3}


def compare_live(comparison: Comparison, builds: tuple[Server, Server], counts: list[int]) -> None:
    """Messages to viewers."""
    with ExitStack() as stack:
        loads = [stack.enter_context(ViewerLoad(server.port, LOAD_PROCESSOR)) for server in builds]
        this, other = (Watched(server, load) for server, load in zip(builds, loads, strict=True))
        for count in sorted(counts):
            for watched in (this, other):
                watched.begin(count)
            time.sleep(1.0)
            for watched in (this, other):
                watched.tick()
            comparison.take(f"a message to each of {count:,} viewers", this.tick, other.tick)


@contextmanager
def both(other: Path, *, other_first: bool) -> Iterator[tuple[Server, Server]]:
    """A leader of each build, this one's first."""
    checkouts = (other, ROOT) if other_first else (ROOT, other)
    with (
        leader(SERVER_PROCESSOR, LIVE_CONFIG, name="one", checkout=checkouts[0]) as one,
        leader(SERVER_PROCESSOR, LIVE_CONFIG, name="two", checkout=checkouts[1]) as two,
    ):
        yield (two, one) if other_first else (one, two)


class Engine:
    """The engine of a checkout, in a process that does one task of `bench.engine` at a time."""

    def __init__(self, checkout: Path, size: str) -> None:
        python = sys.executable if checkout == ROOT else str(checkout / ".venv/bin/python")
        command = ["taskset", "-c", str(SERVER_PROCESSOR), python, "-m", "bench.engine", "--serve", size]
        self._process = subprocess.Popen(
            command, cwd=checkout, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._ask() == "ready\n"

    def do(self, task: str) -> Figures:
        """Do a task; give the time of each step on the processor, in us."""
        assert self._process.stdin is not None
        print(task, file=self._process.stdin, flush=True)
        return msgspec.json.decode(self._ask(), type=Figures)

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)

    def _ask(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


def compare_engine(comparison: Comparison, other: Path, sizes: list[str]) -> None:
    """The steps of the engine alone."""
    for size in sizes:
        ours, theirs = Engine(ROOT, size), Engine(other, size)
        for task in ENGINE_TASKS:
            comparison.take(f"{task}, {int(size):,} users", partial(ours.do, task), partial(theirs.do, task))
        ours.close()
        theirs.close()


def show(rows: list[Row]) -> None:
    """Print the table."""
    table = tables.table("this build beside the other", ("workload", "figure"), ("this", "other", "ratio", "± %"))
    for row in rows:
        table.add_row(
            row.workload, row.figure, f"{row.this:,.2f}", f"{row.other:,.2f}", f"{row.ratio:.3f}", f"{row.error:.1f}"
        )
    tables.show(table)


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="a checkout of the other build")
    parser.add_argument("--starts", type=int, default=6, help="of each build")
    parser.add_argument("--rounds", type=int, default=6, help="of each start")
    parser.add_argument("--seconds", type=float, default=0.3, help="of each load, after as long a warm-up")
    parser.add_argument("--viewers", type=int, nargs="*", default=[1_000])
    parser.add_argument("--sizes", default="1000000", help="users of the engine's boards; empty: none")
    options = parser.parse_args()
    other = options.other.resolve()
    comparison = Comparison(options.rounds)
    for number in range(options.starts):
        other_first = number % 2 == 1
        with both(other, other_first=other_first) as builds:
            compare_http(comparison, builds, options.seconds)
        if options.viewers:
            with both(other, other_first=other_first) as builds:
                compare_live(comparison, builds, options.viewers)
        compare_engine(comparison, other, [size for size in options.sizes.split(",") if size])
    rows = [row for row in comparison.rows() if row.figure in FIGURES]
    show(rows)
    revision = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=other, capture_output=True, text=True, check=True
    )
    record("builds", {"other": revision.stdout.strip(), "rows": [msgspec.to_builtins(row) for row in rows]})


if __name__ == "__main__":
    main()
