"""The only file that touches the operating system's files. Everything here blocks; nothing here knows of Trio.

`File` and `Disk` are the whole of what the log and the snapshots ask of a disk, kept so narrow that a disk can be
simulated which crashes at any step. `tests/engine/disk_conformance.py` says what both must do.

Rules:
- What was written is there after a crash only once the file is synced; what was created, renamed or removed only once
  its directory is (`sync_directory`). "All file systems are not created equal" (OSDI 2014) found 60 faults of programs
  that left one out. `write_whole` does all of it; the single steps leave it to the caller, who may have several to do.
- A file that must appear whole is written under NAME.tmp, synced and renamed; so a NAME.tmp is never in use by anyone.
- Space is laid out before it is written (`preallocate`), so that an append needs no new blocks and no new length, and
  fdatasync has nothing but the data to wait for. The space holds zeros.
- A write that fails, or a sync, is final: the kernel may have dropped the pages, and will say yes the next time. That
  is `WriteFailed`, and nobody here tries again. Other trouble is `DiskFault`, or `FileMissing`. OSError never gets out.
- Directories and files are for the owner alone (0700, 0600): the log names users, and a signing key lies beside it.
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
"""A paced write syncs after so many bytes: the log's own sync then never waits behind more than these."""

ZEROS_BYTES = 2**20
"""Zeros are written in pieces of this length where the file system can't lay out space."""

TMP = ".tmp"


class FileMissing(DiskFault):
    """There is no such file or directory."""


class File(Protocol):
    """An open file. Offsets and lengths are in bytes."""

    @property
    def path(self) -> str:
        """The name under which it was opened."""
        ...

    def size(self) -> int:
        """Give its length."""
        ...

    def read_at(self, offset: int, length: int) -> bytes:
        """Read at a place; fewer bytes than asked for only at the end. Raises `DiskFault`."""
        ...

    def write_at(self, offset: int, data: bytes) -> None:
        """Write all of `data` at a place, beyond the end too. Raises `WriteFailed`."""
        ...

    def preallocate(self, length: int) -> None:
        """Lay out space up to `length`, zeros where nothing is yet. Never shortens. Raises `WriteFailed`."""
        ...

    def sync(self) -> None:
        """Wait until what was written is on disk (fdatasync). Raises `WriteFailed`."""
        ...

    def close(self) -> None:
        """Close it; once more does no harm."""
        ...


class Lock(Protocol):
    """A held lock. The system lets go of it when the process ends, however it ends."""

    def release(self) -> None:
        """Let go; once more does no harm."""
        ...


class Disk(Protocol):
    """A tree of files. Raises `FileMissing` for what is not there, `DiskFault` for any other trouble."""

    @property
    def blocks(self) -> bool:
        """Whether calls wait for a real disk, and belong in a worker thread."""
        ...

    def make_directory(self, path: str) -> None:
        """Make a directory, durably, and those above it; one that is there already stays as it is."""
        ...

    def exists(self, path: str) -> bool:
        """Tell whether there is a file or directory."""
        ...

    def list_directory(self, path: str) -> list[str]:
        """List the names in a directory, sorted."""
        ...

    def size(self, path: str) -> int:
        """Give the length of a file."""
        ...

    def create(self, path: str, mode: int = 0o600) -> File:
        """Make a new, empty file and open it for writing; it must not be there yet."""
        ...

    def open(self, path: str, *, write: bool = False) -> File:
        """Open a file that is there."""
        ...

    def rename(self, old: str, new: str) -> None:
        """Give a file another name, in place of any file that has it."""
        ...

    def remove(self, path: str) -> None:
        """Remove a file."""
        ...

    def sync_directory(self, path: str) -> None:
        """Wait until what was created, renamed or removed in a directory is so on disk. Raises `WriteFailed`."""
        ...

    def lock(self, path: str) -> Lock:
        """Take the lock that this file stands for, made if need be. Raises `DirectoryInUse` if it is taken."""
        ...

    def write_whole(self, path: str, chunks: Iterable[bytes], mode: int = 0o600, paced: bool = False) -> int:
        """Make a file appear whole and durably, or not at all, in place of any with that name; give its length.

        `paced`: sync every few MiB, so that a sync of another file does not wait for all of this one.
        """
        ...


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
"""How a file system says that it can't lay out space. glibc then writes to each block itself, musl leaves it to us."""


@contextlib.contextmanager
def _blamed(what: str, path: str, *, offset: int | None = None, write: bool = False) -> Iterator[None]:
    """Turn an OSError into the fault that it is."""
    try:
        yield
    except OSError as error:
        kind = FileMissing if error.errno == errno.ENOENT else WriteFailed if write else DiskFault
        reason = error.strerror or str(error)
        remedy = _REMEDIES.get(error.errno or 0, "")
        raise kind(f"can't {what}: {reason}", path=path, offset=offset, remedy=remedy) from error


class RealFile:
    """A file of the operating system."""

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    def size(self) -> int:
        """See `File.size`."""
        with _blamed("tell the length of the file", self.path):
            return os.fstat(self._descriptor).st_size

    def read_at(self, offset: int, length: int) -> bytes:
        """See `File.read_at`."""
        with _blamed("read", self.path, offset=offset):
            data = os.pread(self._descriptor, length, offset)
            while data and len(data) < length:
                more = os.pread(self._descriptor, length - len(data), offset + len(data))
                if not more:
                    break
                data += more
            return data

    def write_at(self, offset: int, data: bytes) -> None:
        """See `File.write_at`."""
        with _blamed("write", self.path, offset=offset, write=True):
            written = os.pwrite(self._descriptor, data, offset)
            while written < len(data):
                # The system wrote a part: a signal came, or the disk is nearly full; the next call tells which.
                more = os.pwrite(self._descriptor, memoryview(data)[written:], offset + written)
                if more == 0:
                    raise OSError(errno.EIO, "the system wrote nothing and gave no reason")
                written += more

    def preallocate(self, length: int) -> None:
        """See `File.preallocate`."""
        with _blamed(f"lay out {length} bytes", self.path, write=True):
            try:
                os.posix_fallocate(self._descriptor, 0, length)
            except OSError as error:
                if error.errno not in _NO_FALLOCATE:
                    raise
                # Writing the zeros costs time once and gives the same: blocks that are there, and a length that stays.
                for offset in range(os.fstat(self._descriptor).st_size, length, ZEROS_BYTES):
                    self.write_at(offset, bytes(min(ZEROS_BYTES, length - offset)))

    def sync(self) -> None:
        """See `File.sync`."""
        with _blamed("sync", self.path, write=True):
            os.fdatasync(self._descriptor)

    def close(self) -> None:
        """See `File.close`."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with _blamed("close", self.path):
                os.close(descriptor)


class RealLock:
    """An flock on a file that has the pid of its holder in it. The file stays: removing it would let two in at once."""

    def __init__(self, path: str, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    def release(self) -> None:
        """See `Lock.release`."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with _blamed("unlock", self._path):
                os.close(descriptor)


class RealDisk:
    """The file system of the operating system."""

    blocks = True
    file_type = RealFile

    def make_directory(self, path: str) -> None:
        """See `Disk.make_directory`."""
        with _blamed("make the directory", path, write=True):
            if os.path.isdir(path):
                return
            parent = os.path.dirname(os.path.abspath(path))
            self.make_directory(parent)
            with contextlib.suppress(FileExistsError):
                os.mkdir(path, 0o700)
            if not os.path.isdir(path):
                raise NotADirectoryError(errno.ENOTDIR, "there is a file of that name")
            self.sync_directory(parent)

    def exists(self, path: str) -> bool:
        """See `Disk.exists`."""
        return os.path.lexists(path)

    def list_directory(self, path: str) -> list[str]:
        """See `Disk.list_directory`."""
        with _blamed("list the directory", path):
            return sorted(os.listdir(path))

    def size(self, path: str) -> int:
        """See `Disk.size`."""
        with _blamed("tell the length of the file", path):
            return os.stat(path).st_size

    def create(self, path: str, mode: int = 0o600) -> RealFile:
        """See `Disk.create`."""
        with _blamed("create the file", path, write=True):
            return self.file_type(path, os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode))

    def open(self, path: str, *, write: bool = False) -> RealFile:
        """See `Disk.open`."""
        with _blamed("open the file", path):
            return self.file_type(path, os.open(path, os.O_RDWR if write else os.O_RDONLY))

    def rename(self, old: str, new: str) -> None:
        """See `Disk.rename`."""
        with _blamed(f"rename the file to {new}", old, write=True):
            os.rename(old, new)

    def remove(self, path: str) -> None:
        """See `Disk.remove`."""
        with _blamed("remove the file", path, write=True):
            os.unlink(path)

    def sync_directory(self, path: str) -> None:
        """See `Disk.sync_directory`."""
        with _blamed("sync the directory", path, write=True):
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            except OSError as error:
                # Some network file systems can't sync a directory, and say so in this way: they do it at once anyway.
                if error.errno != errno.EINVAL:
                    raise
            finally:
                os.close(descriptor)

    def lock(self, path: str) -> RealLock:
        """See `Disk.lock`."""
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
        """See `Disk.write_whole`."""
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


class UnsyncedFile(RealFile):
    """A file that is gone with its process anyway."""

    def sync(self) -> None:
        """Do nothing: nobody reads it after a crash."""


class UnsyncedDisk(RealDisk):
    """For a directory that nobody opens again, such as that of a replica which keeps nothing: waits for no disk."""

    file_type = UnsyncedFile

    def sync_directory(self, path: str) -> None:
        """Do nothing, as for its files."""
