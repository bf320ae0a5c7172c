"""How fast do scores come in, and do they go out as they came? `python -m bench.imports`.

A Redis server of the bench's own gets a sorted set of --rows members with many ties. Each step is a process of its own,
timed from its start to its exit, and its peak memory is told:

    csv      `scoreboard import` of a CSV file with the same rows
    redis    `scoreboard import --from redis://… --key board`, to another directory
    export   `scoreboard export` of that directory; its rows are compared with ZREVRANGE, one by one

So a rate has everything in it: opening the directory, reading and checking the source, the log, the snapshot. --runs
repeats csv and redis in new directories; the fastest counts, because other guests of a machine only add time.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

from bench.history import record
from bench.wanted import Wanted, show_wanted
from engine.batch import Batch
from engine.board_rules import BoardRules, Rules
from engine.commands import PutBoard
from engine.disk import RealDisk
from snapshots.opening import open_directory

SEED = 20_251_215
AT_ONCE = 10_000
SCOREBOARD = (sys.executable, "-m", "server.cli.main")


def make_directory(path: Path) -> Path:
    """Make a leader's directory whose log has the board `main`."""
    opened = open_directory(RealDisk(), str(path), Rules({}), tell=print)
    batch = Batch(opened.scoreboard, 1)
    batch.decide([PutBoard("main", BoardRules({"ACTION_COMPLETED": 10}), "bench")])
    opened.log.append(batch.events, 1)
    opened.log.close()
    return path


def step(*arguments: str) -> tuple[float, float]:
    """Run the command; give its seconds and its peak memory in MB."""
    began = time.perf_counter()
    process = subprocess.Popen([*SCOREBOARD, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{arguments} ended with {process.returncode}")
    return seconds, usage.ru_maxrss / 1024


def fastest(rows: int, runs: int, place: Path, *source: str) -> dict[str, float]:
    """Import into a new directory several times; the last one stays."""
    found = []
    for _ in range(runs):
        shutil.rmtree(place, ignore_errors=True)
        found.append(step("import", "--data-dir", str(make_directory(place)), "--board", "main", *source))
    seconds, _ = min(found)
    return {"seconds": seconds, "rows_per_s": rows / seconds, "peak_mb": max(peak for _, peak in found)}


def compare(client: Any, exported: Path, rows: int) -> None:
    """Compare an export with the sorted set, row by row."""
    with exported.open(encoding="utf-8", newline="") as text:
        lines = csv.DictReader(text)
        for first in range(0, rows, AT_ONCE):
            for member, score in client.zrevrange("board", first, first + AT_ONCE - 1, withscores=True):
                line = next(lines)
                if (line["userId"], line["score"]) != (member.decode(), str(int(score))):
                    raise SystemExit(f"the export has {line}, Redis has {member!r} {score}")
        if next(lines, None) is not None:
            raise SystemExit("the export has more rows than Redis")


def measure(rows: int, runs: int, port: int, place: Path) -> dict[str, Any]:
    """Fill the server, and take each step."""
    import redis  # noqa: PLC0415  # an extra

    client: Any = redis.Redis(port=port)
    while True:
        try:
            client.ping()
            break
        except redis.ConnectionError:
            time.sleep(0.01)
    chance = random.Random(SEED)
    for first in range(0, rows, AT_ONCE):
        many = range(first, min(rows, first + AT_ONCE))
        client.zadd("board", {f"user-{number:08}": chance.randrange(rows // 10) for number in many})
    file = place / "board.csv"
    with file.open("w", encoding="utf-8", newline="") as text:
        writer = csv.writer(text)
        writer.writerow(("userId", "score"))
        for first in range(0, rows, AT_ONCE):
            found = client.zrevrange("board", first, first + AT_ONCE - 1, withscores=True)
            writer.writerows((member.decode(), int(score)) for member, score in found)
    figures: dict[str, Any] = {"rows": rows, "csv": fastest(rows, runs, place / "from-csv", str(file))}
    url = f"redis://127.0.0.1:{port}"
    figures["redis"] = fastest(rows, runs, place / "from-redis", "--from", url, "--key", "board")
    exported = place / "out.csv"
    directory = ("--data-dir", str(place / "from-redis"))
    seconds, peak = step("export", *directory, "--board", "main", "--format", "csv", str(exported))
    figures["export"] = {"seconds": seconds, "rows_per_s": rows / seconds, "peak_mb": peak}
    compare(client, exported, rows)
    return figures


def main() -> None:
    """Parse the arguments; measure, print, record."""
    parser = argparse.ArgumentParser(prog="python -m bench.imports", description="Imports: rows a second, memory.")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    program = shutil.which("redis-server")
    if program is None:
        raise SystemExit("there is no redis-server on this machine")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as place:
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", place]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
            try:
                figures = measure(arguments.rows, arguments.runs, port, Path(place))
            finally:
                server.terminate()
    for name in ("csv", "redis", "export"):
        figure = figures[name]
        print(
            f"{name:8}{figure['seconds']:8.1f} s {figure['rows_per_s']:12,.0f} rows/s {figure['peak_mb']:8.0f} MB peak"
        )
    print(f"the export has all {figures['rows']:,} rows of Redis, in the same order")
    wanted = [Wanted(f"rows a second of an import, {name}", figures[name]["rows_per_s"], 100_000, True, "/s")
              for name in ("csv", "redis")]  # fmt: skip
    show_wanted(wanted)
    record("imports", {**figures, "wanted": msgspec.to_builtins(wanted)})


if __name__ == "__main__":
    main()
