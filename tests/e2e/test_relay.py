"""A relay that does not hear its leader any more: its follower must not take the living link for news.

    leader ══ wire ══► relay ══► follower

The wire is stalled: its connections stay open, and nothing arrives.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from server.replication.link import LinkTiming, open_link, parse_leader
from server.replication.messages import LOG_PATH, NoLeader, decode_from_leader
from tests.cluster.wires import Wire
from tests.e2e.client import Answer, Client
from tests.e2e.leader import ALARM_SECONDS, QUICK_RETRIES, Leader, following, serving, token

TOP = "/scoreboard/top"


@asynccontextmanager
async def chain(directory: Path) -> AsyncIterator[tuple[Leader, Wire, Leader, Leader]]:
    """Leader, wire, relay, follower."""
    async with trio.open_nursery() as nursery, serving(directory / "leader") as leader:
        wire = Wire("relay")
        await nursery.start(wire.run)
        wire.lead_to(leader.port)
        async with (
            following(directory, "relay", wire.url, constants=QUICK_RETRIES) as relay,
            following(directory, "follower", relay.url, constants=QUICK_RETRIES) as follower,
        ):
            yield leader, wire, relay, follower
            nursery.cancel_scope.cancel()


async def increment(node: Leader, action_id: str) -> int:
    """Increment once; give the seq."""
    async with Client(node.host, node.port, token("scores:write")) as client:
        answer = await client.post("/scores/increment", {"userId": "ann", "actionId": action_id})
    assert answer.status == 200, answer.body
    return int(answer.json()["seq"])


async def wait_top(node: Leader, *, stale: bool, seq: int) -> Answer:
    """Ask a node for the top until it has this seq, and is stale or fresh as expected."""
    async with Client(node.host, node.port) as client:
        with trio.fail_after(ALARM_SECONDS):
            while True:
                answer = await client.get(TOP)
                if answer.status == 200:
                    body = answer.json()
                    if (body.get("stale", False), body["seq"]) == (stale, seq):
                        return answer
                await trio.sleep(0.05)


async def test_silence_goes_down_the_chain_and_so_does_news(tmp_path: Path) -> None:
    """The wire to the leader stalls: the relay is stale, and so is its follower, although the relay still answers;
    neither shows the newer event. The wire carries again: both have the event, and are fresh.
    """
    async with chain(tmp_path) as (leader, wire, relay, follower):
        seq = await increment(leader, "before")
        for node in (relay, follower):
            await wait_top(node, stale=False, seq=seq)
        wire.stall()
        later = await increment(leader, "meanwhile")
        at_relay = await wait_top(relay, stale=True, seq=seq)
        assert at_relay.json()["ageMs"] >= 3_000
        at_follower = await wait_top(follower, stale=True, seq=seq)
        assert at_follower.json()["ageMs"] >= 3_000
        again = await wait_top(follower, stale=True, seq=seq)
        assert again.json()["ageMs"] > at_follower.json()["ageMs"]

        # The link is what the relay refuses; as a server it is well.
        async with Client(relay.host, relay.port, token("log:read")) as client:
            assert (await client.get("/healthz")).status == 200
        target = f"{LOG_PATH}?after=0&epoch=1"
        async with open_link(
            parse_leader(relay.url), target, token("log:read"), message_bytes_max=2**20, timing=LinkTiming()
        ) as link:
            said = decode_from_leader(str(await link.receive(ALARM_SECONDS)))
        assert isinstance(said, NoLeader)
        assert "does not hear its leader" in said.reason
        assert len(said.path) == 2, "the relay, and the leader that it heard"

        wire.mend()
        for node in (relay, follower):
            await wait_top(node, stale=False, seq=later)
