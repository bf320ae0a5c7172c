"""A leader's directory moves into a quorum and out of it, by the real command, on real servers of NATS."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import repeat
from pathlib import Path
from typing import Any

import trio

from tests.e2e import leader as outside
from tests.e2e.client import Client
from tests.e2e.leader import Leader, run, serving
from tests.quorum.servers import Cluster


@asynccontextmanager
async def members(tmp_path: Path, extra: dict[str, str], *names: str) -> AsyncIterator[list[Leader]]:
    """Serve nodes of a quorum, each in the directory of its name."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                serving(
                    tmp_path / name, arguments=["--quorum"], extra={**extra, "SCOREBOARD_REPLICATION_NODE_NAME": name}
                )
            )
            for name in names
        ]


def backend(node: Leader) -> Client:
    """Give a connection that may do everything."""
    return Client(node.host, node.port, outside.token("admin"))


async def leading(*nodes: Leader) -> Leader:
    """Wait until one of the nodes is ready as a leader, and give it."""
    with trio.fail_after(outside.ALARM_SECONDS):
        for pause in repeat(0.2):
            for node in nodes:
                async with backend(node) as client:
                    if (await client.get("/readyz?role=leader")).status == 200:
                        return node
            await trio.sleep(pause)
    raise AssertionError


async def post(node: Leader, action: str) -> dict[str, Any]:
    """Count an action; give the receipt."""
    async with backend(node) as client:
        answer = await client.post("/scores/increment", {"userId": "ann", "actionId": action})
        assert answer.status == 200, answer.body
        receipt: dict[str, Any] = answer.json()
        return receipt


async def test_into_a_quorum_and_out_of_it(tmp_path: Path) -> None:
    """What was counted alone, in the quorum and by whoever led it is there at the end, and each action counts once."""
    async with serving(tmp_path / "a") as alone:
        assert (await post(alone, "one"))["newScore"] == 10
        await alone.terminate()
    async with Cluster(tmp_path / "nats") as cluster:
        await cluster.wait_ready()
        extra = {"SCOREBOARD_QUORUM_SERVERS": ",".join(cluster.urls), "SCOREBOARD_AUTH_JWT_SECRET": outside.SECRET}
        extra["SCOREBOARD_QUORUM_SILENCE_SECONDS"] = "1"
        done = await run("quorum", "import", "--data-dir", str(tmp_path / "a"), "--json", extra=extra)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["imported"] is True
        refused = await run("serve", "--data-dir", str(tmp_path / "a"), extra=extra)
        assert refused.returncode == 2
        assert b"scoreboard serve --quorum" in refused.stderr
        async with members(tmp_path, extra, "a") as [first]:
            await leading(first)
            async with members(tmp_path, extra, "b") as [second]:
                assert (await post(first, "two"))["newScore"] == 20
                assert (await post(first, "one"))["applied"] is False
                status = await run("quorum", "status", "--json", extra=extra)
                seen = json.loads(status.stdout)
                assert (status.returncode, seen["faults"], seen["majority"]) == (0, [], True)
                assert {(node["name"], node["leads"]) for node in seen["nodes"]} == {("a", True), ("b", False)}
                await first.terminate()
                await leading(second)
                assert (await post(second, "three"))["newScore"] == 30
                out = await run("quorum", "export", "--data-dir", str(tmp_path / "a"), "--yes", extra=extra)
                assert out.returncode == 0, out.stderr
                assert b"Start it with: scoreboard serve --data-dir" in out.stderr
                async with backend(second) as client:
                    await client.post("/scores/increment", {"userId": "ann", "actionId": "late"})
                assert await second.wait() == 1
                assert "sealed" in second.stderr()
    async with serving(tmp_path / "a") as again:
        receipts = [await post(again, action) for action in ("one", "two", "three", "four")]
        assert [receipt["applied"] for receipt in receipts] == [False, False, False, True]
        assert receipts[-1]["newScore"] == 40
