"""One way to do what may wait for a disk: in a worker thread where it does, on the event loop where it does not.

    frame = await run(partial(log.event_at, seq), blocks=log.blocks)

Real disks block. Simulated disks do not: with them everything runs on the loop, so virtual time stands still meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import trio

T = TypeVar("T")


async def run(
    work: Callable[[], T], *, blocks: bool, limiter: trio.CapacityLimiter | None = None, abandon_on_cancel: bool = False
) -> T:
    """Do some work and give its result; raise what it raises.

    `limiter` bounds how many threads do such work at once. With `abandon_on_cancel` a cancelled caller leaves the
    thread to itself; otherwise the caller waits for its end.
    """
    if not blocks:
        return work()
    return await trio.to_thread.run_sync(work, limiter=limiter, abandon_on_cancel=abandon_on_cancel)
