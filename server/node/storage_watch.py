"""The watch over the directory of a node with a log: is it still ours, and is there room on its disk?

    watch = StorageWatch(world, log, role)
    await nursery.start(watch.run)
    watch.free_bytes, watch.warning()

    what a look finds                            what follows
    -------------------------------------------  ----------------------------------------------------------------------
    directory, lock or last segment are not      nothing more is written, the process ends with the reason (exit code 1)
    where they were, or that can't be known
    the last segment was cut short               the same, with the length that is there and the one that was laid out
    less than DISK_LOW_BYTES are left            a warning in the log and in /readyz, which stays 200
    the log is full (`engine.room`)              the same; writes that do not fit get 503 `DISK_FULL`, a replica takes
                                                 no link; reads and viewers go on
    the next segment is laid out                 a line in the log; all writes go through, the replica follows

Rules:
- A look takes a few system calls in a worker thread, and none of them waits for the node. So a loss is noticed within
  seconds even while a snapshot is written. What changes names looks for itself as well (`engine.held_disk`).
- A node with a full disk stays ready: without it nobody could read, and another node would not have more room.
- `free_bytes` is None where the system can't tell. That is no reason to end.
"""

from __future__ import annotations

import structlog
import trio

from engine.errors import DiskFault
from engine.log import Log
from engine.threads import run
from server import bounds
from server.node.surroundings import Surroundings
from server.role import CurrentRole

log = structlog.get_logger()


class StorageWatch:
    """The watch of one node. `free_bytes` is what was left on the disk at the last look."""

    def __init__(self, world: Surroundings, log_: Log, role: CurrentRole) -> None:
        self.free_bytes: int | None = None
        self._world = world
        self._log = log_
        self._role = role
        self._low = False
        self._full = False

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look again and again. Raises `PlaceLost` when the directory is lost."""
        task_status.started()
        while True:
            try:
                self.free_bytes = await run(self._look, blocks=self._world.disk.blocks, abandon_on_cancel=True)
            except DiskFault as fault:
                self._log.give_up(fault)
                raise
            self._tell_low()
            self._tell_full()
            await trio.sleep(bounds.STORAGE_LOOK_SECONDS)

    def warning(self) -> str | None:
        """Say what an operator should do something about; None if all is well."""
        follows = self._role.now.is_replica
        if self._log.full is not None:
            effect = "nothing is followed" if follows else "writes are refused"
            return f"the disk is full, so {effect}; make room on it"
        if self._low:
            effect = "nothing will be followed" if follows else "writes will be refused"
            return f"{self.free_bytes} bytes are left on the disk; when it is full, {effect}"
        return None

    def _look(self) -> int | None:
        self._world.check_held()
        self._log.check_place()
        try:
            return self._world.disk.free_bytes(self._world.config.data_dir)
        except DiskFault:
            return None

    def _tell_low(self) -> None:
        if self.free_bytes is None:
            return
        # It is enough only when it is clearly more: near the limit there would be a line for each look.
        enough = bounds.DISK_LOW_BYTES * (2 if self._low else 1)
        low = self.free_bytes < enough
        if low and not self._low:
            path = self._world.config.data_dir
            log.warning("disk_low", path=path, free_bytes=self.free_bytes, remedy="Make room on this disk.")
        elif self._low and not low:
            log.info("disk_no_longer_low", free_bytes=self.free_bytes)
        self._low = low

    def _tell_full(self) -> None:
        full = self._log.full
        if full is not None and not self._full:
            log.error("disk_full", message=full.what, path=full.path, seq=full.seq, remedy=full.remedy)
        elif self._full and full is None:
            log.info("disk_has_room", free_bytes=self.free_bytes)
        self._full = full is not None
