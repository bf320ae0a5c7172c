"""How a node is told to end, and what may end it.

    SIGTERM, SIGINT     `wanted`: accept no more, answer what is in flight, close viewers, take a snapshot; exit code 0
    a second signal     `hurried`: leave out what is not done of that; exit code 0
    a fault             `wanted` with a `fault`: give the last answers a moment to leave; exit code 1

Rules:
- A part whose failure is final is watched (`Guard.watched`). It never raises into the nursery, which would cancel the
  others before their answers are out.
- The first fault counts.
"""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable

import structlog
import trio

from engine.errors import DiskFault
from engine.recovery import Finding

log = structlog.get_logger()

Task = Callable[..., Awaitable[None]]
"""Runs until it is cancelled, and says when it has started."""


class Shutdown:
    """How the end is asked for: `wanted` by the first signal or a failure, `hurried` by the second signal."""

    def __init__(self) -> None:
        self.wanted = trio.Event()
        self.hurried = trio.Event()
        self.fault: BaseException | None = None

    async def listen(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Heed signals until cancelled."""
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            task_status.started()
            async for number in signals:
                again = self.wanted.is_set()
                log.info("signal", signal=signal.Signals(number).name, again=again)
                (self.hurried if again else self.wanted).set()

    def fail(self, fault: BaseException) -> None:
        """End because of a fault; the first one counts."""
        if self.fault is None:
            self.fault = fault
        self.wanted.set()


class Guard:
    """Turns what a part of the node raises into the end of the process."""

    def __init__(self, shutdown: Shutdown) -> None:
        self._shutdown = shutdown

    async def watched(self, task: Task, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run a part whose failure ends the process, but not before the others have had their say."""
        try:
            await task(task_status=task_status)
        except DiskFault as fault:
            self.disk_failed(fault)
        except Exception as fault:
            log.critical("part_failed", exc_info=fault)
            self._shutdown.fail(fault)

    def disk_failed(self, fault: DiskFault) -> None:
        """End because the disk can't be written."""
        log.critical("disk_failed", message=fault.what, **place_of(fault))
        self._shutdown.fail(fault)


async def unless(event: trio.Event, work: Callable[[], Awaitable[None]]) -> bool:
    """Do some work; cancel it if the event comes first. Tell whether it was done. Lets its error out as it is."""
    done = False
    fault: Exception | None = None

    async def cancel_when_it_comes(scope: trio.CancelScope) -> None:
        await event.wait()
        scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(cancel_when_it_comes, nursery.cancel_scope)
        try:
            await work()
            done = True
        except Exception as error:
            fault = error  # raised outside, or the nursery would make a group of it
        nursery.cancel_scope.cancel()
    if fault is not None:
        raise fault
    return done


def tell(found: Finding | DiskFault) -> None:
    """Log what recovery or a checkpoint came upon, and what an operator can do about it."""
    if isinstance(found, Finding):
        log.warning("recovery", situation=found.situation.name, message=found.message, **place_of(found))
    else:
        log.error("disk_fault", message=found.what, **place_of(found))


def place_of(found: Finding | DiskFault) -> dict[str, object]:
    """Where a fault is and what can be done, for the log."""
    return {"path": found.path, "offset": found.offset, "seq": found.seq, "remedy": found.remedy}
