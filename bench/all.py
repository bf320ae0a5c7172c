"""Run every bench, one after the other, and print all wanted figures in one table at the end: `python -m bench.all`.

Each bench runs in a process of its own and prints its own table. If one fails, the others still run; the end of the
output names it, and the exit code is 1.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from bench.history import HISTORY
from bench.wanted import Wanted, show_wanted

ROOT = Path(__file__).parents[1]
BENCHES = (
    "calibrate", "writes", "reads", "engine", "restart", "fanout", "streams", "end_to_end", "replication", "quorum",
    "boards", "watch", "aside", "ledger", "index", "imports", "imports_http",
)  # fmt: skip


def history_length() -> int:
    """How many lines the history has."""
    return len(HISTORY.read_text(encoding="utf-8").splitlines()) if HISTORY.exists() else 0


def wanted_since(length: int) -> list[Wanted]:
    """The wanted figures of the runs that were recorded after the first `length` lines of the history."""
    lines = HISTORY.read_text(encoding="utf-8").splitlines()[length:] if HISTORY.exists() else []
    figures = [figure for line in lines for figure in json.loads(line)["figures"].get("wanted", ())]
    return msgspec.convert(figures, list[Wanted])


def main() -> int:
    """Run all benches; give the exit code."""
    before = history_length()
    failed = []
    for name in BENCHES:
        if importlib.util.find_spec(f"bench.{name}") is None:
            failed.append(f"{name} is not there")
            continue
        print(f"\n==== {name}", flush=True)
        start = time.monotonic()
        done = subprocess.run([sys.executable, "-m", f"bench.{name}"], check=False, cwd=ROOT)
        print(f"({name} took {time.monotonic() - start:.0f} s)", flush=True)
        if done.returncode:
            failed.append(f"{name} ended with {done.returncode}")
    print("\n==== all")
    show_wanted(wanted_since(before))
    for fault in failed:
        print(fault)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
