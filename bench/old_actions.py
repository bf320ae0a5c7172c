"""What do 100,000,000 actions before cost? The same server with a long past, and without, in turns.

    python -m bench.old_actions [--actions 100000000] [--directory /var/tmp/past]

`bench.past` makes three directories of --users users, once: they stay under --directory, if that is given. Each server
gets a copy of its own, made of links, and ends with SIGKILL before it takes a snapshot. So every start replays the
same --tail events.

    empty     no action                    many     --actions, and --tail events after the snapshot
    few       1,000,000 actions, and the same tail

    restarts  few and many in turns: from the start of the process until /readyz says yes. Memory is what a server then
              holds beyond `empty`, an action; the metric says what the index itself counts.
    posts     new actions to `empty` and `many`: single over 256 connections, batches of 1,000 over 8
    repeats   32 connections repeat actions of all ages on `many`, in turns with repeats of actions that lie in memory,
              and with new actions. Before each load the kernel is told to drop the files of the index from its cache,
              and the bytes that the server then read from the disk are counted. Then one more connection sends new
              actions: the other caller, alone, and beside either kind of repeats.

Ratios are the medians of the rounds' ratios. Those of processor time hold when other programs use the machine.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from bench import tables
from bench.history import record
from bench.ledger import drop_from_cache
from bench.load import Load, Workload, processor_seconds, run_load
from bench.past import PREFIX, Past, build, copy_linked
from bench.restart import resident_bytes
from bench.servers import ROOT, WORK, Server, leader
from bench.turns import median, ms_p50, ms_p99, per_second, ratio, server_us, take_turns
from bench.wanted import Wanted, show_wanted
from bench.writes import measure_ours

SERVER_PROCESSOR, LOAD_PROCESSOR = 0, 1
FEW_ACTIONS = 1_000_000
EMPTY, FEW, MANY = "empty", "few", "many"
SINGLE, BATCHES = "single, 256 connections", "batches of 1,000"
LOADS: dict[str, dict[str, Any]] = {
    SINGLE: {"connections": 256},
    BATCHES: {"connections": 8, "path": "/scores/increment/batch", "batch": 1_000},
}
WANTED = {SINGLE: 0.95, BATCHES: 0.85}
CONFIG = "[snapshots]\nevery_events = 1000000000\n"
"""No snapshot is taken meanwhile: `restart` measures what one costs others."""

REPEATERS = 32
IN_MEMORY, SEED_SECONDS, MEMORY_STEP = 100_000, 6.0, 61_803
"""Actions that are repeated from memory, the time to send each of them once, and the step from one to the next.

As old ones they are those of many users in no order. A few would stay in the processor's cache, and their users too.
"""

ALONE, DISK, MEMORY, NEW = "alone", "repeats from the disk", "repeats from memory", "new actions"
PARTS = RESTARTS, POSTS, REPEATS = "restarts", "posts", "repeats"
BLOCK_BYTES = 4_096
"""What one read of the index takes."""

READY_SECONDS_MAX = 120.0
SEED = 20_251_215


class Start(msgspec.Struct, frozen=True):
    """A server that was just started: seconds until it was ready, its processor time, and its memory then."""

    seconds: float
    cpu_seconds: float
    resident_bytes: int
    index_bytes: float
    actions: float


# Directories


@contextmanager
def directories(place: str | None, pasts: dict[str, Past]) -> Iterator[dict[str, Path]]:
    """Give the directory of each past; make those that are not there."""
    with tempfile.TemporaryDirectory(dir=WORK if WORK.is_dir() else ROOT) as temporary:
        root = Path(place or temporary)
        found = {name: root / "-".join(map(str, past)) for name, past in pasts.items()}
        for name, path in found.items():
            if not path.is_dir():
                began = time.perf_counter()
                unfinished = path.with_name(f"{path.name}.unfinished")
                build(str(unfinished), pasts[name])
                unfinished.rename(path)
                print(f"made {name}: {pasts[name]} in {time.perf_counter() - began:.0f} s", flush=True)
        yield found


@contextmanager
def serving(source: Path, name: str) -> Iterator[Server]:
    """A server on a copy of a directory, ready; it is killed at the end."""

    def fill(directory: str) -> None:
        copy_linked(source, Path(directory))

    with leader(SERVER_PROCESSOR, CONFIG, name=f"past-{name}", fill=fill, kill=True) as server:
        wait_answer(server.port)
        yield server


# Restarts


def restart(source: Path, name: str) -> Start:
    """Start a server until it is ready, then kill it."""
    began: list[float] = []

    def fill(directory: str) -> None:
        copy_linked(source, Path(directory))
        began.append(time.perf_counter())

    with leader(SERVER_PROCESSOR, CONFIG, name=f"past-{name}", fill=fill, kill=True) as server:
        wait_answer(server.port)
        seconds, cpu_seconds = time.perf_counter() - began[0], processor_seconds(server.pids)
        return Start(
            seconds, cpu_seconds, resident_bytes(server.pids[0]), server.metric("scoreboard_action_index_bytes"),
            server.metric("scoreboard_actions"),
        )  # fmt: skip


def wait_answer(port: int) -> None:
    """Wait until /readyz says yes."""
    end = time.monotonic() + READY_SECONDS_MAX
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz"):
                return
        except urllib.error.HTTPError:
            if time.monotonic() > end:
                raise
            time.sleep(0.01)


def of_starts(figure: Callable[[Start], float], starts: list[Start]) -> float:
    """The median of a figure."""
    return statistics.median(map(figure, starts))


def restarts(found: dict[str, Path], rounds: int) -> dict[str, Any]:
    """Start the three in turns."""
    starts = take_turns({name: partial(restart, path, name) for name, path in found.items()}, rounds)
    many, few = starts[MANY], starts[FEW]
    more = of_starts(lambda start: start.actions, many)
    grown = of_starts(lambda start: start.resident_bytes, many) - of_starts(
        lambda start: start.resident_bytes, starts[EMPTY]
    )
    return {
        "starts": {
            name: {
                field: of_starts(lambda start, field=field: getattr(start, field), each)  # type: ignore[misc]
                for field in Start.__struct_fields__
            }
            for name, each in starts.items()
        },
        "bytes_per_action": grown / more,
        "index_bytes_per_action": of_starts(lambda start: start.index_bytes, many) / more,
        "restart_ratio": statistics.median(a.seconds / b.seconds for a, b in zip(many, few, strict=True)),
        "restart_cpu_ratio": statistics.median(a.cpu_seconds / b.cpu_seconds for a, b in zip(many, few, strict=True)),
    }


# New actions


def posts(servers: dict[str, Server], users: int, seconds: float, rounds: int) -> list[dict[str, Any]]:
    """Post new actions to both servers, in turns."""
    rows = []
    for name, fields in LOADS.items():
        each = fields.get("batch", 1)
        runs = {}
        for which, server in servers.items():
            asked = {"port": server.port, "token": server.token, "seconds": seconds, "users": users, **fields}
            runs[which] = partial(measure_ours, server, msgspec.convert(asked, Workload))
        loads = {which: [load for load, _ in found] for which, found in take_turns(runs, rounds).items()}
        rows.append({
            "load": name,
            **{f"{which}_per_second": median(per_second, found) * each for which, found in loads.items()},
            **{f"{which}_us": median(server_us, found) / each for which, found in loads.items()},
            "rate_ratio": ratio(per_second, loads[MANY], loads[EMPTY]),
            "cpu_ratio": ratio(server_us, loads[MANY], loads[EMPTY]),
        })  # fmt: skip
    return rows


# Repeated actions


def repeating(server: Server, past: Past, chance: random.Random, seconds: float) -> Workload:
    """Repeat actions of all ages: other ones each time, in an order that neither files nor log know."""
    step = chance.randrange(10**6, 10**7) * 10 + 1  # coprime with every power of ten
    return Workload(
        port=server.port, connections=REPEATERS, seconds=seconds, token=server.token, users=past.users, prefix=PREFIX,
        numbers=past.actions, step=step,
    )  # fmt: skip


class Repeats:
    """Loads on `many`. `heavy` are the repeats beside another caller; `reads` counts reads of the disk for a repeat."""

    def __init__(self, server: Server, source: Path, past: Past, seconds: float) -> None:
        self._server, self._source, self._past, self._seconds = server, source, past, seconds
        self._chance = random.Random(SEED)
        memory = repeating(server, past, self._chance, seconds)
        young = {"prefix": PREFIX.replace("0", "1"), "numbers": IN_MEMORY, "step": MEMORY_STEP}
        self._memory = msgspec.structs.replace(memory, **young)
        before = server.metric("scoreboard_actions")
        seeds = {**LOADS[BATCHES], "connections": 1, "seconds": SEED_SECONDS, "step": 1}
        run_load(msgspec.structs.replace(self._memory, **seeds), LOAD_PROCESSOR)
        assert server.metric("scoreboard_actions") == before + IN_MEMORY, "not all of these lie in memory"
        self.heavy: dict[str, list[Load]] = {DISK: [], MEMORY: []}
        self.reads: list[float] = []

    def run(self, what: str) -> Load:
        """Send nothing else."""
        workload = self._workload(what)
        actions, read = self._server.metric("scoreboard_actions"), bytes_read(self._server.pids[0])
        load = run_load(workload, LOAD_PROCESSOR, server_pids=self._server.pids)
        assert load.errors == 0, f"{load.errors} answers were errors"
        if what != NEW:
            assert self._server.metric("scoreboard_actions") == actions, f"{what}: an action counted twice"
        if what == DISK:
            self.reads.append((bytes_read(self._server.pids[0]) - read) / BLOCK_BYTES / load.answers_all)
        return load

    def beside(self, what: str) -> Load:
        """Send new actions over one more connection; give the figures of these."""
        one = msgspec.structs.replace(self._workload(NEW), connections=1)
        if what == ALONE:
            return run_load(one, LOAD_PROCESSOR)
        workload = self._workload(what)
        thread = threading.Thread(target=lambda: self.heavy[what].append(run_load(workload, LOAD_PROCESSOR)))
        thread.start()
        load = run_load(one, LOAD_PROCESSOR)
        thread.join()
        return load

    def _workload(self, what: str) -> Workload:
        drop_from_cache(self._source / "actions")
        cold = repeating(self._server, self._past, self._chance, self._seconds)
        return {DISK: cold, MEMORY: self._memory, NEW: msgspec.structs.replace(cold, prefix="")}[what]


def bytes_read(process: int) -> int:
    """What a process has read from disks, beyond what was in the cache."""
    lines = Path(f"/proc/{process}/io").read_text(encoding="ascii").splitlines()
    return next(int(line.partition(":")[2]) for line in lines if line.startswith("read_bytes:"))


def repeats(server: Server, source: Path, past: Past, seconds: float, rounds: int) -> dict[str, Any]:
    """Repeat old actions, and see what another caller notices."""
    loads = Repeats(server, source, past, seconds)
    alone = take_turns({each: partial(loads.run, each) for each in (DISK, MEMORY, NEW)}, rounds)
    others = take_turns({each: partial(loads.beside, each) for each in (ALONE, DISK, MEMORY)}, rounds)
    return {
        "loads": {name: described(found) for name, found in alone.items()},
        "others": {name: described(found) for name, found in others.items()},
        "beside": {name: described(found) for name, found in loads.heavy.items()},
        "reads_per_repeat": statistics.median(loads.reads),
        "rate_ratio_to_new": ratio(per_second, alone[DISK], alone[NEW]),
        "p99_ratio_to_new": ratio(ms_p99, alone[DISK], alone[NEW]),
        "others_p99_ratio": ratio(ms_p99, others[DISK], others[MEMORY]),
    }


def described(loads: list[Load]) -> dict[str, float]:
    """The figures of a load."""
    return {
        "per_second": median(per_second, loads), "ms_p50": median(ms_p50, loads), "ms_p99": median(ms_p99, loads),
        "server_us": median(server_us, loads),
    }  # fmt: skip


# The whole


def show_restarts(figures: dict[str, Any]) -> list[Wanted]:
    """Print what starts cost; give what is wanted of them."""
    table = tables.table("restarts", ("server",), ("actions", "s", "processor s", "resident MiB", "index MiB"))
    for name, start in figures["starts"].items():
        sizes = (f"{start['resident_bytes'] / 2**20:,.0f}", f"{start['index_bytes'] / 2**20:,.1f}")
        table.add_row(
            name, f"{start['actions']:,.0f}", f"{start['seconds']:.2f}", f"{start['cpu_seconds']:.2f}", *sizes
        )
    tables.show(table)
    counted = f"(the index itself counts {figures['index_bytes_per_action']:.2f})"
    by_processor = f"({figures['restart_cpu_ratio']:.2f}× by time on a processor)"
    return [
        Wanted("memory of an old action", figures["bytes_per_action"], 4, False, " B", counted),
        Wanted(f"restart, against {FEW_ACTIONS:,} actions", figures["restart_ratio"], 1.5, False, "×", by_processor),
    ]


def show_posts(rows: list[dict[str, Any]]) -> list[Wanted]:
    """Print what new actions cost; give what is wanted of them."""
    columns = ("empty /s", "many /s", "× rate", "empty µs", "many µs", "× processor time")
    table = tables.table("new actions", ("load",), columns)
    figures = []
    for row in rows:
        table.add_row(
            row["load"], f"{row['empty_per_second']:,.0f}", f"{row['many_per_second']:,.0f}",
            f"{row['rate_ratio']:.2f}", f"{row['empty_us']:.1f}", f"{row['many_us']:.1f}", f"{row['cpu_ratio']:.2f}",
        )  # fmt: skip
        note = f"({1 / row['cpu_ratio']:.2f}× by time on a processor)"
        what = f"{row['load']}, against none before"
        figures.append(Wanted(what, row["rate_ratio"], WANTED[row["load"]], True, "×", note))
    tables.show(table)
    return figures


def show_repeats(figures: dict[str, Any]) -> list[Wanted]:
    """Print what repeats cost; give what is wanted of them."""
    columns = ("/s", "p50 ms", "p99 ms", "processor µs")
    table = tables.table(f"repeated actions, {REPEATERS} connections", ("caller",), columns)
    lines = dict(figures["loads"])
    lines |= {
        f"another caller beside {name}".replace("beside alone", "alone"): it for name, it in figures["others"].items()
    }
    lines |= {f"{name} beside him": load for name, load in figures["beside"].items()}
    for name, load in lines.items():
        us = f"{load['server_us']:.1f}" if load["server_us"] else "–"
        table.add_row(name, f"{load['per_second']:,.0f}", f"{load['ms_p50']:.2f}", f"{load['ms_p99']:.2f}", us)
    tables.show(table)
    print(f"A repeat of an old action took {figures['reads_per_repeat']:.2f} reads of 4 KiB.")
    cold = figures["loads"][DISK]
    notes = (
        f"({1e6 / cold['server_us']:,.0f}/s by time on a processor; {figures['rate_ratio_to_new']:.2f}× new actions)",
        f"({figures['p99_ratio_to_new']:.2f}× that of new actions)",
    )
    return [
        Wanted(f"old actions repeated, cold, {REPEATERS} connections", cold["per_second"], 5_000, True, "/s", notes[0]),
        Wanted("– p99", cold["ms_p99"], 20, False, " ms", notes[1]),
        Wanted(
            "– p99 of another caller, against repeats from memory", figures["others_p99_ratio"], 1.2, False, "×"
        ),
    ]  # fmt: skip


def measure(parts: list[str], found: dict[str, Path], past: Past, seconds: float, rounds: int) -> dict[str, Any]:
    """Measure these parts."""
    figures: dict[str, Any] = {}
    if RESTARTS in parts:
        figures[RESTARTS] = restarts(found, rounds)
    if POSTS in parts:
        with serving(found[EMPTY], EMPTY) as empty, serving(found[MANY], MANY) as many:
            figures[POSTS] = posts({EMPTY: empty, MANY: many}, past.users, seconds, rounds)
    if REPEATS in parts:
        with serving(found[MANY], MANY) as many:
            figures[REPEATS] = repeats(many, found[MANY], past, seconds, rounds)
    return figures


def main() -> None:
    """Make, measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--actions", type=int, default=100_000_000)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--tail", type=int, default=100_000)
    parser.add_argument("--directory", help="where the directories stay; without it they are removed at the end")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each load, after its warm-up")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    options = parser.parse_args()
    many = Past(options.users, options.actions, options.tail)
    pasts = {EMPTY: Past(options.users, 0, 0), FEW: Past(options.users, FEW_ACTIONS, options.tail), MANY: many}
    with directories(options.directory, pasts) as found:
        figures = measure(options.parts, found, many, options.seconds, options.rounds)
    shown: dict[str, Callable[[Any], list[Wanted]]]
    shown = {RESTARTS: show_restarts, POSTS: show_posts, REPEATS: show_repeats}
    reached = [figure for part, measured in figures.items() for figure in shown[part](measured)]
    show_wanted(reached)
    record("old_actions", {"actions": options.actions, **figures, "wanted": msgspec.to_builtins(reached)})


if __name__ == "__main__":
    main()
