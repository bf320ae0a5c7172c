"""A relay begins anew again and again, while a follower is linked to it."""

from __future__ import annotations

from pathlib import Path

from server import bounds
from tests.server.replication.network import Leader, open_replica, patience, start
from tests.snapshots.directories import digest


async def test_a_relay_that_begins_anew_takes_its_followers_along_every_time(tmp_path: Path) -> None:
    """Each is told that its next frame is no longer kept. That must not use up the readers of the log."""
    leader = Leader(tmp_path / "leader")
    leader.play(10)
    async with patience() as nursery, leader.open():
        relay = await open_replica(tmp_path / "relay", leader.url)
        following = await start(nursery, relay.follower)
        await following.reaches(leader.seq)
        served = relay.relaying()
        async with served.open():
            below = await open_replica(tmp_path / "below", served.url)
            last = await start(nursery, below.follower)
            await last.reaches(leader.seq)
            for _ in range(bounds.CATCH_UP_READERS_MAX + 1):
                await following.stop()
                leader.play(60)
                info = leader.writer.snapshot()
                leader.writer.log.remove_before(info.seq)
                leader.play(3)
                following = await start(nursery, relay.follower)
                await following.reaches(leader.seq)
                await last.reaches(leader.seq)
            assert digest(last.scoreboard) == leader.writer.digest()
