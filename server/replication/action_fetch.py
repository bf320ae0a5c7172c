"""Fetching the files of older actions that a snapshot names, from the node that the snapshot came from.

    done = await ActionFetch(downloads, disk, data_directory, tell=tell).complete(manifest, log_id)

    fetched.actions.tmp ──(cut? resumed)──► whole ──proved──► actions/0000000000-0000000004-9c0f5b1f7e0a4d3c.run

Without these files a replica could not say whether an action was applied long ago, and a leader that it becomes could
count one twice. So a snapshot is not taken before all of them are here.

Rules:
- A file that is here, with proved tables, is not fetched again: all of it was proved when it got its name.
- A file gets its name only after all of it is proved: the checksums of tables and entries, and that it is the run that
  the snapshot names, of this log. A damaged one is removed and fetched again, a few times.
- The node may have removed a file meanwhile, as it has a newer snapshot. Then the fetch ends, and the caller begins
  anew with that one. What came stays: most of it belongs to the newer one too. `snapshots.sealing` removes the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import TypeVar

from engine import action_blocks
from engine.action_blocks import RunInfo, run_name
from engine.action_run_bytes import RunBytes
from engine.disk import TMP, Disk, FileMissing
from engine.errors import RunDamaged
from engine.sealed_actions import Manifest
from engine.threads import run
from server import bounds
from server.replication.download import Downloads, ShowBytes, no_bytes
from server.replication.failure import FollowingFailed
from server.replication.messages import ACTIONS_PATH
from server.replication.replicas import NEWER
from snapshots.action_store import ActionStore

FETCHED = "fetched.actions"

T = TypeVar("T")


class ActionFetch:
    """Completes the files of older actions of one data directory."""

    def __init__(self, downloads: Downloads, disk: Disk, data_directory: str, *, tell: Callable[[str], None]) -> None:
        """`tell` takes what is wrong with a download."""
        self._downloads = downloads
        self._disk = disk
        self._store = ActionStore(disk, data_directory)
        self._unfinished = f"{data_directory}/{FETCHED}{TMP}"
        self._tell = tell

    async def complete(self, manifest: Manifest, log_id: bytes, progress: ShowBytes = no_bytes) -> bool:
        """Fetch the files of a snapshot that are not here; False if the node no longer has one of them.

        Raises `FollowingFailed` after DAMAGED_DOWNLOADS_MAX damaged downloads of one file.
        """
        if manifest.block_actions != action_blocks.BLOCK_ACTIONS:
            what = f"the leader's files of actions have blocks of {manifest.block_actions}"
            raise FollowingFailed(what, epoch=1, seq=0, remedy=NEWER)
        for info in manifest.runs:
            is_here = await self._in_thread(partial(self._is_here, info, log_id))
            if not is_here and not await self._fetch(info, log_id, progress):
                self._tell(f"the leader no longer has the file {run_name(info)} of its snapshot")
                return False
        return True

    async def _fetch(self, info: RunInfo, log_id: bytes, progress: ShowBytes) -> bool:
        target = f"{ACTIONS_PATH}?name={run_name(info)}"
        for _ in range(bounds.DAMAGED_DOWNLOADS_MAX):
            if not await self._downloads.fill(target, self._unfinished, "file of actions", progress):
                return False
            try:
                await self._in_thread(partial(self._place, info, log_id))
            except RunDamaged as damage:
                self._tell(f"the file of actions that was downloaded is damaged: {damage.what}")
            else:
                return True
        what = f"{bounds.DAMAGED_DOWNLOADS_MAX} downloads of the leader's file {run_name(info)} were all damaged"
        remedy = "Check the network and the leader's disk, then start this replica again."
        raise FollowingFailed(what, epoch=1, seq=0, remedy=remedy)

    # In the worker thread

    def _is_here(self, info: RunInfo, log_id: bytes) -> bool:
        try:
            with closing(RunBytes.open(self._disk, self._store.path(info))) as found:
                found.check(info, log_id)
        except (FileMissing, RunDamaged):
            return False
        return True

    def _place(self, info: RunInfo, log_id: bytes) -> None:
        """Prove what came, and give it its name, durably. Raises `RunDamaged`."""
        try:
            with closing(RunBytes.open(self._disk, self._unfinished)) as fetched:
                fetched.prove(info, log_id)
        except RunDamaged:
            self._disk.remove(self._unfinished)
            raise
        self._store.adopt(info, self._unfinished)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await run(work, blocks=self._disk.blocks)
