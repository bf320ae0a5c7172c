"""Restoring to any event: the state of that moment, in a directory that can be served from, or nothing at all."""

from __future__ import annotations

import contextlib
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from engine.errors import DirectoryInUse, LogDamaged, SnapshotDamaged, WriteFailed
from engine.events import EpochBegun
from engine.log_reader import scan
from engine.record import events_of
from engine.scoreboard import Scoreboard
from snapshots.opening import Progress
from snapshots.restore import UNFINISHED, RestoreRefused, RestoreReport, restore
from snapshots.state import read_state
from snapshots.store import Store
from tests.snapshots.directories import (
    BEGUN_MS,
    RULES,
    SEGMENT_BYTES,
    InlineDisk,
    Killed,
    Leader,
    MortalDisk,
    Told,
    all_frames,
    contents,
    copy,
    damage_frame,
    damage_snapshot,
    digest,
    frames_in,
    history,
    segments,
    seq_of,
    snapshot_files,
)

NOW_MS = BEGUN_MS + 10**9


def run(
    source: Path,
    target: Path,
    *,
    until_seq: int | None = None,
    until_ms: int | None = None,
    told: Told | None = None,
    disk: InlineDisk | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
) -> RestoreReport:
    """Restore, and make sure that the source stayed as it was, whatever came of it."""
    before = contents(source) if source.exists() else {}
    try:
        return restore(
            disk or InlineDisk(),
            str(source),
            str(target),
            until_seq=until_seq,
            until_ms=until_ms,
            clock_ms=lambda: NOW_MS,
            tell=told or Told(),
            progress=progress,
            segment_bytes=SEGMENT_BYTES,
        )
    finally:
        assert (contents(source) if source.exists() else {}) == before


def state_at(directory: Path, seq: int) -> Scoreboard:
    """The state of a directory after a seq."""
    return read_state(InlineDisk(), str(directory), RULES, until_seq=seq, tell=Told())[0]


def check(source: Path, target: Path, report: RestoreReport) -> None:
    """Check that the target is the source up to the report's seq, then the new epoch, and can be served from."""
    expected = state_at(source, report.seq)
    begun = EpochBegun(report.seq + 1, report.time_ms, report.epoch, f"restored up to seq {report.seq} of epoch 1")
    if expected.epoch > 1:
        begun = msgspec.structs.replace(begun, note=begun.note[:-1] + str(expected.epoch))
    expected.apply(begun, report.epoch)
    leader = Leader(target)
    leader.scoreboard._check()
    assert leader.digest() == digest(expected)
    assert leader.told.all == []
    assert report.boards == sum(1 for board in expected.boards.values() if len(board))
    assert report.actions == len(expected.actions)
    assert (leader.tail.epoch, leader.tail.seq) == (report.epoch, report.seq + 1)
    frames = list(scan(InlineDisk(), str(target / "log")))
    events = [event for frame in frames for event in events_of(frame)]
    assert events[-1] == begun
    assert report.events == len(events) - 1
    assert events[0].seq == (report.first_seq if report.first_seq is not None else report.seq + 1)
    leader.play(3)
    leader.close()
    again = Leader(target)
    assert again.digest() == leader.digest()
    again.close()


def test_every_single_seq_can_be_restored(tmp_path: Path) -> None:
    """Whether the seq is a frame's last or lies within one, before, at or after a snapshot: the state is that of it."""
    source = tmp_path / "source"
    digests = history(source, 12, snapshots=[4, 8])
    for seq in range(1, max(digests) + 1):
        target = tmp_path / f"until-{seq}"
        report = run(source, target, until_seq=seq)
        assert (report.target, report.seq, report.events, report.first_seq) == (str(target), seq, seq, 1)
        check(source, target, report)
        shutil.rmtree(target)


def test_the_same_state_by_every_way(tmp_path: Path) -> None:
    """Living leader, restart from snapshot + log, replay from seq 1, restore: one digest, but for the new epoch."""
    source = tmp_path / "source"
    leader = Leader(source)
    leader.play(60)
    leader.snapshot()
    leader.play(60)
    living = leader.digest()
    leader.close()
    restarted = Leader(source)
    restarted.close()
    replayed_from = copy(source, "replayed")
    shutil.rmtree(replayed_from / "snapshots")
    replayed = Leader(replayed_from)
    replayed.close()
    report = run(source, tmp_path / "target")
    before_epoch = state_at(tmp_path / "target", report.seq)
    assert {living, restarted.digest(), replayed.digest(), digest(before_epoch)} == {living}
    check(source, tmp_path / "target", report)


def test_a_log_of_many_segments_is_carried_over_up_to_the_seq(tmp_path: Path) -> None:
    """All segments up to the bound go along, byte for byte, as the audit trail; the one of the bound is cut short."""
    source, target = tmp_path / "source", tmp_path / "target"
    history(source, 120, snapshots=[40, 80])
    until = seq_of(segments(source)[4]) + 13
    report = run(source, target, until_seq=until)
    for old, new in zip(segments(source)[:4], segments(target)[:4], strict=True):
        assert old.name == new.name
        assert new.read_bytes() == old.read_bytes()[: new.stat().st_size]
        assert [frame for _, frame in frames_in(new)] == [frame for _, frame in frames_in(old)]
    assert len(segments(target)) == 5
    check(source, target, report)


def test_the_snapshot_that_the_state_came_from_goes_along(tmp_path: Path) -> None:
    """The new directory has two snapshots from the beginning; without the newer one it opens to the same state."""
    source, target = tmp_path / "source", tmp_path / "target"
    history(source, 60, snapshots=[20, 40])
    older = seq_of(snapshot_files(source)[0])
    report = run(source, target, until_seq=seq_of(snapshot_files(source)[1]) - 1)
    assert [seq_of(path) for path in snapshot_files(target)] == [older, report.seq + 1]
    first = Leader(target)
    first.close()
    snapshot_files(target)[1].unlink()
    second = Leader(target)
    second.close()
    assert first.digest() == second.digest()


def test_a_time_bound_takes_what_happened_up_to_it(tmp_path: Path) -> None:
    """At the time of a frame, and a millisecond before it."""
    source = tmp_path / "source"
    history(source, 30, snapshots=[10, 20])
    frames = all_frames(source)
    for number, frame in ((5, frames[5]), (15, frames[15]), (25, frames[25])):
        at = run(source, tmp_path / f"at-{number}", until_ms=frame.time_ms)
        assert at.seq == frame.last_seq
        check(source, tmp_path / f"at-{number}", at)
        before = run(source, tmp_path / f"before-{number}", until_ms=frame.time_ms - 1)
        assert before.seq == frame.first_seq - 1
        check(source, tmp_path / f"before-{number}", before)


def test_the_new_epoch_is_one_that_the_source_never_had(tmp_path: Path) -> None:
    """The source is in epoch 3. Restored to a seq of epoch 1, the new one is 4: (2, seq) has a meaning already."""
    source, target = tmp_path / "source", tmp_path / "target"
    leader = Leader(source)
    for _ in range(2):
        leader.play(40)
        leader.begin_epoch()
    leader.play(5)
    leader.close()
    report = run(source, target, until_seq=20)
    assert report.epoch == 4
    check(source, target, report)
    again = run(target, tmp_path / "again", until_seq=10)
    assert again.epoch == 5
    check(target, tmp_path / "again", again)


def test_the_time_of_the_new_epoch_does_not_go_back(tmp_path: Path) -> None:
    """The clock of the machine that restores is behind the log's."""
    source = tmp_path / "source"
    history(source, 10)
    report = restore(InlineDisk(), str(source), str(tmp_path / "target"), clock_ms=lambda: 5, tell=Told())
    assert report.time_ms == all_frames(source)[-1].time_ms


def test_the_signing_key_goes_along_for_its_owner_alone(tmp_path: Path) -> None:
    """Tokens that were minted before are still good; the key is mode 600 even if the copy was made carelessly."""
    source, target = tmp_path / "source", tmp_path / "target"
    history(source, 5)
    assert not run(source, tmp_path / "without").signing_key
    (source / "signing.key").write_bytes(b"0123456789abcdef")
    (source / "signing.key").chmod(0o644)
    assert run(source, target).signing_key
    assert (target / "signing.key").read_bytes() == b"0123456789abcdef"
    assert stat.S_IMODE((target / "signing.key").stat().st_mode) == 0o600


def test_a_living_source_is_restored_to_what_is_durable(tmp_path: Path) -> None:
    """A leader serves from the source: it is not disturbed, and goes on afterwards."""
    source = tmp_path / "source"
    leader = Leader(source)
    leader.play(30)
    report = run(source, tmp_path / "target")
    assert report.seq == leader.scoreboard.seq
    check(source, tmp_path / "target", report)
    leader.play(3)
    leader.close()


# Compressed, torn, damaged


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


# What can't be asked for


@pytest.mark.parametrize(
    ("until_seq", "until_ms", "complaint"),
    [
        (10**6, None, "no event with seq 1000000: its last one has seq"),
        (0, None, "there is no seq 0"),
        (-1, None, "there is no seq -1"),
        (None, 1, "no event at or before 1 ms"),
        (3, BEGUN_MS, "not both"),
    ],
)
def test_a_bound_that_can_not_be_met_is_refused(
    tmp_path: Path, until_seq: int | None, until_ms: int | None, complaint: str
) -> None:
    """Beyond the end, before the beginning, two bounds at once: said clearly, and nothing is made."""
    source = tmp_path / "source"
    history(source, 20)
    with pytest.raises(RestoreRefused, match=complaint):
        run(source, tmp_path / "target", until_seq=until_seq, until_ms=until_ms)
    assert not (tmp_path / "target").exists()


def test_a_seq_older_than_all_that_is_kept_is_refused(tmp_path: Path) -> None:
    """Retention has removed the beginning: the oldest state that there is, is that of the older snapshot."""
    source = tmp_path / "source"
    history(source, 120, snapshots=[60, 90])
    segments(source)[0].unlink()
    older = seq_of(snapshot_files(source)[0])
    with pytest.raises(RestoreRefused, match=f"a state that old.*{older}.*the log begins at seq"):
        run(source, tmp_path / "target", until_seq=older - 1)
    report = run(source, tmp_path / "target", until_seq=older)
    check(source, tmp_path / "target", report)


def test_the_target_must_be_new_or_empty(tmp_path: Path) -> None:
    """A directory with anything in it, or one within the source, is left alone; an empty one is filled."""
    source = tmp_path / "source"
    history(source, 5)
    full = tmp_path / "full"
    full.mkdir()
    (full / "precious").write_text("data")
    with pytest.raises(RestoreRefused, match="is not empty"):
        run(source, full)
    assert contents(full) == {"precious": b"data"}
    with pytest.raises(RestoreRefused, match="is within"):
        run(source, source / "restored")
    empty = tmp_path / "empty"
    empty.mkdir()
    check(source, empty, run(source, empty))


def test_a_source_with_nothing_in_it_is_refused(tmp_path: Path) -> None:
    """No such directory, an empty one, a log without events."""
    with pytest.raises(RestoreRefused, match="does not exist"):
        run(tmp_path / "none", tmp_path / "target")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RestoreRefused, match="no log and no snapshots"):
        run(tmp_path / "empty", tmp_path / "target")
    Leader(tmp_path / "new").close()
    with pytest.raises(RestoreRefused, match="has no event"):
        run(tmp_path / "new", tmp_path / "target")


# Whole or not at all


class DyingDisk(InlineDisk):
    """A disk on which the write number `fails_at` fails, counting whole files, appends' segments and renames."""

    def __init__(self, fails_at: int) -> None:
        self.steps = 0
        self.fails_at = fails_at

    def sync_directory(self, path: str) -> None:
        """Every file that is made, renamed or removed durably ends here."""
        self.steps += 1
        if self.steps == self.fails_at:
            raise WriteFailed("the disk is gone", path=path)
        super().sync_directory(path)


def test_a_restore_that_fails_leaves_no_target_and_can_be_run_again(tmp_path: Path) -> None:
    """Whatever step the disk fails at: no target, the source as it was, no data left; and the next restore succeeds."""
    source, target = tmp_path / "source", tmp_path / "target"
    history(source, 40, snapshots=[20])
    (source / "signing.key").write_bytes(b"key")
    fails_at, failures = 0, 0
    while not target.exists():
        fails_at += 1
        try:
            run(source, target, disk=DyingDisk(fails_at))
        except WriteFailed:
            if not target.exists():
                failures += 1
                leftover = target.with_name(target.name + UNFINISHED)
                assert set(contents(leftover) if leftover.exists() else {}) <= {"lock"}
    assert failures > 5
    leader = Leader(target)
    assert leader.tail.epoch == 2
    leader.close()


def test_a_target_that_is_whole_is_said_to_be_though_its_name_may_not_last(tmp_path: Path) -> None:
    """Only the last sync fails: the error tells that, and what to do after a power cut; the target can be served."""
    source, target = tmp_path / "source", tmp_path / "target"
    history(source, 20)

    class Nameless(InlineDisk):
        def sync_directory(self, path: str) -> None:
            if target.exists():
                raise WriteFailed("can't sync the directory: Input/output error", path=path)
            super().sync_directory(path)

    with pytest.raises(WriteFailed, match=r"was restored, is whole and was read back") as failed:
        run(source, target, disk=Nameless())
    assert (failed.value.path, failed.value.seq) == (str(tmp_path), Leader(source).tail.seq + 1)
    assert str(target) + UNFINISHED in failed.value.remedy
    leader = Leader(target)
    assert leader.tail.epoch == 2
    leader.close()


def test_a_restore_that_is_killed_anywhere_leaves_no_half_target(tmp_path: Path) -> None:
    """Killed at each step in turn: there is no target, or it is whole; and the next restore succeeds."""
    source, target = tmp_path / "source", tmp_path / "target"
    history(source, 30, snapshots=[15])
    dies_at = 0
    while not target.exists():
        dies_at += 1
        with contextlib.suppress(Killed):
            run(source, target, disk=MortalDisk(dies_at))
    assert dies_at > 20
    leader = Leader(target)
    assert leader.tail.epoch == 2
    leader.close()
    again = tmp_path / "again"
    with pytest.raises(Killed):
        run(source, again, disk=MortalDisk(dies_at // 2))
    check(source, again, run(source, again))


def test_what_an_interrupted_restore_left_is_cleared(tmp_path: Path) -> None:
    """A restore was killed and left half of a directory: the next one with the same target is not led astray by it."""
    source, target = tmp_path / "source", tmp_path / "target"
    history(source, 30)
    leftover = target.with_name(target.name + UNFINISHED)
    history(leftover, 50, snapshots=[10, 50])
    report = run(source, target)
    check(source, target, report)
    assert not leftover.exists()


def test_two_restores_to_one_target_do_not_mix(tmp_path: Path) -> None:
    """While one runs, the other is refused."""
    source, target = tmp_path / "source", tmp_path / "target"
    history(source, 10)
    building = target.with_name(target.name + UNFINISHED)
    building.mkdir()
    lock = InlineDisk().lock(str(building / "lock"))
    with pytest.raises(DirectoryInUse):
        run(source, target)
    lock.release()
    check(source, target, run(source, target))


def test_the_report_says_what_was_left_behind(tmp_path: Path) -> None:
    """Later events, and the snapshots that did not go along."""
    source = tmp_path / "source"
    digests = history(source, 40, snapshots=[10, 20, 30])
    report = run(source, tmp_path / "target", until_seq=seq_of(snapshot_files(source)[1]) + 2)
    seqs = [seq_of(path) for path in snapshot_files(source)]
    assert report.left_behind == [
        f"{max(digests) - report.seq} events after seq {report.seq}",
        f"the snapshots of seq {seqs[2]}, {seqs[0]}",
    ]
    everything = run(source, tmp_path / "everything", until_seq=max(digests))
    assert everything.left_behind == [f"the snapshots of seq {seqs[1]}, {seqs[0]}"]


def test_users_are_counted_once(tmp_path: Path) -> None:
    """Who is on two boards and registered is one user."""
    source = tmp_path / "source"
    history(source, 60)
    scoreboard = state_at(source, 10**6)
    users = {user_id for board in scoreboard.boards.values() for user_id in board._ids} | set(scoreboard.users._ids)
    assert run(source, tmp_path / "target").users == len(users)


def test_progress_is_shown(tmp_path: Path) -> None:
    """The log is told by bytes, up to all of them."""
    source = tmp_path / "source"
    history(source, 60, snapshots=[30])
    shown: list[Progress] = []
    run(source, tmp_path / "target", progress=shown.append)
    assert shown[0].stage == "snapshot"
    assert "log" in {step.stage for step in shown}
    assert Store(InlineDisk(), str(tmp_path / "target")).list()
