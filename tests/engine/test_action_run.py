"""Runs of the index of actions: what was written is found, whatever the steps in which it was sealed."""

from __future__ import annotations

import os
import struct
from array import array
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.action_blocks import FORGOTTEN, RunInfo, block_digest, identity_of, layout, run_name
from engine.action_run import Columns, Run, rewrite_forgotten, write_run
from engine.actions import key_of, mark_of
from engine.disk import RealDisk
from engine.disk_faults import FileMissing
from tests.engine.action_runs import actions, entries_of, find, info_of, listed, opened, part, seal, small_blocks
from tests.engine.logs import LOG_ID
from tests.sim.disk import Machine
from tests.sim.storage import Nothing

GOLDEN = Path(__file__).parent / "golden" / "actions"


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(
    steps=st.lists(st.integers(1, 7), min_size=1, max_size=5),
    block_actions=st.sampled_from([1, 2, 5, 33, 100]),
    partition=st.sampled_from([2, 16, 10_000]),
    clustered=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_what_was_sealed_is_found_and_nothing_else(
    steps: list[int], block_actions: int, partition: int, clustered: bool, seed: int
) -> None:
    """After each step: each action with its seq and its mark, no other key; and the files are those of one step."""
    disk = Machine(Nothing()).boot()
    with small_blocks(block_actions, partition):
        columns = actions(sum(steps), seed, clustered=clustered)
        runs = dict[tuple[int, int], Run]()
        blocks = 0
        for step in steps:
            blocks += step
            runs = seal(disk, "/actions", runs, columns, blocks)
            assert list(runs) == layout(blocks)
        for (first, end), run in runs.items():
            own = part(columns, first, end)
            assert run.info == info_of(own, first)
            expected = entries_of(own)
            assert listed(run) == expected
            run.filter._check()
            for high, low, seq, mark in expected[:: max(1, len(expected) // 50)]:
                assert find(run, high, low) == (seq, mark)
                assert find(run, high, low ^ 1 << 63) is None
                assert find(run, high ^ 1, low) is None
            assert run.forgotten == sum(mark == FORGOTTEN for _, _, _, mark in expected)
            at_once = write_run(disk, "/other", [own], LOG_ID, first, end)
            assert at_once == run.info
            names = (run.path, f"/other/{run_name(at_once)}")
            contents = [disk.open(name).read_at(0, disk.size(name)) for name in names]
            assert contents[0] == contents[1]
            assert len(contents[0]) == run.file_bytes


def golden_actions() -> Columns:
    """The actions of the golden run: three blocks of 50, with seqs from 7 on, every seventh one forgotten."""
    keys = [key_of(f"action-{number}") for number in range(150)]
    marks = [0 if number % 7 == 0 else mark_of(f"user-{number % 9}", "main", "WON") for number in range(150)]
    return Columns(array("Q", b"".join(keys)), array("Q", range(7, 457, 3)), array("Q", marks))


def test_the_golden_run_is_written_and_read_as_ever(tmp_path: Path) -> None:
    """Byte for byte; it is never made anew."""
    [golden] = GOLDEN.iterdir()
    with small_blocks(50):
        columns = golden_actions()
        write_run(RealDisk(), str(tmp_path), [part(columns, 0, 1), part(columns, 1, 3)], LOG_ID, 2, 5)
        [path] = tmp_path.iterdir()
        assert path.name == golden.name
        assert path.read_bytes() == golden.read_bytes()
        run = Run.open(RealDisk(), str(golden), None, LOG_ID)
        assert listed(run) == entries_of(columns)
        assert run.info == info_of(columns, 2)
        run.close()


def test_a_foreign_program_reads_a_run_by_the_drawing() -> None:
    """With struct alone: each part is where `engine.action_run_format` draws it."""
    [golden] = GOLDEN.iterdir()
    data = golden.read_bytes()
    footer = struct.unpack("<4sI16s8QII", data[-96:])
    assert footer[:3] == (b"acts", 1, LOG_ID)
    first, end, block_actions, count, first_seq, last_seq, forgotten, bits = footer[3:11]
    assert (first, end, block_actions, count, first_seq, last_seq, forgotten) == (2, 5, 50, 150, 7, 454, 22)
    assert footer[12] == google_crc32c.value(data[-96:-4])
    entries = [struct.unpack_from("<4Q", data, 32 * number) for number in range(count)]
    assert entries == entries_of(golden_actions())
    at = 32 * count
    assert footer[11] == google_crc32c.value(data[at:-96])
    starts = struct.unpack_from(f"<{2**bits + 1}I", data, at)
    highs = [entry[0] for entry in entries]
    assert list(starts) == [sum(high < bucket << 64 - bits for high in highs) for bucket in range(2**bits + 1)]
    at += 4 * len(starts)
    assert list(struct.unpack_from(f"<{count}H", data, at)) == [entry[1] & 0xFFFF for entry in entries]
    at += 2 * count
    assert list(data[at : at + count]) == [entry[1] >> 16 & 0xFF for entry in entries]
    at += count
    checksums = struct.unpack_from("<2I", data, at)
    assert checksums == (google_crc32c.value(data[:4096]), google_crc32c.value(data[4096:4800]))
    at += 8
    columns = golden_actions()
    digests = b"".join(
        block_digest(columns.digests[2 * begin : 2 * begin + 100], columns.seqs[begin : begin + 50])
        for begin in (0, 50, 100)
    )
    assert data[at:-96] == digests


def test_marks_are_forgotten_in_place_and_nothing_else_changes(tmp_path: Path) -> None:
    """The name stays, the filter too; an open run reads on what it had. A second time there is nothing to do."""
    disk, directory = RealDisk(), str(tmp_path)
    with small_blocks(60):
        columns = actions(4)
        info = write_run(disk, directory, [columns], LOG_ID, 0, 4)
        run = opened(disk, directory, info)
        remembered = [entry for entry in entries_of(columns) if entry[3] != FORGOTTEN]
        gone = {entry[2] for entry in remembered[10:200:7]}
        assert rewrite_forgotten(disk, run, [*gone, 10**9, 0])
        again = opened(disk, directory, info)
        expected = [(*entry[:3], FORGOTTEN if entry[2] in gone else entry[3]) for entry in entries_of(columns)]
        assert listed(again) == expected
        assert listed(run) == entries_of(columns)
        assert again.forgotten == run.forgotten + len(gone)
        assert bytes(again.filter.prints8) == bytes(run.filter.prints8)
        assert os.listdir(directory) == [run_name(info)]
        before = os.stat(again.path).st_ino
        assert not rewrite_forgotten(disk, again, gone)
        assert not rewrite_forgotten(disk, again, [])
        assert not rewrite_forgotten(disk, again, [10**9])
        assert os.stat(again.path).st_ino == before
        # A run that is joined from it has the marks that it has now.
        run.close()
        again.close()


def test_what_is_joined_keeps_what_was_forgotten(tmp_path: Path) -> None:
    """The marks are those of the sources; identity and name are as ever."""
    disk, directory = RealDisk(), str(tmp_path)
    with small_blocks(30):
        columns = actions(4)
        runs = seal(disk, directory, {}, columns, 3)
        seq = next(int(seq) for seq, mark in zip(columns.seqs, columns.marks, strict=True) if mark != FORGOTTEN)
        assert rewrite_forgotten(disk, runs[0, 1], [seq])
        runs[0, 1] = opened(disk, directory, runs[0, 1].info)
        [joined] = seal(disk, directory, runs, columns, 4).values()
        assert joined.info == info_of(columns, 0)
        assert {entry[2]: entry[3] for entry in listed(joined)}[seq] == FORGOTTEN
        assert joined.forgotten == int(np.count_nonzero(np.asarray(columns.marks) == FORGOTTEN)) + 1


def test_several_threads_read_one_run(tmp_path: Path) -> None:
    """Each gets what it asked for."""
    disk, directory = RealDisk(), str(tmp_path)
    with small_blocks(1_000, 10_000):
        columns = actions(4)
        run = opened(disk, directory, write_run(disk, directory, [columns], LOG_ID, 0, 4))
        expected = entries_of(columns)

        def look(start: int) -> bool:
            return all(find(run, high, low) == (seq, mark) for high, low, seq, mark in expected[start::8])

        with ThreadPoolExecutor(4) as threads:
            assert all(threads.map(look, range(8)))
        run.close()


def test_a_run_has_one_descriptor_and_gives_it_back(tmp_path: Path) -> None:
    """When it is closed, or when nobody refers to it any more."""
    disk, directory = RealDisk(), str(tmp_path)
    with small_blocks(10):
        info = write_run(disk, directory, [actions(1)], LOG_ID, 0, 1)
        before = len(os.listdir("/proc/self/fd"))
        run = opened(disk, directory, info)
        other = opened(disk, directory, info)
        assert len(os.listdir("/proc/self/fd")) == before + 2
        run.close()
        run.close()
        del other
        assert len(os.listdir("/proc/self/fd")) == before


def test_a_run_that_is_not_there_is_missing(tmp_path: Path) -> None:
    """Which is another thing than damage."""
    info = RunInfo(0, 1, 10, 1, 10, identity_of([b"x" * 32]))
    with pytest.raises(FileMissing):
        opened(RealDisk(), str(tmp_path), info)
