"""Increments of many tasks, sent together, on asyncio and Trio. The other half of `scoreboard_client.batcher`.

    async with board.batcher(size=500, linger_s=0.005) as batcher:
        receipt = await batcher.increment("bob", action_id="order-4711")       from any task

Rules:
- A caller that is cancelled takes its action out of the book. If it is under way it may still be counted.
- The senders are tasks of the `async with` block. If it ends by an error or is cancelled, all who wait get
  `BatcherClosed`.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

import anyio
import httpx
from anyio.abc import TaskGroup

from scoreboard_client import calls
from scoreboard_client.answers import Receipt
from scoreboard_client.async_shell import AsyncLine, AsyncToken
from scoreboard_client.batch_book import BatchBook, serve
from scoreboard_client.batcher import SENDERS
from scoreboard_client.calls import Caller
from scoreboard_client.effects import Effect, Idle, Wait
from scoreboard_client.errors import BatcherClosed
from scoreboard_client.requests import Action


class AsyncBatcher:
    """Made by `AsyncBoard.batcher`; used in an `async with` block."""

    def __init__(
        self, caller: Caller, http: httpx.AsyncClient, token: AsyncToken, board_id: str, size: int, linger_s: float
    ) -> None:
        self._caller = caller
        self._http = http
        self._token = token
        self._board_id = board_id
        self._book = BatchBook(size, linger_s)
        self._bell = _Bell()
        self._tasks: TaskGroup | None = None

    async def __aenter__(self) -> AsyncBatcher:
        tasks = anyio.create_task_group()
        await tasks.__aenter__()
        self._tasks = tasks
        for _ in range(SENDERS):
            line = _BookLine(self._http, self._token, self._book, self._bell)
            tasks.start_soon(line.run, serve(self._caller, self._book))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks, self._tasks = self._tasks, None
        assert tasks is not None
        self._book.close()
        self._bell.ring()
        if error is not None:
            tasks.cancel_scope.cancel()
        try:
            # The block's own error is not handed on: it would come back wrapped in a group.
            await tasks.__aexit__(None, None, None)
        finally:
            self._book.abandon(BatcherClosed("the batcher was closed before this action had a receipt"))

    async def increment(
        self,
        user_id: str,
        *,
        action_id: str,
        reason: str | None = None,
        value: int | None = None,
        deadline_s: float | None = None,
    ) -> Receipt:
        """Count an action, as `AsyncBoard.increment` does. Raises `BatcherClosed` outside of the `async with` block."""
        action = Action(user_id, action_id, self._board_id, reason, value)
        left_s = self._caller.deadline_s if deadline_s is None else calls.seconds("deadline_s", deadline_s)
        if self._tasks is None:
            raise BatcherClosed("the batcher is not running: use it in its `async with` block")
        came = anyio.Event()
        waiting = self._book.add(action, came.set, time.monotonic())
        self._bell.ring()
        try:
            with anyio.move_on_after(left_s):
                await came.wait()
        finally:
            self._book.withdraw(waiting)
            self._bell.ring()
        return waiting.receipt()


class _Bell:
    """Wakes all who listen. Nothing is missed by who looks and listens without a pause in between."""

    def __init__(self) -> None:
        self._listening: anyio.Event | None = None

    def ring(self) -> None:
        listening, self._listening = self._listening, None
        if listening is not None:
            listening.set()

    async def listen(self) -> None:
        if self._listening is None:
            self._listening = anyio.Event()
        await self._listening.wait()


class _BookLine(AsyncLine):
    """A line whose call works on a book."""

    def __init__(self, http: httpx.AsyncClient, token: AsyncToken, book: BatchBook, bell: _Bell) -> None:
        super().__init__(http, token)
        self._book = book
        self._bell = bell

    async def perform(self, effect: Effect) -> Any:
        """See `AsyncLine`. A wait ends when there is nobody left to wait for."""
        if isinstance(effect, Idle):
            with anyio.move_on_after(effect.seconds):
                while self._book.version == effect.seen:
                    await self._bell.listen()
            return None
        if isinstance(effect, Wait):
            with anyio.move_on_after(effect.seconds):
                while not (self._book.closing and self._book.is_empty):
                    await self._bell.listen()
            return None
        return await super().perform(effect)
