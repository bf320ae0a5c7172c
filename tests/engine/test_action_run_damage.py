"""Runs that are damaged are found out, and a crash leaves a whole run or none."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest
from msgspec.structs import replace

from engine.action_blocks import FORGOTTEN, RunInfo, run_name
from engine.action_run import Columns, Run, rewrite_forgotten, write_run
from engine.action_run_format import FOOTER_BYTES, offsets_in, unpack_footer
from engine.disk import Disk, RealDisk
from engine.errors import RunDamaged, WriteFailed
from tests.engine.action_runs import actions, entries_of, find, listed, opened, part, small_blocks
from tests.engine.faulty_disk import Crash, FaultyDisk
from tests.engine.logs import LOG_ID, OTHER_LOG_ID, flip
from tests.sim.disk import Crash as PowerCut
from tests.sim.disk import Machine, Moment
from tests.sim.storage import Chance, Everything, Fate, Nothing

BLOCK_ACTIONS = 70


@pytest.fixture(autouse=True)
def blocks() -> Iterator[None]:
    """Two blocks have 140 entries, so two checksums."""
    with small_blocks(BLOCK_ACTIONS):
        yield


@pytest.fixture
def written(tmp_path: Path) -> RunInfo:
    return write_run(RealDisk(), str(tmp_path), [actions(2)], LOG_ID, 0, 2)


def path_of(directory: Path, info: RunInfo) -> Path:
    return directory / run_name(info)


def refused(directory: Path, info: RunInfo, log_id: bytes = LOG_ID) -> RunDamaged:
    """Open a run that must be refused; the error names the file, and the first seq that is not known without it."""
    path = str(path_of(directory, info))
    with pytest.raises(RunDamaged) as caught:
        Run.open(RealDisk(), path, info, log_id)
    error = caught.value
    assert error.path == path
    assert error.seq == info.first_seq
    assert path in str(error)
    assert "from the log" in error.remedy
    return error


def test_a_byte_of_the_tables_that_changes_is_found_at_the_opening(tmp_path: Path, written: RunInfo) -> None:
    """Any byte of the footer, and every seventh of the tables. The error tells the place."""
    path = path_of(tmp_path, written)
    whole = path.read_bytes()
    offsets = offsets_in(written.count, 2)
    tables, footer = range(offsets.starts, offsets.footer), range(offsets.footer, len(whole))
    for offset in [*tables[::7], *footer]:
        flip(path, offset)
        assert refused(tmp_path, written).offset == (offsets.starts if offset in tables else offsets.footer)
        path.write_bytes(whole)


def test_a_byte_of_the_entries_that_changes_is_found_when_it_is_read(tmp_path: Path, written: RunInfo) -> None:
    """And the entries under another checksum can still be read."""
    path = path_of(tmp_path, written)
    whole = path.read_bytes()
    for offset in range(0, offsets_in(written.count, 2).starts, 101):
        flip(path, offset)
        run = opened(RealDisk(), str(tmp_path), written)
        for number, (high, low, seq, mark) in enumerate(entries_of(actions(2))[::128]):
            if offset // 4096 != number:
                assert run.read(128 * number, high, low) == (seq, mark)
                continue
            with pytest.raises(RunDamaged, match="checksum of entries") as caught:
                run.read(128 * number, high, low)
            assert (caught.value.offset, caught.value.seq) == (4096 * number, written.first_seq)
        with pytest.raises(RunDamaged):
            listed(run)
        run.close()
        path.write_bytes(whole)


def test_a_run_that_is_cut_or_longer_is_refused(tmp_path: Path, written: RunInfo) -> None:
    """At whatever length."""
    path = path_of(tmp_path, written)
    whole = path.read_bytes()
    for length in {*range(0, len(whole), 37), 1, FOOTER_BYTES - 1, FOOTER_BYTES, len(whole) - 1}:
        path.write_bytes(whole[:length])
        assert refused(tmp_path, written).offset == max(0, length - FOOTER_BYTES)
    for more in (b"\0", bytes(4096), whole):
        path.write_bytes(whole + more)
        refused(tmp_path, written)


def test_a_run_that_is_cut_while_it_is_open_is_damaged(tmp_path: Path, written: RunInfo) -> None:
    """Wherever it was cut: also at the end of what a checksum covers."""
    run = opened(RealDisk(), str(tmp_path), written)
    high, low, *_ = entries_of(actions(2))[130]
    for length in (130 * 32 + 5, 4096, 100, 0):
        with path_of(tmp_path, written).open("r+b") as file:
            file.truncate(length)
        with pytest.raises(RunDamaged) as caught:
            find(run, high, low)
        assert caught.value.offset == 4096
        with pytest.raises(RunDamaged):
            listed(run)
    run.close()


def test_another_run_in_its_place_is_refused(tmp_path: Path, written: RunInfo) -> None:
    """Of other blocks, of the same blocks of another history, of another log, or with blocks of another size."""
    path = path_of(tmp_path, written)
    whole = path.read_bytes()
    for other in (part(actions(3), 1, 3), actions(2, seed=2)):
        info = write_run(RealDisk(), str(tmp_path), [other], LOG_ID, written.first, written.end)
        path.write_bytes(path_of(tmp_path, info).read_bytes())
        assert "not the run that belongs here" in str(refused(tmp_path, written))
    path.write_bytes(whole)
    assert "another log" in str(refused(tmp_path, written, OTHER_LOG_ID))
    with small_blocks(2 * BLOCK_ACTIONS):
        assert f"have {BLOCK_ACTIONS} actions" in str(refused(tmp_path, written))


@pytest.mark.parametrize(("name", "value", "told"), [("VERSION", 2, "unknown version 2"), ("_MAGIC", b"acta", "whole")])
def test_a_run_of_another_format_is_refused(
    tmp_path: Path, written: RunInfo, name: str, value: object, told: str
) -> None:
    """However right its checksums are. It says what is wrong, and nothing in it is read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"engine.action_run_format.{name}", value)
        write_run(RealDisk(), str(tmp_path), [actions(2)], LOG_ID, 0, 2)
    assert told in str(refused(tmp_path, written))


def test_a_footer_that_contradicts_itself_is_refused(tmp_path: Path, written: RunInfo) -> None:
    """However right its checksum is: no table is read in a wrong place."""
    path = path_of(tmp_path, written)
    whole = path.read_bytes()
    footer = unpack_footer(whole[-FOOTER_BYTES:], len(whole) - FOOTER_BYTES)
    for changed in (
        replace(footer, count=footer.count + 1),
        replace(footer, bits=footer.bits + 1),
        replace(footer, end=footer.end - 1),
        replace(footer, end=footer.first, count=0, bits=1),
        replace(footer, first=footer.first + 3),
    ):
        path.write_bytes(whole[:-FOOTER_BYTES] + changed.pack())
        assert "contradicts itself" in str(refused(tmp_path, written))


def test_what_is_made_of_a_damaged_run_never_appears(tmp_path: Path) -> None:
    """The damage is told, and not copied under a checksum that is right."""
    columns, disk = actions(4), RealDisk()
    infos = [write_run(disk, str(tmp_path), [part(columns, n, n + 2)], LOG_ID, n, n + 2) for n in (0, 2)]
    flip(path_of(tmp_path, infos[1]), 4096 + 40)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    runs = [opened(disk, str(tmp_path), info) for info in infos]
    for act in (
        lambda: write_run(disk, str(tmp_path), runs, LOG_ID, 0, 4),
        lambda: rewrite_forgotten(disk, runs[1], [infos[1].last_seq]),
    ):
        with pytest.raises(RunDamaged) as caught:
            act()
        assert (caught.value.path, caught.value.offset) == (runs[1].path, 4096)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("step", ["create", "write", "sync", "rename"])
def test_a_failed_write_leaves_no_run(tmp_path: Path, step: str) -> None:
    """The error is passed on."""
    disk = FaultyDisk()
    disk.fail(step, ".run" if step == "rename" else ".tmp")
    with pytest.raises(WriteFailed):
        write_run(disk, str(tmp_path), [actions(2)], LOG_ID, 0, 2)
    assert not list(tmp_path.glob("*.run"))


def join(disk: Disk, directory: str, columns: Columns) -> RunInfo:
    """Write two runs, join them, forget an action of what was joined."""
    infos = [write_run(disk, directory, [part(columns, n, n + 2)], LOG_ID, n, n + 2) for n in (0, 2)]
    runs = [opened(disk, directory, info) for info in infos]
    info = write_run(disk, directory, runs, LOG_ID, 0, 4)
    rewrite_forgotten(disk, opened(disk, directory, info), [info.last_seq])
    return info


def check(disk: Disk, directory: str, columns: Columns) -> list[str]:
    """Each run that is there is whole: with the marks of before or after. Gives the names."""
    names = [name for name in disk.list_directory(directory) if name.endswith(".run")]
    for name in names:
        run = Run.open(disk, f"{directory}/{name}", None, LOG_ID)
        assert name == run_name(run.info)
        own = entries_of(part(columns, run.info.first, run.info.end))
        forgotten = [(*entry[:3], FORGOTTEN if entry[2] == int(columns.seqs[-1]) else entry[3]) for entry in own]
        assert listed(run) in (own, forgotten)
        run.close()
    return names


def test_a_process_killed_at_any_step_leaves_whole_runs(tmp_path: Path) -> None:
    """Before each step of two runs, a join and a forgetting; and the next process does it all."""
    columns = actions(4)
    columns.marks[-1] = 7
    disk = FaultyDisk()
    info = join(disk, str(tmp_path / "whole"), columns)
    assert len(disk.steps) >= 4 * 5
    for number in range(len(disk.steps)):
        directory = tmp_path / f"crash-{number}"
        disk = FaultyDisk()
        disk.crash_at(number)
        with pytest.raises(Crash):
            join(disk, str(directory), columns)
        check(RealDisk(), str(directory), columns)
        assert join(RealDisk(), str(directory), columns) == info
        assert len(check(RealDisk(), str(directory), columns)) == len(list(directory.iterdir())) == 3


@pytest.mark.parametrize("fate", [Nothing(), Everything(), Chance(random.Random(1))])
def test_a_power_cut_at_any_moment_leaves_whole_runs(fate: Fate) -> None:
    """Before, within and after each step. What was returned is durable."""
    columns = actions(4)
    columns.marks[-1] = 7
    for number in count():
        machine = Machine(fate)
        left = number

        def cut(_moment: Moment, _name: str, _path: str, machine: Machine = machine) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                machine.cut_power()

        machine.on_step = cut
        returned = False
        with suppress(PowerCut):
            join(machine.boot(), "/data/actions", columns)
            returned = True
        machine.on_step = lambda moment, name, path: None
        machine.cut_power(Nothing())
        disk = machine.boot()
        names = check(disk, "/data/actions", columns) if disk.exists("/data/actions") else []
        if returned:
            assert len(names) == 3
            assert Run.open(disk, f"/data/actions/{names[1]}", None, LOG_ID).forgotten > 0
            break
        info = join(disk, "/data/actions", columns)
        machine.cut_power(Nothing())
        assert run_name(info) in check(machine.boot(), "/data/actions", columns)
    assert number > 30
