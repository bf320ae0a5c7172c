"""The snapshots of one data directory: DATA/snapshots/00000000000001000000.snapshot, named by the seq of the state.

Rules:
- A snapshot appears whole or not at all: the disk writes it beside its name, syncs it, and renames it. What an
  interrupted write left has another name; it is never listed, and `tidy` takes it away.
- A file is believed only after it was read and proved. Listing goes by names and sizes alone.
- A file with a snapshot's name never changes, so reading needs no lock, whatever the directory's owner does meanwhile.
- Only the owner of the directory saves under the plain name of an unfinished file, tidies and removes. Whoever else
  saves has a `mark` of its own, so that two who save the same seq at once don't write into one file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from engine.disk import TMP, Disk, FileMissing
from engine.errors import SnapshotDamaged
from engine.image import StateImage
from engine.record import Tail
from snapshots import format as snapshot_format
from snapshots.format import Source

DIRECTORY = "snapshots"

_NAME = re.compile(r"(\d{20})\.snapshot")
_UNFINISHED = re.compile(r"\d{20}\.snapshot(\.[\w-]+)?" + re.escape(TMP) + r"|\d{20}\.snapshot\.[\w-]+")
_REMEDY = "A start goes on from the snapshot before it, or from the whole log. Keep the file to look into its damage."
T = TypeVar("T")


class SnapshotInfo(msgspec.Struct, frozen=True):
    """A snapshot by its name: the state after the event `seq`, in a file of so many bytes."""

    path: str
    seq: int
    bytes: int


class Store:
    """The snapshot files in one directory."""

    def __init__(self, disk: Disk, data_directory: str) -> None:
        self._disk = disk
        self.directory = f"{data_directory}/{DIRECTORY}"

    def list(self) -> list[SnapshotInfo]:
        """List the snapshots, newest first. One that goes meanwhile is left out."""
        infos = []
        for name in self._names():
            match = _NAME.fullmatch(name)
            if match is not None:
                path = f"{self.directory}/{name}"
                try:
                    infos.append(SnapshotInfo(path, int(match[1]), self._disk.size(path)))
                except FileMissing:
                    continue
        return sorted(infos, key=lambda info: -info.seq)

    def load(self, info: SnapshotInfo) -> tuple[StateImage, Tail]:
        """Read a snapshot and prove it. Raises `SnapshotDamaged`; `FileMissing` if it went meanwhile."""
        image, tail = self._read(info, snapshot_format.unpack)
        self._check_name(info, tail)
        return image, tail

    def verify(self, info: SnapshotInfo) -> Tail:
        """Prove a snapshot without building its state. Raises `SnapshotDamaged`; `FileMissing` if it went meanwhile."""
        tail = self._read(info, snapshot_format.verify)
        self._check_name(info, tail)
        return tail

    def _read(self, info: SnapshotInfo, read: Callable[[Source, str], T]) -> T:
        file = self._disk.open(info.path)
        try:
            return read(file, info.path)
        except SnapshotDamaged as error:
            raise SnapshotDamaged(
                error.what, path=info.path, offset=error.offset, seq=info.seq, remedy=_REMEDY
            ) from error
        finally:
            file.close()

    def _check_name(self, info: SnapshotInfo, tail: Tail) -> None:
        if tail.seq != info.seq:
            what = f"this is the snapshot of seq {tail.seq}, under the name of another"
            raise SnapshotDamaged(what, path=info.path, seq=info.seq, remedy=_REMEDY)

    def save(self, image: StateImage, tail: Tail, *, paced: bool = False, mark: str = "") -> SnapshotInfo:
        """Write a snapshot; when this returns it is on disk.

        `paced`: in small portions, for the sake of the log, which syncs meanwhile. `mark`: letters and digits that
        nobody else has, for one who does not own the directory.
        """
        self._disk.make_directory(self.directory)
        path = f"{self.directory}/{tail.seq:020}.snapshot"
        whole = f"{path}.{mark}" if mark else path
        size = self._disk.write_whole(whole, snapshot_format.pack(image, tail), paced=paced)
        if mark:
            self._disk.rename(whole, path)
            self._disk.sync_directory(self.directory)
        return SnapshotInfo(path, tail.seq, size)

    def remove(self, path: str) -> None:
        """Remove a snapshot. A power cut may bring it back, which does no harm."""
        self._disk.remove(path)

    def tidy(self) -> Sequence[str]:
        """Remove what interrupted writes left; give the paths. Other files that somebody put there stay."""
        leftovers = [f"{self.directory}/{name}" for name in self._names() if _UNFINISHED.fullmatch(name) is not None]
        for path in leftovers:
            self._disk.remove(path)
        return leftovers

    def _names(self) -> Sequence[str]:
        return self._disk.list_directory(self.directory) if self._disk.exists(self.directory) else []
