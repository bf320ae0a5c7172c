"""Keeps the past periods of a node: writes the file of each period that ends, and opens the files for readers.

    keeper.take(ended)                          from the state machine, right after the event that ended a period
    await keeper.written()                      no period waits for its file any more; raises what the disk said
    rows = await keeper.read(seq, lambda past: past.top(10))      in its file, or in memory until it has one

    state machine ──► take ──► waiting (in memory) ──► a thread writes the file ──► freed
                                    └──► readers                  └──► readers

Rules:
- The event that ends a period only hands its ranking over. So a million users stop the loop no longer than one does.
- On a full disk a ranking waits in memory until there is room. Any other fault of the disk ends the process, as for the
  log. No snapshot is taken meanwhile: its end of the log must have its files.
- A replica fetches a file that it lacks from its leader: it began with a snapshot, and the log before is not here.
- Where users were erased in between, such a replica fetches all files anew (`forget_before`).
- Files that no board calls for are removed, when a new one was written and at the start.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TypeVar

import structlog
import trio

from engine.board_events import EndedPeriod
from engine.errors import DiskFault, NoSpace, Overloaded
from engine.scoreboard import Scoreboard
from engine.threads import run
from server import bounds
from server.node.surroundings import Surroundings
from snapshots.corrected_period import Correction
from snapshots.past_ranking import PastRanking
from snapshots.period_store import PeriodStore
from snapshots.periods import RankedPeriod, correction_marks, expected_files, write_ended

T = TypeVar("T")

Fetch = Callable[[int, PeriodStore], Awaitable[bool]]
"""Fetches the file of a period into a store; False if that is not possible now."""

log = structlog.get_logger()


async def fetch_nothing(_seq: int, _store: PeriodStore) -> bool:
    """Stand in on a leader, which has nobody to ask."""
    return False


class PeriodKeeper:
    """The past periods of one node with a data directory."""

    def __init__(
        self, world: Surroundings, scoreboard: Scoreboard, log_id: bytes, fetch: Fetch = fetch_nothing,
        ended: Sequence[EndedPeriod] = (),
    ) -> None:  # fmt: skip
        """`ended` are past periods that have no file yet."""
        self._world = world
        self._scoreboard = scoreboard
        self._log_id = log_id
        self._fetch = fetch
        self.store = PeriodStore(world.disk, world.config.data_dir)
        self._waiting: dict[int, EndedPeriod] = {each.past.seq: each for each in ended}
        self._came = trio.Event()  # a period to write
        self._tried = trio.Event()  # an attempt to write one, which failed if there is a fault
        self._fault: DiskFault | None = None
        self._told: set[int] = set()
        self._readers = trio.CapacityLimiter(bounds.PERIOD_READERS_MAX)

    def take(self, ended: EndedPeriod) -> None:
        """Take a period that ended."""
        self._waiting[ended.past.seq] = ended
        self._came.set()

    async def written(self) -> None:
        """Wait until no period waits for its file. Raises `DiskFault`: `NoSpace` if the next one waits for room."""
        while self._waiting:
            if self._fault is not None:
                raise self._fault.with_traceback(None)  # or it would collect the stacks of all callers
            await self._tried.wait()

    async def forget_before(self, seq: int) -> None:
        """Remove the files of the periods that ended before a seq; they are fetched anew.

        A replica does that when it goes past the erasure of a user whose id it is not told.
        """
        with suppress(NoSpace):
            await self.written()
        await self._in_thread(partial(self.store.remove_before, seq))
        self._came.set()

    async def read(self, seq: int, work: Callable[[PastRanking], T], correction: Correction | None = None) -> T:
        """Read a period that the state calls for. Raises `FileMissing`, `SnapshotDamaged`, `Overloaded`, `NoSpace`."""
        ended = self._waiting.get(seq)
        if ended is not None and correction is None:
            return work(RankedPeriod(ended))
        if ended is not None:
            await self.written()
        if self._readers.statistics().tasks_waiting >= bounds.PERIOD_WAITERS_MAX:
            raise Overloaded("too many past periods are being read")
        if correction is not None:
            return await self._in_thread(lambda: work(self.store.open_corrected(seq, correction)), self._readers)
        return await self._in_thread(lambda: work(self.store.open(seq)), self._readers)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write, fetch and remove files until cancelled."""
        task_status.started()
        while True:
            self._came = trio.Event()
            while self._waiting:
                await self._write(next(iter(self._waiting)))
            expected = expected_files(self._scoreboard)
            await self._in_thread(partial(self.store.remove_other, expected, correction_marks(self._scoreboard)))
            await self._fetch_missing(expected)
            with trio.move_on_after(bounds.PERIOD_FETCH_SECONDS):
                await self._came.wait()

    async def _write(self, seq: int) -> None:
        ended = self._waiting[seq]
        await self._world.write_with_room(lambda: self._write_once(ended))
        if self._fault is not None:
            await trio.sleep_forever()  # the process ends, and the next start makes the file from the log
        log.info("period_kept", board_id=ended.ranking.board_id, period=ended.past.period.id, users=ended.past.count)
        await self._in_thread(lambda: [None for _ in ended.ranking.dismantle()])

    async def _write_once(self, ended: EndedPeriod) -> None:
        self._fault = None
        try:
            with trio.CancelScope(shield=True):
                await self._in_thread(partial(write_ended, self.store, ended, self._log_id))
            del self._waiting[ended.past.seq]
        except DiskFault as fault:
            self._fault = fault
            raise
        finally:
            self._tried.set()
            self._tried = trio.Event()

    async def _fetch_missing(self, expected: set[int]) -> None:
        here = set(await self._in_thread(self.store.list)) | set(self._waiting)
        for seq in sorted(expected - here):
            if not await self._fetch(seq, self.store) and seq not in self._told:
                self._told.add(seq)
                remedy = "put it back from a backup; a replica goes on asking its leader"
                log.warning("period_missing", path=self.store.path(seq), seq=seq, remedy=remedy)

    async def _in_thread(self, work: Callable[[], T], limiter: trio.CapacityLimiter | None = None) -> T:
        return await run(work, blocks=self._world.disk.blocks, limiter=limiter)
