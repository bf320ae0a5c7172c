"""The bytes of a run, for who copies it: they are those of the file, and damage among them is found first."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.action_blocks import RunInfo, run_name
from engine.action_run import write_run
from engine.action_run_bytes import RunBytes
from engine.disk import RealDisk
from engine.errors import RunDamaged
from tests.engine.action_runs import actions, small_blocks
from tests.engine.logs import LOG_ID

BLOCK = 200


@pytest.fixture(scope="module", name="written")
def _written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunInfo]:
    """A run with a few checksums of entries."""
    directory = tmp_path_factory.mktemp("actions")
    with small_blocks(BLOCK):
        info = write_run(RealDisk(), str(directory), [actions(3, 1)], LOG_ID, 0, 3)
    return directory / run_name(info), info


@settings(max_examples=60)
@given(begin=st.integers(0, 25_000), length=st.integers(1, 10_000))
def test_each_part_is_that_of_the_file(written: tuple[Path, RunInfo], begin: int, length: int) -> None:
    """Wherever it begins and ends, also beyond the end."""
    path, info = written
    data = path.read_bytes()
    with small_blocks(BLOCK), closing(RunBytes.open(RealDisk(), str(path))) as run:
        assert (run.size, run.info) == (len(data), info)
        assert run.read_at(begin, length) == data[begin : begin + length]


def test_which_run_it_is_is_compared(written: tuple[Path, RunInfo]) -> None:
    """By its blocks, their digests, and the log."""
    path, info = written
    with small_blocks(BLOCK), closing(RunBytes.open(RealDisk(), str(path))) as run:
        run.prove(info, LOG_ID)
        for other, log_id in ((RunInfo(0, 3, 600, 1, 600, bytes(32)), LOG_ID), (info, bytes(16))):
            with pytest.raises(RunDamaged, match="not the run that belongs here"):
                run.prove(other, log_id)


def test_every_flipped_bit_is_found(written: tuple[Path, RunInfo], tmp_path: Path) -> None:
    """In the tables and the footer when it is opened, in an entry when that is read; never later."""
    path, info = written
    data = path.read_bytes()
    entries = 32 * info.count
    with small_blocks(BLOCK):
        with closing(RunBytes.open(RealDisk(), str(path))) as run:
            mark = run.mark
        for at in [*range(0, entries, 997), *range(entries, len(data), 211), len(data) - 1]:
            copy = tmp_path / "copy"
            copy.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
            if at < entries:
                with closing(RunBytes.open(RealDisk(), str(copy))) as run:
                    with pytest.raises(RunDamaged) as damage:
                        run.prove(info, LOG_ID)
                    assert damage.value.offset == at // 4096 * 4096
                    assert run.mark == mark, "the mark is that of what should be there"
            else:
                with pytest.raises(RunDamaged) as damage:
                    RunBytes.open(RealDisk(), str(copy))
            assert damage.value.path == str(copy)
        for length in (0, 10, entries, len(data) - 1):
            copy.write_bytes(data[:length])
            with pytest.raises(RunDamaged):
                RunBytes.open(RealDisk(), str(copy))
