"""Sealing the live segment, and putting another content in the place of a sealed one, while others write and read."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from engine.errors import DiskFull, WriteFailed
from engine.log import Log
from engine.record import events_of
from engine.rewriting import Forgetting, rewrite_content
from engine.segment import SegmentFile, index_path, read_content
from engine.user_index import make_missing
from tests.engine.faulty_disk import FaultyDisk
from tests.engine.logs import LOG_ID, SEGMENT_BYTES, Opened, append, increments, make_log
from tests.engine.test_log_room import no_space


def test_a_sealed_segment_takes_no_more_and_an_empty_one_is_not_sealed(tmp_path: Path) -> None:
    """What follows goes to the next segment, and nothing is missing when the log is opened again."""
    log = Log.create(FaultyDisk(), str(tmp_path), log_id=LOG_ID, segment_bytes=SEGMENT_BYTES)
    log.seal()
    assert len(log.segments()) == 1
    append(log, 1)
    log.seal()
    log.seal()
    assert [(info.last_seq, info.sealed) for info in log.segments()] == [(4, True), (4, False)]
    append(log, 1)
    assert [(info.first_seq, info.last_seq) for info in log.segments()] == [(1, 4), (5, 8)]
    log.close()
    assert Opened(tmp_path).seqs == list(range(1, 9))


def test_a_thread_seals_while_another_one_appends(tmp_path: Path) -> None:
    """They take turns: each frame is in one segment, in order."""
    log = Log.create(FaultyDisk(), str(tmp_path), log_id=LOG_ID, segment_bytes=SEGMENT_BYTES)
    writer = threading.Thread(target=append, args=(log, 300), kwargs={"per_frame": 1})
    writer.start()
    while writer.is_alive():
        log.seal()
    writer.join()
    assert len(log.segments()) > 10
    log.close()
    assert Opened(tmp_path).seqs == list(range(1, 301))


def test_a_full_disk_leaves_the_segment_open_and_any_other_fault_is_final(tmp_path: Path) -> None:
    """After the first the log goes on; after the second it is not known what is on the disk."""
    disk = FaultyDisk()
    log = Log.create(disk, str(tmp_path), log_id=LOG_ID, segment_bytes=SEGMENT_BYTES)
    append(log, 1)
    disk.before = no_space("create", ".tmp")
    with pytest.raises(DiskFull):
        log.seal()
    disk.before = None
    append(log, 1)
    assert len(log.segments()) == 1
    disk.fail("sync_directory", "")
    with pytest.raises(WriteFailed):
        log.seal()
    disk.before = None
    with pytest.raises(WriteFailed):
        log.append(increments(9, 1), 1)
    log.close()
    assert Opened(tmp_path).seqs == list(range(1, 9))


def test_a_reader_goes_on_through_a_segment_that_is_replaced(tmp_path: Path) -> None:
    """Its frames have the same seqs and checksums. The index of the old content goes, in both forms of a file."""
    make_log(tmp_path, 40)
    disk = FaultyDisk()
    log = Opened(tmp_path, disk=disk).log
    log.compress(log.segments()[0])
    make_missing(disk, log)
    change = Forgetting({"user-3": [(1000, "\x001")]})
    reader = log.read_from(1)
    before = [next(reader)]
    for info in log.segments()[:-1]:
        content = read_content(disk, SegmentFile(info.path, info.first_seq, info.compressed, info.bytes))
        changed = rewrite_content(content, change)
        assert changed is not None
        log.replace(info, changed)
        assert not Path(index_path(info.path)).exists()
    with pytest.raises(ValueError, match="not a sealed segment"):
        log.replace(log.segments()[-1], b"")
    before += reader
    assert [frame.last_seq for frame in before] == list(range(4, 161, 4))
    after = list(log.read_from(1))
    assert [frame.checksum for frame in after] == [frame.checksum for frame in before]
    sealed = log.segments()[-1].first_seq
    users = {getattr(event, "user_id", "") for frame in after if frame.last_seq < sealed for event in events_of(frame)}
    assert "user-3" not in users
    assert "\x001" in users
    for info in log.segments():
        assert info.bytes == Path(info.path).stat().st_size
    log.close()
    assert Opened(tmp_path).seqs == list(range(1, 161))
