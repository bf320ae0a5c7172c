"""What does a start with 10,000,000 users take, and a snapshot of them? This build, or this one and another in turns.

    python -m bench.starts [--users 10000000] [--directory /var/tmp/past] [--other ../before]

`bench.past` makes a directory with one board of --users users, and --tail events of log after its snapshot. It stays
under --directory, if that is given. Each start gets a copy of its own, made of links, and ends with SIGKILL.

    seconds     from the start of the process until /readyz says yes; the files are in the kernel's cache
    processor   its time on a processor until then, of all threads
    holds       VmRSS of the process, SETTLE_SECONDS after it was ready
    peak        VmHWM then: the most that it ever held
    a user      what it holds beyond a server that has the same log and SOME_USERS, divided by the users
    snapshot    how long a capture stops the event loop, and who notices a snapshot (`bench.restart` measures it)

Ratios are medians of the rounds' ratios. Those of processor time and memory hold when other programs use the machine.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from bench import tables
from bench.history import record
from bench.load import processor_seconds
from bench.old_actions import CONFIG, SERVER_PROCESSOR, directories, wait_answer
from bench.past import Past, copy_linked
from bench.restart import run_child
from bench.servers import ROOT, fresh_directory, leader
from bench.turns import take_turns
from bench.wanted import Wanted, show_wanted

LARGE, SMALL = "large", "small"
THIS, OTHER = "this build", "the other build"
SOME_USERS = 100
SETTLE_SECONDS = 1.0


class Start(msgspec.Struct, frozen=True):
    """A server that was just started."""

    seconds: float
    cpu_seconds: float
    resident_bytes: int
    peak_bytes: int

    @property
    def peak_ratio(self) -> float:
        return self.peak_bytes / self.resident_bytes


def start(source: Path, checkout: Path) -> Start:
    """Start a server of a checkout until it is ready, then kill it."""
    began: list[float] = []

    def fill(directory: str) -> None:
        copy_linked(source, Path(directory))
        began.append(time.perf_counter())

    with leader(SERVER_PROCESSOR, CONFIG, name="starts", fill=fill, kill=True, checkout=checkout) as server:
        wait_answer(server.port)
        seconds, cpu_seconds = time.perf_counter() - began[0], processor_seconds(server.pids)
        time.sleep(SETTLE_SECONDS)
        return Start(seconds, cpu_seconds, memory(server.pids[0], "VmRSS"), memory(server.pids[0], "VmHWM"))


def memory(process: int, name: str) -> int:
    """Read a size from the status of a process, in bytes."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def median(figure: Callable[[Start], float], starts: list[Start]) -> float:
    """The median of a figure over the rounds."""
    return statistics.median(map(figure, starts))


def measure(found: dict[str, Path], users: int, builds: dict[str, Path], rounds: int) -> dict[str, Any]:
    """Start the builds in turns; give the figures of each."""
    runs = {
        f"{build}, {size}": partial(start, path, checkout)
        for size, path in found.items()
        for build, checkout in builds.items()
    }
    starts = take_turns(runs, rounds)
    figures: dict[str, Any] = {}
    for build in builds:
        large, small = starts[f"{build}, {LARGE}"], starts[f"{build}, {SMALL}"]
        grown = median(lambda each: each.resident_bytes, large) - median(lambda each: each.resident_bytes, small)
        figures[build] = {
            **{
                field: median(lambda each, field=field: getattr(each, field), large)  # type: ignore[misc]
                for field in (*Start.__struct_fields__, "peak_ratio")
            },
            "bytes_per_user": grown / users,
            "cpu_ratio": statistics.median(
                one.cpu_seconds / other.cpu_seconds
                for one, other in zip(starts[f"{THIS}, {LARGE}"], large, strict=True)
            ),
        }  # fmt: skip
    return figures


def measure_snapshot(source: Path) -> dict[str, Any]:
    """Serve from a copy and take snapshots."""
    with fresh_directory("starts") as path:
        copy_linked(source, path / "data")
        return run_child("pauses", path / "data")


def show(users: int, figures: dict[str, Any], pauses: dict[str, Any] | None) -> list[Wanted]:
    """Print the tables; give what is wanted."""
    columns = ("s", "processor s", "holds MiB", "peak MiB", "peak ÷ holds", "bytes a user")
    table = tables.table(f"a start with {users:,} users", ("build",), columns)
    for build, each in figures.items():
        table.add_row(
            build, f"{each['seconds']:.2f}", f"{each['cpu_seconds']:.2f}", f"{each['resident_bytes'] / 2**20:,.0f}",
            f"{each['peak_bytes'] / 2**20:,.0f}", f"{each['peak_ratio']:.3f}", f"{each['bytes_per_user']:.1f}",
        )  # fmt: skip
    tables.show(table)
    for build, each in figures.items():
        if build != THIS:
            print(f"This build takes {each['cpu_ratio']:.2f}× the processor time of {build}.")
    ours = figures[THIS]
    reached = [
        Wanted(f"a start with {users:,} users", ours["seconds"], 15, False, " s",
               f"({ours['cpu_seconds']:.1f} s on a processor)"),
        Wanted("– its peak of memory, of what it then holds", ours["peak_ratio"], 1.3, False, "×"),
    ]  # fmt: skip
    if pauses is not None:
        without, during = (pauses[when]["answer_ms_max"] for when in ("without", "during"))
        print(f"A capture stops the loop for {pauses['capture_ms']:.0f} ms.")
        print(
            f"A checkpoint takes {pauses['checkpoint_s']:.1f} s, and {pauses['peak_bytes'] / 2**20:,.0f} MiB at most."
        )
        print(f"The longest answer takes {without:.0f} ms without one, and {during:.0f} ms during one.")
        reached.append(Wanted("– a capture stops the loop", pauses["capture_ms"], 250, False, " ms"))
    return reached


def main() -> None:
    """Make, measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=10_000_000)
    parser.add_argument("--tail", type=int, default=100_000, help="events of log after the snapshot")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--directory", help="where the directories stay; without it they are removed at the end")
    parser.add_argument("--other", type=Path, help="a checkout of another build")
    parser.add_argument("--no-snapshot", action="store_true", help="measure starts only")
    options = parser.parse_args()
    builds = {THIS: ROOT, **({OTHER: options.other.resolve()} if options.other else {})}
    pasts = {LARGE: Past(options.users, 0, options.tail), SMALL: Past(SOME_USERS, 0, options.tail)}
    with directories(options.directory, pasts) as found:
        figures = measure(found, options.users, builds, options.rounds)
        pauses = None if options.no_snapshot else measure_snapshot(found[LARGE])
    reached = show(options.users, figures, pauses)
    show_wanted(reached)
    record("starts", {
        "users": options.users, "tail": options.tail, "builds": figures, "snapshot": pauses,
        "wanted": msgspec.to_builtins(reached),
    })  # fmt: skip


if __name__ == "__main__":
    main()
