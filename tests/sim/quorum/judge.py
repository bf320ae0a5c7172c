"""The judge of a simulated quorum: it sees each frame when it is settled on the stream, and all that nodes do with it.

These promises must hold, beside those of `tests.sim.books`:
- each frame of the stream follows the one before it, and has events that were asked for: `settled`;
- a node applies only what is settled, as it is there: `applied`; so its log is a prefix of the stream, byte for byte,
  at each start too: `recovered`;
- an epoch has one leader: one life of one node sends all frames of an epoch, and leads in no other: `settled`, `leads`;
- what was acknowledged is settled, and every later leader knows it: `leads`;
- what a node refused, and surely did not do, is never settled: `withdraw`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import trio

from engine.events import EpochBegun, Incremented
from engine.log import Log
from engine.log_facts import Synced
from engine.machine import Applied
from engine.record import FrameFault, Tail, frame_bytes, prove_frame
from engine.scoreboard import Scoreboard
from snapshots.opening import Opened
from tests.sim.books import Books, Broken
from tests.sim.indexes import all_read
from tests.sim.trace import Trace


@dataclass(frozen=True)
class Placed:
    """A frame of the stream, and the seqs that it holds."""

    data: bytes
    first_seq: int
    last_seq: int
    epoch: int


class Judge:
    """See above. `sender_of` tells which life of which node sent a frame first. `next_epoch`: one is settled."""

    def __init__(self, books: Books, trace: Trace, origin: Tail, sender_of: Callable[[bytes], str]) -> None:
        self.books = books
        self.frames: list[Placed] = []
        self.tail = origin
        self.next_epoch = trio.Event()
        self._trace = trace
        self._sender_of = sender_of
        self._at: dict[int, Placed] = {}  # by first seq
        self._winners: dict[int, str] = {}
        self._withdrawn: set[str] = set()

    def settled(self, place: int, data: bytes) -> None:
        """Take a frame that a majority has, for ever."""
        sender = self._sender_of(data)
        self._trace.note("settled", place, sender)
        try:
            proved = prove_frame(data)
        except FrameFault as fault:
            raise Broken(f"place {place} of the stream, of {sender}, is no frame: {fault}") from fault
        frame, events, tail = proved.frame, proved.events, self.tail
        if (frame.first_seq, frame.previous) != (tail.seq + 1, tail.checksum):
            what = f"place {place}, of {sender}, has a frame from seq {frame.first_seq} on"
            raise Broken(f"{what}, and does not follow seq {tail.seq} there")
        begins = isinstance(events[0], EpochBegun)
        if frame.epoch != tail.epoch + begins:
            raise Broken(f"place {place}, of {sender}, is of epoch {frame.epoch}, and follows epoch {tail.epoch}")
        winner = self._winners.setdefault(frame.epoch, sender)
        if winner != sender:
            raise Broken(f"epoch {frame.epoch} is of {winner}, and {sender} wrote place {place} in it")
        for event in events:
            if isinstance(event, Incremented) and event.action_id in self._withdrawn:
                raise Broken(f"{event.action_id} was refused as surely not done, and came to place {place}")
        self.books.applied(Applied(events, frame.epoch, Synced(len(data), 0.0, data), 0))
        placed = Placed(data, frame.first_seq, frame.last_seq, frame.epoch)
        self.frames.append(placed)
        self._at[frame.first_seq] = placed
        self.tail = Tail(tail.log_id, frame.epoch, frame.last_seq, frame.checksum)
        if begins:
            self.books.counts["epochs"] += 1
            self.next_epoch.set()
            self.next_epoch = trio.Event()

    def withdraw(self, action_id: str) -> None:
        """Note that a client gives up an action: each answer said that it was not done."""
        self.books.counts["actions withdrawn"] += 1
        if action_id in self.books.plain.actions:
            raise Broken(f"{action_id} was refused as surely not done, and is on the stream")
        self._withdrawn.add(action_id)

    def applied(self, name: str, applied: Applied) -> None:
        """Take events that a node has applied."""
        events = applied.events
        placed = self._at.get(events[0].seq)
        if placed is None or self.tail.seq < events[-1].seq or placed.epoch != applied.epoch:
            last = self.tail.seq
            raise Broken(f"{name} applied seqs {events[0].seq} to {events[-1].seq}; the stream is settled up to {last}")
        self.books.followed(name, applied)

    def recovered(self, name: str, opened: Opened) -> None:
        """Compare what a start of a node recovered with the stream."""
        self.check_log(name, opened.log)
        self.books.recovered_replica(name, opened, may_be_damaged=False)

    def check_log(self, name: str, log: Log) -> None:
        """Compare a node's own log, byte for byte."""
        if log.tail.seq > self.tail.seq:
            raise Broken(f"the log of {name} ends at seq {log.tail.seq}, the stream at {self.tail.seq}")
        if log.tail.seq == 0:
            return
        for frame in log.read_from(log.segments()[0].first_seq):
            placed = self._at.get(frame.first_seq)
            if placed is None or placed.data != frame_bytes(frame):
                raise Broken(f"{name} has another frame from seq {frame.first_seq} on than the stream")
        self.books.counts["logs compared"] += 1

    def leads(self, life: str, scoreboard: Scoreboard) -> None:
        """Note that a node leads the epoch that its state ends in."""
        epoch = scoreboard.epoch
        if self._winners.get(epoch) != life:
            raise Broken(f"{life} leads epoch {epoch}, which is of {self._winners.get(epoch)}")
        before = {action_id: seq for action_id, (of, seq) in self.books.acknowledged.items() if of < epoch}
        with all_read(scoreboard, before, may_be_damaged=False):
            for action_id, seq in before.items():
                if scoreboard.action_seq(action_id) != seq:
                    raise Broken(f"{life} leads, and does not know {action_id}, which was acknowledged as seq {seq}")
        self.books.counts["takeovers"] += 1
        self._trace.note("leads", life, epoch)
