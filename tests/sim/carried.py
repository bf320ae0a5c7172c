"""How the files of actions come to a replica in a simulated run, until replicas fetch them themselves.

TO BE REPLACED by the fetch of production: `stand_in` then goes, with all of this file. It hands a replica every file
that a fetched snapshot names, from an archive of all files that any node ever wrote, right before the snapshot is put
in its place.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

from engine.action_blocks import run_name
from engine.disk import Disk
from engine.record import Tail
from engine.sealed_actions import SealedActions
from server.replication import bootstrap, replicas
from snapshots.action_store import ActionStore
from snapshots.store import SnapshotInfo, Store

Archive = dict[str, bytes]
"""All files of actions that a node ever wrote, by name."""


@contextmanager
def stand_in(archives: Sequence[Archive], data: str) -> Iterator[None]:
    """Bring the files from the archives."""
    archive = ChainMap(*archives)
    place, load_newer = replicas.place, replicas._load_newer

    def bring(disk: Disk, path: str) -> SealedActions:
        store, snapshots = ActionStore(disk, data), Store(disk, data)
        manifest = snapshots.manifest(SnapshotInfo(path, 0, 0))
        for info in () if manifest is None else manifest.runs:
            if not store.has(info):
                store.make_directory()
                disk.write_whole(store.path(info), [archive[run_name(info)]])
        return SealedActions.of(manifest)

    def placed(disk: Disk, directory: str, path: str, tail: Tail) -> None:
        bring(disk, path)
        place(disk, directory, path, tail)

    async def newer(disk: Disk, path: str, replica: Any) -> Any:
        sealed = bring(disk, path) if replica.shard is None else SealedActions()
        found = await load_newer(disk, path, replica)
        if found is not None and sealed.infos:
            scoreboard, tail = found
            runs = ActionStore(disk, data).open_all(sealed.infos, tail.log_id)
            sealed = SealedActions(sealed.infos, sealed.digests, sealed.forgotten, runs)
            scoreboard.actions.sealed = sealed
        return found

    with (
        mock.patch.object(bootstrap, "place", placed),
        mock.patch.object(replicas, "place", placed),
        mock.patch.object(replicas, "_load_newer", newer),
    ):
        yield
