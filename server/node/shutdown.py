"""The end of a process: what asks for it, and what is still done then.

    SIGTERM, SIGINT     `wanted`: accept no more, answer what is in flight, close viewers, take a snapshot; exit code 0
    a second signal     `hurried`: skip what is left of that; exit code 0
    a fault             `wanted` with a `fault`: send the last answers; exit code 1

Rules:
- A task whose failure is final is watched (`Guard.watched`). It never raises into the nursery, because that would
  cancel the other tasks before their answers are sent.
- The first fault counts.
"""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable

import structlog
import trio

from engine.errors import DiskFault
from engine.recovery import Finding
from server.quorum.stream import StreamRefused
from snapshots.mending import Mended
from snapshots.retention import Removed

log = structlog.get_logger()

Task = Callable[..., Awaitable[None]]
"""Runs until it is cancelled, and says when it has started."""


class Shutdown:
    """The request to end: `wanted` after the first signal or a fault, `hurried` after the second signal."""

    def __init__(self) -> None:
        self.wanted = trio.Event()
        self.hurried = trio.Event()
        self.fault: BaseException | None = None

    async def listen(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Wait for signals until cancelled."""
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            task_status.started()
            async for number in signals:
                again = self.wanted.is_set()
                log.info("signal", signal=signal.Signals(number).name, again=again)
                (self.hurried if again else self.wanted).set()

    def fail(self, fault: BaseException) -> None:
        if self.fault is None:
            self.fault = fault
        self.wanted.set()


class Guard:
    """Turns the error of a task into the end of the process."""

    def __init__(self, shutdown: Shutdown) -> None:
        self._shutdown = shutdown

    async def watched(self, task: Task, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run a task whose failure ends the process."""
        try:
            await task(task_status=task_status)
        except DiskFault as fault:
            self.disk_failed(fault)
        except StreamRefused as refused:
            log.critical("stream_refused", message=refused.what, key=refused.key, remedy=refused.remedy)
            self._shutdown.fail(refused)
        except Exception as fault:
            log.critical("part_failed", exc_info=fault)
            self._shutdown.fail(fault)

    def disk_failed(self, fault: DiskFault) -> None:
        log.critical("disk_failed", message=fault.what, **place_of(fault))
        self._shutdown.fail(fault)


async def unless(event: trio.Event, work: Callable[[], Awaitable[None]]) -> bool:
    """Do some work, and cancel it if the event comes first; tell whether it was done. Raises its error."""
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
    """Log what recovery or a checkpoint found, and what the operator can do."""
    if isinstance(found, Finding):
        log.warning("recovery", situation=found.situation.name, message=found.message, **place_of(found))
    elif isinstance(found, Mended):
        log.warning("file_made_anew", message=found.what, path=found.path, seq=found.seq)
    else:
        log.error("disk_fault", message=found.what, **place_of(found))


def tell_removed(segment: Removed) -> None:
    """Log that a segment of the log was removed for its age."""
    log.info(
        "segment_removed",
        path=segment.path,
        first_seq=segment.first_seq,
        last_seq=segment.last_seq,
        age_seconds=segment.age_ms // 1000,
    )


def place_of(found: Finding | DiskFault) -> dict[str, object]:
    return {"path": found.path, "offset": found.offset, "seq": found.seq, "remedy": found.remedy}
