"""Sends what is in an outbox, as a task on asyncio or Trio. The other half of `scoreboard_client.sender`.

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(scoreboard.sender(outbox).run)         sends for ever, until it is cancelled

`Outbox.put` blocks for as long as a disk takes to sync: call it with `anyio.to_thread.run_sync` where that matters.
"""

from __future__ import annotations

from collections.abc import Callable

import httpx

from scoreboard_client.async_shell import AsyncLine, AsyncToken
from scoreboard_client.calls import Caller
from scoreboard_client.delivery import Told, deliver
from scoreboard_client.outbox import Outbox
from scoreboard_client.sender import log_told


class AsyncSender:
    """Made by `AsyncScoreboard.sender`. `told` is as that of `Sender`, and must not block."""

    def __init__(
        self,
        caller: Caller,
        http: httpx.AsyncClient,
        token: AsyncToken,
        outbox: Outbox,
        told: Callable[[Told], None] | None,
    ) -> None:
        self._caller = caller
        self._http = http
        self._token = token
        self._outbox = outbox
        self._told = told or log_told

    async def run(self) -> None:
        """Send until it is cancelled. What was not sent stays in the outbox."""
        await self._run(until_empty=False)

    async def drain(self, *, deadline_s: float | None = None) -> int:
        """Send until nothing is left, as `Sender.drain` does. Give how many actions got a receipt here."""
        return await self._run(until_empty=True, deadline_s=deadline_s)

    async def _run(self, *, until_empty: bool, deadline_s: float | None = None) -> int:
        steps = deliver(
            self._caller, self._outbox, self._told, lambda: False, until_empty=until_empty, deadline_s=deadline_s
        )
        return await AsyncLine(self._http, self._token).run(steps)
