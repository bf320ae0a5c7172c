"""The ledger and its indexes: what they find is what a reading of the whole log finds, whatever the files look like."""

from __future__ import annotations

import random
import zlib
from pathlib import Path

import msgspec
import pytest

from engine import segment, user_index
from engine.concerned import users_of
from engine.disk import RealDisk
from engine.events import (
    BoardScores,
    EpochBegun,
    Event,
    Incremented,
    PeriodScores,
    Rescored,
    Reversed,
    ScoreImported,
    UserErased,
    UserPut,
)
from engine.ledger import Ledger, frames_with
from engine.log import Log, Tail
from engine.record import events_of
from engine.segment import GZ, index_path
from engine.user_index import UserIndex, digest_of, make_missing
from tests.engine.faulty_disk import Crash, FaultyDisk
from tests.engine.logs import LOG_ID, SEGMENT_BYTES, Opened, append, flip, increments

USERS = [*(f"user-{number}" for number in range(7)), "a", "frm1", "nobody", "usér/8"]


def written(directory: Path, seed: int, segment_bytes: int = SEGMENT_BYTES, names: dict[str, str] | None = None) -> Log:
    """A log with increments, registrations and reversals of users of all kinds. `names` gives users other names."""
    rng = random.Random(seed)
    log = Log.create(RealDisk(), str(directory), log_id=LOG_ID, segment_bytes=segment_bytes)
    for _ in range(rng.randrange(20, 60)):
        seq = log.tail.seq + 1
        events: list[Event] = []
        for event in increments(seq, rng.randrange(1, 6), 1_700_000_000_000 + seq):
            user = rng.choice([*USERS[:-2], "usér/8"])
            user = (names or {}).get(user, user)
            match rng.randrange(8):
                case 0:
                    events.append(UserPut(event.seq, event.time_ms, user, "frm1 user-3", True, "backend"))
                case 1:
                    rows = (Rescored(user, None, 0, 0),)
                    scores, periods = (BoardScores("main", rows),), (PeriodScores("main", 1, 0, rows),)
                    events.append(Reversed(event.seq, event.time_ms, "r", "why", "c", 1, False, (1,), scores, periods))
                case _:
                    events.append(msgspec.structs.replace(event, user_id=user))
        log.append(events, log.tail.epoch)
    return log


def by_reading(log: Log, user_id: str) -> list[Event]:
    """What a reading of the whole log finds, the newest first."""
    frames = list(log.read_from(log.segments()[0].first_seq))
    return [event for frame in frames for event in events_of(frame) if user_id in users_of(event)][::-1]


def check(log: Log) -> None:
    """The ledger agrees with the log, for each user, also in parts."""
    ledger = Ledger(RealDisk(), log)
    for user_id in USERS:
        expected = by_reading(log, user_id)
        assert [event for _, event in ledger.events_of(user_id)] == expected
        middle = log.tail.seq // 2
        found = [event for _, event in ledger.events_of(user_id, before_seq=middle)]
        assert found == [event for event in expected if event.seq < middle]
        found = [event for _, event in ledger.events_of(user_id, from_seq=middle)]
        assert found == [event for event in expected if event.seq >= middle]


@pytest.mark.parametrize("seed", range(6))
def test_the_ledger_finds_what_a_reading_of_the_log_finds(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without indexes, with them, of plain and compressed segments, and after the oldest ones were removed."""
    for module in (segment, user_index):
        monkeypatch.setattr(module, "PIECE_BYTES", 700)
    monkeypatch.setattr(user_index, "BLOCK_ENTRIES", 3)
    log = written(tmp_path, seed)
    check(log)
    make_missing(RealDisk(), log)
    check(log)
    for info in log.segments()[:-2]:
        log.compress(info)
    check(log)
    make_missing(RealDisk(), log)
    check(log)
    kept = log.segments()[2].first_seq
    log.remove_before(kept)
    check(log)
    assert Ledger(RealDisk(), log).oldest_seq == kept
    sealed = {index_path(info.path) for info in log.segments() if info.sealed}
    assert {str(path) for path in tmp_path.glob("*.index")} == sealed
    log.close()
    assert Opened(tmp_path, after=None if kept == 1 else log_tail_before(log, kept)).log.tail == log.tail


def log_tail_before(log: Log, seq: int) -> Tail:
    """The tail before an event that begins a segment."""
    frame = next(iter(log.read_from(seq)))
    return msgspec.structs.replace(log.tail, seq=seq - 1, checksum=frame.previous, epoch=frame.epoch)


def test_a_compressed_segment_is_unpacked_from_a_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every frame of a segment with many points is found, by bytes that are far fewer than the segment."""
    log = Log.create(RealDisk(), str(tmp_path), log_id=LOG_ID, segment_bytes=4 * 2**20)
    while len(log.segments()) == 1:
        append(log, 1, per_frame=500)
    log.compress(log.segments()[0])
    make_missing(RealDisk(), log)
    index = UserIndex.open(RealDisk(), log.segments()[0])
    assert index is not None
    assert len(index._head.points) >= 20
    for offset in index.places("user-3"):
        index.frame(offset)
        assert len(index._unpacked[1]) < 2**20
    index.close()
    check_one(log, "user-3")


def check_one(log: Log, user_id: str) -> None:
    found = [event for _, event in Ledger(RealDisk(), log).events_of(user_id)]
    assert found
    assert found == by_reading(log, user_id)


def test_a_segment_that_an_older_version_compressed_is_unpacked_whole(tmp_path: Path) -> None:
    """It has no points, and the same frames are found."""
    log = written(tmp_path, 3)
    info = log.compress(log.segments()[0])
    path = Path(info.path)
    content = zlib.decompress(path.read_bytes(), 31)
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    path.write_bytes(packer.compress(content) + packer.flush())
    make_missing(RealDisk(), log)
    index = UserIndex.open(RealDisk(), log.segments()[0])
    assert index is not None
    assert len(index._head.points) == 0
    index.close()
    check(log)


@pytest.mark.parametrize("place", [0, 5, 12, 40, -1, -13])
@pytest.mark.parametrize("compressed", [False, True])
def test_a_damaged_index_is_as_good_as_none(tmp_path: Path, place: int, *, compressed: bool) -> None:
    """Wherever a bit is flipped, what is found is right. One whose head is wrong is made anew."""
    log = written(tmp_path, 4)
    if compressed:
        log.compress(log.segments()[0])
    make_missing(RealDisk(), log)
    path = Path(index_path(log.segments()[0].path))
    good = path.read_bytes()
    flip(path, place % len(good))
    check(log)
    path.write_bytes(good[: len(good) // 2])
    check(log)
    make_missing(RealDisk(), log)
    assert path.read_bytes() == good


def test_an_index_of_another_content_is_not_used(tmp_path: Path) -> None:
    """Compression and another file under this name make it one that does not fit."""
    log = written(tmp_path, 5)
    make_missing(RealDisk(), log)
    plain = log.segments()[0]
    index = UserIndex.open(RealDisk(), plain)
    assert index is not None
    index.close()
    compressed = log.compress(plain)
    assert UserIndex.open(RealDisk(), compressed) is None
    make_missing(RealDisk(), log)
    content = segment.read_content(RealDisk(), segment.SegmentFile(compressed.path, 1, True, compressed.bytes))
    segment.replace_segment(RealDisk(), segment.SegmentFile(compressed.path, 1, True, compressed.bytes), content)
    assert not Path(index_path(compressed.path)).exists()
    assert compressed.path.endswith(GZ)


def test_heads_are_kept_and_one_that_fits_no_more_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second reading reads no head. After a segment was rewritten in place, what is found is right all the same."""
    swapped = {"user-1": "user-2", "user-2": "user-3", "user-3": "user-1"}
    log, other = (written(tmp_path / name, 9, names=names) for name, names in (("a", None), ("b", swapped)))
    for each in (log, other):
        make_missing(RealDisk(), each)
    kept = Ledger(RealDisk(), log)
    before = {user_id: list(kept.events_of(user_id)) for user_id in USERS}
    monkeypatch.setattr(user_index, "_read_head", None)
    assert {user_id: list(kept.events_of(user_id)) for user_id in USERS} == before
    monkeypatch.undo()
    for mine, theirs in zip(log.segments()[:-1], other.segments(), strict=False):
        assert msgspec.structs.replace(mine, path=theirs.path) == theirs
        for suffix in (str, index_path):
            Path(suffix(mine.path)).write_bytes(Path(suffix(theirs.path)).read_bytes())
    for _ in range(2):
        found = {user_id: list(kept.events_of(user_id)) for user_id in USERS}
        assert found == {user_id: list(Ledger(RealDisk(), log).events_of(user_id)) for user_id in USERS}
        assert found != before


def test_an_index_has_no_ids(tmp_path: Path) -> None:
    """Only digests: what is erased from the log is in no index."""
    log = written(tmp_path, 6)
    make_missing(RealDisk(), log)
    for path in tmp_path.glob("*.index"):
        assert b"user-" not in path.read_bytes()


def test_users_of_one_digest_are_told_apart_by_the_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The index leads to the frames of both; the events say whose they are."""
    monkeypatch.setattr(user_index, "digest_of", lambda user_id: digest_of(user_id) % 3)
    log = written(tmp_path, 7)
    make_missing(RealDisk(), log)
    check(log)


def test_a_crash_at_any_step_of_making_an_index_does_no_harm(tmp_path: Path) -> None:
    """The log opens, what was unfinished goes, and the index is made by the next checkpoint."""
    log = written(tmp_path / "whole", 8)
    log.close()
    disk = FaultyDisk()
    log = Opened(tmp_path / "whole", disk=disk).log
    disk.steps.clear()
    make_missing(disk, log)
    log.close()
    steps = len(disk.steps)
    assert steps > 8
    for number in range(steps):
        directory = tmp_path / f"crash-{number}"
        written(directory, 8).close()
        disk = FaultyDisk()
        log = Opened(directory, disk=disk).log
        disk.crash_at(number)
        with pytest.raises(Crash):
            make_missing(disk, log)
        log = Opened(directory).log
        assert not list(directory.glob("*.tmp"))
        check(log)
        make_missing(RealDisk(), log)
        check(log)
        log.close()


def test_a_text_that_looks_like_a_frame_hides_nothing() -> None:
    """The magic of a frame may stand in an id, before the hit and behind it."""
    assert list(frames_with(bytes(64) + b"frm1frm1frm1ann", b"ann")) == []


def test_each_type_of_event_says_whom_it_concerns() -> None:
    """An erased user is nobody."""
    [event] = increments(1, 1)
    assert isinstance(event, Incremented)
    assert users_of(event) == {"user-1"}
    assert users_of(UserPut(1, 1, "ann", None, True, "c")) == {"ann"}
    assert users_of(ScoreImported(1, 1, "main", "ann", 5, 5, None, "i", 1, "c")) == {"ann"}
    assert users_of(EpochBegun(1, 1, 1, "start")) == set()
    assert users_of(UserErased(1, 1, "ann", "\x001", "c", b"")) == {"ann"}
    assert users_of(UserErased(1, 1, "\x001", "\x001", "c", b"")) == set()
