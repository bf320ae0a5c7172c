"""Served nodes that come into each role by its own way: by a hello, a promotion, a drain, or silence.

async with STAGES["deposed leader"].enter(directory) as (served, change):
    ...                    in the first role: leading, or following
    await change()
    ...                    in the role under test
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from engine.limits import INBOX_COMMANDS_MAX
from server.replication.sharding import Shard, shard_of
from server.role import State
from tests.server.node.nodes import (
    PUBLIC_URL,
    Served,
    caught_up,
    config_for,
    fill,
    leader_of_directory,
    serving,
    serving_replica,
    shard_of_leader,
    silent_node,
)
from tests.server.node.test_deposed import log_id_of, tell_of_epoch

Change = Callable[[], Awaitable[None]]
Enter = Callable[[Path], AbstractAsyncContextManager[tuple[Served, Change]]]


async def nothing_changes() -> None:
    """Stay in the first role."""


@asynccontextmanager
async def leading(directory: Path) -> AsyncIterator[tuple[Served, Change]]:
    async with serving(config_for(directory), leader_of_directory) as served:
        await fill(served)
        yield served, nothing_changes


@asynccontextmanager
async def deposed(directory: Path) -> AsyncIterator[tuple[Served, Change]]:
    async with leading(directory) as (served, _):

        async def change() -> None:
            await tell_of_epoch(served.url, await log_id_of(served.url), 2, "http://new.example")
            assert served.node.role.now.state is State.DEPOSED

        yield served, change


@asynccontextmanager
async def draining(directory: Path) -> AsyncIterator[tuple[Served, Change]]:
    async with leading(directory) as (served, _):

        async def change() -> None:
            served.node.begin_end()

        yield served, change


@asynccontextmanager
async def following(directory: Path) -> AsyncIterator[tuple[Served, Change]]:
    async with serving_replica(directory) as (_, replica):
        yield replica, nothing_changes


@asynccontextmanager
async def following_without_address(directory: Path) -> AsyncIterator[tuple[Served, Change]]:
    async with serving_replica(directory, public_url="") as (_, replica):
        yield replica, nothing_changes


@asynccontextmanager
async def stale(directory: Path) -> AsyncIterator[tuple[Served, Change]]:
    async with serving_replica(directory) as (leader, replica):

        async def change() -> None:
            leader.node.begin_end()  # ends the link, and takes none again
            replica.node.role.become(State.STALE)

        yield replica, change


@asynccontextmanager
async def failed(directory: Path) -> AsyncIterator[tuple[Served, Change]]:
    async with serving_replica(directory) as (_, replica):

        async def change() -> None:
            replica.node.role.become(State.FAILED, reason="the state is not the leader's")

        yield replica, change


@asynccontextmanager
async def draining_replica(directory: Path) -> AsyncIterator[tuple[Served, Change]]:
    async with serving_replica(directory) as (_, replica):

        async def change() -> None:
            replica.node.begin_end()

        yield replica, change


@asynccontextmanager
async def promoted(directory: Path) -> AsyncIterator[tuple[Served, Change]]:
    async with serving_replica(directory) as (_, replica):

        async def change() -> None:
            assert await replica.node.promote() == (2, replica.node.scoreboard.seq)

        yield replica, change


@asynccontextmanager
async def not_caught_up(directory: Path) -> AsyncIterator[tuple[Served, Change]]:
    async with silent_node() as follows, serving_replica(directory, follows=follows) as (_, replica):
        assert replica.node.role.now.state is State.NOT_CAUGHT_UP
        yield replica, nothing_changes


@asynccontextmanager
async def another_shard(directory: Path) -> AsyncIterator[tuple[Served, Change]]:
    config = config_for(directory / "leader", SCOREBOARD_REPLICATION_PUBLIC_URL=PUBLIC_URL)
    async with serving(config, leader_of_directory) as leader:
        await fill(leader)
        shard = Shard(3 - shard_of("main", 2), 2)
        async with serving(config_for(directory / "shard"), shard_of_leader(leader.url, shard)) as served:
            await caught_up(served)
            yield served, nothing_changes


@asynccontextmanager
async def overloaded(directory: Path) -> AsyncIterator[tuple[Served, Change]]:
    async with leading(directory) as (served, _):
        actor = served.node.actor
        assert actor is not None

        async def change() -> None:
            actor._waiting = INBOX_COMMANDS_MAX

        yield served, change
        actor._waiting = 0


@asynccontextmanager
async def faulty(directory: Path) -> AsyncIterator[tuple[Served, Change]]:
    async with leading(directory) as (served, _):

        def fail(*_: object) -> NoReturn:
            raise ValueError("a bug")

        broken: Any = fail

        async def change() -> None:
            served.node.pipeline._increments.admit = broken  # type: ignore[method-assign]
            served.node.pipeline._reads.render_top = broken  # type: ignore[method-assign]

        yield served, change


class Stage(msgspec.Struct, frozen=True):
    """A role under test, and what a good write and a good read are answered with in it.

    `promotable`: the node could be promoted at some time, so its admin must not ask for that. `remembers`: it has
    answered something, at some time, by a head that it remembered.
    """

    enter: Enter
    write_status: int
    read_status: int
    promotable: bool = False
    remembers: bool = True


STAGES = {
    "leader": Stage(leading, 200, 200),
    "deposed leader": Stage(deposed, 421, 200),
    "draining leader": Stage(draining, 200, 200),
    "replica": Stage(following, 307, 200, promotable=True),
    "replica without a public address": Stage(following_without_address, 421, 200, promotable=True),
    "stale replica": Stage(stale, 307, 200, promotable=True),
    "failed replica": Stage(failed, 307, 503, promotable=True),
    "draining replica": Stage(draining_replica, 307, 200, promotable=True),
    "promoted replica": Stage(promoted, 200, 200, promotable=True),
    "replica that has not caught up": Stage(not_caught_up, 421, 503, remembers=False),
    "replica of another shard": Stage(another_shard, 307, 421, remembers=False),
    "overloaded leader": Stage(overloaded, 503, 200),
    "leader with a bug": Stage(faulty, 500, 500),
}
