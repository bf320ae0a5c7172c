"""Clients of every kind at once on a real leader: each acknowledged action counts once, and no file is left open."""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import trio

from tests.e2e import leader
from tests.e2e.client import Client
from tests.server.lanes.support import Client as RawClient

CLIENTS = 80
REQUESTS = 20
POINTS = 10
SEED = 20_251_215
USERS = [f"user-{n}" for n in range(17)]


async def come(node: leader.Leader) -> RawClient:
    """Connect."""
    return RawClient(await trio.open_tcp_stream(node.host, node.port))


class Storm:
    """What the clients know: which actions were acknowledged, and which were sent and got no answer."""

    def __init__(self, node: leader.Leader) -> None:
        self.node = node
        bearer = leader.token("scores:write", "scores:read", sub="storm")
        self.head = f"POST /scores/increment HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {bearer}\r\n".encode()
        self.acknowledged: dict[str, str] = {}
        self.unanswered: dict[str, str] = {}
        self.statuses: Counter[int] = Counter()

    def increment(self, user: str, action: str) -> bytes:
        body = json.dumps({"userId": user, "actionId": action}).encode()
        return self.head + b"Content-Length: %d\r\n\r\n" % len(body) + body

    async def run_client(self, number: int) -> None:
        """Do one thing after another, on one connection while it lives."""
        chance = random.Random(SEED + number)
        raw: RawClient | None = None
        for n in range(REQUESTS):
            raw = raw or await come(self.node)
            conduct = chance.choice(CONDUCTS)
            actions = {f"{number}-{n}-{k}": chance.choice(USERS) for k in range(chance.randint(1, 4))}
            if not await conduct(self, raw, actions, chance):
                await raw.stream.aclose()
                raw = None
        if raw is not None:
            await raw.stream.aclose()

    async def expect(self, raw: RawClient, actions: dict[str, str]) -> None:
        """Read the answers to actions, which come in their order."""
        for action, user in actions.items():
            status, body = await self.answer(raw)
            assert (status, body["actionId"], body["userId"], body["applied"]) == (200, action, user, True)
            self.acknowledged[action] = user

    async def answer(self, raw: RawClient) -> tuple[int, Any]:
        """Read one answer."""
        answer = await raw.answer()
        self.statuses[answer.status] += 1
        return answer.status, json.loads(answer.body)


async def one_by_one(storm: Storm, raw: RawClient, actions: dict[str, str], _chance: random.Random) -> bool:
    """Each after the answer to the one before."""
    for action, user in actions.items():
        await raw.send(storm.increment(user, action))
        await storm.expect(raw, {action: user})
    return True


async def pipelined(storm: Storm, raw: RawClient, actions: dict[str, str], _chance: random.Random) -> bool:
    """All at once."""
    await raw.send(b"".join(storm.increment(user, action) for action, user in actions.items()))
    await storm.expect(raw, actions)
    return True


async def in_pieces(storm: Storm, raw: RawClient, actions: dict[str, str], chance: random.Random) -> bool:
    """All at once, but cut anywhere, with others in between."""
    data = b"".join(storm.increment(user, action) for action, user in actions.items())
    while data:
        size = chance.randint(1, len(data))
        await raw.send(data[:size])
        data = data[size:]
        await trio.sleep(chance.choice((0.0, 0.002)))
    await storm.expect(raw, actions)
    return True


async def half_closed(storm: Storm, raw: RawClient, actions: dict[str, str], _chance: random.Random) -> bool:
    """All at once, and then only read."""
    await raw.send(b"".join(storm.increment(user, action) for action, user in actions.items()))
    await raw.stream.send_eof()
    await storm.expect(raw, actions)
    assert await raw.ended()
    return False


async def good_and_bad(storm: Storm, raw: RawClient, actions: dict[str, str], _chance: random.Random) -> bool:
    """A bad body before each; they are answered in order, and the connection goes on."""
    for action, user in actions.items():
        await raw.send(storm.increment("", "bad") + storm.increment(user, action))
        assert (await storm.answer(raw))[0] == 400
        await storm.expect(raw, {action: user})
    return True


async def no_http(storm: Storm, raw: RawClient, actions: dict[str, str], _chance: random.Random) -> bool:
    """All are answered; then bytes that are no HTTP are refused, and the connection ends."""
    await raw.send(b"".join(storm.increment(user, action) for action, user in actions.items()) + b"?\r\n\r\n")
    await storm.expect(raw, actions)
    assert (await storm.answer(raw))[0] == 400
    assert await raw.ended()
    return False


async def aborted(storm: Storm, raw: RawClient, actions: dict[str, str], chance: random.Random) -> bool:
    """Reset the connection before any answer: each action may be applied or not."""
    data = b"".join(storm.increment(user, action) for action, user in actions.items())
    storm.unanswered |= actions
    await raw.send(data[: chance.randint(1, len(data))])
    await raw.reset()
    return False


async def reading(_storm: Storm, raw: RawClient, _actions: dict[str, str], _chance: random.Random) -> bool:
    """The top, between increments of others."""
    await raw.send(b"GET /scoreboard/top HTTP/1.1\r\nHost: x\r\n\r\n")
    status, body = await _storm.answer(raw)
    assert (status, body["boardId"]) == (200, "main")
    return True


CONDUCTS = (one_by_one, pipelined, in_pieces, half_closed, good_and_bad, no_http, aborted, reading)


def open_files(node: leader.Leader) -> int:
    return len(os.listdir(f"/proc/{node.process.pid}/fd"))


def cpu_seconds(node: leader.Leader) -> float:
    """User and system time of the process (proc(5): fields 14 and 15, after the name in parentheses)."""
    fields = Path(f"/proc/{node.process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def wait_files(node: leader.Leader, count: int) -> None:
    """Wait until the process has no more open files than that."""
    with trio.fail_after(leader.ALARM_SECONDS):
        while open_files(node) > count:  # noqa: ASYNC110  # another process tells nobody when it closes a file
            await trio.sleep(0.05)


async def test_whatever_clients_do_each_acknowledged_action_counts_once(tmp_path: Path) -> None:
    """Scores are the sum of all actions that are acknowledged or found applied; no 500, and no file is left open."""
    config = tmp_path / "config.toml"
    config.write_text("[limits]\ncaller_per_minute = 1000000\nuser_per_minute = 1000000\n", encoding="utf-8")
    async with leader.serving(tmp_path / "data", config=config) as node:
        async with Client(node.host, node.port) as client:
            assert (await client.get("/scoreboard/top")).status == 200
        files = open_files(node)
        storm = Storm(node)
        with trio.fail_after(leader.ALARM_SECONDS):
            async with trio.open_nursery() as nursery:
                for number in range(CLIENTS):
                    nursery.start_soon(storm.run_client, number)
        await wait_files(node, files)
        assert set(storm.statuses) == {200, 400}, f"seed {SEED}"
        expected = Counter(storm.acknowledged.values())
        async with Client(node.host, node.port, leader.token("scores:read")) as client:
            for action, user in storm.unanswered.items():
                expected[user] += (await client.get(f"/actions/{action}")).status == 200
            for user in USERS:
                assert (await client.get(f"/scores/{user}")).json()["score"] == POINTS * expected[user], f"seed {SEED}"
        assert await node.terminate() == 0
        assert "Traceback" not in node.stderr()
        assert "internal_error" not in node.stderr()


async def test_parked_connections_cost_next_to_nothing(tmp_path: Path) -> None:
    """Hundreds of connections, half of them half-closed or silent within a request: the process sleeps."""
    async with leader.serving(tmp_path / "data") as node:
        everyone = [await come(node) for _ in range(300)]
        storm = Storm(node)
        for raw in everyone:
            await reading(storm, raw, {}, random.Random(SEED))
        for raw in everyone[:100]:
            await raw.send(b"GET /score")
        before = cpu_seconds(node)
        await trio.sleep(2.0)
        assert cpu_seconds(node) - before < 0.5, "a loop that spins would have used two seconds"
        for raw in everyone[100:]:
            await reading(storm, raw, {}, random.Random(SEED))
        for raw in everyone:
            await raw.stream.aclose()
