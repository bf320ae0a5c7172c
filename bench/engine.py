"""What the engine alone costs, and how that grows with the users: `python -m bench.engine [--rounds 7]`.

No network and no disk: the steps of `bench.core`, on boards of 10,000 to 3,000,000 users. Each size has a process of
its own that builds its board once; all of them are on processor 0, and one at a time does one task while the others
wait, in turns. So a machine that gets slower in the middle slows every size, and growth is the median of the rounds'
ratios. Times are those on the processor.

    frame N    N increments of users at random in one frame, as the actor takes them: decide, pack, settle, encode
    move       one key of the board's order to its new place, with both ranks: by `Order.move`, and by the public verbs
               of a plain SortedList
    rank       the rank of a user at random
    top        the first ten rows; and encoded, as GET /scoreboard/top has them
    chain      a batch of 1,000 from the JSON body to the JSON answer: all that a batch costs but network and disk

Every increment is a new action, so the index of actions grows as it does in life.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import msgspec
from sortedcontainers import SortedList

from bench import tables
from bench.core import STEPS, Core, StepTimes, clock_ns
from bench.history import record
from bench.wanted import Wanted, show_wanted
from engine.keys import SCORE_SHIFT, SLOT_BITS

ROOT = Path(__file__).parents[1]
SIZES = (10_000, 100_000, 1_000_000, 3_000_000)
FRAMES = {1: 2_000, 100: 40, 1_000: 8}
"""How many frames of each size are one turn."""

CHAIN_BATCH, CHAINS = 1_000, 8
RANKS, TOPS, MOVES = 5_000, 2_000, 5_000
PROCESSOR = 0
SEED = 20_251_215

Costs = dict[str, float]
"""Microseconds for each operation of a task, by name."""


# In the process of one size


def frame(core: Core, size: int, count: int) -> Costs:
    """Write frames of a size; costs are per increment."""
    core.encode(core.write(core.commands(size), StepTimes()), StepTimes())  # not timed: it warms the caches
    frames, times = [core.commands(size) for _ in range(count)], StepTimes()
    for commands in frames:
        core.encode(core.write(commands, times), times)
    costs = times.us(size * count)
    del costs["decode"]
    return {**costs, "increment": costs["decide"] + costs["pack"] + costs["settle"]}


def chain(core: Core) -> Costs:
    """Take batches from body to answer; costs are per increment."""
    bodies, times = [core.body(CHAIN_BATCH) for _ in range(CHAINS + 1)], StepTimes()
    for number, body in enumerate(bodies):
        if number == 1:
            times = StepTimes()
        core.encode(core.write(core.decode(body, times), times), times)
    costs = times.us(CHAIN_BATCH * CHAINS)
    return {**costs, "all": sum(costs.values())}


def each(operation: Callable[[], object], count: int) -> float:
    """The cost of an operation that is done so often, without that of the loop."""
    start = clock_ns()
    for _ in range(count):
        operation()
    done = clock_ns()
    for _ in range(count):
        pass
    return (2 * done - start - clock_ns()) / count / 1000


def ranks(core: Core) -> Costs:
    """Ask for the ranks of users at random."""
    users = [core.random_user() for _ in range(RANKS)]
    start = clock_ns()
    for user in users:
        core.board.rank(user)
    return {"rank": (clock_ns() - start) / RANKS / 1000}


class Orders:
    """The keys of a board in an `Order` and in a plain SortedList, moved alike: what an increment asks of either."""

    def __init__(self, core: Core) -> None:
        self._chance = core.chance
        self._keys = [core.board._key(slot) for slot in range(len(core.board))]
        self._next_seq = core.scoreboard.seq
        self._order = core.board._sorted()
        self._plain = SortedList(self._keys)

    def moves(self) -> Costs:
        """Move keys at random by ten points, in one and then in the other."""
        steps = []
        for slot in self._chance.sample(range(len(self._keys)), MOVES):
            self._next_seq += 1
            old = self._keys[slot]
            new = ((old >> SCORE_SHIFT) - 10) << SCORE_SHIFT | self._next_seq << SLOT_BITS | slot
            if old >> SCORE_SHIFT >= 10:
                steps.append((old, new))
                self._keys[slot] = new
        start = clock_ns()
        for old, new in steps:
            self._order.move(old, new)
        moved, plain = clock_ns(), self._plain
        for old, new in steps:
            plain.bisect_left(old)
            plain.remove(old)
            plain.add(new)
            plain.bisect_left(new)
        done = clock_ns()
        return {"ours": (moved - start) / len(steps) / 1000, "library": (done - moved) / len(steps) / 1000}


def tops(core: Core) -> Costs:
    """Ask for the first rows."""
    return {"rows": each(lambda: core.board.top(10), TOPS), "encoded": each(lambda: core.top(10), TOPS)}


def serve(users: int) -> None:
    """Build a board; then do each task that standard input names, and print its costs."""
    os.sched_setaffinity(0, {PROCESSOR})
    core = Core(users, SEED)
    orders = Orders(core)
    print("ready", flush=True)
    for line in sys.stdin:
        task, _, size = line.strip().partition(" ")
        if task == "frame":
            costs = frame(core, int(size), FRAMES[int(size)])
        else:
            costs = orders.moves() if task == "move" else {"rank": ranks, "top": tops, "chain": chain}[task](core)
        print(json.dumps(costs), flush=True)


# In the process that asks


class Child:
    """The process of one size."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._commands: IO[str] = process.stdin
        self._answers: IO[str] = process.stdout

    def wait_ready(self) -> None:
        """Wait for the board."""
        line = self._answers.readline()
        assert line == "ready\n", line

    def do(self, task: str) -> Costs:
        """Have a task done."""
        print(task, file=self._commands, flush=True)
        costs: Costs = json.loads(self._answers.readline())
        return costs


@contextmanager
def child(users: int) -> Iterator[Child]:
    """Start the process of a size; it ends with its standard input."""
    command = [sys.executable, "-m", "bench.engine", "--serve", str(users)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        yield Child(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def measure(sizes: list[int], rounds: int) -> dict[str, dict[int, list[float]]]:
    """Do every task on every size in turns: the costs by task and step, size and round."""
    tasks = [*(f"frame {size}" for size in FRAMES), "move", "rank", "top", "chain"]
    measured: dict[str, dict[int, list[float]]] = {}
    with ExitStack() as stack:
        children = {users: stack.enter_context(child(users)) for users in sizes}
        for users, one in children.items():
            one.wait_ready()
            print(f"built {users:,} users", file=sys.stderr)
        for _ in range(rounds):
            for task in tasks:
                for users, one in children.items():
                    for step, cost in one.do(task).items():
                        measured.setdefault(f"{task}: {step}", {}).setdefault(users, []).append(cost)
    return measured


def growth(costs: dict[int, list[float]]) -> float:
    """How much more the largest size costs than the smallest: the median of the rounds' ratios."""
    small, large = costs[min(costs)], costs[max(costs)]
    return statistics.median(much / little for little, much in zip(small, large, strict=True))


NAMES = {
    **{
        f"frame {size}: {step}": f"increment in frames of {size:,}{'' if step == 'increment' else f': {step}'}"
        for size in FRAMES
        for step in ("increment", "decide", "pack", "settle", "encode")
    },
    "move: ours": "move in the order, with both ranks",
    "move: library": "the same by a SortedList's public verbs",
    "rank: rank": "rank of a user",
    "top: rows": "top 10",
    "top: encoded": "top 10, encoded",
    "chain: all": "batch of 1,000, an increment: body to answer",
    **{f"chain: {step}": f"batch of 1,000, an increment: {step}" for step in STEPS},
}
"""The rows of the table, in order."""


def show(measured: dict[str, dict[int, list[float]]]) -> None:
    """Print the table."""
    sizes = list(measured["rank: rank"])
    columns = [*(f"{users:,} users" for users in sizes), "growth"]
    table = tables.table("the engine alone, µs an operation", ("operation",), columns)
    for key, name in NAMES.items():
        costs = measured[key]
        medians_us = (f"{statistics.median(costs[users]):.2f}" for users in sizes)
        table.add_row(name, *medians_us, f"{growth(costs):.2f}×")
    rates = (f"{1e6 / statistics.median(costs):,.0f}/s" for costs in measured["chain: all"].values())
    table.add_row("batch of 1,000: increments a second", *rates, "")
    tables.show(table)


def wanted(measured: dict[str, dict[int, list[float]]]) -> list[Wanted]:
    """Set what was measured beside what is wanted."""
    sizes = list(measured["rank: rank"])
    span = f"{max(sizes):,} users against {min(sizes):,}"
    growths = {size: growth(measured[f"frame {size}: increment"]) for size in FRAMES}
    return [Wanted(f"one increment, frames of {size:,}, {span}", growths[size], 3, False, "×") for size in FRAMES]


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="users, from small to large")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return
    measured = measure([int(size) for size in options.sizes.split(",")], options.rounds)
    show(measured)
    figures = wanted(measured)
    show_wanted(figures)
    record("engine", {"us": medians(measured), "wanted": msgspec.to_builtins(figures)})


def medians(measured: dict[str, dict[int, list[float]]]) -> dict[str, Any]:
    """The medians and growths, for the history."""
    return {
        key: {**{str(users): statistics.median(rounds) for users, rounds in costs.items()}, "growth": growth(costs)}
        for key, costs in measured.items()
    }


if __name__ == "__main__":
    main()
