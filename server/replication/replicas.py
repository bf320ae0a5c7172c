"""The replica that a follower fills: what each frame must prove, and the steps in which it is taken.

    replica.begin_link(log_id); await replica.take(frames)
    await replica.restart(path)                                     go on from a fetched snapshot

    WholeReplica     its own log on disk, and the whole state                  frames, as on the leader's disk
    ShardReplica     the state of its boards and of the users, in memory       filtered frames

A frame is taken in these steps, only here, and in this order:

    prove it and its place → decode its events → append it to our log, fdatasync → apply → tell (`on_applied`)

Rules:
- A frame is proved against our tail: its checksum is right, `previous` is the tail's checksum, its seq is the next, and
  its epoch is not older. A higher epoch begins only with its `EpochBegun` event.
- A wrong frame ends following (`FollowingFailed`). The frames before it in the same call are taken, those after it not.
- What a reader or a further follower sees is on our own disk, as on the leader.
- The frames of one call are made durable and applied together, even if the caller is cancelled. So state and log never
  differ. If the disk is full after some of them, these are applied.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from functools import partial
from typing import Protocol

import trio

from engine.action_blocks import run_name
from engine.actions import Actions
from engine.disk import Disk, free_path
from engine.errors import DiskFull, SnapshotDamaged
from engine.events import EpochBegun, Event
from engine.filtered_frame import link_start, unpack_filtered
from engine.history import EpochMark
from engine.image import StateImage
from engine.log import Log, Synced
from engine.machine import Applied, StateMachine
from engine.record import Frame, FrameFault, Header, ProvedFrame, Tail, chain_start, prove_frame
from engine.recovery import Situation, misfit
from engine.scoreboard import Scoreboard
from engine.threads import run
from server.replication.failure import FollowingFailed
from server.replication.feed import FrameFeed
from server.replication.sharding import Shard
from snapshots import format as snapshot_format
from snapshots.action_store import ActionStore
from snapshots.opening import log_directory
from snapshots.promotion import begin_epoch
from snapshots.settling import remove_aside
from snapshots.store import DIRECTORY as SNAPSHOTS
from snapshots.store import Store

_MISFITS = {
    Situation.FRAME_DOUBLED: "a frame came that is here already",
    Situation.FRAMES_MISSING: "frames are missing",
    Situation.FRAME_FOREIGN: "a frame came that does not follow what is here: the histories differ",
}

NEWER = "Bring this replica to the leader's version of scoreboard, then start it again."


class Replica(Protocol):
    """What a follower fills. `tail` is None before it knows the log, `shard` is None if it holds every board."""

    @property
    def tail(self) -> Tail | None: ...
    @property
    def shard(self) -> Shard | None: ...
    @property
    def durable(self) -> bool: ...
    @property
    def scoreboard(self) -> Scoreboard: ...

    def begin_link(self, log_id: bytes) -> None:
        """Prepare for the frames of a new link, which begin after `tail`. Raises `FollowingFailed`."""

    async def take(self, messages: Sequence[bytes]) -> None:
        """Take frames, in order. Raises `FollowingFailed`, `WriteFailed`; `DiskFull` if not all of them fit."""

    async def restart(self, path: str) -> None:
        """Go on from a fetched snapshot, which is moved or removed.

        Raises `FollowingFailed`, `SnapshotDamaged`; `RunDamaged` or `FileMissing` for the files of older actions that
        it names, which must be in place; `DiskFull` with nothing changed.
        """

    async def make_room(self) -> None:
        """Lay out what the last `DiskFull` was raised for. Raises it again if there is still no room."""


async def _no_periods(_seq: int) -> None:
    """Stand in where no past periods are kept."""


class WholeReplica:
    """A replica with every board and a data directory, whose lock the caller holds. It writes to a state machine.

    What it sets aside when it begins anew is log and snapshots. The files of older actions stay: the new state has them
    too, or larger ones with the same actions.

    `durable`: the directory is kept and synced. The leader is told so.
    """

    shard = None

    def __init__(
        self,
        disk: Disk,
        data_directory: str,
        machine: StateMachine,
        log: Log,
        feed: FrameFeed,
        *,
        durable: bool = True,
        forget_periods: Callable[[int], Awaitable[None]] = _no_periods,
    ) -> None:
        """`forget_periods` removes the files of the past periods that ended before a seq."""
        assert machine.scoreboard.seq == log.tail.seq == feed.seq
        self.durable = durable
        self.scoreboard = machine.scoreboard
        self.log = log
        self.feed = feed
        self._forget_periods = forget_periods
        self._machine = machine
        self._wanted: Callable[[], None] = lambda: None
        self._disk = disk
        self._data_directory = data_directory

    @property
    def tail(self) -> Tail:
        """The end of what is applied."""
        return self._machine.tail

    def begin_link(self, log_id: bytes) -> None:
        _check_log_id(log_id, self.tail)

    async def promote(self, *, now_ms: int, history: bytes, above: int = 0) -> EpochBegun:
        """Begin the next epoch, durably, and apply it. Raises `WriteFailed`. No follower may run: we write the log now.

        `history`: the identity of the epoch. `above`: an epoch that was used elsewhere. The caller removes the
        directory's marker afterwards.
        """
        with trio.CancelScope(shield=True):
            work = partial(begin_epoch, self.log, after=self.scoreboard, now_ms=now_ms, history=history, above=above)
            event, synced = await run(work, blocks=self._disk.blocks)
            self._apply(prove_frame(synced.frame), synced)
        return event

    async def take(self, messages: Sequence[bytes]) -> None:
        frames: list[ProvedFrame] = []
        failure: FollowingFailed | None = None
        tail = self.tail
        for data in messages:
            try:
                proved = _prove(data, tail)
            except FollowingFailed as fault:
                failure = fault
                break
            frames.append(proved)
            tail = Tail(tail.log_id, proved.frame.epoch, proved.frame.last_seq, proved.frame.checksum)
        if frames:
            with trio.CancelScope(shield=True):
                await self._append(frames)
        if failure is not None:
            raise failure

    async def _append(self, frames: Sequence[ProvedFrame]) -> None:
        while frames:
            try:
                all_synced = await run(partial(self.log.append_frames, frames), blocks=self._disk.blocks)
            except DiskFull:
                self._wanted = self.log.make_room
                raise
            for proved, synced in zip(frames, all_synced, strict=False):
                self._apply(proved, synced)
                await trio.lowlevel.checkpoint()
            frames = frames[len(all_synced) :]

    async def make_room(self) -> None:
        await run(self._wanted, blocks=self._disk.blocks)

    def _apply(self, proved: ProvedFrame, synced: Synced) -> None:
        """Apply one durable frame. Must not await."""
        try:
            self._machine.apply(proved, synced)
        except AssertionError as error:
            raise _inconsistent(self.tail, proved.frame.first_seq) from error

    async def restart(self, path: str) -> None:
        """Go on from a fetched snapshot. The old files are moved to `aside-EPOCH-SEQ` in the data directory.

        If users were erased in between, past periods of before go first. Once a user was erased, nothing stays aside.
        """
        with trio.CancelScope(shield=True):
            newer = await _load_newer(self._disk, path, self)
            if newer is not None:
                scoreboard, tail = newer
                if (erased_seq := scoreboard.erasures.last_seq) > self.tail.seq:
                    await self._forget_periods(erased_seq)
                await run(partial(self._replace_files, path, tail, scoreboard.actions), blocks=self._disk.blocks)
                self._machine.take_over(scoreboard, tail)
                self.feed.restart(tail.seq)
                if erased_seq:  # only now: if it fails, state and log must agree
                    await run(self._remove_older, blocks=self._disk.blocks)

    def _remove_older(self) -> None:
        """Remove what was set aside, and the files of older actions that only that named: they know erased users."""
        with self.log.upkeep:
            remove_aside(self._disk, self._data_directory)
            names = {run_name(info) for info in self.scoreboard.actions.sealed.infos}
            ActionStore(self._disk, self._data_directory).tidy(names)

    def _replace_files(self, path: str, tail: Tail, actions: Actions) -> None:
        """Exchange the files, in the worker thread. `prepare_directory` can go on after a crash at any step.

        Holds `upkeep`, so that a checkpoint does not write or remove its files meanwhile. Until the snapshot is in
        place, nothing but that keeps the files of older actions that it names.
        """
        with self.log.upkeep:
            store = ActionStore(self._disk, self._data_directory)
            actions.sealed = actions.sealed.opened(store.open_all(actions.sealed.infos, tail.log_id))
            self._exchange_files(path, tail)

    def _exchange_files(self, path: str, tail: Tail) -> None:
        disk, data = self._disk, self._data_directory
        self._wanted = self.log.check_restart
        self._wanted()  # there is no way back from the first rename on
        aside = free_path(disk, f"{data}/aside-{self.tail.epoch}-{self.tail.seq}")
        disk.make_directory(aside)

        def place_snapshot() -> None:
            if disk.exists(f"{data}/{SNAPSHOTS}"):
                disk.rename(f"{data}/{SNAPSHOTS}", f"{aside}/{SNAPSHOTS}")
                disk.sync_directory(aside)
            place(disk, data, path, tail)

        self.log.restart(tail, f"{aside}/{log_directory('')[1:]}", place_snapshot)


class ShardReplica:
    """A replica of the boards of one shard, in memory. `on_applied` is called after each frame."""

    durable = False

    def __init__(
        self, disk: Disk, scoreboard: Scoreboard, shard: Shard, *, on_applied: Callable[[Applied], None]
    ) -> None:
        """`disk` has the fetched snapshots. The scoreboard is empty."""
        assert scoreboard.seq == 0
        self.scoreboard = scoreboard
        self.shard: Shard = shard
        self.tail: Tail | None = None
        self._disk = disk
        self._on_applied = on_applied
        self._link = 0

    def begin_link(self, log_id: bytes) -> None:
        if self.tail is None:
            self.tail = Tail(log_id, 1, 0, chain_start(log_id))
            self.scoreboard.belongs_to(log_id)
        _check_log_id(log_id, self.tail)
        self._link = link_start(self.tail.checksum)

    async def take(self, messages: Sequence[bytes]) -> None:
        for data in messages:
            self._take_one(data)
            await trio.lowlevel.checkpoint()

    def _take_one(self, data: bytes) -> None:
        tail = self.tail
        assert tail is not None, "a link begins with a log id"
        try:
            filtered = unpack_filtered(data, self._link)
        except FrameFault as fault:
            raise _unreadable(fault, tail) from fault
        head = filtered.header
        _check_place(head, tail)
        _check_epoch(filtered.events, head.epoch, head.first_seq, tail)
        try:
            for event in filtered.events:
                self.scoreboard.follow(event, head.epoch, self.shard.holds)
        except AssertionError as error:
            raise _inconsistent(tail, head.first_seq) from error
        self.scoreboard.take_ended()  # and drop them: past periods are files, and a shard has none
        self.scoreboard.advance(head.last_seq, head.time_ms)
        self.tail = Tail(tail.log_id, head.epoch, head.last_seq, head.checksum)
        self._link = filtered.link
        self._on_applied(Applied(filtered.events, head.epoch, Synced(0, 0.0), 0))

    async def make_room(self) -> None:
        """Do nothing: a shard keeps nothing on disk but the snapshot that it fetches."""

    async def restart(self, path: str) -> None:
        with trio.CancelScope(shield=True):
            newer = await _load_newer(self._disk, path, self)
            if newer is not None:
                await run(partial(self._disk.remove, path), blocks=self._disk.blocks)
                scoreboard, self.tail = newer
                self.scoreboard.take_over(scoreboard)


def place(disk: Disk, data_directory: str, path: str, tail: Tail) -> None:
    """Move a fetched snapshot, which was proved, to the snapshots of a directory."""
    store = Store(disk, data_directory)
    disk.make_directory(store.directory)
    disk.rename(path, f"{store.directory}/{tail.seq:020}.snapshot")
    disk.sync_directory(store.directory)


async def _load_newer(disk: Disk, path: str, replica: Replica) -> tuple[Scoreboard, Tail] | None:
    """Load a fetched snapshot. Remove it and give None if it is not newer than the replica: it would gain nothing."""
    holds = None if replica.shard is None else replica.shard.holds
    image, tail = await run(partial(_load, disk, path, holds), blocks=disk.blocks)
    here = replica.tail
    scoreboard = Scoreboard.from_image(replica.scoreboard.rules, image, owned=True)
    scoreboard.belongs_to(tail.log_id)
    if here is not None:
        _check_log_id(tail.log_id, here)
        if tail.epoch >= here.epoch:
            _check_history(scoreboard, replica.scoreboard.mark, here)
        if tail.seq <= here.seq or tail.epoch < here.epoch:
            await run(partial(disk.remove, path), blocks=disk.blocks)
            return None
    await run(scoreboard.end_replay, blocks=disk.blocks)  # before files change: they differ from the state only briefly
    return scoreboard, tail


def _load(disk: Disk, path: str, holds: Callable[[str], bool] | None) -> tuple[StateImage, Tail]:
    with closing(disk.open(path)) as file:
        try:
            return snapshot_format.unpack(file, path, holds)
        except SnapshotDamaged:
            disk.remove(path)
            raise


# The checks


def _prove(data: bytes, tail: Tail) -> ProvedFrame:
    """Prove a frame and its place, and decode its events."""
    try:
        proved = prove_frame(data)
    except FrameFault as fault:
        raise _unreadable(fault, tail) from fault
    _check_place(proved.frame, tail)
    _check_epoch(proved.events, proved.frame.epoch, proved.frame.first_seq, tail)
    return proved


def _check_place(head: Frame | Header, tail: Tail) -> None:
    if head.epoch < tail.epoch:
        what = f"the leader sent a frame of epoch {head.epoch}, which is over"
        raise FollowingFailed(what, epoch=tail.epoch, seq=tail.seq)
    situation = misfit(head, tail.seq, tail.checksum, tail.epoch)
    if situation is not None:
        what = _MISFITS[situation]
        if situation is not Situation.FRAME_FOREIGN:
            what += f": seq {head.first_seq} instead of {tail.seq + 1}"
        raise FollowingFailed(what, epoch=tail.epoch, seq=tail.seq)


def _check_epoch(events: list[Event], epoch: int, first_seq: int, tail: Tail) -> None:
    """Check that a higher epoch begins with its event, the first of its frame, and that no other epoch begins."""
    begun = [event for event in events if type(event) is EpochBegun]
    if epoch == tail.epoch and not begun:
        return
    first = begun[0] if begun else None
    if first is None or len(begun) > 1 or (first.seq, first.epoch) != (first_seq, epoch) or epoch == tail.epoch:
        what = f"the frame of seq {first_seq} is of epoch {epoch}, which does not begin there"
        raise FollowingFailed(what, epoch=tail.epoch, seq=tail.seq)


def _check_log_id(log_id: bytes, tail: Tail) -> None:
    if log_id != tail.log_id:
        what = f"the leader has another log, {log_id.hex()}; this replica follows {tail.log_id.hex()}"
        raise FollowingFailed(what, epoch=tail.epoch, seq=tail.seq)


def _check_history(fetched: Scoreboard, mark: EpochMark, tail: Tail) -> None:
    """Check that a fetched state went through our epoch, and not through another one of its number."""
    if fetched.mark_of(mark.epoch) != mark:
        what = f"the leader's snapshot is of another history: it does not have epoch {mark.epoch} of {mark.history}"
        raise FollowingFailed(what, epoch=tail.epoch, seq=tail.seq)


def _unreadable(fault: FrameFault, tail: Tail) -> FollowingFailed:
    if fault.newer:
        return FollowingFailed(fault.reason, epoch=tail.epoch, seq=tail.seq, remedy=NEWER)
    what = f"what the leader sent after seq {tail.seq} is damaged: {fault.reason}"
    return FollowingFailed(what, epoch=tail.epoch, seq=tail.seq)


def _inconsistent(tail: Tail, first_seq: int) -> FollowingFailed:
    what = f"the events of the frame of seq {first_seq} do not fit the state that is here"
    return FollowingFailed(what, epoch=tail.epoch, seq=tail.seq)
