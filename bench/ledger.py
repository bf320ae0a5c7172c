"""How long does the first page of a user's history take? `python -m bench.ledger [--events 10000000]`.

The log is written, compressed and indexed with the real engine, in frames of 100 increments. All segments but the last
two are compressed. A page is what GET /scores/{userId}/history reads in its thread: LIMIT events, the newest first.

    one       a user with a single event, the first of the log: every segment is searched
    few       a user with an event in a million
    many      a user with a tenth of all events
    live      a user whose newest events are in the live segment
    nobody    a user without an event

A page is read cold, after the kernel was told to drop the files from its cache (`posix_fadvise`), then warm. ROUNDS of
both; the least counts. Each user has a new `Ledger`, which keeps the heads of the indexes from one read to the next, as
that of a server does. The first cold page, which is told too, has none of them. The processor time of a warm one stays
right when other programs use the machine.

Then all of a user is read, the oldest first, as `log dump --user` and a reversal by `userId` do: by the indexes, and
without them for one user, which reads the whole log.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import time
import uuid
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import msgspec

from bench import tables
from bench.history import record
from bench.wanted import Wanted, show_wanted
from engine.concerned import users_of
from engine.disk import RealDisk
from engine.events import Event, Incremented
from engine.ledger import Ledger
from engine.log import Log
from engine.log_reader import scan
from engine.record import Frame, events_of
from engine.user_frames import scan_of
from engine.user_index import make_missing

FRAME = 100
LIMIT = 100
SEED = 20_251_215
USERS = 1_000_000
ROUNDS = 9
WANTED_MS = 50.0
WORK = Path(__file__).with_name("work")


def user_of(seq: int, last: int, rng: random.Random) -> str:
    """Who scores with an event."""
    if seq == 1:
        return "one"
    if seq % 1_000_000 == 500_000:
        return "few"
    if seq > last - 200 and seq % 2:
        return "live"
    return "many" if seq % 10 == 3 else f"user-{rng.randrange(USERS)}"


def build(directory: Path, events: int) -> tuple[Log, dict[str, float]]:
    """Write a log; give it, and the seconds that its parts took."""
    rng = random.Random(SEED)
    took = {"write": 0.0, "compress": 0.0, "index": 0.0}
    began = time.perf_counter()
    RealDisk().make_directory(str(directory))
    log = Log.create(RealDisk(), str(directory / "log"), log_id=bytes(range(16)))
    for first in range(1, events + 1, FRAME):
        frame: list[Event] = [
            Incremented(
                seq, 1_765_800_000_000 + first, "main", user_of(seq, events, rng),
                str(uuid.UUID(int=rng.getrandbits(128))), 10, "ACTION_COMPLETED", "backend", 10,
            )
            for seq in range(first, first + FRAME)
        ]  # fmt: skip
        log.append(frame, 1)
    took["write"] = time.perf_counter() - began
    began = time.perf_counter()
    for info in log.segments()[:-2]:
        log.compress(info)
    took["compress"] = time.perf_counter() - began
    began = time.perf_counter()
    make_missing(RealDisk(), log)
    took["index"] = time.perf_counter() - began
    return log, took


class Page(NamedTuple):
    """The milliseconds of a first page, those of them in which the thread had a processor, and the number of events."""

    ms: float
    cpu_ms: float
    events: int


def page(ledger: Ledger, user_id: str) -> Page:
    """Read a first page."""
    began, worked = time.perf_counter(), time.thread_time()
    found = list(islice(ledger.events_of(user_id), LIMIT))
    return Page((time.perf_counter() - began) * 1_000, (time.thread_time() - worked) * 1_000, len(found))


def drop_from_cache(directory: Path) -> None:
    """Have the kernel drop a log from its cache. All of it is on disk, so no page is dirty."""
    for path in directory.iterdir():
        file = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(file)


def cold_and_warm(log: Log, directory: Path, user_id: str) -> tuple[list[Page], list[Page]]:
    """Read a first page again and again, from the disk and from the cache."""
    cold, warm = [], []
    ledger = Ledger(RealDisk(), log)
    for _ in range(ROUNDS):
        drop_from_cache(directory)
        cold.append(page(ledger, user_id))
        warm.append(page(ledger, user_id))
    return cold, warm


def whole(frames: Iterator[Frame], user_id: str) -> tuple[float, int]:
    """Read all events of a user; give the seconds, and their number."""
    began = time.perf_counter()
    count = sum(1 for frame in frames for event in events_of(frame) if user_id in users_of(event))
    return time.perf_counter() - began, count


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=10_000_000)
    options = parser.parse_args()
    directory = WORK / "ledger"
    shutil.rmtree(directory, ignore_errors=True)
    try:
        log, took = build(directory, options.events)
        users = ("one", "few", "many", "live", "nobody")
        pages = {user_id: cold_and_warm(log, directory / "log", user_id) for user_id in users}
        path = str(directory / "log")
        all_of = {user_id: whole(scan_of(RealDisk(), path, {user_id}), user_id) for user_id in users}
        needle = b"few"
        read_s = whole((frame for frame in scan(RealDisk(), path) if needle in frame.body), "few")[0]
        segments = len(log.segments())
        index_bytes = sum(path.stat().st_size for path in (directory / "log").glob("*.index"))
        log.close()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    made = tables.table(
        f"{options.events:,} events, {segments} segments",
        ("user",),
        ("first page: events", "first cold ms", "cold ms", "warm ms", "its CPU ms", "all: events", "seconds"),
    )
    for user_id, (cold, warm) in pages.items():
        seconds, count = all_of[user_id]
        made.add_row(
            user_id, str(cold[0].events), f"{cold[0].ms:.1f}", f"{min(cold).ms:.1f}", f"{min(warm).ms:.1f}",
            f"{min(each.cpu_ms for each in warm):.1f}", f"{count:,}", f"{seconds:.2f}",
        )  # fmt: skip
    tables.show(made)
    print(
        f"indexes: {index_bytes / options.events:.1f} bytes an event, {took['index'] / (segments - 1):.2f} s a segment;"
        f" all of `few` without them: {read_s:.1f} s"
    )
    figures = [
        Wanted(f"first page of a history, {user_id}, {name}", min(times).ms, WANTED_MS, False, "ms",
               f"of {options.events:,} events")
        for user_id, both in pages.items()
        for name, times in zip(("cold", "warm"), both, strict=True)
    ]  # fmt: skip
    show_wanted(figures)
    record("ledger", {
        "events": options.events, "seconds": took, "pages": pages, "all_of": all_of, "without_indexes_s": read_s,
        "wanted": msgspec.to_builtins(figures),
    })  # fmt: skip


if __name__ == "__main__":
    main()
