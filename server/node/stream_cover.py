"""Each member of a quorum has a snapshot that a new node can go on from: what the stream lacks is in it.

    stream                 ┌────┬────┬────┐            places before are purged
    snapshot     ──────────┴──► goes on from here

Rule: a node whose newest snapshot ends before the oldest frame of the stream takes one. Snapshots are made by the
number of events, and places are purged by bytes or for an erasure: without the rule a new node could wait for ever.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog
import trio

from engine.record import FrameFault, Tail, unpack_header
from server.quorum.stream import PlacePurged, Stream, Unanswered

log = structlog.get_logger()

LOOK_SECONDS = 10.0


class StreamCover:
    """See above. `tail` gives the end of what is applied here, `snapshot_seq` that of the newest snapshot."""

    def __init__(
        self, stream: Stream, tail: Callable[[], Tail], snapshot_seq: Callable[[], int | None],
        take_snapshot: Callable[[], Awaitable[None]],
    ) -> None:  # fmt: skip
        self._stream = stream
        self._tail = tail
        self._snapshot_seq = snapshot_seq
        self._take_snapshot = take_snapshot

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look now and then until cancelled. Raises `StreamRefused`."""
        task_status.started()
        while True:
            with suppress(Unanswered, PlacePurged, FrameFault):  # who follows the stream tells of these
                await self.look()
            await trio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Look once, and take a snapshot if none of ours reaches to the stream. Raises as the stream does."""
        first = (await self._stream.bounds()).first
        oldest = await self._stream.read(first, 1) if first > 1 else ()
        if not oldest:
            return
        needed_seq = unpack_header(oldest[0]).first_seq - 1
        if (self._snapshot_seq() or 0) < needed_seq <= self._tail().seq:
            log.info("snapshot_for_new_nodes", first_place=first, needed_seq=needed_seq)
            await self._take_snapshot()
