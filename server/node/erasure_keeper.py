"""Has the files of a node forget erased users, on a leader and on a replica.

    keeper.took(events)                   right after a frame was applied
    await keeper.hidden()                 no past period shows any of them
    await keeper.settle(info, cut, tidy)  from the checkpointer, after each snapshot
    await keeper.run(take, …)             takes a snapshot where the next one would come too late

    applied ──► past periods (at once) ──► waits for the next checkpoint, or until SHARE of the time is over
                                                     └──► files (`snapshots.settling`) ──► settled

Rules:
- Where the log was damaged at the start, it is not known what is unsettled. Then nobody is erased and no file is
  rewritten: the one that says what is left might be the first. It is read again before each snapshot, and after
  RETRY_SECONDS.
- A node that starts with unsettled erasures settles them at once: another process was killed before it was done,
  perhaps in the middle of it.
- An erasure is settled once the files of older actions are gone that only a snapshot of before it named.
- The links to followers end right before the log is rewritten. A follower that has not seen an erasure could not go on
  in a log without the user. When it comes again it is sent to a snapshot (`server.replication.shipper`).
- `rewritten_seq` is the last erasure for which the log may be rewritten, perhaps in part. A start does not know how far
  an earlier process came, so these are all erasures of its state. Whether a snapshot is there says nothing of it: the
  one that was proved before the log was rewritten may be damaged since.
- A node that starts without a snapshot of after these erasures takes one at once: followers of before wait for it.
- What fails is told, and tried again after RETRY_SECONDS. An erasure that is not settled in the time that the operator
  allows, or in an hour, is a warning in /readyz.
- Lines of the log name no user, only the pseudonym.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import TypeVar

import structlog
import trio

from engine.erased import is_erased
from engine.errors import DiskFault, NoLongerKept
from engine.events import Event, UserErased
from engine.log import Log
from engine.scoreboard import Scoreboard
from engine.threads import run
from engine.unsettled import Unsettled
from server.node.period_keeper import PeriodKeeper
from server.node.surroundings import Surroundings
from snapshots.checkpoint import RETRY_SECONDS
from snapshots.opening import read_unsettled
from snapshots.settling import hide_in_periods, remove_aside, settle_files
from snapshots.store import SnapshotInfo, Store

T = TypeVar("T")

LOOK_SECONDS = 1.0
"""The longest time between two looks whether an erasure is due."""

SHARE = 0.75
"""The part of the allowed time after which a node waits no longer for a checkpoint. The rest is for what may fail."""

HOUR_MS = 3_600_000

log = structlog.get_logger()


class ErasureKeeper:
    """See above. `unsettled` is shared with whoever shows the log to callers."""

    def __init__(
        self, world: Surroundings, scoreboard: Scoreboard, log_: Log, periods: PeriodKeeper,
        unsettled: Iterable[UserErased], snapshot_seq: int | None, *, erasures_known: bool = True,
    ) -> None:  # fmt: skip
        """`unsettled` are the erasures that an earlier process left, as far as they are known (`snapshots.opening`).

        `snapshot_seq` is that of the snapshot that the state was recovered from, None if there was none.
        """
        self.unsettled = Unsettled(unsettled)
        self._knows = erasures_known
        self._reading = trio.Lock()
        self.within_ms = world.config.privacy.erase_within_hours * HOUR_MS
        self._world = world
        self._scoreboard = scoreboard
        self._log = log_
        self._periods = periods
        self._store = Store(world.disk, world.config.data_dir)
        self._hidden_seq = 0  # past periods are free of whom the erasures up to here name
        self._hiding = trio.Lock()
        self.rewritten_seq = scoreboard.erasures.last_seq
        self._left = len(self.unsettled) > 0 or not self._knows or (snapshot_seq or 0) < self.rewritten_seq
        self._came = trio.Event()

    def took(self, events: Iterable[Event]) -> None:
        """Take events that were applied."""
        for event in events:
            if type(event) is UserErased:
                if is_erased(event.user_id):
                    self.rewritten_seq = event.seq  # the log that is followed was
                self.unsettled.add(event)
                self._came.set()

    async def known(self) -> None:
        """Find what an earlier process left, where its log could not be read at the start.

        Raises `LogDamaged`, and `NoLongerKept` if a segment goes meanwhile.
        """
        if self._knows:
            return
        async with self._reading:
            if not self._knows:
                read = partial(read_unsettled, self._log, self._scoreboard.erasures.last_seq)
                self.unsettled.begin_with(await self._in_thread(read))
                self._knows = True

    async def _try_to_know(self) -> None:
        try:
            await self.known()
        except NoLongerKept:
            pass
        except DiskFault as fault:
            self._world.tell(fault)

    async def hidden(self, *, again: bool = False) -> None:
        """Have past periods forget whom the state has forgotten. Raises `DiskFault`.

        `again`: look into all of them once more. A file may have been fetched since from a leader that was not so far.
        """
        async with self._hiding:
            self._hidden_seq = 0 if again else self._hidden_seq
            while self.unsettled and self.unsettled.seqs[-1] > self._hidden_seq:
                seq, erasures = self.unsettled.seqs[-1], self.unsettled.erasures
                await self._periods.written()
                await self._in_thread(partial(hide_in_periods, self._periods.store, erasures))
                self._hidden_seq = seq

    async def before_snapshot(self) -> None:
        """Wait until past periods have their files, and these are free of whom the state has forgotten."""
        await self._try_to_know()
        while True:
            if self.unsettled:
                await self.hidden(again=True)
            await self._periods.written()
            if not self.unsettled or self.unsettled.seqs[-1] <= self._hidden_seq:
                return  # without an await since both were looked at

    async def settle(
        self, info: SnapshotInfo, end_links: Callable[[], None], tidy: Callable[[], Awaitable[None]]
    ) -> None:
        """Settle the erasures that this snapshot has. What fails then is told.

        `tidy` removes files of older actions that only the snapshots of before an erasure named. What it raises comes
        through if there is nothing to settle.
        """
        seqs = [seq for seq in self.unsettled.seqs if seq <= info.seq] if self._knows else []
        if not seqs:
            await tidy()
            self._left = self._left and (not self._knows or len(self.unsettled) > 0)
            return
        erasures = {
            user_id: kept
            for user_id, each in self.unsettled.erasures.items()
            if (kept := [erasure for erasure in each if erasure[0] <= info.seq])
        }
        began_s = self._world.clock_s()
        self.rewritten_seq = max(self.rewritten_seq, seqs[-1])
        end_links()
        try:
            work = partial(
                settle_files, self._world.disk, self._world.config.data_dir, self._log, self._store, info, erasures
            )
            with trio.CancelScope(shield=True):
                settled = await self._in_thread(work)
                await tidy()
        except DiskFault as fault:
            self._world.tell(fault)
            return
        self.unsettled.settle(seqs[-1])
        self._left = False
        if settled is not None:
            log.info(
                "erasures_settled", erasures=len(seqs), seq=seqs[-1], segments=len(settled.segments),
                removed=len(settled.removed), seconds=round(self._world.clock_s() - began_s, 3),
            )  # fmt: skip

    async def run(
        self, take: Callable[[], Awaitable[object]], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Settle what is due, until cancelled. `take` takes a snapshot, unless there is one of this state."""
        task_status.started()
        retry_s = -math.inf
        await self._remove_aside()
        while True:
            self._came = trio.Event()
            if (self.unsettled or self._left) and trio.current_time() >= retry_s:
                try:
                    await self._try_to_know()
                    await self.hidden()
                    if self._is_due():
                        first = self.unsettled.seqs[:1]
                        await take()
                        failed = not self._knows or (bool(first) and self.unsettled.seqs[:1] == first)
                        retry_s = trio.current_time() + RETRY_SECONDS if failed else -math.inf
                except DiskFault as fault:
                    self._world.tell(fault)
                    retry_s = trio.current_time() + RETRY_SECONDS
            with trio.move_on_after(LOOK_SECONDS if self.unsettled or self._left else math.inf):
                await self._came.wait()

    def _is_due(self) -> bool:
        age_ms = self.age_ms
        return self._left or (age_ms is not None and age_ms >= SHARE * self.within_ms)

    async def _remove_aside(self) -> None:
        if self._scoreboard.erasures.count:
            try:
                await self._in_thread(partial(remove_aside, self._world.disk, self._world.config.data_dir))
            except DiskFault as fault:
                self._world.tell(fault)

    @property
    def age_ms(self) -> int | None:
        """The age of the first unsettled erasure, None if there is none."""
        oldest_ms = self.unsettled.oldest_ms
        return None if oldest_ms is None else max(0, self._world.clock_ms() - oldest_ms)

    def warning(self) -> str | None:
        """Say what an operator should do something about; None if all is well."""
        age_ms = self.age_ms
        if not self._knows:
            return "the log is damaged, so it is not known which erased users are still in the files of this node"
        if age_ms is None or age_ms <= max(self.within_ms, HOUR_MS):
            return None
        return (
            f"{len(self.unsettled)} erased users are still in the files of this node after {age_ms // HOUR_MS} hours; "
            "its log says why"
        )

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await run(work, blocks=self._world.disk.blocks)
