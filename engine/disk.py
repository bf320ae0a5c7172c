"""What touches the operating system's files. Everything here blocks; nothing here knows of Trio.

    disk = RealDisk()
    disk.write_whole(path, chunks)                          a whole new file, durable, or no file
    file = disk.open(path, write=True); file.write_at(offset, data); file.sync()

The log and the snapshots use a disk through `File` and `Disk` alone. These are narrow enough for a simulated disk that
crashes at any step. `tests/engine/disk_conformance.py` says what every disk must do.

Rules:
- Written data survives a crash once the file is synced. A file that was created, renamed or removed stays so once its
  directory is synced (`sync_directory`). "All file systems are not created equal" (OSDI 2014) found 60 bugs in programs
  that left out one of these syncs. `write_whole` does all of them. The other methods leave them to the caller.
- A file that must appear whole is written under NAME.tmp, synced and renamed. So a NAME.tmp is never in use.
- Space is laid out with zeros before data is written into it (`preallocate`). An append then changes no length and
  needs no new blocks, and fdatasync waits for the data alone.
- A failed write or sync is final and raises `WriteFailed`: the kernel may have dropped the pages, and a second sync
  would succeed falsely. Nothing here tries again. Other faults raise `DiskFault` or `FileMissing`, never OSError.
- Only ENOENT means that something is not there. Any other error means that it is not known, and raises `DiskFault`:
  who takes an I/O error for a missing marker starts a second leader.
- An open never waits: a FIFO or a device in the place of a file is refused (`engine.regular_file`).
- A path may come to lead elsewhere: files are removed, directories are renamed. `check_place` compares what is open
  with what the path leads to now, by device and inode.
- Only the owner may read files and directories (0600, 0700): the log names users, and a signing key lies beside it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterable
from itertools import chain, count
from typing import Protocol

from engine.disk_faults import LOST_REMEDY, FileMissing, blamed, fault_of
from engine.errors import DirectoryInUse, DiskFault, PlaceLost, WriteFailed
from engine.regular_file import open_regular

__all__ = ["PACE_BYTES", "TMP", "ZEROS_BYTES", "Disk", "File", "FileMissing", "Lock", "RealDisk", "RealFile",
           "RealLock", "UnsyncedDisk", "UnsyncedFile", "free_path"]  # fmt: skip

PACE_BYTES = 4 * 2**20
"""A paced write syncs each time it has written this much, so a sync of the log never waits behind more."""

ZEROS_BYTES = 2**20
"""The length of one write of zeros, on a file system that can't lay out space."""

TMP = ".tmp"


class File(Protocol):
    """An open file. Offsets and lengths are in bytes."""

    @property
    def path(self) -> str:
        """The path that the file was opened with."""

    def size(self) -> int: ...

    def read_at(self, offset: int, length: int) -> bytes:
        """Read `length` bytes from `offset` on; fewer only at the end of the file. Raises `DiskFault`."""

    def will_read(self, offset: int, length: int) -> None:
        """Tell that this will be read, so that the disk begins. Of many reads each then waits less. Never raises."""

    def write_at(self, offset: int, data: bytes) -> None:
        """Write all of `data` at `offset`, which may be beyond the end. Raises `WriteFailed`."""

    def preallocate(self, length: int) -> None:
        """Lay out space up to `length`; new space holds zeros. Never shortens the file. Raises `WriteFailed`."""

    def sync(self) -> None:
        """Wait until everything written is on disk (fdatasync). Raises `WriteFailed`."""

    def check_place(self) -> None:
        """Check that the path still leads to this file. Raises `PlaceLost`; `DiskFault` if that can't be known."""

    def close(self) -> None:
        """Close the file. Closing it twice does no harm."""


class Lock(Protocol):
    """A lock that is held. The system releases it when the process ends, however it ends."""

    def check_place(self) -> None:
        """Check that the paths of the lock and of its directory still lead to them. Raises as `File.check_place`."""

    def release(self) -> None:
        """Release the lock. Releasing it twice does no harm."""


class Disk(Protocol):
    """A tree of files. Raises `FileMissing` if a file is missing, `DiskFault` for any other fault."""

    @property
    def blocks(self) -> bool:
        """Whether calls wait for a real disk, and belong in a worker thread."""

    def make_directory(self, path: str) -> None:
        """Make a directory and its parents, durably. A directory that exists stays as it is."""

    def exists(self, path: str) -> bool:
        """Tell whether there is something of that name. Raises `DiskFault` if that can't be known."""

    def list_directory(self, path: str) -> list[str]:
        """List the names in a directory, sorted."""

    def size(self, path: str) -> int: ...

    def free_bytes(self, path: str) -> int:
        """Give the space that is left on the file system of a directory."""

    def create(self, path: str, mode: int = 0o600) -> File:
        """Make a new, empty file and open it for writing. It must not exist yet."""

    def open(self, path: str, *, write: bool = False) -> File: ...

    def rename(self, old: str, new: str) -> None:
        """Rename a file. A file with the new name is replaced."""

    def remove(self, path: str) -> None: ...

    def sync_directory(self, path: str) -> None:
        """Wait until all names that changed in a directory are on disk. Raises `WriteFailed`."""

    def lock(self, path: str) -> Lock:
        """Take the lock of this file, which is made if it is missing. Raises `DirectoryInUse` if another holds it."""

    def write_whole(self, path: str, chunks: Iterable[bytes], mode: int = 0o600, paced: bool = False) -> int:
        """Write a file that appears whole and durable, or not at all; give its length. A file of that name is replaced.

        `paced`: sync every few MiB, so that a sync of another file does not wait for all of this one.
        """


_NO_FALLOCATE = {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}
"""Errors of a file system that can't lay out space. glibc then writes to each block itself; musl does not."""


def _stat(path: str) -> os.stat_result | None:
    """Look at what a path leads to, through symbolic links; None if it leads nowhere. Any other error is raised."""
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def _check_leads(path: str, held: os.stat_result, what: str) -> None:
    """Raise `PlaceLost` unless a path leads to what is held."""
    with blamed(f"tell whether this is still {what}", path):
        found = _stat(path)
    if found is None or not os.path.samestat(found, held):
        how = "was moved or removed" if found is None else "was replaced"
        raise PlaceLost(f"{what} {how} while this process used it", path=path, remedy=LOST_REMEDY)


class RealFile:
    """A file of the operating system: `File` says what its methods do."""

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    def size(self) -> int:
        with blamed("tell the length of the file", self.path):
            return os.fstat(self._descriptor).st_size

    def read_at(self, offset: int, length: int) -> bytes:
        try:
            data = os.pread(self._descriptor, length, offset)
            while len(data) < length and (part := os.pread(self._descriptor, length - len(data), offset + len(data))):
                data += part
        except OSError as error:
            raise fault_of(error, "read", self.path, offset=offset) from error
        return data

    def will_read(self, offset: int, length: int) -> None:
        with contextlib.suppress(OSError):  # it was no more than advice
            os.posix_fadvise(self._descriptor, offset, length, os.POSIX_FADV_WILLNEED)

    def write_at(self, offset: int, data: bytes) -> None:
        with blamed("write", self.path, offset=offset, write=True):
            written = os.pwrite(self._descriptor, data, offset)
            while written < len(data):
                # The system wrote only a part: a signal came, or the disk is nearly full. The next call shows which.
                more = os.pwrite(self._descriptor, memoryview(data)[written:], offset + written)
                if more == 0:
                    raise OSError(errno.EIO, "the system wrote nothing and gave no reason")
                written += more

    def preallocate(self, length: int) -> None:
        with blamed(f"lay out {length} bytes", self.path, write=True):
            try:
                os.posix_fallocate(self._descriptor, 0, length)
            except OSError as error:
                if error.errno not in _NO_FALLOCATE:
                    raise
                # Writing zeros takes longer and has the same result: the blocks exist, and the length is final.
                for offset in range(os.fstat(self._descriptor).st_size, length, ZEROS_BYTES):
                    self.write_at(offset, bytes(min(ZEROS_BYTES, length - offset)))

    def sync(self) -> None:
        with blamed("sync", self.path, write=True):
            os.fdatasync(self._descriptor)

    def check_place(self) -> None:
        with blamed("tell which file this is", self.path):
            held = os.fstat(self._descriptor)
        _check_leads(self.path, held, "the file")

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with blamed("close", self.path):
                os.close(descriptor)


class RealLock:
    """An flock on a file that holds the pid of its owner. The file stays: removing it would let two processes in."""

    def __init__(self, path: str, descriptor: int, directory: os.stat_result) -> None:
        self._path = path
        self._descriptor = descriptor
        self._directory = directory

    def check_place(self) -> None:
        # The directory first, because with it the lock is gone too. A copy made of hard links has the same lock.
        _check_leads(_above(self._path), self._directory, "the data directory")
        with blamed("tell which lock this is", self._path):
            held = os.fstat(self._descriptor)
        _check_leads(self._path, held, "the lock of the data directory")

    def release(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with blamed("unlock", self._path):
                os.close(descriptor)


class RealDisk:
    """The file system of the operating system: `Disk` says what its methods do."""

    blocks = True
    file_type = RealFile

    def make_directory(self, path: str) -> None:
        with blamed("make the directory", path, write=True):
            parent = os.path.dirname(os.path.abspath(path))
            if _is_directory(path):
                # The process that made it may have ended before it synced the name. Then a power cut would take the
                # directory away, with all that is in it. A parent that we may not read is not ours to sync.
                try:
                    self.sync_directory(parent)
                except WriteFailed as fault:
                    if not isinstance(fault.__cause__, PermissionError):
                        raise
                return
            self.make_directory(parent)
            with contextlib.suppress(FileExistsError):
                os.mkdir(path, 0o700)
            if not _is_directory(path):
                raise NotADirectoryError(errno.ENOTDIR, "there is a file of that name")
            self.sync_directory(parent)

    def exists(self, path: str) -> bool:
        with blamed("tell whether it exists", path):
            try:
                os.lstat(path)
            except FileNotFoundError:
                return False
            return True

    def list_directory(self, path: str) -> list[str]:
        with blamed("list the directory", path):
            return sorted(os.listdir(path))

    def size(self, path: str) -> int:
        with blamed("tell the length of the file", path):
            return os.stat(path).st_size

    def free_bytes(self, path: str) -> int:
        with blamed("tell the free space", path):
            found = os.statvfs(path)
            if found.f_files and not found.f_favail:
                return 0  # no file can be made, however many blocks are left
            return found.f_bavail * found.f_frsize

    def create(self, path: str, mode: int = 0o600) -> RealFile:
        with blamed("create the file", path, write=True):
            return self.file_type(path, os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode))

    def open(self, path: str, *, write: bool = False) -> RealFile:
        with blamed("open the file", path):
            return self.file_type(path, open_regular(path, os.O_RDWR if write else os.O_RDONLY))

    def rename(self, old: str, new: str) -> None:
        with blamed(f"rename the file to {new}", old, write=True):
            os.rename(old, new)

    def remove(self, path: str) -> None:
        with blamed("remove the file", path, write=True):
            os.unlink(path)

    def sync_directory(self, path: str) -> None:
        with blamed("sync the directory", path, write=True):
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            except OSError as error:
                # Some network file systems answer this: they can't sync a directory, and make names durable at once.
                if error.errno != errno.EINVAL:
                    raise
            finally:
                os.close(descriptor)

    def lock(self, path: str) -> RealLock:
        with blamed("lock", path):
            descriptor = open_regular(path, os.O_RDWR | os.O_CREAT)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # In place, which a full disk takes too: a start there must be able to serve reads.
                pid = f"{os.getpid()}\n".encode()
                with contextlib.suppress(OSError):  # nothing but a message depends on it
                    os.ftruncate(descriptor, os.pwrite(descriptor, pid, 0))
                directory = os.stat(_above(path))
            except BlockingIOError as error:
                holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
                os.close(descriptor)
                raise DirectoryInUse(
                    f"the data directory is in use by the process with pid {holder}",
                    path=path,
                    remedy="Stop that process, or choose another data directory.",
                ) from error
            except OSError:
                os.close(descriptor)
                raise
            return RealLock(path, descriptor, directory)

    def write_whole(self, path: str, chunks: Iterable[bytes], mode: int = 0o600, paced: bool = False) -> int:
        unfinished = path + TMP
        if self.exists(unfinished):
            self.remove(unfinished)
        file = self.create(unfinished, mode)
        try:
            length = self._write_chunks(file, chunks, paced)
            file.close()
            self.rename(unfinished, path)
        except BaseException:
            file.close()
            with contextlib.suppress(DiskFault):
                self.remove(unfinished)
            raise
        self.sync_directory(_above(path))
        return length

    @staticmethod
    def _write_chunks(file: RealFile, chunks: Iterable[bytes], paced: bool) -> int:
        length = synced = 0
        for chunk in chunks:
            file.write_at(length, chunk)
            length += len(chunk)
            if paced and length - synced >= PACE_BYTES:
                file.sync()
                synced = length
        file.sync()
        return length


def _above(path: str) -> str:
    return os.path.dirname(path) or "."


def _is_directory(path: str) -> bool:
    found = _stat(path)
    return found is not None and stat.S_ISDIR(found.st_mode)


def free_path(disk: Disk, path: str) -> str:
    """Give `path`, or `path` with -2, -3 … at its end if something of that name exists."""
    names = chain([path], (f"{path}-{number}" for number in count(2)))
    return next(name for name in names if not disk.exists(name))


class UnsyncedFile(RealFile):
    """A file that is of no use once its process has ended."""

    def sync(self) -> None:
        """Do nothing: nobody reads the file after a crash."""


class UnsyncedDisk(RealDisk):
    """A disk without syncs, for a directory that nobody opens again: that of a replica that keeps nothing."""

    file_type = UnsyncedFile

    def sync_directory(self, path: str) -> None:
        """Do nothing, as for its files."""
