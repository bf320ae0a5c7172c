"""Nodes with quick heartbeats that live in tasks of their own, so that a test can end each before the others.

life = Life()
await nursery.start(life.live, directory, leader.url)
await life.end()
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import trio

from server.role import State
from server.settings.config import Config
from tests.e2e.client import Answer
from tests.server.node.nodes import Served, caught_up, config_for, replica_of, serving
from tests.server.node.test_start import client_of

HEARTBEAT_S = 0.2


def quick(config: Config) -> Config:
    """Have heartbeats as often as no operator may set."""
    replication = msgspec.structs.replace(config.replication, heartbeat_seconds=HEARTBEAT_S)
    return msgspec.structs.replace(config, replication=replication)


class Life:
    """A replica in a task of its own, so that it can be ended before the others."""

    def __init__(self) -> None:
        self.served: Served
        self.served_event = trio.Event()
        self.wanted = trio.Event()
        self.ended = trio.Event()

    async def live(self, directory: Path, url: str, *, task_status: trio.TaskStatus[None]) -> None:
        """Follow the node at `url`; started once it has caught up."""
        async with serving(quick(config_for(directory)), replica_of(url)) as self.served:
            await caught_up(self.served)
            task_status.started()
            await self.wanted.wait()
        self.ended.set()

    async def live_stale(self, directory: Path, url: str) -> None:
        """Follow the node at `url`, without waiting to catch up."""
        async with serving(quick(config_for(directory)), replica_of(url)) as self.served:
            self.served_event.set()
            await self.wanted.wait()
        self.ended.set()

    async def end(self) -> None:
        """End the process, in good order."""
        self.wanted.set()
        await self.ended.wait()


async def increment(node: Served, action: str) -> Answer:
    """Count an action of ann."""
    async with client_of(node.url) as client:
        return await client.post("/scores/increment", {"userId": "ann", "actionId": action})


async def holds(is_true: Callable[[], bool]) -> None:
    """Wait until something holds."""
    while not is_true():  # noqa: ASYNC110  # a role has no event, and time changes it too
        await trio.sleep(0.005)


async def is_in(node: Served, state: State) -> None:
    """Wait until the role is in a state."""
    await holds(lambda: node.node.role.now.state is state)
