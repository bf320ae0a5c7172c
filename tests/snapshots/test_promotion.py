"""A replica's directory becomes a leader's: a new epoch first, and the marker only after it."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from engine.errors import DirectoryInUse, DiskFault
from engine.events import EpochBegun
from engine.record import events_of
from snapshots.promotion import (
    DEPOSED_FILE,
    Marker,
    Successor,
    demote_command,
    mark_caught_up,
    newest,
    promote_directory,
    read_deposed,
    read_marker,
    remove_deposed,
    remove_marker,
    write_deposed,
    write_marker,
)
from snapshots.restore import RestoreRefused
from tests.snapshots.directories import (
    SEGMENT_BYTES,
    InlineDisk,
    Killed,
    Leader,
    MortalDisk,
    Told,
    all_frames,
    copy,
    history,
)


def replica(directory: Path) -> str:
    """Make a directory as a replica leaves it; give the digest of its state."""
    digests = history(directory, 20, snapshots=[10])
    write_marker(InlineDisk(), str(directory), Marker("http://leader.example:8080"))
    return digests[max(digests)]


def promote(directory: Path, disk: InlineDisk | None = None, above: int = 0) -> tuple[int, int]:
    done = promote_directory(
        disk or InlineDisk(), str(directory), now_ms=1, tell=Told(), above=above, segment_bytes=SEGMENT_BYTES
    )
    return done.epoch, done.seq


def test_a_new_epoch_begins_and_the_directory_is_a_replicas_no_longer(tmp_path: Path) -> None:
    """Its log ends with the event that begins it; the state is the same otherwise, and it can be written to."""
    data = tmp_path / "data"
    replica(data)
    last_seq = all_frames(data)[-1].last_seq
    assert read_marker(InlineDisk(), str(data)) == Marker("http://leader.example:8080")
    assert promote(data) == (2, last_seq)
    assert read_marker(InlineDisk(), str(data)) is None
    frame = all_frames(data)[-1]
    (event,) = events_of(frame)
    assert isinstance(event, EpochBegun)
    assert (event.epoch, event.seq, frame.epoch, event.note) == (2, last_seq + 1, 2, "promoted")
    leader = Leader(data)
    leader.play(5)
    assert leader.tail.epoch == 2
    leader.close()


def test_the_epoch_is_above_any_that_is_known_to_be_used(tmp_path: Path) -> None:
    """Two replicas of one leader may have been promoted in turn."""
    replica(tmp_path / "data")
    assert promote(tmp_path / "data", above=7)[0] == 8


def test_a_marker_says_from_some_time_on_that_its_directory_was_caught_up(tmp_path: Path) -> None:
    """Whom it follows stays; a directory that became a leader's gets no marker again."""
    disk, data = InlineDisk(), str(tmp_path)
    write_marker(disk, data, Marker("http://leader.example"))
    mark_caught_up(disk, data)
    assert read_marker(disk, data) == Marker("http://leader.example", caught_up=True)
    before = (tmp_path / "replica").stat().st_mtime_ns
    mark_caught_up(disk, data)
    assert (tmp_path / "replica").stat().st_mtime_ns == before
    remove_marker(disk, data)
    mark_caught_up(disk, data)
    assert read_marker(disk, data) is None


@pytest.mark.parametrize("bit", range(8))
def test_a_marker_with_a_flipped_bit_is_what_it_was_or_says_where_it_is(tmp_path: Path, bit: int) -> None:
    """At any place: bytes that are no text, or no JSON, are told with the file's name."""
    disk, file = InlineDisk(), tmp_path / "replica"
    write_marker(disk, str(tmp_path), Marker("http://leader.example"))
    whole = file.read_bytes()
    told = []
    for place in range(len(whole)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << bit)]) + whole[place + 1 :])
        try:
            marker = read_marker(disk, str(tmp_path))
        except DiskFault as fault:
            told.append(fault.path)
        else:
            assert marker is not None
    assert set(told) == {str(file)}


def test_a_replica_that_runs_is_not_promoted_behind_its_back(tmp_path: Path) -> None:
    """The lock says so."""
    replica(tmp_path / "data")
    lock = InlineDisk().lock(str(tmp_path / "data" / "lock"))
    with pytest.raises(DirectoryInUse):
        promote(tmp_path / "data")
    lock.release()
    assert promote(tmp_path / "data")[0] == 2


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_there_must_be_something_to_promote(tmp_path: Path, name: str) -> None:
    """A slip of the pen in a path makes no new leader."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(RestoreRefused, match="nothing to promote"):
        promote(tmp_path / name)
    assert not (tmp_path / "missing").exists()


def test_killed_anywhere_it_is_a_replica_or_a_leader(tmp_path: Path) -> None:
    """If the marker is gone the epoch has begun; and a second attempt always succeeds."""
    replica(tmp_path / "data")
    outcomes = set()
    for dies_at in range(1, 6):
        data = copy(tmp_path / "data", f"killed-{dies_at}")
        with contextlib.suppress(Killed):
            promote(data, MortalDisk(dies_at))
        marked = read_marker(InlineDisk(), str(data)) is not None
        begun = any(isinstance(event, EpochBegun) for frame in all_frames(data) for event in events_of(frame))
        assert marked or begun
        outcomes.add((marked, begun))
        assert promote(data)[0] == (3 if begun else 2)
        assert read_marker(InlineDisk(), str(data)) is None
    assert len(outcomes) >= 2


def test_a_marker_that_says_nothing_is_a_fault(tmp_path: Path) -> None:
    """It is not taken for none: the directory would be served from as a leader's."""
    (tmp_path / "replica").write_bytes(b"what?")
    with pytest.raises(DiskFault, match="marker"):
        read_marker(InlineDisk(), str(tmp_path))
    remove_marker(InlineDisk(), str(tmp_path))
    assert read_marker(InlineDisk(), str(tmp_path)) is None


@pytest.mark.parametrize("successor", [Successor(7), Successor(7, "http://new.example:8080")])
def test_what_a_deposed_leader_left_behind_comes_back(tmp_path: Path, successor: Successor) -> None:
    """With the address or without, until it is removed; what was known first may be replaced by more."""
    disk, data = InlineDisk(), str(tmp_path)
    assert read_deposed(disk, data) is None
    remove_deposed(disk, data)
    write_deposed(disk, data, Successor(6))
    write_deposed(disk, data, successor)
    assert read_deposed(disk, data) == successor
    remove_deposed(disk, data)
    assert read_deposed(disk, data) is None


def test_what_older_and_newer_versions_left_behind_is_read(tmp_path: Path) -> None:
    """Without the address, as it was once, and with a field that is not known yet."""
    for text, successor in (
        (b'{"epoch":7}\n', Successor(7)),
        (b'{"epoch":7,"leader":"http://new","more":1}\n', Successor(7, "http://new")),
    ):
        (tmp_path / DEPOSED_FILE).write_bytes(text)
        assert read_deposed(InlineDisk(), str(tmp_path)) == successor


@pytest.mark.parametrize("text", [b"", b"{}", b"deposed", b'{"epoch":"seven"}'])
def test_a_deposed_leaders_file_that_says_nothing_is_a_fault(tmp_path: Path, text: bytes) -> None:
    """Nobody starts in the directory all the same, and the way out is named."""
    (tmp_path / DEPOSED_FILE).write_bytes(text)
    with pytest.raises(DiskFault, match="scoreboard demote") as fault:
        read_deposed(InlineDisk(), str(tmp_path))
    assert fault.value.path == f"{tmp_path}/{DEPOSED_FILE}"


@pytest.mark.parametrize(
    ("known", "heard", "then"),
    [
        (None, Successor(2), Successor(2)),
        (Successor(2), Successor(3), Successor(3)),
        (Successor(2, "http://a"), Successor(3), Successor(3)),
        (Successor(3), Successor(2, "http://a"), Successor(3)),
        (Successor(2), Successor(2, "http://a"), Successor(2, "http://a")),
        (Successor(2, "http://a"), Successor(2, "http://b"), Successor(2, "http://a")),
        (Successor(2, "http://a"), Successor(2), Successor(2, "http://a")),
    ],
)
def test_the_highest_epoch_counts_and_the_first_address_of_it(
    known: Successor | None, heard: Successor, then: Successor
) -> None:
    """The leader of an epoch that is over is nobody's successor."""
    assert newest(known, heard) == then


def test_the_command_to_demote_can_be_pasted() -> None:
    """Whatever is in an address or a path: the one was sent by another node."""
    assert demote_command("data", Successor(2, "http://new:1")) == "scoreboard demote --data-dir data --to http://new:1"
    assert demote_command("my data", Successor(2, "http://new/$(x)")).endswith("'my data' --to 'http://new/$(x)'")
    assert demote_command("data", Successor(2)).endswith("--to URL-OF-THE-NEW-LEADER")
