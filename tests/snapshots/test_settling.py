"""The files of a served directory forget erased users, at whatever step the process is killed; and nobody else."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.commands import Increment, PutUser
from engine.errors import LogDamaged, SnapshotDamaged
from engine.log_reader import scan
from engine.record import events_of
from engine.reversals import CorrectedPeriod
from engine.unsettled import Unsettled
from snapshots.corrected_period import Correction
from snapshots.erasing import erase_users
from snapshots.finding import Wanted, find_in_directory
from snapshots.period_store import PeriodStore
from snapshots.settling import hide_in_periods, remove_aside, remove_downloads, settle_files
from snapshots.store import Store
from tests.sim.disk import Machine
from tests.sim.storage import Nothing
from tests.snapshots.directories import (
    BEGUN_MS,
    LOG_ID,
    SEGMENT_BYTES,
    InlineDisk,
    Killed,
    MortalDisk,
    Told,
    copy,
    damage_snapshot,
    segments,
)
from tests.snapshots.forgetting import ANN, NAME, command, erased, opened_at, settle, standings, state, traces
from tests.snapshots.leagues import League, play


def test_nothing_is_left_and_the_log_goes_on(tmp_path: Path) -> None:
    """Plain and compressed segments, indexes, snapshots, side files. What comes after the erasure stays as it is."""
    leader = erased(tmp_path / "data", ANN)
    leader.write([Increment(ANN, "new", "BONUS", "main", "shop")])
    before, checksums = standings(leader.scoreboard), [frame.checksum for frame in leader.log.read_from(1)]
    expected = leader.scoreboard.capture()
    leader.close()
    opened = opened_at(tmp_path / "data", InlineDisk())
    assert [event.user_id for event in opened.unsettled] == [ANN]
    erased_seq = opened.unsettled[0].seq
    done = settle(tmp_path / "data", opened, InlineDisk())
    assert done is not None
    assert len(done.segments) > 3
    assert [frame.checksum for frame in opened.log.read_from(1)] == checksums
    new = [event for frame in opened.log.read_from(erased_seq + 1) for event in events_of(frame)]
    assert [getattr(event, "user_id", "") for event in new].count(ANN) == 1, "a new user under the same id"
    old = [event for frame in opened.log.read_from(1) for event in events_of(frame) if event.seq <= erased_seq]
    assert ANN not in [getattr(event, "user_id", "") for event in old]
    assert [path.name for path in (tmp_path / "data" / "log").glob("*.torn-*")] == [f"{1:020}.log.torn-4712"]
    opened.log.close()
    again = opened_at(tmp_path / "data", InlineDisk())
    assert again.unsettled == ()
    assert standings(again.scoreboard) == before
    again.log.close()
    for path in (tmp_path / "data" / "snapshots").iterdir():
        path.unlink()
    assert state(tmp_path / "data").capture() == expected, "the log alone gives the same"


def test_a_killed_process_is_finished_by_the_next(tmp_path: Path) -> None:
    """At each step of the disk, with two users. The next start finds them, and ends where a run without a kill does."""
    leader = erased(tmp_path / "data", ANN, "user-1")
    expected, before, kills = leader.scoreboard.capture(), standings(leader.scoreboard), 0
    leader.close()
    for dies_at in range(1, 1_000):
        directory, disk = copy(tmp_path / "data", f"data-{dies_at}"), MortalDisk(10**9)
        opened = opened_at(directory, disk)
        disk.live_for(dies_at)
        try:
            settle(directory, opened, disk)
        except Killed:
            kills += 1
        else:
            break
        finally:
            opened.log.close()
        again = opened_at(directory, InlineDisk())
        assert standings(again.scoreboard) == before, dies_at
        if again.unsettled:
            settle(directory, again, InlineDisk())
        assert traces(directory, ANN, NAME) == [], dies_at
        assert list(find_in_directory(directory, [Wanted("user-1")])) == [], dies_at
        again.log.close()
        assert state(directory).capture() == expected, dies_at
        assert len(list(scan(InlineDisk(), str(directory / "log")))) > 40
    assert kills > 25


def test_users_who_come_back_and_go_again_are_others(tmp_path: Path) -> None:
    """Two erasures of one id are settled together, each with its own number, up to the snapshot and no further."""
    leader = erased(tmp_path / "data", ANN)
    leader.write([PutUser(ANN, "A new name", True, "ops"), Increment(ANN, "second", "BONUS", "main", "shop")])
    leader.write([command(leader, ANN)])
    leader.close()
    opened = opened_at(tmp_path / "data", InlineDisk())
    assert [event.pseudonym for event in opened.unsettled] == ["\x001", "\x002"]
    settle(tmp_path / "data", opened, InlineDisk())
    assert traces(tmp_path / "data", ANN, NAME, "A new name") == []
    events = [event for frame in opened.log.read_from(1) for event in events_of(frame)]
    bonuses = [getattr(event, "user_id", "") for event in events if getattr(event, "reason", "") == "BONUS"]
    assert bonuses == [*["\x001"] * 12, "\x002"]
    opened.log.close()


def test_a_stopped_directory_is_settled_by_the_command_too(tmp_path: Path) -> None:
    """It is asked for somebody else, and finishes what the server had not done: a later erasure would hide it."""
    erased(tmp_path / "data", ANN).close()
    report = erase_users(
        InlineDisk(), str(tmp_path / "data"), ["user-1"], caller="dpo", clock_ms=lambda: BEGUN_MS + 10**9, tell=Told(),
        segment_bytes=SEGMENT_BYTES,
    )  # fmt: skip
    assert [user.user_id for user in report.erased] == ["user-1"]
    assert traces(tmp_path / "data", ANN, NAME) == []
    assert opened_at(tmp_path / "data", InlineDisk()).unsettled == ()


def test_nothing_goes_before_the_snapshot_is_proved(tmp_path: Path) -> None:
    """A damaged one, or a damaged segment, ends it; it is done again when that is mended."""
    erased(tmp_path / "data", ANN).close()
    opened = opened_at(tmp_path / "data", InlineDisk())
    store, erasures = Store(InlineDisk(), str(tmp_path / "data")), Unsettled(opened.unsettled).erasures
    info = store.save(opened.scoreboard.capture(), opened.log.tail)
    good, count = Path(info.path).read_bytes(), len(store.list())
    damage_snapshot(Path(info.path))
    with pytest.raises(SnapshotDamaged):
        settle_files(InlineDisk(), str(tmp_path / "data"), opened.log, store, info, erasures)
    assert len(store.list()) == count > 1
    Path(info.path).write_bytes(good)
    plain = (path for path in segments(tmp_path / "data") if path.suffix == ".log")
    path = next(path for path in plain if ANN.encode() in path.read_bytes())
    whole = path.read_bytes()
    place = whole.index(ANN.encode())
    path.write_bytes(whole[:place] + b"X" + whole[place + 1 :])
    with pytest.raises(LogDamaged):
        settle_files(InlineDisk(), str(tmp_path / "data"), opened.log, store, info, erasures)
    path.write_bytes(whole)
    assert settle_files(InlineDisk(), str(tmp_path / "data"), opened.log, store, info, erasures) is not None
    assert traces(tmp_path / "data", ANN, NAME) == []
    opened.log.close()


def test_a_log_that_was_begun_anew_has_nothing_to_settle(tmp_path: Path) -> None:
    """A replica set its files aside after the snapshot was written: this snapshot is of before."""
    erased(tmp_path / "data", ANN).close()
    opened = opened_at(tmp_path / "data", InlineDisk())
    store, erasures = Store(InlineDisk(), str(tmp_path / "data")), Unsettled(opened.unsettled).erasures
    info = store.save(opened.scoreboard.capture(), opened.log.tail)
    tail = opened.log.tail
    further = type(tail)(LOG_ID, tail.epoch, tail.seq + 10, 4711)
    opened.log.restart(further, str(tmp_path / "data" / "aside-1-1-log"))
    assert settle_files(InlineDisk(), str(tmp_path / "data"), opened.log, store, info, erasures) is None
    opened.log.close()


def test_past_periods_are_hidden_while_they_are_read(tmp_path: Path) -> None:
    """Who reads goes on with what was opened; who opens it later finds the number. A later period keeps a new user."""
    league = League(InlineDisk(), str(tmp_path / "data"))
    first, second = play(league)
    rows = league.rows(first)
    reader = league.periods.open(first)
    league.write(command(league, "ann"))
    league.win("cup", "ann")
    third = league.reset("cup")
    later = league.rows(third)
    assert "ann" in [user for _, user, _ in later]
    erasures = {"ann": [(third - 2, "\x001")]}
    made_of_a_correction = tmp_path / "data" / "periods" / f"{first:020}-{'0' * 16}.corrected"
    made_of_a_correction.write_text("ann")
    paths = hide_in_periods(league.periods, erasures)
    assert "ann" not in [user for _, user, _ in league.rows(second)]
    assert set(paths) == {league.periods.path(first), str(made_of_a_correction)}
    assert [(row.rank, row.user_id, row.score) for row in reader.top(100)] == rows
    assert reader.find("ann") is not None
    assert league.rows(first) == [(rank, "\x001" if user == "ann" else user, score) for rank, user, score in rows]
    assert league.rows(third) == later
    assert hide_in_periods(league.periods, erasures) == []
    league.periods._check()
    league.close()


def test_an_unfinished_snapshot_goes(tmp_path: Path) -> None:
    """The disk let it neither be finished nor be removed. It may name the user."""
    leader = erased(tmp_path / "data", ANN)
    leader.close()
    opened = opened_at(tmp_path / "data", InlineDisk())
    unfinished = tmp_path / "data" / "snapshots" / f"{7:020}.snapshot.tmp"
    unfinished.write_text(ANN)
    done = settle(tmp_path / "data", opened, InlineDisk())
    opened.log.close()
    assert done is not None
    assert str(unfinished) in done.removed
    assert traces(tmp_path / "data", ANN) == []


def test_what_was_set_aside_or_fetched_goes(tmp_path: Path) -> None:
    """Of all that is beside the log and the snapshots, these files alone."""
    data = tmp_path / "data"
    for name in ("aside-1-200/log/1.log", "aside-1-200-2/snapshots/2.snapshot", "aside-notes/log/mine", "mine"):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_text(ANN)
    for name in ("fetched.snapshot", "fetched.snapshot.tmp", "fetched.period.tmp", "fetched.not"):
        (data / name).write_text(ANN)
    assert len(remove_aside(InlineDisk(), str(data))) == 2
    assert len(remove_downloads(InlineDisk(), str(data))) == 3
    assert traces(data, ANN) == ["aside-notes/log/mine", "fetched.not", "mine"]
    assert remove_downloads(InlineDisk(), str(tmp_path / "none")) == []


def test_the_files_of_past_periods_before_a_seq_go_together(tmp_path: Path) -> None:
    """With what was made of their corrections; a replica fetches them again."""
    league = League(InlineDisk(), str(tmp_path / "data"))
    first, second = play(league)
    league.periods.open(first)
    store: PeriodStore = league.periods
    assert list(store.remove_before(second)) == [store.path(first)]
    assert store.list() == [second]
    store._check()
    league.close()


def test_who_reads_a_corrected_period_goes_on_while_it_is_removed(tmp_path: Path) -> None:
    """An erasure removes what was made of corrections; the next reader makes it anew."""
    league = League(InlineDisk(), str(tmp_path / "data"))
    first, _ = play(league)
    correction = Correction(CorrectedPeriod(first, 0, league.head(first).count, ()), "descending", "shared")
    reader = league.periods.open_corrected(first, correction)
    rows = [(row.rank, row.user_id, row.score) for row in reader.top(100)]
    assert len(hide_in_periods(league.periods, {"nobody": [(10**6, "\x001")]})) == 1
    assert [(row.rank, row.user_id, row.score) for row in reader.top(100)] == rows
    again = league.periods.open_corrected(first, correction)
    assert [(row.rank, row.user_id, row.score) for row in again.top(100)] == rows
    league.periods._check()
    league.close()


def test_a_power_cut_brings_no_past_period_back() -> None:
    """No board called for it any more. Its removal was not durable, and it names the user."""
    machine = Machine(Nothing())
    league = League(machine.boot(), "/data")
    first, second = play(league)
    assert league.periods.remove_other({second}) == [league.periods.path(first)]
    hide_in_periods(league.periods, {"ann": [(10**6, "\x001")]})
    machine.cut_power()
    assert PeriodStore(machine.boot(), "/data").list() == [second]
