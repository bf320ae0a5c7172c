"""The history of the benches: each run adds a line to `history.jsonl`, with its commit, its machine and its figures.

    record("writes", figures)           at the end of a bench
    python -m bench.history             print the newest figures of every bench
    python -m bench.history writes      the newest figures of one bench

Lines are only appended. A line without a time holds figures that a person measured and copied; its `note` says so.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

HISTORY = Path(__file__).with_name("history.jsonl")


def record(bench: str, figures: dict[str, Any]) -> None:
    """Append the figures of a run."""
    line = {
        "bench": bench,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": COMMIT,
        "machine": {"cores": os.cpu_count(), "cpu": cpu_model(), "python": platform.python_version()},
        "figures": rounded(figures),
    }
    with HISTORY.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def commit() -> str:
    """The commit of the working tree, with a + if files differ from it."""
    try:
        command = ["git", "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"]
        done = subprocess.run(command, cwd=HISTORY.parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


COMMIT = commit()
"""Looked up when a bench begins, because somebody may commit while it runs."""


def cpu_model() -> str:
    """The name that the system gives its processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()


def rounded(value: Any) -> Any:
    """Round every float to four significant digits; a repeated run differs in the third."""
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    if isinstance(value, list):
        return [rounded(part) for part in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def newest(lines: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The last run of each bench, by its name."""
    runs = map(json.loads, lines)
    return {run["bench"]: run for run in runs}


def described(label: str, value: Any) -> Iterator[str]:
    """The figures below `value`, one line for each group of them; the texts of a group are its label."""
    if isinstance(value, list):
        for part in value:
            yield from described(label, part)
        return
    values = value if isinstance(value, dict) else {"": value}
    inner = {key: part for key, part in values.items() if isinstance(part, dict | list)}
    labels = [label, *(part for part in values.values() if isinstance(part, str))]
    figures = [f"{key} {part}" for key, part in values.items() if isinstance(part, int | float)]
    if figures:
        yield "  " + ": ".join(filter(None, [", ".join(filter(None, labels)), ", ".join(figures)]))
    for key, part in inner.items():
        yield from described("" if key == "rows" else key, part)


def main() -> None:
    """Print the newest figures of the bench that is named, or of all."""
    parser = argparse.ArgumentParser(prog="python -m bench.history", description="Print the newest figures.")
    parser.add_argument("bench", nargs="?", help="one bench; without it all of them")
    wanted = parser.parse_args().bench
    for name, run in newest(HISTORY.read_text(encoding="utf-8").splitlines()).items():
        if wanted in (None, name):
            cores, cpu, python = (run["machine"][key] for key in ("cores", "cpu", "python"))
            moment = run["time"] or run.get("note")
            print(f"{name}: {moment}, commit {run['commit']}, {cores} cores of {cpu}, Python {python}")
            print("\n".join(described("", run["figures"])), end="\n\n")


if __name__ == "__main__":
    main()
