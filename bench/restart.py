"""How long does a restart take, what does the state weigh, and who notices a snapshot? `python -m bench.restart`.

For each number of users in --sizes it builds data directories with the real engine (decide, append, apply, in frames of
a thousand). It measures each in a fresh process, so the building is not in the figures:

    large    all users and as many actions, and --tail events of log after the snapshot: a restart, stage by stage
    few      a tenth of the users, the same actions      large - few:  what a user weighs
    small    a tenth of both                             few - small:  what an action weighs

A third process serves from the large directory to clients that increment. It takes a snapshot ROUNDS times, each after
a quiet time. On a shared machine the longest of thousands of waits tells more of the other guests than of us. So the
bench compares the medians of the rounds' longest waits, with and without a snapshot. For the stops of the event loop it
also tells the part in which the loop did not wait for a processor.

Weights are differences of the bytes that Python has allocated once a directory is open (tracemalloc), in processes that
are not timed. Peak and resident memory are those of the whole timed process.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import resource
import shutil
import statistics
import subprocess
import sys
import time
import tracemalloc
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import trio

from bench import tables
from bench.history import record
from bench.wanted import Wanted, show_wanted
from engine.actor import Actor
from engine.batch import Batch
from engine.board_rules import rules_of_points
from engine.clock import GivenClock
from engine.commands import Increment
from engine.disk import RealDisk
from engine.errors import DiskFault
from engine.local_log import LocalLog
from engine.machine import StateMachine
from engine.recovery import Finding
from snapshots.checkpoint import Checkpointer
from snapshots.opening import Opened, Progress, ShowProgress, no_progress, open_directory
from snapshots.store import Store

RULES = rules_of_points({"main": {"ACTION_COMPLETED": 10}})
FRAME = 1_000
SEED = 20_251_215
CLIENTS = 8
QUIET_SECONDS = 2.0
ROUNDS = 7
OPENINGS = 5
"""How often a directory is opened. The table shows the opening with the median time, so its stages add up."""

WORK = Path(__file__).with_name("work")


def tell(what: Finding | DiskFault) -> None:
    """Fail: a directory that was just built has no damage."""
    raise AssertionError(what)


def opened(directory: str, progress: ShowProgress = no_progress) -> Opened:
    """Open a directory as a leader does."""
    return open_directory(RealDisk(), directory, RULES, tell=tell, progress=progress)


# Building


def build(directory: str, users: int, actions: int, tail: int) -> None:
    """Make a directory with `users` and `actions` in a snapshot, and `tail` actions of log after it."""
    leader = opened(directory)
    leader.scoreboard.begin_replay()  # only the files are needed, so the order is not kept
    chance = random.Random(SEED)
    write(leader, chance, users, range(actions))
    Store(RealDisk(), directory).save(leader.scoreboard.capture(), leader.log.tail)
    write(leader, chance, users, range(actions, actions + tail))
    leader.log.close()


def write(leader: Opened, chance: random.Random, users: int, numbers: range) -> None:
    """Write these actions: one for each user first, then for random users."""
    scoreboard = leader.scoreboard
    for start in range(numbers.start, numbers.stop, FRAME):
        batch = Batch(scoreboard, 1_765_000_000_000 + start)
        for number in range(start, min(start + FRAME, numbers.stop)):
            user = number if number < users else chance.randrange(users)
            action = str(uuid.UUID(int=chance.getrandbits(128)))
            batch.decide([Increment(f"user-{user:08}", action, "ACTION_COMPLETED", "main", "bench")])
        leader.log.append(batch.events, scoreboard.epoch)
        for event in batch.events:
            scoreboard.apply(event, scoreboard.epoch)


# Opening


def resident_bytes(process: int | str = "self") -> int:
    """The resident memory of a process now."""
    return int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()


def measure_opening(directory: str) -> dict[str, Any]:
    """Open a directory; give the time of each stage, and the memory."""
    begun: dict[str, float] = {}
    last = Progress("snapshot", 0, 0, 0)

    def note(progress: Progress) -> None:
        nonlocal last
        last = progress
        begun.setdefault(progress.stage, time.perf_counter())

    before = resident_bytes()
    start = time.perf_counter()
    leader = opened(directory, note)
    end = time.perf_counter()
    gc.collect()
    assert leader.snapshot is not None
    figures = {
        "events_replayed": last.events,
        "load_s": begun["log"] - begun["snapshot"],
        "replay_s": begun["order"] - begun["log"],
        "order_s": begun["ready"] - begun["order"],
        "total_s": end - start,
        "resident_bytes": resident_bytes() - before,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "snapshot_bytes": leader.snapshot.bytes,
        "log_bytes": leader.log.statistics().bytes,
        "users": len(leader.scoreboard.boards["main"]),
        "actions": len(leader.scoreboard.actions),
    }
    leader.log.close()
    return figures


def weigh(directory: str) -> dict[str, Any]:
    """Open a directory; give how many bytes that allocated."""
    tracemalloc.start()
    leader = opened(directory)
    gc.collect()
    size = tracemalloc.get_traced_memory()[0]
    leader.log.close()
    return {"bytes": size}


# Serving


async def measure_pauses(directory: str) -> dict[str, Any]:
    """Serve from a directory and take snapshots; give the clients' waits without a snapshot and during one."""
    leader = opened(directory)
    machine = StateMachine(leader.scoreboard, LocalLog(leader.log), lambda _: None)
    clock = GivenClock(lambda: time.time_ns() // 1_000_000)
    actor = Actor(machine, clock=clock)
    checkpointer = Checkpointer(
        machine,
        Store(RealDisk(), directory),
        leader,
        every_events=10**12,
        keep=2,
        log_keep_seconds=None,
        clock=clock,
        tell=tell,
    )
    captures_ms = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        image = machine.capture()
        captures_ms.append((time.perf_counter() - start) * 1000)
        del image
    checkpoints_s, quiet, busy = [], [], []
    watch = Watch(actor)
    async with trio.open_nursery() as nursery:
        await nursery.start(actor.run)
        for number in range(CLIENTS):
            nursery.start_soon(watch.client, number)
        nursery.start_soon(watch.loop)
        await trio.sleep(1)
        for _ in range(ROUNDS):
            await trio.sleep(QUIET_SECONDS)
            quiet.append(watch.take())
            start = time.perf_counter()
            await checkpointer.take()
            checkpoints_s.append(time.perf_counter() - start)
            busy.append(watch.take())
        nursery.cancel_scope.cancel()
    leader.log.close()
    return {
        "capture_ms": statistics.median(captures_ms),
        "checkpoint_s": statistics.median(checkpoints_s),
        "checkpoint_with_compression_s": checkpoints_s[0],
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "without": summary(quiet),
        "during": summary(busy),
    }


def summary(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Give the median of each figure over the rounds, and the worst answer of all."""
    medians = {name: statistics.median(seen[name] for seen in rounds) for name in rounds[0]}
    return {**medians, "answer_ms_worst": max(seen["answer_ms_max"] for seen in rounds)}


def denied_ms() -> float:
    """How long this thread was ready to run while every processor was busy, since the thread began."""
    return int(Path("/proc/thread-self/schedstat").read_text(encoding="ascii").split()[1]) / 1e6


class Watch:
    """Clients that each wait for an answer before they ask again, and a task that notes the event loop's stops."""

    def __init__(self, actor: Actor) -> None:
        self._actor = actor
        self._answers_ms: list[float] = []
        self._stops_ms: list[float] = []
        self._held_ms: list[float] = []

    async def client(self, number: int) -> None:
        """Increment, one at a time."""
        count = 0
        while True:
            count += 1
            command = Increment(
                f"user-{count % 1000:08}", f"pause-{number}-{count}", "ACTION_COMPLETED", "main", "bench"
            )
            start = time.perf_counter()
            await self._actor.submit([command])
            self._answers_ms.append((time.perf_counter() - start) * 1000)
            await trio.sleep(0.002)

    async def loop(self) -> None:
        """Sleep a millisecond again and again, and note how much longer it took."""
        while True:
            denied, start = denied_ms(), time.perf_counter()
            await trio.sleep(0.001)
            stop = (time.perf_counter() - start) * 1000 - 1
            self._stops_ms.append(stop)
            self._held_ms.append(stop - (denied_ms() - denied))

    def take(self) -> dict[str, float]:
        """Give the figures since the last call."""
        answers, self._answers_ms = self._answers_ms, []
        stops, self._stops_ms = self._stops_ms, []
        held, self._held_ms = self._held_ms, []
        return {
            "answers": len(answers),
            "answer_ms_p50": statistics.median(answers),
            "answer_ms_p99": statistics.quantiles(answers, n=100)[-1],
            "answer_ms_max": max(answers),
            "loop_stop_ms_max": max(stops),
            "loop_held_ms_max": max(held),
        }


# The whole


def run_child(*arguments: object) -> dict[str, Any]:
    """Run one step in a process of its own; give the result that it prints."""
    command = [sys.executable, "-m", "bench.restart", "--step", *map(str, arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=WORK.parent.parent)
    return dict(json.loads(done.stdout)) if done.stdout else {}


def run_step(step: str, arguments: Sequence[str]) -> None:
    """Do one step in this process and print its result."""
    directory = arguments[0]
    if step == "build":
        build(directory, *map(int, arguments[1:]))
    elif step == "weigh":
        print(json.dumps(weigh(directory)))
    elif step == "open":
        print(json.dumps(measure_opening(directory)))
    else:
        print(json.dumps(trio.run(measure_pauses, directory)))


def measure(users: int, tail: int) -> dict[str, Any]:
    """Build and measure the three directories of a size."""
    actions = users
    shapes = {
        "large": (users, actions, tail),
        "few": (users // 10, actions, tail),
        "small": (users // 10, actions // 10, tail),
    }
    figures: dict[str, Any] = {"users": users, "actions": actions, "tail": tail}
    weight: dict[str, int] = {}
    try:
        for name, shape in shapes.items():
            directory = WORK / f"restart-{name}"
            shutil.rmtree(directory, ignore_errors=True)
            start = time.perf_counter()
            run_child("build", directory, *shape)
            print(f"built {name}: {shape} in {time.perf_counter() - start:.1f} s", file=sys.stderr)
            if name == "large":
                openings = [run_child("open", directory) for _ in range(OPENINGS)]
                figures["opening"] = sorted(openings, key=lambda opening: opening["total_s"])[OPENINGS // 2]
            weight[name] = run_child("weigh", directory)["bytes"]
        figures["pauses"] = run_child("pauses", WORK / "restart-large")
    finally:
        for name in shapes:
            shutil.rmtree(WORK / f"restart-{name}", ignore_errors=True)
    figures["bytes_per_user"] = (weight["large"] - weight["few"]) / (users - users // 10)
    figures["bytes_per_action"] = (weight["few"] - weight["small"]) / (actions - actions // 10)
    return figures


def rows(figures: dict[str, Any]) -> dict[str, str]:
    """The figures of a size, as texts for the table."""
    opening, pauses = figures["opening"], figures["pauses"]
    return {
        "users and actions in the snapshot": f"{figures['users']:,}",
        "events of log after it": f"{figures['tail']:,}",
        "restart, in all": f"{opening['total_s']:.2f} s",
        "  load the snapshot": f"{opening['load_s']:.2f} s",
        "  replay the log after it": f"{opening['replay_s']:.2f} s",
        "  build the order": f"{opening['order_s']:.2f} s",
        "memory: peak of the process": f"{opening['peak_bytes'] / 2**20:.0f} MiB",
        "memory: the state after opening": f"{opening['resident_bytes'] / 2**20:.0f} MiB",
        "memory of a user": f"{figures['bytes_per_user']:.0f} bytes",
        "memory of an action": f"{figures['bytes_per_action']:.0f} bytes",
        "snapshot file": f"{opening['snapshot_bytes'] / 2**20:.1f} MiB",
        "log of all events, plain": f"{opening['log_bytes'] / 2**20:.1f} MiB",
        "a capture stops the event loop for": f"{pauses['capture_ms']:.1f} ms",
        "a checkpoint takes": f"{pauses['checkpoint_s']:.2f} s",
        "  the first, which compresses all segments": f"{pauses['checkpoint_with_compression_s']:.2f} s",
        "answers without / during a checkpoint: median": _both(pauses, "answer_ms_p50"),
        "  p99": _both(pauses, "answer_ms_p99"),
        "  longest, median of the rounds": _both(pauses, "answer_ms_max"),
        "  longest of all rounds": _both(pauses, "answer_ms_worst"),
        "longest stop of the event loop": _both(pauses, "loop_stop_ms_max"),
        "  of it not for want of a processor": _both(pauses, "loop_held_ms_max"),
    }


def _both(pauses: dict[str, Any], name: str) -> str:
    return f"{pauses['without'][name]:.1f} / {pauses['during'][name]:.1f} ms"


def show(sizes: list[dict[str, Any]]) -> None:
    """Print the table, a column for each size."""
    columns = [rows(figures) for figures in sizes]
    table = tables.table("restart and snapshot", ("figure",), [f"{figures['users']:,} users" for figures in sizes])
    for name in columns[0]:
        table.add_row(name, *(column[name] for column in columns))
    tables.show(table)


def wanted(largest: dict[str, Any]) -> list[Wanted]:
    """The wanted figures with what was measured."""
    during, name = largest["pauses"]["during"], f"longest answer during a snapshot, {largest['users']:,} users"
    return [
        Wanted(f"{name}, median of the rounds", during["answer_ms_max"], 50, False, " ms"),
        Wanted(f"{name}, of all rounds", during["answer_ms_worst"], 50, False, " ms", "(with the machine's noise)"),
    ]


def main() -> None:
    """Parse the arguments; measure, print, record."""
    parser = argparse.ArgumentParser(prog="python -m bench.restart", description="Restart time, memory, pauses.")
    parser.add_argument("--sizes", default="100000,1000000", help="users, from small to large")
    parser.add_argument("--tail", type=int, default=100_000)
    parser.add_argument("--step", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        run_step(arguments.step[0], arguments.step[1:])
        return
    sizes = [measure(int(size), arguments.tail) for size in arguments.sizes.split(",")]
    show(sizes)
    figures = wanted(sizes[-1])
    show_wanted(figures)
    by_size = {str(size["users"]): size for size in sizes}
    record("restart", {"sizes": by_size, "wanted": msgspec.to_builtins(figures)})


if __name__ == "__main__":
    main()
