"""Users are erased from a directory: from every byte of every file, at whatever step a run is killed; no one else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from engine.action_blocks import FORGOTTEN
from engine.actions import key_of
from engine.board_rules import BoardRules, WatchRules
from engine.commands import Increment, PutUser
from engine.errors import LogDamaged
from engine.log_reader import scan
from engine.record import events_of
from snapshots.erasing import ErasureRefused
from snapshots.finding import Found, Unread, Wanted, find_in_directory
from snapshots.promotion import Marker, Successor, write_deposed, write_marker
from tests.snapshots.directories import InlineDisk, Killed, Leader, MortalDisk, contents, copy, segments
from tests.snapshots.forgetting import ANN, NAME, erase, make, standings, state, traces
from tests.snapshots.leagues import League, play


def test_no_byte_of_a_user_is_left_and_the_others_are_what_they_were(tmp_path: Path) -> None:
    """In plain and compressed segments, snapshots and side files. The log is sound from its first frame."""
    leader = make(tmp_path / "data")
    before, checksums = standings(leader.scoreboard, ANN), [frame.checksum for frame in leader.log.read_from(1)]
    leader.close()
    assert len(traces(leader.directory, ANN, NAME)) > 6
    report = erase(leader.directory, ANN, "nobody")
    assert traces(leader.directory, ANN, NAME) == []
    [user] = report.erased
    assert (user.user_id, user.actions, user.applied, report.unknown) == (ANN, 12, True, ["nobody"])
    frames = list(scan(InlineDisk(), str(leader.directory / "log")))
    assert [frame.checksum for frame in frames[:-1]] == checksums
    after = state(leader.directory)
    assert standings(after) == before
    position = after.actions.find(key_of(f"of {ANN} 3"))
    assert after.actions.mark_at(position) == FORGOTTEN
    for path in (leader.directory / "snapshots").iterdir():
        path.unlink()
    assert state(leader.directory).capture() == after.capture(), "the log alone gives the same"
    assert [path.name for path in (leader.directory / "log").glob("*.torn-*")] == [f"{1:020}.log.torn-4712"]


def test_a_directory_goes_on_after_an_erasure(tmp_path: Path) -> None:
    """It is written to, and the same id is a new user, who is erased as another one."""
    make(tmp_path / "data").close()
    erase(tmp_path / "data", ANN)
    leader = Leader(tmp_path / "data")
    leader.write([Increment(ANN, "new", "BONUS", "main", "shop")])
    leader.play(30)
    assert leader.scoreboard.boards["main"].score(ANN) == 25
    leader.close()
    report = erase(tmp_path / "data", ANN)
    assert [(user.pseudonym, user.actions) for user in report.erased] == [("\x002", 1)]
    assert traces(tmp_path / "data", ANN, NAME) == []
    events = [event for frame in scan(InlineDisk(), str(tmp_path / "data" / "log")) for event in events_of(frame)]
    assert [getattr(event, "user_id", "") for event in events if getattr(event, "reason", "") == "BONUS"] == [
        *["\x001"] * 12, "\x002",
    ]  # fmt: skip
    assert erase(tmp_path / "data", ANN).erased == []


def test_a_run_that_was_killed_is_finished_by_the_next(tmp_path: Path) -> None:
    """At each step of the disk. Afterwards nothing is left, and the state is that of a run without a kill."""
    make(tmp_path / "data").close()
    whole = copy(tmp_path / "data", "whole")
    erase(whole, ANN)
    expected, kills = state(whole).capture(), 0
    for dies_at in range(1, 1_000):
        directory = copy(tmp_path / "data", f"data-{dies_at}")
        try:
            erase(directory, ANN, disk=MortalDisk(dies_at))
        except Killed:
            kills += 1
        else:
            break
        seen = standings(state(directory))
        assert seen in (standings(state(whole)), standings(state(tmp_path / "data"))), "the directory is whole"
        erase(directory, ANN)
        assert traces(directory, ANN, NAME) == [], dies_at
        assert state(directory).capture() == expected, dies_at
    assert kills > 20


def test_past_periods_lose_the_user_and_keep_the_ranks(tmp_path: Path) -> None:
    """The row stays under the pseudonym, so counts and places do. It is also found if it is all that is left."""
    league = League(InlineDisk(), str(tmp_path / "data"))
    first, _ = play(league)
    rows = league.rows(first)
    league.close()
    made_of_a_correction = tmp_path / "data" / "periods" / f"{first:020}-{'0' * 16}.corrected"
    made_of_a_correction.write_text("ann")
    report = erase(tmp_path / "data", "ann")
    assert len(report.periods) == 2
    assert not made_of_a_correction.exists()
    assert list(find_in_directory(tmp_path / "data", [Wanted("ann")])) == []
    league = League(InlineDisk(), str(tmp_path / "data"))
    assert league.rows(first) == [(rank, "\x001" if user == "ann" else user, score) for rank, user, score in rows]
    assert league.head(first).count == len(rows)
    league.close()


def test_a_run_that_was_killed_after_the_log_has_done_the_periods(tmp_path: Path) -> None:
    """The log has the event that names the user. So it is rewritten last, and no second event is made."""
    league = League(InlineDisk(), str(tmp_path / "data"))
    first, _ = play(league)
    league.close()
    for dies_at in range(1, 1_000):
        directory = copy(tmp_path / "data", f"data-{dies_at}")
        try:
            erase(directory, "ann", disk=MortalDisk(dies_at))
        except Killed:
            erase(directory, "ann")
        else:
            break
        assert state(directory).erasures.count == 1, dies_at
        league = League(InlineDisk(), str(directory))
        assert "\x001" in [user for _, user, _ in league.rows(first)], dies_at
        league.close()
    assert dies_at > 20


def test_a_replica_is_not_written_to(tmp_path: Path) -> None:
    """Its log is its leader's. What it has beside it, of periods that ended, is rewritten."""
    league = League(InlineDisk(), str(tmp_path / "data"))
    play(league)
    league.close()
    write_marker(InlineDisk(), str(tmp_path / "data"), Marker("http://leader.example"))
    before = contents(tmp_path / "data")
    with pytest.raises(ErasureRefused, match="in the leader's directory"):
        erase(tmp_path / "data", "ann")
    assert contents(tmp_path / "data") == before
    other = League(InlineDisk(), str(tmp_path / "other"))
    other.put("cup")
    other.close()
    write_marker(InlineDisk(), str(tmp_path / "other"), Marker("http://leader.example"))
    (tmp_path / "data" / "periods").rename(tmp_path / "other" / "periods")
    others = len(list((tmp_path / "other" / "periods").iterdir())) - 1
    report = erase(tmp_path / "other", "ann")
    assert ([Path(path).suffix for path in report.removed], report.periods) == ([".period"], [])
    assert len(list((tmp_path / "other" / "periods").iterdir())) == others
    assert list(find_in_directory(tmp_path / "other", [Wanted("ann")])) == []


def test_a_leader_that_was_replaced_is_refused(tmp_path: Path) -> None:
    """An event there would be in no other history."""
    make(tmp_path / "data").close()
    write_deposed(InlineDisk(), str(tmp_path / "data"), Successor(2, None, 5, "0" * 32))
    with pytest.raises(ErasureRefused, match="was replaced"):
        erase(tmp_path / "data", ANN)


def test_a_damaged_segment_refuses_the_erasure(tmp_path: Path) -> None:
    """What can't be read can't be rewritten. When it is mended the erasure is done."""
    make(tmp_path / "data").close()
    plain = (path for path in segments(tmp_path / "data") if path.suffix == ".log")
    path = next(path for path in plain if ANN.encode() in path.read_bytes())
    good = path.read_bytes()
    place = good.index(ANN.encode())
    path.write_bytes(good[:place] + b"X" + good[place + 1 :])
    with pytest.raises(LogDamaged):
        erase(tmp_path / "data", ANN)
    path.write_bytes(good)
    erase(tmp_path / "data", ANN)
    assert traces(tmp_path / "data", ANN, NAME) == []


def found_in(directory: Path, *arguments: str) -> Sequence[Found | Unread]:
    """Search a directory; paths are relative to it."""
    return list(find_in_directory(directory, [Wanted(*arguments)]))


def test_every_place_is_found_with_its_event(tmp_path: Path) -> None:
    """In segments with the seq; a longer id is not it; other files are searched for bytes; an unread file is told."""
    leader = Leader(tmp_path / "data")
    leader.write([PutUser("ann", NAME, True, "ops"), PutUser("anna", None, True, "ops")])
    leader.write([Increment("ann", "a", "BONUS", "main", "shop")])
    leader.snapshot()
    leader.close()
    log = str(segments(leader.directory)[0])
    places = found_in(leader.directory, "ann", NAME)
    assert [(place.what, place.seq) for place in places if isinstance(place, Found) and place.path == log] == [
        ("userId", 1), ("userId", 3), ("displayName", 1),
    ]  # fmt: skip
    assert len({place.path for place in places}) == 2
    (leader.directory / "notes.json").write_text('{"who": "J\\u00fcrgen"}')
    (leader.directory / "aside-1-2").mkdir()
    (leader.directory / "aside-1-2" / "x.txt").write_text("Jürgen")
    assert [Path(place.path).name for place in found_in(leader.directory, "Jürgen")] == ["x.txt", "notes.json"]
    (leader.directory / "log" / f"{9:020}.log.gz").write_bytes(b"no gzip")
    [unread] = found_in(leader.directory, "nobody")
    assert isinstance(unread, Unread)


def test_a_user_is_found_who_is_named_only_beside_the_boards(tmp_path: Path) -> None:
    """In a review and in the ranks of the period before. The log has forgotten the user, and past periods too."""
    disk, directory = InlineDisk(), tmp_path / "data"
    league = League(disk, str(directory))
    league.put("cup", BoardRules({"WIN": 10}, keep_periods=1, watch=WatchRules(growth_per_minute=5)))
    league.win("cup", "ann")
    league.reset("cup")
    for _ in range(2):
        for _ in range(20):
            league.win("cup", "bob", "cid")
        league.reset("cup")
    league.store.save(league.scoreboard.capture(), league.log.tail)
    league.win("cup", "bob")
    league.close()
    for path in segments(directory)[:-1]:
        path.unlink()
    for path in (directory / "periods").glob("*"):
        if "ann" in path.read_bytes().decode("latin-1"):
            path.unlink()
    assert traces(directory, "ann") == [f"snapshots/{league.seq - 1:020}.snapshot"]
    report = erase(directory, "ann")
    assert [(user.user_id, user.applied, user.actions) for user in report.erased] == [("ann", True, 0)]
    assert traces(directory, "ann") == []


@pytest.mark.parametrize("is_replica", [False, True])
def test_a_user_whom_only_an_older_snapshot_names_goes_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_replica: bool
) -> None:
    """Period and log are no longer kept. Nothing is logged; a proved snapshot of the end stays. For others all stay."""
    league = League(InlineDisk(), str(tmp_path / "data"))
    league.put("cup", BoardRules({"WIN": 10}, keep_periods=1))
    league.win("cup", "ann")
    older = league.snapshot()
    ended = league.reset("cup")
    for _ in range(2):
        for _ in range(20):
            league.win("cup", "bob", "cid")
        league.reset("cup")
    newer = league.snapshot()
    league.win("cup", "bob")
    tail = league.log.tail
    league.close()
    for path in segments(tmp_path / "data")[:-1]:
        path.unlink()
    Path(league.periods.path(ended)).unlink(missing_ok=True)
    if is_replica:
        write_marker(InlineDisk(), str(tmp_path / "data"), Marker("http://leader.example"))
    assert traces(tmp_path / "data", "ann") == [f"snapshots/{older.seq:020}.snapshot"]
    before = state(tmp_path / "data").capture()
    assert erase(tmp_path / "data", "an", "anna").removed == []
    place = Path(older.path).read_bytes().index(b"\xa3ann")
    monkeypatch.setattr("snapshots.forgetting_files.SEARCHED_BYTES", place + 2)  # the id is in two pieces
    report = erase(tmp_path / "data", "ann")
    assert (report.erased, report.unknown, set(report.removed)) == ([], ["ann"], {older.path, newer.path})
    assert list(find_in_directory(tmp_path / "data", [Wanted("ann")])) == []
    [info] = league.store.list()
    assert league.store.verify(info) == tail
    assert state(tmp_path / "data").capture() == before
    assert erase(tmp_path / "data", "ann").removed == []


def test_many_users_are_erased_in_one_run(tmp_path: Path) -> None:
    """A list of years, most of whom this directory never had; each has a number of its own."""
    leader = make(tmp_path / "data")
    before = standings(leader.scoreboard, ANN, *(f"user-{number}" for number in range(20)))
    leader.close()
    users = [ANN, *(f"user-{number}" for number in range(20)), *(f"stranger-{number}" for number in range(50))]
    report = erase(tmp_path / "data", *users)
    erased = [user.user_id for user in report.erased]
    assert set(erased) <= set(users[:21])
    assert len(erased) > 15
    assert len({user.pseudonym for user in report.erased}) == len(erased)
    assert traces(tmp_path / "data", ANN, NAME) == []
    assert found_in(tmp_path / "data", "user-1") == []
    assert standings(state(tmp_path / "data")) == before
