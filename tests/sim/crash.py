"""`python -m tests.sim.crash`: a crash at every step of the workload and of each recovery, and each step failing once.

Several processes share the points by their number. Each process runs the workload itself: it is scripted, so all have
the same points. The number of processes changes only how long it takes.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time

import trio

from tests.sim.boards import short_days
from tests.sim.crashes import Tally, Workload, try_failure, try_point
from tests.sim.indexed_workload import IndexedWorkload, small_blocks
from tests.sim.runs import cheap_starts
from tests.sim.station import DAY_MS, NOTE_EVERY_MS

KINDS = {"leader": Workload, "index": IndexedWorkload}


def try_share(kind: str, share: int, shares: int, depth: int, chances: int) -> Tally:
    """Try every point of a workload whose number is `share` modulo `shares`."""

    async def main() -> Tally:
        workload, tally = KINDS[kind](), Tally()
        await workload.run()
        for number, point in enumerate(workload.points):
            if number % shares == share:
                await try_point(point, number, tally, depth=depth, chances=chances)
        step = share + 1
        while await try_failure(step, tally, KINDS[kind]):
            step += shares
        return tally

    with cheap_starts(), short_days(DAY_MS, NOTE_EVERY_MS), small_blocks():
        return trio.run(main)


def main() -> int:
    """Try all points, and print what was tried."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim.crash", description=__doc__)
    parser.add_argument("--depth", type=int, default=1, help="crashes within recovery, one within the other (1)")
    parser.add_argument("--chances", type=int, default=2, help="random fates for each point, beside the extremes (2)")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    began = time.monotonic()
    shares = 8 * options.processes
    tally = Tally()
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        work = [(kind, share, shares, options.depth, options.chances) for kind in KINDS for share in range(shares)]
        for part in pool.starmap(try_share, work, chunksize=1):
            tally.add(part)
    for step, count in sorted(tally.points.items()):
        print(f"{step:16} {count:7} points")
    seconds = time.monotonic() - began
    print(f"{'in all':16} {tally.points.total():7} points, {tally.crashes} crashes; {tally.failures} steps that failed")
    print(f"{tally.recoveries} recoveries were checked: nothing was lost, doubled or made up; {seconds:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
