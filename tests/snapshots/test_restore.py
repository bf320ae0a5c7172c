"""Restoring to any event: the state of that moment, in a directory that can be served from; and what is refused."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

import pytest

from snapshots.opening import Progress
from snapshots.restore import RestoreRefused, restore
from snapshots.store import Store
from tests.snapshots.directories import (
    BEGUN_MS,
    InlineDisk,
    Leader,
    Told,
    all_frames,
    contents,
    copy,
    digest,
    frames_in,
    history,
    segments,
    seq_of,
    snapshot_files,
)
from tests.snapshots.restoring import check, run, state_at


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
