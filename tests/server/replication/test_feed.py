"""The ring of the newest frames, and the registry of followers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from engine.record import pack_frame
from server.bounds import MARKS_KEPT
from server.replication.feed import FrameFeed
from server.replication.followers import FollowerInfo, Followers
from snapshots.digests import StateDigests
from tests.engine.logs import increments

DIGESTS = StateDigests("w", "u", "a", {})


def frame(first_seq: int, count: int) -> bytes:
    return pack_frame(increments(first_seq, count), epoch=1, previous=0)


@given(st.lists(st.integers(1, 5), max_size=30), st.integers(0, 100), st.integers(1, 3000))
def test_the_ring_holds_the_newest_frames_within_its_bound(counts: list[int], seq: int, ring_bytes: int) -> None:
    """Each is found by the seq before it; the oldest go first; the newest is always there."""
    feed = FrameFeed(seq, ring_bytes=ring_bytes)
    frames = []
    for count in counts:
        data = frame(feed.seq + 1, count)
        frames.append((feed.seq, data))
        feed.append(data)
        feed._check()
    found = [(before, entry.data) for before, _ in frames if (entry := feed.next_after(before)) is not None]
    assert found == frames[len(frames) - len(found) :]
    assert bool(found) == bool(frames)
    assert feed.seq == seq + sum(counts)


def test_a_gap_is_a_fault_of_ours() -> None:
    """A frame that does not follow is not shipped."""
    feed = FrameFeed(5)
    with pytest.raises(AssertionError):
        feed.append(frame(7, 1))


def test_marks_are_bounded_and_digests_are_for_marks_that_are_known() -> None:
    """The oldest are forgotten, and their digests with them."""
    feed = FrameFeed(0)
    for n in range(MARKS_KEPT + 3):
        feed.mark(n)
        feed.append(frame(n + 1, 1))
        feed._check()
    feed.digest(0, DIGESTS)
    feed.digest(MARKS_KEPT, DIGESTS)
    assert 0 not in feed.marks
    assert feed.marks[MARKS_KEPT] == DIGESTS
    feed.restart(100)
    assert (feed.seq, feed.marks, feed.next_after(3)) == (100, {}, None)
    feed._check()


async def test_who_waits_hears_of_frames_marks_and_digests(autojump_clock: trio.testing.MockClock) -> None:
    """Each of them wakes all that wait."""
    feed = FrameFeed(0)
    heard = 0

    async def listen() -> None:
        nonlocal heard
        await feed.wait_news()
        heard += 1

    steps: list[Callable[[], None]] = [
        lambda: feed.append(frame(1, 1)),
        lambda: feed.mark(1),
        lambda: feed.digest(1, DIGESTS),
    ]
    for step in steps:
        heard = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            nursery.start_soon(listen)
            await trio.sleep(1)
            assert heard == 0
            step()
        assert heard == 2


def test_the_lowest_position_of_all_is_pinned() -> None:
    """Links and downloads pin it while they are open."""
    followers = Followers()
    assert followers.pinned_seq() is None
    with followers.linked(FollowerInfo("a", None, 1, 50, False, 0)) as first:
        with followers.linked(FollowerInfo("b", "1/2", 1, 30, False, 0)) as second, followers.pinned(40):
            assert (followers.pinned_seq(), len(followers)) == (30, 2)
            followers.heard(second, 2, 90, durable=True)
            assert followers.pinned_seq() == 40
            assert followers.statistics()[1] == FollowerInfo("b", "1/2", 2, 90, True, 0)
        assert followers.pinned_seq() == 50
        followers.heard(first, 1, 60, durable=False)
        assert followers.pinned_seq() == 60
    assert (followers.pinned_seq(), len(followers)) == (None, 0)
