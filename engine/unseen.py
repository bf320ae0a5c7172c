"""What a command's sender has not seen of the log: a recount, or a user's traces, are shown it before the decision.

    await show_unseen(log, commands)        nothing may be logged meanwhile

The sender gathers them from the log, and the log goes on while the command waits in the inbox.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Protocol

from engine.commands import Command, DecideReview, EraseUser, Reverse
from engine.disk import FileMissing
from engine.errors import LogDamaged, NoLongerKept
from engine.record import Frame, events_of
from engine.recount import Recount
from engine.threads import run
from engine.traces import Traces


class ReadLog(Protocol):
    """What is needed of a log to read on."""

    @property
    def blocks(self) -> bool: ...

    def read_from(self, seq: int) -> Iterator[Frame]: ...


class Unseen(Exception):
    """The log can't be read. Nothing was decided by it."""

    def __init__(self, fault: LogDamaged | NoLongerKept | FileMissing) -> None:
        super().__init__(str(fault))
        self.fault = fault


async def show_unseen(log: ReadLog, commands: Sequence[Command]) -> None:
    """Show each command what came into the log since. Raises `Unseen`."""
    for command in commands:
        seen: Recount | Traces | None = None
        if isinstance(command, Reverse | DecideReview):
            seen = command.recount
        elif isinstance(command, EraseUser):
            seen = command.traces
        if seen is not None:
            try:
                await run(partial(_show, log, seen), blocks=log.blocks)
            except (LogDamaged, NoLongerKept, FileMissing) as fault:
                raise Unseen(fault) from fault


def _show(log: ReadLog, seen: Recount | Traces) -> None:
    for frame in log.read_from(seen.seq + 1):
        for event in events_of(frame):
            if event.seq > seen.seq:
                seen.take(event)
