"""Real processes: a user is erased on a running leader, and no byte of a leader and its replica is left."""

from __future__ import annotations

import gzip
import random
from collections.abc import Sequence
from pathlib import Path

import trio

from tests.e2e import leader as outside
from tests.e2e.client import Answer, Client
from tests.e2e.leader import ALARM_SECONDS, Leader, following, run, serving, token
from tests.seeds import in_ci

ANN, NAME = "ann@example.org", "Ann Kathrin Example"
SHORT = {"engine.limits.SEGMENT_BYTES": 8192}
ONCE = {
    "SCOREBOARD_AUTH_JWT_SECRET": outside.SECRET,
    "SCOREBOARD_BOARDS_MAIN_POINTS": "DONE=10",
    "SCOREBOARD_SNAPSHOTS_EVERY_EVENTS": "60",
    "SCOREBOARD_LIMITS_USER_PER_MINUTE": "1000000",
}
AT_ONCE = {**ONCE, "SCOREBOARD_PRIVACY_ERASE_WITHIN_HOURS": "0"}
LATER = {**ONCE, "SCOREBOARD_PRIVACY_ERASE_WITHIN_HOURS": "24"}


def client(node: Leader) -> Client:
    return Client(node.host, node.port, token("admin"))


async def increment(node: Client, user: str, action: str) -> Answer:
    return await node.post("/scores/increment", {"userId": user, "actionId": action, "reason": "DONE"})


async def applied(node: Client, user: str, action: str) -> int:
    """Increment; give the seq."""
    answer = await increment(node, user, action)
    assert answer.status == 200, answer.body
    return int(answer.json()["seq"])


async def play(node: Client, begin: int, count: int) -> None:
    """Have Ann and the others play, with a name, a period that ends, and an action that is taken back."""
    await node.put(f"/users/{ANN}", {"displayName": NAME})
    for number in range(begin, begin + count):
        for user in (ANN, "ben", f"user-{number % 7}"):
            await applied(node, user, f"{number} of {user}")


async def reset(node: Client) -> None:
    """End the period, correct an action of it, and look at it, so that a file of the correction is made."""
    assert (await node.post("/boards/main/reset", {})).status == 200
    body = {"reversalId": "dispute", "reason": "a bot", "actionIds": ["1 of ben"]}
    assert (await node.post("/reversals", body)).status == 200
    assert (await node.get("/scoreboard/top?period=previous")).json()["entries"]


def traces(*directories: Path) -> list[str]:
    """Give the files that have Ann's id or name, unpacked, found without the code under test."""
    found = []
    for path in (path for directory in directories for path in sorted(directory.rglob("*")) if path.is_file()):
        data = path.read_bytes()
        data = gzip.decompress(data) if path.name.endswith(".gz") else data
        found += [str(path) for text in (ANN, NAME) if text.encode() in data]
    return found


async def metric(node: Client, name: str) -> float:
    lines = (await node.get("/metrics")).body.decode().splitlines()
    return float(next(line for line in lines if line.startswith(f"scoreboard_{name} ")).split()[1])


async def settled(node: Client) -> None:
    """Wait until a node says that its files name nobody who was erased."""
    with trio.fail_after(ALARM_SECONDS):
        while await metric(node, "erasures_pending"):  # noqa: ASYNC110  # another process: there is only its answer
            await trio.sleep(0.05)


async def reach(node: Client, seq: int) -> None:
    with trio.fail_after(ALARM_SECONDS):
        while (await node.get(f"/scoreboard/top?minSeq={seq}")).status != 200:  # noqa: ASYNC110
            await trio.sleep(0.05)


async def standings(node: Client, *, without: str = "") -> list[list[tuple[str, int]]]:
    """Give users and scores of the running period and the last one, in their order."""
    tops = [(await node.get(f"/scoreboard/top?limit=10{more}")).json() for more in ("", "&period=previous")]
    return [[(row["userId"], row["score"]) for row in top["entries"] if row["userId"] != without] for top in tops]


async def check_log(directory: Path) -> None:
    """Verify the log from its first byte, and have the command look for Ann."""
    verified = await run("log", "verify", "--data-dir", str(directory))
    assert verified.returncode == 0, verified.stdout + verified.stderr
    looked = await run("erase", "verify", "--data-dir", str(directory), "--user", ANN, "--name", NAME)
    assert looked.returncode == 0, looked.stdout + looked.stderr


async def test_no_byte_is_left_on_a_leader_and_its_replica(tmp_path: Path) -> None:
    """Boards and past periods at once, files soon; the log verifies, the others keep all, also after a restart."""
    data, copy = tmp_path / "leader", tmp_path / "replica"
    keep = ("--data-dir", str(copy))
    async with (
        serving(data, extra=AT_ONCE, constants=SHORT) as leader,
        following(tmp_path, "r", leader.url, *keep, extra=AT_ONCE, constants=SHORT) as replica,
        client(leader) as write,
        client(replica) as read,
    ):
        await play(write, 0, 40)
        await reset(write)
        await play(write, 100, 40)
        number = 0
        while not all(list((each / "log").glob("*.gz")) for each in (data, copy)):
            number += 1
            await applied(write, "ben", f"more {number}")
        seq = await applied(write, "ben", "last")
        await reach(read, seq)
        assert len(traces(data, copy)) > 10
        before = await standings(write, without=ANN)
        erased = await write.request("DELETE", f"/users/{ANN}")
        assert erased.status == 200, erased.body
        answer = erased.json()
        assert (answer["userId"], answer["erased"], answer["applied"], answer["actions"]) == (ANN, True, True, 80)
        assert await standings(write) == before
        await reach(read, answer["seq"])
        await settled(write)
        await settled(read)
        assert traces(data, copy) == []
        assert await standings(read) == before
        assert "user_erased" in leader.stderr()
        assert ANN not in leader.stderr() + replica.stderr()
        retry = await increment(write, ANN, f"3 of {ANN}")
        assert (retry.status, retry.json()["error"]["code"]) == (410, "ERASED")
        assert (await write.request("DELETE", f"/users/{ANN}")).status == 404
        assert await leader.terminate() == 0
        assert await replica.terminate() == 0
    for directory in (data, copy):
        await check_log(directory)
    async with (
        serving(data, extra=AT_ONCE, constants=SHORT) as leader,
        following(tmp_path, "r", leader.url, *keep, extra=AT_ONCE, constants=SHORT) as replica,
        client(leader) as write,
        client(replica) as read,
    ):
        await reach(read, answer["seq"])
        assert await standings(write) == await standings(read) == before
        assert (await increment(write, ANN, f"3 of {ANN}")).status == 410
        assert traces(data, copy) == []


async def test_a_replica_that_was_away_comes_back_without_the_user(tmp_path: Path) -> None:
    """The leader has forgotten the id by then. The replica begins anew, and keeps nothing of before."""
    data, copy = tmp_path / "leader", tmp_path / "replica"
    keep = ("--data-dir", str(copy))
    async with serving(data, extra=AT_ONCE, constants=SHORT) as leader, client(leader) as write:
        async with following(tmp_path, "r", leader.url, *keep, extra=AT_ONCE, constants=SHORT) as replica:
            await play(write, 0, 20)
            await reset(write)
            await play(write, 100, 20)
            async with client(replica) as read:
                await reach(read, await applied(write, "ben", "last"))
                assert (await read.get("/scoreboard/top?period=previous")).status == 200
            await replica.kill()
        answer = (await write.request("DELETE", f"/users/{ANN}")).json()
        await settled(write)
        assert traces(data) == []
        assert traces(copy)
        for leftover in ("fetched.snapshot.tmp", "fetched.snapshot", "fetched.period.tmp"):
            (copy / leftover).write_text(ANN)
        async with (
            following(tmp_path, "r", leader.url, *keep, extra=AT_ONCE, constants=SHORT) as replica,
            client(replica) as read,
        ):
            await reach(read, answer["seq"])
            with trio.fail_after(ALARM_SECONDS):
                while (await read.get("/scoreboard/top?period=previous")).status != 200:  # noqa: ASYNC110
                    await trio.sleep(0.05)
            assert await standings(read) == await standings(write)
            assert traces(copy) == []
        await check_log(copy)


async def test_a_leader_that_is_killed_again_and_again_ends_without_the_user(tmp_path: Path) -> None:
    """At any moment after the answer. The next start goes on with it, and never loses anything else."""
    lots = random.Random(7)
    data = tmp_path / "leader"
    before: Sequence[object] = []
    for turn in range(in_ci(2, 3)):
        async with serving(data, extra=LATER, constants=SHORT) as leader, client(leader) as write:
            await play(write, turn * 1000, 15)
            if turn == 0:
                await reset(write)
            before = await standings(write, without=ANN)
            assert (await write.request("DELETE", f"/users/{ANN}")).status == 200
            assert await standings(write) == before
        for _ in range(3):  # it settles at once: it finds that another process did not
            async with serving(data, extra=LATER, constants=SHORT) as leader:
                await trio.sleep(lots.uniform(0, 0.2))
        async with serving(data, extra=LATER, constants=SHORT) as leader, client(leader) as write:
            await settled(write)
            assert traces(data) == [], turn
            assert await standings(write) == before
            assert (await increment(write, ANN, f"{turn * 1000} of {ANN}")).status == 410
    await check_log(data)


async def test_without_hurry_the_next_checkpoint_settles(tmp_path: Path) -> None:
    """Until then the metrics say how many wait, and reads show nothing of the user, though files do."""
    data = tmp_path / "leader"
    async with serving(data, extra=LATER, constants=SHORT) as leader, client(leader) as write:
        await play(write, 0, 10)
        begun = (await write.get("/scoreboard/top")).json()["seq"]
        answer = (await write.request("DELETE", f"/users?userId={ANN}")).json()
        assert answer["applied"]
        again = (await write.request("DELETE", f"/users/{ANN}")).json()
        assert again == {**answer, "applied": False}
        assert await metric(write, "erasures_pending") == 1
        assert await metric(write, "erasure_age_seconds") < 60
        assert traces(data)
        assert (await write.get(f"/scores/{ANN}/history")).json()["entries"] == []
        then = (await write.get(f"/scoreboard/top?asOfSeq={begun}")).json()
        assert ANN not in [row["userId"] for row in then["entries"]]
        assert (await write.get("/scores/ben/history")).json()["entries"]
        for number in range(60):
            await applied(write, "ben", f"more {number}")
        await settled(write)
        assert traces(data) == []
        again_then = (await write.get(f"/scoreboard/top?asOfSeq={begun}")).json()
        assert again_then["entries"] == then["entries"]
