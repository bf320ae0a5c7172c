"""The snapshot files of a data directory: DATA/snapshots/00000000000001000000.snapshot, named by the seq of the state.

    store = Store(disk, data_directory)
    info = store.save(image, tail)
    image, tail = store.load(store.list()[0])            the newest one

Rules:
- A snapshot appears whole or not at all: it is written under another name, synced and renamed. `list` never shows the
  unfinished file of an interrupted write, and `tidy` removes it.
- `list` uses names and sizes only. A snapshot is trusted only after `load` or `verify` has proved it.
- A file with a snapshot's name never changes, so reading needs no lock.
- Only the owner of the directory removes and tidies, and saves without a `mark`. Any other process saves with a `mark`
  of its own, so that two that save the same seq at once never write into one file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import TypeVar

import msgspec

from engine.disk import TMP, Disk, FileMissing
from engine.errors import SnapshotDamaged
from engine.image import StateImage
from engine.record import Tail
from engine.sealed_actions import Manifest
from snapshots import format as snapshot_format
from snapshots.format import Source
from snapshots.part_reading import read_manifest

DIRECTORY = "snapshots"

FETCHED = "fetched.snapshot"
"""The name, in the data directory, of a snapshot that was fetched from a leader and is not in place yet."""

_NAME = re.compile(r"(\d{20})\.snapshot")
_UNFINISHED = re.compile(r"\d{20}\.snapshot(\.[\w-]+)?" + re.escape(TMP) + r"|\d{20}\.snapshot\.[\w-]+")
_REMEDY = "A start goes on from the snapshot before it, or from the whole log. Keep the file to look into its damage."
T = TypeVar("T")


class SnapshotInfo(msgspec.Struct, frozen=True):
    """A snapshot as listed: the state after the event `seq`. `bytes` is the length of its file."""

    path: str
    seq: int
    bytes: int


class Store:
    """The snapshot files of one data directory."""

    def __init__(self, disk: Disk, data_directory: str) -> None:
        self.disk = disk
        self.directory = f"{data_directory}/{DIRECTORY}"
        self._fetched = f"{data_directory}/{FETCHED}"

    def list(self) -> list[SnapshotInfo]:
        """List the snapshots, newest first. A snapshot that is removed meanwhile is left out."""
        infos = []
        for name in self._names():
            if (match := _NAME.fullmatch(name)) is not None:
                path = f"{self.directory}/{name}"
                try:
                    infos.append(SnapshotInfo(path, int(match[1]), self.disk.size(path)))
                except FileMissing:
                    if self.disk.exists(path):
                        raise  # a symbolic link that leads nowhere: it is not gone, it can't be read
        return sorted(infos, key=lambda info: -info.seq)

    def load(self, info: SnapshotInfo) -> tuple[StateImage, Tail]:
        """Read a snapshot and prove it. Raises `SnapshotDamaged`; `FileMissing` if it was removed meanwhile."""
        image, tail = self._read(info, snapshot_format.unpack)
        self._check_name(info, tail)
        return image, tail

    def manifest(self, info: SnapshotInfo) -> Manifest | None:
        """Read which files of older actions belong to a snapshot; None if none do. Raises the same errors as `load`."""
        return self._read(info, read_manifest)

    def is_fetching(self) -> bool:
        """Tell whether a snapshot is on its way here from a leader, or is here and not in place yet."""
        return self.disk.exists(self._fetched + TMP) or self.disk.exists(self._fetched)

    def verify(self, info: SnapshotInfo) -> Tail:
        """Prove a snapshot without building its state. Raises the same errors as `load`."""
        tail = self._read(info, snapshot_format.verify)
        self._check_name(info, tail)
        return tail

    def _read(self, info: SnapshotInfo, read: Callable[[Source, str], T]) -> T:
        with closing(self.disk.open(info.path)) as file:
            try:
                return read(file, info.path)
            except SnapshotDamaged as error:
                what, offset = error.what, error.offset
                raise SnapshotDamaged(what, path=info.path, offset=offset, seq=info.seq, remedy=_REMEDY) from error

    def _check_name(self, info: SnapshotInfo, tail: Tail) -> None:
        if tail.seq != info.seq:
            what = f"this is the snapshot of seq {tail.seq}, under the name of another"
            raise SnapshotDamaged(what, path=info.path, seq=info.seq, remedy=_REMEDY)

    def save(self, image: StateImage, tail: Tail, *, paced: bool = False, mark: str = "") -> SnapshotInfo:
        """Write a snapshot. When this returns, it is durable.

        `paced`: sync in small portions, so that a sync of the log need not wait for all of it. `mark`: unique letters
        and digits, for a process that does not own the directory.
        """
        self.disk.make_directory(self.directory)
        path = f"{self.directory}/{tail.seq:020}.snapshot"
        whole = f"{path}.{mark}" if mark else path
        size = self.disk.write_whole(whole, snapshot_format.pack(image, tail), paced=paced)
        if mark:
            self.disk.rename(whole, path)
            self.disk.sync_directory(self.directory)
        return SnapshotInfo(path, tail.seq, size)

    def remove(self, path: str) -> None:
        """Remove a snapshot. A power cut may bring it back; that does no harm."""
        self.disk.remove(path)

    def tidy(self) -> Sequence[str]:
        """Remove the files that interrupted writes left; give their paths. Any other file stays."""
        leftovers = [f"{self.directory}/{name}" for name in self._names() if _UNFINISHED.fullmatch(name) is not None]
        for path in leftovers:
            self.disk.remove(path)
        return leftovers

    def _names(self) -> Sequence[str]:
        return self.disk.list_directory(self.directory) if self.disk.exists(self.directory) else []
