"""Reading the state of a directory that somebody else may be serving from, at any seq or time, without changing it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from engine.board_rules import rules_of_points
from engine.disk import File
from engine.errors import LogDamaged, SnapshotDamaged
from engine.events import Event
from engine.record import events_of, pack_frame, unpack_header
from engine.scoreboard import Scoreboard
from engine.segment import list_segments
from snapshots.opening import Progress
from snapshots.state import read_state
from snapshots.store import Store
from tests.snapshots.directories import (
    BEGUN_MS,
    LOG_ID,
    RULES,
    InlineDisk,
    Leader,
    Told,
    all_frames,
    contents,
    copy,
    damage_frame,
    damage_snapshot,
    digest,
    flip,
    frames_in,
    history,
    segments,
    seq_of,
    snapshot_files,
)


def read(
    directory: Path, *, until_seq: int | None = None, until_ms: int | None = None, disk: InlineDisk | None = None
) -> tuple[str, int]:
    """Read the state; give its digest and seq. The tail must be of the same place."""
    scoreboard, tail = read_state(
        disk or InlineDisk(), str(directory), RULES, until_seq=until_seq, until_ms=until_ms, tell=Told()
    )
    assert (tail.log_id, tail.epoch, tail.seq) == (LOG_ID, scoreboard.epoch, scoreboard.seq)
    return digest(scoreboard), scoreboard.seq


def digests_by_event(directory: Path) -> dict[int, str]:
    """The digest after every single event of a log, by applying them one by one to an empty state."""
    scoreboard = Scoreboard(RULES)
    digests = {}
    for frame in all_frames(directory):
        for event in events_of(frame):
            scoreboard.apply(event, frame.epoch)
            digests[event.seq] = digest(scoreboard)
    return digests


@pytest.mark.parametrize("snapshots", [[], [5], [5, 15], [1, 20]])
def test_the_state_at_every_single_seq(tmp_path: Path, snapshots: list[int]) -> None:
    """On a frame's edge or within it, before, at or after a snapshot: the state at the bound is that of its seq."""
    history(tmp_path, 20, snapshots=snapshots)
    for seq, expected in digests_by_event(tmp_path).items():
        assert read(tmp_path, until_seq=seq) == (expected, seq)


def test_without_a_bound_it_is_the_end(tmp_path: Path) -> None:
    """No bound, or one far beyond the end: the state after the last event."""
    digests = history(tmp_path, 20, snapshots=[10])
    last = max(digests)
    assert read(tmp_path) == read(tmp_path, until_seq=last + 1000) == (digests[last], last)
    assert read(tmp_path, until_ms=BEGUN_MS + 10**9) == (digests[last], last)


def test_a_time_bound_takes_the_events_of_that_time_and_before(tmp_path: Path) -> None:
    """Each frame has its time: at it, just before it, just after it."""
    digests = history(tmp_path, 20, snapshots=[10])
    frames = all_frames(tmp_path)
    for before, frame in pairwise(frames):
        assert read(tmp_path, until_ms=frame.time_ms) == (digests[frame.last_seq], frame.last_seq)
        assert read(tmp_path, until_ms=frame.time_ms + 1) == (digests[frame.last_seq], frame.last_seq)
        assert read(tmp_path, until_ms=frame.time_ms - 1) == (digests[before.last_seq], before.last_seq)


def test_a_time_before_everything_gives_the_empty_state(tmp_path: Path) -> None:
    """Nothing happened yet: seq 0, with the tail of a new log."""
    history(tmp_path, 3)
    assert read(tmp_path, until_ms=1)[1] == 0


def test_an_empty_log_gives_the_empty_state(tmp_path: Path) -> None:
    """A directory that was just made."""
    leader = Leader(tmp_path)
    leader.close()
    scoreboard, tail = read_state(InlineDisk(), str(tmp_path), RULES, tell=Told())
    assert scoreboard.seq == 0
    assert tail == leader.tail


def test_the_tail_within_a_frame_is_that_of_the_frame_cut_short(tmp_path: Path) -> None:
    """A bound within a frame: the tail's checksum is what a frame with only these events would have."""
    history(tmp_path, 3, per_frame=6)
    frame = all_frames(tmp_path)[1]
    events: list[Event] = events_of(frame)[:2]
    _, tail = read_state(InlineDisk(), str(tmp_path), RULES, until_seq=events[-1].seq, tell=Told())
    short = pack_frame(events, epoch=frame.epoch, previous=frame.previous)
    assert tail.checksum == unpack_header(short).checksum


def test_the_rules_do_not_matter_to_the_state(tmp_path: Path) -> None:
    """Read with no rules at all, by a tool without the configuration: the same state."""
    digests = history(tmp_path, 20, snapshots=[10])
    scoreboard, _ = read_state(InlineDisk(), str(tmp_path), rules_of_points({}), tell=Told())
    assert digest(scoreboard) == digests[max(digests)]


def test_reading_beside_a_leader_changes_nothing_and_sees_what_is_durable(tmp_path: Path) -> None:
    """A leader holds the directory open and goes on writing; each reading is the state at its moment."""
    leader = Leader(tmp_path)
    for _ in range(5):
        leader.play(3)
        before = contents(tmp_path)
        assert read(tmp_path) == (leader.digest(), leader.scoreboard.seq)
        assert contents(tmp_path) == before
    leader.close()


def test_a_frame_that_is_just_being_written_is_not_there_yet(tmp_path: Path) -> None:
    """Half of the last frame is on disk: the reader ends before it, and does not call it damage."""
    history(tmp_path, 10)
    frame = all_frames(tmp_path)[-1]
    offset = frames_in(segments(tmp_path)[-1])[-1][0]
    data = segments(tmp_path)[-1].read_bytes()
    half = offset + 60
    segments(tmp_path)[-1].write_bytes(data[:half] + bytes(len(data) - half))
    assert read(tmp_path)[1] == frame.first_seq - 1


def test_damage_after_the_bound_does_not_matter(tmp_path: Path) -> None:
    """A frame is damaged: everything before it can still be read; asking for more says where it is."""
    digests = history(tmp_path, 60, snapshots=[20])
    frame = all_frames(tmp_path)[40]
    damage_frame(tmp_path, frame.first_seq)
    good = frame.first_seq - 1
    assert read(tmp_path, until_seq=good) == (digests[good], good)
    with pytest.raises(LogDamaged) as caught:
        read(tmp_path)
    assert caught.value.seq == frame.first_seq


def test_damage_before_the_snapshot_does_not_matter(tmp_path: Path) -> None:
    """A damaged segment that the snapshot covers is not read; the snapshot and what follows give the state."""
    digests = history(tmp_path, 120, snapshots=[80])
    damage_frame(tmp_path, 2)
    assert read(tmp_path) == (digests[max(digests)], max(digests))


def test_at_the_snapshots_own_seq_no_log_is_needed(tmp_path: Path) -> None:
    """The log is in ruins, but the bound is exactly the snapshot's."""
    digests = history(tmp_path, 20, snapshots=[10])
    for path in segments(tmp_path):
        path.write_bytes(b"ruins")
    seq = seq_of(snapshot_files(tmp_path)[0])
    assert read(tmp_path, until_seq=seq) == (digests[seq], seq)


def test_a_damaged_snapshot_is_told_and_passed_over(tmp_path: Path) -> None:
    """As when opening: the one before it, and more of the log."""
    digests = history(tmp_path, 40, snapshots=[10, 30])
    damage_snapshot(snapshot_files(tmp_path)[1])
    told = Told()
    scoreboard, _ = read_state(InlineDisk(), str(tmp_path), RULES, tell=told)
    assert digest(scoreboard) == digests[max(digests)]
    assert [type(fault) for fault in told.all] == [SnapshotDamaged]


def test_a_snapshot_of_another_history_is_refused(tmp_path: Path) -> None:
    """At the snapshot's seq the log has another checksum than the snapshot says: they do not belong together."""
    history(tmp_path / "data", 40, snapshots=[30])
    other = copy(tmp_path / "data", "other")
    for path in segments(other):
        path.unlink()
    longer = history(tmp_path / "longer", 60, per_frame=3)
    assert max(longer) > seq_of(snapshot_files(other)[0])
    for path in segments(tmp_path / "longer"):
        path.rename(other / "log" / path.name)
    with pytest.raises(LogDamaged, match="different histories"):
        read(other)


def test_a_log_that_does_not_reach_the_snapshot_is_refused(tmp_path: Path) -> None:
    """It ends before the snapshot, or begins after it, or is not there."""
    history(tmp_path / "data", 120, snapshots=[60])
    seq = seq_of(snapshot_files(tmp_path / "data")[0])
    for name, kept, complaint in [
        ("early", range(1, seq - 60), "ends before"),
        ("late", range(seq + 60, 10**6), "begins after"),
        ("gone", range(0), "no segment"),
    ]:
        other = copy(tmp_path / "data", name)
        for path in segments(other):
            if seq_of(path) not in kept:
                path.unlink()
        with pytest.raises(LogDamaged, match=complaint):
            read(other)


def test_a_log_that_begins_right_after_the_snapshot_is_enough(tmp_path: Path) -> None:
    """Retention may remove everything up to the snapshot: the head of the first segment then proves the join."""
    leader = Leader(tmp_path)
    while len(leader.log.segments()) < 3:
        leader.play(1)
    join = leader.log.segments()[-1].first_seq - 1
    leader.play(5)
    leader.close()
    scoreboard, tail = read_state(InlineDisk(), str(tmp_path), RULES, until_seq=join, tell=Told())
    Store(InlineDisk(), str(tmp_path)).save(scoreboard.capture(), tail)
    for path in segments(tmp_path)[:-1]:
        path.unlink()
    assert read(tmp_path) == (leader.digest(), leader.scoreboard.seq)
    flip(segments(tmp_path)[-1], 30)
    with pytest.raises(LogDamaged):
        read(tmp_path)


class Meddling(InlineDisk):
    """A disk on which something happens before the first opening of a file whose name ends so."""

    def __init__(self, ending: str, happen: Callable[[], None]) -> None:
        self._ending = ending
        self._happen = happen
        self._happened = False

    def open(self, path: str, *, write: bool = False) -> File:  # type: ignore[override]  # any file will do here
        """Let it happen, then open."""
        if path.endswith(self._ending) and not self._happened:
            self._happened = True
            self._happen()
        return super().open(path, write=write)


def test_a_leader_that_compresses_a_segment_meanwhile_does_no_harm(tmp_path: Path) -> None:
    """Between listing and reading, the leader compressed the first segment: it is found under its new name."""
    leader = Leader(tmp_path)
    leader.play(60)

    def compress() -> None:
        leader.log.compress(leader.log.segments()[0])

    assert read(tmp_path, disk=Meddling(f"{1:020}.log", compress)) == (leader.digest(), leader.scoreboard.seq)
    assert list_segments(InlineDisk(), str(tmp_path / "log")).segments[0].compressed
    leader.close()


def test_a_leader_that_checkpoints_meanwhile_does_no_harm(tmp_path: Path) -> None:
    """Between listing and reading, the leader took a newer snapshot and removed the one that was to be read."""
    leader = Leader(tmp_path)
    leader.play(30)
    old = leader.snapshot()
    leader.play(30)

    def checkpoint() -> None:
        leader.snapshot()
        leader.store.remove(old.path)
        leader.log.remove_before(leader.scoreboard.seq)

    disk = Meddling(f"{old.seq:020}.snapshot", checkpoint)
    assert read(tmp_path, disk=disk) == (leader.digest(), leader.scoreboard.seq)
    leader.close()


def test_progress_counts_the_events_of_the_log(tmp_path: Path) -> None:
    """It is told at least once, with the bytes of the whole log as total."""
    history(tmp_path, 60)
    shown: list[Progress] = []
    read_state(InlineDisk(), str(tmp_path), RULES, tell=Told(), progress=shown.append)
    assert shown[0].stage == "log"
    assert shown[0].bytes_total == sum(path.stat().st_size for path in segments(tmp_path))
