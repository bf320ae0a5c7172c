"""A node: everything that `server.node.assembly` has built for one process, and its end.

Rules:
- A node is complete when it is built. Only its role changes afterwards.
- `end` is called once, after the listener has closed. It finishes what waits, and takes a snapshot if that is useful.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.actor import Actor
from engine.log import Log
from engine.scoreboard import Scoreboard
from server.api.pipeline import Pipeline
from server.lanes.listener import Lane
from server.node.following import Following
from server.node.log_service import LogService
from server.node.member import Member
from server.node.promotion import Promote
from server.node.shutdown import Task
from server.node.storage_watch import StorageWatch
from server.node.surroundings import LiveChannel
from server.role import CurrentRole
from server.settings.config import Config


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """See above. `tasks` run as long as the node, and are started in this order.

    `actor`, `log`, `log_service` and `watch` are None for a shard, which keeps no log. `following` is None for a
    leader and for a member of a quorum, which has a `member`. `keeps`: the directory stays after the end, so a snapshot
    is useful.
    """

    role: CurrentRole
    scoreboard: Scoreboard
    pipeline: Pipeline
    live: LiveChannel
    tasks: Sequence[Task]
    promote: Promote
    actor: Actor | None = None
    log: Log | None = None
    log_service: LogService | None = None
    watch: StorageWatch | None = None
    following: Following | None = None
    member: Member | None = None
    keeps: bool = True
    more_lanes: Sequence[Lane] = ()

    def lanes(self) -> Sequence[Lane]:
        """Give the lanes of plain requests that only this kind of node has."""
        return self.more_lanes if self.log_service is None else self.log_service.lanes()

    def websocket_lanes(self) -> Sequence[Lane]:
        return () if self.log_service is None else self.log_service.websocket_lanes()

    def reload(self, config: Config) -> None:
        """Take over what a node can of another configuration (`server.settings.reload`)."""
        self.pipeline.reload(config)
        self.live.reload(config.live)

    def begin_end(self) -> None:
        """Begin to drain: the node is no longer ready, and links to replicas end."""
        self.role.drain()
        if self.log_service is not None:
            self.log_service.close_links()

    async def end(self) -> None:
        """Stop following, finish what waits for the actor, leave a snapshot."""
        if self.following is not None:
            await self.following.stop()
        if self.member is not None:
            await self.member.end()
        elif self.actor is not None:
            await self.actor.drain()
        if self.log_service is not None and self.keeps:
            await self.log_service.checkpoint()

    def close(self) -> None:
        """Close the log, at the very end."""
        if self.log is not None:
            self.log.close()
