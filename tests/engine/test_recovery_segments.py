"""The recovery table in real files: segments that are missing, foreign, or under a wrong name. Each row has a test."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from engine.disk import RealDisk
from engine.log import Log
from engine.recovery import Situation
from tests.engine.damage import place, refused, restores_to, segments_of
from tests.engine.logs import LOG_ID, OTHER_LOG_ID, SEGMENT_BYTES, Opened, append, flip, frames_in, make_log, overwrite


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


@pytest.mark.parametrize("index", [1, -1])
def test_segment_foreign(directory: Path, tmp_path: Path, index: int) -> None:
    """A segment of another log under the same name: the log id tells."""
    other = make_log(tmp_path / "other", 30, log_id=OTHER_LOG_ID)
    path = segments_of(directory)[index]
    shutil.copy(next(item for item in other if item.name == path.name), path)
    error = refused(directory, Situation.SEGMENT_FOREIGN)
    assert place(error) == (str(path), 0, int(path.stem))
    assert OTHER_LOG_ID.hex() in error.what


def test_segment_not_joined(directory: Path, tmp_path: Path) -> None:
    """A segment of another history of the same log: same id, same seqs, but it continues something else."""
    other = make_log(tmp_path / "other", 30, user="USER")
    path = segments_of(directory)[2]
    shutil.copy(next(item for item in other if item.name == path.name), path)
    error = refused(directory, Situation.SEGMENT_NOT_JOINED)
    assert place(error) == (str(path), 0, int(path.stem))
    assert restores_to(error, directory, int(path.stem) - 1)


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
