"""Real processes: a leader, a replica, a relay, a shard; lag, staleness, promotion of both kinds, demotion."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from server.replication.sharding import shard_of
from tests.cluster.wires import Wire
from tests.e2e import leader as outside
from tests.e2e.client import Answer, Client
from tests.e2e.leader import Leader, run, serving, token

BOARDS = {
    "SCOREBOARD_BOARDS_MAIN_POINTS": "ACTION_COMPLETED=10",
    "SCOREBOARD_BOARDS_WEEKLY_POINTS": "ACTION_COMPLETED=1",
}
ADDED = {"SCOREBOARD_AUTH_JWT_SECRET": outside.SECRET, **BOARDS}


@asynccontextmanager
async def following(tmp_path: Path, name: str, url: str, *arguments: str, **extra: str) -> AsyncIterator[Leader]:
    """A replica that knows the boards."""
    async with outside.following(tmp_path, name, url, *arguments, extra={**ADDED, **extra}) as replica:
        yield replica


def client(node: Leader) -> Client:
    return Client(node.host, node.port, token("admin"))


async def until(ask: Callable[[], Any], good: Callable[[Answer], bool]) -> Answer:
    """Ask again and again until the answer is good."""
    with trio.fail_after(outside.ALARM_SECONDS):
        while not good(answer := await ask()):  # noqa: ASYNC110  # another process: there is only its answer to wait for
            await trio.sleep(0.05)
    return answer  # type: ignore[no-any-return]  # the client's own


async def increment(node: Client, action: str, board: str = "main") -> Answer:
    return await node.post("/scores/increment", {"userId": "ann", "actionId": action, "boardId": board})


def code_of(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json()["error"]["code"]


async def test_a_replica_a_relay_and_a_shard_serve_what_the_leader_has(tmp_path: Path) -> None:
    """Reads with minSeq see the write, with lag headers, in 200 and 304; writes are redirected."""
    async with (
        serving(tmp_path / "leader", extra=BOARDS) as leader,
        following(tmp_path, "replica", leader.url, "--data-dir", str(tmp_path / "replica")) as replica,
        following(tmp_path, "relay", replica.url) as relay,
        following(tmp_path, "shard", leader.url, "--shard", f"{shard_of('main', 2)}/2") as shard,
        client(leader) as write,
    ):
        position = (await increment(write, "1")).json()
        query = f"minSeq={position['seq']}&minEpoch={position['epoch']}"
        for node in (replica, relay, shard):
            async with client(node) as read:
                await until(lambda read=read: read.get("/readyz"), lambda answer: answer.status == 200)  # type: ignore[misc]
                answer = await read.get(f"/scoreboard/top?{query}")
                assert (answer.status, answer.json()["entries"][0]["score"]) == (200, 10)
                assert answer.headers["x-scoreboard-lag-records"] == "0"
                hot = await read.get("/scoreboard/top", {"if-none-match": answer.headers["etag"]})
                assert hot.status == 304
                assert {"x-scoreboard-lag-records", "x-scoreboard-lag-ms"} <= set(hot.headers)
                assert "stale" not in answer.json()
                refused = await increment(read, "2")
                assert code_of(refused) == (421, "NOT_LEADER")
        async with client(shard) as read:
            other = await read.get("/scoreboard/top?boardId=weekly")
            if shard_of("weekly", 2) != shard_of("main", 2):
                assert code_of(other) == (421, "WRONG_SHARD")
            assert code_of(await read.get("/actions/1")) == (421, "NOT_LEADER")
        assert await relay.terminate() == 0


async def test_a_leader_with_a_public_address_gets_the_writes(tmp_path: Path) -> None:
    """A write gets 307 with the whole address of the request."""
    extra = {**BOARDS, "SCOREBOARD_REPLICATION_PUBLIC_URL": "https://scores.example"}
    async with (
        serving(tmp_path / "leader", extra=extra) as leader,
        following(tmp_path, "replica", leader.url) as replica,
        client(replica) as ask,
    ):
        answer = await until(lambda: increment(ask, "1"), lambda answer: answer.status == 307)
        assert answer.headers["location"] == "https://scores.example/scores/increment"


async def test_minimum_positions_and_a_leader_that_is_gone(tmp_path: Path) -> None:
    """A position that does not come in time: 503 with the lag. A dead leader: stale, another ETag, then not ready."""
    quick = {"SCOREBOARD_REPLICATION_BEHIND_WAIT_SECONDS": "0", "SCOREBOARD_REPLICATION_READY_AGE_SECONDS": "4"}
    async with (
        serving(tmp_path / "leader", extra={**BOARDS, **quick}) as leader,
        following(tmp_path, "replica", leader.url, **quick) as replica,
        client(leader) as write,
        client(replica) as read,
    ):
        seq = (await increment(write, "1")).json()["seq"]
        await until(lambda: read.get(f"/scoreboard/top?minSeq={seq}"), lambda answer: answer.status == 200)
        for node in (write, read):
            behind = await node.get("/scores/ann?minSeq=999")
            assert code_of(behind) == (503, "REPLICA_BEHIND")
            assert behind.headers["retry-after"] == "1"
        assert (await read.get("/scores/ann?minSeq=999")).json()["error"]["details"]["lagRecords"] == 0
        fresh = await read.get("/scoreboard/top")
        await leader.kill()
        stale = await until(lambda: read.get("/scoreboard/top"), lambda answer: answer.json().get("stale") is True)
        assert stale.json()["ageMs"] >= 3_000
        assert stale.headers["etag"] != fresh.headers["etag"]
        assert (await read.get("/scores/ann")).json()["stale"] is True
        assert (await read.get("/scores/ann/around")).json()["stale"] is True
        assert (await read.get("/actions/1")).json()["stale"] is True
        await until(lambda: read.get("/readyz"), lambda answer: answer.status == 503)


async def left_alone(tmp_path: Path) -> str:
    """The directory of a replica that had everything when it and its leader ended, and the leader's address."""
    async with following_pair(tmp_path) as (leader, replica):
        async with client(leader) as write, client(replica) as read:
            seq = (await increment(write, "1")).json()["seq"]
            await until(lambda: read.get(f"/scoreboard/top?minSeq={seq}"), lambda answer: answer.status == 200)
        assert await replica.terminate() == 0
        await leader.kill()
        return leader.url


async def test_a_replica_that_starts_without_its_leader_says_that_its_lag_is_unknown(tmp_path: Path) -> None:
    """It serves its disk's state at once; every answer has the state's age, and no number of records."""
    url = await left_alone(tmp_path)
    async with (
        following(tmp_path, "alone", url, "--data-dir", str(tmp_path / "replica")) as alone,
        client(alone) as read,
    ):
        for target, status in (("/scoreboard/top", 200), ("/scores/ann", 200), ("/scores/nobody", 404)):
            answer = await read.get(target)
            assert (answer.status, answer.headers["x-scoreboard-lag-records"]) == (status, "unknown")
            assert int(answer.headers["x-scoreboard-lag-ms"]) > 0
        assert (await read.get("/scoreboard/top")).json()["ageMs"] > 0
        metrics = (await read.get("/metrics")).body.decode()
        assert "\nscoreboard_replica_lag_records NaN\n" in metrics
        assert "\nscoreboard_replica_lag_seconds NaN\n" not in metrics


async def test_a_replica_that_never_was_caught_up_vouches_for_nothing(tmp_path: Path) -> None:
    """A replica with a shard starts without its leader: reads get 503."""
    async with (
        following(tmp_path, "shard", "http://127.0.0.1:9", "--shard", f"{shard_of('main', 2)}/2") as shard,
        client(shard) as read,
    ):
        assert code_of(await read.get("/scoreboard/top")) == (503, "REPLICA_BEHIND")
        assert (await read.get("/readyz")).status == 503
        assert (await read.get("/healthz")).status == 200
        shard.signal(signal.SIGTERM)
        assert await shard.wait() == 0


async def test_a_directory_that_never_was_caught_up_is_not_served(tmp_path: Path) -> None:
    """Its state may be older than what was shown before, as after a demotion; so it waits for its leader."""
    url = await left_alone(tmp_path)
    marker = tmp_path / "replica" / "replica"
    assert json.loads(marker.read_text()) == {"leader": url, "caught_up": True}
    marker.write_text(json.dumps({"leader": url}))
    async with (
        following(tmp_path, "alone", url, "--data-dir", str(tmp_path / "replica")) as alone,
        client(alone) as read,
    ):
        refused = await read.get("/scoreboard/top")
        assert code_of(refused) == (503, "REPLICA_BEHIND")
        assert "not caught up yet" in refused.json()["error"]["message"]


async def test_promotion_and_demotion(tmp_path: Path) -> None:
    """The promoted replica writes, the old leader refuses, also after a restart, and comes back as a replica."""
    admin, reader = tmp_path / "admin.token", tmp_path / "log-read.token"
    admin.write_text(token("admin"))
    old = str(tmp_path / "leader")
    async with following_pair(tmp_path) as (leader, replica):
        async with client(leader) as write, client(replica) as read:
            seq = (await increment(write, "1")).json()["seq"]
            await until(lambda: read.get(f"/scoreboard/top?minSeq={seq}"), lambda answer: answer.status == 200)
            done = await run("promote", "--url", replica.url, "--token-file", str(admin), "--json")
            assert json.loads(done.stdout) == {"epoch": 2, "seq": seq + 1}, done.stderr
            assert (await increment(read, "2")).json()["epoch"] == 2
            refused = await until(lambda: increment(write, "3"), lambda answer: answer.status == 421)
            assert code_of(refused) == (421, "NOT_LEADER")
            details = refused.json()["error"]["details"]
            assert len(details.pop("history")) == 32
            assert details == {"leader": replica.url, "epoch": 2}
        assert await leader.terminate() == 0
        again = await run("serve", "--data-dir", old, "--bind", "127.0.0.1:0", extra=ADDED)
        command = f"scoreboard demote --data-dir {old} --to {replica.url} "
        assert (again.returncode, command in again.stderr.decode()) == (2, True)
        demoted = await run("demote", "--data-dir", old, "--to", replica.url, "--token-file", str(reader), "--json")
        report = json.loads(demoted.stdout)
        assert (demoted.returncode, report["commonSeq"]) == (0, seq)
        async with following(tmp_path, "old", "", "--data-dir", old) as back, client(back) as read:
            await until(lambda: read.get(f"/scoreboard/top?minSeq={seq + 2}"), lambda answer: answer.status == 200)
        assert await replica.terminate() == 0
    served = await run("serve", "--data-dir", old, "--bind", "127.0.0.1:0", extra=ADDED)
    assert (served.returncode, b"scoreboard promote" in served.stderr) == (2, True)
    stopped = await run("promote", "--data-dir", old, "--json", extra=ADDED)
    assert json.loads(stopped.stdout)["epoch"] == 3
    async with serving(Path(old), extra=BOARDS) as leader, client(leader) as write:
        assert (await increment(write, "4")).json()["epoch"] == 3


async def test_an_old_leader_that_was_out_of_reach_is_told_as_soon_as_it_can_be(tmp_path: Path) -> None:
    """Until then both take writes; the new leader asks again and again until the old one has heard."""
    admin = tmp_path / "admin.token"
    admin.write_text(token("admin"))
    async with serving(tmp_path / "leader", extra=BOARDS) as leader, trio.open_nursery() as nursery:
        wire = Wire("leader", leader.port)
        await nursery.start(wire.run)
        async with (
            following(tmp_path, "replica", wire.url, "--data-dir", str(tmp_path / "replica")) as replica,
            client(leader) as write,
            client(replica) as read,
        ):
            seq = (await increment(write, "1")).json()["seq"]
            await until(lambda: read.get(f"/scoreboard/top?minSeq={seq}"), lambda answer: answer.status == 200)
            wire.refusing = True
            wire.cut()
            done = await run("promote", "--url", replica.url, "--token-file", str(admin), "--json")
            assert done.returncode == 0, done.stderr
            assert (await increment(write, "2")).status == 200
            wire.refusing = False
            refused = await until(lambda: increment(write, "3"), lambda answer: answer.status == 421)
            details = refused.json()["error"]["details"]
            assert len(details.pop("history")) == 32
            assert details == {"leader": replica.url, "epoch": 2}
            await until(lambda: read.get("/readyz"), lambda _: "newer_epoch_told" in replica.stderr())
            assert replica.stderr().count("newer_epoch_not_told") == 1
        nursery.cancel_scope.cancel()


async def test_the_replica_of_a_relay_is_promoted_and_the_leader_hears_of_it(tmp_path: Path) -> None:
    """The relay tells the old leader, which the new one never knew. A replica without a directory can't be promoted."""
    async with (
        serving(tmp_path / "leader", extra=BOARDS) as leader,
        following(tmp_path, "relay", leader.url) as relay,
        following(tmp_path, "leaf", relay.url, "--data-dir", str(tmp_path / "leaf")) as leaf,
        client(leader) as write,
        client(relay) as middle,
        client(leaf) as read,
    ):
        seq = (await increment(write, "1")).json()["seq"]
        await until(lambda: read.get(f"/scoreboard/top?minSeq={seq}"), lambda answer: answer.status == 200)
        refused = await middle.post("/replication/promote", {})
        assert (code_of(refused), "keeps nothing on disk" in refused.json()["error"]["message"]) == (
            (409, "CONFLICT"), True
        )  # fmt: skip
        assert (await read.post("/replication/promote", {})).json() == {"epoch": 2, "seq": seq + 1}
        refused = await until(lambda: increment(write, "2"), lambda answer: answer.status == 421)
        details = refused.json()["error"]["details"]
        assert len(details.pop("history")) == 32
        assert details == {"leader": leaf.url, "epoch": 2}
        stale = await until(lambda: middle.get("/scores/ann"), lambda answer: answer.json().get("stale") is True)
        assert stale.json()["epoch"] == 1


@asynccontextmanager
async def following_pair(tmp_path: Path) -> AsyncIterator[tuple[Leader, Leader]]:
    """A leader, and a replica with a data directory."""
    async with (
        serving(tmp_path / "leader", extra=BOARDS) as leader,
        following(tmp_path, "replica", leader.url, "--data-dir", str(tmp_path / "replica")) as replica,
    ):
        yield leader, replica


async def test_a_shard_keeps_nothing(tmp_path: Path) -> None:
    """--shard with --data-dir is refused, with the reason; so is a replica without a leader."""
    both = await run("replica", "--leader", "http://a", "--shard", "1/2", "--data-dir", str(tmp_path / "d"))
    assert (both.returncode, b"keeps nothing on disk" in both.stderr) == (2, True)
    none = await run("replica", "--bind", "127.0.0.1:0")
    assert (none.returncode, b"--leader URL" in none.stderr) == (2, True)
