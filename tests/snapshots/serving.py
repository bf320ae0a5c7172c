"""A data directory that is served from in tests: its actor, its checkpointer, and a clock that only the test moves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from engine.actor import Actor
from engine.clock import Clock, GivenClock
from engine.commands import Command, Increment
from engine.disk import RealDisk
from engine.local_log import LocalLog
from engine.machine import StateMachine
from snapshots.checkpoint import Checkpointer
from snapshots.digests import StateDigests
from snapshots.opening import open_directory
from snapshots.retention import Removed
from snapshots.sealing import IndexRules, Sealer
from snapshots.store import SnapshotInfo, Store
from tests.snapshots.directories import BEGUN_MS, RULES, SEGMENT_BYTES, InlineDisk, Told, digest

DAY_MS = 24 * 3600 * 1000
IN_MEMORY = IndexRules("memory")


class Served:
    """A directory that is served from: its actor and its checkpointer. Its clock only moves if a test does it."""

    def __init__(
        self,
        directory: Path,
        *,
        every_events: int = 10**9,
        keep: int = 2,
        log_keep_seconds: float | None = None,
        disk: RealDisk | None = None,
        store: Store | None = None,
        pinned_seq: Callable[[], int | None] = lambda: None,
        on_capture: Callable[[int], None] | None = None,
        on_saved: Callable[[SnapshotInfo, StateDigests], None] | None = None,
        clock: Clock | None = None,
        on_removed: Callable[[Removed], None] = lambda _: None,
        index: IndexRules = IN_MEMORY,
    ) -> None:
        disk = disk or InlineDisk()
        self.directory = directory
        self.told = Told()
        self.now_ms = BEGUN_MS
        self.opened = open_directory(disk, str(directory), RULES, tell=self.told, segment_bytes=SEGMENT_BYTES)
        self.store = store or Store(disk, str(directory))
        self.machine = StateMachine(self.opened.scoreboard, LocalLog(self.opened.log), lambda _: None)
        clock = clock or GivenClock(lambda: self.now_ms)
        self.sealer = Sealer(self.opened.scoreboard, disk, str(directory), self.opened.log, index, tell=self.told)
        self.actor = Actor(self.machine, clock=clock, on_damage=self.sealer.damaged)
        self.checkpointer = Checkpointer(
            self.machine,
            self.store,
            self.opened,
            every_events=every_events,
            keep=keep,
            log_keep_seconds=log_keep_seconds,
            clock=clock,
            tell=self.told,
            pinned_seq=pinned_seq,
            on_capture=on_capture,
            on_saved=on_saved,
            on_removed=on_removed,
            before_capture=self.sealer.seal,
            settle=self._settle,
        )

    async def _settle(self, _: SnapshotInfo) -> None:
        await self.sealer.forget()
        await self.sealer.tidy()

    @property
    def seq(self) -> int:
        """The last applied event."""
        return self.machine.tail.seq

    def increments(self, count: int) -> Sequence[Command]:
        """Commands that each make an event."""
        first = self.seq + 1
        return [
            Increment(f"user-{n % 30}", f"act-{n}", "ACTION_COMPLETED", "main", "backend")
            for n in range(first, first + count)
        ]

    async def write(self, events: int, *, per_frame: int = 10) -> None:
        """Make so many events."""
        while events > 0:
            count = min(events, per_frame)
            await self.actor.submit(self.increments(count))
            events -= count

    def digest(self) -> str:
        """The digest of the state now."""
        return digest(self.opened.scoreboard)


@asynccontextmanager
async def serving(served: Served) -> AsyncIterator[Served]:
    """Run the actor."""
    async with trio.open_nursery() as nursery:
        await nursery.start(served.actor.run)
        await nursery.start(served.actor.reader.run)
        await nursery.start(served.sealer.run)
        yield served
        await served.actor.drain()
        nursery.cancel_scope.cancel()
    served.opened.log.close()
