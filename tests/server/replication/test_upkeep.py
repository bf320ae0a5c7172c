"""A replica begins anew from its leader's snapshot, while a checkpoint of its old state works on the same directory.

A disk stops the checkpoint at a chosen step until the replica waits for it or has moved the directories. So no case
depends on which thread is quicker.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest
import trio

from engine.clock import GivenClock
from engine.disk import Disk, RealDisk
from engine.erased import Erasures
from engine.errors import WriteFailed
from engine.local_log import LocalLog
from engine.machine import StateMachine
from engine.record import Tail, frame_bytes
from engine.scoreboard import Scoreboard
from server.replication import replicas
from server.replication.feed import FrameFeed
from server.replication.replicas import WholeReplica
from snapshots.checkpoint import Checkpointer
from snapshots.opening import open_directory
from snapshots.store import Store
from tests.server.lanes.support import PATIENCE_SECONDS
from tests.snapshots.directories import RULES, SEGMENT_BYTES, Leader, Told, digest, segments, seq_of, snapshot_files


class StoppingDisk(RealDisk):
    """Stops the first write or removal of a file with this ending, until `moved_or_waiting`."""

    def __init__(self, step: str, suffix: str) -> None:
        self.stopped = threading.Event()
        self.moved_or_waiting = threading.Event()
        self._at = (step, suffix)

    def _pass(self, step: str, path: str) -> None:
        if step == self._at[0] and path.endswith(self._at[1]) and not self.stopped.is_set():
            self.stopped.set()
            assert self.moved_or_waiting.wait(PATIENCE_SECONDS)

    def write_whole(self, path: str, chunks: Iterable[bytes], mode: int = 0o600, paced: bool = False) -> int:
        self._pass("write", path)
        return super().write_whole(path, chunks, mode, paced)

    def remove(self, path: str) -> None:
        self._pass("remove", path)
        super().remove(path)

    def sync_directory(self, path: str) -> None:
        super().sync_directory(path)
        if path.endswith("/replica/log") and any(Path(path).parent.glob("aside-*")):
            self.moved_or_waiting.set()  # the new log is there


class TellingLock:
    """A lock that tells when a task has to wait for it. `late`: the first one to come waits for this outside."""

    def __init__(self, waiting: threading.Event) -> None:
        self.late: threading.Event | None = None
        self.came = threading.Event()
        self._lock = threading.Lock()
        self._waiting = waiting

    def __enter__(self) -> None:
        late, self.late = self.late, None
        self.came.set()
        if late is not None:
            assert late.wait(PATIENCE_SECONDS)
        if not self._lock.acquire(blocking=False):
            self._waiting.set()
            self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class Both:
    """A replica with old segments and a snapshot, its checkpointer, and a later snapshot of the leader."""

    def __init__(self, root: Path, disk: StoppingDisk, keep_seconds: float | None = None) -> None:
        self.leader = Leader(root / "leader")
        self.leader.play(60)
        self.leader.snapshot()
        self.leader.play(60)
        shutil.copytree(root / "leader", root / "replica")
        self.had = self.leader.tail.seq
        self.leader.play(60)
        self.fetched = root / "replica" / "fetched.snapshot"
        shutil.copy(self.leader.snapshot().path, self.fetched)
        self.directory = root / "replica"
        self.told = Told()
        opened = open_directory(disk, str(self.directory), RULES, tell=self.told, segment_bytes=SEGMENT_BYTES)
        self.log = opened.log
        self.lock = TellingLock(disk.moved_or_waiting)
        self.log.upkeep = self.lock  # type: ignore[assignment]  # it does what is needed of one
        feed = FrameFeed(opened.log.tail.seq)
        log = LocalLog(opened.log)
        machine = StateMachine(opened.scoreboard, log, lambda applied: feed.append(applied.synced.frame))
        self.replica = WholeReplica(disk, str(self.directory), machine, opened.log, feed)
        self.checkpointer = Checkpointer(
            machine,
            Store(disk, str(self.directory)),
            opened,
            every_events=1,
            keep=2,
            log_keep_seconds=keep_seconds,
            clock=GivenClock(lambda: 2**50),
            tell=self.told,
            on_capture=feed.mark,
        )


async def check_new_beginning(now: Both) -> None:
    """Check that the directory has only the leader's snapshot and a log that begins after it. The old files are whole.
    The directory takes frames, has a checkpoint without a fault, and opens again.
    """
    seq = now.leader.tail.seq
    assert now.replica.tail == now.leader.tail
    assert [path.name for path in segments(now.directory)] == [f"{seq + 1:020}.log"]
    assert [info.first_seq for info in now.log.segments()] == [seq + 1]
    assert seq_of(snapshot_files(now.directory)[0]) == seq
    [aside] = now.directory.glob("aside-*")
    opened = open_directory(RealDisk(), str(aside), RULES, tell=Told(), segment_bytes=SEGMENT_BYTES)
    opened.log.close()
    assert opened.scoreboard.seq == now.had

    now.leader.play(3)
    await now.replica.take([frame_bytes(frame) for frame in now.leader.log.read_from(seq + 1)])
    await now.checkpointer.take()
    assert now.told.faults == []
    assert now.checkpointer.statistics().failed == 0
    assert [seq_of(path) for path in snapshot_files(now.directory)] == [seq, now.leader.tail.seq]
    now.log.close()
    again = open_directory(RealDisk(), str(now.directory), RULES, tell=Told(), segment_bytes=SEGMENT_BYTES)
    again.log.close()
    assert digest(again.scoreboard) == now.leader.digest()


@pytest.mark.parametrize(
    ("step", "suffix", "keep_seconds"),
    [("write", ".snapshot", None), ("write", ".gz", None), ("remove", ".log", None), ("remove", ".log", 0.0)],
    ids=["a snapshot is written", "a segment is compressed", "its plain form goes", "a segment is removed"],
)
async def test_a_checkpoint_leaves_nothing_of_the_old_history_in_the_new_one(
    tmp_path: Path, step: str, suffix: str, keep_seconds: float | None
) -> None:
    """The replica begins anew only after the checkpoint has finished with the old files."""
    disk = StoppingDisk(step, suffix)
    now = Both(tmp_path, disk, keep_seconds)
    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(now.checkpointer.take)
            await trio.to_thread.run_sync(disk.stopped.wait)
            await now.replica.restart(str(now.fetched))
        await check_new_beginning(now)


async def test_a_state_that_was_set_aside_before_it_was_written_is_captured_again(tmp_path: Path) -> None:
    """Its snapshot would lie in the new history, and its log would not reach back to it."""
    now = Both(tmp_path, StoppingDisk("never", ""))
    moved = now.lock.late = threading.Event()
    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(now.checkpointer.take)
            await trio.to_thread.run_sync(now.lock.came.wait)
            await now.replica.restart(str(now.fetched))
            moved.set()
        assert now.checkpointer.statistics().last_seq == now.leader.tail.seq
        await check_new_beginning(now)


async def test_state_and_log_agree_even_if_what_was_set_aside_can_not_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a checkpoint would capture the old state again and again, and never write it."""
    now = Both(tmp_path, StoppingDisk("never", ""))
    load = replicas._load_newer

    async def load_erased(disk: Disk, path: str, replica: WholeReplica) -> tuple[Scoreboard, Tail] | None:
        loaded = await load(disk, path, replica)
        assert loaded is not None
        loaded[0].erasures = Erasures(1, loaded[1].seq)
        return loaded

    def fail(_disk: Disk, directory: str) -> list[str]:
        raise WriteFailed("can't remove", path=directory)

    monkeypatch.setattr(replicas, "_load_newer", load_erased)
    monkeypatch.setattr(replicas, "remove_aside", fail)
    with trio.fail_after(PATIENCE_SECONDS):
        with pytest.raises(WriteFailed):
            await now.replica.restart(str(now.fetched))
        assert now.replica.scoreboard.seq == now.log.tail.seq == now.leader.tail.seq
        info = await now.checkpointer.take()
        assert info.seq == now.leader.tail.seq
    now.log.close()
