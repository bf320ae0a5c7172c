"""Runs the tests in two processes at once: `python -m tests.halves`, which `make test` calls.

Half of the suite waits for processes, browsers and clocks, the other half computes. Beside each other they take little
more than half the time on two cores. The output of the first half follows that of the second.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).parent
WAITING = ("browser", "cluster", "conformance", "e2e", "hostile", "snapshots", "soak")
"""The folders of the first half, and some that make both take about as long. Any other folder is in the second."""


def halves() -> tuple[list[str], list[str]]:
    """Give the folders with tests, each in one half."""
    folders = sorted({path.parent.relative_to(TESTS).parts[0] for path in TESTS.rglob("test_*.py")})
    first = [f"tests/{name}" for name in folders if name in WAITING]
    return first, [f"tests/{name}" for name in folders if name not in WAITING]


def main() -> int:
    """Run both; give the exit code: 0 if both passed."""
    first, second = halves()
    command = [sys.executable, "-m", "pytest"]
    with tempfile.TemporaryFile() as output:
        beside = subprocess.Popen([*command, *first], cwd=TESTS.parent, stdout=output, stderr=subprocess.STDOUT)
        try:
            code = subprocess.run([*command, *second], cwd=TESTS.parent, check=False).returncode
        except BaseException:
            beside.terminate()
            raise
        finally:
            other = beside.wait()
        output.seek(0)
        sys.stdout.flush()
        sys.stdout.buffer.write(output.read())
    return code or other


if __name__ == "__main__":
    sys.exit(main())
