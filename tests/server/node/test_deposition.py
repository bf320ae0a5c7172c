"""The end of a node as a leader: its role, its actor and the file in its directory, each time more is heard."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
from structlog.typing import EventDict

from engine.commands import Increment
from engine.errors import LeaderDeposed
from server import bounds
from server.node.leader import Deposition
from server.node.surroundings import Surroundings
from server.role import State
from snapshots.promotion import Successor, read_deposed
from tests.server.api.support import Bench
from tests.server.api.support import open_bench as open_node
from tests.server.node.worlds import FullDisk, RoomlessDisk, open_world
from tests.snapshots.directories import InlineDisk

NEW = "http://new:1"


@asynccontextmanager
async def open_bench(
    directory: Path, disk: InlineDisk | None = None
) -> AsyncIterator[tuple[Deposition, Bench, Surroundings]]:
    """A leader whose actor runs, and its `Deposition`."""
    async with open_world(directory, disk) as world, open_node() as node:
        yield Deposition(world, node.role, node.actor, node.scoreboard), node, world


def left_in(directory: Path) -> Successor | None:
    """The file that a deposed leader leaves."""
    return read_deposed(InlineDisk(), str(directory))


async def test_a_deposed_leader_writes_nothing_from_that_moment_on(tmp_path: Path, logged: list[EventDict]) -> None:
    """Role and actor are told without waiting; the file and the log line name the successor."""
    async with open_bench(tmp_path) as (deposition, node, _):
        await node.increment("ann", "a1")
        deposition.begin(Successor(2, NEW))
        assert (node.role.now.state, node.role.now.successor) == (State.DEPOSED, Successor(2, NEW))
        with pytest.raises(LeaderDeposed):
            await node.actor.submit([Increment("ann", "a2", "WON", "main", "shop")])
        await trio.testing.wait_all_tasks_blocked()
        assert left_in(tmp_path) == Successor(2, NEW)
        assert node.logged() == [("a1", "ann", 10)]
    [line] = [line for line in logged if line["event"] == "deposed"]
    assert (line["log_level"], line["epoch"], line["own_epoch"], line["leader"]) == ("critical", 2, 1, NEW)
    assert f"scoreboard demote --data-dir {tmp_path} --to {NEW} " in line["remedy"]


async def test_the_same_word_again_changes_nothing(tmp_path: Path, logged: list[EventDict]) -> None:
    """Every follower brings it, and what was remembered of the role need not be forgotten for it."""
    async with open_bench(tmp_path) as (deposition, node, _):
        deposition.begin(Successor(2))
        generation = node.role.now.generation
        deposition.begin(Successor(2))
        assert node.role.now.generation == generation
    assert [line["event"] for line in logged].count("deposed") == 1


async def test_more_that_is_heard_later_is_kept(tmp_path: Path) -> None:
    """First the address, then a newer epoch: the role, the file and the time since when are those of one deposition."""
    async with open_bench(tmp_path) as (deposition, node, _):
        since_s = []
        for successor in (Successor(2), Successor(2, NEW), Successor(5, "http://newest:1")):
            deposition.begin(successor)
            await trio.testing.wait_all_tasks_blocked()
            assert (node.role.now.successor, left_in(tmp_path)) == (successor, successor)
            since_s.append(node.role.now.since_s)
        assert len(set(since_s)) == 1


async def test_what_was_known_first_is_not_what_stays(tmp_path: Path) -> None:
    """A write that has to wait writes what is known by then."""
    async with open_bench(tmp_path) as (deposition, _, _world):
        async with deposition._writing:
            for epoch in (2, 3, 4):
                deposition.begin(Successor(epoch))
                await trio.testing.wait_all_tasks_blocked()
            assert left_in(tmp_path) is None
        await trio.testing.wait_all_tasks_blocked()
        assert left_in(tmp_path) == Successor(4)


async def test_the_file_is_written_though_the_process_ends_at_once(tmp_path: Path) -> None:
    """Or the next start would lead in an epoch that is over."""
    async with open_bench(tmp_path) as (deposition, _, world):
        async with deposition._writing:
            deposition.begin(Successor(2))
            await trio.testing.wait_all_tasks_blocked()
            world.tasks.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await trio.testing.wait_all_tasks_blocked()
        assert left_in(tmp_path) == Successor(2)


async def test_a_disk_that_does_not_take_the_file_ends_the_process(tmp_path: Path, logged: list[EventDict]) -> None:
    """The leader is deposed all the same."""
    async with open_bench(tmp_path, FullDisk()) as (deposition, node, world):
        deposition.begin(Successor(2))
        await world.shutdown.wanted.wait()
        assert "No space left" in str(world.shutdown.fault)
        assert node.role.now.state is State.DEPOSED
    assert "disk_failed" in [line["event"] for line in logged]


async def test_a_full_disk_gets_the_file_as_soon_as_there_is_room(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """A full disk ends the service: the process goes on and refuses writes, and the next start will be refused."""
    disk = RoomlessDisk()
    async with open_bench(tmp_path, disk) as (deposition, node, world):
        deposition.begin(Successor(2))
        await trio.sleep(10 * bounds.DISK_FULL_RETRY_SECONDS)
        assert left_in(tmp_path) is None
        assert node.role.now.state is State.DEPOSED
        disk.full = False
        await trio.sleep(2 * bounds.DISK_FULL_RETRY_SECONDS)
        assert left_in(tmp_path) == Successor(2)
        assert not world.shutdown.wanted.is_set()
