"""Commands of one caller, on their way through the writer (`engine.actor`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from engine.commands import AloneCommand, Command, ImportRows, Increment, Outcome


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
