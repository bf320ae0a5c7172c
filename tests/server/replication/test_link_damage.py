"""Following ends at once when a frame or the state is wrong, and goes on where digests are equal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from engine.commands import Command, Increment
from engine.record import frame_bytes, pack_frame
from server.replication import frame_queue
from server.replication.feed import FeedFrame
from server.replication.link import parse_leader
from snapshots.digests import StateDigests, difference
from tests.engine.logs import increments
from tests.server.replication.network import Leader, open_replica, patience, start
from tests.snapshots.directories import digest


class Impostor(Leader):
    """A leader whose feed gives wrong bytes."""

    def tamper(self, data: bytes) -> None:
        """Put a message into the ring, unchecked, as the next frame."""
        seq = self.feed.seq
        self.feed._ring[seq + 1] = FeedFrame(seq + 1, seq + 1, data)
        self.feed._wake()


def _next_frame(leader: Leader) -> bytes:
    """Make the next frame, without shipping it."""
    before = leader.seq
    leader.writer.play(1)
    return next(frame_bytes(frame) for frame in leader.writer.log.read_from(before + 1))


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("flipped", "checksum of the frame is wrong"),
        ("lost", "frames are missing"),
        ("doubled", "here already"),
        ("foreign", "histories differ"),
        ("cut", "cut off"),
        ("older epoch", "epoch 1, which is over"),
        ("unbegun epoch", "does not begin there"),
        ("inconsistent", "do not fit the state"),
    ],
)
async def test_a_wrong_frame_ends_following_for_good(tmp_path: Path, what: str, said: str) -> None:
    """The position, the reason and the remedy are told. Neither this frame nor a later one is applied."""
    leader = Impostor(tmp_path / "leader")
    leader.play(3)
    if what == "older epoch":
        leader.begin_epoch()
    async with patience() as nursery, leader.open():
        replica = await open_replica(tmp_path / "replica", leader.url)
        running = await start(nursery, replica.follower)
        await running.reaches(leader.seq)
        seq, tail = leader.seq, leader.writer.log.tail
        before = digest(running.scoreboard)
        frame = _next_frame(leader)
        wrong = {
            "flipped": frame[:70] + bytes([frame[70] ^ 4]) + frame[71:],
            "lost": _next_frame(leader),
            "doubled": frame_bytes(next(leader.writer.log.read_from(seq))),
            "foreign": pack_frame(increments(seq + 1, 1), epoch=tail.epoch, previous=tail.checksum ^ 1),
            "cut": frame[:-5],
            "older epoch": pack_frame(increments(seq + 1, 1), epoch=1, previous=tail.checksum),
            "unbegun epoch": pack_frame(increments(seq + 1, 1), epoch=7, previous=tail.checksum),
            "inconsistent": pack_frame(increments(seq + 1, 1), epoch=tail.epoch, previous=tail.checksum),
        }[what]
        leader.tamper(wrong)
        reason = await running.fails()
        assert said in reason
        assert f"seq {seq}" in reason
        assert "Move this replica's data directory away" in reason
        assert digest(running.scoreboard) == before
        assert replica.follower.status().state == "failed"
        leader.feed._wake()
        assert running.ended.is_set()


async def test_a_state_that_is_not_the_leaders_is_found_at_the_checkpoint(tmp_path: Path) -> None:
    """All frames may be right and the state still wrong, by a fault of the memory or of the program."""
    leader = Leader(tmp_path / "leader")
    leader.play(20)
    async with patience() as nursery, leader.open():
        replica = await open_replica(tmp_path / "replica", leader.url)
        running = await start(nursery, replica.follower)
        await running.reaches(leader.seq)
        await leader.checkpointer.take()
        leader.play(1)
        await running.reaches(leader.seq)
        running.scoreboard.boards["main"]._updated[0] += 1
        await leader.checkpointer.take()
        reason = await running.fails()
        assert "the state is not the leader's" in reason
        assert "the board 'main'" in reason


async def test_equal_digests_at_many_checkpoints_leave_it_following(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both states are captured between the same two frames while writing goes on. They are compared each time."""
    compared: list[str] = []
    done = trio.Event()

    def noted(ours: StateDigests, theirs: StateDigests, holds: Callable[[str], bool] | None) -> str | None:
        nonlocal done
        compared.append(ours.state)
        done.set()
        return difference(ours, theirs, holds)

    monkeypatch.setattr(frame_queue, "difference", noted)
    leader = Leader(tmp_path / "leader")
    expected = []
    async with patience() as nursery, leader.open():
        replica = await open_replica(tmp_path / "replica", leader.url)
        running = await start(nursery, replica.follower)
        for _ in range(5):
            done = trio.Event()
            leader.play(3)
            await leader.checkpointer.take()
            expected.append(leader.writer.digest())
            leader.play(3)
            await done.wait()
        await running.reaches(leader.seq)
        await running.is_in("following")
    assert compared == expected


async def test_a_diverged_replica_fails(tmp_path: Path) -> None:
    """It has events that the leader never had."""
    leader, other = Leader(tmp_path / "leader"), Leader(tmp_path / "other")
    leader.play(3)
    other.write([*_commands(1)])
    async with patience() as nursery, leader.open(), other.open():
        replica = await open_replica(tmp_path / "replica", other.url)
        running = await start(nursery, replica.follower)
        await running.reaches(other.seq)
        await running.stop()
        replica.follower._leader = parse_leader(leader.url)
        running = await start(nursery, replica.follower)
        assert "not what this log has there" in await running.fails()


def _commands(count: int) -> list[Command]:
    return [Increment("somebody", f"other-{n}", "BONUS", "main", "backend") for n in range(count)]
