"""A log that takes another's frames: the same bytes, each durable before the next, and nothing that does not follow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from engine.disk import RealDisk
from engine.errors import NoLongerKept, WriteFailed
from engine.log import Log
from engine.record import FrameFault, ProvedFrame, Tail, frame_bytes, pack_frame, prove_frame, unpack_frame
from tests.engine.faulty_disk import FaultyDisk
from tests.engine.logs import LOG_ID, SEGMENT_BYTES, Opened, append, increments


def leader(directory: Path, frames: int = 20) -> tuple[Log, list[bytes]]:
    log = Log.create(RealDisk(), str(directory / "leader"), log_id=LOG_ID, segment_bytes=SEGMENT_BYTES)
    append(log, frames)
    return log, [frame_bytes(frame) for frame in log.read_from(1)]


def follower(directory: Path, disk: FaultyDisk | None = None) -> Log:
    return Log.create(disk or RealDisk(), str(directory / "follower"), log_id=LOG_ID, segment_bytes=SEGMENT_BYTES)


def proved(frames: list[bytes]) -> list[ProvedFrame]:
    return [prove_frame(data) for data in frames]


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def test_the_bytes_of_a_frame_are_those_on_disk(tmp_path: Path) -> None:
    """Whether they come from the append itself or are made again from what was read."""
    log, _ = leader(tmp_path, 3)
    synced = log.append(increments(13, 2), 1)
    frame = next(log.read_from(13))
    assert frame_bytes(frame) == synced.frame
    assert synced.frame in (tmp_path / "leader" / "00000000000000000001.log").read_bytes()


def test_a_log_of_anothers_frames_is_the_same_files(tmp_path: Path) -> None:
    """Segments, heads, frames: byte for byte, so what proves the one proves the other."""
    source, frames = leader(tmp_path)
    log = follower(tmp_path)
    synced = log.append_frames(proved(frames[:7])) + log.append_frames(proved(frames[7:]))
    assert [each.frame for each in synced] == frames
    assert log.tail == source.tail
    assert len(files(tmp_path / "leader")) > 2
    assert files(tmp_path / "follower") == files(tmp_path / "leader")


def test_each_frame_is_synced_before_the_next_is_written(tmp_path: Path) -> None:
    """So a crash leaves at most one torn frame, which is what recovery takes for a torn tail."""
    _, frames = leader(tmp_path, 4)
    disk = FaultyDisk()
    log = follower(tmp_path, disk)
    disk.steps.clear()
    log.append_frames(proved(frames))
    assert [step for step, _ in disk.steps] == ["write", "sync"] * 4


@pytest.mark.parametrize("step", range(8))
def test_a_crash_at_any_step_leaves_a_log_that_opens(tmp_path: Path, step: int) -> None:
    """With the frames that were told as durable, and perhaps the one in flight."""
    _, frames = leader(tmp_path, 4)
    disk = FaultyDisk()
    log = follower(tmp_path, disk)
    disk.crash_at(step)
    with pytest.raises(BaseException, match=r"write|sync"):
        log.append_frames(proved(frames))
    log.close()
    opened = Opened(tmp_path / "follower")
    assert log.tail.seq <= opened.log.tail.seq <= log.tail.seq + 4
    opened.log.append_frames(proved(frames[opened.log.tail.seq // 4 :]))
    assert opened.log.tail.seq == 16


def flipped(data: bytes) -> bytes:
    return data[:60] + bytes([data[60] ^ 1]) + data[61:]


@pytest.mark.parametrize(
    ("what", "wrong", "fault"),
    [
        ("one missing", lambda frames: frames[3], ValueError),
        ("one doubled", lambda frames: frames[1], ValueError),
        ("another history", lambda frames: pack_frame(increments(9, 4, user="other"), epoch=1, previous=1), ValueError),
        (
            "an older epoch",
            lambda frames: pack_frame(increments(9, 4), epoch=1, previous=unpack_frame(frames[1]).checksum),
            ValueError,
        ),
    ],
)
def test_what_does_not_follow_is_not_written(
    tmp_path: Path, what: str, wrong: Callable[[list[bytes]], bytes], fault: type[Exception]
) -> None:
    """And the log goes on with the right one."""
    _, frames = leader(tmp_path, 4)
    log = follower(tmp_path)
    if what == "an older epoch":
        log.tail = Tail(LOG_ID, 2, 0, log.tail.checksum)
        frames = [pack_frame(increments(seq, 4), epoch=2, previous=0) for seq in (1, 5, 9)]
        frames[0] = pack_frame(increments(1, 4), epoch=2, previous=log.tail.checksum)
        frames[1] = pack_frame(increments(5, 4), epoch=2, previous=unpack_frame(frames[0]).checksum)
        frames[2] = pack_frame(increments(9, 4), epoch=2, previous=unpack_frame(frames[1]).checksum)
    with pytest.raises(fault):
        log.append_frames(proved([*frames[:2], wrong(frames)]))
    assert log.tail.seq == 8
    log.append_frames(proved([frames[2]]))
    assert log.tail.seq == 12


@pytest.mark.parametrize("wrong", [flipped, lambda frame: frame + b"x"], ids=["flipped", "longer"])
def test_what_is_not_exactly_a_frame_is_not_proved(tmp_path: Path, wrong: Callable[[bytes], bytes]) -> None:
    """So no log ever sees it: it takes proved frames only."""
    _, frames = leader(tmp_path, 1)
    assert prove_frame(frames[0]).data == frames[0]
    with pytest.raises(FrameFault):
        prove_frame(wrong(frames[0]))


def test_a_failed_sync_is_final(tmp_path: Path) -> None:
    """As for the leader's own appends."""
    _, frames = leader(tmp_path, 3)
    disk = FaultyDisk()
    log = follower(tmp_path, disk)
    log.append_frames(proved(frames[:1]))
    disk.fail("sync", ".log")
    with pytest.raises(WriteFailed):
        log.append_frames(proved(frames[1:]))
    disk.before = None
    with pytest.raises(WriteFailed):
        log.append_frames(proved(frames[1:]))
    assert log.tail.seq == 4


def test_a_log_goes_on_after_a_place_further_on(tmp_path: Path) -> None:
    """What it had is set aside; it opens again from the snapshot's place, and takes what follows there."""
    _, frames = leader(tmp_path, 20)
    log = follower(tmp_path)
    log.append_frames(proved(frames[:3]))
    before = files(tmp_path / "follower")
    place = unpack_frame(frames[9])
    tail = Tail(LOG_ID, 1, place.last_seq, place.checksum)
    log.restart(tail, str(tmp_path / "aside"))
    assert files(tmp_path / "aside") == before
    with pytest.raises(NoLongerKept):
        log.read_from(1)
    log.append_frames(proved(frames[10:]))
    assert [frame_bytes(frame) for frame in log.read_from(41)] == frames[10:]
    assert log.segments()[0].first_seq == 41
    log.close()
    opened = Opened(tmp_path / "follower", after=tail)
    assert opened.seqs == list(range(41, 81))


@pytest.mark.parametrize("step", range(7))
def test_a_restart_that_is_cut_short_leaves_the_old_log_or_none(tmp_path: Path, step: int) -> None:
    """Never a part of one: none is what a replica knows how to begin from."""
    _, frames = leader(tmp_path, 10)
    disk = FaultyDisk()
    log = follower(tmp_path, disk)
    log.append_frames(proved(frames[:3]))
    place = unpack_frame(frames[9])
    disk.crash_at(step)
    with pytest.raises(BaseException, match=r"\w"):
        log.restart(Tail(LOG_ID, 1, place.last_seq, place.checksum), str(tmp_path / "aside"))
    segments = list((tmp_path / "follower").glob("*.log")) if (tmp_path / "follower").exists() else []
    if (tmp_path / "aside").exists():
        assert [path.name for path in segments] in ([], ["00000000000000000041.log"])
    else:
        assert Opened(tmp_path / "follower").log.tail.seq == 12
