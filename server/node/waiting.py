"""A replica that has no log yet: it listens, and says what it waits for.

    waiting = Waiting(leader_url)
    bootstrap = Bootstrap(…, tell=waiting.told)
    node = assemble_waiting(world, waiting, bootstrap)

The log of a new replica begins with what its leader sends. Until then this node stands in for it, on the same
addresses, so that probes and operators get an answer. It is there only if the leader does not answer at once.

Rules:
- It vouches for nothing: reads are 503 `REPLICA_BEHIND`, and `/readyz` has the reason of the last attempt.
- It has neither snapshot nor log for followers. It tells them so, and the path to the leader as far as it knows it. So
  new replicas that wait for each other find out.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import structlog
import trio

from server.http.connection import Connection
from server.http.messages import RETRY_SOON, Response, error
from server.lanes.listener import Lane
from server.node.following import not_caught_up
from server.node.surroundings import Surroundings
from server.replication.bootstrap import Bootstrap
from server.replication.paths import lengthened
from server.replication.progress import Progress
from server.replication.shipper import Authorize
from server.replication.snapshot_server import TARGETS, go_on, respond_to, take_whole
from server.role import CurrentRole, State

log = structlog.get_logger()


class Waiting:
    """Why a replica waits. `changed` is set with the first reason. `told` takes the reason of each failed attempt."""

    def __init__(self, leader_url: str) -> None:
        self.leader_url = leader_url
        self.reason = ""
        self.changed = trio.Event()
        self._observers: list[Callable[[str], None]] = []

    def told(self, reason: str) -> None:
        log.warning("bootstrap", reason=reason, leader=self.leader_url)
        self.reason = reason
        self.changed.set()
        for observer in self._observers:
            observer(reason)

    def on_reason(self, observer: Callable[[str], None]) -> None:
        """Call `observer` with the reason now, and with each later one."""
        self._observers.append(observer)
        observer(self.reason)


class WaitingNode:
    """The role of the node, and its answer to followers."""

    def __init__(
        self, world: Surroundings, role: CurrentRole, progress: Progress, bootstrap: Bootstrap, authorize: Authorize
    ) -> None:
        self._world = world
        self._role = role
        self._progress = progress
        self._bootstrap = bootstrap
        self._authorize = authorize

    def show(self, reason: str) -> None:
        """Show why it waits."""
        self._progress.become("bootstrapping", reason)
        self._role.become(State.NOT_CAUGHT_UP, reason=not_caught_up("bootstrapping", reason))

    def lane(self) -> Lane:
        """Give the lane of followers, which ask for a snapshot."""
        return Lane(TARGETS, self._serve)

    async def _serve(self, connection: Connection) -> bool:
        inbound, last = await take_whole(connection)
        response = await self._answer(inbound.header("authorization") or None)
        await respond_to(connection, inbound, response, last)
        return await go_on(connection, last)

    async def _answer(self, authorization: str | None) -> Response:
        found = await self._authorize(authorization)
        if isinstance(found, Response):
            return found
        path = lengthened(self._world.node, self._bootstrap.path)
        message = f"The node that is followed has nothing yet: {self._role.now.reason}"
        return error(503, "REPLICA_BEHIND", message, {"path": msgspec.to_builtins(path)}, RETRY_SOON)
