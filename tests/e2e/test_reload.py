"""SIGHUP with real processes: what counts at once, what is named, what a fault leaves alone, and a lost terminal."""

from __future__ import annotations

import json
import os
import pty
import signal
from pathlib import Path
from typing import Any

import trio

from tests.e2e.client import Client
from tests.e2e.leader import ALARM_SECONDS, COMMAND, SECRET, Leader, environment, following, serving, token

OTHER = "another-secret-0123456789-abcdefghijklmnopq"


def lines(node: Leader, event: str) -> list[dict[str, Any]]:
    """What a node has logged as this event."""
    return [line for line in map(json.loads, node.stderr().splitlines()) if line["event"] == event]


async def reload(node: Leader, event: str = "config_reloaded") -> dict[str, Any]:
    """Send the signal, and wait for the line that tells of it."""
    before = len(lines(node, event))
    node.signal(signal.SIGHUP)
    with trio.fail_after(ALARM_SECONDS):
        while len(lines(node, event)) == before:  # noqa: ASYNC110  # another process: there is only its log to wait for
            await trio.sleep(0.05)
    return lines(node, event)[-1]


async def status_of(node: Leader, secret: str) -> int:
    """How a node answers a write with a token of this secret."""
    async with Client(node.host, node.port, token("scores:write", secret=secret)) as client:
        answer = await client.post("/scores/increment", {"userId": "ann", "actionId": secret[:8]})
    return answer.status


async def readable(node: Leader, origin: str) -> str | None:
    """Which origin may read an answer to a page of this one."""
    async with Client(node.host, node.port) as client:
        answer = await client.get("/scoreboard/top", {"origin": origin})
    return answer.headers.get("access-control-allow-origin")


async def test_a_leader_reads_its_configuration_anew(tmp_path: Path) -> None:
    """Secrets, limits, origins, places and the level count at once. Other keys are named, each time. All goes on."""
    config, secrets = tmp_path / "scoreboard.toml", tmp_path / "secrets"
    secrets.write_text(SECRET + "\n", encoding="utf-8")

    def write(text: str) -> None:
        config.write_text(f'[auth]\njwt_secret_file = "{secrets}"\n{text}', encoding="utf-8")

    write("")
    extra = {"SCOREBOARD_AUTH_JWT_SECRET": ""}
    async with serving(tmp_path / "data", config=config, extra=extra) as node:
        assert (await status_of(node, SECRET), await status_of(node, OTHER)) == (200, 401)
        told = await reload(node)
        assert (told["changed"], told["needs_restart"]) == ([], [])
        secrets.write_text(f"{OTHER}\n", encoding="utf-8")
        write(
            '[limits]\nuser_per_minute = 1\n[live]\nallowed_origins = ["https://here.example"]\nmax_viewers = 0\n'
            '[logging]\nlevel = "debug"\n[snapshots]\nkeep = 3\n'
        )
        told = await reload(node)
        assert told["changed"] == [
            "auth.jwt_secret", "limits.user_per_minute", "live.allowed_origins", "live.max_viewers", "logging.level",
        ]  # fmt: skip
        assert told["needs_restart"] == ["snapshots.keep"]
        assert (await status_of(node, SECRET), await status_of(node, OTHER)) == (401, 200)
        assert await readable(node, "https://here.example") == "https://here.example"
        assert await readable(node, "https://there.example") is None
        async with Client(node.host, node.port) as client:
            assert (await client.get("/sse/scoreboard")).status == 503
        async with Client(node.host, node.port, token("scores:write", secret=OTHER)) as client:
            assert (await client.post("/scores/increment", {"userId": "ann", "actionId": "2"})).status == 429
        assert lines(node, "increment"), "the level lets single increments through"
        told = await reload(node)
        assert (told["changed"], told["needs_restart"]) == ([], ["snapshots.keep"])

        config.write_text("[limits]\nuser_per_minute = 0\n", encoding="utf-8")
        told = await reload(node, "config_not_reloaded")
        assert told["key"] == "limits.user_per_minute"
        assert "from 1 to" in told["reason"]
        config.write_text("[limits]\nper_user = 9\n", encoding="utf-8")
        assert (await reload(node, "config_not_reloaded"))["key"] == "limits.per_user"
        config.unlink()
        assert (await reload(node, "config_not_reloaded"))["key"] == str(config)
        assert await status_of(node, OTHER) == 200
        assert SECRET not in node.stderr()
        assert OTHER not in node.stderr()
        assert await node.terminate() == 0


async def test_a_replica_reads_its_configuration_anew(tmp_path: Path) -> None:
    """Also one with a directory for the moment, which is no change."""
    config = tmp_path / "replica.toml"
    config.write_text("", encoding="utf-8")
    extra = {"SCOREBOARD_AUTH_JWT_SECRET": SECRET}
    async with (
        serving(tmp_path / "leader") as leader,
        following(tmp_path, "replica", leader.url, "--config", str(config), extra=extra) as replica,
    ):
        config.write_text('[live]\nallowed_origins = ["null"]\n', encoding="utf-8")
        told = await reload(replica)
        assert (told["changed"], told["needs_restart"]) == (["live.allowed_origins"], [])
        assert await readable(replica, "null") == "null"
        assert await readable(replica, "https://there.example") is None


async def test_who_was_started_at_a_terminal_ends_with_it(tmp_path: Path) -> None:
    """A closed terminal sends the same signal, and nobody would be there to stop the server."""
    child, terminal = pty.fork()
    if child == 0:  # the new process, which has nothing to do but this
        arguments = [COMMAND, "serve", "--data-dir", str(tmp_path / "data"), "--bind", "127.0.0.1:0"]
        os.execve(COMMAND, arguments, environment({"SCOREBOARD_AUTH_JWT_SECRET": SECRET}))
    said = b""
    with trio.fail_after(ALARM_SECONDS):
        while b"scoreboard ready on" not in said:
            said += await trio.to_thread.run_sync(os.read, terminal, 4096)
        os.kill(child, signal.SIGHUP)
        while b"config_reloaded" not in said:
            said += await trio.to_thread.run_sync(os.read, terminal, 4096)
        os.close(terminal)  # the kernel sends SIGHUP, and /dev/tty can no longer be opened
        _, status = await trio.to_thread.run_sync(os.waitpid, child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
