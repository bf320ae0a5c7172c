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
    repeats   32 connections repeat actions of all ages on `many`; before each load the kernel is told to drop the files
              of the index from its cache. Meanwhile one more connection sends new actions: the other caller, alone,
              beside repeats that are read from the disk, and beside as many whose actions lie in memory.

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
CONFIG = "[snapshots]\nevery_events = 1000000000\n"
"""No snapshot is taken meanwhile: `restart` measures what one costs others."""

REPEATERS = 32
IN_MEMORY = 20_000
"""Actions that are repeated from memory."""

ALONE, DISK, MEMORY = "alone", "beside repeats from the disk", "beside repeats from memory"
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
    """A server on a copy of a directory; it is killed at the end."""

    def fill(directory: str) -> None:
        copy_linked(source, Path(directory))

    with leader(SERVER_PROCESSOR, CONFIG, name=f"past-{name}", fill=fill, kill=True) as server:
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


def repeats(server: Server, source: Path, past: Past, seconds: float, rounds: int) -> dict[str, Any]:
    """Repeat old actions, and see what another caller notices."""
    chance = random.Random(SEED)
    memory = repeating(server, past, chance, seconds)
    memory = msgspec.structs.replace(memory, prefix=PREFIX.replace("0", "1"), numbers=IN_MEMORY, step=1)
    run_load(memory, LOAD_PROCESSOR)  # these are new ones: now they lie in memory
    heavy: dict[str, list[Load]] = {DISK: [], MEMORY: []}

    def beside(which: str) -> Load:
        drop_from_cache(source / "actions")
        one = Workload(port=server.port, connections=1, seconds=seconds, token=server.token, users=past.users)
        if which == ALONE:
            return run_load(one, LOAD_PROCESSOR)
        workload = memory if which == MEMORY else repeating(server, past, chance, seconds + 0.5)
        thread = threading.Thread(target=lambda: heavy[which].append(run_load(workload, LOAD_PROCESSOR)))
        thread.start()
        load = run_load(one, LOAD_PROCESSOR)
        thread.join()
        return load

    def by_itself() -> Load:
        drop_from_cache(source / "actions")
        before = server.metric("scoreboard_actions")
        load = run_load(repeating(server, past, chance, seconds), LOAD_PROCESSOR, server_pids=server.pids)
        assert load.errors == 0, f"{load.errors} answers were errors"
        assert server.metric("scoreboard_actions") == before, "an action counted twice"
        return load

    runs: dict[str, Callable[[], Load]] = {each: partial(beside, each) for each in (ALONE, DISK, MEMORY)}
    found = take_turns({**runs, "repeats": by_itself}, rounds)
    return {
        "repeats": described(found["repeats"]),
        "others": {each: described(found[each]) for each in runs},
        "beside": {each: described(loads) for each, loads in heavy.items()},
        "others_p99_ratio": ratio(ms_p99, found[DISK], found[MEMORY]),
    }


def described(loads: list[Load]) -> dict[str, float]:
    """The figures of a load."""
    return {
        "per_second": median(per_second, loads), "ms_p50": median(ms_p50, loads), "ms_p99": median(ms_p99, loads),
        "server_us": median(server_us, loads),
    }  # fmt: skip


# The whole


def show(figures: dict[str, Any]) -> None:
    """Print what was measured."""
    starts = figures["restarts"]["starts"]
    table = tables.table("restarts", ("server",), ("actions", "s", "processor s", "resident MiB", "index MiB"))
    for name, start in starts.items():
        sizes = (f"{start['resident_bytes'] / 2**20:,.0f}", f"{start['index_bytes'] / 2**20:,.1f}")
        table.add_row(
            name, f"{start['actions']:,.0f}", f"{start['seconds']:.2f}", f"{start['cpu_seconds']:.2f}", *sizes
        )
    tables.show(table)
    table = tables.table(
        "new actions", ("load",), ("empty /s", "many /s", "× rate", "empty µs", "many µs", "× processor time")
    )
    for row in figures["posts"]:
        table.add_row(
            row["load"], f"{row['empty_per_second']:,.0f}", f"{row['many_per_second']:,.0f}",
            f"{row['rate_ratio']:.2f}", f"{row['empty_us']:.1f}", f"{row['many_us']:.1f}", f"{row['cpu_ratio']:.2f}",
        )  # fmt: skip
    tables.show(table)
    table = tables.table(f"repeated actions, {REPEATERS} connections", ("caller",), ("/s", "p50 ms", "p99 ms"))
    found = figures["repeats"]
    lines = {"repeats from the disk, cold": found["repeats"]}
    lines |= {f"another caller, {name}": load for name, load in found["others"].items()}
    lines |= {
        f"the repeats {name.removeprefix('beside repeats ')}, beside him": load
        for name, load in found["beside"].items()
    }
    for name, load in lines.items():
        table.add_row(name, f"{load['per_second']:,.0f}", f"{load['ms_p50']:.2f}", f"{load['ms_p99']:.2f}")
    tables.show(table)


def wanted(figures: dict[str, Any], actions: int) -> list[Wanted]:
    """The wanted figures with what was measured."""
    rows = {row["load"]: row for row in figures["posts"]}
    starts, found, again = figures["restarts"], figures["repeats"], figures["repeats"]["repeats"]
    after = f"after {actions:,} actions"
    ratios = [
        Wanted(
            f"{name} {after}, against none", rows[name]["rate_ratio"], bound, True, "×",
            f"({1 / rows[name]['cpu_ratio']:.2f}× by time on a processor)",
        )
        for name, bound in ((BATCHES, 0.85), (SINGLE, 0.95))
    ]  # fmt: skip
    counted = f"(the index itself counts {starts['index_bytes_per_action']:.2f})"
    return [
        Wanted(f"memory of an action, {after}", starts["bytes_per_action"], 4, False, " B", counted),
        *ratios,
        Wanted(f"repeated actions {after}, cold, {REPEATERS} connections", again["per_second"], 5_000, True, "/s"),
        Wanted("– p99", again["ms_p99"], 20, False, " ms"),
        Wanted("– p99 of another caller, against repeats from memory", found["others_p99_ratio"], 1.2, False, "×"),
        Wanted(
            f"restart {after}, against {FEW_ACTIONS:,}", starts["restart_ratio"], 1.5, False, "×",
            f"({starts['restart_cpu_ratio']:.2f}× by time on a processor)",
        ),
    ]  # fmt: skip


def main() -> None:
    """Make, measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--actions", type=int, default=100_000_000)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--tail", type=int, default=100_000)
    parser.add_argument("--directory", help="where the directories stay; without it they are removed at the end")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each load, after its warm-up")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    many = Past(options.users, options.actions, options.tail)
    pasts = {EMPTY: Past(options.users, 0, 0), FEW: Past(options.users, FEW_ACTIONS, options.tail), MANY: many}
    with directories(options.directory, pasts) as found:
        figures: dict[str, Any] = {"restarts": restarts(found, options.rounds)}
        with serving(found[EMPTY], EMPTY) as empty, serving(found[MANY], MANY) as server:
            wait_answer(empty.port)
            wait_answer(server.port)
            servers = {EMPTY: empty, MANY: server}
            figures["posts"] = posts(servers, options.users, options.seconds, options.rounds)
        with serving(found[MANY], MANY) as server:
            wait_answer(server.port)
            figures["repeats"] = repeats(server, found[MANY], many, options.seconds, options.rounds)
    show(figures)
    reached = wanted(figures, options.actions)
    show_wanted(reached)
    record("old_actions", {"actions": options.actions, **figures, "wanted": msgspec.to_builtins(reached)})


if __name__ == "__main__":
    main()
