"""What a watch costs: `python -m bench.watch [--rounds 15] [--users 100000]`.

The first table is as in `bench.boards`: frames of 1,000 increments through decide, pack and settle, without network and
disk. Boards take turns frame by frame, of one scoreboard and of one without watches. The ratio is the median of the
rounds' ratios to the plain board. Each round is a minute later, so nearly every event begins a window.

    plain      no watch, beside watched boards; alone: no watch anywhere
    growth     growth in a minute and in an hour
    all        the same, callers, and outliers
    holding    growth, and the board holds who is flagged; nobody is. Of a scoreboard of its own

The second one has whole increments over HTTP, from the request to the answer, on a leader whose board is watched for
all of it and on one whose board is not. The last one is what stops the event loop: a turn of the minute, and the part
of an image.
"""

from __future__ import annotations

import argparse
import gc
import time

import msgspec

from bench import boards, tables
from bench.boards import FRAME, FRAMES, POINTS, Stage, ratios
from bench.history import record
from bench.posts import post_ratios
from bench.wanted import Wanted, show_wanted
from engine.board_rules import BoardRules, WatchRules

FAR = 10**9
"""A limit that nobody reaches."""

ALL = WatchRules(FAR, FAR, 10, 1_000.0)
BOARDS = {
    "plain": BoardRules(POINTS),
    "growth": BoardRules(POINTS, watch=WatchRules(FAR, FAR)),
    "all": BoardRules(POINTS, watch=ALL),
}
HOLDING = BoardRules(POINTS, watch=WatchRules(FAR, FAR, action="hold"))
PLAIN = "[boards.main.points]\nACTION_COMPLETED = 10\n"
WATCHED = (
    "[boards.main]\n"
    f"watch = {{growth_per_minute = {FAR}, growth_per_hour = {FAR}, callers_per_user = 10, outlier_z = 1000}}\n{PLAIN}"
)
MINUTE_MS = 60_000


def measured(users: int, rounds: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Microseconds an increment, by board; and the milliseconds that stop the loop."""
    boards.BOARDS.update(BOARDS)
    stage, alone = Stage(users, BOARDS), Stage(users, {"plain": BOARDS["plain"]})
    boards.BOARDS["holding"] = HOLDING
    places = [(stage, board_id) for board_id in BOARDS]
    places += [(alone, "plain"), (Stage(users, {"holding": HOLDING}), "holding")]
    for each, board_id in places:
        each.fill(board_id)
    gc.collect()
    gc.freeze()
    times: dict[str, list[float]] = {board_id: [] for board_id in (*BOARDS, "alone", "holding")}
    for _ in range(rounds):
        for each, board_id in places:
            each.now_ms += MINUTE_MS
            each.write([each.action(board_id) for _ in range(FRAME)])
        sums = [0] * len(places)
        for _ in range(FRAMES):
            for number, (each, board_id) in enumerate(places):
                sums[number] += each.write([each.action(board_id) for _ in range(FRAME)])
        for took, ns in zip(times.values(), sums, strict=True):
            took.append(ns / (FRAME * FRAMES) / 1_000)
    reviews = stage.scoreboard.reviews
    watch, board = reviews.watches["all"], stage.scoreboard.boards["all"]
    stops: dict[str, list[float]] = {"turn": [], "capture": []}
    for _ in range(rounds):
        for name, work in (("turn", lambda: watch.turn(stage.now_ms, board)), ("capture", reviews.pack)):
            began = time.perf_counter()
            work()
            stops[name].append((time.perf_counter() - began) * 1_000)
    return times, {name: min(each) for name, each in stops.items()}


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each load of posts")
    options = parser.parse_args()
    times, stops = measured(options.users, options.rounds)
    by_plain = ratios(times)
    made = tables.table(f"an increment in a frame of {FRAME}, {options.users:,} users", ("board",), ("µs", "ratio"))
    for board_id, each in times.items():
        made.add_row(board_id, f"{min(each):.2f}", f"{by_plain[board_id]:.2f}")
    tables.show(made)
    whole = post_ratios({"plain": PLAIN, "watched": WATCHED}, options.rounds, options.seconds)
    made = tables.table("a POST to a watched board, to one that is not", ("",), ("ratio",))
    made.add_row("single, 32 connections", f"{whole['single']:.2f}")
    made.add_row(f"batches of {FRAME:,}", f"{whole['batch']:.2f}")
    tables.show(made)
    made = tables.table(f"what stops the loop, {options.users:,} users", ("",), ("ms",))
    made.add_row("a turn of the minute, with outliers", f"{stops['turn']:.2f}")
    made.add_row("the part of an image", f"{stops['capture']:.2f}")
    tables.show(made)
    beside = by_plain["plain"] / by_plain["alone"]
    figures = [
        Wanted("the engine's part of an increment with all rules, to none", by_plain["all"], 1.05, False),
        Wanted("the same on a board without rules, beside watched ones", beside, 1.05, False),
        Wanted("a POST to a watched board, 32 connections", whole["single"], 1.05, False),
        Wanted("a POST of 1,000 increments to a watched board", whole["batch"], 1.05, False),
        Wanted("the loop stands still for a turn of the minute", stops["turn"], 10, False, "ms"),
        Wanted("the writer waits for the part of an image", stops["capture"], 20, False, "ms"),
    ]
    show_wanted(figures)
    us = {board_id: min(each) for board_id, each in times.items()}
    wanted = msgspec.to_builtins(figures)
    record("watch", {"us": us, "ratios": by_plain, "posts": whole, "stops": stops, "wanted": wanted})


if __name__ == "__main__":
    main()
