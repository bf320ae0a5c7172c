"""Runs the tests in three processes at once: `python -m tests.runners`, which `make test` calls.

The folders are those of `tests/`, and the tests of each client (`clients/*/tests`). Some wait for processes, browsers
and clocks, the others compute, so three keep two processors busy. The folders stand in one row, those that take longest
first, and each runner takes the next one: so all end at nearly the same time. A folder's output is printed when it
ends; that of folders that failed once more at the end.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

TESTS = Path(__file__).parent
ROOT = TESTS.parent
RUNNERS = 3
LONGEST = ("e2e", "server", "sim", "browser", "server/node", "engine", "hostile", "conformance", "deploy", "cluster")
"""The beginning of the row. A folder within another one that is named, too, is tested apart from it."""
ELSEWHERE = ("house",)
"""`make check`, which `make test` runs first, has run these."""


@dataclass
class Run:
    """What is left of the row, and what failed."""

    row: deque[str]
    failed: list[tuple[str, bytes]] = field(default_factory=list)
    printing: threading.Lock = field(default_factory=threading.Lock)

    def take(self) -> None:
        """Run folder after folder until none is left."""
        while True:
            try:
                folder = self.row.popleft()
            except IndexError:
                return
            began = time.monotonic()
            command = [sys.executable, "-m", "pytest", *arguments(folder)]
            ended = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
            with self.printing:
                show(ended.stdout)
                show(f"{folder}: exit {ended.returncode} after {time.monotonic() - began:.0f} s\n".encode())
                if ended.returncode:
                    self.failed.append((folder, ended.stdout))


def show(text: bytes) -> None:
    """Print bytes as they are."""
    sys.stdout.buffer.write(text)
    sys.stdout.buffer.flush()


def arguments(folder: str) -> list[str]:
    """Give pytest's arguments for the tests of a folder."""
    within = [name for name in LONGEST if name.startswith(f"{folder}/")]
    path = folder if folder.startswith("clients/") else f"tests/{folder}"
    return [path, *(f"--ignore=tests/{name}" for name in within)]


def folders() -> list[str]:
    """Give the row: every folder that has tests."""
    found = {path.relative_to(TESTS).parts[0] for path in TESTS.rglob("test_*.py")} - set(ELSEWHERE)
    found |= {path.parent.relative_to(ROOT).as_posix() for path in ROOT.glob("clients/*/tests/test_*.py")}
    return [*LONGEST, *sorted(found.difference(LONGEST))]


def main() -> int:
    """Run all; give the exit code: 0 if all passed."""
    run = Run(deque(folders()))
    runners = [threading.Thread(target=run.take) for _ in range(RUNNERS)]
    for runner in runners:
        runner.start()
    try:
        for runner in runners:
            runner.join()
    finally:
        run.row.clear()
    for folder, output in run.failed:
        show(f"\n{folder} failed:\n".encode() + output)
    return 1 if run.failed else 0


if __name__ == "__main__":
    sys.exit(main())
