"""The part of the element that needs no document, under node's test runner: clients/js/tests."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "clients" / "js"
RUN_SECONDS_MAX = 300


@pytest.mark.skipif(not os.environ.get("CI"), reason="only continuous integration must have node")
def test_continuous_integration_has_node() -> None:
    """In CI a missing node is a failure, so the module is never left untested."""
    assert shutil.which("node") is not None, "install nodejs"


def test_the_module_under_node() -> None:
    """Positions, deltas, events, the ladder, waits, tokens and sleeps, with a clock that the tests move."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no node on the PATH")
    files = sorted(str(path) for path in (PACKAGE / "tests").glob("*.test.js"))
    assert len(files) == 2
    done = subprocess.run(
        [node, "--test", *files], cwd=PACKAGE, capture_output=True, text=True, timeout=RUN_SECONDS_MAX, check=False
    )
    assert done.returncode == 0, done.stdout
