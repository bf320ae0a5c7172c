"""A replica whose disk is full: it waits, grows stale, and goes on when there is room."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from engine.disk import RealFile
from engine.errors import NoSpace
from server import bounds
from tests.server.replication.network import Leader, make_bootstrap, open_replica, patience, start
from tests.snapshots.directories import InlineDisk, digest


class SmallDisk(InlineDisk):
    """A disk that is full while a test says so."""

    def __init__(self) -> None:
        self.full = False
        self._refused = 0
        self._changed = trio.Event()

    async def wait_refused(self, count: int) -> None:
        """Wait until so many attempts found it full."""
        while self._refused < count:
            self._changed = trio.Event()
            await self._changed.wait()

    def free_bytes(self, path: str) -> int:
        """Tell what is left."""
        return 0 if self.full else super().free_bytes(path)

    def create(self, path: str, mode: int = 0o600) -> RealFile:
        """Make a file if there is room."""
        if self.full:
            self._refused += 1
            self._changed.set()
            raise NoSpace("can't create the file: No space left on device", path=path)
        return super().create(path, mode)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "DISK_FULL_RETRY_SECONDS", 0.02)


async def test_a_replica_with_a_full_disk_waits_and_goes_on(tmp_path: Path) -> None:
    """A full disk ends the service: it takes no link meanwhile, so it grows stale; then it has everything again."""
    disk, leader = SmallDisk(), Leader(tmp_path / "leader")
    async with patience() as nursery, leader.open():
        leader.play(3)
        replica = await open_replica(tmp_path / "replica", leader.url, disk=disk)
        running = await start(nursery, replica.follower)
        await running.reaches(leader.seq)
        disk.full = True
        leader.play(60)
        await running.is_in("disconnected")
        status = running.follower.status()
        assert "does not fit on the disk" in status.reason
        assert status.connected_since_ms is None
        assert status.seq == replica.log.tail.seq == replica.feed.seq < leader.seq
        await disk.wait_refused(5)
        assert running.follower.status().state == "disconnected"
        assert len(leader.followers) == 0
        assert replica.log.full is not None
        disk.full = False
        await running.reaches(leader.seq)
        assert replica.log.full is None
        assert digest(running.scoreboard) == digest(leader.writer.scoreboard)
        await running.stop()


async def test_a_replica_that_must_begin_anew_changes_nothing_before_there_is_room(tmp_path: Path) -> None:
    """Its log and its snapshots stay where they are, and are followed from as soon as the new ones fit."""
    disk, leader = SmallDisk(), Leader(tmp_path / "leader", ring_bytes=1)
    async with patience() as nursery, leader.open():
        leader.play(2)
        replica = await open_replica(tmp_path / "replica", leader.url, disk=disk)
        names = sorted(path.name for path in (tmp_path / "replica").iterdir())
        leader.play(60)
        await leader.checkpointer.take()
        leader.writer.log.remove_before(leader.seq)
        fetched = await make_bootstrap(leader.url, tmp_path / "replica", disk=disk).fetch()
        assert fetched is not None
        disk.full = True
        with pytest.raises(Exception, match="does not fit on the disk"):
            await replica.replica.restart(fetched.path)
        left = sorted(path.name for path in (tmp_path / "replica").iterdir() if path.name in names)
        assert left == names
        assert not list((tmp_path / "replica").glob("aside-*"))
        with pytest.raises(Exception, match="does not fit on the disk"):
            await replica.replica.make_room()
        assert replica.log.full is not None
        disk.full = False
        await replica.replica.make_room()
        assert replica.log.full is None
        running = await start(nursery, replica.follower)
        await running.reaches(leader.seq)
        await running.stop()


async def test_a_download_that_does_not_fit_is_tried_again(tmp_path: Path) -> None:
    """What came of it is removed meanwhile: it takes the room that others need."""
    disk, leader = SmallDisk(), Leader(tmp_path / "leader")
    told: list[str] = []
    async with patience() as nursery, leader.open():
        leader.play(20)
        await leader.checkpointer.take()
        disk.full = True
        bootstrap = make_bootstrap(leader.url, tmp_path / "replica", told, disk)
        fetched: list[object] = []
        done = trio.Event()

        async def fetch() -> None:
            fetched.append(await bootstrap.fetch())
            done.set()

        nursery.start_soon(fetch)
        await disk.wait_refused(3)
        assert not list((tmp_path / "replica").iterdir())
        assert any("does not fit on the disk" in line for line in told)
        disk.full = False
        await done.wait()
        assert fetched[0] is not None
