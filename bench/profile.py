"""Where does the leader's time go?

    python -m bench.profile [--seconds 10]     single increments over 256 connections
    python -m bench.profile --batch 1000       batches over four connections

py-spy looks at the process RATE times a second, from outside. Only samples of the event loop's thread count, because
that thread sets the pace; one line tells how many samples the log's thread had. Three tables show shares of the event
loop's samples: by part of the program, by function itself, and by function with all that it calls. The shares of the
third table add up to more than 100 %. C code without a Python frame (JSON, hashes, sockets) counts for the Python
function that called it.

py-spy stops the process for each look. The bench prints the rate of requests: trust the shares only while that rate is
near the one of `bench.writes`.
"""

from __future__ import annotations

import argparse
import re
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from bench import tables
from bench.history import record
from bench.load import Load, Workload, run_load
from bench.servers import Server, leader

SERVER_PROCESSOR, LOAD_PROCESSOR = 0, 1
CONNECTIONS = 256
RATE = 100
ROWS = 20
ROOT = Path(__file__).parents[1]
_BEFORE = re.compile(rf".*/site-packages/|{re.escape(str(ROOT))}/|.*/lib/python[0-9.]+/")


def sample(server: Server, workload: Workload, seconds: float) -> tuple[Load, list[tuple[str, int]]]:
    """Run the load with py-spy beside it; give the load, and how often each stack was seen."""
    with tempfile.NamedTemporaryFile(suffix=".txt") as file:
        command = ["taskset", "-c", str(LOAD_PROCESSOR), str(Path(sys.executable).with_name("py-spy")), "record"]
        command += ["--pid", str(server.pids[0]), "--format", "raw", "--output", file.name, "--rate", str(RATE)]
        command += ["--duration", str(int(seconds)), "--full-filenames", "--threads"]
        spy = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            load = run_load(workload, LOAD_PROCESSOR)
        finally:
            spy.send_signal(signal.SIGINT)  # py-spy then writes its samples
            spy.wait(30)
        stacks = []
        for line in Path(file.name).read_text(encoding="utf-8").splitlines():
            stack, _, count = line.rpartition(" ")
            stacks.append((stack, int(count)))
    return load, stacks


def function_of(part: str) -> str:
    """`name (file:line)` as `file name`, without the line, and with the path from our or the library's folder on."""
    name, _, place = part.rpartition(" (")
    if not name:
        return part
    path = place.rstrip(")").rpartition(":")[0] or place.rstrip(")")
    return f"{_BEFORE.sub('', path)} {name}"


def part_of(function: str) -> str:
    """The part of the program that a function belongs to: a folder of ours, or a library."""
    path = function.partition(" ")[0]
    folder = path.rpartition("/")[0]
    if path.startswith(("server/", "engine/", "snapshots/")):
        return folder
    library = folder.partition("/")[0]
    return "the standard library" if not library or library in sys.stdlib_module_names else library


class Profile:
    """The samples, counted."""

    def __init__(self, stacks: list[tuple[str, int]]) -> None:
        self.total = 0
        self.elsewhere = 0
        self.parts: Counter[str] = Counter()
        self.itself: Counter[str] = Counter()
        self.called: Counter[str] = Counter()
        for stack, count in stacks:
            functions = [function_of(part) for part in stack.split(";")[1:]]  # the first is the thread
            if not any(function.endswith(" unrolled_run") for function in functions):
                self.elsewhere += count * any(function.startswith("engine/") for function in functions)
                continue
            self.total += count
            self.parts[part_of(functions[-1])] += count
            self.itself[functions[-1]] += count
            self.called.update(dict.fromkeys(functions, count))
        for name, count in list(self.called.items()):
            if count > 0.97 * self.total:  # functions that everything runs in say nothing
                del self.called[name]


def show(title: str, counts: Counter[str], total: int) -> dict[str, float]:
    """Print the top rows; give them."""
    table = tables.table(title, ("",), ("share",))
    top = {name: count / total for name, count in counts.most_common(ROWS)}
    for name, share in top.items():
        table.add_row(name, f"{share:.1%}")
    tables.show(table)
    return top


def main() -> None:
    """Profile, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--batch", type=int, default=0, help="batches of this size over 4 connections instead")
    options = parser.parse_args()
    if not Path(sys.executable).with_name("py-spy").exists():
        sys.exit("py-spy is not there: pip install py-spy")
    with leader(SERVER_PROCESSOR) as server:
        workload = Workload(
            port=server.port,
            connections=4 if options.batch else CONNECTIONS,
            seconds=options.seconds,
            token=server.token,
            path="/scores/increment/batch" if options.batch else "/scores/increment",
            batch=options.batch,
        )
        run_load(workload, LOAD_PROCESSOR)  # so that imports, caches and the first users don't count
        load, stacks = sample(server, workload, options.seconds)
    assert load.errors == 0
    assert stacks, "py-spy saw nothing: it needs the right to trace processes (root, or kernel.yama.ptrace_scope=0)"
    profile = Profile(stacks)
    increments = load.per_second * max(1, options.batch)
    print(
        f"{increments:,.0f} increments a second meanwhile; {profile.total:,} samples of the event loop, "
        f"and {profile.elsewhere:,} of the thread that writes the log"
    )
    figures = {
        "batch": options.batch,
        "per_second": increments,
        "samples": profile.total,
        "parts": show("by part of the program, itself", profile.parts, profile.total),
        "itself": show("by function, itself", profile.itself, profile.total),
        "called": show("by function, with all it calls", profile.called, profile.total),
    }
    record("profile", figures)


if __name__ == "__main__":
    main()
