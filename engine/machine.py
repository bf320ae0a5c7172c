"""The state machine: a scoreboard, its log, and the end of what was applied.

    leader      Actor ──── decides commands, appends events ──┐
                                                              ├──► StateMachine ──► on_applied: feed, viewers, metrics
    replica     Follower ─ proves frames, appends them ───────┘

A promotion only changes the writer: the follower stops, and the actor goes on with the same machine. The checkpointer
captures the state from it.

Invariants:
- `tail` is the end of what is applied. Everything up to it is durable, and `tail.seq == scoreboard.seq` at every await.
  During an append the log's own tail may be ahead.
- One task writes at a time: the actor of a leader, or the follower of a replica.
- `on_ended` gets each period that ended, right after the event that ended it was applied.
- `on_applied` is called once for each frame, right after the frame was applied, without an await in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import msgspec

from engine.board_events import EndedPeriod
from engine.errors import DiskFull
from engine.events import Event
from engine.image import StateImage
from engine.log import Synced
from engine.record import Frame, ProvedFrame, Tail
from engine.scoreboard import Scoreboard


class ActorStatistics(msgspec.Struct, frozen=True):
    """The number of waiting commands, and whether new ones are accepted."""

    waiting: int
    accepting: bool


class WriteLog(Protocol):
    """The log as its writer knows it: on one node (`engine.local_log`), or of a quorum (`server.quorum`)."""

    @property
    def blocks(self) -> bool: ...
    @property
    def tail(self) -> Tail: ...

    @property
    def full(self) -> DiskFull | None: ...
    @property
    def frame_bytes_max(self) -> int: ...

    def make_room(self) -> None: ...

    async def append(self, expected_seq: int, frame: bytes) -> Synced:
        """Make a frame durable. It was packed to follow `tail`, whose seq is `expected_seq`.

        Raises `LostPlace`: another frame is there, and nothing of this one was or will be applied. `WriteFailed`, and
        `DiskFull` with nothing written.
        """

    def read_from(self, seq: int) -> Iterator[Frame]: ...


class Applied(msgspec.Struct, frozen=True):
    """A frame that was applied. `waiting` is the number of commands in the actor's inbox."""

    events: list[Event]
    epoch: int
    synced: Synced
    waiting: int


class StateMachine:
    """Owns a scoreboard. `on_applied` must be quick and must not raise."""

    __slots__ = ("log", "on_applied", "on_ended", "scoreboard", "tail")

    def __init__(
        self,
        scoreboard: Scoreboard,
        log: WriteLog,
        on_applied: Callable[[Applied], None],
        on_ended: Callable[[EndedPeriod], None] = lambda _: None,
    ) -> None:
        assert log.tail.seq == scoreboard.seq
        self.scoreboard = scoreboard
        self.log = log
        self.on_applied = on_applied
        self.on_ended = on_ended
        self.tail: Tail = log.tail

    def settled(self, events: list[Event], synced: Synced, waiting: int) -> None:
        """Note a frame of our own, which is durable and applied."""
        self.tail = self.log.tail
        assert self.tail.seq == self.scoreboard.seq
        if self.scoreboard.ended:
            self._tell_ended()
        self.on_applied(Applied(events, self.tail.epoch, synced, waiting))

    def apply(self, proved: ProvedFrame, synced: Synced) -> None:
        """Apply a frame of another node, which is durable here. Raises AssertionError if it contradicts the state."""
        frame = proved.frame
        for event in proved.events:
            self.scoreboard.apply(event, frame.epoch)
        self.tail = Tail(self.tail.log_id, frame.epoch, frame.last_seq, frame.checksum)
        if self.scoreboard.ended:
            self._tell_ended()
        self.on_applied(Applied(proved.events, frame.epoch, synced, 0))

    def _tell_ended(self) -> None:
        for ended in self.scoreboard.take_ended():
            self.on_ended(ended)

    def take_over(self, scoreboard: Scoreboard, tail: Tail) -> None:
        """Go on from a later state of the same log: that of a fetched snapshot."""
        assert tail.log_id == self.tail.log_id
        self.scoreboard.take_over(scoreboard)
        self.tail = tail

    def capture(self) -> tuple[StateImage, Tail]:
        """Copy the state, and give its tail. A few ms for a million users."""
        return self.scoreboard.capture(), self.tail
