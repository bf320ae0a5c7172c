"""A leader that is deposed while it writes, built in this process: what waits, what the disk has, who follows it."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio
from trio_websocket import open_websocket_url

from engine.disk import RealDisk, RealFile
from engine.record import Tail
from server.node import start
from server.replication.link import LinkEnded, LinkTiming, open_link, parse_leader
from server.replication.messages import LOG_PATH, Deposed, FromLeader, Welcome, decode_from_leader, hello_of
from server.settings.config import ConfigError
from tests.e2e import leader as outside
from tests.e2e.client import Answer, Client
from tests.server.node.test_start import client_of, config_of, line_of, lines_of, serve_and_use


class SlowFile(RealFile):
    """A file whose sync waits to be let go."""

    slow = threading.Event()
    begun = threading.Event()
    let_go = threading.Event()

    def sync(self) -> None:
        """Wait, and sync."""
        if SlowFile.slow.is_set():
            SlowFile.begun.set()
            assert SlowFile.let_go.wait(outside.ALARM_SECONDS)
        super().sync()


class SlowDisk(RealDisk):
    """A disk of such files."""

    def open(self, path: str, *, write: bool = False) -> RealFile:
        """Open a file that can be made slow."""
        return SlowFile(path, super().open(path, write=write)._descriptor)


@pytest.fixture(autouse=True)
def _quick() -> None:
    for event in (SlowFile.slow, SlowFile.begun, SlowFile.let_go):
        event.clear()


@asynccontextmanager
async def knock(url: str, query: str) -> AsyncIterator[FromLeader]:
    """Open a link and hear the first word."""
    token = outside.token("log:read")
    target, timing = f"{LOG_PATH}?{query}", LinkTiming()
    async with open_link(parse_leader(url), target, token, message_bytes_max=2**20, timing=timing) as link:
        message = await link.receive(outside.ALARM_SECONDS)
        assert isinstance(message, str)
        said = decode_from_leader(message)
        assert said is not None
        yield said


async def log_id_of(url: str) -> bytes:
    """Ask a leader which log it has."""
    async with knock(url, "after=0&epoch=1") as welcome:
        assert isinstance(welcome, Welcome)
        return bytes.fromhex(welcome.log_id)


async def tell_of_epoch(url: str, log_id: bytes, epoch: int, leader: str | None = None) -> None:
    """Let the leader hear of a newer epoch, as a replica that was promoted does."""
    async with knock(url, hello_of(Tail(log_id, epoch, 1, 0), None, leader).query) as said:
        assert said == Deposed(epoch, leader)


async def write(client: Client, action: str, answers: dict[str, Answer]) -> None:
    answers[action] = await client.post("/scores/increment", {"userId": "ann", "actionId": action})


async def test_a_leader_that_is_deposed_refuses_what_waits_and_vouches_for_nothing_in_flight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """421 at once to what waits for the disk, 503 OUTCOME_UNKNOWN to what the disk has, which the state shows."""
    monkeypatch.setattr(start, "RealDisk", SlowDisk)
    answers: dict[str, Answer] = {}

    async def use(url: str) -> None:
        async with client_of(url) as first, client_of(url) as second, client_of(url) as third:
            await write(first, "1", answers)
            SlowFile.slow.set()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(write, first, "2", answers)
                assert await trio.to_thread.run_sync(SlowFile.begun.wait, outside.ALARM_SECONDS)
                async with trio.open_nursery() as waiting:
                    waiting.start_soon(write, second, "3", answers)
                    await until_waiting(third)
                    await tell_of_epoch(url, await log_id_of(url), 2)
                assert "2" not in answers
                SlowFile.let_go.set()
            await write(second, "4", answers)
            async with knock(url, "after=0&epoch=1") as said:
                assert said == Deposed(2)
            top = (await first.get("/scoreboard/top")).json()
            assert (top["seq"], top["entries"][0]["score"], top["stale"]) == (3, 20, True)
            ready = await first.get("/readyz")
            error = ready.json()["error"]
            assert (ready.status, error["code"], error["details"]["reason"][:7]) == (503, "NOT_LEADER", "epoch 2")
        signal.raise_signal(signal.SIGTERM)

    assert await serve_and_use(config_of(tmp_path / "data"), use) == 0
    assert {action: code(answer) for action, answer in answers.items()} == {
        "1": (200, ""), "2": (503, "OUTCOME_UNKNOWN"), "3": (421, "NOT_LEADER"), "4": (421, "NOT_LEADER")
    }  # fmt: skip
    line = line_of(capsys, "deposed")
    assert (line["epoch"], line["own_epoch"]) == (2, 1)
    assert json.loads((tmp_path / "data" / "deposed").read_bytes())["epoch"] == 2


async def test_a_deposed_leader_names_the_new_one_as_soon_as_it_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In its answers, in the log, and at the next start, with the command that can be pasted."""
    data = tmp_path / "data"
    told: list[dict[str, object]] = []

    async def use(url: str) -> None:
        log_id = await log_id_of(url)
        async with client_of(url) as client:
            for epoch, leader in ((2, None), (2, "http://new.example:8080"), (3, "https://newer.example")):
                await tell_of_epoch(url, log_id, epoch, leader)
                answer = await client.post("/scores/increment", {"userId": "ann", "actionId": "1"})
                assert (code(answer), "location" in answer.headers) == ((421, "NOT_LEADER"), False)
                told.append(answer.json()["error"]["details"])
        signal.raise_signal(signal.SIGTERM)

    assert await serve_and_use(config_of(data), use) == 0
    assert told == [
        {"leader": None, "epoch": 2},
        {"leader": "http://new.example:8080", "epoch": 2},
        {"leader": "https://newer.example", "epoch": 3},
    ]
    lines = [line for line in lines_of(capsys) if line["event"] == "deposed"]
    assert [(line["epoch"], line["leader"]) for line in lines] == [(one["epoch"], one["leader"]) for one in told]
    command = f"scoreboard demote --data-dir {data} --to https://newer.example "
    assert command in lines[-1]["remedy"]
    with pytest.raises(ConfigError, match="epoch 3 began elsewhere") as refused:
        await start.serve(config_of(data), pytest.fail)
    assert command in str(refused.value)


async def test_viewers_of_a_deposed_leader_are_told_that_it_is_stale(tmp_path: Path) -> None:
    """At once, and again whoever comes later: the page shows it as out of date."""

    async def use(url: str) -> None:
        live = url.replace("http", "ws", 1) + "/ws/scoreboard"
        async with open_websocket_url(live, subprotocols=["scoreboard.v1"]) as viewer:
            assert "stale" not in json.loads(await viewer.get_message())
            await tell_of_epoch(url, await log_id_of(url), 2)
            told = json.loads(await viewer.get_message())
            assert (told["type"], told["stale"]) == ("scoreboard_update", True)
        async with open_websocket_url(live, subprotocols=["scoreboard.v1"]) as viewer:
            assert json.loads(await viewer.get_message())["ageMs"] >= told["ageMs"]
        signal.raise_signal(signal.SIGTERM)

    assert await serve_and_use(config_of(tmp_path / "data"), use) == 0


async def test_an_address_that_is_none_is_refused_and_deposes_nobody(tmp_path: Path) -> None:
    """400, and the leader goes on."""

    async def use(url: str) -> None:
        query = hello_of(Tail(await log_id_of(url), 2, 1, 0), None, "nowhere").query
        with pytest.raises(LinkEnded) as ended:
            async with knock(url, query):
                pass
        assert ended.value.status == 400
        async with client_of(url) as client:
            assert (await client.post("/scores/increment", {"userId": "ann", "actionId": "1"})).status == 200
        signal.raise_signal(signal.SIGTERM)

    assert await serve_and_use(config_of(tmp_path / "data"), use) == 0


async def until_waiting(client: Client) -> None:
    """Wait until a command is in the actor's inbox."""
    while b"\nscoreboard_inbox_commands 1.0\n" not in (await client.get("/metrics")).body:  # noqa: ASYNC110  # there is only its answer to wait for
        await trio.sleep(0.01)


def code(answer: Answer) -> tuple[int, str]:
    body = msgspec.json.decode(answer.body)
    return answer.status, body["error"]["code"] if "error" in body else ""
