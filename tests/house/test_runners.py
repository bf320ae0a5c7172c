"""`make test` runs every test once, and the checks; its processes keep what they compiled."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter, deque
from pathlib import Path

import pytest

from tests import runners

ROOT = Path(__file__).parents[2]


def files_of(name: str) -> list[Path]:
    """The files of tests that pytest finds with the arguments of a folder or a file."""
    path, *ignored = runners.arguments(name)
    without = [ROOT / argument.removeprefix("--ignore=") for argument in ignored]
    found = [ROOT / path] if path.endswith(".py") else (ROOT / path).rglob("test_*.py")
    return [file for file in found if not any(file.is_relative_to(other) for other in without)]


def test_each_file_of_tests_is_run_once() -> None:
    """`house` by the checks, the others by their folders."""
    row = runners.whole_row()
    assert row.count(runners.CHECK) == 1
    run = Counter(file for name in row if name != runners.CHECK for file in files_of(name))
    run.update((ROOT / "tests/house").glob("test_*.py"))
    every = [*(ROOT / "tests").rglob("test_*.py"), *ROOT.glob("clients/*/tests/**/test_*.py")]
    assert run == Counter(every)


def test_processes_keep_what_they_compiled() -> None:
    """Also if the caller's environment says that nothing is to be kept."""
    environ = runners.environment({runners.KEEPS_NOTHING: "1", "KEPT": "yes"})
    asked = [sys.executable, "-c", "import os, sys; print(sys.dont_write_bytecode, os.environ['KEPT'])"]
    said = subprocess.run(asked, env=environ, capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["False", "yes"]


def test_what_fails_is_told_and_the_others_run_all_the_same(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """What it wrote is shown when it ends, and once more at the end. Any exit code but 0 is a failure."""

    def command_of(name: str) -> list[str]:
        return [sys.executable, "-c", f"print('wrote {name}'); raise SystemExit({int(name == 'bad')})"]

    monkeypatch.setattr(runners, "command_of", command_of)
    monkeypatch.setattr(runners, "whole_row", lambda: deque(["bad", *(f"good {number}" for number in range(5))]))
    assert runners.main() == 1
    shown = capfdbinary.readouterr().out.decode()
    assert shown.count("wrote good") == 5
    assert shown.endswith("bad failed:\nwrote bad\n")
    assert shown.count("wrote bad") == 2
    monkeypatch.setattr(runners, "whole_row", lambda: deque(["good"]))
    assert runners.main() == 0
