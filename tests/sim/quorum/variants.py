"""Broken variants of a quorum for the simulation, in which it must find the fault.

The last sentence of each function says what goes wrong then.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import trio

from engine.errors import LostPlace
from engine.log_facts import Synced
from engine.record import events_of, pack_frame, unpack_frame, unpack_header
from server.node.member import Member
from server.quorum.quorum_log import QuorumLog
from server.quorum.stream import PlacePurged, Unanswered
from tests.sim.variant import Variant, patching

_append = QuorumLog.append
_settle = QuorumLog.settle


async def _append_two(self: QuorumLog, expected_seq: int, frame: bytes) -> Synced:
    """Make two frames of one, and have both in flight: the second is packed, and sent, before the first is settled.

    The second frame of a deposed leader follows the epoch's frame of the next one.
    """
    events = events_of(unpack_frame(frame))
    if len(events) < 2:
        return await _append(self, expected_seq, frame)
    header = unpack_header(frame)
    first = pack_frame(events[:1], epoch=header.epoch, previous=header.previous)
    second = pack_frame(events[1:], epoch=header.epoch, previous=unpack_header(first).checksum)
    after = copy.copy(self)
    after.place = self.place + 1
    await self.reserve(len(first) + len(second))
    placed: dict[bytes, bool] = {}

    async def settle(log: QuorumLog, data: bytes) -> None:
        placed[data] = await _settle(log, data)
        if not placed[data]:
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(settle, self, first)
        nursery.start_soon(settle, after, second)
    if not (placed.get(first) and placed.get(second)):
        raise LostPlace("another frame is at a place of the two")
    for data in (first, second):
        await self._written.append(self.tail.seq, data)
        self.place += 1
    return Synced(len(frame), 0.0, frame)


async def _give_up(self: QuorumLog, frame: bytes) -> bool:
    """Take a frame without an answer for one that is not placed. It is placed later, and its callers were refused."""
    done = False
    with trio.move_on_after(self._patience_s):
        placed = await _settle(self, frame)
        done = True
    return done and placed


async def _believe_absence(self: QuorumLog, frame: bytes) -> bool:
    """Look once after a frame without an answer, and believe what is not there. It comes later."""
    try:
        if await self._stream.place(self.place, frame):
            return True
    except Unanswered:
        pass
    while True:
        try:
            there = await self._stream.read(self.place + 1, 1)
        except Unanswered:
            await trio.sleep(0.05)
        except PlacePurged:
            return False
        else:
            return bool(there) and there[0] == frame


async def _write_first(self: QuorumLog, expected_seq: int, frame: bytes) -> Synced:
    """Write a frame here before a majority has it. It is lost on the stream, and a start finds it here."""
    synced = await self._written.append(expected_seq, frame)
    if not await self.settle(frame):
        raise LostPlace("another frame is at this place")
    self.place += 1
    return synced


async def _bid_at_the_end(self: QuorumLog, frame: bytes) -> bool:
    """Send the next epoch's frame to wherever the stream ends, read or not. It does not follow what is there."""
    if self.tail.epoch < unpack_header(frame).epoch:
        while True:
            try:
                place = (await self._stream.bounds()).last
                if await self._stream.place(place, frame):
                    self.place = place
                    return True
            except Unanswered:
                await trio.sleep(0.05)
    return await _settle(self, frame)


async def _go_on(self: QuorumLog, frame: bytes) -> bool:
    """Send a frame to the next place if its own is lost. A deposed leader writes behind the next one."""
    while not await _settle(self, frame):
        self.place += 1
    return True


def _stay(self: Member, why: str) -> None:
    """Lead on, whatever was lost or heard. Two nodes take themselves for the leader."""


TWO_IN_FLIGHT = "two frames are in flight"
GIVEN_UP = "no answer means no"
ABSENCE_BELIEVED = "what is not there when a node looks is never there"
WRITTEN_FIRST = "a node's own log is written before the stream"
BID_ANYWHERE = "a bid goes to the end of the stream, read or not"
LOST_IGNORED = "a leader that lost a place takes the next one"
STAYED = "a leader leads on, whatever it lost"

BROKEN: Sequence[Variant] = (
    Variant(TWO_IN_FLIGHT, patched=patching(QuorumLog, "append", _append_two)),
    Variant(GIVEN_UP, patched=patching(QuorumLog, "settle", _give_up)),
    Variant(ABSENCE_BELIEVED, patched=patching(QuorumLog, "settle", _believe_absence)),
    Variant(WRITTEN_FIRST, patched=patching(QuorumLog, "append", _write_first)),
    Variant(BID_ANYWHERE, patched=patching(QuorumLog, "settle", _bid_at_the_end)),
    Variant(LOST_IGNORED, patched=patching(QuorumLog, "settle", _go_on)),
    Variant(STAYED, patched=patching(Member, "lose", _stay)),
)
