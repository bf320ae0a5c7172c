"""The states of a board as an asynchronous iterator, on asyncio and Trio. The other half of `scoreboard_client.watch`.

    async with board.watch() as states:
        async for state in states:
            print(state.entries)

`async for state in board.watch()` does the same, and keeps its connection until the client is closed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import TracebackType

import anyio

from scoreboard_client.answers import LiveState
from scoreboard_client.async_shell import AsyncLine
from scoreboard_client.effects import Done, Emit, Steps, resume
from scoreboard_client.sync_shell import reaction


class AsyncWatch(AsyncIterator[LiveState]):
    """Made by `AsyncBoard.watch`. For one task. A wait that was cancelled ends it."""

    def __init__(self, line: AsyncLine, steps: Steps[None]) -> None:
        self._line = line
        self._steps = steps
        self._begun = False

    def __aiter__(self) -> AsyncWatch:
        return self

    async def __anext__(self) -> LiveState:
        """Wait for the next state. Raises `ApiError` for what will not pass."""
        try:
            step = resume(self._steps, reaction(None) if self._begun else None)
            self._begun = True
            while not isinstance(step, (Done, Emit)):
                step = await self._line.advance(self._steps, step)
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await self.aclose()
            raise
        if isinstance(step, Done):
            raise StopAsyncIteration
        state: LiveState = step.value
        return state

    async def __aenter__(self) -> AsyncWatch:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            await self.aclose()

    async def aclose(self) -> None:
        """End it, and close its connection."""
        self._steps.close()
        await self._line.aclose()
