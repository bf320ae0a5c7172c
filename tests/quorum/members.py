"""Members of a quorum in one process, on a stream in memory. They are whole nodes (`tests.server.node.nodes`).

async with member(tmp_path, cloud, "a") as a:
await leads(a)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import trio

from engine.disk import RealDisk
from engine.log import Log
from server.http.messages import Refused
from server.node.member_assembly import MemberPlan, assemble_member
from server.node.serving import Assemble
from server.node.shutdown import tell
from server.role import State
from snapshots.opening import log_directory, open_directory
from tests.e2e import leader as outside
from tests.quorum.model_stream import Cloud
from tests.server.node.nodes import Served, config_for, serving

ALARM_SECONDS = 30.0


def member_of(cloud: Cloud, name: str, *, is_new: bool = False) -> Callable[[Served], Awaitable[Assemble]]:
    """Give what opens a member's directory, a new one with the stream's empty log."""

    async def prepare(served: Served) -> Assemble:
        disk: RealDisk = served.disk
        config = served.config
        if not disk.exists(log_directory(config.data_dir)):
            origin = cloud.origin.tail
            Log.create(disk, log_directory(config.data_dir), log_id=origin.log_id, tail=origin).close()
        opened = open_directory(disk, config.data_dir, config.rules, tell=tell)
        plan = MemberPlan(stream=cloud.stream(name), token=lambda: outside.token("log:read"), is_new=is_new)
        return lambda world: assemble_member(world, opened, plan)

    return prepare


@asynccontextmanager
async def member(directory: Path, cloud: Cloud, name: str, *, is_new: bool = False) -> AsyncIterator[Served]:
    """Serve a member of this name, with a directory of its own. A silence is a second.

    `is_new`: take its directory for one that was just filled from another node's snapshot.
    """
    environ = {"SCOREBOARD_QUORUM_SILENCE_SECONDS": "1", "SCOREBOARD_REPLICATION_NODE_NAME": name}
    async with serving(config_for(directory / name, **environ), member_of(cloud, name, is_new=is_new)) as served:
        yield served


async def step_down(served: Served) -> None:
    """Have a leader step down, once it has heard another node."""
    member = served.node.member
    assert member is not None
    with trio.fail_after(ALARM_SECONDS):
        while True:
            with suppress(Refused):
                await member.step_down()
                return
            await trio.sleep(0.05)


async def until(served: Served, *states: State) -> None:
    """Wait until a node is in one of these states."""
    role, reached = served.node.role, trio.Event()
    role.on_change(lambda _before, now: reached.set() if now.state in states else None)
    if role.now.state not in states:
        with trio.fail_after(ALARM_SECONDS):
            await reached.wait()


async def leads(*nodes: Served) -> Served:
    """Wait until one of the nodes leads, and give it."""
    with trio.fail_after(ALARM_SECONDS):
        while True:
            for served in nodes:
                if served.node.role.now.state is State.LEADING:
                    return served
            await trio.sleep(0.02)
