"""Creating a log and appending to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.disk import RealDisk
from engine.errors import DiskFault, NoLongerKept, WriteFailed
from engine.events import EpochBegun
from engine.log import Log, Tail
from engine.log_reader import holds_log
from engine.record import SEGMENT_HEADER_BYTES, SegmentHeader, chain_start, pack_frame, unpack_segment_header
from tests.engine.faulty_disk import Crash, FaultyDisk
from tests.engine.logs import LOG_ID, SEGMENT_BYTES, Opened, append, increments, make_log


def test_what_is_appended_is_there_after_opening_again(tmp_path: Path) -> None:
    """Over several segments: every event, in order, and the tail where it was."""
    disk = RealDisk()
    log = Log.create(disk, str(tmp_path), log_id=LOG_ID, segment_bytes=SEGMENT_BYTES)
    assert log.tail == Tail(log_id=LOG_ID, epoch=1, seq=0, checksum=chain_start(LOG_ID))
    append(log, 30)
    tail, segments = log.tail, log.segments()
    assert len(segments) > 3
    log.close()
    opened = Opened(tmp_path)
    assert opened.seqs == list(range(1, 121))
    assert opened.log.tail == tail
    assert opened.log.segments() == segments
    assert opened.findings == []
    append(opened.log, 1)
    opened.log.close()
    assert Opened(tmp_path).seqs == list(range(1, 125))


def test_an_append_is_one_write_and_one_sync(tmp_path: Path) -> None:
    """Into space that was laid out before; and it tells what it cost."""
    disk = FaultyDisk()
    log = Log.create(disk, str(tmp_path), log_id=LOG_ID, segment_bytes=SEGMENT_BYTES)
    disk.steps.clear()
    synced = log.append(increments(1, 3), 1)
    name = "00000000000000000001.log"
    assert disk.steps == [("write", name), ("sync", name)]
    assert synced.bytes == len(pack_frame(increments(1, 3), epoch=1, previous=chain_start(LOG_ID)))
    assert synced.seconds > 0
    assert (tmp_path / name).stat().st_size == SEGMENT_BYTES


def test_a_full_segment_is_followed_by_a_new_one_before_the_frame_is_written(tmp_path: Path) -> None:
    """The new one is whole and durable first; it names the one before, and continues its chain."""
    disk = FaultyDisk()
    log = Log.create(disk, str(tmp_path), log_id=LOG_ID, segment_bytes=SEGMENT_BYTES)
    while len(log.segments()) == 1:
        before = log.tail
        disk.steps.clear()
        append(log, 1)
    name = f"{before.seq + 1:020d}.log"
    steps = ["create", "preallocate", "write", "sync", "rename", "sync_directory", "write", "sync"]
    assert [step for step, _ in disk.steps] == steps
    assert [file for _, file in disk.steps[-2:]] == [name, name]
    header = unpack_segment_header((tmp_path / name).read_bytes())
    assert header == SegmentHeader(LOG_ID, before.seq + 1, 1, before.checksum, before=1)


def test_a_frame_longer_than_a_segment_gets_one_to_itself(tmp_path: Path) -> None:
    """However the frames around it fall."""
    log = Log.create(RealDisk(), str(tmp_path), log_id=LOG_ID, segment_bytes=SEGMENT_BYTES)
    log.append(increments(1, 200), 1)
    log.append(increments(201, 1), 1)
    log.append(increments(202, 200), 1)
    log.append(increments(402, 1), 1)
    assert [(info.first_seq, info.last_seq) for info in log.segments()] == [
        (1, 200),
        (201, 201),
        (202, 401),
        (402, 402),
    ]
    log.close()
    assert Opened(tmp_path).seqs == list(range(1, 403))


def test_a_new_epoch_stays_the_epoch_of_what_follows(tmp_path: Path) -> None:
    """It is in the frames, in the tail, and in the heads of later segments; it never goes back."""
    log = Log.create(RealDisk(), str(tmp_path), log_id=LOG_ID, segment_bytes=SEGMENT_BYTES)
    log.append(increments(1, 1), 1)
    log.append([EpochBegun(2, 1_700_000_000_001, 2, "promoted")], 2)
    append(log, 12)
    with pytest.raises(AssertionError):
        log.append(increments(log.tail.seq + 1, 1), 1)
    log.close()
    opened = Opened(tmp_path)
    assert opened.log.tail.epoch == 2
    assert [frame.epoch for frame in opened.log.read_from(1)][:3] == [1, 2, 2]
    assert unpack_segment_header(Path(opened.log.segments()[-1].path).read_bytes()).epoch == 2


def test_events_that_do_not_follow_are_our_own_bug(tmp_path: Path) -> None:
    """Nothing is written, and the log is as good as before."""
    log = Log.create(RealDisk(), str(tmp_path), log_id=LOG_ID, segment_bytes=SEGMENT_BYTES)
    with pytest.raises(AssertionError):
        log.append(increments(2, 1), 1)
    with pytest.raises(ValueError, match="too much for one frame"):
        log.append(increments(1, 9000), 1)
    log.append(increments(1, 1), 1)
    assert log.tail.seq == 1


@pytest.mark.parametrize("step", ["write", "sync"])
def test_a_failed_append_is_final(tmp_path: Path, step: str) -> None:
    """It says path, offset and seq; every later one fails too, and the disk is not asked again."""
    disk = FaultyDisk()
    log = Log.create(disk, str(tmp_path), log_id=LOG_ID, segment_bytes=SEGMENT_BYTES)
    end = SEGMENT_HEADER_BYTES + log.append(increments(1, 2), 1).bytes
    disk.fail(step, ".log")
    path = str(tmp_path / "00000000000000000001.log")
    with pytest.raises(WriteFailed, match=f"can't {step}: Input/output error") as caught:
        log.append(increments(3, 2), 1)
    assert (caught.value.path, caught.value.offset, caught.value.seq) == (path, end, 3)
    disk.before = None
    disk.steps.clear()
    for _ in range(2):
        with pytest.raises(WriteFailed) as again:
            log.append(increments(3, 2), 1)
        assert (again.value.path, again.value.offset, again.value.seq) == (path, end, 3)
    assert disk.steps == []
    assert log.tail.seq == 2
    assert [frame.last_seq for frame in log.read_from(1)] == [2]
    log.close()
    assert Opened(tmp_path).seqs[:2] == [1, 2]


@pytest.mark.parametrize("step", ["create", "preallocate", "sync", "rename", "sync_directory"])
def test_a_segment_that_can_not_be_begun_is_a_failed_append(tmp_path: Path, step: str) -> None:
    """Also where nothing of the frame was written: the process ends either way, and opening tidies up."""
    disk = FaultyDisk()
    log = Log.create(disk, str(tmp_path), log_id=LOG_ID, segment_bytes=SEGMENT_BYTES)
    end = SEGMENT_HEADER_BYTES
    while end + (size := log.append(increments(log.tail.seq + 1, 4), 1).bytes) + size <= SEGMENT_BYTES:
        end += size
    disk.fail(step, {"rename": ".log", "sync_directory": ""}.get(step, ".tmp"))
    seq = log.tail.seq
    with pytest.raises(WriteFailed) as caught:
        log.append(increments(seq + 1, 4), 1)
    assert caught.value.seq == seq + 1
    with pytest.raises(WriteFailed):
        log.append(increments(seq + 1, 4), 1)
    log.close()
    opened = Opened(tmp_path)
    assert opened.log.tail.seq == seq
    append(opened.log, 1)


def test_an_append_that_was_cut_short_is_final_too(tmp_path: Path) -> None:
    """An interrupt between write and sync leaves it as unknown as a fault of the disk would."""
    disk = FaultyDisk()
    log = Log.create(disk, str(tmp_path), log_id=LOG_ID, segment_bytes=SEGMENT_BYTES)
    disk.crash_at(1)
    with pytest.raises(Crash):
        log.append(increments(1, 1), 1)
    disk.before = None
    with pytest.raises(WriteFailed, match="cut short"):
        log.append(increments(1, 1), 1)


def test_a_closed_log_takes_nothing(tmp_path: Path) -> None:
    """Closing twice does no harm."""
    log = Log.create(RealDisk(), str(tmp_path), log_id=LOG_ID, segment_bytes=SEGMENT_BYTES)
    log.close()
    log.close()
    with pytest.raises(WriteFailed):
        log.append(increments(1, 1), 1)


def test_a_log_is_created_where_there_is_none(tmp_path: Path) -> None:
    """What an interrupted creation left is tidied; a log that is there is not touched."""
    directory = tmp_path / "data" / "log"
    assert not holds_log(RealDisk(), str(directory))
    directory.mkdir(parents=True)
    (directory / "00000000000000000001.log.tmp").write_bytes(b"half")
    assert not holds_log(RealDisk(), str(directory))
    make_log(directory, 1)
    assert holds_log(RealDisk(), str(directory))
    with pytest.raises(DiskFault, match="a log here already"):
        Log.create(RealDisk(), str(directory), log_id=LOG_ID)
    assert Opened(directory).seqs == [1, 2, 3, 4]


def test_a_log_may_go_on_from_the_tail_of_another(tmp_path: Path) -> None:
    """As a restored one does: the chain goes on, and it opens only after that tail."""
    make_log(tmp_path / "old", 2)
    old = Opened(tmp_path / "old").log
    log = Log.create(RealDisk(), str(tmp_path / "new"), log_id=LOG_ID, tail=old.tail, segment_bytes=SEGMENT_BYTES)
    assert log.tail == old.tail
    append(log, 1)
    log.close()
    assert Opened(tmp_path / "new", after=old.tail).seqs == [9, 10, 11, 12]
    with pytest.raises(NoLongerKept):
        log.read_from(8)


def test_statistics_tell_how_much_there_is(tmp_path: Path) -> None:
    """Segments and bytes on disk, appends and records since the opening."""
    make_log(tmp_path, 30)
    log = Opened(tmp_path).log
    append(log, 2)
    statistics = log.statistics()
    assert statistics.segments == len(log.segments())
    assert statistics.bytes == sum(path.stat().st_size for path in tmp_path.iterdir())
    assert (statistics.appends, statistics.records) == (2, 8)
    assert (statistics.first_seq, statistics.last_seq) == (1, 128)
