"""A log to damage."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engine.logs import make_log


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A log of 30 frames of four events, in several segments."""
    make_log(tmp_path / "data" / "log", 30)
    return tmp_path / "data" / "log"
