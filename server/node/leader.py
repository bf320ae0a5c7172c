"""The role of a leader: an actor writes, its frames are shipped, snapshots are taken.

A leader that hears of a higher epoch was replaced. From that moment it refuses writes, in every lane, those that wait
for the actor too, says so loudly, and leaves a file in its directory by which a restart refuses as well; reads go on,
and are stale.
Its shipper ends the links of its followers and takes none again (`server.replication.shipper` says why). `scoreboard
demote` is the way back.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import structlog
import trio

from engine.actor import Actor, Applied
from engine.disk import Disk
from engine.errors import DiskFault
from server.api.dependencies import StorageState
from server.http.messages import Refused
from server.lanes.listener import Lane
from server.node.core import Core, Part
from server.node.shipping import Shipping
from snapshots.opening import Opened
from snapshots.promotion import DEMOTE_NEEDS, Successor, demote_command, write_deposed

log = structlog.get_logger()


class Leader:
    """A node that accepts writes. A `Role`."""

    def __init__(self, core: Core, disk: Disk, opened: Opened) -> None:
        self._core = core
        self._opened = opened
        self._actor = Actor(opened.scoreboard, opened.log, clock_ms=core.clock_ms, on_applied=self._applied)
        self._shipping = Shipping(core, disk, opened, self._actor, Deposition(core, disk).begin)
        core.gate.actor = self._actor

    def parts(self) -> Sequence[Part]:
        """See `Role`."""
        return (self._shipping.run_checkpointer, self._actor.run)

    def lanes(self) -> Sequence[Lane]:
        """See `Role`."""
        return self._shipping.lanes()

    def websocket_lanes(self) -> Sequence[Lane]:
        """See `Role`."""
        return self._shipping.websocket_lanes()

    def close_links(self) -> None:
        """See `Role`."""
        self._shipping.close_links()

    async def end(self) -> None:
        """Finish what waits, and leave a snapshot behind."""
        await self._actor.drain()
        await self._shipping.checkpoint()

    def close(self) -> None:
        """See `Role`."""
        self._opened.log.close()

    def storage(self) -> StorageState:
        """See `Role`."""
        return self._shipping.storage()

    def followers(self) -> int:
        """See `Role`."""
        return len(self._shipping.registry)

    def not_ready(self) -> str | None:
        """See `Role`."""
        return deposed_reason(self._core)

    async def promote(self) -> tuple[int, int]:
        """Refuse: it is the leader, or was deposed."""
        raise Refused(409, "CONFLICT", deposed_reason(self._core) or "This node is the leader already.")

    def _applied(self, applied: Applied) -> None:
        self._shipping.applied(applied)
        self._core.applied(applied)


class Deposition:
    """The end of a node as a leader: no more writes from now on, and word of it for the next start. One for a node."""

    def __init__(self, core: Core, disk: Disk) -> None:
        self._core = core
        self._disk = disk
        self._writing = trio.Lock()

    def begin(self, successor: Successor) -> None:
        """Depose this leader; again, whenever more is known of who leads now. Raises nothing."""
        core = self._core
        if core.standing.successor == successor:
            return
        core.standing.depose(successor)
        core.gate.depose()
        core.live.board_changed(core.scoreboard.boards)  # viewers are to see that it is stale from now on
        remedy = f"stop this node, then: {demote_command(core.config.data_dir, successor)} {DEMOTE_NEEDS}"
        log.critical(
            "deposed",
            epoch=successor.epoch,
            own_epoch=core.scoreboard.epoch,
            leader=successor.leader,
            remedy=remedy,
        )
        assert core.tasks is not None, "followers come once the node serves"
        core.tasks.start_soon(self._leave_word)

    async def _leave_word(self) -> None:
        """Write what is known by then. One after the other, or what was known first might be what stays."""
        try:
            with trio.CancelScope(shield=True):
                async with self._writing:
                    successor = self._core.standing.successor
                    assert successor is not None
                    work = partial(write_deposed, self._disk, self._core.config.data_dir, successor)
                    await trio.to_thread.run_sync(work) if self._disk.blocks else work()
        except DiskFault as fault:
            self._core.disk_failed(fault)


def deposed_reason(core: Core) -> str | None:
    """Say that this leader was replaced, None if it was not."""
    successor = core.standing.successor
    return None if successor is None else f"epoch {successor.epoch} began elsewhere; this node is no longer the leader"
