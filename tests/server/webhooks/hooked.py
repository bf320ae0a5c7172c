"""A served leader with webhooks, and what tests do to it.

    async with hooked(directory, shop=receiver) as site:
        await site.score("ann", 2); await receiver.next()

Each hook has the name of its receiver, all events, and both secrets. Waits after a failure are short.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from server.settings.webhooks import EVENTS
from tests.e2e import leader as outside
from tests.e2e.client import Client
from tests.server.node.nodes import Served, config_for, leader_of_directory, serving
from tests.server.webhooks.receiver import OTHER_SECRET, SECRET, Receiver

FLAGGED = {"points": {"WIN": 10}, "watch": {"growth_per_minute": 25}}
"""The rules of a board that flags whoever gets more than 25 points in a minute."""


class Site:
    """A leader, and a connection to it with every scope."""

    def __init__(self, served: Served, client: Client) -> None:
        self.served = served
        self.client = client
        self._actions = 0

    async def ask(self, method: str, target: str, body: Any = None, status: int = 200) -> Any:
        """Ask the leader; give the answer."""
        data = None if body is None else msgspec.json.encode(body)
        answer = await self.client.request(method, target, data)
        assert answer.status == status, answer.body
        return answer.json()

    async def score(self, user_id: str, times: int = 1, *, board: str = "main", reason: str | None = None) -> int:
        """Count actions of a user in one batch; give the seq of the last."""
        items = []
        for _ in range(times):
            self._actions += 1
            item = {
                "userId": user_id,
                "actionId": f"{self.served.node.scoreboard.seq}-{self._actions}",
                "boardId": board,
            }
            items.append(item if reason is None else {**item, "reason": reason})
        answers = await self.ask("POST", "/scores/increment/batch", items)
        assert all(each["status"] == 200 for each in answers), answers
        seq: int = answers[-1]["seq"]
        return seq

    async def win(self, user_id: str, times: int = 1, *, board: str = "cup") -> int:
        """Score on a board of the rules FLAGGED."""
        return await self.score(user_id, times, board=board, reason="WIN")

    async def status(self, name: str) -> Any:
        """Give what GET /webhooks says of a hook."""
        hooks = (await self.ask("GET", "/webhooks"))["webhooks"]
        return next(hook for hook in hooks if hook["name"] == name)


def variable(hooks: Mapping[str, Receiver], **more: Any) -> str:
    """Give the value of SCOREBOARD_WEBHOOKS. `more` goes to each hook."""
    tables = [
        {
            "name": name, "url": receiver.url, "events": EVENTS, "secret": [SECRET, OTHER_SECRET],
            "allow_private": True, **more,
        }
        for name, receiver in hooks.items()
    ]  # fmt: skip
    return msgspec.json.encode(tables).decode()


@asynccontextmanager
async def hooked(
    directory: Path, hooks: Mapping[str, Receiver], environ: Mapping[str, str] | None = None, **more: Any
) -> AsyncIterator[Site]:
    """A leader on a directory, which may be there already."""
    settings = {"SCOREBOARD_LIVE_INTERVAL_MS": "10", "SCOREBOARD_LIMITS_USER_PER_MINUTE": "100000", **(environ or {})}
    config = config_for(directory, SCOREBOARD_WEBHOOKS=variable(hooks, **more), **settings)
    async with serving(config, leader_of_directory) as served:
        client = Client("127.0.0.1", served.port, outside.token("admin"))
        async with client:
            yield Site(served, client)
