"""What a simulated disk holds: files and directories, each as programs see them now and as a power cut leaves them.

    programs ──► cached ──(sync)──► durable ──(power cut)──► cached

Rules:
- Everything written is only cached at first. A sync makes it durable; so does the kernel, at any moment and in any
  order, by the sector. So after a power cut each sector that was written since the last sync holds what it held before,
  or anything that was written to it since. `Fate` decides.
- The length of a file is a thing of its own: sectors may be there without it (and are out of sight then), and it may be
  there without the sectors (which hold zeros then).
- A directory's names are made durable by a sync of the directory, never by that of a file. Until then each change of a
  name may be there after a power cut or not. A rename within a directory is one change, as journals have it.
- A failed sync marks its sectors as clean (ATC 2020, "Can applications recover from fsync failures?"). Some of them
  were written, the others are `lost`: programs still see them, the next sync succeeds without writing them, and a power
  cut removes them. So does the kernel when it needs the memory (`forget`). A new write makes them dirty again.

Nothing here knows of processes, faults or time; `tests.sim.disk` does.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol, TypeVar

SECTOR_BYTES = 512

T = TypeVar("T")


class Fate(Protocol):
    """Decides what a power cut leaves of unsynced data."""

    def choose(self, states: Sequence[T]) -> T:
        """Choose one of the states that something went through: the first is the durable one, the last the newest."""

    def keep(self, changes: Sequence[T]) -> list[T]:
        """Choose the changes to a directory that reached the disk."""


class Nothing:
    """Only synced data survives."""

    def choose(self, states: Sequence[T]) -> T:
        """See `Fate`."""
        return states[0]

    def keep(self, changes: Sequence[T]) -> list[T]:
        """See `Fate`."""
        return []


class Everything:
    """All written data survives, as if the kernel had just written it back."""

    def choose(self, states: Sequence[T]) -> T:
        """See `Fate`."""
        return states[-1]

    def keep(self, changes: Sequence[T]) -> list[T]:
        """See `Fate`."""
        return list(changes)


class Chance:
    """Draws for each sector and each length alone; for names in the order of a journal, or each alone."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._journal = dice.random() < 0.5

    def choose(self, states: Sequence[T]) -> T:
        """See `Fate`."""
        return self._dice.choice(states)

    def keep(self, changes: Sequence[T]) -> list[T]:
        """See `Fate`."""
        if self._journal:
            return list(changes[: self._dice.randint(0, len(changes))])
        return [change for change in changes if self._dice.random() < 0.5]


class FileNode:
    """A file; its names are in directories."""

    __slots__ = ("cached", "durable", "lengths", "lost", "pending")

    def __init__(self) -> None:
        self.cached = bytearray()
        self.durable = bytearray()
        self.pending: dict[int, list[bytes]] = {}
        self.lengths: list[int] = []
        self.lost: set[int] = set()

    def write(self, offset: int, data: bytes) -> None:
        """Write to the cache."""
        end = offset + len(data)
        if end > len(self.cached):
            self.extend(end)
        self.cached[offset:end] = data
        for sector in range(offset // SECTOR_BYTES, -(-end // SECTOR_BYTES)):
            start = sector * SECTOR_BYTES
            self.pending.setdefault(sector, []).append(bytes(self.cached[start : start + SECTOR_BYTES]))
            self.lost.discard(sector)

    def extend(self, length: int) -> None:
        """Make the file longer, with zeros."""
        if length > len(self.cached):
            self.cached.extend(bytes(length - len(self.cached)))
            self.lengths.append(length)

    def sync(self) -> None:
        """Make durable what is dirty."""
        self._resize(len(self.cached))
        for sector, versions in self.pending.items():
            self._place(sector, versions[-1])
        self.pending.clear()
        self.lengths.clear()

    def fail_sync(self, fate: Fate) -> None:
        """Mark all sectors as clean, although not all of them are written. Lengths stay to be written."""
        self._resize(fate.choose([len(self.durable), *self.lengths]))
        for sector, versions in self.pending.items():
            written: bytes | None = fate.choose([None, versions[-1]])
            if written is None:
                self.lost.add(sector)
            else:
                self._place(sector, written)
        self.pending.clear()

    def forget(self, fate: Fate) -> None:
        """Let the kernel drop clean sectors from memory: what is read next comes from the disk."""
        for sector in sorted(self.lost):
            if fate.choose([True, False]):
                start = sector * SECTOR_BYTES
                end = min(start + SECTOR_BYTES, len(self.cached))
                self.cached[start:end] = self.durable[start:end].ljust(end - start, b"\0")
                self.lost.discard(sector)

    def cut_power(self, fate: Fate) -> None:
        """Keep what is durable, and what fate leaves of the rest."""
        self._resize(fate.choose([len(self.durable), *self.lengths]))
        for sector, versions in self.pending.items():
            written: bytes | None = fate.choose([None, *versions])
            if written is not None:
                self._place(sector, written)
        self.cached = bytearray(self.durable)
        self.pending.clear()
        self.lengths.clear()
        self.lost.clear()

    def flip(self, offset: int, bit: int) -> None:
        """Flip a bit on the disk; only after a power cut, when no process has the file in memory."""
        self.durable[offset] ^= 1 << bit
        self.cached[offset] ^= 1 << bit

    def _resize(self, length: int) -> None:
        if length > len(self.durable):
            self.durable.extend(bytes(length - len(self.durable)))

    def _place(self, sector: int, data: bytes) -> None:
        start = sector * SECTOR_BYTES
        end = min(start + len(data), len(self.durable))
        if start < end:
            self.durable[start:end] = data[: end - start]

    def copy(self) -> FileNode:
        """Make a copy that shares nothing."""
        node = FileNode()
        node.cached = bytearray(self.cached)
        node.durable = bytearray(self.durable)
        node.pending = {sector: list(versions) for sector, versions in self.pending.items()}
        node.lengths = list(self.lengths)
        node.lost = set(self.lost)
        return node


class DirectoryNode:
    """Names, and what they stand for."""

    __slots__ = ("durable", "names", "pending")

    def __init__(self) -> None:
        self.names: dict[str, Node] = {}
        self.durable: dict[str, Node] = {}
        self.pending: list[Change] = []

    def change(self, change: Change) -> None:
        """Change names in the cache; a name that stands for None is taken away."""
        _apply(self.names, change)
        self.pending.append(change)

    def sync(self) -> None:
        """Make the names durable."""
        self.durable = dict(self.names)
        self.pending.clear()

    def cut_power(self, fate: Fate) -> None:
        """Keep the durable names, and the later changes that fate leaves; then do the same down the tree."""
        for change in fate.keep(self.pending):
            _apply(self.durable, change)
        self.names = dict(self.durable)
        self.pending.clear()
        for node in self.names.values():
            node.cut_power(fate)

    def forget(self, fate: Fate) -> None:
        """See `FileNode.forget`."""
        for node in self.names.values():
            node.forget(fate)

    def copy(self, copies: dict[int, Node]) -> DirectoryNode:
        """Make a copy of the whole tree; `copies` has what was copied already, by identity."""
        node = DirectoryNode()
        copies[id(self)] = node
        node.names = {name: _copy(below, copies) for name, below in self.names.items()}
        node.durable = {name: _copy(below, copies) for name, below in self.durable.items()}
        node.pending = [
            {name: None if below is None else _copy(below, copies) for name, below in change.items()}
            for change in self.pending
        ]
        return node


Node = FileNode | DirectoryNode
Change = dict[str, Node | None]


def _apply(names: dict[str, Node], change: Change) -> None:
    for name, node in change.items():
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


def _copy(node: Node, copies: dict[int, Node]) -> Node:
    if id(node) not in copies:
        copies[id(node)] = node.copy() if isinstance(node, FileNode) else node.copy(copies)
    return copies[id(node)]
