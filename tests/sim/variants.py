"""Variants of the system for the simulation: the sound one, and broken ones in which it must find the fault.

A broken variant has one fault of a kind that people have made before, here or elsewhere. Most faults are in the disk
that the leader gets, so they still work when the inside of the leader changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, cast
from unittest import mock

import msgspec
import trio

from engine import actor, board_decisions, import_decisions, log, recounting, recovery, scoreboard, segment_cursor
from engine.actions import Actions
from engine.actor import Actor, Submission
from engine.board import Board
from engine.clock import ClockReading, SteadyClock
from engine.corrections import Corrector
from engine.disk import Disk, File
from engine.errors import DiskFault, DiskFull, SnapshotDamaged, WriteFailed
from engine.events import Event, ScoreImported
from engine.flags import Flags
from engine.foresight import Foresight
from engine.holds import Holds
from engine.imports import Imports
from engine.log import Synced
from engine.record import ProvedFrame, Tail, find_frame
from engine.recount import Recount
from engine.recovery import Finding, Situation
from engine.replay import settle_end
from engine.scoreboard import Scoreboard
from engine.segment import Listing
from engine.segment_cursor import SegmentCursor
from server.live.editions import Channel
from server.node import erasure_keeper
from server.node.period_keeper import PeriodKeeper
from server.node.storage_watch import StorageWatch
from server.replication import bootstrap, epoch_notifier
from server.replication.follower import Follower
from server.replication.period_fetch import PeriodFetch
from server.replication.progress import Progress
from server.replication.replicas import WholeReplica
from server.replication.shipper import Shipper
from snapshots import erasing, settling
from snapshots.opening import Opened
from snapshots.period_store import PeriodStore
from snapshots.promotion import Marker
from snapshots.store import Store
from tests.sim.broken_indexes import BROKEN_INDEXES
from tests.sim.disk import SimulatedDisk
from tests.sim.variant import Variant, patching


def _as_it_is(given: Any) -> Any:
    return given


class _Leaky:
    """A disk with broken files; everything else is the real disk's."""

    def __init__(self, disk: SimulatedDisk, file: Callable[[File], object]) -> None:
        self._disk = disk
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._disk, name)

    def create(self, path: str, mode: int = 0o600) -> object:
        return self._file(self._disk.create(path, mode))

    def open(self, path: str, *, write: bool = False) -> object:
        return self._file(self._disk.open(path, write=write))


class _NeverSynced:
    """A file whose sync does nothing."""

    def __init__(self, file: File) -> None:
        self._real = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def sync(self) -> None:
        pass


class _SyncedLate(_NeverSynced):
    """A file whose sync comes with the next write: after the answer."""

    def write_at(self, offset: int, data: bytes) -> None:
        self._real.sync()
        self._real.write_at(offset, data)


class _Careless:
    """A disk that leaves out syncs of directories; with `sync` only of those that it finds there already."""

    def __init__(self, disk: SimulatedDisk, *, sync: bool) -> None:
        self._disk = disk
        self._sync = sync

    def __getattr__(self, name: str) -> Any:
        return getattr(self._disk, name)

    def make_directory(self, path: str) -> None:
        if not self._disk.exists(path):
            self._disk.make_directory(path)

    def sync_directory(self, path: str) -> None:
        if self._sync:
            self._disk.sync_directory(path)


def _forget_actions(opened: Opened) -> None:
    opened.scoreboard.actions = Actions()


def _cut_at_first_fault(data: bytes, offset: int, **_: object) -> Situation:
    return Situation.TORN_TAIL if data[offset:].strip(b"\0") else Situation.CLEAN_END


def _is_whole_frame_after(data: bytes, offset: int) -> bool:
    return find_frame(data, offset) is not None


@contextmanager
def _overlooking_heads() -> Iterator[None]:
    with (
        mock.patch.object(recovery, "_has_head", _is_whole_frame_after),
        mock.patch.object(recovery, "_is_whole_with_another_length", return_value=False),
    ):
        yield


def _tidy_only(disk: Disk, _directory: str, listing: Listing, _tell: Callable[[Finding], None]) -> None:
    for path in (*listing.unfinished, *listing.twice):
        disk.remove(path)


def _believe_the_cache(
    disk: Disk, path: str, walked: SegmentCursor, length: int, tell: Callable[[Finding], None]
) -> File:
    walked.last_offset = None
    return settle_end(disk, path, walked, length, tell)


async def _apply_before_logging(self: WholeReplica, row: Sequence[ProvedFrame]) -> None:
    for proved in row:
        self._apply(proved, Synced(len(proved.data), 0.0, proved.data))
    await trio.sleep(0.01)
    self.log.append_frames(row)


def _tail_of_what_is_there(disk: Disk, directory: str, _tell: Callable[[DiskFault], None]) -> Tail | None:
    store = Store(disk, directory)
    for info in store.list():
        with suppress(SnapshotDamaged):
            return store.verify(info)
    return None


def _believe_the_wall(self: SteadyClock, wall_ms: int, monotonic_s: float) -> ClockReading:
    return ClockReading(wall_ms, 0, monotonic_s, trusted=monotonic_s - self._steady_s >= self._bounds.trusted_s)


def _trust_at_once(self: SteadyClock, wall_ms: int, monotonic_s: float) -> ClockReading:
    return msgspec.structs.replace(_read_steadily(self, wall_ms, monotonic_s), trusted=True)


@contextmanager
def _believing_relays() -> Iterator[None]:
    """Take each word of a relay for one of the leader, and look at no path."""
    heard = Progress.heard

    def heard_now(self: Progress, epoch: int, seq: int, _age_s: float = 0.0) -> None:
        heard(self, epoch, seq)

    with mock.patch.object(Progress, "heard", heard_now), mock.patch.object(Follower, "_trace", return_value=None):
        yield


_read_steadily = SteadyClock.read


def _look_away(self: StorageWatch) -> int:
    return self._world.disk.free_bytes(self._world.config.data_dir)


def _end_when_full(self: Actor, _taken: list[Submission], full: DiskFull) -> None:
    raise WriteFailed(full.what, path=full.path)


async def _change_nothing(self: Actor) -> int:
    return max(self._clock.now_ms(), self._machine.scoreboard.time_ms)


async def _wait_for_none(_: PeriodKeeper) -> None:
    await trio.lowlevel.checkpoint()


async def _fetch_nothing(_: PeriodFetch, _seq: int, _store: PeriodStore) -> bool:
    return False


def _know_no_import(_parts: object) -> Imports:
    return Imports()


def _hold_nothing(_packed: object) -> Holds:
    return Holds()


def _replace_score(_rules: object, _score: int | None, value: int) -> int:
    return value


def _leave_past_alone(*_: object) -> None:
    pass


def _keep_older(disk: Disk, data_directory: str, scoreboard: Scoreboard, tail: Tail) -> list[str]:
    store = Store(disk, data_directory)
    store.verify(store.save(scoreboard.capture(), tail))
    return []


def _rewrite_nothing(*_: object) -> list[str]:
    return []


def _know_no_erasure(self: Shipper, *given: Any, **named: Any) -> None:
    _make_shipper(self, *given, **named | {"erased_seq": lambda: 0})


_make_shipper = Shipper.__init__
_take_event = Recount.take


def _overlook_rows(self: Recount, event: Event) -> None:
    if isinstance(event, ScoreImported):
        self.seq = event.seq
    else:
        _take_event(self, event)


MADE_DURABLE = "a directory that is there is held to be durable"
NAMES_SYNCED = "a segment that is there is held to be durable"
BELIEVED = "a frame that is there is held to be durable"
HEADS_OVERLOOKED = "a length is believed, and a frame that is damaged does not count as one that follows"
PLACED_DURABLY = "a fetched snapshot that is there is held to be durable"
OLDER_KEPT = "snapshots stay that the log of a replica can't be joined to"
SERVED_EARLY = "a replica is served before it has caught up"
ZEROS_COUNTED = "a zero at the end is a torn frame"
UNCOVERED = "snapshots wait for no past periods"
KEPT_IN_LOG = "a node that runs leaves the log as it is"
KEPT_IN_PERIODS = "a node that runs leaves past periods"
FOUND_DURABLE = "the file of a past period that is there is held to be durable"

BROKEN: Sequence[Variant] = (
    Variant("no file is ever synced", lambda disk: cast(Disk, _Leaky(disk, _NeverSynced))),
    Variant("the answer comes before the sync", lambda disk: cast(Disk, _Leaky(disk, _SyncedLate))),
    Variant("no directory is ever synced", lambda disk: cast(Disk, _Careless(disk, sync=False))),
    Variant(MADE_DURABLE, lambda disk: cast(Disk, _Careless(disk, sync=True))),
    Variant(NAMES_SYNCED, patched=patching(log, "tidy", _tidy_only)),
    Variant(BELIEVED, patched=patching(log, "settle_end", _believe_the_cache)),
    Variant("actions are forgotten at a start", after_opening=_forget_actions),
    Variant("the tail is cut at the first fault", patched=patching(segment_cursor, "judge_end", _cut_at_first_fault)),
    Variant(ZEROS_COUNTED, patched=patching(recovery, "TRAILING_ZEROS_MAX", 0)),
    Variant(HEADS_OVERLOOKED, patched=_overlooking_heads),
    Variant("viewers are not told", patched=patching(Channel, "is_behind", False)),
    Variant("a replica's files are never synced", wrap_replica=lambda disk: cast(Disk, _Leaky(disk, _NeverSynced))),
    Variant("a replica applies before it logs", patched=patching(WholeReplica, "_append", _apply_before_logging)),
    Variant(PLACED_DURABLY, patched=patching(bootstrap, "_newest_tail", _tail_of_what_is_there)),
    Variant(OLDER_KEPT, patched=patching(bootstrap, "_remove_older", lambda *_: None)),
    Variant("nobody looks whether the directory is still there", patched=patching(StorageWatch, "_look", _look_away)),
    Variant("a full disk ends the process", patched=patching(Actor, "_refuse_or_part", _end_when_full)),
    Variant("a full disk stays full", patched=patching(actor, "FULL_RETRY_SECONDS", 1e9)),
    Variant("of two leaders of one epoch both go on", patched=patching(epoch_notifier, "_named_in", lambda _: None)),
    Variant("a relay's word is the leader's", patched=_believing_relays),
    Variant(SERVED_EARLY, patched=patching(Marker, "caught_up", True)),
    Variant("the wall clock is believed at once", patched=patching(SteadyClock, "read", _believe_the_wall)),
    Variant("a clock that has just stepped is trusted", patched=patching(SteadyClock, "read", _trust_at_once)),
    Variant("a log that is ahead is not corrected", patched=patching(Corrector, "due", lambda *_: None)),
    Variant("the public sees the present of a frozen board", patched=patching(Board, "public", property(_as_it_is))),
    Variant("periods end by reset only", patched=patching(Actor, "_change_periods", _change_nothing)),
    Variant("rules are applied as they were asked for", patched=patching(board_decisions, "as_logged", _as_it_is)),
    Variant(UNCOVERED, patched=patching(PeriodKeeper, "written", _wait_for_none)),
    Variant("a replica fetches no past periods", patched=patching(PeriodFetch, "fetch", _fetch_nothing)),
    Variant("a snapshot has no imports", patched=patching(Imports, "from_image", _know_no_import)),
    Variant("a snapshot has no flags", patched=patching(scoreboard, "flags_in", lambda _: Flags())),
    Variant("a row replaces the score", patched=patching(import_decisions, "score_after_row", _replace_score)),
    Variant("past periods are not corrected", patched=patching(recounting.Work, "_past", _leave_past_alone)),
    Variant("a reversal overlooks rows of imports", patched=patching(Recount, "take", _overlook_rows)),
    Variant("a hold begins a frame late", patched=patching(Foresight, "_is_flagged", lambda *_: False)),
    Variant("a snapshot has no held actions", patched=patching(Holds, "unpack", _hold_nothing)),
    Variant("an erasure leaves older snapshots", patched=patching(erasing, "_renew_snapshots", _keep_older)),
    Variant("an erasure leaves the log as it is", patched=patching(erasing, "_rewrite_log", _rewrite_nothing)),
    Variant("an erasure leaves past periods", patched=patching(erasing, "rewrite_periods", _rewrite_nothing)),
    Variant(KEPT_IN_LOG, patched=patching(settling, "_rewrite", _rewrite_nothing)),
    Variant(KEPT_IN_PERIODS, patched=patching(erasure_keeper, "hide_in_periods", _rewrite_nothing)),
    Variant("actions of erased users are like others", patched=patching(Actions, "forget", lambda *_: None)),
    Variant("a replica goes on after an erasure", patched=patching(Shipper, "__init__", _know_no_erasure)),
    Variant(FOUND_DURABLE, patched=patching(PeriodStore, "keep", PeriodStore.has)),
    *BROKEN_INDEXES,
)
