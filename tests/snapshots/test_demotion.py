"""An old leader's directory becomes a replica's: up to the common point, the rest set aside as a whole and listed."""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from engine.errors import DirectoryInUse
from engine.events import Incremented, UserErased
from engine.record import Frame, Tail, events_of, frame_bytes, prove_frame
from snapshots.demotion import DemotionReport, demote_directory, finish_exchange
from snapshots.promotion import Marker, promote_directory, read_marker, write_marker
from snapshots.restore import RestoreRefused
from tests.snapshots.directories import (
    LOG_ID,
    SEGMENT_BYTES,
    InlineDisk,
    Killed,
    Leader,
    MortalDisk,
    Told,
    all_frames,
    contents,
    copy,
    digest,
    segments,
)
from tests.snapshots.forgetting import command, erase

LEADER = "http://new.example:8080"


class Split:
    """A leader that wrote on after its replica was promoted: `old`, `new`, and what they have in common."""

    def __init__(self, tmp_path: Path, *, frames: int = 40, beyond: int = 10, snapshots: tuple[int, ...] = ()) -> None:
        self.old, self.digest = tmp_path / "old", ""
        leader = Leader(self.old)
        for n in range(frames):
            leader.play(1)
            if n in snapshots:
                leader.snapshot()
        self.common = leader.tail
        self.digest = leader.digest()
        self.new = copy(self.old, "new")
        promote_directory(InlineDisk(), str(self.new), now_ms=1, tell=Told(), segment_bytes=SEGMENT_BYTES)
        leader.play(beyond)
        self.last = leader.tail
        if beyond:
            leader.snapshot()
        leader.close()
        (self.old / "signing.key").write_bytes(b"secret")

    def demote(self, disk: InlineDisk | None = None, common: Tail | None = None) -> DemotionReport:
        return demote_directory(
            disk or InlineDisk(),
            str(self.old),
            common or self.common,
            leader=LEADER,
            tell=Told(),
            segment_bytes=SEGMENT_BYTES,
        )

    def beyond(self) -> list[Frame]:
        return [frame for frame in all_frames(self.old) if frame.first_seq > self.common.seq]


@pytest.mark.parametrize("snapshots", [(), (20,), (5, 39)])
def test_the_directory_ends_at_the_common_point_and_follows_from_there(
    tmp_path: Path, snapshots: tuple[int, ...]
) -> None:
    """The state is that of the common point, the new leader's frames follow on, and nothing was deleted."""
    split = Split(tmp_path, snapshots=snapshots)
    before, beyond = contents(split.old), split.beyond()
    report = split.demote()
    assert report.aside == f"{split.old}.aside-{split.last.epoch}-{split.last.seq}"
    aside = contents(Path(report.aside))
    assert {name: data for name, data in aside.items() if name != "lock"} == before
    events = [event for frame in beyond for event in events_of(frame)]
    assert report.events == len(events) > 0
    assert [(each.action_id, each.user_id, each.board_id, each.seq, each.delta) for each in report.actions] == [
        (event.action_id, event.user_id, event.board_id, event.seq, event.delta)
        for event in events
        if isinstance(event, Incremented)
    ]
    assert len(report.actions) > 0
    assert read_marker(InlineDisk(), str(split.old)) == Marker(LEADER)
    assert (split.old / "signing.key").read_bytes() == b"secret"
    again = Leader(split.old)
    assert (again.tail, again.digest()) == (split.common, split.digest)
    new = Leader(split.new)
    new.play(5)
    again.log.append_frames([prove_frame(frame_bytes(frame)) for frame in new.log.read_from(split.common.seq + 1)])
    assert again.log.tail == new.log.tail
    again.close()
    new.close()


def test_a_log_that_was_rewritten_for_an_erasure_beyond_the_common_point_is_not_carried_over(tmp_path: Path) -> None:
    """In it a pseudonym has the user's points, and the new leader has the user. The report says what was set aside."""
    split = Split(tmp_path, snapshots=(5,))
    user = next(
        event.user_id for frame in all_frames(split.old) for event in events_of(frame) if isinstance(event, Incremented)
    )
    erase(split.old, user)
    report = split.demote()
    assert (report.erasures, report.erased, report.common_seq) == (1, (), split.common.seq)
    assert read_marker(InlineDisk(), str(split.old)) == Marker(LEADER)
    assert segments(split.old) == []
    assert report.aside is not None
    assert segments(Path(report.aside)) != []


def test_a_leader_without_the_state_at_the_common_point_keeps_nothing_and_lists_all_the_same(tmp_path: Path) -> None:
    """Its checkpoints are later, and retention removed the log before them. It begins anew from the new leader."""
    split = Split(tmp_path, frames=40, beyond=40)
    beyond = [
        event.action_id for frame in split.beyond() for event in events_of(frame) if isinstance(event, Incremented)
    ]
    for path, following in pairwise(segments(split.old)):
        if int(following.name[:20]) <= split.common.seq + 1:
            path.unlink()
    report = split.demote()
    assert [action.action_id for action in report.actions] == beyond
    assert not (split.old / "log").exists()
    assert read_marker(InlineDisk(), str(split.old)) == Marker(LEADER)
    assert report.aside is not None
    assert segments(Path(report.aside))
    assert (split.old / "signing.key").read_bytes() == b"secret"


@pytest.mark.parametrize("shorter", [0, 3])
def test_a_leader_with_nothing_beyond_stays_as_it_is(tmp_path: Path, shorter: int) -> None:
    """It only gets the marker: its log is a part of the new leader's."""
    split = Split(tmp_path, beyond=0)
    common = split.common
    if shorter:
        new = Leader(split.new)
        new.play(shorter)
        common = new.tail
        new.close()
        common = msgspec.structs.replace(common, epoch=2)
    report = split.demote(common=common)
    assert (report.aside, report.events, report.actions) == (None, 0, [])
    assert read_marker(InlineDisk(), str(split.old)) == Marker(LEADER, caught_up=True)
    again = Leader(split.old)
    assert (again.tail, digest(again.scoreboard)) == (split.common, split.digest)
    again.close()


@pytest.mark.parametrize("caught_up", [False, True])
def test_a_replica_that_is_led_elsewhere_says_for_itself_whether_it_was_caught_up(
    tmp_path: Path, caught_up: bool
) -> None:
    """It gets another leader and stays what it was: it may never have had all of the one before."""
    split = Split(tmp_path, beyond=0)
    write_marker(InlineDisk(), str(split.old), Marker("http://before.example", caught_up))
    split.demote()
    assert read_marker(InlineDisk(), str(split.old)) == Marker(LEADER, caught_up)


@pytest.mark.parametrize("what", ["another log", "another checksum", "within a frame", "a tail that differs"])
def test_histories_that_never_were_one_are_refused(tmp_path: Path, what: str) -> None:
    """And the directory is as it was."""
    split = Split(tmp_path)
    before = contents(split.old)
    common = {
        "another log": msgspec.structs.replace(split.common, log_id=LOG_ID[::-1]),
        "another checksum": msgspec.structs.replace(split.common, checksum=split.common.checksum ^ 1),
        "within a frame": msgspec.structs.replace(split.common, seq=split.common.seq - 1),
        "a tail that differs": msgspec.structs.replace(split.last, checksum=split.last.checksum ^ 1),
    }[what]
    with pytest.raises(RestoreRefused):
        split.demote(common=common)
    assert {name: data for name, data in contents(split.old).items() if name != "lock"} == before
    assert [path.name for path in tmp_path.iterdir() if "aside" in path.name] == []


def test_a_leader_that_runs_is_not_demoted_behind_its_back(tmp_path: Path) -> None:
    """The lock says so."""
    split = Split(tmp_path)
    lock = InlineDisk().lock(str(split.old / "lock"))
    with pytest.raises(DirectoryInUse):
        split.demote()
    lock.release()


def test_killed_anywhere_the_next_attempt_ends_the_same(tmp_path: Path) -> None:
    """Whatever step it was: either the old directory is untouched, or the exchange is brought to its end."""
    (tmp_path / "origin").mkdir()
    origin = Split(tmp_path / "origin", frames=8, beyond=3, snapshots=(4,))
    states = set()
    dies_at, done = 0, False
    while not done:
        dies_at += 1
        place = tmp_path / f"killed-{dies_at}"
        place.mkdir()
        split = Split.__new__(Split)
        split.common, split.last, split.digest = origin.common, origin.last, origin.digest
        split.old = place / "old"
        shutil.copytree(origin.old, split.old)
        try:
            split.demote(MortalDisk(dies_at))
            done = True
        except Killed:
            states.add(tuple(sorted(path.name.split("-")[0] for path in place.iterdir())))
        finish_exchange(InlineDisk(), str(split.old))
        assert split.old.exists()
        if read_marker(InlineDisk(), str(split.old)) is None:
            report = split.demote()
            assert report.aside is not None
        again = Leader(split.old)
        assert (again.tail, again.digest()) == (split.common, split.digest)
        again.close()
        asides = [path for path in place.iterdir() if ".aside-" in path.name]
        assert len(asides) == 1
        aside = Leader(asides[0])
        assert aside.tail == split.last
        aside.close()
    assert dies_at > 10
    assert ("old", "old.unfinished") in states
    assert ("old", "old.ready") in states
    assert ("old.aside", "old.ready") in states


def test_without_an_exchange_there_is_nothing_to_finish(tmp_path: Path) -> None:
    """Other directories with like names are none of our business."""
    (tmp_path / "old").mkdir()
    (tmp_path / "older.ready-1-2").mkdir()
    assert finish_exchange(InlineDisk(), str(tmp_path / "old")) is None
    assert finish_exchange(InlineDisk(), str(tmp_path / "nowhere" / "old")) is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old", "older.ready-1-2"]


def test_users_whom_the_files_have_not_forgotten_yet_are_named(tmp_path: Path) -> None:
    """An operator erases them at the new leader. One who was erased twice is named once."""
    split = Split(tmp_path)
    leader = Leader(split.old)
    for user in ("user-2", "user-1"):
        leader.write([command(leader, user)])
        leader.play(3)
    leader.close()
    events = [event for frame in split.beyond() for event in events_of(frame)]
    report = split.demote()
    assert (report.erasures, report.erased) == (2, ("user-1", "user-2"))
    erased = {event.user_id: event.seq for event in events if isinstance(event, UserErased)}
    assert [each.seq for each in report.actions] == [
        event.seq for event in events
        if isinstance(event, Incremented) and event.seq > erased.get(event.user_id, 0)
    ], "what they did before is not sent again"  # fmt: skip
