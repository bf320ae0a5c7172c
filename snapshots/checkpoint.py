"""Taking snapshots while serving, and letting go of what they make superfluous.

    event loop        capture (memcpy, some ms a million users)  ─┐            ┌─ remember
    worker thread                                                 └─ pack, write, sync, rename, read back, retention

Theory: the actor is stopped only for the memcpy. What it copies is exact, because it is taken between two frames, and
consistent with the log's tail, which belongs to the same moment. Packing works on that copy (and on lists that only
grow) in a thread, in steps of about a millisecond, most of it in calls that let go of the interpreter; writing syncs
every few MiB, so that the log's own sync never waits behind a large dirty file. The rejected ways: fork (a child of a
threaded process with an open log, and twice the memory when pages are written to), and a fuzzy copy in slices that
needs the log to become exact.

Rules:
- One at a time. A snapshot that exists already, of the very state, is not written again.
- A checkpoint that fails costs nobody anything, for the log has everything: it is told and counted, the process goes
  on serving, and it is tried again after RETRY_SECONDS, into a new file. Who asks for one with `take` gets the error.
- Retention comes after each snapshot and only acts on what it has read back: each snapshot is proved again, from the
  disk, before anything is let go on its strength. Its faults are told; the snapshot is there all the same.
- What a replica still reads of the log (`pinned_seq`) is not let go, however old it is.
- A replica may begin anew from its leader's snapshot meanwhile, and set its files aside. Writing and letting go hold
  the log's `upkeep` against that; a state that was captured before and is not written yet is captured again.
- Who listens is told at the very moment of the copy (`on_capture`), so that it knows between which two frames that was,
  and again when the snapshot is there (`on_saved`), with the digests of that state for replicas to compare.
- Whether one is due is looked up every LOOK_SECONDS. The write path knows nothing of it, and a checkpoint that comes a
  second late is none the worse.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeVar

import msgspec
import trio

from engine.disk import Disk
from engine.errors import DiskFault, LogDamaged, SnapshotDamaged
from engine.image import StateImage
from engine.log import SegmentInfo
from engine.record import Tail
from engine.scoreboard import Rules
from engine.threads import run
from snapshots.digests import StateDigests, digests_of
from snapshots.opening import Opened, ShowProgress, Tell, no_progress
from snapshots.retention import KeptSegment, KeptSnapshot, Plan, decide
from snapshots.state import read_state
from snapshots.store import SnapshotInfo, Store

LOOK_SECONDS = 1.0
"""Between two looks at whether a checkpoint is due; at full rate that is 90,000 events, a tenth of a checkpoint."""

RETRY_SECONDS = 60.0
"""After a failed checkpoint. A full disk is not emptied in a second, and the attempt costs disk and processor."""

MARK_BYTES = 4
"""Random bytes in the name of an unfinished file of one who does not own the directory."""

T = TypeVar("T")


class Captured(Protocol):
    """What is needed of the state machine."""

    @property
    def tail(self) -> Tail:
        """The end of what is applied."""

    def capture(self) -> tuple[StateImage, Tail]:
        """Copy the state, with the end of the log that it belongs to."""


class CheckpointStatistics(msgspec.Struct, frozen=True):
    """`last_seq` and `last_time_ms` are of the newest snapshot, None before the first."""

    last_seq: int | None
    last_time_ms: int | None
    taken: int
    failed: int


class Checkpointer:
    """Takes the snapshots of a directory that this process serves from. `keep` snapshots stay, 2 at the least.

    `log_keep_seconds`: segments whose last event is older go once they are covered; None: they stay for good.
    `pinned_seq`: gives the lowest position that a replica was heard to have, None if there is none.
    """

    def __init__(
        self,
        machine: Captured,
        store: Store,
        opened: Opened,
        *,
        every_events: int,
        keep: int,
        log_keep_seconds: float | None,
        clock_ms: Callable[[], int],
        tell: Tell,
        pinned_seq: Callable[[], int | None] = lambda: None,
        on_capture: Callable[[int], None] | None = None,
        on_saved: Callable[[SnapshotInfo, StateDigests], None] | None = None,
    ) -> None:
        self._machine = machine
        self._store = store
        self._log = opened.log
        self._every_events = every_events
        self._keep = keep
        self._log_keep_seconds = log_keep_seconds
        self._clock_ms = clock_ms
        self._tell = tell
        self._pinned_seq = pinned_seq
        self._on_capture = on_capture
        self._on_saved = on_saved
        self._lock = trio.Lock()
        self._last = opened.snapshot
        # A snapshot does not say when it was taken. Its last event is not later than that, so its age is not belittled.
        self._last_time_ms = opened.snapshot_time_ms
        self._taken = 0
        self._failed = 0

    async def run(self) -> None:
        """Take a snapshot whenever one is due, until cancelled; one that is being written then is finished first."""
        while True:
            await trio.sleep(LOOK_SECONDS)
            since = 0 if self._last is None else self._last.seq
            if self._machine.tail.seq - since >= self._every_events:
                try:
                    await self.take()
                except DiskFault as fault:
                    self._tell(fault)
                    await trio.sleep(RETRY_SECONDS)

    async def take(self) -> SnapshotInfo:
        """Take a snapshot of the state as it is now, unless the last one is of this state; then let go what may go.

        Raises `DiskFault` if it can't be written; the log, and who uses it, are not touched by that.
        """
        async with self._lock:
            if self._last is not None and self._last.seq == self._machine.tail.seq:
                return self._last
            try:
                info = await self._save()
            except DiskFault:
                self._failed += 1
                raise
            self._last, self._last_time_ms = info, self._clock_ms()
            self._taken += 1
            pinned_seq = self._pinned_seq()
            for fault in await self._in_thread(lambda: self._retain(pinned_seq)):
                self._tell(fault)
            return info

    def statistics(self) -> CheckpointStatistics:
        """Tell of the newest snapshot, and how many were taken and failed."""
        last_seq = None if self._last is None else self._last.seq
        return CheckpointStatistics(last_seq, self._last_time_ms, self._taken, self._failed)

    async def _save(self) -> SnapshotInfo:
        info = None
        while info is None:
            image, tail = self._machine.capture()
            if self._on_capture is not None:
                self._on_capture(tail.seq)
            info = await self._in_thread(partial(self._write, image, tail))
        if self._on_saved is not None:
            self._on_saved(info, await self._in_thread(lambda: digests_of(image)))
        return info

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await run(work, blocks=self._log.blocks)

    # In the worker thread

    def _write(self, image: StateImage, tail: Tail) -> SnapshotInfo | None:
        """Write a snapshot; None if the log was begun anew meanwhile, so that this state is not of its history."""
        with self._log.upkeep:
            if self._log.statistics().first_seq > tail.seq + 1:
                return None
            return self._store.save(image, tail, paced=True)

    def _retain(self, pinned_seq: int | None) -> list[DiskFault]:
        """Decide what goes and let it go, but nothing after `pinned_seq`; give what was found to be wrong."""
        faults: list[DiskFault] = []
        try:
            with self._log.upkeep:
                plan = self._plan(faults)
                for path in plan.remove_snapshots:
                    self._store.remove(path)
                for info in self._log.segments():
                    if info.path in plan.compress:
                        self._compress(info, faults)
                first_seq = plan.first_seq
                self._log.remove_before(first_seq if pinned_seq is None else min(first_seq, pinned_seq + 1))
        except DiskFault as fault:
            faults.append(fault)
        return faults

    def _plan(self, faults: list[DiskFault]) -> Plan:
        snapshots = [
            KeptSnapshot(info.path, info.seq, valid=self._is_valid(info, faults)) for info in self._store.list()
        ]
        infos = self._log.segments()
        segments = [
            KeptSegment(info.path, info.first_seq, info.last_seq, sealed=info.sealed, compressed=info.compressed)
            for info in infos
        ]
        by_path = {info.path: info for info in infos}
        age = self._log_keep_seconds
        plan = decide(
            snapshots,
            segments,
            keep=self._keep,
            last_ms=lambda segment: self._log.last_time_ms(by_path[segment.path]),
            oldest_ms=None if age is None else self._clock_ms() - int(age * 1000),
        )
        if plan.objection is not None:
            remedy = "Nothing was removed. `scoreboard log verify` says more."
            faults.append(LogDamaged(plan.objection, path=infos[0].path, remedy=remedy))
        return plan

    def _is_valid(self, info: SnapshotInfo, faults: list[DiskFault]) -> bool:
        try:
            self._store.verify(info)
        except SnapshotDamaged as damage:
            faults.append(damage)
            return False
        return True

    def _compress(self, info: SegmentInfo, faults: list[DiskFault]) -> None:
        """Compress one segment. One that is damaged stays as it is, and does not keep the others from it."""
        try:
            self._log.compress(info)
        except LogDamaged as damage:
            faults.append(damage)


def take_beside(
    disk: Disk,
    data_directory: str,
    *,
    tell: Tell,
    progress: ShowProgress = no_progress,
    random_bytes: Callable[[int], bytes] = secrets.token_bytes,
) -> SnapshotInfo:
    """Take a snapshot of a directory that another process may be serving from, or none; the lock is not needed.

    Gives the snapshot that is there already if it is of the end of the log.
    """
    scoreboard, tail = read_state(disk, data_directory, Rules(points={}), tell=tell, progress=progress)
    store = Store(disk, data_directory)
    for info in store.list():
        if info.seq == tail.seq:
            try:
                store.verify(info)
            except SnapshotDamaged as damage:
                tell(damage)
            else:
                return info
    return store.save(scoreboard.capture(), tail, mark=random_bytes(MARK_BYTES).hex())
