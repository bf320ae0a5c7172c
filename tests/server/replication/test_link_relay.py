"""Following a shard, and following through a relay: the states are equal in the end, also across a promotion."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.replication.link import parse_leader
from server.replication.messages import ForkQuestion
from server.replication.sharding import Shard, shard_of
from snapshots.promotion import Successor
from tests.cluster.wires import Wire
from tests.server.replication.network import Leader, make_bootstrap, open_replica, open_shard, patience, start
from tests.snapshots.directories import all_frames, digest


@pytest.mark.parametrize("number", [1, 2, 3])
async def test_a_shard_has_its_boards_and_all_users(tmp_path: Path, number: int) -> None:
    """The leader filters. The digests of the shard's boards are compared at checkpoints. Cuts do no harm."""
    shard = Shard(number, 3)
    leader = Leader(tmp_path / "leader", ring_bytes=1000)
    leader.play(30)
    async with patience() as nursery, leader.open():
        wire = Wire("leader", leader.port)
        await nursery.start(wire.run)
        follower = open_shard(tmp_path / "shard", wire.url, shard)
        running = await start(nursery, follower)
        for _ in range(3):
            leader.play(5)
            await leader.checkpointer.take()
            leader.play(5)
            await running.reaches(leader.seq)
            wire.cut()
        whole = leader.writer.scoreboard
        assert running.scoreboard.users.capture() == whole.users.capture()
        for board_id in ("main", "weekly"):
            held = shard_of(board_id, 3) == number
            mine = running.scoreboard.boards[board_id]
            assert mine.capture() == whole.boards[board_id].capture() if held else len(mine) == 0
        assert len(running.scoreboard.actions) == 0
        leader.begin_epoch()
        await running.reaches(leader.seq)
        assert follower.status().epoch == 2


async def test_a_shard_whose_state_is_wrong_is_found_at_the_checkpoint(tmp_path: Path) -> None:
    """Its own boards are compared, although it has no others."""
    leader = Leader(tmp_path / "leader")
    leader.play(20)
    shard = Shard(shard_of("main", 3), 3)
    async with patience() as nursery, leader.open():
        running = await start(nursery, open_shard(tmp_path / "shard", leader.url, shard))
        await running.reaches(leader.seq)
        running.scoreboard.boards["main"]._updated[0] += 1
        await leader.checkpointer.take()
        assert "the board 'main'" in await running.fails()


async def test_a_relay_serves_a_replica_that_ends_equal(tmp_path: Path) -> None:
    """Frames, checkpoints and the next epoch pass through it. The leader has one follower only."""
    leader = Leader(tmp_path / "leader")
    leader.play(10)
    async with patience() as nursery, leader.open():
        relay = await open_replica(tmp_path / "relay", leader.url)
        first = await start(nursery, relay.follower)
        served = relay.relaying()
        async with served.open():
            leaf = await open_replica(tmp_path / "leaf", served.url)
            second = await start(nursery, leaf.follower)
            shard = await start(nursery, open_shard(tmp_path / "shard", served.url, Shard(1, 1)))
            for _ in range(3):
                leader.play(5)
                leader.begin_epoch()
                for running in (first, second, shard):
                    await running.reaches(leader.seq)
            assert digest(second.scoreboard) == digest(first.scoreboard) == leader.writer.digest()
            assert all_frames(tmp_path / "leaf") == all_frames(tmp_path / "leader")
            assert len(leader.followers) == 1
            assert len(served.followers) == 2


async def test_a_replica_is_promoted_while_others_follow_it(tmp_path: Path) -> None:
    """They go on in the new epoch. They refuse the old leader, and tell it."""
    leader = Leader(tmp_path / "leader")
    leader.play(10)
    async with patience() as nursery, leader.open():
        relay = await open_replica(tmp_path / "relay", leader.url)
        first = await start(nursery, relay.follower)
        served = relay.relaying()
        async with served.open():
            leaf = await open_replica(tmp_path / "leaf", served.url)
            second = await start(nursery, leaf.follower)
            await second.reaches(leader.seq)
            await first.stop()
            event = await relay.replica.promote(now_ms=1, history=bytes(16))
            assert (event.epoch, event.seq) == (2, leader.seq + 1)
            await second.reaches(event.seq)
            assert leaf.follower.status().epoch == 2
            assert digest(second.scoreboard) == digest(relay.opened.scoreboard)
            assert relay.applied[-1].events == [event]
            assert await make_bootstrap(served.url, tmp_path).fork(ForkQuestion(1)) == leader.writer.log.tail
            await second.stop()
            leaf.follower._leader = parse_leader(leader.url)
            second = await start(nursery, leaf.follower)
            await second.is_in("refused_older_leader")
            assert leader.deposed[0] == Successor(2, None, event.seq, bytes(16).hex())


async def test_a_replica_that_is_further_than_its_relay_waits_for_it(tmp_path: Path) -> None:
    """It has not diverged: the relay is just not as far yet."""
    leader = Leader(tmp_path / "leader")
    leader.play(5)
    async with patience() as nursery, leader.open():
        relay = await open_replica(tmp_path / "relay", leader.url)
        first = await start(nursery, relay.follower)
        await first.reaches(leader.seq)
        await first.stop()
        leaf = await open_replica(tmp_path / "leaf", leader.url)
        second = await start(nursery, leaf.follower)
        leader.play(5)
        await second.reaches(leader.seq)
        await second.stop()
        served = relay.relaying()
        async with served.open():
            leaf.follower._leader = parse_leader(served.url)
            second = await start(nursery, leaf.follower)
            await leaf.follower.wait_until(lambda status: "itself behind" in status.reason)
            await start(nursery, relay.follower)
            leader.play(5)
            await second.reaches(leader.seq)
