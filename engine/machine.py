"""The state machine: a scoreboard, the log that it is made from, and the end of what was applied.

    leader      Actor ──── decides commands, appends events ──┐
                                                              ├──► StateMachine ──► on_applied: feed, viewers, metrics
    replica     Follower ─ proves frames, appends them ───────┘

Leader and replica write to the same machine, one after the other: a promotion changes who writes, and nothing else.
The checkpointer captures from it, whoever writes.

Invariants:
- `tail` is the end of what is applied. Everything up to it is durable, and `tail.seq == scoreboard.seq` between two
  awaits. While an append is under way the log's own tail may be ahead.
- One task writes at a time: the actor of a leader, or the follower of a replica.
- `on_applied` is called once for each frame, right after the frame was applied, with no await in between.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from engine.events import Event
from engine.image import StateImage
from engine.log import Synced
from engine.record import ProvedFrame, Tail
from engine.scoreboard import Scoreboard


class WriteLog(Protocol):
    """What a machine needs of a log. `blocks` says whether appending belongs in a worker thread."""

    @property
    def blocks(self) -> bool:
        """Whether `append` waits for a disk."""

    @property
    def tail(self) -> Tail:
        """The end of what is durable."""

    def append(self, events: Sequence[Event], epoch: int) -> Synced:
        """Make events durable, all or none; raise `WriteFailed` and be dead if that fails."""


class Applied(msgspec.Struct, frozen=True):
    """A frame that was applied: its events, and how the disk took it. `waiting` commands are in the actor's inbox."""

    events: list[Event]
    epoch: int
    synced: Synced
    waiting: int


class StateMachine:
    """Owns a scoreboard. `on_applied` must be quick and must not raise."""

    __slots__ = ("log", "on_applied", "scoreboard", "tail")

    def __init__(self, scoreboard: Scoreboard, log: WriteLog, on_applied: Callable[[Applied], None]) -> None:
        assert log.tail.seq == scoreboard.seq
        self.scoreboard = scoreboard
        self.log = log
        self.on_applied = on_applied
        self.tail: Tail = log.tail

    def settled(self, events: list[Event], synced: Synced, waiting: int) -> None:
        """Take note of a frame of our own, which is durable and applied."""
        self.tail = self.log.tail
        assert self.tail.seq == self.scoreboard.seq
        self.on_applied(Applied(events, self.tail.epoch, synced, waiting))

    def apply(self, proved: ProvedFrame, synced: Synced) -> None:
        """Apply a frame of another node, which is durable here. Raises AssertionError if it does not fit the state."""
        frame = proved.frame
        for event in proved.events:
            self.scoreboard.apply(event, frame.epoch)
        self.tail = Tail(self.tail.log_id, frame.epoch, frame.last_seq, frame.checksum)
        self.on_applied(Applied(proved.events, frame.epoch, synced, 0))

    def take_over(self, scoreboard: Scoreboard, tail: Tail) -> None:
        """Go on from another state of the same log, such as that of a fetched snapshot."""
        assert tail.log_id == self.tail.log_id
        self.scoreboard.take_over(scoreboard)
        self.tail = tail

    def capture(self) -> tuple[StateImage, Tail]:
        """Copy the state, with the end of the log that it belongs to. A few ms for a million users."""
        return self.scoreboard.capture(), self.tail
