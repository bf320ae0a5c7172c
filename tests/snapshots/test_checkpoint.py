"""Taking snapshots while serving: exact, one at a time, and never the end of the process.

Where a test waits, the clock is a mock that jumps: the disk is used from the event loop, so nothing but waiting happens
meanwhile, and the waits take no time.
"""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from engine.disk import RealDisk
from engine.errors import DiskFault, SnapshotDamaged, WriteFailed
from engine.image import StateImage
from engine.record import Tail
from snapshots.checkpoint import LOOK_SECONDS, RETRY_SECONDS, take_beside
from snapshots.digests import StateDigests, digests_of
from snapshots.state import read_state
from snapshots.store import SnapshotInfo, Store
from tests.snapshots.directories import (
    BEGUN_MS,
    RULES,
    InlineDisk,
    Leader,
    Told,
    damage_snapshot,
    digest,
    history,
    snapshot_files,
)
from tests.snapshots.serving import Served, serving


async def test_a_snapshot_on_demand_is_of_exactly_this_state(tmp_path: Path) -> None:
    """What is loaded from it is what the actor held, with the log's own tail."""
    async with serving(Served(tmp_path)) as served:
        await served.write(50)
        info = await served.checkpointer.take()
        assert info.seq == 50
        image, tail = served.store.load(info)
        assert tail == served.opened.log.tail
        assert image == served.machine.capture()[0]


async def test_a_snapshot_before_the_first_event_does_no_harm(tmp_path: Path) -> None:
    """A leader that is stopped before anybody came takes one of the empty state: the next one goes on from it."""
    async with serving(Served(tmp_path)) as served:
        assert (await served.checkpointer.take()).seq == 0
    async with serving(Served(tmp_path)) as again:
        assert again.opened.snapshot_seq == 0
        await again.write(5)
        expected = again.digest()
    last = Leader(tmp_path)
    assert (last.digest(), last.opened.snapshot_seq, last.told.all) == (expected, 0, [])
    last.close()
    scoreboard, _ = read_state(InlineDisk(), str(tmp_path), RULES, tell=Told())
    assert digest(scoreboard) == expected


async def test_a_snapshot_of_the_same_state_is_not_taken_twice(tmp_path: Path) -> None:
    """Asked again with nothing new, also by two at once, and after a restart: the one that is there is given."""
    async with serving(Served(tmp_path)) as served:
        await served.write(5)
        infos: list[SnapshotInfo] = []

        async def take() -> None:
            infos.append(await served.checkpointer.take())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(take)
            nursery.start_soon(take)
        await take()
        assert infos == [infos[0]] * 3
        assert served.checkpointer.statistics().taken == 1
    async with serving(Served(tmp_path)) as again:
        assert await again.checkpointer.take() == infos[0]
        assert again.checkpointer.statistics().taken == 0


async def test_checkpoints_come_by_the_number_of_events(tmp_path: Path, autojump_clock: MockClock) -> None:
    """With every_events = 100: none after 99, one after 100, the next not before 200."""
    async with serving(Served(tmp_path, every_events=100)) as served, trio.open_nursery() as nursery:
        nursery.start_soon(served.checkpointer.run)
        await served.write(99)
        await trio.sleep(3 * LOOK_SECONDS)
        assert served.checkpointer.statistics().last_seq is None
        await served.write(1)
        await trio.sleep(2 * LOOK_SECONDS)
        assert served.checkpointer.statistics().last_seq == 100
        await served.write(99)
        await trio.sleep(3 * LOOK_SECONDS)
        assert served.checkpointer.statistics().last_seq == 100
        await served.write(1)
        await trio.sleep(2 * LOOK_SECONDS)
        assert [info.seq for info in served.store.list()] == [200, 100]
        nursery.cancel_scope.cancel()


async def test_the_events_of_the_log_that_was_replayed_count_too(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A leader that is killed again and again before it comes to a checkpoint would replay ever more: it does not."""
    history(tmp_path, 60, snapshots=[10])
    async with serving(Served(tmp_path, every_events=100)) as served, trio.open_nursery() as nursery:
        nursery.start_soon(served.checkpointer.run)
        await trio.sleep(2 * LOOK_SECONDS)
        assert served.checkpointer.statistics().last_seq == served.seq
        nursery.cancel_scope.cancel()


async def test_statistics_tell_of_the_newest_snapshot(tmp_path: Path) -> None:
    """Nothing at first; seq and time of the last one; after a restart the time of the state that it holds."""
    async with serving(Served(tmp_path)) as served:
        statistics = served.checkpointer.statistics()
        assert (statistics.last_seq, statistics.last_time_ms, statistics.taken, statistics.failed) == (None, None, 0, 0)
        await served.write(10)
        served.now_ms += 5000
        await served.checkpointer.take()
        statistics = served.checkpointer.statistics()
        assert (statistics.last_seq, statistics.last_time_ms) == (10, BEGUN_MS + 5000)
        assert (statistics.taken, statistics.failed) == (1, 0)
    async with serving(Served(tmp_path)) as again:
        statistics = again.checkpointer.statistics()
        assert (statistics.last_seq, statistics.last_time_ms) == (10, BEGUN_MS)


class FailingStore(Store):
    """A store whose disk is full for the first `failures` times."""

    def __init__(self, directory: Path, failures: int) -> None:
        super().__init__(InlineDisk(), str(directory))
        self.failures = failures

    def save(self, image: StateImage, tail: Tail, *, paced: bool = False, mark: str = "") -> SnapshotInfo:
        """Save, or fail."""
        if self.failures > 0:
            self.failures -= 1
            raise WriteFailed("no space", path=self.directory)
        return super().save(image, tail, paced=paced, mark=mark)


async def test_a_failed_checkpoint_is_told_and_tried_again_and_the_process_goes_on(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The disk has no room for a snapshot twice: writes go on, both failures are told, the third attempt succeeds."""
    store = FailingStore(tmp_path, failures=2)
    async with serving(Served(tmp_path, every_events=10, store=store)) as served, trio.open_nursery() as nursery:
        nursery.start_soon(served.checkpointer.run)
        await served.write(10)
        await trio.sleep(2 * LOOK_SECONDS)
        assert [type(fault) for fault in served.told.all] == [WriteFailed]
        await served.write(10)
        await trio.sleep(2 * RETRY_SECONDS + 5 * LOOK_SECONDS)
        statistics = served.checkpointer.statistics()
        assert (statistics.last_seq, statistics.taken, statistics.failed) == (20, 1, 2)
        assert len(served.told.all) == 2
        nursery.cancel_scope.cancel()


async def test_who_asks_for_a_checkpoint_gets_its_error(tmp_path: Path) -> None:
    """On demand and at shutdown the failure is the caller's to handle; the next attempt is free to succeed."""
    store = FailingStore(tmp_path, failures=1)
    async with serving(Served(tmp_path, store=store)) as served:
        await served.write(5)
        with pytest.raises(WriteFailed):
            await served.checkpointer.take()
        assert (await served.checkpointer.take()).seq == 5


class GatedStore(Store):
    """A store that waits, in its worker thread, until the test lets it write."""

    def __init__(self, disk: RealDisk, directory: Path) -> None:
        super().__init__(disk, str(directory))
        self.saving = threading.Event()
        self.may_save = threading.Event()

    def save(self, image: StateImage, tail: Tail, *, paced: bool = False, mark: str = "") -> SnapshotInfo:
        """Say that it has come here, wait, save."""
        self.saving.set()
        assert self.may_save.wait(60)
        return super().save(image, tail, paced=paced, mark=mark)


async def test_the_snapshot_is_of_its_moment_whatever_is_written_meanwhile(tmp_path: Path) -> None:
    """While the worker thread has not even begun to pack, hundreds of events are applied: they are not in it."""
    store = GatedStore(RealDisk(), tmp_path)
    async with serving(Served(tmp_path, disk=RealDisk(), store=store)) as served:
        await served.write(200)
        expected = served.digest()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(served.checkpointer.take)
            await trio.to_thread.run_sync(store.saving.wait)
            await served.write(300)
            store.may_save.set()
        (info,) = store.list()
        assert info.seq == 200
        image, _ = store.load(info)
        scoreboard, tail = read_state(RealDisk(), str(tmp_path), RULES, until_seq=200, tell=Told())
        assert scoreboard.capture() == image
        assert digest(scoreboard) == expected
        assert tail == store.load(info)[1]
        assert served.seq == 500


async def test_who_listens_is_told_of_the_moment_and_of_the_digests(tmp_path: Path) -> None:
    """The seq at the copy itself, and the digests of that very state, whatever is written meanwhile."""
    captured: list[int] = []
    saved: list[tuple[int, StateDigests]] = []
    served = Served(
        tmp_path / "data", on_capture=captured.append, on_saved=lambda info, digests: saved.append((info.seq, digests))
    )
    async with serving(served):
        await served.write(30)
        digests = digests_of(served.opened.scoreboard.capture())
        await served.checkpointer.take()
        assert captured == [30]
        assert saved == [(30, digests)]
        await served.checkpointer.take()  # of the same state: there is nothing to tell
        assert captured == [30]


async def test_a_snapshot_beside_the_leader_is_whole_and_used_at_the_next_start(tmp_path: Path) -> None:
    """`snapshot take` on a live directory: it needs no lock, holds what is durable, and the leader goes on."""
    async with serving(Served(tmp_path)) as served:
        await served.write(100)
        info = take_beside(RealDisk(), str(tmp_path), tell=Told())
        assert info.seq == 100
        assert served.store.load(info) == (served.machine.capture()[0], served.machine.tail)
        await served.write(20)
        expected = served.digest()
    again = Leader(tmp_path)
    assert (again.digest(), again.opened.snapshot_seq) == (expected, 100)
    again.close()


def test_a_snapshot_beside_is_not_taken_again_unless_it_is_damaged(tmp_path: Path) -> None:
    """The end of the log has a snapshot already: it is proved and given. If it is damaged, it is replaced."""
    history(tmp_path, 20, snapshots=[20])
    (path,) = snapshot_files(tmp_path)
    before = path.stat().st_ino
    assert take_beside(RealDisk(), str(tmp_path), tell=Told()).path == str(path)
    assert path.stat().st_ino == before
    damage_snapshot(path)
    told = Told()
    info = take_beside(RealDisk(), str(tmp_path), tell=told)
    assert Store(RealDisk(), str(tmp_path)).verify(info).seq == info.seq
    assert {type(fault) for fault in told.all} == {SnapshotDamaged}
    assert sorted(path.parent.iterdir()) == [path]


def test_a_snapshot_of_a_directory_that_is_none_is_refused(tmp_path: Path) -> None:
    """Nothing is made where there is no log."""
    with pytest.raises(DiskFault, match="no segment"):
        take_beside(RealDisk(), str(tmp_path / "nothing"), tell=Told())
    assert not (tmp_path / "nothing").exists()
