"""The promotion of a running replica: it becomes the leader.

    stop following ─► next epoch durable ─► marker removed ─► actor runs ─► role LEADING ─► the old leader is told
                       └─ fails: the process ends, and the directory is still a replica's

Rules:
- The role is PROMOTING from the first step on, so no second promotion begins and no write is taken. There is no way
  back, and nothing cancels it.
- The new epoch is higher than every epoch that is known to have been used.
- The old leader is told of the epoch, however long it is out of reach (`server.replication.epoch_notifier`). It is
  asked again as long as this node leads: it may hear of an epoch that outranks ours. Then this node is deposed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import structlog
import trio

from engine.actor import Actor
from engine.errors import DiskFault, DiskFull
from engine.events import EpochBegun
from engine.history import HISTORY_BYTES
from engine.threads import run
from server import bounds
from server.http.messages import Refused, disk_full
from server.node.following import Following
from server.node.shutdown import Task
from server.node.surroundings import Surroundings
from server.replication.epoch_notifier import EpochNotifier
from server.replication.messages import hello_of
from server.replication.progress import Progress
from server.replication.replicas import WholeReplica
from server.role import CurrentRole, State
from snapshots.promotion import Successor, began_elsewhere, remove_marker

log = structlog.get_logger()

Promote = Callable[[], Awaitable[tuple[int, int]]]

EPOCH_FRAME_BYTES = 4 * 2**10
"""More than a frame takes that holds only the event of a new epoch."""

NOTHING_KEPT = "This replica keeps nothing on disk: promote one that was started with --data-dir."
NOTHING_YET = "This replica has nothing yet: it waits for its leader."
ONLY_A_SHARD = "A replica with a shard holds only some boards: promote a whole one."


async def refuse_promotion(role: CurrentRole, why_not: str = "") -> tuple[int, int]:
    """Refuse: this node leads already, was deposed, or is a replica that can't lead. Raises `Refused`."""
    check_promotable(role, why_not)
    raise AssertionError("a node that can be promoted has a Promotion")


def check_promotable(role: CurrentRole, why_not: str = "") -> None:
    """Check whether a node can become the leader. `why_not` says what its kind lacks. Raises `Refused`."""
    now = role.now
    if now.successor is not None:
        message = f"{began_elsewhere(now.successor)}; this node is no longer the leader"
    elif not now.is_replica:
        message = "This node is the leader already."
    elif why_not:
        message = why_not
    elif now.state is State.PROMOTING:
        message = "This node is being promoted already."
    elif now.draining:
        message = "Not promoted: the server is stopping"
    elif not now.vouches:
        message = f"Not promoted: {now.reason}"
    else:
        return
    raise Refused(409, "CONFLICT", message)


@dataclass(frozen=True, slots=True)
class Promotion:
    """The promotion of one whole replica with a directory of its own."""

    world: Surroundings
    role: CurrentRole
    following: Following
    progress: Progress
    replica: WholeReplica
    actor: Actor
    notifier: EpochNotifier
    depose: Callable[[Successor], None]
    put_file_boards: Task

    async def promote(self) -> tuple[int, int]:
        """Become the leader; give the new epoch and the seq that began it. Raises `Refused`, `WriteFailed`."""
        check_promotable(self.role)
        await self._check_room()
        check_promotable(self.role)  # another promotion may have begun meanwhile
        self.role.become(State.PROMOTING)
        with trio.CancelScope(shield=True):
            await self.following.stop()
            after_seq = self.replica.tail.seq
            try:
                event = await self._begin_epoch()
            except DiskFault as fault:
                self.world.guard.disk_failed(fault)
                raise
            await self.world.tasks.start(self.world.guard.watched, self.actor.run)
            await self.world.tasks.start(self.world.guard.watched, self.actor.run_alarm)
            await self.world.tasks.start(self.world.guard.watched, self.actor.reader.run)
            await self.world.tasks.start(self.world.guard.watched, self.put_file_boards)
            self.role.become(State.LEADING)
        log.warning("promoted", epoch=event.epoch, seq=event.seq, after_seq=after_seq)
        hello = hello_of(self.replica.tail, None, self._address(), self.replica.scoreboard.mark)
        self.notifier.tell(hello, self.world.tasks, leads=self._leads, on_outranked=self.depose)
        return event.epoch, event.seq

    def _leads(self) -> bool:
        return self.role.now.state is State.LEADING

    async def _check_room(self) -> None:
        """Check that the event of the new epoch fits on the disk: once the role is PROMOTING, there is no way back."""
        disk = self.world.disk
        try:
            await run(partial(self.replica.log.check_room, EPOCH_FRAME_BYTES), blocks=disk.blocks)
        except DiskFull as full:
            raise disk_full() from full

    async def _begin_epoch(self) -> EpochBegun:
        disk = self.world.disk
        async with self.following.marking:
            above = self.progress.leader_epoch or 0
            history = self.world.random_bytes(HISTORY_BYTES)
            event = await self.replica.promote(now_ms=self.world.clock_ms(), history=history, above=above)
            await run(partial(remove_marker, disk, self.world.config.data_dir), blocks=disk.blocks)
        return event

    def _address(self) -> str | None:
        """Give the address where the old leader sends its writers: the public one, else the one that we listen on."""
        url = self.world.config.replication.public_url or self.world.url
        return url if len(url) <= bounds.NODE_URL_CHARACTERS_MAX else None
