"""A deadline for a system call that may never return.

with deadline(5):
    open(fifo)
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def deadline(seconds: int) -> Iterator[None]:
    """Raise TimeoutError out of a call that does not return. For the main thread alone."""

    def late(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"the call did not return within {seconds} seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
