"""The frames of users, the oldest first: the same events by indexes and by reading, whatever the files look like."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import pytest

from engine import segment, user_frames, user_index
from engine.concerned import users_of
from engine.disk import Disk, RealDisk
from engine.errors import LogDamaged, NoLongerKept
from engine.events import Event
from engine.ledger import Ledger
from engine.log import Log
from engine.log_reader import scan
from engine.record import Frame, events_of
from engine.segment import index_path
from engine.user_frames import scan_of
from engine.user_index import make_missing
from tests.engine.logs import flip
from tests.engine.test_ledger import USERS, by_reading, written


def found(frames: Iterable[Frame], users: Collection[str]) -> list[Event]:
    """The events of users in frames, which must come in order, each once."""
    events = [event for frame in frames for event in events_of(frame)]
    assert [event.seq for event in events] == sorted({event.seq for event in events})
    return [event for event in events if users_of(event) & set(users)]


def check(log: Log, directory: Path, rng: random.Random) -> None:
    """Each user, all at once, and parts of the log, through the log and beside it."""
    oldest, last = log.segments()[0].first_seq, log.tail.seq
    first, until = sorted((rng.randrange(oldest, last + 1), rng.randrange(oldest, last + 1)))
    ledger, path = Ledger(RealDisk(), log), str(directory)
    for users in [*([user] for user in USERS), USERS]:
        by_seq = {event.seq: event for user in users for event in by_reading(log, user)}
        whole = [by_seq[seq] for seq in sorted(by_seq)]
        assert found(ledger.frames_of(users, from_seq=oldest, until_seq=last), users) == whole
        assert found(scan_of(RealDisk(), path, users), users) == whole
        part = [event for event in whole if first <= event.seq <= until]
        for frames in (
            ledger.frames_of(users, from_seq=first, until_seq=until),
            scan_of(RealDisk(), path, users, from_seq=first, until_seq=until),
        ):
            assert [event for event in found(frames, users) if first <= event.seq <= until] == part


@pytest.mark.parametrize("seed", range(5))
def test_the_same_is_found_with_indexes_and_without(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of plain and compressed segments, with some indexes missing, and after the oldest segments were removed."""
    for module in (segment, user_index):
        monkeypatch.setattr(module, "PIECE_BYTES", 700)
    monkeypatch.setattr(user_index, "BLOCK_ENTRIES", 3)
    rng, log = random.Random(seed), written(tmp_path, seed)
    check(log, tmp_path, rng)
    make_missing(RealDisk(), log)
    check(log, tmp_path, rng)
    for info in log.segments()[:-2]:
        log.compress(info)
    make_missing(RealDisk(), log)
    check(log, tmp_path, rng)
    for info in log.segments()[:-1]:
        if rng.randrange(2):
            Path(index_path(info.path)).unlink()
    check(log, tmp_path, rng)
    kept = log.segments()[2].first_seq
    log.remove_before(kept)
    check(log, tmp_path, rng)
    with pytest.raises(NoLongerKept):
        list(scan_of(RealDisk(), str(tmp_path), ["a"], from_seq=kept - 1))
    log.close()


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("place", [0, 5, 12, 40, 60, -1, -13])
def test_a_damaged_index_is_as_good_as_none(
    tmp_path: Path, place: int, monkeypatch: pytest.MonkeyPatch, *, compressed: bool
) -> None:
    """Wherever a bit is flipped, also in a block that is read after others led to frames."""
    monkeypatch.setattr(user_index, "BLOCK_ENTRIES", 3)
    log = written(tmp_path, 4)
    if compressed:
        log.compress(log.segments()[0])
    make_missing(RealDisk(), log)
    path = Path(index_path(log.segments()[0].path))
    flip(path, place % len(path.read_bytes()))
    check(log, tmp_path, random.Random(place))


def test_a_whole_index_leads_past_damage_and_a_frame_that_is_damaged_is_refused(tmp_path: Path) -> None:
    """What is given was proved. A bit in a frame of nobody who is sought is found by those who read all of it."""
    log = written(tmp_path, 5)
    make_missing(RealDisk(), log)
    info = log.segments()[0]
    user = next(user for user in USERS if by_reading(log, user))
    expected = by_reading(log, user)[::-1]
    frames = list(log.read_from(1))
    quiet = next(frame for frame in frames if user.encode() not in frame.body and frame.last_seq <= info.last_seq)
    loud = next(frame for frame in frames if user.encode() in frame.body and frame.last_seq <= info.last_seq)
    path, whole = Path(info.path), Path(info.path).read_bytes()
    flip(path, whole.index(quiet.body))
    ledger = Ledger(RealDisk(), log)
    assert found(ledger.frames_of([user], from_seq=1, until_seq=log.tail.seq), [user]) == expected
    Path(index_path(info.path)).unlink()
    with pytest.raises(LogDamaged):
        list(scan_of(RealDisk(), str(tmp_path), [user]))
    path.write_bytes(whole)
    make_missing(RealDisk(), log)
    flip(path, whole.index(loud.body))
    with pytest.raises(LogDamaged):
        list(scan_of(RealDisk(), str(tmp_path), [user]))


def test_a_whole_index_reads_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a sealed segment with an index nothing but frames is read; many users are not sought one by one."""
    log = written(tmp_path, 6)
    make_missing(RealDisk(), log)
    live = log.segments()[-1].first_seq
    asked: list[int] = []

    def noted(disk: Disk, directory: str, *, from_seq: int, until_seq: int | None) -> Iterator[Frame]:
        asked.append(from_seq)
        return scan(disk, directory, from_seq=from_seq, until_seq=until_seq)

    monkeypatch.setattr(user_frames, "scan", noted)
    list(scan_of(RealDisk(), str(tmp_path), ["user-3"]))
    assert asked == [live]
    list(scan_of(RealDisk(), str(tmp_path), [f"u{number}" for number in range(user_frames.USERS_SOUGHT + 1)]))
    assert asked == [live, 1]


def test_a_directory_without_a_log_is_refused_as_by_every_reader(tmp_path: Path) -> None:
    """Not taken for one without events of the user."""
    with pytest.raises(LogDamaged) as refused:
        list(scan_of(RealDisk(), str(tmp_path), ["a"]))
    assert str(tmp_path) in str(refused.value)
