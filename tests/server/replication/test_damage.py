"""The leader's log is damaged where a follower goes on: the operator is told, and a snapshot helps the follower on."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import LogDamaged
from tests.server.replication.network import Leader, follow_so_far, patience, start
from tests.snapshots.directories import digest


def damage_first_segment(leader: Leader, after: int) -> None:
    """Flip a bit in the first frame after a seq, in a full segment."""
    path = Path(leader.writer.log.segments()[0].path)
    frame = next(iter(leader.writer.log.read_from(after + 1)))
    data = bytearray(path.read_bytes())
    place = bytes(data).index(frame.body) + len(frame.body) // 2
    data[place] ^= 1
    path.write_bytes(data)


async def fill_until_sealed(leader: Leader) -> None:
    while len(leader.writer.log.segments()) < 3:
        leader.play(5)


@pytest.mark.parametrize("at", ["the judgement", "the shipping"])
async def test_a_follower_gets_past_it_with_a_snapshot(tmp_path: Path, at: str) -> None:
    """The damage is where the follower is, or later."""
    leader = Leader(tmp_path / "leader", ring_bytes=1)
    leader.play(4)
    async with patience() as nursery, leader.open():
        replica = await follow_so_far(tmp_path / "replica", leader, nursery)
        had = leader.seq
        await fill_until_sealed(leader)
        leader.writer.snapshot()
        leader.play(3)
        damage_first_segment(leader, had if at == "the judgement" else had + 4)
        running = await start(nursery, replica.follower)
        await running.reaches(leader.seq)
        assert digest(running.scoreboard) == leader.writer.digest()
        assert "bootstrapping" in [state for state, _ in replica.states]
        (damage,) = leader.told
        assert isinstance(damage, LogDamaged)
        assert damage.path == leader.writer.log.segments()[0].path
        assert damage.offset is not None
        await running.stop()


async def test_without_a_newer_snapshot_it_waits_for_one(tmp_path: Path) -> None:
    """Its link ends, the operator is told each time, and nothing is downloaded in vain."""
    leader = Leader(tmp_path / "leader", ring_bytes=1)
    leader.play(4)
    async with patience() as nursery, leader.open():
        replica = await follow_so_far(tmp_path / "replica", leader, nursery)
        had = leader.seq
        await fill_until_sealed(leader)
        damage_first_segment(leader, had + 4)
        running = await start(nursery, replica.follower)
        await running.is_in("disconnected")
        await running.is_in("catching_up")
        await running.is_in("disconnected")
        assert len(leader.told) >= 2
        assert "bootstrapping" not in [state for state, _ in replica.states]
        leader.writer.snapshot()
        await running.reaches(leader.seq)
        assert digest(running.scoreboard) == leader.writer.digest()
        await running.stop()
