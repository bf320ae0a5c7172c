"""The end of a node as a leader: a higher epoch was heard of.

From that moment the node refuses writes in every lane, also those that wait for the actor. It says so loudly, and
leaves a file in its directory by which a restart refuses too. Reads go on, and are stale. Its shipper ends the links of
its followers and takes none again (`server.replication.shipper` says why). `scoreboard demote` is the way back.

    deposition.begin(successor)      the role becomes DEPOSED; the actor writes no more

Rules:
- `begin` raises nothing and waits for nothing: the node that told of the epoch is answered after it.
- More may be heard later, such as the address of the new leader. Then `begin` is called again, and the file is written
  again, one write after the other: what was known first must not be what stays.
"""

from __future__ import annotations

from functools import partial

import structlog
import trio

from engine.actor import Actor
from engine.errors import DiskFault
from engine.scoreboard import Scoreboard
from engine.threads import run
from server.node.surroundings import Surroundings
from server.role import CurrentRole, State
from snapshots.promotion import DEMOTE_NEEDS, Successor, demote_command, write_deposed

log = structlog.get_logger()


class Deposition:
    """One for a node that has an actor."""

    def __init__(self, world: Surroundings, role: CurrentRole, actor: Actor, scoreboard: Scoreboard) -> None:
        self._world = world
        self._role = role
        self._actor = actor
        self._scoreboard = scoreboard
        self._writing = trio.Lock()

    def begin(self, successor: Successor) -> None:
        """Depose this leader; again, whenever more is known of its successor."""
        if self._role.now.successor == successor:
            return
        self._role.become(State.DEPOSED, successor=successor)
        self._actor.depose()
        command = demote_command(self._world.config.data_dir, successor)
        log.critical(
            "deposed",
            epoch=successor.epoch,
            own_epoch=self._scoreboard.epoch,
            leader=successor.leader,
            remedy=f"stop this node, then: {command} {DEMOTE_NEEDS}",
        )
        self._world.start(self._leave_word)

    async def _leave_word(self) -> None:
        """Write what is known by then."""
        try:
            with trio.CancelScope(shield=True):
                async with self._writing:
                    successor = self._role.now.successor
                    assert successor is not None, "a deposed leader stays deposed"
                    disk = self._world.disk
                    work = partial(write_deposed, disk, self._world.config.data_dir, successor)
                    await run(work, blocks=disk.blocks)
        except DiskFault as fault:
            self._world.guard.disk_failed(fault)
