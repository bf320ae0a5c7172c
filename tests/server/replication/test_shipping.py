"""Many frames in one write: a follower still reads the same frames and marks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from engine.record import frame_bytes, pack_frame, unpack_frame
from server.replication import link as link_module
from server.replication.feed import FrameFeed
from server.replication.link import Link, LinkEnded, open_link, parse_leader
from server.replication.messages import LOG_PATH, Heartbeat, Mark, Welcome, decode_from_leader
from server.replication.shipment import _groups
from tests.engine.logs import increments
from tests.server.replication.network import QUICK, TOKEN, Leader, patience

FROM_THE_START = f"{LOG_PATH}?after=0&epoch=1"


def ring(counts: Sequence[int], marked: set[int]) -> FrameFeed:
    """Make a feed with frames of these event counts, and a mark after each frame whose number is in `marked`."""
    feed = FrameFeed(0)
    for number, count in enumerate(counts):
        feed.append(pack_frame(increments(feed.seq + 1, count), epoch=1, previous=0))
        if number in marked:
            feed.mark(feed.seq)
    return feed


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the messages in each write of log, on all links of the test."""
    counts: list[int] = []
    send_all = Link.send_all

    async def counted(link: Link, messages: Sequence[bytes]) -> None:
        counts.append(len(messages))
        await send_all(link, messages)

    monkeypatch.setattr(Link, "send_all", counted)
    return counts


@given(st.lists(st.integers(1, 5), max_size=20), st.sets(st.integers(0, 19), max_size=4), st.integers(1, 2_000))
def test_what_is_ready_comes_in_order_and_stops_at_marks(counts: list[int], marked: set[int], bytes_max: int) -> None:
    """All of it comes, in writes of at most `bytes_max` unless one frame is longer."""
    feed = ring(counts, marked)
    seq, seen = 0, []
    while ready := feed.ready_after(seq, bytes_max):
        assert ready[0].first_seq == seq + 1
        assert len(ready) == 1 or sum(len(entry.data) for entry in ready) <= bytes_max
        assert not any(entry.last_seq in feed.marks for entry in ready[:-1])
        seen += [entry.last_seq for entry in ready]
        seq = ready[-1].last_seq
    assert seen == [sum(counts[: number + 1]) for number in range(len(counts))]


@given(st.lists(st.integers(1, 5), max_size=20), st.sets(st.integers(1, 60)))
def test_groups_hold_every_frame_and_end_at_marks(counts: list[int], marks: set[int]) -> None:
    """These are the writes of frames that were read from the log."""
    frames = [unpack_frame(entry.data) for entry in ring(counts, set()).ready_after(0, 2**20)]
    groups = list(_groups(frames, marks))
    assert [frame for group in groups for frame in group] == frames
    assert all(groups)
    assert not any(frame.last_seq in marks for group in groups for frame in group[:-1])


@pytest.mark.parametrize("ring_bytes", [2**20, 1])
async def test_each_frame_is_a_message_of_its_own(tmp_path: Path, writes: list[int], ring_bytes: int) -> None:
    """In the order of the log, the mark between its two frames, from the ring or from the log, in fewer writes."""
    leader = Leader(tmp_path / "leader", ring_bytes=ring_bytes)
    leader.play(10)
    leader.feed.mark(leader.seq)
    marked = leader.seq
    leader.play(10)
    async with patience(), leader.open():
        received: list[object] = []
        where = parse_leader(leader.url)
        async with open_link(where, FROM_THE_START, TOKEN, message_bytes_max=2**20, timing=QUICK) as link:
            while (
                not received or not isinstance(received[-1], bytes) or unpack_frame(received[-1]).last_seq < leader.seq
            ):
                message = await link.receive(5.0)
                said = message if isinstance(message, bytes) else decode_from_leader(message)
                if not isinstance(said, Welcome | Heartbeat):
                    received.append(said)
    expected: list[object] = []
    for frame in leader.writer.log.read_from(1):
        expected += [frame_bytes(frame), *([Mark(marked)] if frame.last_seq == marked else [])]
    assert received == expected
    assert len(writes) < sum(writes) == len(expected) - 1


async def test_frames_that_come_within_a_pause_go_out_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: list[int]
) -> None:
    """The first goes out at once, the others in one write after the pause."""
    leader = Leader(tmp_path / "leader")
    pauses: list[float] = []

    async def paused(seconds: float) -> None:
        """Send nine frames while the shipment pauses for the first time."""
        if not pauses:
            leader.play(9)
        pauses.append(seconds)
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr("server.replication.shipment.pause", paused)
    leader.play(1)
    async with patience(), leader.open():
        where = parse_leader(leader.url)
        async with open_link(where, FROM_THE_START, TOKEN, message_bytes_max=2**20, timing=QUICK) as link:
            seq = 0
            while seq < leader.seq or len(pauses) < 2:
                message = await link.receive(5.0)
                seq = unpack_frame(message).last_seq if isinstance(message, bytes) else seq
    assert writes == [1, 9]


async def test_a_link_that_is_over_takes_no_more_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other side has closed it, or is just gone. The leader then counts no follower."""
    leader = Leader(tmp_path / "leader")
    links: list[Link] = []
    make = link_module.Link

    def noted(*given: object) -> Link:
        links.append(make(*given))  # type: ignore[arg-type]
        return links[-1]

    monkeypatch.setattr(link_module, "Link", noted)
    async with patience(), leader.open():
        where = parse_leader(leader.url)
        async with open_link(where, FROM_THE_START, TOKEN, message_bytes_max=2**20, timing=QUICK) as link:
            await link.receive(5.0)
            assert len(leader.followers) == 1
        while len(leader.followers):
            leader.play(1)
            await trio.lowlevel.checkpoint()
        accepted = next(link for link in links if link._stream is not None)
        with pytest.raises(LinkEnded):
            await accepted.send_all([b"more"])
