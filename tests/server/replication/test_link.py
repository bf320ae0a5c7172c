"""Following over real sockets: exact, through cuts, stalls and an absent leader."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from server.replication.link import LinkTiming, parse_leader
from tests.cluster.wires import Wire
from tests.server.replication.network import QUICK, Leader, open_replica, patience, start
from tests.snapshots.directories import all_frames, digest

SHORT = LinkTiming(
    heartbeat_seconds=0.02, silence_seconds_max=0.3, open_seconds_max=20.0, close_seconds_max=0.2, lived_seconds=0.0
)


async def test_a_replica_has_the_leaders_log_and_state(tmp_path: Path) -> None:
    """From the beginning, then frame by frame: the same files byte for byte, the same state by its digest."""
    leader = Leader(tmp_path / "leader")
    leader.play(20)
    async with patience() as nursery, leader.open():
        replica = await open_replica(tmp_path / "replica", leader.url)
        running = await start(nursery, replica.follower)
        await running.reaches(leader.seq)
        for _ in range(10):
            leader.play(2)
            await running.reaches(leader.seq)
        await running.is_in("following")
        status = replica.follower.status()
        assert (status.lag_records, status.lag_ms, status.caught_up_once) == (0, 0, True)
        assert (status.node_name, status.public_url) == ("test", "http://public.example")
        assert digest(running.scoreboard) == leader.writer.digest()
        assert all_frames(tmp_path / "replica") == all_frames(tmp_path / "leader")
        told = [event.seq for applied in replica.applied for event in applied.events]
        assert told == list(range(1, leader.seq + 1))
        await running.stop()


async def test_a_replica_that_was_away_goes_on_where_it_was(tmp_path: Path) -> None:
    """What it missed may be in the ring, or only on the leader's disk."""
    leader = Leader(tmp_path / "leader", ring_bytes=1000)
    async with patience() as nursery, leader.open():
        replica = await open_replica(tmp_path / "replica", leader.url)
        running = await start(nursery, replica.follower)
        leader.play(5)
        await running.reaches(leader.seq)
        await running.stop()
        replica.log.close()
        leader.play(100)
        again = await open_replica(tmp_path / "replica", leader.url)
        assert again.opened.scoreboard.seq < leader.seq
        running = await start(nursery, again.follower)
        await running.reaches(leader.seq)
        assert digest(running.scoreboard) == leader.writer.digest()


async def test_a_cut_link_is_opened_again_and_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    """After a cut at any byte the missing frames follow."""
    leader = Leader(tmp_path / "leader")
    async with patience() as nursery, leader.open():
        wire = Wire("leader", leader.port)
        await nursery.start(wire.run)
        replica = await open_replica(tmp_path / "replica", leader.url)
        replica.follower._leader = parse_leader(wire.url)
        running = await start(nursery, replica.follower)
        for bytes_more in (150, 1, 700, 333, 64, 1500, 2):
            wire.cut_after = bytes_more
            leader.play(5)
            await running.reaches(leader.seq)
            wire.cut()
        assert wire.connections > 3
        assert digest(running.scoreboard) == leader.writer.digest()
        assert all_frames(tmp_path / "replica") == all_frames(tmp_path / "leader")


async def test_a_leader_that_is_away_is_told_and_waited_for(tmp_path: Path) -> None:
    """The state stays, and the age of the last contact is told."""
    leader = Leader(tmp_path / "leader")
    leader.play(3)
    async with patience() as nursery, leader.open():
        wire = Wire("leader", leader.port)
        await nursery.start(wire.run)
        replica = await open_replica(tmp_path / "replica", wire.url)
        running = await start(nursery, replica.follower)
        await running.is_in("following")
        wire.refusing = True
        wire.cut()
        await running.is_in("disconnected")
        status = replica.follower.status()
        assert status.heard_age_s is not None
        assert (status.seq, status.connected_since_ms, status.caught_up_once) == (leader.seq, None, True)
        leader.play(3)
        wire.refusing = False
        await running.reaches(leader.seq)


@pytest.mark.parametrize("end", ["follower", "leader"])
async def test_a_link_that_is_open_but_silent_is_dead(tmp_path: Path, end: str) -> None:
    """The follower opens a new one. The leader forgets the follower, and what it pinned."""
    leader = Leader(tmp_path / "leader", timing=SHORT if end == "leader" else QUICK)
    leader.play(3)
    async with patience() as nursery, leader.open():
        wire = Wire("leader", leader.port)
        await nursery.start(wire.run)
        timing = SHORT if end == "follower" else QUICK
        replica = await open_replica(tmp_path / "replica", leader.url, timing=timing)
        replica.follower._leader = parse_leader(wire.url)
        running = await start(nursery, replica.follower)
        await running.is_in("following")
        wire.stall()
        if end == "follower":
            await replica.follower.wait_until(lambda status: "nothing was heard for 0.3 seconds" in status.reason)
            wire.mend()
            leader.play(2)
            await running.reaches(leader.seq)
        else:
            while leader.followers.pinned_seq() is not None:
                await trio.lowlevel.checkpoint()


async def test_a_leader_that_stops_ends_its_links(tmp_path: Path) -> None:
    """It ends them at once and takes no new ones."""
    leader = Leader(tmp_path / "leader")
    leader.play(2)
    async with patience() as nursery, leader.open():
        replica = await open_replica(tmp_path / "replica", leader.url)
        await (await start(nursery, replica.follower)).is_in("following")
        leader.shipper.close()
        status = await replica.follower.wait_until(lambda status: "status 503" in status.reason)
        assert status.seq == leader.seq
        assert len(leader.followers) == 0
