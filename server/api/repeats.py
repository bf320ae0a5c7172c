"""Which actions were counted already, or are being counted. To send one again is not charged as a new action is.

    if repeats.is_again(command): ...         an action that was counted, or is in flight; else it is noted as in flight
    repeats.end([command])                    its outcome is known, or it was refused

Rules:
- A repeat names the same user, board and reason. Any other use of a known actionId is a conflict. It is charged as a
  new action: so nobody learns of an action for nothing, and a flood of conflicts costs as much as one of increments.
- An action that is in flight counts as known, too: a client that gives up early sends it again before it is applied.
- This decides only what is charged. Whether an action counts is decided by the actor alone (`engine.batch`).

Invariant: `_begun` has the commands that were noted as in flight and did not end. The inbox of the actor bounds it: a
command that is noted is refused or submitted without a pause, and `end` follows either.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from engine.actions import Key
from engine.commands import Command, Increment
from engine.scoreboard import Scoreboard


class Repeats:
    """One for a node. All commands here have their `key`."""

    def __init__(self, scoreboard: Scoreboard) -> None:
        self._scoreboard = scoreboard
        self._begun: dict[Key, Increment] = {}

    def __len__(self) -> int:
        """The number of commands that are in flight."""
        return len(self._begun)

    def is_again(self, command: Increment) -> bool:
        """Whether a command repeats an action that was applied or is in flight. If not, it is in flight from now on."""
        first = self._begun.setdefault(command.key, command)
        position = self._scoreboard.actions.find(command.key)
        if position >= 0:
            return self._scoreboard.repeats(position, command)
        return first is not command and _is_same(first, command)

    def are_again(self, commands: Sequence[Increment]) -> Iterator[bool]:
        """Say it of one command after the other. They are looked up together, which costs less."""
        scoreboard, note = self._scoreboard, self._begun.setdefault
        positions = scoreboard.actions.find_all([command.key for command in commands])
        for command, position in zip(commands, positions, strict=True):
            first = note(command.key, command)
            if position >= 0:
                yield scoreboard.repeats(position, command)
            else:
                yield first is not command and _is_same(first, command)

    def end(self, commands: Sequence[Command]) -> None:
        """Forget commands that were answered or refused. They need not have been noted."""
        begun = self._begun
        for command in commands:
            if type(command) is Increment and begun.get(command.key) is command:
                del begun[command.key]


def _is_same(one: Increment, other: Increment) -> bool:
    return one.user_id == other.user_id and one.board_id == other.board_id and one.reason == other.reason
