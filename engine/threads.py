"""One way to do what may wait for a disk: in a worker thread where it does, on the event loop where it does not.

    frame = await run(partial(log.event_at, seq), blocks=log.blocks)

Real disks block. Simulated disks do not: with them everything runs on the loop, so virtual time stands still meanwhile.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar, cast

import trio

T = TypeVar("T")


class _Unlimited:
    """What Trio needs of a limiter of threads, without a limit. Trio's own would cost a turn of the event loop."""

    async def acquire_on_behalf_of(self, borrower: object) -> None: ...

    def release_on_behalf_of(self, borrower: object) -> None: ...


ONE_AT_A_TIME = cast("trio.CapacityLimiter", _Unlimited())
"""The limiter of a task that has one thread at a time, and uses it for every frame or every read."""


def run(
    work: Callable[[], T], *, blocks: bool, limiter: trio.CapacityLimiter | None = None, abandon_on_cancel: bool = False
) -> Awaitable[T]:
    """Do some work and give its result; raise what it raises. To be awaited at once.

    `limiter` bounds how many threads do such work at once. With `abandon_on_cancel` a cancelled caller leaves the
    thread to itself; otherwise the caller waits for its end.
    """
    if blocks:
        return trio.to_thread.run_sync(work, limiter=limiter, abandon_on_cancel=abandon_on_cancel)
    return _run_here(work)


async def _run_here(work: Callable[[], T]) -> T:
    return work()
