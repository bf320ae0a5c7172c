"""The surroundings of every simulated run: a scheduler and a clock that are the same each time, and a smaller index."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar
from unittest import mock

import structlog
import trio
from trio._core import _run as trio_scheduler
from trio.testing import MockClock

CELLS = 16

T = TypeVar("T")


@contextmanager
def cheap_starts() -> Iterator[None]:
    """Write no log messages, and let the index of actions begin small, so that it grows all the time."""
    with mock.patch("engine.actions.CELLS_AT_FIRST", CELLS), _silence():
        yield


@contextmanager
def _silence() -> Iterator[None]:
    """No test reads a node's log messages: the books get the same facts."""
    before = structlog.get_config()
    structlog.configure(processors=[_drop], wrapper_class=structlog.make_filtering_bound_logger("critical"))
    try:
        yield
    finally:
        structlog.configure(**before)


def _drop(_logger: object, _method: str, _event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    raise structlog.DropEvent


def run_seeded(seed: int, main: Callable[[], Awaitable[T]]) -> T:
    """Run a program in virtual time, with the order of tasks given by the seed.

    Trio runs tasks that are ready at the same time in a random order. In its deterministic mode, which Hypothesis uses
    through pytest-trio, it sorts them by age and shuffles them with a generator that can be seeded. The generator that
    all modules share is seeded as well, because the notifier of a newer epoch draws its waits from it.
    """
    state, shared = trio_scheduler._r.getstate(), random.getstate()
    trio_scheduler._r.seed(seed)
    random.seed(seed)
    try:
        with mock.patch.object(trio_scheduler, "_ALLOW_DETERMINISTIC_SCHEDULING", True), cheap_starts():
            return trio.run(main, clock=MockClock(autojump_threshold=0))
    finally:
        trio_scheduler._r.setstate(state)
        random.setstate(shared)
