"""A user is erased in the leader's directory: a replica that had the user begins anew, and one that comes later too."""

from __future__ import annotations

from pathlib import Path

from engine.commands import Increment, PutUser
from tests.server.replication.network import Leader, follow_so_far, open_replica, patience, start
from tests.snapshots.directories import digest
from tests.snapshots.forgetting import ANN, NAME, erase, traces


async def test_replicas_hold_the_leaders_state_and_none_of_the_user(tmp_path: Path) -> None:
    """One that stopped before the erasure, one that is new, and what both do with later frames.

    What the first one set aside goes.
    """
    leader = Leader(tmp_path / "leader")
    leader.write([PutUser(ANN, NAME, True, "ops")])
    leader.play(10)
    leader.write([Increment(ANN, f"of {ANN}", "BONUS", "main", "shop")])
    async with patience() as nursery, leader.open():
        early = await follow_so_far(tmp_path / "early", leader, nursery)
        early.log.close()
        leader.play(5)
    leader.writer.log.close()
    erase(tmp_path / "leader", ANN)
    assert traces(tmp_path / "leader", ANN, NAME) == []
    leader = Leader(tmp_path / "leader")
    leader.checkpointer._last = leader.store.list()[0]
    async with patience() as nursery, leader.open():
        early = await open_replica(tmp_path / "early", leader.url)
        following = await start(nursery, early.follower)
        await following.reaches(leader.seq)
        late = await open_replica(tmp_path / "late", leader.url)
        beginning = await start(nursery, late.follower)
        await beginning.reaches(leader.seq)
        leader.write(
            [Increment(ANN, "new", "BONUS", "main", "shop"), Increment("user-1", "x", "BONUS", "main", "shop")]
        )
        for each in (following, beginning):
            await each.reaches(leader.seq)
            assert digest(each.scoreboard) == leader.writer.digest()
            await each.stop()
    assert traces(tmp_path / "late", NAME) == []
    assert list((tmp_path / "early").glob("aside-*"))
    assert traces(tmp_path / "early", NAME, f"of {ANN}") == [], "nothing of what was set aside is left"
