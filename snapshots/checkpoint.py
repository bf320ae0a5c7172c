"""Checkpoints: taking a snapshot while serving, then compressing and removing what snapshots cover, and
making the indexes of sealed segments.

    checkpointer = Checkpointer(…); nursery.start_soon(checkpointer.run)
    info = await checkpointer.take()                                    on demand, and at shutdown
    info = take_beside(disk, data_directory, tell=tell)                 of a directory that another process may serve

    event loop        capture (a copy, some ms for a million users) ─┐            ┌─ remember
    worker thread                                                    └─ pack, write, sync, rename, read back, retention

Theory: writing stops only for the copy. The copy is exact, because it is made between two frames, together with the
log's tail. A thread packs it in steps of about a millisecond, mostly in calls that release the interpreter. The file is
synced every few MiB, so a sync of the log never waits behind a large dirty file. Rejected: fork (a child of a threaded
process with an open log, and up to twice the memory), and a fuzzy copy in slices (exact only with the log).

Rules:
- One checkpoint at a time. If a snapshot of this state exists, none is written.
- A failed checkpoint loses nothing, because the log has every event. It is told and counted, and the process goes on
  serving. The next attempt, after RETRY_SECONDS, writes a new file. A caller of `take` gets the error.
- Retention follows each snapshot. Before anything is removed, every snapshot is read back from the disk and proved. A
  fault of retention is told; the new snapshot stays.
- Nothing is written or removed once the log is no longer where it was (`Log.check_place`).
- Segments that a replica still reads (`pinned_seq`) stay, however old they are.
- `on_removed` gets each segment that was removed for its age, in the event loop, also if a later removal failed.
- Meanwhile a replica may begin anew from its leader's snapshot and set its files aside. Writing and retention hold the
  log's `upkeep`, which excludes that. A state that was captured before and not yet written is captured again.
- `on_capture` is called at the moment of the copy, so the listener knows between which two frames it was made.
  `on_saved` is called when the snapshot exists, with the digests of its state, which replicas compare.
- A state is captured after `before_capture`: every period that has ended has its file then, because the log that made
  the file may go afterwards, and what is due of older actions is sealed (`snapshots.sealing`).
- `settle` follows each snapshot, before retention: it makes older files forget whom the state has forgotten
  (`snapshots.settling`). It must not raise.
- `run` looks every LOOK_SECONDS whether a checkpoint is due. So the write path does no work for it; a checkpoint may be
  a second late.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol, TypeVar

import msgspec
import trio

from engine.board_events import EndedPeriod
from engine.board_rules import Rules
from engine.clock import Clock, ClockReading
from engine.disk import Disk
from engine.errors import DiskFault, LogDamaged, SnapshotDamaged
from engine.image import StateImage
from engine.log import SegmentInfo
from engine.record import Tail
from engine.threads import run
from engine.user_index import make_missing
from snapshots.digests import StateDigests, digests_of
from snapshots.opening import Opened, ShowProgress, Tell, no_progress
from snapshots.period_store import PeriodStore
from snapshots.periods import expected_files
from snapshots.retention import KeptSegment, KeptSnapshot, Plan, Removed, decide
from snapshots.state import read_state
from snapshots.store import SnapshotInfo, Store

LOOK_SECONDS = 1.0
"""Time between two looks whether a checkpoint is due. At full rate that is 90,000 events."""

RETRY_SECONDS = 60.0
"""Time from a failure to the next attempt: an attempt costs disk and processor, and a full disk stays full a while."""

MARK_BYTES = 4
"""Random bytes in the name of the unfinished file of `take_beside`, which does not own the directory."""

T = TypeVar("T")


class Captured(Protocol):
    """What is needed of the state machine."""

    @property
    def tail(self) -> Tail:
        """The end of what is applied."""

    def capture(self) -> tuple[StateImage, Tail]:
        """Copy the state, with the end of the log that it belongs to."""


class CheckpointStatistics(msgspec.Struct, frozen=True):
    """`last_seq` and `last_time_ms` are those of the newest snapshot, None if there is none."""

    last_seq: int | None
    last_time_ms: int | None
    taken: int
    failed: int


async def _nothing_to_settle(_info: SnapshotInfo) -> None:
    """Stand in where no user is erased."""


class Checkpointer:
    """Takes the snapshots of a directory that this process serves from. `keep` snapshots stay, at least 2.

    `log_keep_seconds`: a covered segment goes when its last event is older than this; None: it stays for good.
    `pinned_seq`: gives the lowest position that any replica reported, None without replicas.
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
        clock: Clock,
        tell: Tell,
        on_removed: Callable[[Removed], None] = lambda _: None,
        pinned_seq: Callable[[], int | None] = lambda: None,
        on_capture: Callable[[int], None] | None = None,
        on_saved: Callable[[SnapshotInfo, StateDigests], None] | None = None,
        before_capture: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint,
        settle: Callable[[SnapshotInfo], Awaitable[None]] = _nothing_to_settle,
    ) -> None:
        self._machine = machine
        self._store = store
        self._log = opened.log
        self._every_events = every_events
        self._keep = keep
        self._log_keep_seconds = log_keep_seconds
        self._clock = clock
        self._on_removed = on_removed
        self._tell = tell
        self._pinned_seq = pinned_seq
        self._on_capture = on_capture
        self._on_saved = on_saved
        self._before_capture = before_capture
        self._settle = settle
        self._lock = trio.Lock()
        self._last = opened.snapshot
        # A snapshot does not record when it was taken. Its last event is not later, so the age is never too low.
        self._last_time_ms = opened.snapshot_time_ms
        self._taken = 0
        self._failed = 0

    async def run(self) -> None:
        """Take a snapshot whenever one is due, until cancelled. A snapshot in progress is finished first."""
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
        """Take a snapshot of the state now, unless the last one is of this state; then do retention.

        Raises `DiskFault` if it can't be written. The log and its users are not affected.
        """
        async with self._lock:
            if self._last is not None and self._last.seq == self._machine.tail.seq:
                await self._settle(self._last)
                return self._last
            try:
                info = await self._save()
            except DiskFault:
                self._failed += 1
                raise
            self._last, self._last_time_ms = info, self._clock.read().now_ms
            self._taken += 1
            await self._settle(info)
            pinned_seq, removed = self._pinned_seq(), list[Removed]()
            faults = await self._in_thread(partial(self._retain, pinned_seq, self._clock.read(), removed))
            for segment in removed:
                self._on_removed(segment)
            for fault in faults:
                self._tell(fault)
            return info

    def statistics(self) -> CheckpointStatistics:
        last_seq = None if self._last is None else self._last.seq
        return CheckpointStatistics(last_seq, self._last_time_ms, self._taken, self._failed)

    async def _save(self) -> SnapshotInfo:
        info = None
        while info is None:
            await self._before_capture()
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
        """Write a snapshot. Give None if the log was begun anew meanwhile: this state is not in its history."""
        with self._log.upkeep:
            if self._log.statistics().first_seq > tail.seq + 1:
                return None
            self._log.check_place()
            return self._store.save(image, tail, paced=True)

    def _retain(self, pinned_seq: int | None, now: ClockReading, removed: list[Removed]) -> list[DiskFault]:
        """Decide what goes and remove it, except segments with events after `pinned_seq`; give the faults found.

        `removed` gets the removed segments.
        """
        faults: list[DiskFault] = []
        try:
            with self._log.upkeep:
                self._log.check_place()
                plan = self._plan(faults, now)
                for path in plan.remove_snapshots:
                    self._store.remove(path)
                for info in self._log.segments():
                    if info.path in plan.compress:
                        self._compress(info, faults)
                first_seq = plan.first_seq
                self._log.remove_before(
                    first_seq if pinned_seq is None else min(first_seq, pinned_seq + 1),
                    lambda info: removed.append(
                        Removed(info.path, info.first_seq, info.last_seq, plan.ages_ms[info.path])
                    ),
                )
                make_missing(self._store.disk, self._log)
        except DiskFault as fault:
            faults.append(fault)
        return faults

    def _plan(self, faults: list[DiskFault], now: ClockReading) -> Plan:
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
            keep_ms=None if age is None else int(age * 1000),
            now=now,
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
        """Compress one segment. A damaged one stays as it is, and the others are still compressed."""
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
    """Take a snapshot of a directory, without its lock: another process may be serving from it.

    If there is a valid snapshot of the end of the log, gives that one.
    """
    periods = PeriodStore(disk, data_directory)

    ended: list[int] = []

    def note(each: EndedPeriod) -> None:
        ended.append(each.past.seq)

    scoreboard, tail = read_state(disk, data_directory, Rules({}), tell=tell, progress=progress, on_ended=note)
    for seq in sorted(expected_files(scoreboard).intersection(ended)):
        if not periods.has(seq):
            what = "a past period has no file yet, and no snapshot may cover the log that makes it"
            remedy = "A running server makes it within seconds. If none runs, start it once."
            raise DiskFault(what, path=periods.path(seq), seq=seq, remedy=remedy)
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
