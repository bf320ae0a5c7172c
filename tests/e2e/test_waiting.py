"""A new replica without its leader: it listens, says what it waits for, and goes on by itself."""

from __future__ import annotations

import socket
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import trio

from tests.e2e import leader as outside
from tests.e2e.client import Answer, Client
from tests.e2e.leader import Leader, serving, token

QUICK = outside.QUICK_RETRIES


def free_address() -> str:
    """An address that nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{sock.getsockname()[1]}"


async def readiness(node: Leader, word: str) -> Answer:
    """Ask for the readiness until its body has this word."""
    with trio.fail_after(outside.ALARM_SECONDS):
        while True:
            async with Client(node.host, node.port, token("admin")) as client:
                answer = await client.get("/readyz")
            if word in answer.body.decode():
                return answer
            await trio.sleep(0.1)


async def test_a_new_replica_answers_before_its_leader_does(tmp_path: Path) -> None:
    """It is alive and not ready, with the reason. When the leader comes it follows, on the same address."""
    address = free_address()
    following = outside.following(tmp_path, "replica", f"http://{address}", constants=QUICK)
    async with following as replica, Client(replica.host, replica.port, token("admin")) as client:
        assert (await client.get("/healthz")).status == 200
        reason = await readiness(replica, "no snapshot came")
        assert reason.status == 503
        assert "bootstrapping" in reason.body.decode()
        for path in ("/scoreboard/top", "/scores/ann", "/scoreboard"):
            answer = await client.get(path)
            assert (answer.status, answer.json()["error"]["code"]) == (503, "REPLICA_BEHIND"), path
        write = await client.post("/scores/increment", {"userId": "ann", "actionId": "a1"})
        assert (write.status, write.json()["error"]["code"]) in ((421, "NOT_LEADER"), (307, "NOT_LEADER"))
        assert (await client.post("/replication/promote", {})).status == 409
        async with serving(tmp_path / "leader", arguments=["--bind", address]) as leader:
            async with Client(leader.host, leader.port, token("admin")) as writer:
                assert (await writer.post("/scores/increment", {"userId": "ann", "actionId": "a1"})).status == 200
            assert (await readiness(replica, '"ready"')).status == 200
            async with Client(replica.host, replica.port, token("admin")) as reader:
                top = await reader.get("/scoreboard/top?minSeq=1")
            assert [entry["userId"] for entry in top.json()["entries"]] == ["ann"]
            assert replica.stdout().count(outside.READY) == 1
        assert await replica.terminate() == 0


async def test_a_new_replica_that_waits_ends_when_it_is_told_to(tmp_path: Path) -> None:
    """With exit code 0."""
    async with outside.following(tmp_path, "replica", f"http://{free_address()}") as replica:
        await readiness(replica, "no snapshot came")
        assert await replica.terminate() == 0


async def test_new_replicas_that_wait_for_each_other_are_named(tmp_path: Path) -> None:
    """Two of them, and one that waits for itself: the reason is a loop, with the addresses."""
    one, two, alone = free_address(), free_address(), free_address()

    def follow(name: str, own: str, other: str) -> AbstractAsyncContextManager[Leader]:
        return outside.following(tmp_path, name, f"http://{other}", "--bind", own, constants=QUICK)

    async with follow("one", one, two) as first, follow("two", two, one) as second, follow("self", alone, alone) as own:
        for node, other in ((first, two), (second, one)):
            answer = await readiness(node, "in a loop")
            assert f"this node follows http://{other}, which follows this node" in answer.body.decode()
            assert answer.status == 503
        assert (await readiness(own, "this node follows itself")).status == 503
