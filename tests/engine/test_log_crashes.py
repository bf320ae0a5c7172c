"""A log whose process is killed before any step of its disk."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from engine.disk import RealDisk
from engine.log import Log, Tail
from engine.log_reader import holds_log, scan
from tests.engine.faulty_disk import Crash, FaultyDisk
from tests.engine.logs import LOG_ID, SEGMENT_BYTES, Opened, append


def life_of_a_log(disk: FaultyDisk, directory: Path, acknowledged: list[int]) -> None:
    """Create, append over several segments, open again, compress, remove, append."""
    log = Log.create(disk, str(directory), log_id=LOG_ID, segment_bytes=SEGMENT_BYTES)
    for _ in range(12):
        append(log, 1)
        acknowledged.append(log.tail.seq)
    log.close()
    log = Opened(directory, disk=disk).log
    log.compress(log.segments()[0])
    for _ in range(12):
        append(log, 1)
        acknowledged.append(log.tail.seq)
    log.compress(log.segments()[1])
    log.remove_before(log.segments()[1].first_seq)
    append(log, 1)
    acknowledged.append(log.tail.seq)
    log.close()


def test_a_process_killed_at_any_step_loses_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    """Before each write, sync, rename and removal of a log's life: it opens, complete, and goes on."""
    disk = FaultyDisk()
    life_of_a_log(disk, tmp_path / "whole", [])
    assert len(disk.steps) > 80
    for number in range(len(disk.steps)):
        directory = tmp_path / f"crash-{number}"
        acknowledged = [0]
        disk = FaultyDisk()
        disk.crash_at(number)
        with pytest.raises(Crash):
            life_of_a_log(disk, directory, acknowledged)
        if not holds_log(RealDisk(), str(directory)):
            assert acknowledged == [0]
            Log.create(RealDisk(), str(directory), log_id=LOG_ID, segment_bytes=SEGMENT_BYTES).close()
        frames = list(scan(RealDisk(), str(directory)))
        first = frames[0].first_seq if frames else 1
        after = None if first == 1 else Tail(log_id=LOG_ID, epoch=1, seq=first - 1, checksum=frames[0].previous)
        opened = Opened(directory, after=after)
        assert opened.seqs == list(range(first, opened.log.tail.seq + 1))
        # One frame more than was acknowledged may be there: written, but the answer was never given.
        assert opened.log.tail.seq in {acknowledged[-1], acknowledged[-1] + 4}
        append(opened.log, 1)
        opened.log.close()
        shutil.rmtree(directory)
