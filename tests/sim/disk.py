"""A simulated disk in memory, and the machine that it is in; the log and the snapshots use it like a real disk.

    Machine     the storage; it outlives processes. `boot` gives a new process its view of it, `kill` ends the
                process (its writes stay cached), `cut_power` ends it and removes what was not durable
    SimulatedDisk, SimulatedFile, SimulatedLock     the view of one process; see `engine.disk` for what they must do

Invariants:
- A process that has ended does nothing any more: each call of its view raises `Crash`, which is no Exception, so no
  code handles it. Its locks are free.
- Each call that changes something is a step: make_directory, create, write, preallocate, sync, rename, remove,
  sync_directory. Before, within and after a step the machine calls `on_step`, which may crash it. A crash at a call
  that only reads would be the crash before the next one that changes.
- `trouble` says at each step what is wrong with the disk, and may make the step fail: with nothing done (EIO), with a
  part of it done (a short write, a full disk), or with something else done than it says (a sync).
- Nothing is random here: `on_step`, `trouble` and the `Fate` of a power cut decide what happens.
- Nothing waits: `blocks` is False, and all of it runs in the event loop. A slow disk moves the mock clock (`on_step`).
"""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Callable, Iterable

from engine.disk import PACE_BYTES, TMP, FileMissing
from engine.errors import DirectoryInUse, DiskFault, NoSpace, PlaceLost, WriteFailed
from tests.sim.storage import SECTOR_BYTES, DirectoryNode, Fate, FileNode, Node

IO_ERROR = "Input/output error"
NO_SPACE = "No space left on device"
PLENTY_BYTES = 2**40


class Crash(BaseException):
    """The process has ended; not an Exception, so nobody handles it."""


class Moment(enum.Enum):
    """When `on_step` is called. `WITHIN`: whole sectors of a write are in the cache, and others are not yet."""

    BEFORE = "before"
    WITHIN = "within"
    AFTER = "after"


class Trouble(enum.Enum):
    """What is wrong with a step."""

    ERROR = "error"
    """Nothing is done; a sync marks its sectors as clean all the same."""
    FULL = "full"
    """There is no space: a write does a part; a step that needs no space is done."""
    NO_ROOM = "no room"
    """There is no space for more: as FULL, but what was laid out before can be written."""


OnStep = Callable[[Moment, str, str], None]
AskTrouble = Callable[[str, str], Trouble | None]

_FULL = {Trouble.FULL, Trouble.NO_ROOM}
_TAKES_SPACE = {"make_directory", "create", "write", "preallocate"}


def _no_trouble(_: str, __: str) -> Trouble | None:
    return None


def _no_hook(_: Moment, __: str, ___: str) -> None:
    pass


class Machine:
    """A disk, and the process that uses it now. `fate` says what becomes of the sectors of a sync that fails."""

    def __init__(
        self,
        fate: Fate,
        *,
        on_step: OnStep = _no_hook,
        trouble: AskTrouble = _no_trouble,
        root: DirectoryNode | None = None,
    ) -> None:
        self.root = DirectoryNode() if root is None else root
        self.fate = fate
        self.on_step = on_step
        self.trouble = trouble
        self.free_bytes: Callable[[], int] = lambda: PLENTY_BYTES
        self.steps = 0
        self.process = 0
        self.locks: dict[FileNode, int] = {}

    def boot(self) -> SimulatedDisk:
        """Start a process; the one before has ended."""
        self.process += 1
        self.locks.clear()
        return SimulatedDisk(self, self.process)

    def kill(self) -> None:
        """End the process; the kernel may drop what it holds to be clean."""
        self.process += 1
        self.locks.clear()
        self.root.forget(self.fate)

    def cut_power(self, fate: Fate | None = None) -> None:
        """End the process, and lose what was not durable."""
        self.process += 1
        self.locks.clear()
        self.root.cut_power(fate or self.fate)

    def fork(self, fate: Fate) -> Machine:
        """Make a machine with a copy of the storage, and without trouble."""
        return Machine(fate, root=self.root.copy({}))

    def node(self, path: str) -> Node | None:
        """Find what is under a path now."""
        node: Node = self.root
        for part in path.split("/"):
            if part:
                below = node.names.get(part) if isinstance(node, DirectoryNode) else None
                if below is None:
                    return None
                node = below
        return node

    def files(self, path: str = "/") -> dict[str, FileNode]:
        """List the files under a directory, by path."""
        found: dict[str, FileNode] = {}
        node = self.node(path)
        if isinstance(node, DirectoryNode):
            for name in sorted(node.names):
                below, at = node.names[name], f"{path.rstrip('/')}/{name}"
                found |= {at: below} if isinstance(below, FileNode) else self.files(at)
        return found


class SimulatedDisk:
    """See `engine.disk.Disk`."""

    blocks = False

    def __init__(self, machine: Machine, process: int) -> None:
        self.machine = machine
        self._process = process

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self.machine.process == self._process

    def check_alive(self) -> None:
        """Raise `Crash` if the process has ended."""
        if not self.alive:
            raise Crash("the process has ended")

    def step(self, name: str, path: str) -> Trouble | None:
        """Begin a step; give what is wrong with it. Raises for an error that leaves nothing done."""
        self.check_alive()
        self.machine.steps += 1
        self.machine.on_step(Moment.BEFORE, name, path)
        self.check_alive()
        trouble = self.machine.trouble(name, path)
        if trouble is Trouble.ERROR and name != "sync":
            raise WriteFailed(f"can't {name}: {IO_ERROR}", path=path)
        if trouble in _FULL and name in _TAKES_SPACE and name != "write":
            raise NoSpace(f"can't {name}: {NO_SPACE}", path=path)
        return trouble

    def within(self, name: str, path: str) -> None:
        """Tell that a part of a step is done."""
        self.machine.on_step(Moment.WITHIN, name, path)
        self.check_alive()

    def done(self, name: str, path: str) -> None:
        """Tell that a step is done."""
        self.machine.on_step(Moment.AFTER, name, path)
        self.check_alive()

    def make_directory(self, path: str) -> None:
        """See `Disk`."""
        self.check_alive()
        node = self.machine.node(path)
        above, name = _split(path)
        if isinstance(node, DirectoryNode):
            self.sync_directory(above)
            return
        if node is not None:
            raise WriteFailed("can't make the directory: there is a file of that name", path=path)
        self.make_directory(above)
        self.step("make_directory", path)
        self._directory(above).change({name: DirectoryNode()})
        self.done("make_directory", path)
        self.sync_directory(above)

    def exists(self, path: str) -> bool:
        """See `Disk`."""
        self.check_alive()
        return self.machine.node(path) is not None

    def list_directory(self, path: str) -> list[str]:
        """See `Disk`."""
        self.check_alive()
        return sorted(self._directory(path).names)

    def size(self, path: str) -> int:
        """See `Disk`."""
        self.check_alive()
        return len(self._file(path).cached)

    def free_bytes(self, path: str) -> int:
        """See `Disk`."""
        self._directory(path)
        return self.machine.free_bytes()

    def check_leads(self, path: str, held: Node | None, what: str) -> None:
        """Raise `PlaceLost` unless a path leads to what is held."""
        if self.machine.node(path) is not held:
            raise PlaceLost(f"{what} was moved, removed or replaced while this process used it", path=path)

    def create(self, path: str, mode: int = 0o600) -> SimulatedFile:
        """See `Disk`. There is one user here, so the mode does not matter."""
        above, name = _split(path)
        directory = self._directory(above)
        if name in directory.names:
            raise WriteFailed("can't create the file: File exists", path=path)
        self.step("create", path)
        node = FileNode()
        directory.change({name: node})
        self.done("create", path)
        return SimulatedFile(self, path, node, write=True)

    def open(self, path: str, *, write: bool = False) -> SimulatedFile:
        """See `Disk`."""
        self.check_alive()
        return SimulatedFile(self, path, self._file(path), write=write)

    def rename(self, old: str, new: str) -> None:
        """See `Disk`. Between two directories it is two changes, so a power cut may leave both names or none."""
        (above, name), (above_new, name_new) = _split(old), _split(new)
        source, target = self._directory(above), self._directory(above_new)
        node = source.names.get(name)
        if node is None:
            raise FileMissing(f"can't rename the file to {new}: No such file or directory", path=old)
        there = target.names.get(name_new)
        if isinstance(there, DirectoryNode) and (there.names or isinstance(node, FileNode)):
            raise WriteFailed(f"can't rename the file to {new}: Directory not empty", path=old)
        self.step("rename", new)
        if source is target:
            source.change({name: None, name_new: node} if name != name_new else {})
        else:
            source.change({name: None})
            target.change({name_new: node})
        self.done("rename", new)

    def remove(self, path: str) -> None:
        """See `Disk`."""
        above, name = _split(path)
        self._file(path)
        self.step("remove", path)
        self._directory(above).change({name: None})
        self.done("remove", path)

    def sync_directory(self, path: str) -> None:
        """See `Disk`."""
        directory = self._directory(path)
        self.step("sync_directory", path)
        directory.sync()
        self.done("sync_directory", path)

    def lock(self, path: str) -> SimulatedLock:
        """See `Disk`."""
        self.check_alive()
        if not self.exists(path):
            self.create(path)
        node = self._file(path)
        if node in self.machine.locks:
            raise DirectoryInUse(
                f"the data directory is in use by the process with pid {self.machine.locks[node]}",
                path=path,
                remedy="Stop that process, or choose another data directory.",
            )
        self.machine.locks[node] = self._process
        return SimulatedLock(self, path, node)

    def write_whole(self, path: str, chunks: Iterable[bytes], mode: int = 0o600, paced: bool = False) -> int:
        """See `Disk`. The steps are those of the real one; a process that ends leaves the unfinished file."""
        unfinished = path + TMP
        if self.exists(unfinished):
            self.remove(unfinished)
        file = self.create(unfinished, mode)
        try:
            length = synced = 0
            for chunk in chunks:
                file.write_at(length, chunk)
                length += len(chunk)
                if paced and length - synced >= PACE_BYTES:
                    file.sync()
                    synced = length
            file.sync()
            file.close()
            self.rename(unfinished, path)
        except Crash:
            raise
        except BaseException:
            file.close()
            with contextlib.suppress(DiskFault):
                self.remove(unfinished)
            raise
        self.sync_directory(_split(path)[0])
        return length

    def _directory(self, path: str) -> DirectoryNode:
        self.check_alive()
        node = self.machine.node(path)
        if node is None:
            raise FileMissing("can't find the directory: No such file or directory", path=path)
        if isinstance(node, FileNode):
            raise DiskFault("can't list the directory: Not a directory", path=path)
        return node

    def _file(self, path: str) -> FileNode:
        self.check_alive()
        node = self.machine.node(path)
        if node is None:
            raise FileMissing("can't open the file: No such file or directory", path=path)
        if isinstance(node, DirectoryNode):
            raise DiskFault("can't open the file: Is a directory", path=path)
        return node


class SimulatedFile:
    """See `engine.disk.File`. It stays the same file when its name goes, or another file gets it."""

    def __init__(self, disk: SimulatedDisk, path: str, node: FileNode, *, write: bool) -> None:
        self.path = path
        self._disk = disk
        self._node = node
        self._write = write
        self._open = True

    def size(self) -> int:
        """See `File`."""
        self._check()
        return len(self._node.cached)

    def read_at(self, offset: int, length: int) -> bytes:
        """See `File`."""
        self._check()
        return bytes(self._node.cached[offset : offset + length])

    def will_read(self, offset: int, length: int) -> None:
        """See `File`: there is nothing to wait for."""

    def write_at(self, offset: int, data: bytes) -> None:
        """See `File`."""
        self._check()
        if not self._write:
            raise WriteFailed("can't write: Bad file descriptor", path=self.path, offset=offset)
        trouble = self._disk.step("write", self.path)
        if trouble is Trouble.NO_ROOM and offset + len(data) <= len(self._node.cached):
            trouble = None
        part = max((offset + len(data) // 2) // SECTOR_BYTES * SECTOR_BYTES - offset, 0)
        if part:
            self._node.write(offset, data[:part])
            self._disk.within("write", self.path)
        if trouble is not None:
            raise NoSpace(f"can't write: {NO_SPACE}", path=self.path, offset=offset)
        self._node.write(offset + part, data[part:])
        self._disk.done("write", self.path)

    def preallocate(self, length: int) -> None:
        """See `File`."""
        self._check()
        self._disk.step("preallocate", self.path)
        self._node.extend(length)
        self._disk.done("preallocate", self.path)

    def sync(self) -> None:
        """See `File`."""
        self._check()
        if self._disk.step("sync", self.path) is Trouble.ERROR:
            self._node.fail_sync(self._disk.machine.fate)
            raise WriteFailed(f"can't sync: {IO_ERROR}", path=self.path)
        self._node.sync()
        self._disk.done("sync", self.path)

    def check_place(self) -> None:
        """See `File`."""
        self._check()
        self._disk.check_leads(self.path, self._node, "the file")

    def close(self) -> None:
        """See `File`."""
        self._open = False

    def _check(self) -> None:
        self._disk.check_alive()
        if not self._open:
            raise DiskFault("the file is closed", path=self.path)


class SimulatedLock:
    """See `engine.disk.Lock`."""

    def __init__(self, disk: SimulatedDisk, path: str, node: FileNode) -> None:
        self._disk = disk
        self._path = path
        self._node = node
        self._directory = disk.machine.node(_split(path)[0])

    def check_place(self) -> None:
        """See `Lock`."""
        self._disk.check_alive()
        self._disk.check_leads(_split(self._path)[0], self._directory, "the data directory")
        self._disk.check_leads(self._path, self._node, "the lock of the data directory")

    def release(self) -> None:
        """See `Lock`. When a process ends, the system releases its locks."""
        if self._disk.alive:
            self._disk.machine.locks.pop(self._node, None)


def _split(path: str) -> tuple[str, str]:
    above, _, name = path.rstrip("/").rpartition("/")
    return above or "/", name
