"""A small disk that fills up and is freed under load: writes wait, reads go on, nothing acknowledged is lost."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.e2e import leader
from tests.e2e.backends import CONFIG, Backend, Books, Row, check_log, work_until_gone
from tests.e2e.client import Client, ConnectionLost
from tests.e2e.small_disk import fill, free, small_disk
from tests.seeds import first_seed

BACKENDS = 4
SEGMENT_BYTES = 64 * 1024
READ_SECONDS = 0.01
READY_AGE = "SCOREBOARD_REPLICATION_READY_AGE_SECONDS"
LONGEST_READ_SECONDS = 2.0
"""Much longer than a read takes, even beside other tests: only one that waits for the disk takes so long."""


class Readings:
    """What a reader was answered: every answer must be a 200."""

    def __init__(self) -> None:
        self.answered = 0
        self._grown = trio.Event()

    async def read(self, host: str, port: int, bearer: str) -> None:
        """Read until the leader is gone."""
        async with Client(host, port, bearer) as client:
            try:
                while True:
                    with trio.fail_after(LONGEST_READ_SECONDS):
                        answer = await client.get("/scoreboard/top?limit=10")
                    assert answer.status == 200, answer.body
                    self.answered += 1
                    self._grown.set()
                    await trio.sleep(READ_SECONDS)
            except ConnectionLost:
                return

    async def wait_more(self, count: int) -> None:
        """Wait until so many more reads are answered."""
        wanted = self.answered + count
        while self.answered < wanted:
            self._grown = trio.Event()
            await self._grown.wait()


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
async def test_writes_wait_for_room_and_reads_go_on(kind: str, tmp_path: Path) -> None:
    """It fills up and is freed, twice; the second time it is killed and started while it is full."""
    seed = first_seed("FULL_DISK_SEED")
    config, books, readings = tmp_path / "scoreboard.toml", Books(), Readings()
    config.write_text(CONFIG.format(every_events=400))
    bearer = leader.token("scores:write", "scores:read", "users:write")
    backends = [Backend(f"backend-{number}", seed, books, bearer) for number in range(BACKENDS)]
    with small_disk(kind, tmp_path / "small") as mount, trio.fail_after(2 * leader.ALARM_SECONDS):
        (mount / "data").mkdir()
        data = tmp_path / "data"  # by a link, so that standard error, which is put beside it, is not on the full disk
        data.symlink_to(mount / "data")
        serving = partial(leader.serving, data, config=config, segment_bytes=SEGMENT_BYTES)
        async with serving() as node, trio.open_nursery() as nursery:
            nursery.start_soon(work_until_gone, backends, node.host, node.port)
            nursery.start_soon(readings.read, node.host, node.port, bearer)
            await books.wait_acknowledged(500)
            await _fill_and_look(node, mount, bearer, readings)
            free(mount)
            await books.wait_acknowledged(len(books.acknowledged) + 500)
            await _warned(node, bearer, False)
            assert '"event": "disk_full"' in node.stderr()
            await _fill_and_look(node, mount, bearer, readings)
            await node.kill()
        async with serving() as node, trio.open_nursery() as nursery:
            nursery.start_soon(readings.read, node.host, node.port, bearer)
            await readings.wait_more(20)
            free(mount)
            nursery.start_soon(work_until_gone, backends, node.host, node.port)
            await books.wait_acknowledged(len(books.acknowledged) + 500)
            assert await node.terminate() == 0
        done = await leader.run("log", "dump", "--data-dir", str(data))
        assert done.returncode == 0, done.stderr.decode()
        rows: list[Row] = [json.loads(line) for line in done.stdout.splitlines()]
        check_log(rows, books)
    assert books.duplicates
    assert books.retried


async def test_a_replica_tells_of_its_full_disk_and_goes_on(tmp_path: Path) -> None:
    """As a leader does, in its log and in /readyz; then it has everything that came meanwhile."""
    seed = first_seed("FULL_DISK_SEED")
    config, books = tmp_path / "scoreboard.toml", Books()
    config.write_text(CONFIG.format(every_events=4000))
    bearer = leader.token("scores:write", "scores:read", "users:write")
    backends = [Backend(f"backend-{number}", seed, books, bearer) for number in range(BACKENDS)]
    constants, patient = {"engine.limits.SEGMENT_BYTES": SEGMENT_BYTES}, {READY_AGE: "60"}
    with small_disk("tmpfs", tmp_path / "small") as mount, trio.fail_after(2 * leader.ALARM_SECONDS):
        async with (
            leader.serving(tmp_path / "leader", config=config) as node,
            leader.following(
                tmp_path, "replica", node.url, "--config", str(config), "--data-dir", str(mount / "data"),
                constants=constants, extra=patient,
            ) as replica,
            trio.open_nursery() as nursery,
        ):  # fmt: skip
            nursery.start_soon(work_until_gone, backends, node.host, node.port)
            await books.wait_acknowledged(100)
            assert "disk_full" not in replica.stderr()
            fill(mount)
            await _said(replica, '"event": "disk_full"')
            async with Client(replica.host, replica.port, bearer) as client:
                answer = await client.get("/readyz")
                assert "so nothing is followed" in str(answer.json()["warnings"]), answer.body
                free(mount)
                await _said(replica, '"event": "disk_has_room"')
                answer = await client.get("/readyz")
                assert "so nothing is followed" not in str(answer.json()), answer.body
                seq = (await client.get("/readyz")).json()["seq"]
                while (await client.get("/readyz")).json()["seq"] < seq + 100:  # noqa: ASYNC110  # another process
                    await trio.sleep(0.1)
            assert replica.stderr().count('"event": "disk_full"') == 1
            nursery.cancel_scope.cancel()


async def _said(node: leader.Leader, words: str) -> None:
    """Wait until a node's log has these words."""
    while words not in node.stderr():  # noqa: ASYNC110  # another process: there is only its log to wait for
        await trio.sleep(0.1)


async def _fill_and_look(node: leader.Leader, mount: Path, bearer: str, readings: Readings) -> None:
    """Fill the disk, and see that writes are refused as they should be, while reads are answered."""
    fill(mount)
    await _refused(node, bearer)
    await readings.wait_more(50)
    await _warned(node, bearer, True)
    async with Client(node.host, node.port, bearer) as client:
        with trio.fail_after(leader.ALARM_SECONDS):
            while await _free_bytes(client) >= SEGMENT_BYTES:
                await readings.wait_more(20)  # the metric has what was left at the last look


async def _free_bytes(client: Client) -> float:
    metrics = (await client.get("/metrics")).body.decode()
    [free_bytes] = [line for line in metrics.splitlines() if line.startswith("scoreboard_disk_free_bytes ")]
    return float(free_bytes.split()[1])


async def _refused(node: leader.Leader, bearer: str) -> None:
    """Write until the log needs its next segment: 503, with the code and a time to come again."""
    async with Client(node.host, node.port, bearer) as client:
        number = 0
        while True:
            number += 1
            rows = [
                {"userId": "nobody", "actionId": f"{number}-{item}", "reason": "no such reason", "boardId": "main"}
                for item in range(2)
            ]
            assert (await client.post("/scores/increment/batch", rows)).status in (200, 503)
            answer = await client.put("/users/user-0", {"displayName": f"Filler {number}"})
            if answer.status == 503 and answer.json()["error"]["code"] == "DISK_FULL":
                assert int(answer.headers["retry-after"]) >= 1
                return
            assert answer.status == 200, answer.body


async def _warned(node: leader.Leader, bearer: str, expected: bool) -> None:
    """Wait until /readyz warns of the full disk, or does not any more; it is ready all the while."""
    async with Client(node.host, node.port, bearer) as client:
        while True:
            answer = await client.get("/readyz")
            assert answer.status == 200, answer.body
            if any("writes are refused" in warning for warning in answer.json().get("warnings", [])) == expected:
                return
            await trio.sleep(0.1)
