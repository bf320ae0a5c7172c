"""Submissions: what callers hand to the actor, and what they get back. Pure.

    submission = Submission(commands, when_done)

Rules:
- A submission is answered once: with an `error`, or with an outcome for each of its commands.
- A recount, or the traces of a user, are gathered by the sender from the log. `take_rest` shows them what came since.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import msgspec

from engine.commands import AloneCommand, Command, DecideReview, EraseUser, ImportRows, Increment, Outcome, Reverse
from engine.record import Frame, events_of
from engine.recount import Recount
from engine.traces import Traces


class ReadLog(Protocol):
    """What is needed of a log to read on."""

    def read_from(self, seq: int) -> Iterator[Frame]: ...


class ActorStatistics(msgspec.Struct, frozen=True):
    """The number of waiting commands, and whether new ones are accepted."""

    waiting: int
    accepting: bool


class Submission:
    """Commands of one caller. When they are done, there is an `error`, or `outcomes` has an answer for each."""

    __slots__ = ("commands", "error", "is_alone", "outcomes", "weight", "when_done")

    def __init__(self, commands: Sequence[Command], when_done: Callable[[Submission], None]) -> None:
        self.commands = commands
        self.weight, self.is_alone = len(commands), False
        if type(commands[0]) is not Increment:
            self.is_alone = isinstance(commands[0], AloneCommand)
            self.weight = sum(len(each.rows) if isinstance(each, ImportRows) else 1 for each in commands)
        self.outcomes: list[Outcome] = []
        self.error: Exception | None = None
        self.when_done = when_done

    def fail(self, error: Exception) -> None:
        """Answer with an error, unless the callers have theirs already."""
        if self.error is None:
            self.error, self.outcomes = error, []
            self.when_done(self)


def seen_for(command: Command) -> Recount | Traces | None:
    """Give what the sender of a command has seen of the log, None if the command needs nothing of it."""
    if isinstance(command, Reverse | DecideReview):
        return command.recount
    return command.traces if isinstance(command, EraseUser) else None


def take_rest(log: ReadLog, seen: Recount | Traces) -> None:
    """Show what came into the log since. Raises `LogDamaged`, `NoLongerKept`, `FileMissing`."""
    for frame in log.read_from(seen.seq + 1):
        for event in events_of(frame):
            if event.seq > seen.seq:
                seen.take(event)
