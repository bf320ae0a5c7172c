"""The stand-ins for an actor and a log on a replica of one shard, which keeps no log and knows no actions.

They make the pipeline the same on every node. They are never asked: the role refuses writes and receipts before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from engine.actor import Senders, WhenDone
from engine.commands import Command
from engine.machine import ActorStatistics
from server.api.dependencies import StorageState


class NoWriter:
    """Stands for the actor."""

    def submit_nowait(self, commands: Sequence[Command], when_done: WhenDone, senders: Senders = ()) -> NoReturn:
        raise AssertionError(f"a shard takes no writes, and was given {len(commands)} for {when_done} of {senders}")

    def statistics(self) -> ActorStatistics:
        return ActorStatistics(0, True)


class NoLog:
    """Stands for the log."""

    blocks = False

    def event_at(self, seq: int) -> NoReturn:
        raise AssertionError(f"a shard keeps no log, so seq {seq} can't be read from it")

    def read_from(self, seq: int) -> NoReturn:
        self.event_at(seq)


def no_storage() -> StorageState:
    return StorageState(0, 0, None, None)
