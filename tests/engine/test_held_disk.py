"""The disk of a process that holds a directory: once that is lost, nothing is changed in what is there instead."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.disk import Disk, RealDisk
from engine.errors import PlaceLost
from engine.held_disk import HeldDisk
from tests.engine.disk_conformance import DiskConformance


class TestHeldDisk(DiskConformance):
    """The suite of all disks, in a directory that is held all the while."""

    @pytest.fixture
    def disk(self, tmp_path: Path) -> Disk:
        """A disk that holds a directory beside."""
        (tmp_path / "held").mkdir()
        disk = RealDisk()
        return HeldDisk(disk, disk.lock(str(tmp_path / "held" / "lock")))

    @pytest.fixture
    def root(self, tmp_path: Path) -> str:
        """An empty directory."""
        (tmp_path / "root").mkdir()
        return str(tmp_path / "root")


CHANGES: list[Callable[[HeldDisk, str], object]] = [
    lambda disk, data: disk.make_directory(f"{data}/new"),
    lambda disk, data: disk.create(f"{data}/new"),
    lambda disk, data: disk.open(f"{data}/a", write=True),
    lambda disk, data: disk.rename(f"{data}/a", f"{data}/new"),
    lambda disk, data: disk.remove(f"{data}/a"),
    lambda disk, data: disk.write_whole(f"{data}/new", [b"new"]),
    lambda disk, data: disk.lock(f"{data}/another"),
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_lost_directory_is_not_changed(tmp_path: Path, change: Callable[[HeldDisk, str], object]) -> None:
    """The directory was renamed, and another is in its place, which looks the same."""
    data, real = tmp_path / "data", RealDisk()
    data.mkdir()
    disk = HeldDisk(real, real.lock(f"{data}/lock"))
    data.rename(tmp_path / "old")
    data.mkdir()
    (data / "a").write_bytes(b"theirs")
    (data / "lock").touch()
    with pytest.raises(PlaceLost, match="the data directory was replaced") as lost:
        change(disk, str(data))
    assert lost.value.path == str(data)
    assert "Find out" in lost.value.remedy
    assert sorted(path.name for path in data.iterdir()) == ["a", "lock"]
    assert (data / "a").read_bytes() == b"theirs"
    assert disk.exists(f"{data}/a")
    assert disk.size(f"{data}/a") == 6


def test_a_lock_that_is_removed_while_a_file_is_written_stops_the_file(tmp_path: Path) -> None:
    """The lock's file is removed: a snapshot takes long, and must not appear beside those of a second leader."""
    real = RealDisk()
    disk = HeldDisk(real, real.lock(f"{tmp_path}/lock"))

    def chunks() -> Iterator[bytes]:
        yield b"one"
        (tmp_path / "lock").unlink()
        yield b"two"

    with pytest.raises(PlaceLost, match="the lock of the data directory was moved or removed"):
        disk.write_whole(f"{tmp_path}/snapshot", chunks())
    assert list(tmp_path.iterdir()) == []
