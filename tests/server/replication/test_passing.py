"""A passing replica keeps nothing after its end. Its disk is never synced, and it serves like any other replica."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from engine.disk import UnsyncedDisk
from tests.server.replication.network import Leader, Replicated, open_replica, patience, start
from tests.snapshots.directories import all_frames, digest


class PassingDisk(UnsyncedDisk):
    """The disk of a passing replica, used from the event loop."""

    blocks = False


async def open_passing(directory: Path, url: str) -> Replicated:
    """Open a replica as `scoreboard replica` does without a data directory."""
    return await open_replica(directory, url, disk=PassingDisk(), durable=False)


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """List the paths that the process syncs."""
    paths: list[str] = []

    def watch(sync: Callable[[int], None]) -> Callable[[int], None]:
        def noted(descriptor: int) -> None:
            paths.append(os.readlink(f"/proc/self/fd/{descriptor}"))
            sync(descriptor)

        return noted

    monkeypatch.setattr(os, "fsync", watch(os.fsync))
    monkeypatch.setattr(os, "fdatasync", watch(os.fdatasync))
    return paths


async def test_nothing_of_a_passing_replica_is_ever_synced(tmp_path: Path, synced: list[str]) -> None:
    """Neither its log nor a fetched snapshot nor a directory. It has what its leader has, byte for byte."""
    leader = Leader(tmp_path / "leader")
    leader.play(20)
    await leader.checkpointer.take()
    leader.play(5)
    async with patience() as nursery, leader.open():
        replica = await open_passing(tmp_path / "passing", leader.url)
        assert replica.opened.snapshot_seq is not None, "it was to begin with a snapshot"
        running = await start(nursery, replica.follower)
        for _ in range(5):
            leader.play(5)
            await running.reaches(leader.seq)
        assert digest(running.scoreboard) == leader.writer.digest()
        mine = all_frames(tmp_path / "passing")
        assert mine == all_frames(tmp_path / "leader")[-len(mine) :]
        await running.stop()
    assert [path for path in synced if path.startswith(str(tmp_path / "leader"))], "the leader is watched too"
    assert [path for path in synced if path.startswith(str(tmp_path / "passing"))] == []


async def test_a_passing_replica_that_was_cut_off_for_long_starts_anew_from_a_snapshot(
    tmp_path: Path, synced: list[str]
) -> None:
    """The leader no longer keeps what it lacks. It sets its log aside and goes on, with nothing synced."""
    leader = Leader(tmp_path / "leader", ring_bytes=1000)
    leader.play(5)
    async with patience() as nursery, leader.open():
        replica = await open_passing(tmp_path / "passing", leader.url)
        running = await start(nursery, replica.follower)
        await running.reaches(leader.seq)
        await running.stop()
        leader.play(200)
        await leader.checkpointer.take()
        leader.writer.log.remove_before(150)
        running = await start(nursery, replica.follower)
        await running.reaches(leader.seq)
        assert digest(running.scoreboard) == leader.writer.digest()
    assert [path for path in synced if path.startswith(str(tmp_path / "passing"))] == []


@pytest.mark.parametrize("durable", [True, False])
async def test_the_leader_is_told_whether_a_replica_keeps_what_it_has(tmp_path: Path, durable: bool) -> None:
    """An operator who wants to promote a replica must see that a passing one keeps nothing."""
    leader = Leader(tmp_path / "leader")
    leader.play(3)
    async with patience() as nursery, leader.open():
        disk = None if durable else PassingDisk()
        replica = await open_replica(tmp_path / "replica", leader.url, disk=disk, durable=durable)
        running = await start(nursery, replica.follower)
        await running.is_in("following")
        while leader.followers.pinned_seq() != leader.seq:  # its first position was that of the hello
            await trio.lowlevel.checkpoint()
        (info,) = leader.followers.statistics()
        assert (info.seq, info.durable) == (leader.seq, durable)


async def test_a_passing_replica_can_be_followed(tmp_path: Path) -> None:
    """As a relay it ships its log, although it is not durable here: it is durable at the leader."""
    leader = Leader(tmp_path / "leader")
    leader.play(5)
    async with patience() as nursery, leader.open():
        relay = await open_passing(tmp_path / "relay", leader.url)
        first = await start(nursery, relay.follower)
        served = relay.relaying()
        async with served.open():
            leaf = await open_passing(tmp_path / "leaf", served.url)
            second = await start(nursery, leaf.follower)
            leader.play(20)
            for running in (first, second):
                await running.reaches(leader.seq)
            assert digest(second.scoreboard) == leader.writer.digest()
            assert all_frames(tmp_path / "leaf") == all_frames(tmp_path / "leader")
