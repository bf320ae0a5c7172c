"""Sealing: moving older applied actions from memory into files, while serving.

    sealer = Sealer(scoreboard, disk, data_directory, log, rules, tell=tell)
    await sealer.seal()                         before a snapshot: seals what is due
    await sealer.forget(); await sealer.tidy()  after a snapshot
    await sealer.run()                          its task: makes damaged files anew

    event loop        capture (shares the arrays) ─┐                          ┌─ take_sealed: O(what came meanwhile)
    worker thread                                  └─ sort, write, sync, open ┘

Theory: a snapshot that follows names the new files, and carries only the actions after them. Until it exists, the
snapshots before it carry what was sealed since. So a crash anywhere leaves a snapshot with all files that it names:
files of no snapshot are garbage, and files of a kept snapshot stay until it goes (`tidy`).

Rules:
- Nothing is sealed while the index may be in memory: "memory" never, "auto" until the recent actions take
  `memory_bytes`, and from then on always. "disk" seals from the first whole block on.
- Some recent actions stay in memory (RECENT_SHARE): most repeated actions are young.
- The runs are those of `engine.action_blocks.layout`. What a larger run covers is joined, and goes at retention.
- A replica that begins anew fetches the files that a snapshot names before it takes the snapshot over. Nothing is
  removed meanwhile. The last step holds the log's `upkeep`, and so does `tidy`.
- A state that was replaced meanwhile (a replica began anew) keeps its own actions: what was sealed is garbage then.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import Literal, TypeVar

import msgspec
import numpy as np
import trio

from engine import action_blocks
from engine.action_blocks import FORGOTTEN, RunInfo, block_digest, layout, run_name
from engine.action_run import Columns, Run, rewrite_forgotten, write_run
from engine.actions import Actions
from engine.disk import Disk
from engine.errors import DiskFault, RunDamaged, SnapshotDamaged
from engine.image import ActionsImage
from engine.log import Log
from engine.scoreboard import Scoreboard
from engine.sealed_actions import SealedActions
from engine.threads import run
from snapshots.action_store import ActionStore
from snapshots.mending import Mended, mend, missing_fault
from snapshots.opening import log_directory
from snapshots.store import Store

IndexMode = Literal["auto", "memory", "disk"]
T = TypeVar("T")

RECENT_SHARE = 2
"""A block is sealed when one part in this number of another block came after it."""


class IndexRules(msgspec.Struct, frozen=True):
    """Where the index of applied actions lies. `memory_bytes`: what recent actions may take in the mode "auto"."""

    index: IndexMode = "auto"
    memory_bytes: int = 2**30


class Sealer:
    """Seals the actions of one scoreboard. `tell` gets damage that is found, and that it was mended."""

    def __init__(
        self, scoreboard: Scoreboard, disk: Disk, data_directory: str, log: Log, rules: IndexRules, *,
        tell: Callable[[DiskFault], None],
    ) -> None:  # fmt: skip
        self._scoreboard = scoreboard
        self._store = ActionStore(disk, data_directory)
        self._snapshots = Store(disk, data_directory)
        self._log_directory = log_directory(data_directory)
        self._log = log
        self._rules = rules
        self._tell = tell
        self._busy = trio.Lock()
        self._damaged: set[str] = set()
        self._wake = trio.Event()

    async def seal(self) -> None:
        """Seal what is due. Raises `DiskFault`; then everything is as before."""
        async with self._busy:
            await self._look_for_missing()
            actions = self._scoreboard.actions
            blocks = self._due(actions)
            if blocks == actions.sealed.blocks:
                return
            image, sealed, forgotten = actions.capture_to_seal(), actions.sealed, frozenset(actions.sealed.forgotten)
            work = partial(self._write, image, sealed, forgotten, blocks)
            more, rest = await self._in_thread(work)
            if self._scoreboard.actions is actions:
                actions.take_sealed(more, rest)

    async def _look_for_missing(self) -> None:
        """Write files anew that somebody removed: a snapshot is about to name them. The open ones still have all."""
        infos = self._scoreboard.actions.sealed.infos
        missing = await self._in_thread(lambda: [info for info in infos if not self._store.has(info)]) if infos else []
        for info in missing:
            self._tell(missing_fault(self._store.path(info), info.first_seq))
        if missing:
            await self._replace(partial(self._mended, frozenset(map(self._store.path, missing))))

    async def forget(self) -> None:
        """Have the files forget the actions of erased users. Raises `DiskFault`."""
        async with self._busy:
            await self._replace(self._forgetful)

    async def tidy(self) -> None:
        """Remove the files that neither a snapshot nor the served state names. Raises `DiskFault`."""
        async with self._busy:
            names = {run_name(info) for info in self._scoreboard.actions.sealed.infos}
            await self._in_thread(partial(self._tidy, names))

    def damaged(self, fault: DiskFault) -> None:
        """Note that a file is damaged. It is made anew, if `run` runs."""
        if fault.path not in self._damaged:
            self._damaged.add(fault.path)
            self._tell(fault)
            self._wake.set()

    def wanted(self, name: str) -> None:
        """Note that somebody asked for a file that is not here. If the served state uses it, it is written anew."""
        for info in self._scoreboard.actions.sealed.infos:
            if run_name(info) == name:
                self.damaged(missing_fault(self._store.path(info), info.first_seq))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Make damaged files anew, until cancelled. Raises `RunDamaged` if one can't be: the process must end."""
        task_status.started()
        if self._scoreboard.erasures.count:  # a process that was killed may have left files of before an erasure
            try:
                await self.tidy()
            except DiskFault as fault:
                self._tell(fault)
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            async with self._busy:
                damaged = frozenset(self._damaged)
                await self._replace(partial(self._mended, damaged))
            self._damaged -= damaged  # others may have come meanwhile

    async def _replace(self, work: Callable[[SealedActions, frozenset[int]], list[Run] | None]) -> None:
        """Let the state use the runs that some work gives."""
        actions = self._scoreboard.actions
        sealed = actions.sealed
        runs = await self._in_thread(partial(work, sealed, frozenset(sealed.forgotten)))
        if runs is not None and self._scoreboard.actions is actions and actions.sealed is sealed:
            actions.sealed = sealed.grown(sealed.infos, sealed.digests, runs, sealed.forgotten)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Do some work. A damaged file that it comes upon is made anew: else each later attempt would fail as well."""
        try:
            return await run(work, blocks=self._log.blocks)
        except RunDamaged as damage:
            self.damaged(damage)
            raise

    def _due(self, actions: Actions) -> int:
        """Give the number of blocks that should be sealed."""
        sealed, length = actions.sealed.blocks, action_blocks.BLOCK_ACTIONS
        mode = self._rules.index
        if mode == "memory" or (mode == "auto" and not sealed and actions.recent_bytes <= self._rules.memory_bytes):
            return sealed
        return sealed + max(0, actions.recent - length // RECENT_SHARE) // length

    # In the worker thread

    def _write(
        self, image: ActionsImage, sealed: SealedActions, forgotten: frozenset[int], blocks: int
    ) -> tuple[SealedActions, Actions]:
        """Write the runs of so many blocks; give them, and the actions after them."""
        length = action_blocks.BLOCK_ACTIONS
        begun = sealed.blocks
        gone = (blocks - begun) * length
        digests = sealed.digests + b"".join(
            block_digest(image.digests[2 * start : 2 * (start + length)], image.seqs[start : start + length])
            for start in range(0, gone, length)
        )
        known = {(each.info.first, each.info.end): each for each in _open(sealed)}
        infos: list[RunInfo] = []
        runs: list[Run] = []
        log_id = self._log.tail.log_id
        for first, end in layout(blocks):
            each = known.get((first, end))
            if each is None:
                sources: list[Run | Columns] = [of for (low, high), of in known.items() if first <= low and high <= end]
                if end > begun:
                    sources.append(_columns(image, (max(first, begun) - begun) * length, (end - begun) * length))
                info = write_run(self._store.disk, self._store.directory, sources, log_id, first, end)
                each = self._store.open(info, log_id)
            infos.append(each.info)
            runs.append(each)
        marks = np.frombuffer(image.marks[:gone], np.uint64)
        seqs = np.frombuffer(image.seqs[:gone], np.uint64)
        more = sealed.grown(infos, digests, runs, forgotten.union(seqs[marks == FORGOTTEN].tolist()))
        rest = ActionsImage(
            image.count - gone, image.digests[2 * gone : 2 * image.count], image.seqs[gone : image.count],
            image.marks[gone : image.count],
        )  # fmt: skip
        return more, Actions.from_image(rest, more)

    def _tidy(self, names: set[str]) -> None:
        with self._log.upkeep:
            if not self._store.list() or self._snapshots.is_fetching():
                return
            for snapshot in self._snapshots.list():
                try:
                    manifest = self._snapshots.manifest(snapshot)
                except SnapshotDamaged:
                    return  # nobody knows what it names; retention tells of it
                names |= set() if manifest is None else {run_name(info) for info in manifest.runs}
            self._store.tidy(names)

    def _forgetful(self, sealed: SealedActions, forgotten: frozenset[int]) -> list[Run] | None:
        paths = forget_in_runs(self._store, sealed, forgotten)
        return self._opened_again(paths, sealed) if paths else None

    def _mended(self, damaged: frozenset[str], sealed: SealedActions, _: frozenset[int]) -> list[Run]:
        for each in _open(sealed):
            if (path := self._store.path(each.info)) in damaged:
                self._make_anew(each, sealed.digests)
                self._tell(Mended(path, each.info.first_seq))
        return self._opened_again(damaged, sealed)

    def _make_anew(self, each: Run, digests: bytes) -> None:
        """Write a file anew: a missing one from the open one, if that is whole; else from the log."""
        info, log_id = each.info, self._log.tail.log_id
        if not self._store.has(info):
            try:
                write_run(self._store.disk, self._store.directory, [each], log_id, info.first, info.end)
            except RunDamaged as damage:
                self._tell(damage)
            else:
                return
        mend(self._store, self._log_directory, info, digests, log_id)

    def _opened_again(self, paths: Collection[str], sealed: SealedActions) -> list[Run]:
        """Give the runs, those of these paths opened again."""
        log_id = self._log.tail.log_id
        return [
            self._store.open(each.info, log_id) if self._store.path(each.info) in paths else each
            for each in _open(sealed)
        ]


def forget_in_runs(store: ActionStore, sealed: SealedActions, forgotten: Collection[int]) -> list[str]:
    """Rewrite the runs that still have marks of forgotten actions; give their paths."""
    paths = []
    for each in _open(sealed):
        info = each.info
        seqs = sorted(seq for seq in forgotten if info.first_seq <= seq <= info.last_seq)
        if len(seqs) != each.forgotten:
            rewrite_forgotten(store.disk, each, seqs)
            paths.append(store.path(info))
    return paths


def _open(sealed: SealedActions) -> list[Run]:
    """Give the runs of sealed actions, which were opened to be looked up."""
    runs = [each for each in sealed.runs or () if isinstance(each, Run)]
    assert len(runs) == len(sealed.infos)
    return runs


def _columns(image: ActionsImage, start: int, end: int) -> Columns:
    return Columns(image.digests[2 * start : 2 * end], image.seqs[start:end], image.marks[start:end])
