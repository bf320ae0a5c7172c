"""What a replica of one shard has in place of an actor and a log. It keeps no log and knows no actions.

Both are there so that the pipeline is the same on every node. Neither is ever asked: the role refuses writes and
receipts before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NoReturn

from engine.actor import ActorStatistics, Submission
from engine.commands import Command
from server.api.dependencies import StorageState


class NoWriter:
    """Stands where the actor is."""

    def submit_nowait(self, commands: Sequence[Command], when_done: Callable[[Submission], None]) -> NoReturn:
        """Never called."""
        raise AssertionError(f"a shard takes no writes, and was given {len(commands)} for {when_done}")

    def statistics(self) -> ActorStatistics:
        """Nothing waits."""
        return ActorStatistics(0, True)


class NoLog:
    """Stands where the log is."""

    blocks = False

    def event_at(self, seq: int) -> NoReturn:
        """Never called."""
        raise AssertionError(f"a shard keeps no log, so seq {seq} can't be read from it")


def no_storage() -> StorageState:
    """Nothing is on disk."""
    return StorageState(0, 0, None, None)
