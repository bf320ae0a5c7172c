"""The log: appending, and one test for each row of the recovery table, with the damage made in real files."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import google_crc32c
import msgspec
import pytest

from engine.disk import RealDisk, RealFile
from engine.errors import DiskFault, LogDamaged, NoLongerKept, WriteFailed
from engine.events import EpochBegun, Incremented
from engine.limits import SEGMENT_BYTES as SEGMENT_BYTES_REAL
from engine.log import Log, SegmentInfo, Tail
from engine.log_reader import holds_log, scan
from engine.record import (
    HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    SegmentHeader,
    chain_start,
    events_of,
    pack_frame,
    pack_segment_header,
    unpack_segment_header,
)
from engine.recovery import TABLE, Situation
from tests.engine.faulty_disk import Crash, FaultyDisk
from tests.engine.logs import (
    LOG_ID,
    OTHER_LOG_ID,
    SEGMENT_BYTES,
    Opened,
    append,
    flip,
    frames_in,
    increments,
    make_log,
    overwrite,
    tail_after,
)

# Appending


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


# Reading a log that is open


def test_reading_begins_with_the_frame_that_holds_the_seq(tmp_path: Path) -> None:
    """From any seq, over the segments that follow, to what is durable."""
    make_log(tmp_path, 30)
    log = Opened(tmp_path).log
    for seq in range(1, 121):
        frames = list(log.read_from(seq))
        assert frames[0].first_seq <= seq <= frames[0].last_seq
        assert [frame.first_seq for frame in frames] == list(range(frames[0].first_seq, 121, 4))
    assert list(log.read_from(121)) == []


def test_each_event_is_found_in_plain_and_compressed_segments(tmp_path: Path) -> None:
    """The receipt of an action is read back from wherever it lies."""
    make_log(tmp_path, 30)
    log = Opened(tmp_path).log
    log.compress(log.segments()[1])
    for seq in range(1, 121):
        frame, event = log.event_at(seq)
        assert isinstance(event, Incremented)
        assert (event.seq, event.action_id) == (seq, f"action-{seq:08d}")
        assert event in events_of(frame)


class CountingDisk(RealDisk):
    """A real disk that counts what is read."""

    def __init__(self) -> None:
        self.bytes_read = 0

    def open(self, path: str, *, write: bool = False) -> RealFile:
        """Open a file whose reads are counted."""
        file = super().open(path, write=write)
        read_at = file.read_at

        def counted(offset: int, length: int) -> bytes:
            data = read_at(offset, length)
            self.bytes_read += len(data)
            return data

        file.read_at = counted  # type: ignore[method-assign]
        return file


@pytest.mark.parametrize("per_frame", [1, 3, 900])
def test_one_event_is_found_without_reading_the_segment(tmp_path: Path, per_frame: int) -> None:
    """Some pieces on the way, proved like all that is read, whatever the length of the segment and of its frames."""
    disk = CountingDisk()
    log = Log.create(disk, str(tmp_path), log_id=LOG_ID, segment_bytes=SEGMENT_BYTES_REAL)
    append(log, 9000 // per_frame, per_frame=per_frame)
    frames = list(log.read_from(1))
    for seq in (1, 2, 3, 4500, 8998, 8999, 9000):
        disk.bytes_read = 0
        frame, event = log.event_at(seq)
        assert frame in frames
        assert event.seq == seq
        assert disk.bytes_read < 2**20 < SEGMENT_BYTES_REAL // 8


@pytest.mark.parametrize("inside", [0, 9, 20, HEADER_BYTES + 3])
def test_one_event_whose_frame_is_damaged_is_told_as_by_reading_all(tmp_path: Path, inside: int) -> None:
    """What the search can't make sense of is judged by the same rules as everything else."""
    make_log(tmp_path, 30)
    log = Opened(tmp_path).log
    second = segments_of(tmp_path)[1]
    offset, _, frame = frames_in(second)[3]
    flip(second, offset + inside)
    assert log.event_at(frame.first_seq - 1)[1].seq == frame.first_seq - 1
    with pytest.raises(LogDamaged) as caught:
        log.event_at(frame.first_seq)
    assert place(caught.value) == (str(second), offset, frame.first_seq)


@pytest.mark.parametrize("damage", [lambda path: flip(path, 20), lambda path: path.write_bytes(b"")])
def test_one_event_of_a_segment_whose_head_is_damaged_is_told_too(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    """Nothing is believed of a segment that does not prove whose it is."""
    make_log(tmp_path, 30)
    log = Opened(tmp_path).log
    second = segments_of(tmp_path)[1]
    damage(second)
    with pytest.raises(LogDamaged, match="head of a segment"):
        log.event_at(int(second.stem) + 1)


def test_reading_ends_at_what_is_durable(tmp_path: Path) -> None:
    """A frame that is being written is not given, though its bytes are there."""
    disk = FaultyDisk()
    log = Log.create(disk, str(tmp_path), log_id=LOG_ID, segment_bytes=SEGMENT_BYTES)
    log.append(increments(1, 2), 1)
    seen: list[list[int]] = []

    def before(step: str, path: str) -> None:
        if step == "sync":
            seen.append([frame.last_seq for frame in log.read_from(1)])

    disk.before = before
    log.append(increments(3, 2), 1)
    assert seen == [[2]]
    assert [frame.last_seq for frame in log.read_from(1)] == [2, 4]


def test_a_reader_is_not_disturbed_by_compression_and_appends(tmp_path: Path) -> None:
    """It goes on with the segments of when it began, in the form that they have by then."""
    make_log(tmp_path, 30)
    log = Opened(tmp_path).log
    reader = log.read_from(1)
    seqs = [next(reader).first_seq]
    for info in log.segments()[:-1]:
        log.compress(info)
    append(log, 10)
    seqs += [frame.first_seq for frame in reader]
    assert seqs == list(range(1, 121, 4))


def test_damage_under_an_open_log_is_told(tmp_path: Path) -> None:
    """A reader of the leader's own log checks what it reads, too."""
    make_log(tmp_path, 30)
    log = Opened(tmp_path).log
    first = Path(log.segments()[0].path)
    offset, _, frame = frames_in(first)[2]
    flip(first, offset + HEADER_BYTES + 3)
    with pytest.raises(LogDamaged) as caught:
        list(log.read_from(1))
    assert (caught.value.path, caught.value.offset, caught.value.seq) == (str(first), offset, frame.first_seq)


# Compressing and removing


def test_compression_keeps_every_event_and_lets_the_plain_file_go(tmp_path: Path) -> None:
    """The compressed one is durable before the plain one is removed."""
    make_log(tmp_path, 30)
    disk = FaultyDisk()
    log = Opened(tmp_path, disk=disk).log
    info = log.segments()[0]
    disk.steps.clear()
    compressed = log.compress(info)
    name = "00000000000000000001.log"
    assert [step for step in disk.steps if step[0] != "write"] == [
        ("create", f"{name}.gz.tmp"),
        ("sync", f"{name}.gz.tmp"),
        ("rename", f"{name}.gz"),
        ("sync_directory", tmp_path.name),
        ("remove", name),
        ("sync_directory", tmp_path.name),
    ]
    size = (tmp_path / f"{name}.gz").stat().st_size
    assert compressed == SegmentInfo(f"{tmp_path}/{name}.gz", 1, info.last_seq, True, True, size)
    assert log.segments()[0] == compressed
    assert log.compress(compressed) == compressed
    log.close()
    assert Opened(tmp_path).seqs == list(range(1, 121))


def test_only_a_whole_sealed_segment_is_compressed(tmp_path: Path) -> None:
    """Not the one that is written to, not one of another log, not a damaged one: that stays as it is."""
    make_log(tmp_path, 30)
    log = Opened(tmp_path).log
    with pytest.raises(ValueError, match="not a sealed segment"):
        log.compress(log.segments()[-1])
    with pytest.raises(ValueError, match="not a sealed segment"):
        log.compress(msgspec.structs.replace(log.segments()[0], first_seq=2))
    first = Path(log.segments()[0].path)
    flip(first, frames_in(first)[3][0] + 50)
    before = first.read_bytes()
    with pytest.raises(LogDamaged):
        log.compress(log.segments()[0])
    assert first.read_bytes() == before
    assert not Path(f"{first}.gz").exists()


def test_the_last_time_of_a_segment_is_told(tmp_path: Path) -> None:
    """For a retention that goes by age."""
    make_log(tmp_path, 30)
    log = Opened(tmp_path).log
    info = log.segments()[1]
    assert log.last_time_ms(info) == 1_700_000_000_000 + info.last_seq - 3


def test_removal_takes_the_oldest_and_never_makes_a_gap(tmp_path: Path) -> None:
    """Whatever seq is named: what stays begins with a whole segment, and the one written to stays."""
    make_log(tmp_path, 30)
    disk = FaultyDisk()
    log = Opened(tmp_path, disk=disk).log
    infos = log.segments()
    assert log.remove_before(infos[1].first_seq - 1) == []
    disk.steps.clear()
    assert log.remove_before(infos[2].first_seq + 1) == infos[:2]
    one_removal = ["remove", "sync_directory"]
    assert [step for step, _ in disk.steps] == ["sync_directory", *one_removal * 2]
    assert log.segments() == infos[2:]
    assert log.statistics().first_seq == infos[2].first_seq
    with pytest.raises(NoLongerKept) as caught:
        log.read_from(infos[2].first_seq - 1)
    assert caught.value.first_seq == infos[2].first_seq
    with pytest.raises(NoLongerKept):
        log.event_at(1)
    assert log.event_at(infos[2].first_seq)[1].seq == infos[2].first_seq
    assert log.remove_before(10**9) == infos[2:-1]
    assert log.segments() == infos[-1:]
    append(log, 1)


def test_a_removal_that_failed_comes_before_any_later_one(tmp_path: Path) -> None:
    """Or the segment that stayed would stand before a gap, and the next start would be refused."""
    directory, disk = tmp_path / "log", FaultyDisk()
    log = Log.create(disk, str(directory), log_id=LOG_ID, segment_bytes=SEGMENT_BYTES)
    append(log, 40)
    infos = log.segments()
    disk.fail("remove", ".log")
    for _ in range(2):
        with pytest.raises(WriteFailed):
            log.remove_before(infos[2].first_seq)
    disk.before = None
    assert log.segments() == infos
    assert log.remove_before(infos[3].first_seq) == infos[:3]
    assert sorted(str(path) for path in directory.iterdir()) == [info.path for info in infos[3:]]
    log.close()


def test_a_removal_that_may_not_be_on_disk_is_made_durable_before_the_next(tmp_path: Path) -> None:
    """The sync after it failed: a power cut could bring it back, and must not find a gap behind it."""
    directory, disk = tmp_path / "log", FaultyDisk()
    log = Log.create(disk, str(directory), log_id=LOG_ID, segment_bytes=SEGMENT_BYTES)
    append(log, 40)
    infos = log.segments()
    log.remove_before(infos[1].first_seq)
    removals = 0

    def before(step: str, path: str) -> None:
        nonlocal removals
        removals += step == "remove"
        if step == "sync_directory" and removals:
            raise WriteFailed("can't sync the directory", path=path)

    disk.before = before
    with pytest.raises(WriteFailed):
        log.remove_before(infos[2].first_seq)
    disk.before = None
    disk.steps.clear()
    assert log.segments() == infos[2:]
    assert log.remove_before(infos[4].first_seq) == infos[2:4]
    assert [step for step, _ in disk.steps] == ["sync_directory", *["remove", "sync_directory"] * 2]
    log.close()


def test_a_plain_segment_that_could_not_be_removed_goes_with_its_compressed_form(tmp_path: Path) -> None:
    """Retention must not leave it behind, before a gap."""
    directory, disk = tmp_path / "log", FaultyDisk()
    log = Log.create(disk, str(directory), log_id=LOG_ID, segment_bytes=SEGMENT_BYTES)
    append(log, 40)
    infos = log.segments()
    disk.fail("remove", ".log")
    with pytest.raises(WriteFailed):
        log.compress(infos[0])
    disk.before = None
    assert Path(infos[0].path).exists()
    assert [frame.first_seq for frame in log.read_from(1)][:3] == [1, 5, 9]
    log.remove_before(infos[2].first_seq)
    assert sorted(str(path) for path in directory.iterdir()) == [info.path for info in infos[2:]]
    log.close()


# The recovery table, row by row


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A log of 30 frames of four events, in several segments."""
    make_log(tmp_path / "data" / "log", 30)
    return tmp_path / "data" / "log"


def segments_of(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.log"))


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def refused(directory: Path, situation: Situation, *, after: Tail | None = None) -> LogDamaged:
    """Open a log that must be refused for this reason, and left as it is."""
    before = contents(directory)
    with pytest.raises(LogDamaged) as caught:
        Opened(directory, after=after)
    assert contents(directory) == before
    error = caught.value
    assert TABLE[situation].sentence in str(error)
    if "--until-seq" in error.remedy and situation not in {Situation.ENDS_EARLY, Situation.LOG_GONE}:
        # The command that is promised reads the log up to there, so that must work.
        assert error.seq is not None
        frames = list(scan(RealDisk(), str(directory), until_seq=error.seq - 1))
        assert frames[-1].last_seq >= error.seq - 1
    return error


def place(error: LogDamaged) -> tuple[str, int | None, int | None]:
    return error.path, error.offset, error.seq


def restores_to(error: LogDamaged, directory: Path, seq: int) -> bool:
    return f"`scoreboard restore --from {directory.parent} --to NEWDIR --until-seq {seq}`" in error.remedy


def test_clean_end(directory: Path) -> None:
    """All is well: nothing is told, nothing is cut."""
    names = set(contents(directory))
    opened = Opened(directory)
    assert opened.seqs == list(range(1, 121))
    assert opened.findings == []
    assert set(contents(directory)) == names


def torn_at(length: int) -> Callable[[bytes], bytes]:
    return lambda packed: packed[:length] + bytes(len(packed) - length)


def without_sector(packed: bytes) -> bytes:
    return packed[:400] + bytes(600) + packed[1000:]


@pytest.mark.parametrize("tear", [torn_at(1), torn_at(10), torn_at(48), torn_at(300), without_sector])
def test_torn_tail(directory: Path, tear: Callable[[bytes], bytes]) -> None:
    """The last frame is cut, kept in a side file, and told; the log goes on where it ended, as if it had never been."""
    last = segments_of(directory)[-1]
    tail = Opened(directory).log.tail
    end = frames_in(last)[-1][1]
    torn = tear(pack_frame(increments(121, 12), epoch=1, previous=tail.checksum))
    overwrite(last, end, torn)
    opened = Opened(directory)
    assert opened.seqs == list(range(1, 121))
    assert opened.log.tail == tail
    assert [(found.situation, found.path, found.offset, found.seq) for found in opened.findings] == [
        (Situation.TORN_TAIL, str(last), end, 121)
    ]
    side = Path(f"{last}.torn-{end}")
    assert side.read_bytes() == torn.rstrip(b"\0")
    assert str(side) in opened.findings[0].message
    assert not last.read_bytes()[end:].strip(b"\0")
    assert last.stat().st_size == SEGMENT_BYTES
    append(opened.log, 1)
    opened.log.close()
    again = Opened(directory)
    assert again.seqs == list(range(1, 125))
    assert again.findings == []


def test_torn_tail_of_a_file_that_is_too_short(directory: Path) -> None:
    """As a copy leaves it: the space is laid out again."""
    last = segments_of(directory)[-1]
    offset, end, frame = frames_in(last)[-1]
    with last.open("r+b") as file:
        file.truncate(end - 5)
    opened = Opened(directory)
    assert opened.log.tail.seq == frame.first_seq - 1
    assert opened.findings[0].offset == offset
    assert last.stat().st_size == SEGMENT_BYTES


def test_last_frame_damaged(directory: Path) -> None:
    """A flipped bit in a last frame that is all there: it may have been acknowledged, so it is not cut."""
    last = segments_of(directory)[-1]
    offset, end, frame = frames_in(last)[-1]
    flip(last, end - 20)
    error = refused(directory, Situation.LAST_FRAME_DAMAGED)
    assert place(error) == (str(last), offset, frame.first_seq)
    assert restores_to(error, directory, frame.first_seq - 1)


def test_damage_before_frames(directory: Path) -> None:
    """A flipped bit in a frame that others follow."""
    last = segments_of(directory)[-1]
    offset, _, frame = frames_in(last)[0]
    flip(last, offset + HEADER_BYTES + 9)
    error = refused(directory, Situation.DAMAGE_BEFORE_FRAMES)
    assert place(error) == (str(last), offset, frame.first_seq)
    assert restores_to(error, directory, frame.first_seq - 1)


@pytest.mark.parametrize("inside", [0, 5, 10, 20, 30, 60])
def test_sealed_segment_damaged(directory: Path, inside: int) -> None:
    """A flipped bit anywhere in a frame of an older segment, the last frame too."""
    sealed = segments_of(directory)[1]
    offset, _, frame = frames_in(sealed)[-1]
    flip(sealed, offset + inside)
    error = refused(directory, Situation.SEALED_DAMAGED)
    assert place(error) == (str(sealed), offset, frame.first_seq)
    assert restores_to(error, directory, frame.first_seq - 1)


def test_sealed_segment_damaged_in_its_compressed_form(directory: Path) -> None:
    """It can't be unpacked; what is good is what came before it."""
    log = Opened(directory).log
    info = log.compress(log.segments()[1])
    log.close()
    flip(Path(info.path), 100)
    error = refused(directory, Situation.SEALED_DAMAGED)
    assert place(error) == (info.path, None, info.first_seq)
    assert restores_to(error, directory, info.first_seq - 1)


def test_sealed_segment_cut_short(directory: Path) -> None:
    """Its last frames are zeros: they are missing, though the file is whole."""
    sealed = segments_of(directory)[1]
    offset, _, frame = frames_in(sealed)[-2]
    overwrite(sealed, offset, bytes(SEGMENT_BYTES - offset))
    error = refused(directory, Situation.FRAMES_MISSING)
    assert place(error) == (str(sealed), offset, frame.first_seq)
    assert restores_to(error, directory, frame.first_seq - 1)


@pytest.mark.parametrize("index", [0, 1, -1])
@pytest.mark.parametrize("damage", [lambda path: flip(path, 20), lambda path: path.write_bytes(b"")])
def test_header_damaged(directory: Path, index: int, damage: Callable[[Path], None]) -> None:
    """In any segment, flipped or empty; of the first one nothing before it is good."""
    path = segments_of(directory)[index]
    first_seq = int(path.stem)
    damage(path)
    error = refused(directory, Situation.HEADER_DAMAGED)
    assert place(error) == (str(path), 0, first_seq)
    assert restores_to(error, directory, first_seq - 1) is (index != 0)


def test_header_damaged_of_a_covered_segment(directory: Path) -> None:
    """A segment before the snapshot is not read, but its head is looked at."""
    tail = Opened(directory).log.tail
    flip(segments_of(directory)[0], 40)
    refused(directory, Situation.HEADER_DAMAGED, after=tail)


def test_frame_doubled(directory: Path) -> None:
    """The last frame once more behind itself."""
    last = segments_of(directory)[-1]
    offset, end, frame = frames_in(last)[-1]
    overwrite(last, end, last.read_bytes()[offset:end])
    error = refused(directory, Situation.FRAME_DOUBLED)
    assert place(error) == (str(last), end, frame.last_seq + 1)
    assert restores_to(error, directory, frame.last_seq)


def test_frame_moved(directory: Path) -> None:
    """Two frames of the same length, exchanged: the first of them stands too early."""
    sealed = segments_of(directory)[1]
    frames = frames_in(sealed)
    (one, one_end, frame), (two, two_end, _) = frames[2], frames[3]
    data = sealed.read_bytes()
    assert one_end - one == two_end - two
    overwrite(sealed, one, data[two:two_end] + data[one:one_end])
    error = refused(directory, Situation.FRAMES_MISSING)
    assert place(error) == (str(sealed), one, frame.first_seq)


def test_frame_lost(directory: Path) -> None:
    """What follows was moved up over it."""
    last = segments_of(directory)[-1]
    offset, end, frame = frames_in(last)[0]
    overwrite(last, offset, last.read_bytes()[end:] + bytes(end - offset))
    error = refused(directory, Situation.FRAMES_MISSING)
    assert place(error) == (str(last), offset, frame.first_seq)
    assert restores_to(error, directory, frame.first_seq - 1)


@pytest.mark.parametrize("index", [1, -1])
def test_frame_foreign(directory: Path, tmp_path: Path, index: int) -> None:
    """A frame of another log in the place of one with the same seqs: only the chain tells."""
    other = make_log(tmp_path / "other", 30, log_id=OTHER_LOG_ID)
    path = segments_of(directory)[index]
    offset, end, frame = frames_in(path)[0]
    foreign = next(item for item in other if item.name == path.name)
    overwrite(path, offset, foreign.read_bytes()[offset:end])
    error = refused(directory, Situation.FRAME_FOREIGN)
    assert place(error) == (str(path), offset, frame.first_seq)
    assert restores_to(error, directory, frame.first_seq - 1)


def test_segment_missing(directory: Path) -> None:
    """One from the middle: the head of the next one names it."""
    _, second, third, *_ = segments_of(directory)
    second.unlink()
    error = refused(directory, Situation.SEGMENT_MISSING)
    good = int(second.stem) - 1
    assert place(error) == (str(third), 0, good + 1)
    assert restores_to(error, directory, good)


def test_segment_missing_between_compressed_ones(directory: Path) -> None:
    """Of those only the names are looked at first, but the reading finds it."""
    log = Opened(directory).log
    first, second, third = [log.compress(info) for info in log.segments()[:3]]
    log.close()
    Path(second.path).unlink()
    error = refused(directory, Situation.SEGMENT_MISSING)
    assert place(error) == (third.path, 0, first.last_seq + 1)


def test_covered_segment_missing(directory: Path) -> None:
    """Before the snapshot: the state is whole, but the record is not; the remedy is another one, and it helps."""
    tail = Opened(directory).log.tail
    first, second, third, *_ = segments_of(directory)
    second.unlink()
    error = refused(directory, Situation.COVERED_MISSING, after=tail)
    assert place(error) == (str(third), 0, int(second.stem))
    assert f"begins at seq {int(third.stem)}" in error.remedy
    first.unlink()
    opened = Opened(directory, after=tail)
    assert opened.log.statistics().first_seq == int(third.stem)


def test_segment_stray(directory: Path, tmp_path: Path) -> None:
    """A segment of the same log as it was cut elsewhere, such as from another restored copy."""
    copy = Log.create(RealDisk(), str(tmp_path / "copy"), log_id=LOG_ID, segment_bytes=SEGMENT_BYTES * 2)
    append(copy, 30)
    name = Path(copy.segments()[1].path).name
    shutil.copy(copy.segments()[1].path, directory)
    before = [path for path in segments_of(directory) if path.name < name][-1]
    error = refused(directory, Situation.SEGMENT_STRAY)
    assert place(error) == (str(directory / name), 0, int(Path(name).stem))
    assert str(before) in error.what
    assert "out of the directory" in error.remedy


def test_segment_stray_among_compressed_ones(directory: Path) -> None:
    """Of those only the names are looked at first, but the one before it reaches past its name."""
    log = Opened(directory).log
    first = log.compress(log.segments()[0])
    log.close()
    stray = directory / f"{first.last_seq - 1:020d}.log.gz"
    shutil.copy(first.path, stray)
    error = refused(directory, Situation.SEGMENT_COPIED)
    assert error.path == str(stray)
    stray.unlink()
    assert Opened(directory).seqs == list(range(1, 121))


def test_segment_stray_between_two_that_follow_on(directory: Path, tmp_path: Path) -> None:
    """It names the same one before it as the one behind it does, whom nobody should move away."""
    first, second, *_ = segments_of(directory)
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(first, copy)
    overwrite(copy / first.name, frames_in(first)[-1][0], bytes(SEGMENT_BYTES - frames_in(first)[-1][0]))
    log = Opened(copy).log
    append(log, 9, per_frame=3)
    log.close()
    stray = segments_of(copy)[1]
    assert first.name < stray.name != second.name
    shutil.copy(stray, directory)
    error = refused(directory, Situation.SEGMENT_STRAY)
    assert error.path == str(directory / stray.name)
    (directory / stray.name).unlink()
    assert Opened(directory).seqs == list(range(1, 121))


@pytest.mark.parametrize("index", [0, 1, -1])
@pytest.mark.parametrize("compressed", [False, True])
def test_segment_renamed(directory: Path, index: int, compressed: bool) -> None:
    """It is nowhere else, so it must not be taken away: the remedy names it as it should be called, and that helps."""
    path = segments_of(directory)[index]
    if compressed and index >= 0:
        log = Opened(directory).log
        path = Path(log.compress(log.segments()[index]).path)
        log.close()
    renamed = path.with_name(f"{int(path.name[:20]) + 1:020d}{path.name[20:]}")
    path.rename(renamed)
    error = refused(directory, Situation.SEGMENT_RENAMED)
    assert place(error) == (str(renamed), 0, int(path.name[:20]))
    assert f"Rename it back to {path.name}." in error.remedy
    assert "out of the directory" not in error.remedy
    renamed.rename(path)
    assert Opened(directory).seqs == list(range(1, 121))


@pytest.mark.parametrize("distance", [1, 1000])
def test_segment_copied(directory: Path, distance: int) -> None:
    """A copy under another name is not the segment that the name says, and all before it is good."""
    second, third = segments_of(directory)[1:3]
    copied = directory / f"{int(second.stem) + distance:020d}.log"
    shutil.copy(second, copied)
    error = refused(directory, Situation.SEGMENT_COPIED)
    good = int(second.stem) if distance == 1 else 120
    assert place(error) == (str(copied), 0, good + 1)
    assert restores_to(error, directory, good)
    assert int(third.stem) > good or distance == 1000


def test_a_name_far_beyond_the_end_promises_nothing_that_is_not_there(directory: Path) -> None:
    """Junk under a segment's name: what is good ends where the log does, not where the name says."""
    junk = directory / f"{10**19:020d}.log"
    junk.write_bytes(b"junk")
    error = refused(directory, Situation.HEADER_DAMAGED)
    assert place(error) == (str(junk), 0, 121)
    assert restores_to(error, directory, 120)


def test_a_log_that_begins_late_promises_no_state_before_its_beginning(directory: Path) -> None:
    """Its first segment is damaged and nothing covers it: there is nothing to restore."""
    first, second, *_ = segments_of(directory)
    first.unlink()
    flip(second, 20)
    error = refused(directory, Situation.HEADER_DAMAGED)
    assert "--until-seq" not in error.remedy


def test_damage_before_the_snapshot_costs_nothing_after_it(directory: Path) -> None:
    """The remedy names no seq, as long as the damaged segment ends before the snapshot does."""
    tail = Opened(directory).log.tail
    second, third, *_, last = segments_of(directory)[1:]
    flip(second, 20)
    error = refused(directory, Situation.HEADER_DAMAGED, after=tail)
    assert "--to NEWDIR`" in error.remedy
    flip(second, 20)
    flip(last, 20)
    inside = tail_after([frame for _, _, frame in frames_in(segments_of(directory)[-2])], int(last.stem) - 1)
    assert restores_to(refused(directory, Situation.HEADER_DAMAGED, after=inside), directory, inside.seq)
    flip(last, 20)
    third.unlink()
    before = tail_after([frame for _, _, frame in frames_in(second)], int(third.stem) - 1)
    assert restores_to(refused(directory, Situation.SEGMENT_MISSING, after=before), directory, before.seq)


@pytest.mark.parametrize("index", [1, -1])
def test_segment_foreign(directory: Path, tmp_path: Path, index: int) -> None:
    """A segment of another log under the same name: the log id tells."""
    other = make_log(tmp_path / "other", 30, log_id=OTHER_LOG_ID)
    path = segments_of(directory)[index]
    shutil.copy(next(item for item in other if item.name == path.name), path)
    error = refused(directory, Situation.SEGMENT_FOREIGN)
    assert place(error) == (str(path), 0, int(path.stem))
    assert OTHER_LOG_ID.hex() in error.what


def test_the_whole_log_is_foreign_to_the_snapshot(directory: Path) -> None:
    """The log of another data directory under a snapshot of this one."""
    tail = msgspec.structs.replace(Opened(directory).log.tail, log_id=OTHER_LOG_ID)
    error = refused(directory, Situation.SNAPSHOT_FOREIGN, after=tail)
    assert error.path == str(segments_of(directory)[0])
    assert f"move the snapshot of seq {tail.seq} out of the directory" in error.remedy
    log = Opened(directory).log
    for info in log.segments()[:-1]:
        log.compress(info)
    log.close()
    refused(directory, Situation.SNAPSHOT_FOREIGN, after=tail)


def test_one_foreign_segment_is_not_the_snapshots_fault(directory: Path, tmp_path: Path) -> None:
    """The others are of its log, so the one that is not is to go."""
    tail = Opened(directory).log.tail
    other = make_log(tmp_path / "other", 30, log_id=OTHER_LOG_ID)
    first = segments_of(directory)[0]
    shutil.copy(next(item for item in other if item.name == first.name), first)
    assert refused(directory, Situation.SEGMENT_FOREIGN, after=tail).path == str(first)


def test_segment_not_joined(directory: Path, tmp_path: Path) -> None:
    """A segment of another history of the same log: same id, same seqs, but it continues something else."""
    other = make_log(tmp_path / "other", 30, user="USER")
    path = segments_of(directory)[2]
    shutil.copy(next(item for item in other if item.name == path.name), path)
    error = refused(directory, Situation.SEGMENT_NOT_JOINED)
    assert place(error) == (str(path), 0, int(path.stem))
    assert restores_to(error, directory, int(path.stem) - 1)


def test_newer_version_of_a_segment(directory: Path) -> None:
    """It is told from damage: the remedy is another program, not another file."""
    last = segments_of(directory)[-1]
    header = bytearray(last.read_bytes()[:SEGMENT_HEADER_BYTES])
    header[8:12] = (2).to_bytes(4, "little")
    header[12:16] = int(google_crc32c.value(bytes(header[:12] + header[16:]))).to_bytes(4, "little")
    overwrite(last, 0, bytes(header))
    error = refused(directory, Situation.NEWER_VERSION)
    assert place(error) == (str(last), 0, int(last.stem))


def test_newer_version_of_a_record(directory: Path) -> None:
    """A record type that is not known here is not skipped."""
    last = segments_of(directory)[-1]
    _, end, frame = frames_in(last)[-1]
    packed = bytearray(pack_frame(increments(121, 1), epoch=1, previous=frame.checksum))
    packed[HEADER_BYTES + 1] = 9
    packed[4:8] = int(google_crc32c.value(bytes(packed[8:]))).to_bytes(4, "little")
    overwrite(last, end, bytes(packed))
    error = refused(directory, Situation.NEWER_VERSION)
    assert place(error) == (str(last), end, 121)


def test_log_begins_late(directory: Path) -> None:
    """Without the first segment there must be a snapshot that reaches as far."""
    frames = list(Opened(directory).log.read_from(1))
    first, second, *_ = segments_of(directory)
    first.unlink()
    error = refused(directory, Situation.BEGINS_LATE)
    assert (error.path, error.seq) == (str(second), 1)
    early = int(second.stem) - 5
    error = refused(directory, Situation.BEGINS_LATE, after=tail_after(frames, early))
    assert error.seq == early + 1
    opened = Opened(directory, after=tail_after(frames, early + 4))
    assert opened.seqs == list(range(early + 5, 121))


def test_log_ends_early(directory: Path) -> None:
    """The last segments are gone, but the snapshot remembers: acknowledged events are missing."""
    tail = Opened(directory).log.tail
    *_, before, last = segments_of(directory)
    good = int(last.stem) - 1
    last.unlink()
    error = refused(directory, Situation.ENDS_EARLY, after=tail)
    assert place(error) == (str(before), frames_in(before)[-1][1], good + 1)
    assert restores_to(error, directory, tail.seq)


def test_log_ends_early_with_a_torn_tail(directory: Path) -> None:
    """Nothing is cut where the snapshot says that it had been written."""
    tail = Opened(directory).log.tail
    last = segments_of(directory)[-1]
    offset, end, frame = frames_in(last)[-1]
    overwrite(last, offset + 60, bytes(end - offset - 60))
    error = refused(directory, Situation.ENDS_EARLY, after=tail)
    assert place(error) == (str(last), offset, frame.first_seq)


@pytest.mark.parametrize("seq", [40, 120])
def test_snapshot_differs(directory: Path, seq: int) -> None:
    """At the snapshot's seq, in the middle of the log or at its end, the log has another checksum."""
    tail = tail_after(list(Opened(directory).log.read_from(1)), seq)
    assert Opened(directory, after=tail).seqs == list(range(seq + 1, 121))
    error = refused(directory, Situation.SNAPSHOT_DIFFERS, after=msgspec.structs.replace(tail, checksum=5))
    assert error.seq == seq
    assert error.path in {str(path) for path in segments_of(directory)}


def test_snapshot_differs_where_it_lies_within_a_frame(directory: Path) -> None:
    """A state is taken between two frames; one that lies inside of one belongs to another log."""
    tail = tail_after(list(Opened(directory).log.read_from(1)), 40)
    error = refused(directory, Situation.SNAPSHOT_DIFFERS, after=msgspec.structs.replace(tail, seq=42))
    assert error.seq == 42


def test_snapshot_differs_at_the_join_of_two_segments(directory: Path) -> None:
    """Where the segment before is not read, the head of the next one has the checksum."""
    path = segments_of(directory)[2]
    tail = tail_after(list(Opened(directory).log.read_from(1)), int(path.stem) - 1)
    flip(segments_of(directory)[1], 200)
    assert Opened(directory, after=tail).seqs == list(range(int(path.stem), 121))
    refused(directory, Situation.SNAPSHOT_DIFFERS, after=msgspec.structs.replace(tail, checksum=5))


def test_log_gone(directory: Path) -> None:
    """An empty directory, though a snapshot exists, or though somebody thought that there was a log."""
    tail = Opened(directory).log.tail
    for path in segments_of(directory):
        path.unlink()
    error = refused(directory, Situation.LOG_GONE, after=tail)
    assert place(error) == (str(directory), None, 121)
    refused(directory, Situation.LOG_GONE)
    with pytest.raises(LogDamaged):
        scan(RealDisk(), str(directory))


def test_unfinished_file(directory: Path) -> None:
    """What was being made when the process stopped is removed, and told."""
    for name in ("00000000000000000121.log.tmp", "00000000000000000001.log.gz.tmp"):
        (directory / name).write_bytes(b"half")
    opened = Opened(directory)
    assert [(found.situation, found.path) for found in opened.findings] == [
        (Situation.UNFINISHED_FILE, f"{directory}/00000000000000000001.log.gz.tmp"),
        (Situation.UNFINISHED_FILE, f"{directory}/00000000000000000121.log.tmp"),
    ]
    assert not list(directory.glob("*.tmp"))
    assert opened.seqs == list(range(1, 121))


def test_segment_twice(directory: Path) -> None:
    """Of an interrupted compression the plain segment stays, whatever the other one holds."""
    first = segments_of(directory)[0]
    Path(f"{first}.gz").write_bytes(b"anything")
    opened = Opened(directory)
    assert [(found.situation, found.path) for found in opened.findings] == [(Situation.SEGMENT_TWICE, f"{first}.gz")]
    assert not Path(f"{first}.gz").exists()
    assert opened.seqs == list(range(1, 121))


def test_a_log_whose_last_segment_is_compressed_goes_on_in_a_new_one(directory: Path) -> None:
    """As when only sealed segments were brought back."""
    log = Opened(directory).log
    infos = [log.compress(info) for info in log.segments()[:-1]]
    Path(log.segments()[-1].path).unlink()
    log.close()
    opened = Opened(directory)
    assert opened.log.tail.seq == infos[-1].last_seq
    append(opened.log, 2)
    opened.log.close()
    again = Opened(directory)
    assert again.seqs == list(range(1, infos[-1].last_seq + 9))
    assert again.findings == []


def test_a_header_that_joins_wrongly_is_refused_even_with_right_checksums(directory: Path) -> None:
    """A head made by hand: all its values are possible, but it does not continue the chain."""
    path = segments_of(directory)[1]
    header = unpack_segment_header(path.read_bytes())
    overwrite(path, 0, pack_segment_header(msgspec.structs.replace(header, previous=header.previous ^ 1)))
    refused(directory, Situation.SEGMENT_NOT_JOINED)


# Crashes


def life_of_a_log(disk: FaultyDisk, directory: Path, acknowledged: list[int]) -> None:
    """Create, append over several segments, open again, compress, remove, append."""
    log = Log.create(disk, str(directory), log_id=LOG_ID, segment_bytes=SEGMENT_BYTES)
    for _ in range(12):
        append(log, 1)
        acknowledged.append(log.tail.seq)
    log.close()
    log = Opened(directory, disk=disk).log
    log.compress(log.segments()[0])
    for _ in range(12):
        append(log, 1)
        acknowledged.append(log.tail.seq)
    log.compress(log.segments()[1])
    log.remove_before(log.segments()[1].first_seq)
    append(log, 1)
    acknowledged.append(log.tail.seq)
    log.close()


def test_a_process_killed_at_any_step_loses_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    """Before each write, sync, rename and removal of a log's life: it opens, complete, and goes on."""
    disk = FaultyDisk()
    life_of_a_log(disk, tmp_path / "whole", [])
    assert len(disk.steps) > 80
    for number in range(len(disk.steps)):
        directory = tmp_path / f"crash-{number}"
        acknowledged = [0]
        disk = FaultyDisk()
        disk.crash_at(number)
        with pytest.raises(Crash):
            life_of_a_log(disk, directory, acknowledged)
        if not holds_log(RealDisk(), str(directory)):
            assert acknowledged == [0]
            Log.create(RealDisk(), str(directory), log_id=LOG_ID, segment_bytes=SEGMENT_BYTES).close()
        frames = list(scan(RealDisk(), str(directory)))
        first = frames[0].first_seq if frames else 1
        after = None if first == 1 else Tail(log_id=LOG_ID, epoch=1, seq=first - 1, checksum=frames[0].previous)
        opened = Opened(directory, after=after)
        assert opened.seqs == list(range(first, opened.log.tail.seq + 1))
        # One frame more than was acknowledged may be there: written, but the answer was never given.
        assert opened.log.tail.seq in {acknowledged[-1], acknowledged[-1] + 4}
        append(opened.log, 1)
        opened.log.close()
        shutil.rmtree(directory)
