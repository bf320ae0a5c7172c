"""The leader dies, the durable replica takes its place, and the old leader's directory comes back as a replica.

    load rests ─► durable has everything ─► (wires cut, the leader alone says yes to LATE actions) ─► kill -9 leader
    ─► promote durable, running or stopped ─► demote the old directory ─► it follows the new leader ─► load goes on

Every action that was acknowledged before the replica had everything must be in the new leader's log: the books check
it. Late actions are the known price of asynchronous replication. Each must be in the list that `demote` prints and in
the directory that it sets aside, and each can be sent again.
"""

from __future__ import annotations

import signal
from random import Random

import trio

from tests.cluster import checks
from tests.cluster.cluster import Cluster
from tests.e2e import leader
from tests.e2e.backends import USERS, Books, Row
from tests.e2e.client import Client

LATE_MAX = 12
STALE_SECONDS_MAX = 30.0


async def promote(cluster: Cluster, books: Books, dice: Random, *, running: bool) -> None:
    """Do all of it. No backend writes during it; readers read on."""
    await checks.settle(cluster, books)
    epoch = await epoch_of(cluster, "leader")
    late: list[Row] = []
    if dice.random() < 0.5:
        late = await write_late(cluster, dice)
    await cluster.stop("leader", signal.SIGKILL)
    await wait_for_stale(cluster, "durable")
    if running:
        await promote_running(cluster)
    else:
        await promote_stopped(cluster)
    assert await epoch_of(cluster, "leader") == epoch + 1
    await check_who_leads(cluster)
    for wire in cluster.wires.values():
        wire.mend()
    await demote_old(cluster, late)
    cluster.wires["shard"].cut()  # ends connections to the old leader, if any are left
    await cluster.start("durable")
    cluster.wires["relay"].cut()  # it followed the node that leads now, and must follow that node's replica
    for row in late:
        await checks.increment(cluster, books, row)


async def write_late(cluster: Cluster, dice: Random) -> list[Row]:
    """Have the leader acknowledge some actions that no replica gets."""
    cluster.wires["durable"].refuse()
    cluster.wires["shard"].refuse()
    node = cluster.nodes["leader"]
    rows: list[Row] = []
    async with Client(node.host, node.port, leader.token("scores:write")) as client:
        for number in range(dice.randint(1, LATE_MAX)):
            action_id = f"late-{cluster.starts}-{number}"
            row = {"userId": dice.choice(USERS), "actionId": action_id, "boardId": "main", "reason": "BONUS"}
            answer = await client.post("/scores/increment", row)
            assert (answer.status, answer.json()["applied"]) == (200, True), answer.body
            rows.append(row)
    return rows


async def wait_for_stale(cluster: Cluster, slot: str) -> None:
    """Wait until a replica says in its answers that its leader is out of reach; it goes on answering."""
    node = cluster.nodes[slot]
    with trio.fail_after(STALE_SECONDS_MAX):
        async with Client(node.host, node.port) as client:
            while True:
                answer = await client.get("/scoreboard/top?boardId=main")
                assert answer.status == 200, answer.body
                body = answer.json()
                if body.get("stale"):
                    assert body["ageMs"] >= 0
                    return
                await trio.sleep(checks.AGAIN_SECONDS)


async def promote_running(cluster: Cluster) -> None:
    """Promote the durable replica as it runs."""
    node = cluster.leave_place("durable")
    url = f"http://{node.host}:{node.port}"
    await command("promote", "--url", url, "--token-file", str(cluster.token_file))
    exchange(cluster)
    cluster.take_place("leader", node)


async def promote_stopped(cluster: Cluster) -> None:
    """Stop the durable replica, promote its directory, and start a leader on it."""
    await cluster.stop("durable", signal.SIGTERM)
    await command("promote", "--data-dir", str(cluster.directories["durable"]))
    exchange(cluster)
    await cluster.start("leader")


def exchange(cluster: Cluster) -> None:
    """Exchange the parts of the two directories."""
    directories = cluster.directories
    directories["leader"], directories["durable"] = directories["durable"], directories["leader"]


async def demote_old(cluster: Cluster, late: list[Row]) -> None:
    """Make the old leader's directory a replica's. `demote` must list and keep what only that directory had."""
    directory = cluster.directories["durable"]
    before = set(directory.parent.glob(f"{directory.name}.aside-*"))
    arguments = ("--data-dir", str(directory), "--to", cluster.wires["durable"].url)
    said = await command("demote", *arguments, "--token-file", str(cluster.token_file))
    aside = set(directory.parent.glob(f"{directory.name}.aside-*")) - before
    for row in late:
        assert row["actionId"] in said, f"{row} was set aside without a word:\n{said}"
    if late:
        assert len(aside) == 1
        rows = await checks.dump(aside.pop())
        assert {row["actionId"] for row in late} <= {row.get("actionId") for row in rows}


async def command(*arguments: str) -> str:
    """Run a command that must succeed; give what it wrote to both outputs."""
    done = await leader.run(*arguments, extra={"SCOREBOARD_AUTH_JWT_SECRET": leader.SECRET})
    said = done.stdout.decode() + done.stderr.decode()
    assert done.returncode == 0, f"scoreboard {' '.join(arguments)} ended with {done.returncode}:\n{said}"
    return said


async def epoch_of(cluster: Cluster, slot: str) -> int:
    """The epoch that a node answers with."""
    node = cluster.nodes[slot]
    async with Client(node.host, node.port) as client:
        return int((await client.get("/scoreboard/top?boardId=main")).json()["epoch"])


async def check_who_leads(cluster: Cluster) -> None:
    """The replica's directory no longer says that it is a replica's, and the old leader's does not say so either."""
    assert not (cluster.directories["leader"] / "replica").exists()
    assert not (cluster.directories["durable"] / "replica").exists()
