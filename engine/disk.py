"""The only file that touches the operating system's files. Everything here blocks; nothing here knows of Trio.

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
- Only the owner may read files and directories (0600, 0700): the log names users, and a signing key lies beside it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterable, Iterator
from typing import Protocol

from engine.errors import DirectoryInUse, DiskFault, WriteFailed

PACE_BYTES = 4 * 2**20
"""A paced write syncs each time it has written this much, so a sync of the log never waits behind more."""

ZEROS_BYTES = 2**20
"""The length of one write of zeros, on a file system that can't lay out space."""

TMP = ".tmp"


class FileMissing(DiskFault):
    """There is no such file or directory."""


class File(Protocol):
    """An open file. Offsets and lengths are in bytes."""

    @property
    def path(self) -> str:
        """The path that the file was opened with."""

    def size(self) -> int: ...

    def read_at(self, offset: int, length: int) -> bytes:
        """Read `length` bytes from `offset` on; fewer only at the end of the file. Raises `DiskFault`."""

    def write_at(self, offset: int, data: bytes) -> None:
        """Write all of `data` at `offset`, which may be beyond the end. Raises `WriteFailed`."""

    def preallocate(self, length: int) -> None:
        """Lay out space up to `length`; new space holds zeros. Never shortens the file. Raises `WriteFailed`."""

    def sync(self) -> None:
        """Wait until everything written is on disk (fdatasync). Raises `WriteFailed`."""

    def close(self) -> None:
        """Close the file. Closing it twice does no harm."""


class Lock(Protocol):
    """A lock that is held. The system releases it when the process ends, however it ends."""

    def release(self) -> None:
        """Release the lock. Releasing it twice does no harm."""


class Disk(Protocol):
    """A tree of files. Raises `FileMissing` if a file is missing, `DiskFault` for any other fault."""

    @property
    def blocks(self) -> bool:
        """Whether calls wait for a real disk, and belong in a worker thread."""

    def make_directory(self, path: str) -> None:
        """Make a directory and its parents, durably. A directory that exists stays as it is."""

    def exists(self, path: str) -> bool: ...

    def list_directory(self, path: str) -> list[str]:
        """List the names in a directory, sorted."""

    def size(self, path: str) -> int: ...

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


_REMEDIES = {
    errno.ENOSPC: "Make room on the disk, then start again.",
    errno.EDQUOT: "Raise the quota or make room, then start again.",
    errno.EACCES: "Give the user that scoreboard runs as the right to do this.",
    errno.EPERM: "Give the user that scoreboard runs as the right to do this.",
    errno.EROFS: "The file system is mounted read-only; its own log says why.",
    errno.EFBIG: "Raise the limit on the length of files (ulimit -f), then start again.",
    errno.EMFILE: "Raise the limit on open files (ulimit -n), then start again.",
    errno.EISDIR: "A directory has the name of a file: move it away, and put the file back from a backup if lost.",
    errno.ENOTDIR: "A file has the name of a directory: move it away, and put the directory back from a backup.",
    errno.ENOENT: "Put it back from a backup; if it is a symbolic link, bring back what it leads to.",
    errno.ELOOP: "Symbolic links lead in a circle: put the file itself here.",
    errno.EBUSY: "It is in use by the system, perhaps as a mount point: choose a directory within it.",
    errno.EIO: "The disk or its connection is failing; the kernel's log says more.",
}

_NO_FALLOCATE = {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}
"""Errors of a file system that can't lay out space. glibc then writes to each block itself; musl does not."""


@contextlib.contextmanager
def _blamed(what: str, path: str, *, offset: int | None = None, write: bool = False) -> Iterator[None]:
    """Turn an OSError into one of our own errors."""
    try:
        yield
    except OSError as error:
        kind = FileMissing if error.errno == errno.ENOENT else WriteFailed if write else DiskFault
        reason = error.strerror or str(error)
        remedy = _REMEDIES.get(error.errno or 0, "")
        raise kind(f"can't {what}: {reason}", path=path, offset=offset, remedy=remedy) from error


class RealFile:
    """A file of the operating system: `File` says what its methods do."""

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    def size(self) -> int:
        with _blamed("tell the length of the file", self.path):
            return os.fstat(self._descriptor).st_size

    def read_at(self, offset: int, length: int) -> bytes:
        with _blamed("read", self.path, offset=offset):
            data = os.pread(self._descriptor, length, offset)
            while data and len(data) < length:
                more = os.pread(self._descriptor, length - len(data), offset + len(data))
                if not more:
                    break
                data += more
            return data

    def write_at(self, offset: int, data: bytes) -> None:
        with _blamed("write", self.path, offset=offset, write=True):
            written = os.pwrite(self._descriptor, data, offset)
            while written < len(data):
                # The system wrote only a part: a signal came, or the disk is nearly full. The next call shows which.
                more = os.pwrite(self._descriptor, memoryview(data)[written:], offset + written)
                if more == 0:
                    raise OSError(errno.EIO, "the system wrote nothing and gave no reason")
                written += more

    def preallocate(self, length: int) -> None:
        with _blamed(f"lay out {length} bytes", self.path, write=True):
            try:
                os.posix_fallocate(self._descriptor, 0, length)
            except OSError as error:
                if error.errno not in _NO_FALLOCATE:
                    raise
                # Writing zeros takes longer and has the same result: the blocks exist, and the length is final.
                for offset in range(os.fstat(self._descriptor).st_size, length, ZEROS_BYTES):
                    self.write_at(offset, bytes(min(ZEROS_BYTES, length - offset)))

    def sync(self) -> None:
        with _blamed("sync", self.path, write=True):
            os.fdatasync(self._descriptor)

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with _blamed("close", self.path):
                os.close(descriptor)


class RealLock:
    """An flock on a file that holds the pid of its owner. The file stays: removing it would let two processes in."""

    def __init__(self, path: str, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    def release(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with _blamed("unlock", self._path):
                os.close(descriptor)


class RealDisk:
    """The file system of the operating system: `Disk` says what its methods do."""

    blocks = True
    file_type = RealFile

    def make_directory(self, path: str) -> None:
        with _blamed("make the directory", path, write=True):
            parent = os.path.dirname(os.path.abspath(path))
            if os.path.isdir(path):
                # The process that made it may have ended before it synced the name. Then a power cut would take the
                # directory away, with all that is in it. A parent that we may not read is not ours to sync.
                if os.access(parent, os.R_OK):
                    self.sync_directory(parent)
                return
            self.make_directory(parent)
            with contextlib.suppress(FileExistsError):
                os.mkdir(path, 0o700)
            if not os.path.isdir(path):
                raise NotADirectoryError(errno.ENOTDIR, "there is a file of that name")
            self.sync_directory(parent)

    def exists(self, path: str) -> bool:
        return os.path.lexists(path)

    def list_directory(self, path: str) -> list[str]:
        with _blamed("list the directory", path):
            return sorted(os.listdir(path))

    def size(self, path: str) -> int:
        with _blamed("tell the length of the file", path):
            return os.stat(path).st_size

    def create(self, path: str, mode: int = 0o600) -> RealFile:
        with _blamed("create the file", path, write=True):
            return self.file_type(path, os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode))

    def open(self, path: str, *, write: bool = False) -> RealFile:
        with _blamed("open the file", path):
            return self.file_type(path, os.open(path, os.O_RDWR if write else os.O_RDONLY))

    def rename(self, old: str, new: str) -> None:
        with _blamed(f"rename the file to {new}", old, write=True):
            os.rename(old, new)

    def remove(self, path: str) -> None:
        with _blamed("remove the file", path, write=True):
            os.unlink(path)

    def sync_directory(self, path: str) -> None:
        with _blamed("sync the directory", path, write=True):
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
        with _blamed("lock", path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
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
            return RealLock(path, descriptor)

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
        self.sync_directory(os.path.dirname(path) or ".")
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


def free_path(disk: Disk, path: str) -> str:
    """Give `path`, or `path` with -2, -3 … at its end if something of that name exists."""
    free, number = path, 1
    while disk.exists(free):
        number += 1
        free = f"{path}-{number}"
    return free


class UnsyncedFile(RealFile):
    """A file that is of no use once its process has ended."""

    def sync(self) -> None:
        """Do nothing: nobody reads the file after a crash."""


class UnsyncedDisk(RealDisk):
    """A disk without syncs, for a directory that nobody opens again: that of a replica that keeps nothing."""

    file_type = UnsyncedFile

    def sync_directory(self, path: str) -> None:
        """Do nothing, as for its files."""
