"""One user's live place, with real nodes: from a leader, and from a replica that follows it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from trio_websocket import WebSocketConnection, open_websocket_url

from tests.e2e.client import Client
from tests.e2e.leader import ALARM_SECONDS, SECRET, Leader, following, serving, token

BOARDS = {
    "SCOREBOARD_BOARDS_MAIN_POINTS": "ACTION_COMPLETED=10",
    "SCOREBOARD_BOARDS_WEEKLY_POINTS": "ACTION_COMPLETED=1",
}
REPLICA = {"SCOREBOARD_AUTH_JWT_SECRET": SECRET, **BOARDS}


class Watcher:
    """A viewer of one connection."""

    def __init__(self, connection: WebSocketConnection) -> None:
        self.connection = connection

    async def message(self, kind: str) -> Any:
        """Read on to the next message of a type."""
        with trio.fail_after(ALARM_SECONDS):
            while (message := json.loads(await self.connection.get_message()))["type"] != kind:
                pass
        return message

    async def ask(self, answer: str = "scoreboard_user", **fields: str) -> Any:
        """Subscribe, and read on to the answer."""
        await self.connection.send_message(json.dumps({"type": "subscribe", **fields}))
        return await self.message(answer)


@asynccontextmanager
async def watching(node: Leader, user: str | None = None) -> AsyncIterator[Watcher]:
    """Open the live channel of a node, with the token of a user."""
    offers = ["scoreboard.v1"]
    if user is not None:
        offers.append(f"scoreboard.token.{token('scores:read', user=user)}")
    url = f"ws://{node.host}:{node.port}/ws/scoreboard"
    async with open_websocket_url(url, subprotocols=offers) as connection:
        watcher = Watcher(connection)
        await watcher.message("scoreboard_snapshot")
        yield watcher


async def score(client: Client, user: str, *actions: str, board: str = "main") -> int:
    """Give a user points on a board; the last seq."""
    for action in actions:
        body = {"userId": user, "actionId": f"{board} {user} {action}", "boardId": board}
        answer = await client.post("/scores/increment", body)
        assert answer.status == 200
    return int(answer.json()["seq"])


async def test_a_user_is_told_the_own_place_on_two_boards(tmp_path: Path) -> None:
    """Who passed, on one board; the first points, on the other. A token of another user is refused."""
    async with (
        serving(tmp_path / "data", extra=BOARDS) as leader,
        Client(leader.host, leader.port, token("scores:write", "scores:read")) as client,
    ):
        await score(client, "ann", "1", "2")
        async with watching(leader, "ann") as ann:
            first = await ann.ask()
            assert (first["boardId"], first["userId"], first["rank"], first["score"]) == ("main", "ann", 1, 20)
            assert (await ann.ask(boardId="weekly"))["rank"] is None
            refusal = await ann.ask("error", userId="ben")
            assert (refusal["code"], refusal["details"]) == ("UNAUTHORIZED", {"field": "userId"})
            await score(client, "ann", "1", board="weekly")
            weekly = await ann.message("scoreboard_user")
            assert (weekly["boardId"], weekly["rank"], weekly["score"], weekly["overtaken"]) == ("weekly", 1, 1, [])
            seq = await score(client, "ben", "1", "2", "3")
            passed = await ann.message("scoreboard_user")
            assert (passed["rank"], passed["gapToNext"], passed["seq"]) == (2, 10, seq)
            assert passed["overtaken"] == [{"userId": "ben", "score": 30, "rank": 1}]
            metrics = (await client.get("/metrics")).body.decode()
            assert "scoreboard_live_subscriptions 2.0" in metrics
            assert 'scoreboard_live_messages_total{kind="user"} 4.0' in metrics


async def test_a_private_board_needs_a_token_and_binds_it(tmp_path: Path) -> None:
    """A token without a user may subscribe to any user."""
    private = {**BOARDS, "SCOREBOARD_AUTH_PUBLIC_READS": "false"}
    async with serving(tmp_path / "data", extra=private) as leader:
        async with watching(leader, "ann") as ann:
            assert (await ann.ask())["userId"] == "ann"
            assert (await ann.ask("error", userId="ben"))["code"] == "UNAUTHORIZED"
        bearer = f"Bearer {token('scores:read')}"
        url = f"ws://{leader.host}:{leader.port}/ws/scoreboard"
        async with open_websocket_url(url, extra_headers=[(b"authorization", bearer.encode())]) as connection:
            anyone = Watcher(connection)
            assert (await anyone.ask(userId="ben"))["userId"] == "ben"
            assert (await anyone.ask("error"))["details"] == {"field": "userId"}


async def test_a_replica_tells_the_same(tmp_path: Path) -> None:
    """Its frames come from the leader; who passed is found on the replica."""
    async with (
        serving(tmp_path / "leader", extra=BOARDS) as leader,
        Client(leader.host, leader.port, token("scores:write")) as client,
        following(tmp_path, "replica", leader.url, "--data-dir", str(tmp_path / "replica"), extra=REPLICA) as replica,
    ):
        seq = await score(client, "ann", "1", "2")
        async with Client(replica.host, replica.port, token("admin")) as reader:
            with trio.fail_after(ALARM_SECONDS):
                while (await reader.get(f"/scores/ann?minSeq={seq}")).status != 200:  # noqa: ASYNC110  # another process
                    await trio.sleep(0.05)
        async with watching(replica) as viewer:
            assert (await viewer.ask(userId="ann"))["rank"] == 1
            seq = await score(client, "ben", "1", "2", "3")
            passed = await viewer.message("scoreboard_user")
            assert (passed["seq"], passed["rank"]) == (seq, 2)
            assert passed["overtaken"] == [{"userId": "ben", "score": 30, "rank": 1}]
