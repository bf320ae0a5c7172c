"""The deposition of a leader: the node heard of an epoch that outranks its own (`engine.history`).

    deposition.begin(successor)      the role becomes DEPOSED; the actor writes no more

From then on the node refuses all writes, also those that wait for the actor, and logs a critical line. A file in its
directory makes a restart refuse too. Reads go on, and are stale. The shipper ends its links and takes no new ones
(`server.replication.shipper` says why). `scoreboard demote` makes the node a replica.

Rules:
- `begin` never raises or waits: the node that told of the epoch is answered after it.
- On a full disk the file is written as soon as there is room. Meanwhile the node refuses writes as before.
- `begin` is called again when more is known, such as the address of the new leader. The file is then written again.
  One write waits for the other, so the newest knowledge stays.
"""

from __future__ import annotations

from functools import partial

import structlog
import trio

from engine.actor import Actor
from engine.scoreboard import Scoreboard
from engine.threads import run
from server.node.surroundings import Surroundings
from server.role import CurrentRole, State
from snapshots.promotion import DEMOTE_NEEDS, Successor, demote_command, write_deposed

log = structlog.get_logger()


class Deposition:
    """The deposition of one node with an actor."""

    def __init__(self, world: Surroundings, role: CurrentRole, actor: Actor, scoreboard: Scoreboard) -> None:
        self._world = world
        self._role = role
        self._actor = actor
        self._scoreboard = scoreboard
        self._writing = trio.Lock()

    def begin(self, successor: Successor) -> None:
        """Depose this leader, or note what more is known of its successor."""
        if self._role.now.successor == successor:
            return
        self._role.become(State.DEPOSED, successor=successor)
        self._actor.depose()
        command = demote_command(self._world.config.data_dir, successor)
        log.critical(
            "deposed",
            epoch=successor.epoch,
            history=successor.history,
            own_epoch=self._scoreboard.epoch,
            own_history=self._scoreboard.mark.history,
            leader=successor.leader,
            remedy=f"stop this node, then: {command} {DEMOTE_NEEDS}",
        )
        self._world.start(self._write_file)

    async def _write_file(self) -> None:
        await self._world.write_with_room(self._write_once)

    async def _write_once(self) -> None:
        disk = self._world.disk
        with trio.CancelScope(shield=True):
            async with self._writing:
                successor = self._role.now.successor
                assert successor is not None, "a deposed leader stays deposed"
                work = partial(write_deposed, disk, self._world.config.data_dir, successor)
                await run(work, blocks=disk.blocks)
