"""What the tools do with the files of older actions: whatever they make can be opened, and knows every action."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from click.testing import CliRunner

from engine import action_blocks
from engine.action_reading import read_in
from engine.actions import key_of
from engine.commands import Increment
from engine.errors import RunDamaged
from engine.record import Tail
from engine.scoreboard import Scoreboard
from server.cli.main import main
from snapshots.action_store import ActionStore
from snapshots.checkpoint import take_beside
from snapshots.demotion import demote_directory
from snapshots.finding import Wanted, find_in_directory
from snapshots.mending import Mended
from snapshots.opening import Opened, open_directory
from snapshots.promotion import promote_directory
from snapshots.sealing import IndexRules
from tests.snapshots.directories import RULES, SEGMENT_BYTES, InlineDisk, Leader, Told, contents
from tests.snapshots.forgetting import erase
from tests.snapshots.restoring import run as restore
from tests.snapshots.serving import Served, serving

BLOCK, CHECKPOINTS, EACH = 16, 3, 60
TOTAL = CHECKPOINTS * EACH + 10


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(action_blocks, "BLOCK_ACTIONS", BLOCK)


async def played(directory: Path) -> None:
    """Make a directory with files of two sizes, two snapshots that name them, and a log that goes on."""
    async with serving(Served(directory, index=IndexRules("disk"))) as served:
        for _ in range(CHECKPOINTS):
            await served.write(EACH)
            await served.checkpointer.take()
        await served.write(TOTAL - CHECKPOINTS * EACH)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A leader's directory with files of older actions."""
    trio.run(played, tmp_path / "data")
    assert len(runs_in(tmp_path / "data")) > 3
    return tmp_path / "data"


def runs_in(directory: Path) -> list[Path]:
    return sorted((directory / "actions").glob("*.run"))


def oldest(directory: Path) -> Path:
    """The file of the oldest actions, which all snapshots name."""
    [path] = (directory / "actions").glob("0000000000-0000000004-*.run")
    return path


def opened(directory: Path, told: Told | None = None) -> Opened:
    """Open a directory; nothing is missing or damaged, unless it may be told."""
    told_here = told or Told()
    found = open_directory(InlineDisk(), str(directory), RULES, tell=told_here, segment_bytes=SEGMENT_BYTES)
    assert told is not None or not told_here.all
    return found


def check(directory: Path, last: int) -> Scoreboard:
    """Check that a directory can be opened, with files, and knows the actions up to a seq and no other."""
    found = opened(directory)
    scoreboard = found.scoreboard
    assert scoreboard.actions.sealed.count > 0
    assert len(scoreboard.actions) == last
    names = [f"act-{n}" for n in range(1, TOTAL + 1)]

    async def read() -> None:
        await read_in(scoreboard, [key_of(name) for name in names], blocks=False, on_damage=print)

    trio.run(read)
    found_seqs = [scoreboard.action_seq(name) for name in names]
    assert found_seqs == [seq if seq <= last else None for seq in range(1, TOTAL + 1)]
    found.log.close()
    return scoreboard


@pytest.mark.parametrize("until", [None, 150, 2 * EACH])
def test_a_restore_takes_the_files_along(source: Path, tmp_path: Path, until: int | None) -> None:
    """Those of the state that is restored, and no other; the report counts every action."""
    report = restore(source, tmp_path / "new", until_seq=until)
    assert report.actions == (until or TOTAL)
    check(tmp_path / "new", until or TOTAL)
    assert {path.name for path in runs_in(tmp_path / "new")} <= {path.name for path in runs_in(source)}


def test_a_restore_to_before_the_first_snapshot_needs_no_files(source: Path, tmp_path: Path) -> None:
    """All actions are in memory again, until the next checkpoint."""
    restore(source, tmp_path / "new", until_seq=30)
    assert not runs_in(tmp_path / "new")
    assert opened(tmp_path / "new").scoreboard.action_seq("act-30") == 30


def remove(path: Path) -> None:
    path.unlink()


def damage(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:50] + bytes([data[50] ^ 1]) + data[51:])


@pytest.mark.parametrize("spoil", [remove, damage])
def test_a_restore_makes_what_is_missing_or_damaged_anew(
    source: Path, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    """From the log that it copied. Without that log there is no target: it could count an action twice."""
    whole = contents(source / "actions")
    spoil(oldest(source))
    told = Told()
    restore(source, tmp_path / "new", told=told)
    assert [type(fault) for fault in told.faults][-1] is Mended
    assert contents(tmp_path / "new" / "actions").items() <= whole.items()
    check(tmp_path / "new", TOTAL)
    for path in sorted((source / "log").iterdir())[:2]:
        path.unlink()
    with pytest.raises(RunDamaged, match="can't be made anew"):
        restore(source, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_demoted_directory_has_the_files_of_its_state(source: Path) -> None:
    """It ends at the common point, between two snapshots. The old directory is whole beside it."""
    common = tail_at(source, 150)
    before = contents(source / "actions")
    report = demote_directory(
        InlineDisk(), str(source), common, leader="http://new:1", tell=Told(), segment_bytes=SEGMENT_BYTES
    )
    check(source, 150)
    assert report.aside is not None
    assert contents(Path(report.aside) / "actions") == before


def tail_at(directory: Path, seq: int) -> Tail:
    """Give the end of the frame that ends with a seq."""
    found = opened(directory)
    frame, _ = found.log.event_at(seq)
    found.log.close()
    assert frame.last_seq == seq
    return Tail(found.log.tail.log_id, frame.epoch, seq, frame.checksum)


def test_a_promoted_directory_and_one_with_a_snapshot_taken_beside_know_every_action(source: Path) -> None:
    """The snapshot names the files of the one that it began from."""
    promoted = promote_directory(InlineDisk(), str(source), now_ms=1, tell=Told(), segment_bytes=SEGMENT_BYTES)
    assert promoted.seq == TOTAL
    check(source, TOTAL)
    assert take_beside(InlineDisk(), str(source), tell=Told()).seq == TOTAL + 1
    check(source, TOTAL)
    leader = Leader(source)
    leader.write([Increment("ann", "new", "BONUS", "main", "shop")])
    assert len(leader.scoreboard.actions) == TOTAL + 1


def test_an_erasure_from_a_stopped_directory_reaches_the_files(source: Path) -> None:
    """Nothing of the user's actions but their digests is left. A file of no snapshot goes."""
    before = {path.name: path.read_bytes() for path in runs_in(source)}
    report = erase(source, "user-7")
    assert report.erased[0].actions == 7
    scoreboard, log_id = check(source, TOTAL), tail_at(source, TOTAL + 1).log_id
    runs = ActionStore(InlineDisk(), str(source)).open_all(scoreboard.actions.sealed.infos, log_id)
    assert [run.forgotten for run in runs] == [2, 3, 0, 1]
    assert all(scoreboard.actions.is_forgotten(f"act-{n}") for n in range(7, TOTAL, 30))
    assert not scoreboard.actions.is_forgotten("act-8")
    changed = {path.name for path in runs_in(source) if path.read_bytes() != before[path.name]}
    assert {Path(path).name for path in report.actions} == changed
    assert len(changed) == 3
    assert {path.name for path in runs_in(source)} < before.keys()
    assert erase(source, "user-7").actions == []


def test_the_search_for_a_user_passes_over_digests(source: Path) -> None:
    """Two letters of an id stand in a large file of digests by chance."""
    data = runs_in(source)[0].read_bytes()
    text = next(data[at : at + 2].decode() for at in range(len(data)) if data[at : at + 2].isalpha())
    places = find_in_directory(source / "actions", [Wanted(text)])
    assert list(places) == []


@pytest.mark.parametrize("spoil", [remove, damage])
def test_verify_finds_a_file_that_a_snapshot_lacks(source: Path, spoil: Callable[[Path], None]) -> None:
    """A backup without the folder is not whole, and that is said before it is needed."""
    done = CliRunner().invoke(main, ["snapshot", "verify", "--data-dir", str(source)])
    assert (done.exit_code, done.output.count("sound; joins the log")) == (0, 2)
    spoil(oldest(source))
    done = CliRunner().invoke(main, ["snapshot", "verify", "--data-dir", str(source)])
    assert done.exit_code == 1
    assert done.output.count("a file of actions is not") == 2
    shutil.rmtree(source / "actions")
    assert CliRunner().invoke(main, ["snapshot", "verify", "--data-dir", str(source)]).exit_code == 1
    check_mended(source)


def check_mended(directory: Path) -> None:
    """Check that a start makes everything anew."""
    told = Told()
    opened(directory, told).log.close()
    assert {type(fault) for fault in told.faults} >= {Mended}
    check(directory, TOTAL)
