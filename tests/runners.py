"""Runs the checks and the tests in four processes at once: `python -m tests.runners`, which `make test` calls.

The folders are those of `tests/`, and the tests of each client (`clients/*/tests`). Half of them wait for processes,
browsers and clocks most of the time, the others compute, so four keep two processors busy. All stand in one row, those
that take longest first, and each runner takes the next one: so all end at nearly the same time. The linters and types
stand before them: whoever waits for the verdict sees theirs in the first minute. The output of each is printed when it
ends; that of those that failed once more at the end.

Some hundred processes start during the tests. They keep what Python compiled, also where the caller's environment says
otherwise: compiling takes a third of a server's start.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

TESTS = Path(__file__).parent
ROOT = TESTS.parent
RUNNERS = 4
CHECK = "check"
"""Stands for `make check`: linters, types, and the tests in `house`."""
LONGEST = (
    "e2e", "browser", "server", "sim", "quorum", "e2e/test_replica.py", "server/node", "e2e/test_crash.py", "engine",
    "hostile", "conformance", "deploy", "cluster"
)  # fmt: skip
"""The beginning of the row: folders, and files. What is within another one that is named, too, is run apart from it."""
ELSEWHERE = ("house",)
KEEPS_NOTHING = "PYTHONDONTWRITEBYTECODE"


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
            ended = subprocess.run(
                command_of(folder),
                cwd=ROOT,
                env=environment(os.environ),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                check=False,
            )
            with self.printing:
                show(ended.stdout)
                show(f"{folder}: exit {ended.returncode} after {time.monotonic() - began:.0f} s\n".encode())
                if ended.returncode:
                    self.failed.append((folder, ended.stdout))


def show(text: bytes) -> None:
    """Print bytes as they are."""
    sys.stdout.buffer.write(text)
    sys.stdout.buffer.flush()


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """Give the environment of the tests: processes keep what they compiled."""
    return {name: value for name, value in given.items() if name != KEEPS_NOTHING}


def command_of(folder: str) -> list[str]:
    """Give what runs the tests of a folder, or the checks."""
    if folder == CHECK:
        return ["make", "--no-print-directory", CHECK]
    return [sys.executable, "-m", "pytest", *arguments(folder)]


def arguments(folder: str) -> list[str]:
    """Give pytest's arguments for the tests of a folder."""
    within = [name for name in LONGEST if name.startswith(f"{folder}/")]
    path = folder if folder.startswith("clients/") else f"tests/{folder}"
    return [path, *(f"--ignore=tests/{name}" for name in within)]


def whole_row() -> list[str]:
    """Give the row: the checks, and every folder that has tests."""
    found = {path.relative_to(TESTS).parts[0] for path in TESTS.rglob("test_*.py")} - set(ELSEWHERE)
    found |= {path.parent.relative_to(ROOT).as_posix() for path in ROOT.glob("clients/*/tests/test_*.py")}
    return [CHECK, *LONGEST, *sorted(found.difference(LONGEST))]


def main() -> int:
    """Run all; give the exit code: 0 if all passed."""
    run = Run(deque(whole_row()))
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
