"""What must hold whenever no backend writes: every replica is equal to the leader, and the log to the books.

First they wait for all replicas, with reads that carry the leader's seq. Then they ask each replica for everything
that it can tell, read the state in each directory beside its process, and compare the digests.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import trio

from engine.disk import RealDisk
from snapshots.digests import digests_of
from snapshots.promotion import NO_RULES
from snapshots.state import read_state
from tests.cluster.cluster import REPLICAS, SHARD, SHARDS, Cluster, boards_of, shard_of
from tests.e2e import leader
from tests.e2e.backends import BOARDS, USERS, Books, Row, check_log
from tests.e2e.client import Client, ConnectionLost

Told = dict[str, dict[str, Any]]
"""A node's answers: `tops` by board, and `users` by board and user with all their figures."""

SETTLINGS_MAX = 20
"""Attempts to find all requests done: each takes some round trips, and one attempt is nearly always enough."""

SETTLE_SECONDS_MAX = 90.0
"""Until every replica has everything. A replica that lost its leader connects again within ten seconds."""

AGAIN_SECONDS = 0.05


async def last_seq(cluster: Cluster, books: Books) -> int:
    """The leader's last seq: one more increment comes after every request that was still under way."""
    row = {"userId": USERS[0], "actionId": f"last-{len(books.submitted)}", "boardId": "main", "reason": "BONUS"}
    return int((await increment(cluster, books, row))["seq"])


async def increment(cluster: Cluster, books: Books, row: Row) -> Row:
    """Increment at the leader, which must answer 200; note it in the books, and give the receipt."""
    node = cluster.nodes["leader"]
    books.submitted[row["actionId"]] = row
    async with Client(node.host, node.port, leader.token("scores:write")) as client:
        answer = await client.post("/scores/increment", row)
    assert answer.status == 200, answer.body
    receipt: Row = answer.json()
    books.acknowledge(row, receipt)
    return receipt


async def settle(cluster: Cluster, books: Books) -> int:
    """Wait until nothing is under way and every replica has all that the leader has; give the seq.

    A backend that was stopped may have sent a request that the server has not read yet: it still counts, soon after.
    """
    for _ in range(SETTLINGS_MAX):
        seq = await last_seq(cluster, books)
        async with trio.open_nursery() as nursery:
            for slot in REPLICAS:
                nursery.start_soon(wait_for_seq, cluster, slot, seq)
        if await newest_seq(cluster) == seq:
            return seq
    raise AssertionError(f"after {SETTLINGS_MAX} looks something is still under way")


async def newest_seq(cluster: Cluster) -> int:
    """Ask the leader for the seq of the last event on any of its boards."""
    node = cluster.nodes["leader"]
    async with Client(node.host, node.port) as client:
        answers = [await client.get(f"/scoreboard/top?boardId={board_id}") for board_id in boards_of("leader")]
    return max(int(answer.json()["seq"]) for answer in answers)


async def wait_for_seq(cluster: Cluster, slot: str, seq: int) -> None:
    """Wait until a replica answers with everything up to a seq, and is ready."""
    said = ""
    node = cluster.nodes[slot]
    with trio.move_on_after(SETTLE_SECONDS_MAX):
        async with Client(node.host, node.port) as client:
            while True:
                try:
                    answer = await client.get(f"/scoreboard/top?boardId=main&minSeq={seq}")
                    ready = await client.get("/readyz")
                except ConnectionLost as lost:
                    raise AssertionError(f"{slot} is gone: {lost}\n{cluster.stderr(slot)}") from lost
                if answer.status == 200 and ready.status == 200:
                    return
                said = f"{answer.body!r} {ready.body!r}"
                await trio.sleep(AGAIN_SECONDS)
    raise AssertionError(f"{slot} does not reach seq {seq}: {said}\n{cluster.stderr(slot)}")


async def check_replicas(cluster: Cluster, seq: int) -> None:
    """Compare each replica with the leader, row by row and digest by digest, while no backend writes."""
    wanted = await everything(cluster, "leader")
    assert max(board["seq"] for board in wanted["tops"].values()) == seq, "somebody is still writing"
    for slot in REPLICAS:
        check_told(slot, await everything(cluster, slot), wanted)
    await check_wrong_shard(cluster)
    await trio.to_thread.run_sync(check_digests, cluster.directories, seq)


def check_told(slot: str, told: Told, wanted: Told) -> None:
    """Compare a replica's answers with the leader's, for the boards that the replica has."""
    assert set(told) == set(wanted)
    boards = boards_of(slot)
    for part, values in wanted.items():
        expected = {key: value for key, value in values.items() if key.split()[0] in boards}
        assert set(told[part]) == set(expected), f"{slot} tells of other {part} than the leader"
        for key, value in expected.items():
            assert told[part][key] == value, f"{slot} differs from the leader in {part} {key}"


def check_digests(directories: Mapping[str, Path], seq: int) -> None:
    """Compare the states in the directories at a seq; every part of a state counts, the actions too."""
    states = {slot: digest(path, seq) for slot, path in directories.items()}
    assert len(set(states.values())) == 1, f"the states at seq {seq} differ: {states}"


async def everything(cluster: Cluster, slot: str) -> Told:
    """Ask a node for all of its boards: position and rows, and each user's score, rank and neighbours."""
    node = cluster.nodes[slot]
    tops: dict[str, Any] = {}
    users: dict[str, Any] = {}
    async with Client(node.host, node.port) as client:
        for board_id in boards_of(slot):
            answer = await client.get(f"/scoreboard/top?limit=50&boardId={board_id}")
            assert answer.status == 200, (slot, answer.body)
            tops[board_id] = {key: answer.json()[key] for key in ("entries", "boardId", "epoch", "seq")}
            for user_id in USERS:
                answer = await client.get(f"/scores/{user_id}/around?limit=2&boardId={board_id}")
                body = answer.json()
                users[f"{board_id} {user_id}"] = answer.status, body.get("entries"), body.get("seq")
                answer = await client.get(f"/scores/{user_id}?boardId={board_id}")
                body = answer.json()
                row = {key: body.get(key) for key in ("score", "rank", "updatedAt", "epoch", "seq")}
                users[f"{board_id} {user_id} alone"] = answer.status, row
    return {"tops": tops, "users": users}


async def check_wrong_shard(cluster: Cluster) -> None:
    """A replica refuses a board of another shard and names that shard; it takes no write."""
    node = cluster.nodes["shard"]
    assert shard_of("weekly", SHARDS) != SHARD
    async with Client(node.host, node.port) as client:
        answer = await client.get("/scoreboard/top?boardId=weekly")
        assert (answer.status, answer.json()["error"]["code"]) == (421, "WRONG_SHARD"), answer.body
    for slot in REPLICAS:
        node = cluster.nodes[slot]
        async with Client(node.host, node.port, cluster.bearer()) as client:
            row = {"userId": USERS[0], "actionId": f"never-on-{slot}", "boardId": "main"}
            answer = await client.post("/scores/increment", row)
            assert answer.status in (307, 421), (slot, answer.status, answer.body)
            assert answer.status == 307 or answer.json()["error"]["code"] == "NOT_LEADER"


def digest(directory: Path, seq: int) -> str:
    """The digest of a directory's state at a seq, read while its process writes."""
    scoreboard, tail = read_state(RealDisk(), str(directory), NO_RULES, until_seq=seq, tell=lambda _: None)
    assert tail.seq == seq, f"{directory} ends at seq {tail.seq}"
    return digests_of(scoreboard.capture()).whole


async def dump(directory: Path) -> list[Row]:
    """All events of a directory's log."""
    done = await leader.run("log", "dump", "--data-dir", str(directory))
    assert done.returncode == 0, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.splitlines()]


async def check_books(cluster: Cluster, books: Books) -> None:
    """Compare the leader's log with the books, and the other logs with the leader's."""
    rows = await dump(cluster.directories["leader"])
    check_log(rows, books)
    begun = [row["epoch"] for row in rows]
    assert all(one <= other for one, other in pairwise(begun)), "epochs go back"
    for slot in ("durable", "relay"):
        theirs = await dump(cluster.directories[slot])
        assert theirs, f"{slot} has no log"
        assert theirs == rows[-len(theirs) :], f"the log of {slot} is not the end of the leader's"
    assert {row["boardId"] for row in rows if row["type"] == "incremented"} == set(BOARDS)
