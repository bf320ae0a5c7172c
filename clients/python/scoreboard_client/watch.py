"""The states of a board as an iterator.

    for state in board.watch():
        print(state.entries)

It goes on for ever: through restarts of the server, other nodes and networks without streams. `close` it, or use it in
a `with` block, to give its connection back before the client is closed.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType

from scoreboard_client.answers import LiveState
from scoreboard_client.effects import Done, Emit, Steps, resume
from scoreboard_client.sync_shell import Line, reaction


class Watch(Iterator[LiveState]):
    """Made by `Board.watch`. For one thread."""

    def __init__(self, line: Line, steps: Steps[None]) -> None:
        self._line = line
        self._steps = steps
        self._begun = False

    def __iter__(self) -> Watch:
        return self

    def __next__(self) -> LiveState:
        """Wait for the next state. Raises `ApiError` for what will not pass."""
        step = resume(self._steps, reaction(None) if self._begun else None)
        self._begun = True
        while not isinstance(step, (Done, Emit)):
            step = self._line.advance(self._steps, step)
        if isinstance(step, Done):
            raise StopIteration
        state: LiveState = step.value
        return state

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it, and close its connection."""
        self._steps.close()
        self._line.close()
