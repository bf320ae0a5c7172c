"""What does the index of older actions cost, beside two libraries? `python -m bench.index [--actions 10000000]`.

    runs           our own files (`engine.action_run`), sealed block by block and joined
    rocksdict      RocksDB with a Bloom filter of 10 bits a key, as its guide has it; and of 28, as many as our filter
    lmdb           LMDB, which reads its file through the memory that the system maps

Each store is filled in a process of its own: BLOCK_ACTIONS random keys at a time, each block durable before the next.

    CPU us         processor time of that process for an action, background threads too
    written        bytes that the process gave to the disk for an action
    on disk        bytes of the files at the end, for an action

Then, in turns, ROUNDS times, a new process opens each store with the system's cache of its files dropped, and asks.

    open           ms until the store answers
    new, cold      1,000 new keys together: ms until the answer. A wrong yes of a filter reads the disk
    cold           old keys, one by one, each in its own place: ms until the answer, from the disk; p50 and p99
    new, 1,000     keys that are not there, 1,000 together as a batch is: processor time for each
    new, 1         the same one by one, as single requests
    warm           old keys whose pages the system has in its cache, one by one, processor time
    memory         bytes for an action, after all this: anonymous memory of the process, which nobody can take away
    mapped         pages of the files that it has mapped, for an action, after all this. They can be taken away, and are
                   read again then. The page cache of files that are read without a map is in neither figure.

What is asked is right: each old key gives its seq, a new one nothing. A library's defaults are kept where this says
nothing, so RocksDB has a block cache of some MB beside the system's.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench import tables
from bench.history import record
from bench.index_stores import STORES, Store
from bench.servers import Missing
from bench.turns import take_turns
from engine.action_blocks import BLOCK_ACTIONS, Words

ROUNDS = 3
TOGETHER = 1_000
BATCHES = 110
FIRST = 10
"""Batches that are asked while nothing is in the system's cache."""
ALONE = 10_000
COLD = 1_000
SEED = 20_261_130
WORK = Path(__file__).with_name("work") / "index"


def block(number: int) -> tuple[Words, Words, Words]:
    """Give keys, seqs and marks of a block; the same in each process."""
    rng = np.random.default_rng([SEED, number])
    first = number * BLOCK_ACTIONS + 1
    seqs = np.arange(first, first + BLOCK_ACTIONS, dtype=np.uint64)
    return rng.integers(0, 2**64, 2 * BLOCK_ACTIONS, np.uint64), seqs, rng.integers(1, 2**64, BLOCK_ACTIONS, np.uint64)


def keys_in(words: Words) -> list[bytes]:
    data = words.tobytes()
    return [data[at : at + 16] for at in range(0, len(data), 16)]


def some_old(blocks: int, count: int, seed: int) -> list[tuple[bytes, int]]:
    """Choose keys that are there, out of all blocks, with their seqs."""
    rng = np.random.default_rng([SEED, seed])
    each = -(-count // blocks)
    chosen = []
    for number in range(blocks):
        keys, seqs, _ = block(number)
        places = rng.choice(BLOCK_ACTIONS, each, replace=False).tolist()
        chosen += [(keys[2 * at : 2 * at + 2].tobytes(), int(seqs[at])) for at in places]
    return [chosen[at] for at in rng.permutation(len(chosen))[:count].tolist()]


def fill(store: Store, directory: Path, blocks: int) -> dict[str, float]:
    """Fill a store; give the figures for an action."""
    actions = blocks * BLOCK_ACTIONS
    given, cpu, wall = written_bytes(), 0.0, 0.0
    for number in range(blocks):
        columns = block(number)
        began, worked = time.perf_counter(), time.process_time()
        store.add(*columns)
        cpu += time.process_time() - worked
        wall += time.perf_counter() - began
    began, worked = time.perf_counter(), time.process_time()
    store.close()
    cpu += time.process_time() - worked
    wall += time.perf_counter() - began
    on_disk = sum(path.stat().st_blocks * 512 for path in directory.rglob("*"))
    return {
        "cpu_us": cpu / actions * 1e6,
        "wall_us": wall / actions * 1e6,
        "written": (written_bytes() - given) / actions,
        "on_disk": on_disk / actions,
    }


def ask(name: str, directory: Path, blocks: int, round_number: int) -> dict[str, float]:
    """Open a store and ask it; give the figures."""
    old = some_old(blocks, COLD, 10_000_000 + round_number)
    rng = np.random.default_rng([SEED, 20_000_000 + round_number])
    new = [keys_in(rng.integers(0, 2**64, 2 * TOGETHER, np.uint64)) for _ in range(BATCHES)]
    anonymous = memory_bytes("RssAnon")
    drop_from_cache(directory)
    began = time.perf_counter()
    store = STORES[name](str(directory))
    assert store.known([new[0][0]]) == [None]
    figures = {"open_ms": (time.perf_counter() - began) * 1e3}
    waited = []
    for keys in new[:FIRST]:
        began = time.perf_counter()
        assert not any(store.known(keys))
        waited.append((time.perf_counter() - began) * 1e3)
    figures["new_cold_ms"] = statistics.median(waited)
    cold = []
    for key, seq in old:
        began = time.perf_counter()
        assert store.known([key]) == [seq]
        cold.append((time.perf_counter() - began) * 1e3)
    figures["cold_ms_p50"] = statistics.median(cold)
    figures["cold_ms_p99"] = statistics.quantiles(cold, n=100)[98]
    together = []
    for keys in new[FIRST:]:
        worked = time.thread_time()
        found = store.known(keys)
        together.append(time.thread_time() - worked)
        assert not any(found)
    figures["new_together_us"] = statistics.median(together) / TOGETHER * 1e6
    alone = [key for keys in new[FIRST:] for key in keys][:ALONE]
    worked = time.thread_time()
    assert not any(store.known([key])[0] for key in alone)
    figures["new_alone_us"] = (time.thread_time() - worked) / ALONE * 1e6
    worked = time.thread_time()
    for key, seq in old:
        assert store.known([key]) == [seq]
    figures["warm_us"] = (time.thread_time() - worked) / len(old) * 1e6
    figures["memory"] = (memory_bytes("RssAnon") - anonymous) / (blocks * BLOCK_ACTIONS)
    figures["mapped"] = mapped_bytes(directory) / (blocks * BLOCK_ACTIONS)
    store.close()
    return figures


def memory_bytes(kind: str) -> int:
    """Read a line of /proc/self/status."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{kind}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(kind)


def mapped_bytes(directory: Path) -> int:
    """Give what this process has mapped of files below a directory and holds in memory."""
    ours = False
    resident = 0
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        name, *rest = line.split()
        if not name.endswith(":"):
            ours = str(directory) in line
        elif ours and name == "Rss:":
            resident += int(rest[0]) * 1024
    return resident


def written_bytes() -> int:
    """Give the bytes that this process gave to the disk."""
    lines = Path("/proc/self/io").read_text(encoding="utf-8").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("write_bytes:")))


def drop_from_cache(directory: Path) -> None:
    """Have the kernel drop all files below a directory from its cache."""
    for path in directory.rglob("*"):
        if path.is_file():
            file = os.open(path, os.O_RDONLY)
            try:
                os.fsync(file)
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(file)


def directory_of(name: str) -> Path:
    return WORK / name.replace(", ", "-").replace(" ", "-")


def in_process(name: str, blocks: int, round_number: int | None) -> dict[str, float]:
    """Fill a store, or ask it in a round, in a process of its own."""
    command = [sys.executable, "-m", "bench.index", "--store", name, "--actions", str(blocks * BLOCK_ACTIONS)]
    if round_number is not None:
        command += ["--round", str(round_number)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def measured(blocks: int, rounds: int) -> dict[str, dict[str, float]]:
    """Fill all stores, ask them in turns; give the figures of each."""
    rows: dict[str, dict[str, float]] = {}
    for name in STORES:
        try:
            STORES[name](str(fresh(directory_of(name)))).close()
        except Missing as missing:
            print(f"{name}: {missing}")
            continue
        fresh(directory_of(name))
        rows[name] = in_process(name, blocks, None)
        print(f"{name} is filled: {rows[name]['wall_us'] * blocks * BLOCK_ACTIONS / 1e6:.0f} s", flush=True)
    numbers: dict[str, Iterator[int]] = {name: iter(range(rounds)) for name in rows}
    runs = {name: lambda name=name: in_process(name, blocks, next(numbers[name])) for name in rows}
    for name, asked in take_turns(runs, rounds).items():
        rows[name] |= {figure: statistics.median(each[figure] for each in asked) for figure in asked[0]}
    return rows


def fresh(directory: Path) -> Path:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    return directory


def show(rows: dict[str, dict[str, float]], actions: int) -> None:
    """Print the table."""
    made = tables.table(
        f"the index of {actions:,} older actions",
        ("store",),
        ("memory B", "mapped B", "on disk B", "written B", "CPU us to fill", "open ms", "new, 1,000: us", "new, 1: us",
         "new, cold: ms", "warm us", "cold ms p50", "p99"),
    )  # fmt: skip
    for name, row in rows.items():
        made.add_row(
            name, f"{row['memory']:.2f}", f"{row['mapped']:.2f}", f"{row['on_disk']:.1f}", f"{row['written']:.0f}",
            f"{row['cpu_us']:.2f}", f"{row['open_ms']:.0f}", f"{row['new_together_us']:.3f}",
            f"{row['new_alone_us']:.2f}", f"{row['new_cold_ms']:.1f}", f"{row['warm_us']:.1f}",
            f"{row['cold_ms_p50']:.2f}", f"{row['cold_ms_p99']:.2f}",
        )  # fmt: skip
    tables.show(made)


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--actions", type=int, default=10_000_000, help="rounded down to whole blocks")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--store", help=argparse.SUPPRESS)
    parser.add_argument("--round", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    blocks = max(1, options.actions // BLOCK_ACTIONS)
    if options.store is not None:
        directory = directory_of(options.store)
        if options.round is None:
            figures: dict[str, Any] = fill(STORES[options.store](str(directory)), directory, blocks)
        else:
            figures = ask(options.store, directory, blocks, options.round)
        print(json.dumps(figures))
        return
    try:
        rows = measured(blocks, options.rounds)
    finally:
        shutil.rmtree(WORK, ignore_errors=True)
    actions = blocks * BLOCK_ACTIONS
    show(rows, actions)
    record("index", {"actions": actions, "rows": [{"store": name, **row} for name, row in rows.items()]})


if __name__ == "__main__":
    main()
