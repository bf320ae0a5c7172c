"""`python -m tests.sim`: simulated runs, one seed after the other. It prints what was tried, and each seed that failed.

python -m tests.sim                         for a minute, from a random seed, which it prints
python -m tests.sim --seed 91               that run alone; if it fails, everything that happened in it
python -m tests.sim --seed 1 --runs 10000   10,000 seeds from 1 on, in two processes
python -m tests.sim --minutes 60            for an hour
python -m tests.sim --quorum …              the same of runs with a quorum (`tests.sim.quorum`)
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing.pool import AsyncResult

from tests.sim.quorum.world import simulate_quorum, simulate_quorums
from tests.sim.world import Report, simulate, simulate_all

CHUNK_RUNS = 20
SEEDS = 2**40
FAILURES_SHOWN = 5


def main() -> int:
    """Run as the arguments say; 1 if any run failed."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.sim", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, help="the first seed; without --runs and --minutes the only one")
    parser.add_argument("--runs", type=int, help="so many seeds, one after the other")
    parser.add_argument("--minutes", type=float, help="for so long")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--quorum", action="store_true", help="runs of three nodes whose log is a replicated stream")
    options = parser.parse_args()
    if options.seed is not None and options.runs is None and options.minutes is None:
        return _one(options.seed, quorum=options.quorum)
    first = random.SystemRandom().randrange(SEEDS) if options.seed is None else options.seed
    minutes = options.minutes if options.minutes is not None or options.runs is not None else 1.0
    print(f"from seed {first}, commit {_commit()}", flush=True)
    return _many(first, options.runs, minutes, options.processes, quorum=options.quorum)


def _one(seed: int, *, quorum: bool) -> int:
    report = (simulate_quorum if quorum else simulate)(seed, keep_all=True)
    if report.fault is not None:
        print("\n".join(report.lines))
        _tell_failure(report, quorum=quorum)
        return 1
    print(f"seed {seed}: all was kept; {report.starts} starts, digest {report.digest}")
    print(_table(report.counts))
    return 0


def _many(first: int, runs: int | None, minutes: float | None, processes: int, *, quorum: bool) -> int:
    began = time.monotonic()

    def chunks() -> Iterator[range]:
        start = first
        while runs is None or start < first + runs:
            if minutes is not None and time.monotonic() - began > minutes * 60:
                return
            stop = start + CHUNK_RUNS if runs is None else min(start + CHUNK_RUNS, first + runs)
            yield range(start, stop)
            start = stop

    done, starts, counts, failures = 0, 0, Counter[str](), 0
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        waiting: list[AsyncResult[list[Report]]] = []
        source = chunks()
        while True:
            while len(waiting) < 2 * processes and (chunk := next(source, None)) is not None:
                waiting.append(pool.apply_async(simulate_quorums if quorum else simulate_all, (chunk,)))
            if not waiting:
                break
            for report in waiting.pop(0).get():
                done += 1
                starts += report.starts
                counts += report.counts
                if report.fault is not None:
                    failures += 1
                    if failures <= FAILURES_SHOWN:
                        _tell_failure(report, quorum=quorum)
    seconds = time.monotonic() - began
    print(_table(counts))
    print(f"{done} runs, {starts} starts, {failures} failures; {seconds:.0f} s")
    return 1 if failures else 0


def _tell_failure(report: Report, *, quorum: bool) -> None:
    print("\n".join(report.lines[-20:]))
    print(f"FAILED: seed {report.seed}, commit {_commit()}: {report.fault}")
    print(f"again:  python -m tests.sim {'--quorum ' * quorum}--seed {report.seed}", flush=True)


def _commit() -> str:
    """Name the commit, and whether the files differ from it."""
    described = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return described.stdout.strip() or "unknown"


def _table(counts: Counter[str]) -> str:
    return "\n".join(f"{what:30} {count:9}" for what, count in sorted(counts.items()))


if __name__ == "__main__":
    sys.exit(main())
