"""The disk as a process uses it that holds a data directory: nothing is changed there once the directory is lost.

    held = HeldDisk(disk, disk.lock(f"{data_directory}/lock"))
    held.check()                            raises `PlaceLost` if the paths lead elsewhere now

The lock keeps other processes out only while its path leads to the locked file. If an operator removes that file, or
puts another directory in the place of this one, a second leader can start there. Then a name that we create, rename or
remove is a name in its directory.

Rules:
- Each call that changes a name, or opens a file for writing, first looks whether the paths still lead to the lock and
  its directory. Such calls are rare: a segment is begun, a snapshot is written, retention removes a file.
- A file that is written whole is looked after once more, when its bytes are written and before it appears.
- An append to an open file is not preceded by a look: its place is certain, and it must be fast. A watch in the server
  looks every second instead, and ends the process.
- A look and the change after it are two system calls. A directory that is exchanged just between them is not noticed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from engine.disk import Disk, File, Lock


class HeldDisk:
    """A disk, and the lock of the data directory. `engine.disk.Disk` says what the methods do."""

    def __init__(self, disk: Disk, lock: Lock) -> None:
        self.blocks = disk.blocks
        self._disk = disk
        self._lock = lock

    def check(self) -> None:
        """Check that the data directory is still ours. Raises `PlaceLost`; `DiskFault` if that can't be known."""
        self._lock.check_place()

    # What only reads

    def exists(self, path: str) -> bool:
        return self._disk.exists(path)

    def list_directory(self, path: str) -> list[str]:
        return self._disk.list_directory(path)

    def size(self, path: str) -> int:
        return self._disk.size(path)

    def free_bytes(self, path: str) -> int:
        return self._disk.free_bytes(path)

    # What changes something

    def make_directory(self, path: str) -> None:
        self.check()
        self._disk.make_directory(path)

    def create(self, path: str, mode: int = 0o600) -> File:
        self.check()
        return self._disk.create(path, mode)

    def open(self, path: str, *, write: bool = False) -> File:
        if write:
            self.check()
        return self._disk.open(path, write=write)

    def rename(self, old: str, new: str) -> None:
        self.check()
        self._disk.rename(old, new)

    def remove(self, path: str) -> None:
        self.check()
        self._disk.remove(path)

    def sync_directory(self, path: str) -> None:
        self._disk.sync_directory(path)

    def lock(self, path: str) -> Lock:
        self.check()
        return self._disk.lock(path)

    def write_whole(self, path: str, chunks: Iterable[bytes], mode: int = 0o600, paced: bool = False) -> int:
        self.check()
        return self._disk.write_whole(path, self._checked(chunks), mode, paced)

    def _checked(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        yield from chunks
        self.check()
