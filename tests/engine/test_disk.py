"""The real disk: it passes the suite for all disks, and turns what the system says into our own faults."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from engine.disk import PACE_BYTES, ZEROS_BYTES, Disk, FileMissing, RealDisk, RealFile, UnsyncedDisk
from engine.errors import DirectoryInUse, DiskFault, WriteFailed
from tests.deadlines import deadline
from tests.engine.disk_conformance import DiskConformance


class TestRealDisk(DiskConformance):
    """The suite of all disks."""

    @pytest.fixture
    def disk(self) -> Disk:
        """The file system that the tests run on."""
        return RealDisk()

    @pytest.fixture
    def root(self, tmp_path: Path) -> str:
        """A directory of pytest's."""
        return str(tmp_path)


class TestUnsyncedDisk(TestRealDisk):
    """The same suite: what it leaves out shows only after a power cut."""

    @pytest.fixture
    def disk(self) -> Disk:
        """As a replica that keeps nothing uses it."""
        return UnsyncedDisk()


def failing(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def test_files_and_directories_are_for_the_owner_alone(tmp_path: Path) -> None:
    """A signing key and the names of users lie there."""
    disk = RealDisk()
    disk.make_directory(str(tmp_path / "data"))
    disk.write_whole(str(tmp_path / "data" / "key"), [b"secret"])
    disk.create(str(tmp_path / "data" / "log")).close()
    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode) for path in [tmp_path / "data", *(tmp_path / "data").iterdir()]
    }
    assert modes == {"data": 0o700, "key": 0o600, "log": 0o600}
    disk.write_whole(str(tmp_path / "data" / "key"), [b"secret"], mode=0o400)
    assert stat.S_IMODE((tmp_path / "data" / "key").stat().st_mode) == 0o400


def test_what_is_no_file_is_named_and_can_be_moved_away(tmp_path: Path) -> None:
    """A directory, a link that leads nowhere, a file in the place of a directory: each with what to do."""
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    disk = RealDisk()
    for work, remedy in (
        (lambda: disk.open(str(tmp_path / "directory")).read_at(0, 1), "move it away"),
        (lambda: disk.remove(str(tmp_path / "directory")), "move it away"),
        (lambda: disk.size(str(tmp_path / "link")), "symbolic link"),
        (lambda: disk.list_directory(str(tmp_path / "file")), "move it away"),
    ):
        with pytest.raises(DiskFault) as caught:
            work()
        assert remedy in caught.value.remedy


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


@pytest.mark.parametrize("make", [os.mkfifo, make_socket, lambda path: path.symlink_to("/dev/zero")])
@pytest.mark.parametrize("how", ["read", "write", "lock"])
def test_what_is_no_regular_file_is_refused_at_once(make: Callable[[Path], None], how: str, tmp_path: Path) -> None:
    """The open of a FIFO waited for a writer: a start hung for ever, beyond SIGTERM. Nothing stays open."""
    path = tmp_path / "x"
    make(path)
    disk, opened = RealDisk(), len(os.listdir("/proc/self/fd"))
    work: Callable[[str], object] = disk.lock if how == "lock" else partial(disk.open, write=how == "write")
    with deadline(5), pytest.raises(DiskFault, match="not a regular file") as caught:
        work(str(path))
    assert caught.value.path == str(path)
    assert "move it away" in caught.value.remedy
    assert len(os.listdir("/proc/self/fd")) == opened


def test_a_full_disk_is_a_failed_write_with_a_remedy() -> None:
    """With the path, the offset, and the system's own words. /dev/full is a disk that is always full."""
    file = RealFile("/dev/full", os.open("/dev/full", os.O_RDWR))
    with pytest.raises(WriteFailed, match="No space left on device") as caught:
        file.write_at(4711, b"x")
    file.close()
    assert (caught.value.path, caught.value.offset) == ("/dev/full", 4711)
    assert "Make room" in caught.value.remedy


def test_a_failed_sync_is_a_failed_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a file or of a directory."""
    disk = RealDisk()
    file = disk.create(str(tmp_path / "a"))

    def fail(descriptor: int) -> None:
        raise failing(errno.EIO)

    monkeypatch.setattr(os, "fdatasync", fail)
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(WriteFailed, match=r"can't sync.*kernel's log") as caught:
        file.sync()
    assert caught.value.path == str(tmp_path / "a")
    with pytest.raises(WriteFailed, match="can't sync the directory"):
        disk.sync_directory(str(tmp_path))
    file.close()


def test_a_directory_whose_name_may_not_be_synced_yet_is_made_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its maker may have ended between mkdir and sync; what is put into it would go with it in a power cut."""
    disk, path = RealDisk(), tmp_path / "data"
    synced: list[str] = []

    def fsync(descriptor: int) -> None:
        if not path.exists() or not synced:
            synced.append("failed")
            raise failing(errno.EIO)
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))

    disk.make_directory(str(tmp_path))
    monkeypatch.setattr(os, "fsync", fsync)
    path.mkdir()
    with pytest.raises(WriteFailed, match="can't sync the directory"):
        disk.make_directory(str(path))
    disk.make_directory(str(path))
    assert synced == ["failed", str(tmp_path)]


def test_a_file_system_that_can_not_sync_directories_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some network file systems say EINVAL; there is nothing to wait for then."""
    seen = []

    def fail(descriptor: int) -> None:
        seen.append(descriptor)
        raise failing(errno.EINVAL)

    monkeypatch.setattr(os, "fsync", fail)
    RealDisk().sync_directory(str(tmp_path))
    assert len(seen) == 1


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EINVAL])
def test_where_space_can_not_be_laid_out_zeros_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The result is the same: the length, the zeros, and what was there before."""

    def fail(descriptor: int, offset: int, length: int) -> None:
        raise failing(number)

    monkeypatch.setattr(os, "posix_fallocate", fail)
    file = RealDisk().create(str(tmp_path / "a"))
    file.write_at(0, b"head")
    length = 2 * ZEROS_BYTES + 17
    file.preallocate(length)
    assert file.read_at(0, length + 1) == b"head" + bytes(length - 4)
    file.preallocate(10)
    assert file.size() == length
    file.close()
    assert (tmp_path / "a").stat().st_blocks * 512 >= length


def test_no_room_to_lay_out_is_not_taken_for_not_being_able_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is told as such, and not filled further with zeros."""

    def fail(descriptor: int, offset: int, length: int) -> None:
        raise failing(errno.ENOSPC)

    monkeypatch.setattr(os, "posix_fallocate", fail)
    file = RealDisk().create(str(tmp_path / "a"))
    with pytest.raises(WriteFailed, match="can't lay out 5000 bytes: No space left"):
        file.preallocate(5000)
    assert file.size() == 0
    file.close()


def test_a_write_that_the_system_does_in_parts_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a signal, or where a file system takes only so much at once."""
    real = os.pwrite

    def part(descriptor: int, data: bytes, offset: int) -> int:
        return real(descriptor, data[:3], offset)

    monkeypatch.setattr(os, "pwrite", part)
    file = RealDisk().create(str(tmp_path / "a"))
    file.write_at(1, b"0123456789")
    assert file.read_at(0, 20) == b"\x000123456789"
    file.close()


def test_a_write_that_goes_nowhere_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that writes nothing and names no error would keep us for ever."""
    monkeypatch.setattr(os, "pwrite", lambda *_: 0)
    file = RealDisk().create(str(tmp_path / "a"))
    with pytest.raises(WriteFailed, match="wrote nothing"):
        file.write_at(0, b"0123456789")
    file.close()


def test_a_read_that_the_system_does_in_parts_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A short answer is not the end before there is an empty one."""
    (tmp_path / "a").write_bytes(b"0123456789")
    real = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, length, offset: real(fd, min(length, 3), offset))
    file = RealDisk().open(str(tmp_path / "a"))
    assert file.read_at(0, 10) == b"0123456789"
    assert file.read_at(8, 10) == b"89"
    file.close()


def test_a_read_error_is_a_fault_with_its_place(tmp_path: Path) -> None:
    """Reading a directory is the read error that every system has."""
    file = RealFile(str(tmp_path), os.open(tmp_path, os.O_RDONLY))
    with pytest.raises(DiskFault) as caught:
        file.read_at(512, 10)
    assert not isinstance(caught.value, WriteFailed | FileMissing)
    assert (caught.value.path, caught.value.offset) == (str(tmp_path), 512)
    file.close()


def test_the_lock_keeps_another_process_out_and_names_the_holder(tmp_path: Path) -> None:
    """And is free again when the holder is killed, with no file to clean up."""
    code = (
        "import sys, signal; from engine.disk import RealDisk;"
        "lock = RealDisk().lock(sys.argv[1]); print('held', flush=True); signal.pause()"
    )
    path = str(tmp_path / "lock")
    with subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(DirectoryInUse, match=f"pid {holder.pid}"):
            RealDisk().lock(path)
        holder.kill()
        holder.wait()
        lock = RealDisk().lock(path)
    assert Path(path).read_text() == f"{os.getpid()}\n"
    lock.release()


def test_where_locks_are_not_to_be_had_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Going on without a lock would let two leaders in."""

    def fail(descriptor: int, operation: int) -> None:
        raise failing(errno.ENOLCK)

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(DiskFault, match="No locks available"):
        RealDisk().lock(str(tmp_path / "lock"))


def test_only_a_paced_write_syncs_on_its_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every few megabytes, and once at the end in any case; then the directory, after the rename."""
    steps: list[str] = []
    real_sync, real_fsync, real_rename = os.fdatasync, os.fsync, os.rename

    def fdatasync(descriptor: int) -> None:
        steps.append("sync")
        real_sync(descriptor)

    def fsync(descriptor: int) -> None:
        steps.append("sync directory")
        real_fsync(descriptor)

    def rename(old: str, new: str) -> None:
        steps.append("rename")
        real_rename(old, new)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    chunks = [bytes(PACE_BYTES // 2)] * 5
    for paced, syncs in ((True, 3), (False, 1)):
        steps.clear()
        RealDisk().write_whole(str(tmp_path / "a"), chunks, paced=paced)
        assert steps == ["sync"] * syncs + ["rename", "sync directory"]
