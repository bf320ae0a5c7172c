"""The index of applied actions on disk, in some of the simulated runs. Blocks are small, so much is sealed and joined.

    indexing = draw_indexing(dice)              None: all of the index lies in memory
    with indexing.patched(): …                  the whole run, its judges too
    following = indexing.spread(following)      each machine has its own mode, so nodes with one log seal differently

In half of these runs the filters say "perhaps" of every action whose bucket has an entry. So new actions are read, and
found to be absent. An operator takes files of actions away between two lives: they are made anew from the log, or put
back where the log no longer has their events.

Judged, beside what holds of every run: an action that is sealed is found by its seq, each kept snapshot has its files,
and once an erasure is settled no file has a mark of the user's actions.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from unittest import mock

import numpy as np

from engine import action_blocks
from engine.action_blocks import ENTRY, FORGOTTEN, Words, run_name
from engine.action_filter import Filter, Filters
from engine.actions import key_of
from engine.disk import Disk
from engine.errors import RunDamaged, SnapshotDamaged
from engine.scoreboard import Scoreboard
from engine.sealed_actions import SealedActions, read_wants
from server.settings.config import ActionsConfig
from snapshots.action_store import DIRECTORY, ActionStore
from snapshots.store import Store
from tests.sim.disk import Machine
from tests.sim.profile import Following, Profile

DATA = "/data"

INDEX = "index"
"""The name of the generator."""

ON_DISK = 0.3
"""The part of the runs in which nodes seal."""

MODES = (*[ActionsConfig("disk")] * 4, ActionsConfig("auto", 1_500), ActionsConfig("memory"))
"""Of a machine; the limit of "auto" is reached by some forty actions."""


@dataclass(frozen=True)
class Indexing:
    """How the nodes of a run seal. `modes` is drawn from, by one machine after the other."""

    block_actions: int
    eager: bool
    run_lost: float
    modes: Sequence[ActionsConfig]

    def spread(self, following: Following) -> Following:
        """Give each machine its mode."""
        leader, *machines = (
            self._with(machine, mode)
            for machine, mode in zip((following.leader, *following.machines), self.modes, strict=False)
        )
        return replace(following, leader=leader, machines=tuple(machines))

    def _with(self, machine: Profile, mode: ActionsConfig) -> Profile:
        return replace(machine, actions=mode, run_lost=self.run_lost)

    @contextmanager
    def patched(self) -> Iterator[None]:
        """Make blocks small, and filters eager."""
        with ExitStack() as stack:
            stack.enter_context(mock.patch.object(action_blocks, "BLOCK_ACTIONS", self.block_actions))
            if self.eager:
                stack.enter_context(mock.patch.object(Filter, "places", _whole_bucket))
                stack.enter_context(mock.patch.object(Filters, "places_all", _whole_buckets))
            yield


def draw_indexing(dice: random.Random) -> Indexing | None:
    """Say how the nodes of a run seal; most runs have nothing sealed."""
    if dice.random() >= ON_DISK:
        return None
    return Indexing(
        block_actions=dice.choice([2, 4, 4, 8]),
        eager=dice.random() < 0.5,
        run_lost=dice.choice([0.0, 0.1, 0.3]),
        modes=[dice.choice(MODES) for _ in range(3)],
    )


def _whole_bucket(self: Filter, high: int, _low: int) -> list[int]:
    bucket = high >> self.shift
    return [*range(int(self.starts[bucket]), int(self.starts[bucket + 1]))]


def _whole_buckets(self: Filters, highs: Words, lows: Words) -> list[tuple[int, int, int]]:
    keys = list(zip(highs.tolist(), lows.tolist(), strict=True))
    return sorted((number, at, place) for at, key in enumerate(keys) for number, place in self.places(*key))


@contextmanager
def all_read(scoreboard: Scoreboard, action_ids: Iterable[str], *, may_be_damaged: bool) -> Iterator[set[str]]:
    """Read all sealed actions for a look at them; give those that can't be read. Afterwards none of them was read."""
    actions, sealed = scoreboard.actions, scoreboard.actions.sealed
    looked = SealedActions(sealed.infos, sealed.digests, sealed.forgotten, sealed.runs)
    unreadable = set[str]()
    actions.sealed = looked
    try:
        for action_id in action_ids:
            try:
                looked.note(read_wants(looked.unread([key_of(action_id)])))
            except RunDamaged:
                if not may_be_damaged:
                    raise
                unreadable.add(action_id)
        yield unreadable
    finally:
        actions.sealed = sealed


def marked(machine: Machine, seqs: Collection[int]) -> list[str]:
    """List the files of actions of a disk that still have the mark of one of these actions."""
    found = []
    for path, node in machine.files(f"{DATA}/{DIRECTORY}").items() if seqs else ():
        name = path.rpartition("/")[2]
        length = ENTRY.itemsize * action_blocks.BLOCK_ACTIONS * (int(name[11:21]) - int(name[:10]))
        for data in (node.cached, node.durable):
            entries = np.frombuffer(bytes(data[: min(length, len(data) // ENTRY.itemsize * ENTRY.itemsize)]), ENTRY)
            theirs = entries[np.isin(entries["seq"], np.array([*seqs], np.uint64))]
            if (theirs["mark"] != FORGOTTEN).any():
                found.append(path)
    return found


def lacks_runs(disk: Disk, directory: str, keep: int | None = None) -> list[str]:
    """List the files of actions that the last `keep` snapshots name, or any one, and that are missing.

    A power cut may bring an older snapshot back, and not its files.
    """
    snapshots, actions = Store(disk, directory), ActionStore(disk, directory)
    missing = []
    for info in snapshots.list()[:keep]:
        try:
            manifest = snapshots.manifest(info)
        except SnapshotDamaged:
            continue
        missing += [run_name(each) for each in (() if manifest is None else manifest.runs) if not actions.has(each)]
    return missing
