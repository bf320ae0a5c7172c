"""What waits between a follower's socket and its replica: its order, its bound, and the digests at marks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
import trio
import trio.testing

from engine.commands import Increment
from server import bounds
from server.replication.failure import FollowingFailed
from server.replication.frame_queue import DigestCheck, FrameQueue
from server.replication.messages import Digest, Mark
from server.replication.replicas import Replica
from server.replication.sharding import Shard, shard_of
from snapshots.digests import StateDigests, digests_of
from tests.snapshots.directories import Leader

DIGESTS = StateDigests("whole", "users", "actions", {})


@pytest.fixture
def ten_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue that is full with ten bytes."""
    monkeypatch.setattr(bounds, "INTAKE_BYTES", 10)


async def test_frames_come_in_one_row_up_to_the_next_message() -> None:
    """A mark speaks of the place between two frames, so no frame may pass it."""
    queue = FrameQueue()
    for what in (b"1", b"2", Mark(2), b"3", Digest(2, DIGESTS), Mark(3), b"4"):
        await queue.put(what)
    rows = [await queue.take() for _ in range(4)]
    assert rows == [([b"1", b"2"], Mark(2)), ([b"3"], Digest(2, DIGESTS)), ([], Mark(3)), ([b"4"], None)]


async def test_taking_waits_until_there_is_something() -> None:
    """A message alone is something."""
    queue = FrameQueue()
    taken: list[tuple[list[bytes], object]] = []

    async def take() -> None:
        taken.append(await queue.take())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take)
        await trio.testing.wait_all_tasks_blocked()
        assert taken == []
        await queue.put(Mark(1))
    assert taken == [([], Mark(1))]


@pytest.mark.usefixtures("ten_bytes")
async def test_a_full_queue_takes_nothing_more_until_it_is_emptied() -> None:
    """It is full once it holds that many bytes: one frame more than the bound, whatever its length."""
    queue = FrameQueue()
    put: list[bytes] = []

    async def put_all() -> None:
        for frame in (b"x" * 9, b"y" * 50, b"z"):
            await queue.put(frame)
            put.append(frame[:1])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(put_all)
        await trio.testing.wait_all_tasks_blocked()
        assert put == [b"x", b"y"]
        assert await queue.take() == ([b"x" * 9, b"y" * 50], None)
        await trio.testing.wait_all_tasks_blocked()
        assert put == [b"x", b"y", b"z"]
        assert await queue.take() == ([b"z"], None)


@pytest.mark.usefixtures("ten_bytes")
async def test_a_message_has_its_place_behind_the_frames() -> None:
    """It costs no bytes, but it does not pass a full queue either."""
    queue = FrameQueue()
    for seq in range(100):
        await queue.put(Mark(seq))
    await queue.put(b"x" * 10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(queue.put, Mark(100))
        await trio.testing.wait_all_tasks_blocked()
        seqs = [(await queue.take())[1] for _ in range(100)]
        assert seqs == [Mark(seq) for seq in range(100)]
        assert await queue.take() == ([b"x" * 10], None)
    assert await queue.take() == ([], Mark(100))


class StandingReplica:
    """A replica with a state, of which nothing else is asked."""

    def __init__(self, leader: Leader, shard: Shard | None = None) -> None:
        self.scoreboard = leader.scoreboard
        self.shard = shard


@pytest.fixture
def leader(tmp_path: Path) -> Iterator[Leader]:
    """A leader with a history, whose state the replica has too."""
    leader = Leader(tmp_path)
    leader.play(5)
    yield leader
    leader.close()


def check_of(leader: Leader, nursery: trio.Nursery, shard: Shard | None = None) -> DigestCheck:
    """A check of that state."""
    return DigestCheck(cast(Replica, cast(Any, StandingReplica(leader, shard))), nursery, blocks=False)


def digests(leader: Leader, **changed: Any) -> StateDigests:
    """The digests of the state, some of them changed."""
    return msgspec.structs.replace(digests_of(leader.scoreboard.capture()), **changed)


async def test_equal_digests_are_no_news(leader: Leader) -> None:
    """Whether they come before ours are computed, or after."""
    seq = leader.scoreboard.seq
    async with trio.open_nursery() as nursery:
        check = check_of(leader, nursery)
        for waits in (False, True):
            check.mark(seq)
            if waits:
                await trio.testing.wait_all_tasks_blocked()
            check.theirs(seq, digests(leader))
            await trio.testing.wait_all_tasks_blocked()


async def test_digests_that_differ_end_following(leader: Leader) -> None:
    """With the part that differs, and where."""
    seq = leader.scoreboard.seq
    async with trio.open_nursery() as nursery:
        check = check_of(leader, nursery)
        check.mark(seq)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(FollowingFailed, match=f"at seq {seq} the registered users differ") as failed:
            check.theirs(seq, digests(leader, users="other"))
        assert (failed.value.epoch, failed.value.seq) == (leader.scoreboard.epoch, seq)


async def test_the_state_at_the_mark_is_compared_and_no_later_one(leader: Leader) -> None:
    """Frames are applied while the digests are on their way."""
    async with trio.open_nursery() as nursery:
        check = check_of(leader, nursery)
        seq, theirs = leader.scoreboard.seq, digests(leader)
        check.mark(seq)
        leader.play(3)
        await trio.testing.wait_all_tasks_blocked()
        check.theirs(seq, theirs)
        with pytest.raises(FollowingFailed):
            check.theirs(seq, digests(leader))


async def test_a_mark_at_another_seq_means_that_frames_are_missing(leader: Leader) -> None:
    """Nothing is compared then."""
    seq = leader.scoreboard.seq
    async with trio.open_nursery() as nursery:
        check = check_of(leader, nursery)
        with pytest.raises(FollowingFailed, match=f"marked seq {seq + 1} where this replica is at seq {seq}"):
            check.mark(seq + 1)


async def test_digests_of_another_mark_are_not_compared(leader: Leader) -> None:
    """They may come late, or belong to a mark from before this link."""
    seq = leader.scoreboard.seq
    async with trio.open_nursery() as nursery:
        check = check_of(leader, nursery)
        check.theirs(seq, digests(leader, users="other"))
        check.mark(seq)
        await trio.testing.wait_all_tasks_blocked()
        check.theirs(seq - 1, digests(leader, users="other"))


async def test_a_mark_that_comes_while_one_is_computed_is_left_out(leader: Leader) -> None:
    """One state is held at a time; the next mark is compared again."""
    async with trio.open_nursery() as nursery:
        check = check_of(leader, nursery)
        first, theirs = leader.scoreboard.seq, digests(leader)
        check.mark(first)
        leader.write([Increment("ann", "more", "ACTION_COMPLETED", "main", "backend")])
        second = leader.scoreboard.seq
        check.mark(second)
        await trio.testing.wait_all_tasks_blocked()
        check.theirs(second, digests(leader, users="other"))
        check.theirs(first, theirs)
        check.mark(second)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(FollowingFailed):
            check.theirs(second, digests(leader, users="other"))


async def test_a_shard_compares_what_it_holds(leader: Leader) -> None:
    """The users and its own boards, and neither the actions nor the boards of others."""
    seq = leader.scoreboard.seq
    count = next(count for count in range(2, 99) if shard_of("main", count) != shard_of("weekly", count))
    mine = digests(leader).boards
    async with trio.open_nursery() as nursery:
        check = check_of(leader, nursery, Shard(shard_of("main", count), count))
        check.mark(seq)
        await trio.testing.wait_all_tasks_blocked()
        assert check._ours is not None
        check._ours.boards.pop("weekly")  # the state of this test has every board, a shard's has not
        check.theirs(seq, digests(leader, whole="other", actions="other", boards={**mine, "weekly": "other"}))
        with pytest.raises(FollowingFailed, match="the board 'main' differ"):
            check.theirs(seq, digests(leader, boards={**mine, "main": "other"}))
