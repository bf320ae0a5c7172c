"""The log of a quorum: one frame until its place is known, our own disk after the stream, and where a log stands."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from engine.errors import DiskFull, LostPlace
from engine.events import EpochBegun
from engine.log import Log
from engine.record import SEGMENT_HEADER_BYTES, Tail, frame_bytes, pack_frame, unpack_header
from server.quorum.places import last_at, place_of
from server.quorum.quorum_log import SHORT_ANSWERS_MAX, Observers, QuorumLog
from server.quorum.stream import PlacePurged, StreamRefused, Unanswered
from tests.quorum.model_stream import Cloud, ModelStream
from tests.snapshots.directories import InlineDisk


def frame_after(tail: Tail, note: str = "") -> bytes:
    """A frame of one event."""
    event = EpochBegun(tail.seq + 1, 1_000, tail.epoch + 1, note, bytes(16))
    return pack_frame([event], epoch=tail.epoch + 1, previous=tail.checksum)


@dataclasses.dataclass
class Bench:
    """A log on disk and on a stream, and what was told of it."""

    cloud: Cloud
    stream: ModelStream
    local: Log
    log: QuorumLog
    doubts: list[str | None]


@contextmanager
def bench_at(directory: Path, cloud: Cloud | None = None, segment_bytes: int = 2**20) -> Iterator[Bench]:
    """Make one; it is located."""
    cloud = cloud or Cloud()
    stream = cloud.stream("a")
    origin = cloud.origin.tail
    local = Log.create(InlineDisk(), str(directory), log_id=origin.log_id, tail=origin, segment_bytes=segment_bytes)
    log = QuorumLog(local, stream, patience_s=1.0)
    log.place = 0
    bench = Bench(cloud, stream, local, log, [])
    log.observe(Observers(on_doubt=bench.doubts.append))
    yield bench
    local.close()


async def test_the_stream_has_a_frame_before_our_disk(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """While it is placed, the log ends before; afterwards both have the same bytes."""
    with bench_at(tmp_path / "log") as bench:
        seen: list[int] = []
        bench.stream.on_place = lambda _place: seen.append(bench.local.tail.seq)
        frame = frame_after(bench.log.tail)
        synced = await bench.log.append(0, frame)
        assert (seen, bench.log.place, bench.log.tail.seq) == ([0], 1, 1)
        assert synced.frame == frame == bench.cloud.frames[0]
        assert [frame_bytes(each) for each in bench.local.read_from(1)] == bench.cloud.frames


async def test_another_frame_at_the_place_is_a_lost_place(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Nothing of ours is written, and it was never in doubt."""
    with bench_at(tmp_path / "log") as bench:
        bench.cloud.put(0, frame_after(bench.log.tail, "another's"))
        with pytest.raises(LostPlace):
            await bench.log.append(0, frame_after(bench.log.tail))
        assert (bench.log.tail.seq, bench.log.place, bench.doubts, len(bench.cloud.frames)) == (0, 0, [], 1)


async def test_a_lost_answer_is_no_loss(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """The same bytes are found at the place: they count once."""
    with bench_at(tmp_path / "log") as bench:
        bench.stream.loses_answers = 1
        await bench.log.append(0, frame_after(bench.log.tail))
        assert (len(bench.cloud.frames), bench.log.place) == (1, 1)


async def test_silence_ends_nothing(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """After the patience it is in doubt; an hour later, with the servers back, the frame has its place, once."""
    with bench_at(tmp_path / "log") as bench:
        bench.cloud.cut("a")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.log.append, 0, frame_after(bench.log.tail))
            await trio.sleep(3_600)
            assert bench.log.tail.seq == 0
            assert bench.doubts
            assert None not in bench.doubts
            bench.cloud.mend("a")
        assert (len(bench.cloud.frames), bench.log.place, bench.doubts[-1]) == (1, 1, None)


async def test_a_frame_that_comes_late_behind_another_leader_has_no_place(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """The epoch of another is at its place when the paused frame gets there."""
    with bench_at(tmp_path / "log") as bench:

        async def another_leads() -> None:
            await trio.sleep(30)
            assert bench.cloud.late
            bench.cloud.put(0, frame_after(bench.log.tail, "another's"))
            bench.cloud.mend("a")

        bench.cloud.cut("a")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(another_leads)
            lost = None
            try:
                await bench.log.append(0, frame_after(bench.log.tail))
            except LostPlace as fault:
                lost = fault
        assert lost is not None
        assert (len(bench.cloud.frames), bench.log.tail.seq) == (1, 0)


async def test_nothing_is_sent_that_our_disk_could_refuse(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next segment does not fit: the stream has nothing of the frame."""
    frame = frame_after(Cloud().origin.tail)
    with bench_at(tmp_path / "log", segment_bytes=SEGMENT_HEADER_BYTES + len(frame) + 8) as bench:
        await bench.log.append(0, frame)

        def full(*_: object) -> None:
            raise DiskFull("the next segment does not fit", path="log/2.log", seq=2)

        monkeypatch.setattr(bench.local, "_begin_segment", full)
        with pytest.raises(DiskFull):
            await bench.log.append(1, frame_after(bench.log.tail))
        assert (len(bench.cloud.frames), bench.log.place) == (1, 1)


async def test_a_purged_place_is_in_doubt_before_it_is_lost(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Our frame may have been there."""
    with bench_at(tmp_path / "log") as bench:
        frame = frame_after(bench.log.tail)
        bench.cloud.put(0, frame)
        bench.cloud.frames.append(b"later")
        bench.cloud.purge(2)
        with pytest.raises(LostPlace):
            await bench.log.append(0, frame)
        assert bench.doubts == ["its place on the stream is purged", None]


async def test_a_stream_that_lost_frames_is_refused(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """Not at once: a server that was cut off says the same for a while."""
    with bench_at(tmp_path / "log") as bench:
        await bench.log.append(0, frame_after(bench.log.tail))
        bench.cloud.frames.clear()
        sent: list[int] = []
        bench.stream.on_place = sent.append
        with pytest.raises(StreamRefused, match=r"ends before place 1"):
            await bench.log.append(1, frame_after(bench.log.tail))
        assert len(sent) == SHORT_ANSWERS_MAX


async def fill(cloud: Cloud, count: int) -> list[Tail]:
    """Place frames of one event each; give the tail after each, the origin first."""
    tails = [cloud.origin.tail]
    for _ in range(count):
        frame = frame_after(tails[-1])
        assert cloud.put(len(cloud.frames), frame)
        header = unpack_header(frame)
        tails.append(Tail(tails[-1].log_id, header.epoch, header.last_seq, header.checksum))
    return tails


async def test_every_tail_has_its_place_also_after_a_purge() -> None:
    """Bisection finds it; what is purged is told with the oldest place that is left."""
    cloud = Cloud()
    tails = await fill(cloud, 9)
    stream = cloud.stream("a")
    assert [await place_of(stream, tail) for tail in tails] == list(range(10))
    assert [await last_at(stream, seq) for seq in range(12)] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9]
    cloud.purge(5)
    assert [await place_of(stream, tail) for tail in tails[4:]] == list(range(4, 10))
    for tail in tails[:4]:
        with pytest.raises(PlacePurged):
            await place_of(stream, tail)


async def test_a_log_of_another_history_has_no_place() -> None:
    """Another id, another checksum; and a stream that ends before is asked again later."""
    cloud = Cloud()
    tails = await fill(cloud, 3)
    stream = cloud.stream("a")
    for wrong in (
        Tail(b"another log id..", tails[2].epoch, tails[2].seq, tails[2].checksum),
        Tail(tails[2].log_id, tails[2].epoch, tails[2].seq, tails[2].checksum ^ 1),
        Tail(tails[0].log_id, tails[0].epoch, tails[0].seq, tails[0].checksum ^ 1),
    ):  # fmt: skip
        with pytest.raises(StreamRefused) as refused:
            await place_of(stream, wrong)
        assert refused.value.key == "quorum.stream"
    with pytest.raises(Unanswered, match="ends at seq 3"):
        await place_of(stream, Tail(tails[3].log_id, 9, 4, 7))


async def test_the_ends_of_the_model_are_those_of_a_stream() -> None:
    """Empty, filled, purged."""
    cloud = Cloud()
    stream = cloud.stream("a")
    bounds = await stream.bounds()
    assert (bounds.first, bounds.last, bounds.bytes) == (1, 0, 0)
    await fill(cloud, 3)
    cloud.purge(3)
    bounds = await stream.bounds()
    assert (bounds.first, bounds.last) == (3, 3)
