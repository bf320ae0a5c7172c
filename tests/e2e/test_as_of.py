"""The past of a board, asked of real processes: a leader, a replica and a shard, also after a kill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import trio

from server.replication.sharding import shard_of
from tests.e2e import leader as outside
from tests.e2e.client import Client
from tests.e2e.leader import Leader, serving, token

BOARDS = {"SCOREBOARD_BOARDS_MAIN_POINTS": "ACTION_COMPLETED=10", "SCOREBOARD_AUTH_JWT_SECRET": outside.SECRET}
COUNT = 6


def client_of(node: Leader) -> Client:
    return Client(node.host, node.port, token("scores:read", "scores:write"))


async def past_of(client: Client, seq: int) -> Any:
    """Ask until the process has started and answered: a busy machine may be slow."""
    with trio.fail_after(outside.ALARM_SECONDS):
        while (answer := await client.get(f"/scoreboard/top?asOfSeq={seq}")).status == 503:  # noqa: ASYNC110  # as above
            await trio.sleep(0.1)
    assert answer.status == 200, answer.body
    return answer.json()


def readers_below(node: Leader) -> list[int]:
    """List the processes that read the past for a node."""
    threads = Path(f"/proc/{node.process.pid}/task").iterdir()
    return [int(pid) for thread in threads for pid in (thread / "children").read_text(encoding="ascii").split()]


async def test_leader_and_replica_show_the_past_and_a_shard_names_the_leader(tmp_path: Path) -> None:
    """At each seq the rows of then. A kill of the leader ends its reader too; the next leader answers the same."""
    directory = tmp_path / "leader"
    async with serving(directory, extra=BOARDS) as leader:
        async with client_of(leader) as client:
            seqs, tops = [], []
            for number in range(COUNT):
                body = {"userId": f"u{number % 3}", "actionId": f"a{number}"}
                seqs.append((await client.post("/scores/increment", body)).json()["seq"])
                tops.append((await client.get("/scoreboard/top")).json()["entries"])
            assert await rows(client, seqs) == tops
            replica = ("--data-dir", str(tmp_path / "replica"))
            shard = ("--shard", f"{shard_of('main', 2)}/2")
            async with (
                outside.following(tmp_path, "replica", leader.url, *replica, extra=BOARDS) as second,
                outside.following(tmp_path, "shard", leader.url, *shard, extra=BOARDS) as third,
                client_of(second) as at_second,
                client_of(third) as at_third,
            ):
                await at_second.get(f"/scoreboard/top?minSeq={seqs[-1]}")
                assert await rows(at_second, seqs) == tops
                await at_third.get(f"/scoreboard/top?minSeq={seqs[-1]}")
                refused = await at_third.get(f"/scoreboard/top?asOfSeq={seqs[0]}")
                assert (refused.status, refused.json()["error"]["code"]) == (421, "NOT_LEADER")
        [reader] = readers_below(leader)
        await leader.kill()
        with trio.fail_after(outside.ALARM_SECONDS):
            while Path(f"/proc/{reader}").exists():  # noqa: ASYNC110, ASYNC240  # its end is no event of ours
                await trio.sleep(0.02)
    async with serving(directory, extra=BOARDS) as leader, client_of(leader) as client:
        assert await rows(client, seqs) == tops
        ahead = await client.get("/scoreboard/top?asOfSeq=999")
        assert (ahead.status, ahead.json()["error"]["details"]["field"]) == (400, "asOfSeq")


async def rows(client: Client, seqs: list[int]) -> list[Any]:
    """Give the rows after each action."""
    return [(await past_of(client, seq))["entries"] for seq in seqs]
