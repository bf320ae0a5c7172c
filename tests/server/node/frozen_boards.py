"""A leader and a replica with frozen boards, what moves on these boards, and the tools of those who look.

    async with open_stage(directory) as stage:
        await stage.freeze()
        await stage.move()                     nothing of it may be seen
        await stage.settle()                   the replica has it too

    heat (open) ──► cup (frozen)      main (open)      laps (frozen): best, ascending, dense      daily (frozen): hourly

`cup` is fed, and frozen while its feeder is not. A period of `daily` had ended before the freeze. More end during it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import trio
from trio_websocket import WebSocketConnection, open_websocket_url

from server.settings.config import Config
from tests.e2e import leader as outside
from tests.e2e.client import Client
from tests.server.lanes.support import PATIENCE_SECONDS
from tests.server.node.nodes import (
    PUBLIC_URL,
    START_MS,
    Served,
    caught_up,
    config_for,
    leader_of_directory,
    replica_of,
    serving,
)

FROZEN = ("cup", "laps", "daily")
HOUR_MS = 3_600_000

_POINTS = {"WIN": 10, "LATE": -15, "LAP": {"min": 1, "max": 2**53 - 1}}
BOARDS: dict[str, dict[str, Any]] = {
    "main": {"points": _POINTS},
    "cup": {"title": "Cup", "points": _POINTS, "ranks": "shared"},
    "heat": {"points": _POINTS, "feeds": ["cup"]},
    "laps": {"points": _POINTS, "score": "best", "order": "ascending", "ranks": "dense"},
    "daily": {"points": _POINTS, "period": {"every": "hour"}, "keep_periods": 1},
}
USERS = [f"u{number:02}" for number in range(14)]
HIDDEN = USERS[12]
"""Was not active before the freeze."""
ABSENT = ("new", "late")
"""Come during the freeze."""


class Now:
    """The clock of all nodes. It stands still until a test moves it."""

    def __init__(self) -> None:
        self.ms = START_MS

    def __call__(self) -> int:
        return self.ms


def config_of_stage(directory: Path, **environ: str) -> Config:
    """Viewers are told quickly, and nobody is limited."""
    return config_for(
        directory,
        SCOREBOARD_REPLICATION_PUBLIC_URL=PUBLIC_URL,
        SCOREBOARD_LIVE_INTERVAL_MS="10",
        SCOREBOARD_LIMITS_USER_PER_MINUTE="1000",
        **environ,
    )


class Stage:
    """See above."""

    def __init__(self, directory: Path, environ: dict[str, str]) -> None:
        self.directory = directory
        self.environ = environ
        self.now = Now()
        self.leader: Served
        self.replica: Served
        self._actions = 0
        self._operators: dict[int, Client] = {}

    @property
    def nodes(self) -> dict[str, Served]:
        return {"leader": self.leader, "replica": self.replica}

    async def ask(self, method: str, target: str, body: object = None, status: int = 200) -> Any:
        """Have the operator ask the leader; the answer, decoded."""
        answer = await self._operator(self.leader).request(
            method, target, b"" if body is None else msgspec.json.encode(body)
        )
        assert answer.status == status, answer.body
        return answer.json()

    async def score(self, board: str, user: str, reason: str = "WIN", value: int | None = None) -> Any:
        """Count one action; its receipt. The ids of actions are a1, a2 …"""
        return await self.ask("POST", "/scores/increment", self._action(board, user, reason, value))

    def _action(self, board: str, user: str, reason: str, value: int | None = None) -> dict[str, Any]:
        self._actions += 1
        return {"userId": user, "actionId": f"a{self._actions}", "boardId": board, "reason": reason, "value": value}

    @property
    def last_action(self) -> str:
        return f"a{self._actions}"

    async def fill(self) -> None:
        """Make the boards, and give all users scores: those of the lowest number are ahead."""
        for board, rules in BOARDS.items():
            await self.ask("PUT", f"/boards/{board}", rules, status=200 if board == "main" else 201)
        await self.score("daily", "u00")
        await self.score("daily", "u01")
        self.now.ms += HOUR_MS
        batch = []
        for number, user in enumerate(USERS):
            boards = ("main", "cup", "heat", "daily")
            batch += [self._action(board, user, "LAP", 1_000 - 50 * number) for board in boards]
            batch.append(self._action("laps", user, "LAP", 1_000 + 50 * number))
        await self.ask("POST", "/scores/increment/batch", batch)
        await self.ask("PUT", "/users/u03", {"displayName": "Zoë"})
        await self.ask("PUT", f"/users/{HIDDEN}", {"active": False})

    async def freeze(self) -> None:
        for board in FROZEN:
            await self.ask("POST", f"/boards/{board}/freeze")

    async def move(self) -> None:
        """Do all that the public must not see on a frozen board, and the same on an open one."""
        for board in ("main", "cup", "daily"):
            await self.score(board, "u05", "LAP", 5_000)  # overtakes all
            await self.score(board, "new", "LAP", 700)
            await self.score(board, "u00", "LATE")
        await self.score("laps", "u07", "LAP", 1)
        await self.score("laps", "new", "LAP", 1_010)
        await self.score("laps", "u00", "LAP", 2_000)  # no better
        await self.score("heat", "u06", "LAP", 9_000)  # feeds the cup
        await self.score("heat", "late")
        batch = [{"userId": user, "actionId": f"b {user}", "boardId": "cup", "reason": "WIN"} for user in USERS]
        await self.ask("POST", "/scores/increment/batch", batch)
        self.now.ms += 2 * HOUR_MS
        await self.score("daily", "u01")  # two periods ended, and one of them was empty
        await self.ask("POST", "/boards/daily/reset")
        await self.score("daily", "u02")
        await self.ask("POST", "/boards/daily/reset")
        await self.score("daily", "u03")

    async def settle(self) -> None:
        """Wait until the replica has what the leader has."""
        target = f"/scoreboard/top?minSeq={self.leader.node.scoreboard.seq}"
        while (await self._operator(self.replica).get(target)).status != 200:  # noqa: ASYNC110  # asks the node itself
            await trio.sleep(0.005)

    def _operator(self, served: Served) -> Client:
        """The connection of one who may do all but see the present."""
        if served.port not in self._operators:
            scopes = ("scores:write", "scores:value", "users:write", "boards:write")
            self._operators[served.port] = Client("127.0.0.1", served.port, outside.token(*scopes))
        return self._operators[served.port]

    async def close(self) -> None:
        """End the operator's connections."""
        for client in self._operators.values():
            await client.aclose()


@asynccontextmanager
async def serving_leader(stage: Stage) -> AsyncIterator[Served]:
    """Serve the leader's directory once."""
    config = config_of_stage(stage.directory / "leader", **stage.environ)
    async with serving(config, leader_of_directory, stage.now) as stage.leader:
        yield stage.leader
        await stage.close()


@asynccontextmanager
async def open_stage(directory: Path, **environ: str) -> AsyncIterator[Stage]:
    """Serve a leader with scores, and a replica of it. Nothing is frozen yet."""
    stage = Stage(directory, environ)
    with trio.fail_after(PATIENCE_SECONDS):
        async with AsyncExitStack() as nodes:
            await nodes.enter_async_context(serving_leader(stage))
            await stage.fill()
            config = config_of_stage(directory / "replica", **environ)
            stage.replica = await nodes.enter_async_context(serving(config, replica_of(stage.leader.url), stage.now))
            await caught_up(stage.replica)
            await stage.settle()
            yield stage
            await stage.close()


class Watcher:
    """A viewer of the live channel."""

    def __init__(self, connection: WebSocketConnection) -> None:
        self._connection = connection

    async def next(self, *kinds: str) -> dict[str, Any]:
        """Read the next message; with `kinds`, the next of these."""
        while True:
            message: dict[str, Any] = msgspec.json.decode(await self._connection.get_message())
            if not kinds or message["type"].removeprefix("scoreboard_") in kinds:
                return message

    async def subscribe(self, user: str, board: str | None = None) -> dict[str, Any]:
        """Ask for a user's place; the first message about it."""
        wish = {"type": "subscribe", "userId": user, "boardId": board}
        await self._connection.send_message(msgspec.json.encode(wish).decode())
        return await self.next("user")


@asynccontextmanager
async def watching(
    served: Served, board: str, *scopes: str, live: bool = False, deltas: bool = False
) -> AsyncIterator[tuple[Watcher, dict[str, Any]]]:
    """Open the live channel of a board; the viewer and its snapshot."""
    offers = ["scoreboard.delta.v1" if deltas else "scoreboard.v1"]
    if scopes:
        offers.append(f"scoreboard.token.{outside.token(*scopes)}")
    url = f"ws://127.0.0.1:{served.port}/ws/scoreboard?boardId={board}{'&view=live' if live else ''}"
    async with open_websocket_url(url, subprotocols=offers) as connection:
        watcher = Watcher(connection)
        yield watcher, await watcher.next()
