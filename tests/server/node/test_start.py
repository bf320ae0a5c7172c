"""The whole leader, built and ended in this process: the ends that a test of a real process can't bring about at will.

A signal is only raised once the leader listens for it; before that it would end the test run.
"""

from __future__ import annotations

import json
import logging
import resource
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio
from trio_websocket import open_websocket_url

from engine.disk import RealDisk, RealFile
from engine.errors import DirectoryInUse, LogDamaged, WriteFailed
from server import bounds
from server.node import start
from server.settings.config import Config, ConfigError, load
from snapshots.checkpoint import Checkpointer
from snapshots.opening import Progress, ShowProgress
from tests.e2e import leader as outside
from tests.e2e.client import Client
from tests.server.cli.directories import flip, increments, make, save_snapshot, segments

User = Callable[[str], Awaitable[None]]


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """A leader sets up the log of its process; put back what was there."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers, root.level = handlers, level
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def config_of(data: Path, **environ: str) -> Config:
    """A configuration for a free port, with a secret that the tests know."""
    settings = {"SCOREBOARD_BIND": "127.0.0.1:0", "SCOREBOARD_AUTH_JWT_SECRET": outside.SECRET, **environ}
    return load(None, settings, {"data_dir": str(data)})


async def serve_and_use(config: Config, use: User) -> int:
    """Serve, and once it is ready run `use` with the address beside it; the exit code."""
    code: int | None = None
    with trio.fail_after(outside.ALARM_SECONDS):
        async with trio.open_nursery() as nursery:
            code = await start.serve(config, lambda url: nursery.start_soon(use, url))
    assert code is not None
    return code


def client_of(url: str) -> Client:
    """A backend's connection."""
    host, port = url.removeprefix("http://").split(":")
    return Client(host, int(port), outside.token("scores:write", "scores:read", "users:write"))


def lines_of(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """What the leader logged, decoded."""
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def line_of(capsys: pytest.CaptureFixture[str], event: str) -> dict[str, Any]:
    """The one line about this event."""
    [line] = [line for line in lines_of(capsys) if line["event"] == event]
    return line


async def stop(_url: str) -> None:
    """Ask for the end, as an operator does."""
    signal.raise_signal(signal.SIGTERM)


def is_free(data: Path) -> bool:
    """Whether another leader could have the directory now."""
    try:
        RealDisk().lock(f"{data}/lock").release()
    except DirectoryInUse:
        return False
    return True


async def test_it_serves_until_it_is_told_to_stop_and_leaves_everything_in_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Held while it serves, free afterwards; exit code 0; start and end are in the log."""
    data = tmp_path / "data"

    async def use(url: str) -> None:
        assert not is_free(data)
        async with client_of(url) as client:
            assert (await client.post("/scores/increment", {"userId": "a", "actionId": "1"})).status == 200
            assert (await client.get("/readyz")).status == 200
            metrics = (await client.get("/metrics")).body.decode()
        assert "\nscoreboard_seq 2.0\n" in metrics
        assert "\nscoreboard_fsync_seconds_count 2.0\n" in metrics
        signal.raise_signal(signal.SIGINT)

    assert await serve_and_use(config_of(data), use) == 0
    assert is_free(data)
    assert [path.name for path in (data / "snapshots").iterdir()] == [f"{2:020}.snapshot"]
    events = [line["event"] for line in lines_of(capsys)]
    assert events == ["recovered", "started", "signal", "checkpoint", "stopped"]


async def test_the_limit_of_open_files_is_raised(tmp_path: Path) -> None:
    """Each viewer is an open file, and the usual soft limit is 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    try:
        assert await serve_and_use(config_of(tmp_path / "data"), stop) == 0
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class FailingFile(RealFile):
    """A file whose first sync after `fails` was set fails, as a disk does that is about to die."""

    fails = False

    def sync(self) -> None:
        """Fail, or sync."""
        if FailingFile.fails:
            raise WriteFailed("can't sync: Input/output error", path=self.path)
        super().sync()


class FailingDisk(RealDisk):
    """A disk of such files."""

    def open(self, path: str, *, write: bool = False) -> RealFile:
        """Open a file that can be made to fail."""
        return FailingFile(path, super().open(path, write=write)._descriptor)


async def test_a_failed_sync_is_final(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who was in flight is told that the outcome is unknown; the process ends with 1 and says which file and seq."""
    data = tmp_path / "data"
    monkeypatch.setattr(start, "RealDisk", FailingDisk)
    monkeypatch.setattr(FailingFile, "fails", False)

    async def use(url: str) -> None:
        async with client_of(url) as client:
            assert (await client.post("/scores/increment", {"userId": "a", "actionId": "1"})).status == 200
            FailingFile.fails = True
            answer = await client.post("/scores/increment", {"userId": "a", "actionId": "2"})
        assert (answer.status, answer.json()["error"]["code"]) == (503, "OUTCOME_UNKNOWN")

    assert await serve_and_use(config_of(data), use) == 1
    assert is_free(data)
    line = line_of(capsys, "disk_failed")
    assert line["path"] == str(segments(data)[0])
    assert line["seq"] == 3
    assert line["offset"] > 0
    assert not list(data.glob("snapshots/*.snapshot")), "a disk that failed is not written to"


async def test_a_bug_in_a_part_ends_the_process_in_good_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody serves on without a part that is needed: exit code 1, the stack is in the log, the directory is free."""

    async def fail(_self: Checkpointer) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Checkpointer, "run", fail)

    async def use(_url: str) -> None:
        await trio.lowlevel.checkpoint()

    assert await serve_and_use(config_of(tmp_path / "data"), use) == 1
    assert "RuntimeError: a bug" in line_of(capsys, "part_failed")["exception"]
    assert is_free(tmp_path / "data")


async def test_an_address_that_is_taken_is_a_matter_of_configuration(tmp_path: Path) -> None:
    """The error names the key and the address, and the directory is free again."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigError, match=f"bind: can't listen on {bind}"):
            await start.serve(config_of(tmp_path / "data", SCOREBOARD_BIND=bind), pytest.fail)
    assert is_free(tmp_path / "data")


async def test_damage_refuses_the_start(tmp_path: Path) -> None:
    """The error of the recovery table comes out as it is, and nothing was served."""
    data = make(tmp_path / "data", increments(5))
    flip(segments(data)[0], b"action-2")
    with pytest.raises(LogDamaged) as damaged:
        await start.serve(config_of(data), pytest.fail)
    assert damaged.value.seq == 3
    assert is_free(data)


async def test_what_recovery_put_right_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A torn end and a damaged snapshot: it starts, nothing that was acknowledged is missing, both are in the log."""
    data = make(tmp_path / "data", increments(3))
    save_snapshot(data)
    make(data, increments(2, start=3))
    newest = Path(save_snapshot(data).path)
    flip(newest, b"user-1")
    [segment] = segments(data)
    content = segment.read_bytes().rstrip(b"\0")
    segment.write_bytes(content + b"frm1 half a head")

    async def use(url: str) -> None:
        async with client_of(url) as client:
            assert (await client.get("/actions/action-4")).status == 200
        await stop(url)

    assert await serve_and_use(config_of(data), use) == 0
    told = lines_of(capsys)
    [torn] = [line for line in told if line["event"] == "recovery"]
    assert (torn["situation"], torn["path"], torn["offset"]) == ("TORN_TAIL", str(segment), len(content))
    assert str(newest) in [line["path"] for line in told if line["event"] == "disk_fault"]


async def test_a_signal_during_recovery_ends_it_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long replay need not be waited for; nothing was served, nothing is held."""

    def replay_for_ever(*_arguments: object, progress: ShowProgress, **_keywords: object) -> None:
        signal.raise_signal(signal.SIGTERM)
        while True:
            progress(Progress("log", 1, 1, 2))
            time.sleep(0.001)

    monkeypatch.setattr(start, "open_directory", replay_for_ever)
    with trio.fail_after(outside.ALARM_SECONDS):
        assert await start.serve(config_of(tmp_path / "data"), pytest.fail) == 0
    assert is_free(tmp_path / "data")


async def test_a_name_reaches_the_viewers_of_every_board(tmp_path: Path) -> None:
    """A user's name is no event of a board, but it shows on all on which the user is."""
    environ = {"SCOREBOARD_BOARDS_WEEKLY_POINTS": "ACTION_COMPLETED=1"}

    async def use(url: str) -> None:
        async with client_of(url) as client:
            action = {"userId": "u1", "actionId": "1", "boardId": "weekly"}
            assert (await client.post("/scores/increment", action)).status == 200
            live = f"{url.replace('http', 'ws')}/ws/scoreboard?boardId=weekly"
            async with open_websocket_url(live) as viewer:
                assert "displayName" not in json.loads(await viewer.get_message())["entries"][0]
                assert (await client.put("/users/u1", {"displayName": "Ann"})).status == 200
                assert json.loads(await viewer.get_message())["entries"][0]["displayName"] == "Ann"
        await stop(url)

    assert await serve_and_use(config_of(tmp_path / "data", **environ), use) == 0


async def test_where_reads_are_not_public_a_viewer_needs_a_token(tmp_path: Path) -> None:
    """The live channel asks for what the other reads ask for; a token for users alone does not do."""

    async def status_of(url: str, bearer: str | None) -> int:
        host, port = url.removeprefix("http://").split(":")
        upgrade = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        }
        if bearer is not None:
            upgrade["Authorization"] = f"Bearer {bearer}"
        head = "".join(f"{name}: {value}\r\n" for name, value in upgrade.items())
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            await stream.send_all(f"GET /ws/scoreboard HTTP/1.1\r\nHost: x\r\n{head}\r\n".encode())
            return int((await stream.receive_some(12))[9:])

    async def use(url: str) -> None:
        assert await status_of(url, None) == 401
        assert await status_of(url, outside.token("users:write")) == 403
        assert await status_of(url, outside.token("scores:read")) == 101
        await stop(url)

    assert await serve_and_use(config_of(tmp_path / "data", SCOREBOARD_AUTH_PUBLIC_READS="false"), use) == 0


async def test_a_log_without_a_lock_may_still_be_written_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The lock's file is removed: the start waits until a process that lost it has ended; a signal ends the wait."""
    data = tmp_path / "data"
    lock = data / "lock"
    for _ in range(2):
        assert await serve_and_use(config_of(data), stop) == 0
    assert not [line for line in lines_of(capsys) if line["event"] == "lock_was_missing"]
    monkeypatch.setattr(bounds, "LOCK_MISSING_SECONDS", 0.05)
    await trio.Path(lock).unlink()
    assert await serve_and_use(config_of(data), stop) == 0
    line = line_of(capsys, "lock_was_missing")
    assert (line["path"], line["seconds"]) == (str(lock), 0.05)
    monkeypatch.setattr(bounds, "LOCK_MISSING_SECONDS", 1e6)
    await trio.Path(lock).unlink()

    async def interrupt() -> None:
        while not await trio.Path(lock).exists():
            await trio.lowlevel.checkpoint()
        await trio.sleep(0.1)
        signal.raise_signal(signal.SIGTERM)

    with trio.fail_after(outside.ALARM_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(interrupt)
            assert await start.serve(config_of(data), pytest.fail) == 0


async def test_service_links_are_told_at_level_debug(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their names, so that an operator can see what was passed over; at the usual level they are not worth a line."""
    monkeypatch.setenv("SCOREBOARD_REPLICA_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("SCOREBOARD_LEADER_PORT_8080_TCP_ADDR", "10.0.0.2")
    for level, told in (("debug", 1), ("info", 0)):
        config = config_of(tmp_path / "data", SCOREBOARD_LOGGING_FORMAT="json", SCOREBOARD_LOGGING_LEVEL=level)
        assert await serve_and_use(config, stop) == 0
        lines = [line for line in lines_of(capsys) if line["event"] == "service_links_passed_over"]
        assert [line["variables"] for line in lines] == [
            ["SCOREBOARD_LEADER_PORT_8080_TCP_ADDR", "SCOREBOARD_REPLICA_SERVICE_HOST"]
        ] * told


async def test_the_deadlines_of_a_connection_are_configured(tmp_path: Path) -> None:
    """`[http]` reaches connections in every lane: an idle one ends after its time, a slow request is told so."""
    deadlines = {f"SCOREBOARD_HTTP_{name}_SECONDS": "1" for name in ("IDLE", "HEAD", "BODY")}
    top, health = (f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for path in ("/scoreboard/top", "/healthz"))
    half_head, half_body = b"GET / HTTP/1.1\r\n", b"PUT /users/u HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{"

    async def ended(url: str, sent: bytes, begins: bytes) -> None:
        host, port = url.removeprefix("http://").split(":")
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            began = trio.current_time()
            await stream.send_all(sent)
            answer = b"".join([part async for part in stream])
        assert answer.startswith(begins)
        assert 0.9 < trio.current_time() - began < 10.0

    async def use(url: str) -> None:
        async with trio.open_nursery() as nursery:
            for sent, begins in (
                (b"", b""),
                (top, b"HTTP/1.1 200 "),
                (health, b"HTTP/1.1 200 "),
                (half_head, b"HTTP/1.1 408 "),
                (half_body, b"HTTP/1.1 408 "),
            ):
                nursery.start_soon(ended, url, sent, begins)
        await stop(url)

    assert await serve_and_use(config_of(tmp_path / "data", **deadlines), use) == 0
