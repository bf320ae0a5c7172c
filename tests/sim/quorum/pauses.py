"""Processes that are stopped for a while, as SIGSTOP does it: no task of theirs takes a step, and time goes on.

    with pauses.patched():
        pauses.stop(nursery); ...; pauses.go_on(nursery)

A process is a nursery and everything below it. What it sent before goes on its way, and what is sent to it waits. When
it goes on, all that came meanwhile comes at once, timeouts too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import trio
from trio._core import _run as trio_scheduler


class Pauses:
    """See above. The order of what is held up is kept, so a seed gives the same run."""

    def __init__(self) -> None:
        self._stopped: dict[trio.Nursery, list[trio.lowlevel.Task]] = {}
        self._runner: Any = None

    @contextmanager
    def patched(self) -> Iterator[None]:
        """Take the tasks of stopped processes off the queue of those that may run, for one run."""
        real = trio_scheduler.Runner.reschedule

        def reschedule(runner: Any, task: trio.lowlevel.Task, *given: Any) -> None:
            real(runner, task, *given)
            if self._stopped and (process := self._process_of(task)) is not None:
                self._runner = runner
                taken = runner.runq.pop()
                assert taken is task
                self._stopped[process].append(task)

        with mock.patch.object(trio_scheduler.Runner, "reschedule", reschedule):
            yield

    def is_stopped(self, process: trio.Nursery) -> bool:
        return process in self._stopped

    def stop(self, process: trio.Nursery) -> None:
        """Stop a process. Tasks that are about to take a step take that one."""
        self._stopped.setdefault(process, [])

    def go_on(self, process: trio.Nursery) -> None:
        """Let a process go on, if it is stopped."""
        for task in self._stopped.pop(process, ()):
            self._runner.runq.append(task)

    def _process_of(self, task: trio.lowlevel.Task | None) -> trio.Nursery | None:
        while task is not None:
            nursery = task.parent_nursery
            if nursery is None:
                return None
            if nursery in self._stopped:
                return nursery
            task = nursery.parent_task
        return None
