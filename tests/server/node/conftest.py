"""What the parts of a node log."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict


@pytest.fixture
def logged() -> Iterator[list[EventDict]]:
    """What is logged meanwhile."""
    with capture_logs() as lines:
        yield lines
