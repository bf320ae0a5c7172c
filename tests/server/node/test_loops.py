"""Replicas that follow each other in a loop, and relays: how old the leader's word is, at each of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from structlog.typing import EventDict

from server import bounds
from server.role import State
from tests.cluster.wires import Wire
from tests.e2e.client import Answer
from tests.server.lanes.support import PATIENCE_SECONDS
from tests.server.node.lives import HEARTBEAT_S, Life, holds, increment, is_in, quick
from tests.server.node.nodes import Served, config_for, fill, leader_of_directory, serving
from tests.server.node.test_start import client_of

STALE_MS = 1000 * bounds.STALE_HEARTBEATS * HEARTBEAT_S


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "RECONNECT_SECONDS_MAX", 0.05)


class Chain:
    """A leader and relays, each of which follows the one before it; before each node is a wire."""

    def __init__(self, leader: Served) -> None:
        self.leader = leader
        self.wire = Wire("leader", leader.port)
        self.lives: dict[str, Life] = {}
        self.wires: dict[str, Wire] = {}
        self.nursery: trio.Nursery


@asynccontextmanager
async def chain(directory: Path, names: str) -> AsyncIterator[Chain]:
    """A chain of relays of these names, which have caught up."""
    with trio.fail_after(PATIENCE_SECONDS):
        async with serving(quick(config_for(directory / "leader")), leader_of_directory) as leader:
            await fill(leader)
            nodes = Chain(leader)
            async with trio.open_nursery() as nodes.nursery:
                await nodes.nursery.start(nodes.wire.run)
                url = nodes.wire.url
                for name in names:
                    life = nodes.lives[name] = Life()
                    await nodes.nursery.start(life.live, directory / name, url)
                    wire = nodes.wires[name] = Wire(name, life.served.port)
                    await nodes.nursery.start(wire.run)
                    url = wire.url
                yield nodes
                for life in nodes.lives.values():
                    life.wanted.set()
                for life in nodes.lives.values():
                    await life.ended.wait()
                nodes.nursery.cancel_scope.cancel()


async def read(node: Served, path: str = "/scoreboard/top") -> Answer:
    """Ask a node."""
    async with client_of(node.url) as client:
        return await client.get(path)


async def reason_of(node: Served, word: str) -> str:
    """Wait until a node is not ready for a reason that has this word; give the reason."""
    while True:
        ready = await read(node, "/readyz")
        if ready.status == 503 and word in (reason := str(ready.json()["error"]["details"]["reason"])):
            return reason
        await trio.sleep(HEARTBEAT_S)


@pytest.mark.parametrize("names", ["bc", "bcd"])
async def test_replicas_in_a_loop_are_not_fresh_and_the_loop_is_named(
    tmp_path: Path, names: str, logged: list[EventDict]
) -> None:
    """Replicas in a loop are fresh for ever: b is restarted to follow the last one, and all were ready, with lag 0."""
    async with chain(tmp_path, names) as nodes:
        leader, lives = nodes.leader, nodes.lives
        await lives["b"].end()
        again = lives["b"] = Life()
        nodes.nursery.start_soon(again.live_stale, tmp_path / "b", nodes.wires[names[-1]].url)
        await again.served_event.wait()
        nodes.wires["b"].lead_to(again.served.port)
        for number in range(50):
            await increment(leader, f"later {number}")
        for name in names:
            served = lives[name].served
            await is_in(served, State.STALE)
            reason = await reason_of(served, "loop")
            answer = await read(served)
            body = answer.json()
            assert body["stale"]
            assert int(answer.headers["x-scoreboard-lag-ms"]) >= max(1, body["ageMs"] - 1000)
            assert body["ageMs"] >= STALE_MS
            assert "this node follows" in reason
            assert reason.endswith("which follows this node")
        lines = [line for line in logged if line["event"] == "following" and line["state"] == "refused_loop"]
        assert {line["seq"] for line in lines}
        assert all("loop" in line["reason"] for line in lines)


async def test_the_age_of_the_leaders_word_is_counted_from_the_leader(tmp_path: Path) -> None:
    """At every hop: a relay's heartbeat made its followers look fresh, however old the leader's word was."""
    async with chain(tmp_path, "bcde") as nodes:
        served = [life.served for life in nodes.lives.values()]
        for node in served:
            await is_in(node, State.FOLLOWING)
        nodes.wire.stall()
        for node in served:
            await is_in(node, State.STALE)
        ages = [(await read(node)).json()["ageMs"] for node in served]
        assert max(ages) - min(ages) < STALE_MS, "no relay adds the time that it waits itself"
        nodes.wire.mend()
        seq = (await increment(nodes.leader, "again")).json()["seq"]
        for node in served:
            await is_in(node, State.FOLLOWING)
            await holds(lambda node=node: node.node.scoreboard.seq == seq)  # type: ignore[misc]


async def test_a_chain_without_a_leader_says_which_node_hears_nobody(tmp_path: Path, logged: list[EventDict]) -> None:
    """The last one names the reason that the node before it gives."""
    async with chain(tmp_path, "bc") as nodes:
        nodes.wire.refuse()
        await is_in(nodes.lives["c"].served, State.STALE)
        await holds(lambda: any("does not hear its leader" in line.get("reason", "") for line in logged))
        assert not any("loop" in line.get("reason", "") for line in logged)
