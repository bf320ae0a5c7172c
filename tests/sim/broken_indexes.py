"""Variants whose index of applied actions on disk is broken, in which the simulation or the crash tests find the fault.

They matter in the runs only whose nodes seal (`tests.sim.indexes`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, cast
from unittest import mock

from engine import action_run
from engine.action_blocks import RunInfo, Words
from engine.action_filter import Filter, Filters
from engine.disk import TMP, Disk
from engine.sealed_actions import SealedActions
from server.node.erasure_keeper import ErasureKeeper
from server.node.log_service import LogService
from snapshots import mending, sealing
from snapshots.action_store import ActionStore
from snapshots.sealing import Sealer
from snapshots.store import SnapshotInfo
from tests.sim.variant import Variant, patching

Tidy = Callable[[], Awaitable[None]]

_settle, _tidy = ErasureKeeper.settle, ActionStore.tidy
_places, _places_all, _grown = Filter.places, Filters.places_all, SealedActions.grown
_write_run, _rewrite = action_run.write_run, action_run.rewrite_forgotten


def _misses(low: int) -> bool:
    return low % 4 == 0


@contextmanager
def _missing() -> Iterator[None]:
    """Have filters say no to a quarter of all keys. A repeated action counts twice."""

    def places(self: Filter, high: int, low: int) -> list[int]:
        return [] if _misses(low) else _places(self, high, low)

    def places_all(self: Filters, highs: Words, lows: Words) -> list[tuple[int, int, int]]:
        return [found for found in _places_all(self, highs, lows) if not _misses(int(lows[found[1]]))]

    with mock.patch.object(Filter, "places", places), mock.patch.object(Filters, "places_all", places_all):
        yield


def _keep_absent(self: SealedActions, *given: Any) -> SealedActions:
    """Believe that what older files lack is in no newer one. An action that was new then counts twice."""
    other = _grown(self, *given)
    other._absent = self._absent
    return other


def _tidy_all(self: Sealer, names: set[str]) -> None:
    """Ask no snapshot. One that is loaded in the place of a damaged one has no files."""
    self._store.tidy(names)


async def _seal_last(self: LogService) -> None:
    """Await something between the look at past periods and the capture. A snapshot covers a period without a file."""
    await self._erasures.before_snapshot()
    await self._sealer.seal()


class _Hasty:
    """A disk that writes whole files without a sync: neither of the file nor of its name, or of one of them late."""

    def __init__(self, disk: Disk, *, late: bool, name: bool) -> None:
        self._disk, self._late, self._name = disk, late, name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._disk, name)

    def write_whole(self, path: str, chunks: Iterable[bytes], mode: int = 0o600, paced: bool = False) -> int:
        if self._disk.exists(path + TMP):
            self._disk.remove(path + TMP)
        file = self._disk.create(path + TMP, mode)
        length = 0
        for chunk in chunks:
            file.write_at(length, chunk)
            length += len(chunk)
        if not self._late and not self._name:
            file.sync()
        self._disk.rename(path + TMP, path)
        if self._late:
            file.sync()
        if self._late or self._name:
            self._disk.sync_directory(path.rpartition("/")[0])
        return length


def _hasty(*, late: bool, name: bool) -> Callable[[], AbstractContextManager[None]]:
    def write(disk: Disk, *given: Any) -> RunInfo:
        return _write_run(cast(Disk, _Hasty(disk, late=late, name=name)), *given)

    def rewrite(disk: Disk, *given: Any) -> bool:
        return _rewrite(cast(Disk, _Hasty(disk, late=late, name=name)), *given)

    @contextmanager
    def patched() -> Iterator[None]:
        with (
            mock.patch.object(sealing, "write_run", write),
            mock.patch.object(mending, "write_run", write),
            mock.patch.object(sealing, "rewrite_forgotten", rewrite),
        ):
            yield

    return patched


async def _forget_nothing(_: Sealer) -> None:
    """Leave files as they are. An erased user's actions can be told by their marks."""


def _tidy_unsynced(self: ActionStore, kept: Collection[str]) -> Sequence[str]:
    """Remove files without a sync. A power cut brings back those with marks of an erased user's actions."""
    with mock.patch.object(type(self.disk), "sync_directory"):
        return _tidy(self, kept)


async def _tidy_nothing() -> None:
    pass


async def _settle_first(self: ErasureKeeper, info: SnapshotInfo, end_links: Callable[[], None], tidy: Tidy) -> None:
    """Hold an erasure for settled before files go that have marks of the user's actions."""
    await _settle(self, info, end_links, _tidy_nothing)
    await tidy()


FILTER_MISSES = "a filter says no too often"
ABSENT_FOR_EVER = "what was absent from older files is held to be absent from newer ones"
TIDIED = "the files of older snapshots go"
SEALED_LAST = "a period may end between the look at past periods and the capture"
LEFT_EARLY = "a block leaves memory before its file is durable"
NAMED_EARLY = "a block leaves memory before the name of its file is durable"
KEPT_IN_RUNS = "files of actions keep the marks of erased users"
RENAMED_EARLY = "a file of actions is renamed before it is synced"
TIDIED_UNSYNCED = "the removal of files of actions is not synced"
TIDIED_LATE = "an erasure is settled before files of actions that nothing names are removed"

BROKEN_INDEXES: Sequence[Variant] = (
    Variant(FILTER_MISSES, patched=_missing),
    Variant(ABSENT_FOR_EVER, patched=patching(SealedActions, "grown", _keep_absent)),
    Variant(TIDIED, patched=patching(Sealer, "_tidy", _tidy_all)),
    Variant(SEALED_LAST, patched=patching(LogService, "_before_snapshot", _seal_last)),
    Variant(LEFT_EARLY, patched=_hasty(late=False, name=True)),
    Variant(NAMED_EARLY, patched=_hasty(late=False, name=False)),
    Variant(KEPT_IN_RUNS, patched=patching(Sealer, "forget", _forget_nothing)),
    Variant(RENAMED_EARLY, patched=_hasty(late=True, name=True)),
    Variant(TIDIED_UNSYNCED, patched=patching(ActionStore, "tidy", _tidy_unsynced)),
    Variant(TIDIED_LATE, patched=patching(ErasureKeeper, "settle", _settle_first)),
)
