"""What a follower has of the leader's log: the checks that each frame must pass, and what is done with it then.

    WholeReplica     its own log, then the state, its feed, who listens        every frame, as on the leader's disk
    ShardReplica     the state of its boards and of the users, in memory       parts of frames

A frame is taken in these steps, here and nowhere else, in this order:

    prove it and its place → prove that it can be understood → append it to the own log, fdatasync → apply → tell

Rules:
- A frame is proved against the own tail: its checksum, `previous` equal to the tail's checksum, its seq the next, its
  epoch not older. A higher epoch comes in with the event that begins it, and in no other way.
- What is wrong ends following (`FollowingFailed`); the frames before it in the same row count, nothing after it does.
- What a reader or a further follower sees is on the own disk, as on the leader.
- A row of frames is made durable and applied as one, whatever cancels meanwhile: state and log never part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, TypeVar

import trio

from engine.disk import Disk
from engine.errors import SnapshotDamaged
from engine.events import EpochBegun, Event
from engine.filtered_frame import link_start, unpack_filtered
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
from snapshots.opening import log_directory
from snapshots.promotion import begin_epoch
from snapshots.store import DIRECTORY as SNAPSHOTS
from snapshots.store import Store

T = TypeVar("T")

_MISFITS = {
    Situation.FRAME_DOUBLED: "a frame came that is here already",
    Situation.FRAMES_MISSING: "frames are missing",
    Situation.FRAME_FOREIGN: "a frame came that does not follow what is here: the histories differ",
}

NEWER = "Bring this replica to the leader's version of scoreboard, then start it again."


class Replica(Protocol):
    """What a follower fills. `tail` is None as long as it knows no log."""

    @property
    def tail(self) -> Tail | None:
        """The end of what is here."""

    @property
    def shard(self) -> Shard | None:
        """The part that is held, None for all."""

    @property
    def durable(self) -> bool:
        """Whether what is here is on disk."""

    @property
    def scoreboard(self) -> Scoreboard:
        """The state."""

    def begin_link(self, log_id: bytes) -> None:
        """Get ready for the frames of a new link, after the position that was told. Raises `FollowingFailed`."""

    async def take(self, messages: Sequence[bytes]) -> None:
        """Take in what came, in order. Raises `FollowingFailed`, `WriteFailed`."""

    async def restart(self, path: str) -> None:
        """Go on from a fetched snapshot, whose file is used up. Raises `FollowingFailed`, `SnapshotDamaged`."""


class WholeReplica:
    """A replica with every board and a data directory, whose lock is the caller's. It writes to a state machine.

    `durable`: the directory is kept, and synced, which the leader is told.
    """

    shard = None

    def __init__(
        self, disk: Disk, data_directory: str, machine: StateMachine, log: Log, feed: FrameFeed, *, durable: bool = True
    ) -> None:
        assert machine.log is log
        assert machine.scoreboard.seq == log.tail.seq == feed.seq
        self.durable = durable
        self.scoreboard = machine.scoreboard
        self.log = log
        self.feed = feed
        self._machine = machine
        self._disk = disk
        self._data_directory = data_directory

    @property
    def tail(self) -> Tail:
        """The end of what is applied."""
        return self._machine.tail

    def begin_link(self, log_id: bytes) -> None:
        """See `Replica`."""
        _check_log_id(log_id, self.tail)

    async def promote(self, *, now_ms: int, above: int = 0) -> EpochBegun:
        """Begin the next epoch, durably, and apply it. No follower may be running: the log is ours to write now.

        `above`: an epoch that is known to have been used elsewhere. Raises `WriteFailed`. The marker of the directory
        is the caller's to remove, afterwards.
        """
        with trio.CancelScope(shield=True):
            work = partial(begin_epoch, self.log, after=self.scoreboard, now_ms=now_ms, above=above)
            event, synced = await self._in_thread(work)
            self._apply(prove_frame(synced.frame), synced)
        return event

    async def take(self, messages: Sequence[bytes]) -> None:
        """See `Replica`."""
        row: list[ProvedFrame] = []
        failure: FollowingFailed | None = None
        tail = self.tail
        for data in messages:
            try:
                proved = _prove(data, tail)
            except FollowingFailed as fault:
                failure = fault
                break
            row.append(proved)
            tail = Tail(tail.log_id, proved.frame.epoch, proved.frame.last_seq, proved.frame.checksum)
        if row:
            with trio.CancelScope(shield=True):
                await self._append(row)
        if failure is not None:
            raise failure

    async def _append(self, row: Sequence[ProvedFrame]) -> None:
        all_synced = await self._in_thread(partial(self.log.append_frames, row))
        for proved, synced in zip(row, all_synced, strict=True):
            self._apply(proved, synced)
            await trio.lowlevel.checkpoint()

    def _apply(self, proved: ProvedFrame, synced: Synced) -> None:
        """Apply one frame, which is durable. Nothing may be awaited within."""
        try:
            self._machine.apply(proved, synced)
        except AssertionError as error:
            raise _inconsistent(self.tail, proved.frame.first_seq) from error

    async def restart(self, path: str) -> None:
        """See `Replica`. What was here before is set aside in the data directory, as `aside-EPOCH-SEQ`."""
        with trio.CancelScope(shield=True):
            image, tail = await self._in_thread(partial(_load, self._disk, path, None))
            _check_log_id(tail.log_id, self.tail)
            if tail.seq <= self.tail.seq or tail.epoch < self.tail.epoch:
                # The log that we were told is gone cannot be had from a snapshot that is older than we are.
                await self._in_thread(partial(self._disk.remove, path))
                return
            scoreboard = Scoreboard.from_image(self.scoreboard.rules, image)
            await self._in_thread(scoreboard.end_replay)  # first, so that files and state part only briefly
            await self._in_thread(partial(self._replace_files, path, tail))
            self._machine.take_over(scoreboard, tail)
            self.feed.restart(tail.seq)

    def _replace_files(self, path: str, tail: Tail) -> None:
        """In the worker thread. A crash at any step leaves what `prepare_directory` can go on from.

        Waits for a checkpoint that is writing or letting go: its files must come to lie where they belong.
        """
        with self.log.upkeep:
            self._exchange_files(path, tail)

    def _exchange_files(self, path: str, tail: Tail) -> None:
        disk, data = self._disk, self._data_directory
        aside = f"{data}/aside-{self.tail.epoch}-{self.tail.seq}"
        number = 1
        while disk.exists(aside):
            number += 1
            aside = f"{data}/aside-{self.tail.epoch}-{self.tail.seq}-{number}"
        disk.make_directory(aside)

        def place_snapshot() -> None:
            if disk.exists(f"{data}/{SNAPSHOTS}"):
                disk.rename(f"{data}/{SNAPSHOTS}", f"{aside}/{SNAPSHOTS}")
                disk.sync_directory(aside)
            place(disk, data, path, tail)

        self.log.restart(tail, f"{aside}/{log_directory('')[1:]}", place_snapshot)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await run(work, blocks=self._disk.blocks)


class ShardReplica:
    """A replica of the boards of one shard, in memory. `on_applied` as in `WholeReplica`; nothing is synced."""

    durable = False

    def __init__(
        self, disk: Disk, scoreboard: Scoreboard, shard: Shard, *, on_applied: Callable[[Applied], None]
    ) -> None:
        """`disk`: where fetched snapshots are. The scoreboard is empty."""
        assert scoreboard.seq == 0
        self.scoreboard = scoreboard
        self.shard: Shard = shard
        self.tail: Tail | None = None
        self._disk = disk
        self._on_applied = on_applied
        self._link = 0

    def begin_link(self, log_id: bytes) -> None:
        """See `Replica`."""
        if self.tail is None:
            self.tail = Tail(log_id, 1, 0, chain_start(log_id))
        _check_log_id(log_id, self.tail)
        self._link = link_start(self.tail.checksum)

    async def take(self, messages: Sequence[bytes]) -> None:
        """See `Replica`."""
        for data in messages:
            self._take_one(data)
            await trio.lowlevel.checkpoint()

    def _take_one(self, data: bytes) -> None:
        tail = self.tail
        assert tail is not None, "a link begins with a log id"
        try:
            part = unpack_filtered(data, self._link)
        except FrameFault as fault:
            raise _unreadable(fault, tail) from fault
        head = part.header
        _check_place(head, tail)
        _check_epoch(part.events, head.epoch, head.first_seq, tail)
        try:
            for event in part.events:
                self.scoreboard.follow(event, head.epoch)
        except AssertionError as error:
            raise _inconsistent(tail, head.first_seq) from error
        self.scoreboard.advance(head.last_seq, head.time_ms)
        self.tail = Tail(tail.log_id, head.epoch, head.last_seq, head.checksum)
        self._link = part.link
        self._on_applied(Applied(part.events, head.epoch, Synced(0, 0.0), 0))

    async def restart(self, path: str) -> None:
        """See `Replica`."""
        with trio.CancelScope(shield=True):
            image, tail = await self._in_thread(partial(_load, self._disk, path, self.shard.holds))
            if self.tail is not None:
                _check_log_id(tail.log_id, self.tail)
            await self._in_thread(partial(self._disk.remove, path))
            if self.tail is not None and (tail.seq <= self.tail.seq or tail.epoch < self.tail.epoch):
                return
            scoreboard = Scoreboard.from_image(self.scoreboard.rules, image)
            await self._in_thread(scoreboard.end_replay)
            self.scoreboard.take_over(scoreboard)
            self.tail = tail

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await run(work, blocks=self._disk.blocks)


def place(disk: Disk, data_directory: str, path: str, tail: Tail) -> None:
    """Give a fetched snapshot, which was proved, its name among the snapshots of a directory."""
    store = Store(disk, data_directory)
    disk.make_directory(store.directory)
    disk.rename(path, f"{store.directory}/{tail.seq:020}.snapshot")
    disk.sync_directory(store.directory)


def _load(disk: Disk, path: str, holds: Callable[[str], bool] | None) -> tuple[StateImage, Tail]:
    file = disk.open(path)
    try:
        return snapshot_format.unpack(file, path, holds)
    except SnapshotDamaged:
        disk.remove(path)
        raise
    finally:
        file.close()


# The checks


def _prove(data: bytes, tail: Tail) -> ProvedFrame:
    """Prove a frame and its place, and understand it."""
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
        what = f"{_MISFITS[situation]}: seq {head.first_seq} instead of {tail.seq + 1}"
        if situation is Situation.FRAME_FOREIGN:
            what = _MISFITS[situation]
        raise FollowingFailed(what, epoch=tail.epoch, seq=tail.seq)


def _check_epoch(events: list[Event], epoch: int, first_seq: int, tail: Tail) -> None:
    """A higher epoch begins with its event, the first of a frame; no other event is of an epoch that has not begun."""
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


def _unreadable(fault: FrameFault, tail: Tail) -> FollowingFailed:
    if fault.newer:
        return FollowingFailed(fault.reason, epoch=tail.epoch, seq=tail.seq, remedy=NEWER)
    what = f"what the leader sent after seq {tail.seq} is damaged: {fault.reason}"
    return FollowingFailed(what, epoch=tail.epoch, seq=tail.seq)


def _inconsistent(tail: Tail, first_seq: int) -> FollowingFailed:
    what = f"the events of the frame of seq {first_seq} do not fit the state that is here"
    return FollowingFailed(what, epoch=tail.epoch, seq=tail.seq)
