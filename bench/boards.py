"""What the rules of boards cost: `python -m bench.boards [--rounds 7] [--users 100000] [--large 1000000]`.

No network and no disk in the first table: a frame of 1,000 increments through decide, pack and settle (`bench.core`
says why these), on boards of one scoreboard that take turns. Times are those on the processor; a ratio is the median of
the rounds' ratios to the plain board.

    plain      fixed points, the highest sum first, no two users share a rank
    fed        a weekly board that feeds an all-time board: two boards, one record, one fsync
    shared     users with equal scores share a rank; dense: and the next rank is one lower
    best       the best value of each user counts, chosen within a range

The second table has whole increments, from the request to the answer, on a leader whose board feeds another and on one
whose board does not: disk, HTTP and token are in both.

The last one is about one large board, on a real disk: what stops the event loop when its period ends, and when it
is frozen; the longest wait of a loop beside the thread that writes the file of the period; and what 52 past periods
cost in memory. The note of ranks, once an hour, is of a thousand boards with 100 users each, all of which moved.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from bench import tables
from bench.core import NOW_MS, SCORE_STEPS, clock_ns, user_id
from bench.history import record
from bench.posts import post_ratios
from bench.wanted import Wanted, show_wanted
from engine.batch import Batch
from engine.board_events import EndedPeriod
from engine.board_rules import BoardRules, Range, Rules, Worth
from engine.calendar import period_at
from engine.commands import Command, FreezeBoard, Increment, PutBoard
from engine.disk import RealDisk
from engine.events import RanksNoted
from engine.limits import FRAME_RECORDS_MAX
from engine.past_ranks import NOTED_ROWS
from engine.periods import due_changes
from engine.record import chain_start, pack_frame
from engine.schedule import Schedule
from engine.scoreboard import Scoreboard
from snapshots.period_store import PeriodStore
from snapshots.periods import write_ended

WEEK = Schedule("week", "Europe/Berlin")
WEEK_MS = 7 * 86_400_000
START = Range(0, 10 * SCORE_STEPS)
POINTS: dict[str, Worth] = {"WIN": 10, "START": START}
BOARDS: dict[str, BoardRules] = {
    "plain": BoardRules(POINTS),
    "all-time": BoardRules(POINTS),
    "fed": BoardRules(POINTS, schedule=WEEK, feeds=("all-time",)),
    "shared": BoardRules(POINTS, ranks="shared"),
    "dense": BoardRules(POINTS, ranks="dense"),
    "best": BoardRules({"WIN": START, "START": START}, score="best"),
}
"""Users begin with a score at random (`START`), so ten or so of 100,000 have the same one."""

PLAIN_CONFIG = """
[boards.main]
period = {every = "week", zone = "Europe/Berlin"}
[boards.main.points]
ACTION_COMPLETED = 10
"""
FEEDING_CONFIG = (
    PLAIN_CONFIG.replace("period", 'feeds = ["all-time"]\nperiod')
    + """
[boards.all-time.points]
ACTION_COMPLETED = 10
"""
)
FRAME, FRAMES = 1_000, 8
PERIODS_KEPT = 52
NOTED_BOARDS = 1_000
SEED = 20_251_130


class Stage:
    """A scoreboard with the boards of the bench, each with the same users."""

    def __init__(self, users: int, boards: dict[str, BoardRules]) -> None:
        self.users = users
        self.scoreboard = Scoreboard(Rules({}))
        self.chance = random.Random(SEED)
        self._actions = 0
        self._checksum = chain_start(bytes(16))
        self.now_ms = NOW_MS
        self.write([PutBoard(board_id, rules, "bench") for board_id, rules in boards.items()])

    def fill(self, board_id: str) -> None:
        """Let every user of a board have had one action."""
        order = list(range(self.users))
        self.chance.shuffle(order)
        for start in range(0, self.users, FRAME_RECORDS_MAX):
            numbers = order[start : start + FRAME_RECORDS_MAX]
            self.write([self.action(board_id, "START", user_id(number)) for number in numbers])

    def action(self, board_id: str, reason: str = "WIN", user: str | None = None) -> Increment:
        """A new action, of any user if none is named."""
        self._actions += 1
        takes_value = isinstance(BOARDS[board_id].points[reason], Range)
        value = 10 * self.chance.randrange(SCORE_STEPS) if takes_value else None
        user = user or user_id(self.chance.randrange(self.users))
        return Increment(user, f"00000000-0000-4000-8000-{self._actions:012d}", reason, board_id, "bench", value=value)

    def write(self, commands: Sequence[Command]) -> int:
        """Decide, pack and settle one frame; give the nanoseconds on the processor."""
        start = clock_ns()
        batch = Batch(self.scoreboard, self.now_ms, period_at)
        batch.decide(commands)
        frame = pack_frame(batch.events, epoch=self.scoreboard.epoch, previous=self._checksum)
        self._checksum = int.from_bytes(frame[4:8], "little")
        batch.settle()
        return clock_ns() - start

    def end_period(self) -> tuple[float, EndedPeriod]:
        """Let the running period end; give the milliseconds that the loop stands still, and what ended."""
        definitions = [board.definition for board in self.scoreboard.boards.values()]
        self.now_ms = min(each.ends_ms for each in definitions if each is not None and each.ends_ms is not None)
        began = time.perf_counter()
        while self.scoreboard.due_ms is not None and self.scoreboard.due_ms <= self.now_ms:
            for event in due_changes(self.scoreboard, self.now_ms, period_at):
                self.scoreboard.apply(event, self.scoreboard.epoch)
        took_ms = (time.perf_counter() - began) * 1000
        [ended] = self.scoreboard.take_ended()
        return took_ms, ended


def increments(users: int, rounds: int) -> dict[str, list[float]]:
    """Measure the boards in turns: microseconds an increment, by board."""
    stage = Stage(users, BOARDS)
    for board_id in BOARDS:
        if board_id != "all-time":  # its users come with the board that feeds it
            stage.fill(board_id)
    gc.collect()
    gc.freeze()
    measured: dict[str, list[float]] = {board_id: [] for board_id in BOARDS if board_id != "all-time"}
    for _ in range(rounds):
        for board_id, times in measured.items():
            frames = [[stage.action(board_id) for _ in range(FRAME)] for _ in range(FRAMES + 1)]
            stage.write(frames.pop())
            times.append(sum(map(stage.write, frames)) / (FRAME * FRAMES) / 1_000)
    return measured


def large(users: int) -> dict[str, float]:
    """Measure one large board: milliseconds."""
    stage = Stage(users, {"fed": BoardRules(POINTS, schedule=WEEK)})
    stage.fill("fed")
    gc.collect()
    gc.freeze()
    began = time.perf_counter()
    stage.write([FreezeBoard("fed", "bench")])
    frozen_ms = (time.perf_counter() - began) * 1000
    change_ms, ended = stage.end_period()
    with tempfile.TemporaryDirectory() as directory:
        store = PeriodStore(RealDisk(), directory)
        seconds: list[float] = []
        waited_ms = longest_wait_ms(lambda: seconds.append(_timed(lambda: write_ended(store, ended, bytes(16)))))
        size = store.path(ended.past.seq)
        megabytes = Path(size).stat().st_size / 1e6
    freed_ms = longest_wait_ms(lambda: [None for _ in ended.ranking.dismantle()])
    return {
        "change": change_ms, "freeze": frozen_ms, "wait_writing": waited_ms, "wait_freeing": freed_ms,
        "write_s": seconds[0], "file_mb": megabytes,
    }  # fmt: skip


def note_ms(boards: int) -> float:
    """Note the ranks of many boards, in half of which users share a rank; give the milliseconds of the loop."""
    rules = {f"board-{number}": BOARDS["shared" if number % 2 else "plain"] for number in range(boards)}
    stage, users = Stage(NOTED_ROWS, rules), [user_id(number) for number in range(NOTED_ROWS)]
    for board_id in rules:
        stage.write([Increment(each, f"{board_id} {each}", "WIN", board_id, "bench") for each in users])
    scoreboard = stage.scoreboard
    began = time.perf_counter()
    scoreboard.apply(RanksNoted(scoreboard.seq + 1, stage.now_ms, scoreboard.time_ms), scoreboard.epoch)
    return (time.perf_counter() - began) * 1000


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def longest_wait_ms(work: Callable[[], object]) -> float:
    """Do some work in a thread; give the longest time that this thread was kept from running meanwhile."""
    thread = threading.Thread(target=work)
    longest, last = 0.0, time.perf_counter()
    thread.start()
    while thread.is_alive():
        time.sleep(0.0005)
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
    thread.join()
    return longest * 1000


def memory(users: int, periods: int) -> float:
    """Play some periods, each of these users, and write their files; give the MiB that the process has afterwards."""
    stage = Stage(users, {"fed": BoardRules(POINTS, schedule=WEEK, keep_periods=PERIODS_KEPT)})
    with tempfile.TemporaryDirectory() as directory:
        store = PeriodStore(RealDisk(), directory)
        for _ in range(periods):
            stage.fill("fed")
            _, ended = stage.end_period()
            write_ended(store, ended, bytes(16))
            for _ in ended.ranking.dismantle():
                pass
            del ended
            stage.scoreboard.actions = type(stage.scoreboard.actions)()  # the index of actions is not what is measured
        stage.fill("fed")
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def in_process(*arguments: str) -> float:
    """Measure the memory in a process of its own."""
    command = [sys.executable, "-m", "bench.boards", *arguments]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def ratios(measured: dict[str, list[float]]) -> dict[str, float]:
    """The median of the rounds' ratios to the plain board."""
    plain = measured["plain"]
    return {
        board_id: statistics.median(one / base for one, base in zip(times, plain, strict=True))
        for board_id, times in measured.items()
    }


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--large", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each load of posts")
    parser.add_argument("--memory", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory is not None:
        print(memory(options.users, options.memory))
        return
    measured = increments(options.users, options.rounds)
    by_plain = ratios(measured)
    made = tables.table(f"an increment in a frame of {FRAME}, {options.users:,} users", ("board",), ("µs", "ratio"))
    for board_id, times in measured.items():
        made.add_row(board_id, f"{statistics.median(times):.2f}", f"{by_plain[board_id]:.2f}")
    tables.show(made)
    whole = post_ratios({"plain": PLAIN_CONFIG, "feeding": FEEDING_CONFIG}, options.rounds, options.seconds)
    made = tables.table("a POST to a board that feeds another, to one that does not", ("",), ("ratio",))
    made.add_row("single, 32 connections", f"{whole['single']:.2f}")
    made.add_row(f"batches of {FRAME:,}", f"{whole['batch']:.2f}")
    tables.show(made)
    stops = large(options.large)
    noted = note_ms(NOTED_BOARDS)
    one = in_process("--users", str(options.users), "--memory", "1")
    kept = in_process("--users", str(options.users), "--memory", str(PERIODS_KEPT))
    made = tables.table(f"one board of {options.large:,} users", ("",), ("",))
    made.add_row("the loop stands still at the end of a period, ms", f"{stops['change']:.2f}")
    made.add_row("its longest wait while the file is written, ms", f"{stops['wait_writing']:.1f}")
    made.add_row("its longest wait while the old ranking is freed, ms", f"{stops['wait_freeing']:.1f}")
    made.add_row("writing the file, s", f"{stops['write_s']:.2f}")
    made.add_row("the file, MB", f"{stops['file_mb']:.1f}")
    made.add_row("a freeze, ms", f"{stops['freeze']:.1f}")
    made.add_row(f"a note of the ranks of {NOTED_BOARDS:,} boards, ms", f"{noted:.1f}")
    made.add_row(f"memory after 1 period of {options.users:,} users, MiB", f"{one:.1f}")
    made.add_row(f"memory after {PERIODS_KEPT} periods, MiB", f"{kept:.1f}")
    tables.show(made)
    figures = [
        Wanted("the engine's part of an increment on a board that feeds another", by_plain["fed"], 1.6, False),
        Wanted("a POST to a board that feeds another, 32 connections", whole["single"], 1.6, False),
        Wanted("a POST of 1,000 increments to a board that feeds another", whole["batch"], 1.6, False),
        Wanted("an increment with shared ranks, to a plain board", by_plain["shared"], 1.3, False),
        Wanted("the loop stands still at the end of a period of a million users", stops["change"], 50, False, "ms"),
        Wanted("the loop stands still for a note of the ranks of 1,000 boards", noted, 50, False, "ms"),
        Wanted("memory of 52 kept periods, to that of one", kept / one, 1.1, False),
    ]
    show_wanted(figures)
    us: dict[str, Any] = {board_id: statistics.median(times) for board_id, times in measured.items()}
    wanted = msgspec.to_builtins(figures)
    record("boards", {"us": us, "ratios": by_plain, "posts": whole, "large": stops, "wanted": wanted})


if __name__ == "__main__":
    main()
