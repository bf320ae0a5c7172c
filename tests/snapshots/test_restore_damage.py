"""Restoring from a log or snapshots that are compressed, torn, damaged, lost or foreign."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from engine.errors import LogDamaged, SnapshotDamaged
from tests.snapshots.directories import (
    Leader,
    Told,
    all_frames,
    copy,
    damage_frame,
    damage_snapshot,
    frames_in,
    history,
    segments,
    seq_of,
    snapshot_files,
)
from tests.snapshots.restoring import check, run


def test_compressed_segments_stay_compressed_unless_the_bound_is_in_one(tmp_path: Path) -> None:
    """Sealed segments were compressed by retention: carried over as they are; the one of the bound becomes plain."""
    source = tmp_path / "source"
    leader = Leader(source)
    leader.play(100)
    for info in leader.log.segments()[:4]:
        leader.log.compress(info)
    leader.close()
    files = segments(source)
    assert [path.suffix for path in files[:5]] == [".gz"] * 4 + [".log"]
    whole = run(source, tmp_path / "whole")
    assert [path.name for path in segments(tmp_path / "whole")] == [path.name for path in files]
    for old, new in zip(files[:4], segments(tmp_path / "whole"), strict=False):
        assert new.read_bytes() == old.read_bytes()
    check(source, tmp_path / "whole", whole)
    within = run(source, tmp_path / "within", until_seq=seq_of(files[2]) + 7)
    assert [path.suffix for path in segments(tmp_path / "within")] == [".gz", ".gz", ".log"]
    check(source, tmp_path / "within", within)
    edge = run(source, tmp_path / "edge", until_seq=seq_of(files[2]) - 1)
    assert [path.suffix for path in segments(tmp_path / "edge")] == [".gz", ".gz", ".log"]
    check(source, tmp_path / "edge", edge)


def test_a_torn_end_is_left_behind(tmp_path: Path) -> None:
    """The copy was made in the middle of a write: the half frame was never acknowledged, and does not go along."""
    source, target = tmp_path / "source", tmp_path / "target"
    history(source, 30)
    frame = all_frames(source)[-1]
    last = segments(source)[-1]
    offset = frames_in(last)[-1][0]
    data = last.read_bytes()
    last.write_bytes(data[: offset + 70] + bytes(len(data) - offset - 70))
    report = run(source, target)
    assert report.seq == frame.first_seq - 1
    check(source, target, report)


def test_damage_before_the_bound_is_refused_and_the_hint_works(tmp_path: Path) -> None:
    """A frame after the snapshot is damaged. The error names the last good seq; restoring up to it succeeds."""
    source, target = tmp_path / "source", tmp_path / "target"
    history(source, 60, snapshots=[20])
    frame = all_frames(source)[40]
    damage_frame(source, frame.first_seq)
    good = frame.first_seq - 1
    for until in (None, good + 1, good + 30):
        with pytest.raises(LogDamaged, match=f"--until-seq {good}") as caught:
            run(source, target, until_seq=until)
        assert caught.value.seq == frame.first_seq
        assert not target.exists()
    report = run(source, target, until_seq=good)
    assert report.seq == good
    check(source, target, report)


def test_an_end_that_can_not_be_read_is_reported_as_left_behind(tmp_path: Path) -> None:
    """The last frame is damaged, all of it being there: restoring to before it says what remains in the source."""
    source, target = tmp_path / "source", tmp_path / "target"
    history(source, 30)
    frame = all_frames(source)[-1]
    damage_frame(source, frame.first_seq)
    report = run(source, target, until_seq=10)
    good = frame.first_seq - 1
    assert report.left_behind[0] == f"{good - 10} events after seq 10"
    assert report.left_behind[1].startswith(f"what follows seq {good} in the log and can't be read: the last frame")
    check(source, target, report)
    with pytest.raises(LogDamaged, match=f"--until-seq {good}"):
        run(source, tmp_path / "other", until_seq=10**6)


def test_without_a_snapshot_damage_at_the_very_beginning_leaves_nothing(tmp_path: Path) -> None:
    """The first frame is damaged: there is nothing good before it, and the error does not pretend so."""
    source = tmp_path / "source"
    history(source, 20)
    damage_frame(source, 1)
    with pytest.raises(LogDamaged, match="only a backup helps"):
        run(source, tmp_path / "target")


def test_damage_in_what_the_snapshot_covers_costs_only_that_part_of_the_audit_trail(tmp_path: Path) -> None:
    """An old segment has rotted. The state is whole all the same: the log goes along from the next segment on."""
    source, target = tmp_path / "source", tmp_path / "target"
    history(source, 120, snapshots=[90])
    files = segments(source)
    damage_frame(source, seq_of(files[2]) + 5)
    assert seq_of(snapshot_files(source)[0]) > seq_of(files[4])
    told = Told()
    report = run(source, target, told=told)
    assert report.first_seq == seq_of(files[3])
    assert [path.name for path in segments(target)] == [path.name for path in files[3:]]
    assert [type(fault) for fault in told.faults] == [LogDamaged]
    assert f"the log up to seq {seq_of(files[3]) - 1}, because it is damaged" in report.left_behind[0]
    check(source, target, report)


def test_two_damaged_segments_and_a_missing_one_among_what_is_covered(tmp_path: Path) -> None:
    """The log goes along from after the last trouble on."""
    source, target = tmp_path / "source", tmp_path / "target"
    history(source, 120, snapshots=[110])
    files = segments(source)
    damage_frame(source, seq_of(files[0]) + 5)
    damage_frame(source, seq_of(files[2]) + 5)
    files[4].unlink()
    report = run(source, target)
    assert report.first_seq == seq_of(files[5])
    check(source, target, report)


def test_damage_in_the_snapshots_own_segment_is_got_around_if_what_follows_can_be_found(tmp_path: Path) -> None:
    """A segment is damaged far before the snapshot stands in it: the state and all that follows are saved, cut free."""
    source, target = tmp_path / "source", tmp_path / "target"
    leader = Leader(source, segment_bytes=400_000)
    leader.play(1000, per_frame=6)
    leader.snapshot()
    leader.play(40, per_frame=6)
    while len(leader.log.segments()) < 3:
        leader.play(10, per_frame=6)
    leader.close()
    after = seq_of(snapshot_files(source)[0])
    assert len([path for path in segments(source) if seq_of(path) > after]) == 2
    damage_frame(source, 20)
    told = Told()
    report = run(source, target, told=told)
    assert (report.seq, report.first_seq) == (leader.scoreboard.seq, after + 1)
    assert [seq_of(path) for path in segments(target)] == [after + 1, *map(seq_of, segments(source)[1:])]
    assert told.faults
    check(source, target, report)


@pytest.mark.parametrize("distance", [0, 4, 20])
def test_damage_close_before_the_snapshot_is_got_around_too(tmp_path: Path, distance: int) -> None:
    """Even in its very last frame: the snapshot's checksum proves where the log goes on."""
    source, target = tmp_path / "source", tmp_path / "target"
    digests = history(source, 60, snapshots=[40])
    whole = copy(source, "whole")
    after = seq_of(snapshot_files(source)[0])
    damage_frame(source, after - distance)
    report = run(source, target)
    assert (report.seq, report.first_seq) == (max(digests), after + 1)
    check(whole, target, report)


def test_damage_on_both_sides_of_the_snapshot_leaves_its_state(tmp_path: Path) -> None:
    """What follows can't be reached: the error says that the snapshot's own seq can be restored, and so it is."""
    source, target = tmp_path / "source", tmp_path / "target"
    history(source, 60, snapshots=[40])
    after = seq_of(snapshot_files(source)[0])
    for seq in (after + 1, after):
        damage_frame(source, seq)
    with pytest.raises(LogDamaged, match=f"--until-seq {after}"):
        run(source, target)
    report = run(source, target, until_seq=after)
    assert (report.seq, report.events, report.first_seq) == (after, 0, None)
    check(source, target, report)


@pytest.mark.parametrize("what", ["gone", "early"])
def test_a_log_that_was_lost_leaves_the_state_of_the_snapshot(tmp_path: Path, what: str) -> None:
    """There is no log, or only an old part of it: the snapshot's state can be had, if that is what is asked for."""
    source, target = tmp_path / "source", tmp_path / "target"
    history(source, 120, snapshots=[100])
    after = seq_of(snapshot_files(source)[0])
    for path in segments(source)[0 if what == "gone" else 2 :]:
        path.unlink()
    with pytest.raises(LogDamaged, match=f"--until-seq {after}"):
        run(source, target)
    report = run(source, target, until_seq=after)
    assert (report.seq, report.events, report.first_seq) == (after, 0, None)
    check(source, target, report)


def test_a_damaged_snapshot_is_told_and_the_one_before_it_is_used(tmp_path: Path) -> None:
    """The newest snapshot is damaged: more of the log is replayed, the state is the same."""
    source, target = tmp_path / "source", tmp_path / "target"
    history(source, 60, snapshots=[20, 40])
    damage_snapshot(snapshot_files(source)[1])
    told = Told()
    report = run(source, target, told=told)
    assert [type(fault) for fault in told.faults] == [SnapshotDamaged]
    leader = Leader(target)
    leader.close()
    assert seq_of(snapshot_files(target)[0]) == seq_of(snapshot_files(source)[0])
    assert report.seq + 1 == leader.scoreboard.seq


def test_a_log_of_another_history_than_the_snapshot_is_refused(tmp_path: Path) -> None:
    """Snapshot and log contradict each other: neither is taken for the truth, not even at the snapshot's own seq."""
    source = tmp_path / "source"
    history(source, 40, snapshots=[30])
    after = seq_of(snapshot_files(source)[0])
    shutil.rmtree(source / "log")
    history(tmp_path / "longer", 60, per_frame=3)
    shutil.copytree(tmp_path / "longer" / "log", source / "log")
    for until in (None, after):
        with pytest.raises(LogDamaged, match="different histories"):
            run(source, tmp_path / "target", until_seq=until)
    assert run(source, tmp_path / "before", until_seq=after - 1).seq == after - 1


def test_a_snapshot_of_another_log_is_never_restored_from(tmp_path: Path) -> None:
    """Not even at its own seq: the state of another directory is not a part of this one's."""
    source, other = tmp_path / "source", tmp_path / "other"
    history(source, 60, snapshots=[20])
    Leader(other, log_id=bytes(16 * b"x")).close()
    history(other, 60, snapshots=[40])
    foreign = snapshot_files(other)[0]
    shutil.copy(foreign, source / "snapshots")
    for until in (None, seq_of(foreign)):
        with pytest.raises(LogDamaged, match=r"the snapshot is of another log.*move the snapshot of seq"):
            run(source, tmp_path / "target", until_seq=until)
    (source / "snapshots" / foreign.name).unlink()
    report = run(source, tmp_path / "target")
    check(source, tmp_path / "target", report)
