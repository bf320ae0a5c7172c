"""A disk that does what it is told, keeps a record of it, and fails at the step that a test chooses."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from engine.disk import File, Lock, RealDisk
from engine.errors import WriteFailed


class Crash(BaseException):
    """The process is killed here: not an Exception, so nobody handles it."""


class FaultyDisk:
    """A real disk that calls `before(step, path)` before each step that changes something, and records it.

    Steps: create, write, preallocate, sync, rename, remove, sync_directory; `before` may raise.
    """

    blocks = False

    def __init__(self, before: Callable[[str, str], None] | None = None) -> None:
        self.before = before
        self.steps: list[tuple[str, str]] = []
        self._disk = RealDisk()

    def step(self, name: str, path: str) -> None:
        """Record a step, and let the test interfere."""
        if self.before is not None:
            self.before(name, path)
        self.steps.append((name, path.rpartition("/")[2]))

    def crash_at(self, number: int) -> None:
        """Kill the process before the step with this number, counted from now on."""
        left = number

        def before(name: str, path: str) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise Crash(f"{name} {path}")

        self.before = before

    def fail(self, step: str, ending: str) -> None:
        """Let one kind of step on files with such names fail as a bad disk does."""

        def before(name: str, path: str) -> None:
            if name == step and path.endswith(ending):
                raise WriteFailed(f"can't {name}: Input/output error", path=path)

        self.before = before

    def make_directory(self, path: str) -> None:
        """See `Disk`."""
        self._disk.make_directory(path)

    def exists(self, path: str) -> bool:
        """See `Disk`."""
        return self._disk.exists(path)

    def list_directory(self, path: str) -> list[str]:
        """See `Disk`."""
        return self._disk.list_directory(path)

    def size(self, path: str) -> int:
        """See `Disk`."""
        return self._disk.size(path)

    def free_bytes(self, path: str) -> int:
        """See `Disk`."""
        return self._disk.free_bytes(path)

    def create(self, path: str, mode: int = 0o600) -> File:
        """See `Disk`."""
        self.step("create", path)
        return FaultyFile(self, self._disk.create(path, mode))

    def open(self, path: str, *, write: bool = False) -> File:
        """See `Disk`."""
        return FaultyFile(self, self._disk.open(path, write=write))

    def rename(self, old: str, new: str) -> None:
        """See `Disk`."""
        self.step("rename", new)
        self._disk.rename(old, new)

    def remove(self, path: str) -> None:
        """See `Disk`."""
        self.step("remove", path)
        self._disk.remove(path)

    def sync_directory(self, path: str) -> None:
        """See `Disk`."""
        self.step("sync_directory", path)
        self._disk.sync_directory(path)

    def lock(self, path: str) -> Lock:
        """See `Disk`."""
        return self._disk.lock(path)

    def write_whole(self, path: str, chunks: Iterable[bytes], mode: int = 0o600, paced: bool = False) -> int:
        """See `Disk`. The steps are those of the real one; a crash leaves the unfinished file."""
        unfinished = path + ".tmp"
        if self.exists(unfinished):
            self.remove(unfinished)
        file = self.create(unfinished, mode)
        length = 0
        for chunk in chunks:
            file.write_at(length, chunk)
            length += len(chunk)
        file.sync()
        file.close()
        self.rename(unfinished, path)
        self.sync_directory(path.rpartition("/")[0])
        return length


class FaultyFile:
    """A file of a `FaultyDisk`."""

    def __init__(self, disk: FaultyDisk, file: File) -> None:
        self.path = file.path
        self._disk = disk
        self._file = file

    def size(self) -> int:
        """See `File`."""
        return self._file.size()

    def read_at(self, offset: int, length: int) -> bytes:
        """See `File`."""
        return self._file.read_at(offset, length)

    def will_read(self, offset: int, length: int) -> None:
        """See `File`."""
        self._file.will_read(offset, length)

    def write_at(self, offset: int, data: bytes) -> None:
        """See `File`."""
        self._disk.step("write", self.path)
        self._file.write_at(offset, data)

    def preallocate(self, length: int) -> None:
        """See `File`."""
        self._disk.step("preallocate", self.path)
        self._file.preallocate(length)

    def sync(self) -> None:
        """See `File`."""
        self._disk.step("sync", self.path)
        self._file.sync()

    def check_place(self) -> None:
        """See `File`."""
        self._file.check_place()

    def close(self) -> None:
        """See `File`."""
        self._file.close()
