"""The files of older actions of a data directory: DATA/actions/0000000000-0000000004-9c0f5b1f7e0a4d3c.run.

    store = ActionStore(disk, data_directory)
    runs = store.open_all(infos, log_id)                        raises if one is missing or damaged
    store.tidy(kept_names)                                      at retention

`engine.action_run` has the format. A snapshot names the runs that belong to it (`engine.sealed_actions`).

Rules:
- A file appears whole or not at all, and its name says what is in it. So a file of that name is never another one, but
  for what an erasure forgets in it.
- Only the owner of the directory writes and removes. A file that is not named by a kept snapshot or by the state that
  is served goes at retention. So does the unfinished file of an interrupted write. They go durably: a power cut must
  not bring back what tells the actions of an erased user.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from contextlib import closing

from engine.action_blocks import RunInfo, run_name
from engine.action_run import Run
from engine.action_run_bytes import RunBytes
from engine.disk import TMP, Disk, FileMissing
from engine.errors import RunDamaged

DIRECTORY = "actions"

_RUN_NAME = re.compile(r"[0-9]{10,}-[0-9]{10,}-[0-9a-f]{16}\.run")

PIECE_BYTES = 2**20
"""Bytes that are copied at once."""


class ActionStore:
    """The runs of one data directory."""

    def __init__(self, disk: Disk, data_directory: str) -> None:
        self.disk = disk
        self.directory = f"{data_directory}/{DIRECTORY}"

    def path(self, info: RunInfo) -> str:
        return f"{self.directory}/{run_name(info)}"

    def has(self, info: RunInfo) -> bool:
        return self.disk.exists(self.path(info))

    def open(self, info: RunInfo, log_id: bytes) -> Run:
        """Open a run and prove its tables. Raises `FileMissing`, `RunDamaged`. It closes with its last user."""
        return Run.open(self.disk, self.path(info), info, log_id)

    def open_all(self, infos: Iterable[RunInfo], log_id: bytes) -> list[Run]:
        """Open runs. Raises the same errors for the first that can't be used."""
        return [self.open(info, log_id) for info in infos]

    def path_of(self, name: str) -> str | None:
        """Give the path of the run of this name; None if there is none."""
        return f"{self.directory}/{name}" if _RUN_NAME.fullmatch(name) and name in self.list() else None

    def list(self) -> list[str]:
        """List the names of all files here."""
        return sorted(self.disk.list_directory(self.directory)) if self.disk.exists(self.directory) else []

    def adopt(self, info: RunInfo, path: str) -> None:
        """Give a file that was proved the name of its run, durably. A file of that name is replaced."""
        self.make_directory()
        self.disk.rename(path, self.path(info))
        self.disk.sync_directory(self.directory)

    def tidy(self, kept: Collection[str]) -> Sequence[str]:
        """Remove durably every run but those of these names, also unfinished ones; give the paths. Other files stay."""
        names = [name for name in self.list() if _RUN_NAME.fullmatch(name.removesuffix(TMP)) and name not in kept]
        removed = [f"{self.directory}/{name}" for name in names]
        for path in removed:
            self.disk.remove(path)
        if removed:
            self.disk.sync_directory(self.directory)
        return removed

    def make_directory(self) -> None:
        """Make the directory, and make its name durable."""
        self.disk.make_directory(self.directory)


def copy_runs(origin: ActionStore, store: ActionStore, infos: Iterable[RunInfo], log_id: bytes) -> None:
    """Copy runs from one data directory to another, and prove them. A missing or damaged one is left out."""
    for info in infos:
        store.make_directory()
        try:
            with closing(RunBytes.open(origin.disk, origin.path(info))) as run:
                run.check(info, log_id)
                pieces = (run.read_at(offset, PIECE_BYTES) for offset in range(0, run.size, PIECE_BYTES))
                store.disk.write_whole(store.path(info), pieces, paced=True)
        except (FileMissing, RunDamaged):
            continue
