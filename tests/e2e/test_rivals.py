"""Real processes: two replicas are promoted at once, and the loser's directory is taken back by the command."""

from __future__ import annotations

import json
from pathlib import Path

import trio

from tests.e2e.client import Client
from tests.e2e.leader import ALARM_SECONDS, QUICK_RETRIES, Leader, following, run, serving, token


async def ask(
    node: Leader, method: str, path: str, body: dict[str, str] | None = None
) -> tuple[int, dict[str, object]]:
    """Ask a node with every right."""
    async with Client(node.host, node.port, token("admin")) as client:
        answer = await (client.get(path) if method == "GET" else client.post(path, body or {}))
    return answer.status, answer.json()


async def increment(node: Leader, action_id: str) -> int:
    """Count an action; give the status."""
    status, _ = await ask(node, "POST", "/scores/increment", {"userId": "ann", "actionId": action_id})
    return status


async def ready(node: Leader) -> str:
    """Give why a node is not ready, "" if it is."""
    status, body = await ask(node, "GET", "/readyz")
    return "" if status == 200 else json.dumps(body)


async def wait_ready(*nodes: Leader, count: int) -> None:
    """Ask nodes until this many of them are ready."""
    while True:
        if [await ready(node) for node in nodes].count("") == count:
            return
        await trio.sleep(0.1)


async def test_two_promotions_at_once_leave_one_leader_and_a_list(tmp_path: Path) -> None:
    """Two promotions make two leaders in one epoch, for ever; `demote` refused and listed nothing."""
    with trio.fail_after(2 * ALARM_SECONDS):
        async with (
            serving(tmp_path / "old") as old,
            following(tmp_path, "one", old.url, "--data-dir", str(tmp_path / "one"), constants=QUICK_RETRIES) as one,
            following(
                tmp_path, "other", old.url, "--data-dir", str(tmp_path / "other"), constants=QUICK_RETRIES
            ) as other,
        ):
            assert await increment(old, "before") == 200
            await wait_ready(one, other, count=2)
            await old.kill()  # so that nobody tells them of each other, until a process is there again
            nodes = {"one": one, "other": other}
            async with trio.open_nursery() as nursery:
                for node in nodes.values():
                    nursery.start_soon(ask, node, "POST", "/replication/promote")
            for name, node in nodes.items():
                assert await increment(node, f"at {name}") == 200
            async with serving(tmp_path / "old", arguments=["--bind", f"127.0.0.1:{old.port}"]):
                await wait_ready(one, other, count=1)
            loser = "one" if await ready(one) else "other"
            winner = nodes["other" if loser == "one" else "one"]
            assert "began elsewhere" in await ready(nodes[loser])
            assert await ready(winner) == ""
            assert (await increment(nodes[loser], "late"), await increment(winner, "late")) == (421, 200)
            await nodes[loser].kill()
            done = await run(
                "demote", "--data-dir", str(tmp_path / loser), "--to", winner.url,
                "--token-file", str(tmp_path / "log-read.token"), "--json",
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            assert [action["actionId"] for action in json.loads(done.stdout)["actions"]] == [f"at {loser}"]
