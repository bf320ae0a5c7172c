"""A directory moves into a quorum's stream, and out of it. No node runs on the directory meanwhile: its lock is held.

    info = await make_stream(options, origin)                                      a new log
    tail, made = await import_directory(disk, data_directory, options, tell=tell)
    exported = await export_directory(disk, data_directory, options, tell=tell)

    import     open, prove ─► snapshot ─► marker `quorum` ─► streams that go on after our tail
    export     our place on the stream ─► seal ─► read on to the end ─► next epoch, here alone ─► marker removed

Rules:
- Both can be cut short at any step, and begin again.
- Nothing is sealed unless this directory can get everything that the stream has.
- The stream is sealed before its end is read. What a leader is told after the seal is a refusal, so nothing is
  acknowledged behind the end.
- The marker is written before the streams are made, and removed after everything else: nobody can lead from the
  directory alone while a quorum may go on with the log.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Awaitable, Callable
from contextlib import closing
from functools import partial
from typing import TypeVar

import msgspec
import trio

from engine.disk import Disk
from engine.errors import NoLongerKept
from engine.events import EpochBegun
from engine.history import HISTORY_BYTES
from engine.limits import SEGMENT_BYTES
from engine.log import Log
from engine.record import LOG_ID_BYTES, FrameFault, Tail, chain_start, events_of, prove_frame, unpack_header
from server.quorum import nats_limits as limits
from server.quorum.nats_api import StreamInfo
from server.quorum.nats_client import NatsClient, opened
from server.quorum.nats_connection import NatsOptions
from server.quorum.nats_setup import create, find_info, origin_of, seal, wait_info
from server.quorum.nats_stream import NatsStream
from server.quorum.places import place_of
from server.quorum.stream import Origin, PlacePurged, StreamRefused, Unanswered
from snapshots.checkpoint import take_beside
from snapshots.membership import Membership, read_membership, remove_membership, write_membership
from snapshots.opening import Tell, open_directory
from snapshots.promotion import NO_RULES, begin_epoch

NAME = "scoreboard quorum"
"""What the servers show of these commands."""

EXPORTED = "exported"
"""The note of the epoch that begins when a directory has left its quorum."""

LOST_FOR_GOOD = (
    "If that one is lost for good, take the directory of the node that is furthest, remove the file quorum in it, "
    "and run: scoreboard promote --data-dir DIR"
)
"""The way out without a stream. What no directory has is lost then, so no command does it by itself."""

READ_FRAMES = 64
AGAIN_SECONDS = 0.5

Answer = TypeVar("Answer")


class Exported(msgspec.Struct, frozen=True):
    """The result of an export: the epoch that began here, its first seq, and how many frames were still to be read."""

    epoch: int
    seq: int
    frames: int


def new_origin() -> Origin:
    """Give the beginning of a new log."""
    log_id = secrets.token_bytes(LOG_ID_BYTES)
    return Origin(Tail(log_id, 1, 0, chain_start(log_id)))


async def make_stream(options: NatsOptions, origin: Origin | None) -> tuple[StreamInfo, bool]:
    """Make the streams of a log, or check those that are there; give the log's, and whether it was made.

    `origin` None: those that are there may hold any log. Raises `StreamRefused`, `Unanswered`.
    """
    async with opened(options, name=NAME, uniform=random.uniform) as client:
        there = await patiently(lambda: find_info(client, options.stream))
        wanted = origin or (new_origin() if there is None else origin_of(there))
        await patiently(lambda: create(client, options, wanted))
        return await wait_info(client, options), there is None


async def import_directory(
    disk: Disk, data_directory: str, options: NatsOptions, *, tell: Tell, segment_bytes: int = SEGMENT_BYTES
) -> tuple[Tail, bool]:
    """Make a leader's directory a member's, whose log the stream goes on with; give its tail, and whether it was new.

    The caller holds the lock, and has looked at the other markers. Raises `LogDamaged`, `StreamRefused`, `Unanswered`.
    """
    known = read_membership(disk, data_directory)
    opening = open_directory(disk, data_directory, NO_RULES, tell=tell, segment_bytes=segment_bytes)
    with closing(opening.log) as log:
        tail = log.tail
    membership = Membership(options.stream, tail.log_id.hex())
    if known is not None and known != membership:
        what = f"the directory is of the stream {known.stream} already."
        raise StreamRefused(what, key="quorum.stream", remedy="Name that one, or take the directory out first.")
    async with opened(options, name=NAME, uniform=random.uniform) as client:
        there = await patiently(lambda: find_info(client, options.stream))
        if known is not None and there is not None and origin_of(there).tail.log_id == tail.log_id:
            return tail, False
        take_beside(disk, data_directory, tell=tell)
        write_membership(disk, data_directory, membership)
        try:
            await patiently(lambda: create(client, options, Origin(tail)))
        except StreamRefused:
            if known is None:
                remove_membership(disk, data_directory)
            raise
    return tail, True


async def export_directory(
    disk: Disk, data_directory: str, options: NatsOptions, *, now_ms: int, tell: Tell,
    segment_bytes: int = SEGMENT_BYTES,
) -> Exported:  # fmt: skip
    """Make a member's directory a leader's, with everything that the stream has. The stream takes nothing afterwards.

    The caller holds the lock. Raises `LogDamaged`, `StreamRefused`, `Unanswered`.
    """
    known = read_membership(disk, data_directory)
    assert known is not None
    async with opened(options, name=NAME, uniform=random.uniform) as client:
        stream = NatsStream(client, options, await patiently(lambda: _found(client, options)))
        if stream.origin.tail.log_id.hex() != known.log_id or options.stream != known.stream:
            what = f"the directory is of the stream {known.stream} with the log {known.log_id}, and not of this one."
            raise StreamRefused(what, key="quorum.stream", remedy="Name its stream.")
        opening = open_directory(disk, data_directory, NO_RULES, tell=tell, segment_bytes=segment_bytes)
        with closing(opening.log) as log:
            begun = await patiently(lambda: _own_epoch(stream, log))
            frames = 0
            if begun is None:
                place = await patiently(lambda: _place_of(stream, log.tail))
                await patiently(lambda: seal(client, options.stream))
                frames = await _read_on(stream, log, place)
    opening = open_directory(disk, data_directory, NO_RULES, tell=tell, segment_bytes=segment_bytes)
    with closing(opening.log) as log:
        if begun is None:
            history = secrets.token_bytes(HISTORY_BYTES)
            begun, _ = begin_epoch(log, after=opening.scoreboard, now_ms=now_ms, history=history, note=EXPORTED)
    remove_membership(disk, data_directory)
    return Exported(begun.epoch, begun.seq, frames)


async def patiently(ask: Callable[[], Awaitable[Answer]]) -> Answer:
    """Ask again while there is no answer, for the time in which a stream has a leader again. Raises `Unanswered`."""
    deadline = trio.current_time() + limits.OPEN_SECONDS
    while True:
        try:
            return await ask()
        except Unanswered:
            if trio.current_time() > deadline:
                raise
        await trio.sleep(AGAIN_SECONDS)


async def _found(client: NatsClient, options: NatsOptions) -> StreamInfo:
    info = await find_info(client, options.stream)
    if info is None:
        what = f"there is no stream {options.stream} on these servers."
        raise StreamRefused(what, key="quorum.stream", remedy=f"Name the directory's stream. {LOST_FOR_GOOD}")
    return info


async def _own_epoch(stream: NatsStream, log: Log) -> EpochBegun | None:
    """Give the epoch that an earlier export began at the end of our log, if it is there and the stream is sealed."""
    try:
        frame = next(log.read_from(log.tail.seq), None) if log.tail.seq else None
    except NoLongerKept:
        return None
    last = None if frame is None else events_of(frame)[-1]
    if (
        frame is None
        or not isinstance(last, EpochBegun)
        or last.note != EXPORTED
        or not (await stream.info()).config.get("sealed")
    ):
        return None
    ends = await stream.bounds()
    if ends.last < ends.first:
        end = stream.origin.tail.checksum
    else:
        end = unpack_header((await stream.read(ends.last, 1))[0]).checksum
    return last if frame.previous == end else None


async def _place_of(stream: NatsStream, tail: Tail) -> int:
    try:
        return await place_of(stream, tail)
    except PlacePurged as purged:
        what = f"this directory ends at seq {tail.seq}, and the stream no longer has what follows ({purged})."
        raise StreamRefused(what, key="data_dir", remedy="Export the directory of a node that is further.") from purged


async def _read_on(stream: NatsStream, log: Log, place: int) -> int:
    """Append what the sealed stream has after a place; give how many frames that was."""
    count = 0
    while True:
        frames = await patiently(partial(stream.read, place + 1 + count, READ_FRAMES))
        if not frames:
            if (await patiently(stream.bounds)).last <= place + count:
                return count
            continue
        for data in frames:
            try:
                log.append_frames([prove_frame(data)])
            except (FrameFault, ValueError) as fault:
                what = f"the frame at place {place + 1 + count} does not follow this directory: {fault}."
                raise StreamRefused(what, key="data_dir", remedy="Export the directory of another node.") from fault
            count += 1
