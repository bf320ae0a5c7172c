"""Opening a directory: whatever is there, the state is that of every acknowledged event, or the start is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from engine.errors import LogDamaged, SnapshotDamaged
from engine.recovery import Finding, Situation
from snapshots.store import Store
from tests.snapshots.directories import (
    LOG_ID,
    InlineDisk,
    Leader,
    contents,
    copy,
    damage_frame,
    damage_snapshot,
    history,
    segments,
    seq_of,
    snapshot_files,
)


def reopened(directory: Path) -> Leader:
    """Open a directory again and check the state inside."""
    leader = Leader(directory)
    leader.scoreboard._check()
    leader.close()
    return leader


def test_a_new_directory_is_made_and_empty(tmp_path: Path) -> None:
    """Nothing is there: a log is made, with the id that was drawn, and it is there the next time."""
    leader = Leader(tmp_path / "data")
    assert leader.scoreboard.seq == 0
    assert leader.opened.snapshot_seq is None
    assert leader.tail.log_id == LOG_ID
    leader.close()
    again = reopened(tmp_path / "data")
    assert again.tail == leader.tail
    assert again.told.all == []


def test_a_directory_whose_making_was_interrupted_is_still_new(tmp_path: Path) -> None:
    """The process died while it made the first segment: what is left is no log, and is made anew."""
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / f"{1:020}.log.tmp").write_bytes(b"half")
    assert reopened(tmp_path).scoreboard.seq == 0


def test_every_way_to_the_state_leads_to_the_same(tmp_path: Path) -> None:
    """The living state, snapshot + log, an older snapshot + more log, and the log from seq 1: one digest."""
    directory = tmp_path / "data"
    digests = history(directory, 120, snapshots=[30, 80])
    last = max(digests)
    newest = reopened(directory)
    assert newest.opened.snapshot_seq == seq_of(snapshot_files(directory)[-1])
    snapshot_files(directory)[-1].unlink()
    older = reopened(directory)
    assert older.opened.snapshot_seq == seq_of(snapshot_files(directory)[-1])
    snapshot_files(directory)[-1].unlink()
    replayed = reopened(directory)
    assert replayed.opened.snapshot_seq is None
    assert {leader.digest() for leader in (newest, older, replayed)} == {digests[last]}


def test_a_snapshot_at_the_very_end_of_the_log_is_enough(tmp_path: Path) -> None:
    """After an orderly stop there is nothing to replay."""
    digests = history(tmp_path, 40, snapshots=[40])
    leader = reopened(tmp_path)
    assert leader.digest() == digests[max(digests)]
    assert leader.progress[-1].events == 0


def test_the_segments_before_the_snapshot_are_not_needed(tmp_path: Path) -> None:
    """Retention has removed what two snapshots cover: the start does not miss it."""
    digests = history(tmp_path, 120, snapshots=[80, 100])
    for path, following in zip(segments(tmp_path), segments(tmp_path)[1:], strict=False):
        if seq_of(following) <= seq_of(snapshot_files(tmp_path)[0]) + 1:
            path.unlink()
    assert seq_of(segments(tmp_path)[0]) > 1
    assert reopened(tmp_path).digest() == digests[max(digests)]


def test_ranks_are_ready_after_opening(tmp_path: Path) -> None:
    """The order was built at the end: the top of each board is that of a plain sort."""
    history(tmp_path, 60, snapshots=[30])
    scoreboard = reopened(tmp_path).scoreboard
    for board_id in ("main", "weekly"):
        board = scoreboard.boards[board_id]
        rows = board.top(50)
        assert rows
        assert [row.score for row in rows] == sorted((row.score for row in rows), reverse=True)
        assert all(board.rank(row.user_id) == row.rank for row in rows)


def test_a_damaged_snapshot_is_passed_over_with_a_warning(tmp_path: Path) -> None:
    """The newest snapshot has a flipped bit: it is told, and the one before it and more of the log give the state."""
    digests = history(tmp_path, 120, snapshots=[30, 80])
    older, newest = snapshot_files(tmp_path)
    damage_snapshot(newest)
    leader = reopened(tmp_path)
    assert leader.digest() == digests[max(digests)]
    assert leader.opened.snapshot_seq == seq_of(older)
    (fault,) = leader.told.faults
    assert isinstance(fault, SnapshotDamaged)
    assert (fault.path, fault.seq) == (str(newest), seq_of(newest))
    assert fault.offset is not None


def test_with_every_snapshot_damaged_the_whole_log_is_replayed(tmp_path: Path) -> None:
    """Both snapshots are damaged, the log is there from seq 1: two warnings, the same state."""
    digests = history(tmp_path, 120, snapshots=[30, 80])
    for path in snapshot_files(tmp_path):
        damage_snapshot(path)
    leader = reopened(tmp_path)
    assert leader.digest() == digests[max(digests)]
    assert leader.opened.snapshot is None
    assert [fault.path for fault in leader.told.faults] == [str(path) for path in reversed(snapshot_files(tmp_path))]


def test_with_every_snapshot_damaged_and_the_log_cut_at_its_beginning_the_start_is_refused(tmp_path: Path) -> None:
    """The state before the log begins is lost: it is said, with what would help, and nothing is changed."""
    history(tmp_path, 120, snapshots=[60, 80])
    for path in snapshot_files(tmp_path):
        damage_snapshot(path)
    segments(tmp_path)[0].unlink()
    first = seq_of(segments(tmp_path)[0])
    before = contents(tmp_path)
    with pytest.raises(LogDamaged, match=rf"no snapshot is valid \(2 damaged\).*begins at seq {first}") as caught:
        Leader(tmp_path)
    assert f"a snapshot of seq {first - 1} or later" in caught.value.remedy
    assert contents(tmp_path) == before


def test_snapshots_without_a_log_are_refused(tmp_path: Path) -> None:
    """The log was lost: events after the snapshot may have been acknowledged, so nobody serves without asking."""
    history(tmp_path, 40, snapshots=[30])
    shutil.rmtree(tmp_path / "log")
    before = contents(tmp_path)
    with pytest.raises(LogDamaged, match="no segment of the log"):
        Leader(tmp_path)
    damage_snapshot(snapshot_files(tmp_path)[0])
    with pytest.raises(LogDamaged, match="no segment of the log"):
        Leader(tmp_path)
    assert contents(tmp_path).keys() == before.keys()


def test_a_snapshot_of_another_log_is_refused(tmp_path: Path) -> None:
    """Someone put the snapshots of another installation here: it proves itself, but the chain has another checksum."""
    history(tmp_path / "one", 40)
    history(tmp_path / "other", 40, snapshots=[30], per_frame=3)
    shutil.copytree(tmp_path / "other" / "snapshots", tmp_path / "one" / "snapshots")
    with pytest.raises(LogDamaged, match="different histories"):
        Leader(tmp_path / "one")


def test_a_log_that_ends_before_the_snapshot_is_refused(tmp_path: Path) -> None:
    """An older backup of the log beside a newer snapshot: events between may have been acknowledged."""
    history(tmp_path / "data", 100, snapshots=[100])
    last = segments(tmp_path / "data")[-1]
    last.unlink()
    with pytest.raises(LogDamaged, match="ends before the snapshot"):
        Leader(tmp_path / "data")


def test_a_log_that_begins_after_the_only_valid_snapshot_is_refused(tmp_path: Path) -> None:
    """The newest snapshot is damaged, and the log no longer reaches back to the one before it."""
    history(tmp_path, 120, snapshots=[30, 80])
    damage_snapshot(snapshot_files(tmp_path)[1])
    for path, following in zip(segments(tmp_path), segments(tmp_path)[1:], strict=False):
        if seq_of(following) <= seq_of(snapshot_files(tmp_path)[1]):
            path.unlink()
    with pytest.raises(LogDamaged, match="begins after the state"):
        Leader(tmp_path)


def test_damage_in_the_log_after_the_snapshot_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    """A frame that is needed has a flipped bit, with whole frames after it: refused, and every byte is as it was."""
    history(tmp_path, 120, snapshots=[60])
    damage_frame(tmp_path, seq_of(snapshot_files(tmp_path)[0]) + 10)
    before = contents(tmp_path)
    with pytest.raises(LogDamaged):
        Leader(tmp_path)
    assert contents(tmp_path) == before


def test_a_torn_end_is_cut_and_told_beside_the_snapshots(tmp_path: Path) -> None:
    """The last frame was only half written: the finding comes the same way as everything that is told."""
    digests = history(tmp_path, 60, snapshots=[20])
    leader = Leader(tmp_path)
    before = leader.tail.seq
    leader.play(1)
    leader.close()
    last = segments(tmp_path)[-1]
    data = last.read_bytes()
    end = len(data.rstrip(b"\0"))
    last.write_bytes(data[: end - 20] + bytes(len(data) - end + 20))
    again = reopened(tmp_path)
    assert again.scoreboard.seq == before
    assert again.digest() == digests[before]
    (finding,) = again.told.all
    assert isinstance(finding, Finding)
    assert finding.situation is Situation.TORN_TAIL


def test_leftovers_of_an_interrupted_snapshot_go_when_the_directory_is_opened(tmp_path: Path) -> None:
    """The process was killed while it wrote a snapshot: the half of it is ignored, and gone after the next start."""
    digests = history(tmp_path, 40, snapshots=[20])
    leftover = tmp_path / "snapshots" / f"{max(digests):020}.snapshot.tmp"
    leftover.write_bytes(snapshot_files(tmp_path)[0].read_bytes()[:100])
    assert reopened(tmp_path).digest() == digests[max(digests)]
    assert not leftover.exists()


def test_progress_names_each_stage_and_counts_up_to_all(tmp_path: Path) -> None:
    """Snapshot, log, order, ready; events and bytes only grow, and the log's end at all of its bytes."""
    digests = history(tmp_path, 120, snapshots=[60])
    progress = reopened(tmp_path).progress
    assert list(dict.fromkeys(step.stage for step in progress)) == ["snapshot", "log", "order", "ready"]
    log = [step for step in progress if step.stage == "log"]
    assert log[-1].events == max(digests) - seq_of(snapshot_files(tmp_path)[0])
    assert log[-1].bytes_done == log[-1].bytes_total > 0
    assert [step.events for step in log] == sorted(step.events for step in log)


def test_the_epochs_are_those_of_the_log(tmp_path: Path) -> None:
    """A log with three epochs: after snapshot + log each event still has its own."""
    leader = Leader(tmp_path)
    leader.play(5)
    leader.begin_epoch()
    leader.play(5)
    leader.snapshot()
    leader.begin_epoch()
    leader.play(5)
    leader.close()
    epochs = [leader.scoreboard.epoch_of(seq) for seq in range(1, leader.scoreboard.seq + 1)]
    again = reopened(tmp_path)
    assert again.digest() == leader.digest()
    assert [again.scoreboard.epoch_of(seq) for seq in range(1, leader.scoreboard.seq + 1)] == epochs
    assert set(epochs) == {1, 2, 3}


def test_writing_goes_on_after_every_way_of_opening(tmp_path: Path) -> None:
    """Open, write, close, open from a snapshot, write, open from an older one: nothing is lost on the way."""
    history(tmp_path / "data", 30, snapshots=[10])
    leader = Leader(tmp_path / "data", seed=2)
    leader.play(20)
    leader.snapshot()
    leader.play(20)
    leader.close()
    other = copy(tmp_path / "data", "other")
    for path in snapshot_files(other):
        path.unlink()
    assert reopened(tmp_path / "data").digest() == reopened(other).digest() == leader.digest()
    assert len(Store(InlineDisk(), str(tmp_path / "data")).list()) == 2
