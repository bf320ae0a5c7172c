"""A leader behind TLS with an operator's own authority: SSL_CERT_FILE is what replicas and commands trust."""

from __future__ import annotations

import json
from pathlib import Path

import trio

from tests.e2e.client import Answer, Client
from tests.e2e.leader import ALARM_SECONDS, SECRET, Leader, following, run, serving, token
from tests.e2e.tls import certificates, ending_tls

PROXY = "http://127.0.0.1:9"
"""No proxy is there. A link goes straight to the leader, so a replica's downloads must go straight, too."""


async def increment(node: Leader, action_id: str) -> int:
    """Increment once; give the seq."""
    async with Client(node.host, node.port, token("scores:write")) as client:
        answer = await client.post("/scores/increment", {"userId": "ann", "actionId": action_id})
    assert answer.status == 200, answer.body
    return int(answer.json()["seq"])


async def test_a_replica_follows_and_is_promoted_and_the_old_leader_demoted_through_tls(tmp_path: Path) -> None:
    """The snapshot, the link, the promotion and the question of `demote` all go through the proxy."""
    trusted, context = certificates(tmp_path)
    env = {"SSL_CERT_FILE": str(trusted), "HTTPS_PROXY": PROXY, "HTTP_PROXY": PROXY, "ALL_PROXY": PROXY}
    secret = {"SCOREBOARD_AUTH_JWT_SECRET": SECRET}
    admin = tmp_path / "admin.token"
    admin.write_text(token("admin"))
    old = tmp_path / "leader"
    async with serving(old) as leader:
        saved = await increment(leader, "1")
        assert (await run("snapshot", "take", "--data-dir", str(old))).returncode == 0
        seq = await increment(leader, "2")
        keep = ("--data-dir", str(tmp_path / "replica"))
        async with (
            ending_tls(context, leader.port) as to_leader,
            following(tmp_path, "replica", to_leader, *keep, extra=env) as replica,
            ending_tls(context, replica.port) as to_replica,
        ):
            async with Client(replica.host, replica.port) as client:
                assert (await caught_up(client, seq)).json()["entries"][0]["score"] == 20, replica.stderr()
            assert [path.name for path in (tmp_path / "replica" / "snapshots").iterdir()] == [f"{saved:020}.snapshot"]

            asking = ("--token-file", str(admin), "--json")
            refused = await run("promote", "--url", to_replica, *asking, extra=secret)
            assert (refused.returncode, b"CERTIFICATE_VERIFY_FAILED" in refused.stderr) == (1, True)
            done = await run("promote", "--url", to_replica, *asking, extra=env | secret)
            assert done.returncode == 0, done.stderr
            assert json.loads(done.stdout) == {"epoch": 2, "seq": seq + 1}
            await leader.kill()
            demoted = await run("demote", "--data-dir", str(old), "--to", to_replica, *asking, extra=env | secret)
            assert demoted.returncode == 0, demoted.stderr
            assert json.loads(demoted.stdout)["commonSeq"] == seq


async def caught_up(client: Client, seq: int) -> Answer:
    """Ask for a position until the replica has caught up for the first time; before, it shows nothing."""
    with trio.fail_after(ALARM_SECONDS):
        while True:
            answer = await client.get(f"/scoreboard/top?minSeq={seq}")
            if answer.status == 200:
                return answer
            await trio.sleep(0.05)


async def test_an_authority_that_is_not_trusted_is_not_followed(tmp_path: Path) -> None:
    """The replica writes the reason to its log, and is not ready."""
    _, context = certificates(tmp_path)
    async with serving(tmp_path / "leader") as leader, ending_tls(context, leader.port) as to_leader:
        await increment(leader, "1")
        shard = ("--shard", "1/1")
        async with following(tmp_path, "shard", to_leader, *shard) as replica:
            with trio.fail_after(ALARM_SECONDS):
                while "CERTIFICATE_VERIFY_FAILED" not in replica.stderr():  # noqa: ASYNC110  # only its file tells
                    await trio.sleep(0.05)
            async with Client(replica.host, replica.port) as client:
                assert (await client.get("/readyz")).status == 503
                assert (await client.get("/scoreboard/top")).status == 503
