"""Past periods and their files: made live or by a replay, over crashes, restores, demotions and snapshots."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest
import trio
import trio.testing

from engine.board_rules import BoardRules
from engine.clock import GivenClock
from engine.errors import DiskFault
from engine.image import StateImage
from engine.record import Tail
from snapshots.checkpoint import Checkpointer, take_beside
from snapshots.demotion import demote_directory
from snapshots.period_store import PeriodStore
from snapshots.periods import carry_over, copy_files, expected_files, missing_files
from snapshots.promotion import promote_directory
from snapshots.restore import RestoreReport, restore
from tests.sim.disk import Crash, Machine, Moment
from tests.sim.storage import Everything, Nothing
from tests.snapshots.directories import SEGMENT_BYTES, InlineDisk, Told, contents, copy, flip
from tests.snapshots.leagues import FIRST, RULES, SECOND, League, play

NOW_MS = 1_765_000_999_000


def open_league(directory: Path, *, keeps: bool = True) -> League:
    """A league on the real disk."""
    return League(InlineDisk(), str(directory), keeps=keeps)


def run_restore(source: Path, target: Path, until_seq: int | None = None) -> RestoreReport:
    """Restore, and leave the source as it is."""
    before = contents(source)
    report = restore(
        InlineDisk(), str(source), str(target), until_seq=until_seq, clock_ms=lambda: NOW_MS, tell=Told(),
        segment_bytes=SEGMENT_BYTES,
    )  # fmt: skip
    assert contents(source) == before
    return report


# Live and by a replay


def test_a_replay_makes_the_same_bytes_as_the_leader_did(tmp_path: Path) -> None:
    """With ties, times and a hidden user. So any node can make the file, and any node's file will do."""
    league = open_league(tmp_path / "data")
    first, second = play(league)
    assert (league.rows(first), league.rows(second)) == (FIRST, SECOND)
    digests, files = league.digests(), contents(tmp_path / "data" / "periods")
    league.close()
    for path in (tmp_path / "data" / "periods").iterdir():
        path.unlink()
    again = open_league(tmp_path / "data")
    assert contents(tmp_path / "data" / "periods") == files
    assert again.digests() == digests
    again.scoreboard._check()
    again.close()


def test_a_start_leaves_the_files_that_are_there(tmp_path: Path) -> None:
    """They are not even read: a damaged one is found by who reads it, and is no reason not to start."""
    league = open_league(tmp_path / "data")
    first, _ = play(league)
    league.close()
    path = Path(league.periods.path(first))
    flip(path, 40)
    before = contents(tmp_path / "data" / "periods")
    open_league(tmp_path / "data").close()
    assert contents(tmp_path / "data" / "periods") == before


def test_a_snapshot_of_an_older_state_needs_no_files_of_its_own(tmp_path: Path) -> None:
    """The replay from there makes the file of the period that was still running, with the users of the snapshot."""
    league = open_league(tmp_path / "data", keeps=False)
    league.put("cup")
    league.win("cup", "ann", "bob", "cid", "ann", "dan")
    league.snapshot()
    league.hide("dan")
    seq = league.reset("cup")
    league.close()
    again = open_league(tmp_path / "data")
    assert again.opened.snapshot is not None
    assert again.rows(seq) == FIRST
    again.close()


@pytest.mark.parametrize("restores", [False, True])
def test_a_period_that_a_replay_ends_needs_no_segment_before_the_snapshot(tmp_path: Path, restores: bool) -> None:
    """The first segment may be damaged. It is not read, and the file is made all the same."""
    league = open_league(tmp_path / "data", keeps=False)
    league.put("cup")
    while len(league.log.segments()) < 2:
        league.win("cup", "ann", "bob")
    league.snapshot()
    seq = league.reset("cup")
    league.close()
    path = Path(league.log.segments()[0].path)
    path.with_name(f"{path.name}.gz").write_bytes(b"what was a compressed segment")
    path.unlink()
    if restores:
        run_restore(tmp_path / "data", tmp_path / "restored")
    again = open_league(tmp_path / ("restored" if restores else "data"))
    assert {user for _, user, _ in again.rows(seq)} == {"ann", "bob"}
    again.close()


# Crashes


def test_a_start_after_a_crash_between_the_change_and_the_file_makes_the_file() -> None:
    """The change was acknowledged, and the process ended before the file was written."""
    machine = Machine(Nothing())
    league = League(machine.boot(), "/data", keeps=False)
    first, second = play(league)
    machine.kill()
    again = League(machine.boot(), "/data")
    assert missing_files(again.periods, again.scoreboard) == []
    assert (again.rows(first), again.rows(second)) == (FIRST, SECOND)


@pytest.mark.parametrize("fate", [Nothing(), Everything()])
def test_starts_that_crash_at_any_step_make_the_files_in_the_end(fate: Nothing | Everything) -> None:
    """Each file is whole, is the one of its period, and no file is there under a name that the log does not have."""
    for step in count():
        machine = Machine(fate)
        league = League(machine.boot(), "/data", keeps=False)
        first, second = play(league)
        machine.kill()
        crashed = start_that_crashes_at(machine, step)
        machine.cut_power()
        again = League(machine.boot(), "/data")
        assert again.periods.list() == [first, second]
        assert (again.rows(first), again.rows(second)) == (FIRST, SECOND)
        if not crashed:
            return


def test_no_file_is_made_of_a_change_that_a_power_cut_may_take_back() -> None:
    """The last frame was written and not synced when the process ended. The next start crashes too, with the machine.

    Then another board's period ends with the same seq, and its file is made: the one of the lost change must not be
    there in its place.
    """
    for step in count():
        machine = Machine(Nothing())
        league = League(machine.boot(), "/data")
        for board_id in ("cup", "laps"):
            league.put(board_id)
            league.win(board_id, f"{board_id}-user")
        seq = league.seq + 1
        kill_after_write(machine)
        with pytest.raises(Crash):
            league.reset("cup")
        crashed = start_that_crashes_at(machine, step)
        machine.cut_power()
        again = League(machine.boot(), "/data")
        if again.seq < seq:
            assert again.reset("laps") == seq
            assert again.head(seq).board_id == "laps"
        else:
            assert again.head(seq).board_id == "cup"
        if not crashed:
            return


def test_a_file_that_a_start_finds_is_durable_after_it() -> None:
    """The process before was killed right after the rename. A snapshot may soon cover the log that makes the file."""
    for step in count():
        machine = Machine(Nothing())
        league = League(machine.boot(), "/data", keeps=False)
        play(league)
        machine.kill()
        crashed = crash_at(machine, step, Machine.kill)
        with suppress(Crash):
            League(machine.boot(), "/data")
        unhook(machine)
        again = League(machine.boot(), "/data")
        machine.cut_power()
        assert missing_files(PeriodStore(machine.boot(), "/data"), again.scoreboard) == []
        if not crashed():
            return


def start_that_crashes_at(machine: Machine, step: int) -> bool:
    """Start, and cut the power before the step with this number; False if the start has fewer steps."""
    crash_at(machine, step)
    crashed = True
    with suppress(Crash):
        League(machine.boot(), "/data")
        crashed = False
    unhook(machine)
    return crashed


def crash_at(machine: Machine, step: int, end: Callable[[Machine], None] = Machine.cut_power) -> Callable[[], bool]:
    """Cut the power before the step with this number, counted from now on; the result tells whether it was reached."""
    left = step

    def cut(moment: Moment, _name: str, _path: str) -> None:
        nonlocal left
        left -= moment is Moment.BEFORE
        if left < 0:
            end(machine)

    machine.on_step = cut
    return lambda: left < 0


def kill_after_write(machine: Machine) -> None:
    """End the process after its next write to the log, before the sync."""

    def kill(moment: Moment, name: str, path: str) -> None:
        if (moment, name) == (Moment.AFTER, "write") and "/log/" in path:
            machine.kill()

    machine.on_step = kill


def unhook(machine: Machine) -> None:
    """Let nothing happen any more."""
    machine.on_step = lambda _moment, _name, _path: None


# Snapshots


class Captured:
    """The state of a league, for a checkpointer; counts how often it was taken."""

    def __init__(self, league: League) -> None:
        self._league = league
        self.count = 0

    @property
    def tail(self) -> Tail:
        """See `checkpoint.Captured`."""
        return self._league.log.tail

    def capture(self) -> tuple[StateImage, Tail]:
        """See `checkpoint.Captured`."""
        self.count += 1
        return self._league.scoreboard.capture(), self.tail


async def test_a_snapshot_waits_until_past_periods_have_their_files(tmp_path: Path) -> None:
    """What is captured then has everything that was written meanwhile."""
    league = open_league(tmp_path / "data")
    play(league)
    captured, written = Captured(league), trio.Event()
    checkpointer = Checkpointer(
        captured, league.store, league.opened, every_events=10**9, keep=2, log_keep_seconds=None,
        clock=GivenClock(lambda: NOW_MS), tell=lambda _: None, before_capture=written.wait,
    )  # fmt: skip
    async with trio.open_nursery() as nursery:
        nursery.start_soon(checkpointer.take)
        await trio.testing.wait_all_tasks_blocked()
        assert (captured.count, league.store.list()) == (0, [])
        seq = league.reset("cup")
        written.set()
    assert [info.seq for info in league.store.list()] == [seq]
    league.close()


def test_a_snapshot_beside_a_server_is_refused_while_a_file_is_missing(tmp_path: Path) -> None:
    """It would let the log go that makes the file. With the file it is taken."""
    league = open_league(tmp_path / "data", keeps=False)
    first, _ = play(league)
    with pytest.raises(DiskFault) as refused:
        take_beside(InlineDisk(), str(tmp_path / "data"), tell=Told())
    assert (refused.value.seq, refused.value.path) == (first, league.periods.path(first))
    assert league.store.list() == []
    league.close()
    again = open_league(tmp_path / "data")
    assert take_beside(InlineDisk(), str(tmp_path / "data"), tell=Told()).seq == again.seq
    again.close()


# What is kept


def test_only_what_the_state_calls_for_is_kept(tmp_path: Path) -> None:
    """Of five periods the last three, and not those in which nobody played; files of other seqs go."""
    league = open_league(tmp_path / "data")
    league.put("cup")
    league.put("laps", BoardRules({"WIN": 1}, keep_periods=1))
    seqs = []
    for user in ("ann", "bob", "", "cid", "dan"):
        if user:
            league.win("cup", user)
            league.win("laps", user)
        seqs.append(league.reset("cup"))
        last_lap = league.reset("laps")
    assert league.periods.list() == sorted([*(seq for n, seq in enumerate(seqs) if n != 2), *(
        seq + 1 for n, seq in enumerate(seqs) if n != 2
    )])  # fmt: skip
    expected = {seqs[3], seqs[4], last_lap}
    assert expected_files(league.scoreboard) == expected
    league.periods.remove_other(expected_files(league.scoreboard))
    assert set(league.periods.list()) == expected
    assert missing_files(league.periods, league.scoreboard) == []
    assert league.rows(seqs[4]) == [(1, "dan", 10)]
    league.close()


def test_a_damaged_file_is_not_copied(tmp_path: Path) -> None:
    """It counts as lacking, and the others come over."""
    league = open_league(tmp_path / "data")
    first, second = play(league)
    league.close()
    flip(Path(league.periods.path(first)), 60)
    target = PeriodStore(InlineDisk(), str(tmp_path / "target"))
    assert copy_files(InlineDisk(), str(tmp_path / "data"), target, [first, second, second + 50]) == [
        first, second + 50
    ]  # fmt: skip
    assert target.list() == [second]
    named = carry_over(InlineDisk(), str(tmp_path / "nowhere"), str(tmp_path / "target"), league.scoreboard)
    assert named == [f"{league.head(second).period_id.removesuffix('.2')} of board 'cup'"]


# Restores


@pytest.mark.parametrize("snapshots", [False, True])
def test_a_restore_carries_past_periods_over(tmp_path: Path, snapshots: bool) -> None:
    """Those whose change is in the log that is replayed, and those that only the snapshot knows."""
    league = open_league(tmp_path / "data")
    first, second = play(league)
    if snapshots:
        league.snapshot()
    league.win("cup", "ann")
    files = contents(tmp_path / "data" / "periods")
    league.close()
    report = run_restore(tmp_path / "data", tmp_path / "new")
    assert contents(tmp_path / "new" / "periods") == files
    assert not any("period" in sentence for sentence in report.left_behind)
    restored = open_league(tmp_path / "new")
    assert (restored.rows(first), restored.rows(second)) == (FIRST, SECOND)
    assert missing_files(restored.periods, restored.scoreboard) == []
    restored.close()


@pytest.mark.parametrize(
    ("until", "kept"),
    [
        (lambda first, second: first - 1, []),
        (lambda first, second: first, [FIRST]),
        (lambda first, second: second - 1, [FIRST]),
        (lambda first, second: second, [FIRST, SECOND]),
    ],
    ids=["before the first", "at the first", "before the second", "at the second"],
)
@pytest.mark.parametrize("snapshots", [False, True])
def test_a_restore_up_to_a_seq_has_the_periods_of_that_time(
    tmp_path: Path, until: Callable[[int, int], int], kept: list[object], snapshots: bool
) -> None:
    """Before a change the board has its scores again, and there is no file of it; at the change there is."""
    league = open_league(tmp_path / "data")
    first, second = play(league)
    league.close()
    if snapshots:  # a snapshot that is later than the bound is of no use
        again = open_league(tmp_path / "data")
        again.snapshot()
        again.close()
    run_restore(tmp_path / "data", tmp_path / "new", until(first, second))
    restored = open_league(tmp_path / "new")
    assert [restored.rows(seq) for seq in restored.periods.list()] == kept
    assert expected_files(restored.scoreboard) == set(restored.periods.list())
    if not kept:
        assert [row.user_id for row in restored.scoreboard.boards["cup"].top(9)] == ["ann", "bob", "cid"]
    restored.close()


@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_a_restore_says_which_periods_it_could_not_carry_over(tmp_path: Path, damage: str) -> None:
    """A snapshot covers the change, so no replay can make the file again. The target starts without it."""
    league = open_league(tmp_path / "data")
    first, second = play(league)
    league.snapshot()
    name = league.head(first).period_id
    league.close()
    path = Path(league.periods.path(first))
    if damage == "missing":
        path.unlink()
    else:
        flip(path, 60)
    report = run_restore(tmp_path / "data", tmp_path / "new")
    assert f"past periods that have no whole file: {name} of board 'cup'" in report.left_behind
    restored = open_league(tmp_path / "new")
    assert missing_files(restored.periods, restored.scoreboard) == [first]
    assert restored.rows(second) == SECOND
    restored.close()


# Demotions


@pytest.mark.parametrize("snapshots", [False, True])
def test_a_demotion_keeps_the_periods_up_to_the_common_point(tmp_path: Path, snapshots: bool) -> None:
    """The period that the old leader ended beyond it is set aside with the rest, and its seq is free again."""
    league = open_league(tmp_path / "old")
    first, second = play(league)
    if snapshots:
        league.snapshot()
    league.win("cup", "ann")
    common = league.log.tail
    copy(tmp_path / "old", "new")
    promote_directory(InlineDisk(), str(tmp_path / "new"), now_ms=1, tell=Told(), segment_bytes=SEGMENT_BYTES)
    third = league.reset("cup")
    assert league.periods.list() == [first, second, third]
    league.close()
    report = demote_directory(
        InlineDisk(), str(tmp_path / "old"), common, leader="http://new.example", tell=Told(),
        segment_bytes=SEGMENT_BYTES,
    )  # fmt: skip
    assert report.aside is not None
    assert PeriodStore(InlineDisk(), report.aside).list() == [first, second, third]
    demoted = open_league(tmp_path / "old")
    assert demoted.seq == common.seq
    assert demoted.periods.list() == [first, second]
    assert (demoted.rows(first), demoted.rows(second)) == (FIRST, SECOND)
    demoted.close()


def test_a_demotion_to_a_point_before_a_change(tmp_path: Path) -> None:
    """The period runs on in the state, and there is no file of it."""
    league = open_league(tmp_path / "old")
    league.put("cup", RULES)
    league.win("cup", "ann")
    common = league.log.tail
    league.reset("cup")
    league.close()
    demote_directory(
        InlineDisk(), str(tmp_path / "old"), common, leader="http://new.example", tell=Told(),
        segment_bytes=SEGMENT_BYTES,
    )  # fmt: skip
    demoted = open_league(tmp_path / "old")
    assert demoted.periods.list() == []
    assert [row.user_id for row in demoted.scoreboard.boards["cup"].top(9)] == ["ann"]
    demoted.close()
