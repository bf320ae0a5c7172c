"""An error of the disk is not taken for "not there": whoever did could overlook that a directory is another node's."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.disk import FileMissing, RealDisk
from engine.errors import DiskFault, PlaceLost
from engine.log_reader import holds_log
from snapshots.promotion import DEPOSED_FILE, MARKER_FILE, read_deposed, read_marker
from snapshots.store import Store

UNKNOWN = [errno.EIO, errno.EACCES, errno.ELOOP, errno.ENOTDIR, errno.ESTALE, errno.ENAMETOOLONG]


def fail_at(monkeypatch: pytest.MonkeyPatch, path: str, number: int) -> None:
    """Let the system answer each look at a path with an error."""
    for name in ("stat", "lstat"):
        real = getattr(os, name)

        def look(at: str, *arguments: object, real: object = real, **options: object) -> object:
            if str(at) == path:
                raise OSError(number, os.strerror(number), path)
            return real(at, *arguments, **options)  # type: ignore[operator]

        monkeypatch.setattr(os, name, look)


@pytest.mark.parametrize("number", UNKNOWN, ids=[errno.errorcode[number] for number in UNKNOWN])
def test_a_look_that_fails_is_a_fault_that_names_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Fencing fails open: of a marker, of a log, of a directory."""
    disk, path = RealDisk(), str(tmp_path / "a")
    assert not disk.exists(path)
    fail_at(monkeypatch, path, number)
    for look in (disk.exists, disk.make_directory, lambda path: holds_log(disk, path)):
        with pytest.raises(DiskFault) as fault:
            look(path)
        assert fault.value.path == path
        assert not isinstance(fault.value, FileMissing)
        assert os.strerror(number) in fault.value.what
    monkeypatch.undo()
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("number", UNKNOWN, ids=[errno.errorcode[number] for number in UNKNOWN])
@pytest.mark.parametrize(("read", "name"), [(read_marker, MARKER_FILE), (read_deposed, DEPOSED_FILE)])
def test_a_marker_that_can_not_be_looked_for_is_not_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, read: object, name: str
) -> None:
    """Fencing fails open: the directory may be a replica's, or a deposed leader's."""
    assert read(RealDisk(), str(tmp_path)) is None  # type: ignore[operator]
    path = str(tmp_path / name)
    fail_at(monkeypatch, path, number)
    with pytest.raises(DiskFault) as fault:
        read(RealDisk(), str(tmp_path))  # type: ignore[operator]
    assert fault.value.path == path


@pytest.mark.parametrize(("read", "name"), [(read_marker, MARKER_FILE), (read_deposed, DEPOSED_FILE)])
def test_a_marker_that_is_a_link_is_not_missing(tmp_path: Path, read: object, name: str) -> None:
    """One that leads nowhere, in a circle, or through a file: something is there, and can't be read."""
    (tmp_path / "file").touch()
    for target in (tmp_path / "nowhere", tmp_path / name, tmp_path / "file" / "below"):
        (tmp_path / name).symlink_to(target)
        with pytest.raises(DiskFault) as fault:
            read(RealDisk(), str(tmp_path))  # type: ignore[operator]
        assert fault.value.path == str(tmp_path / name)
        (tmp_path / name).unlink()


def test_a_directory_behind_a_circle_of_links_is_not_empty(tmp_path: Path) -> None:
    """Fencing fails open, with the system's own error."""
    data = tmp_path / "data"
    data.symlink_to(data)
    with pytest.raises(DiskFault, match="Too many levels of symbolic links"):
        read_marker(RealDisk(), str(data))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user, who is then refused")
def test_a_directory_that_may_not_be_searched_is_not_empty(tmp_path: Path) -> None:
    """Fencing fails open, with the system's own error, as another user gets it."""
    data = Path("/tmp") / f"{tmp_path.parent.name}-{os.getpid()}-secret"
    data.mkdir(mode=0o700)
    try:
        (data / DEPOSED_FILE).write_text("{}")
        script = f"""
import os
from snapshots.promotion import read_deposed
from engine.disk import RealDisk
from engine.errors import DiskFault
os.setuid(65534)
try:
    print(read_deposed(RealDisk(), {str(data)!r}))
except DiskFault as fault:
    print(fault.path, fault.what)
"""
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == f"{data}/{DEPOSED_FILE} can't tell whether it exists: Permission denied"
    finally:
        (data / DEPOSED_FILE).unlink()
        data.rmdir()


def test_a_snapshot_that_leads_nowhere_is_not_gone(tmp_path: Path) -> None:
    """A start that left it out could make a new directory of one that has a snapshot."""
    store = Store(RealDisk(), str(tmp_path))
    (tmp_path / "snapshots").mkdir()
    (tmp_path / "snapshots" / f"{7:020}.snapshot").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileMissing):
        store.list()


def test_a_place_that_can_not_be_looked_at_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not known is an error, but another one than lost."""
    path = str(tmp_path / "lock")
    lock = RealDisk().lock(path)
    lock.check_place()
    fail_at(monkeypatch, path, errno.EIO)
    with pytest.raises(DiskFault, match="Input/output error") as fault:
        lock.check_place()
    assert not isinstance(fault.value, PlaceLost)
    monkeypatch.undo()
    lock.release()
