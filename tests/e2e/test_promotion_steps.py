"""The steps of server/replication/PROMOTION.md, as pasted: a leader with its own key dies, and a replica takes over.

The commands are read from that file. Changed are only the addresses, and that a node takes a free port.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from tests.e2e.leader import ALARM_SECONDS, Leader, environment

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "server" / "replication" / name for name in ("README.md", "PROMOTION.md")]
SCOREBOARD = [sys.executable, "-m", "server.cli.main"]


def pasted(words: str) -> str:
    """Give the lines of the code block of the steps that has these words."""
    text = "\n".join(page.read_text() for page in PAGES)
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    [block] = [block for block in blocks if words in block]
    return "\n".join(line.strip() for line in block.splitlines())


class Machine:
    """A directory in which commands are pasted. `hosts` are the addresses that stand for those in the steps."""

    def __init__(self, directory: Path, hosts: dict[str, str]) -> None:
        directory.mkdir()
        self.directory = directory
        self._hosts = hosts
        self._environment = environment({"PYTHONPATH": str(ROOT), "PATH": f"{directory}:{os.environ['PATH']}"})
        shim = directory / "scoreboard"
        shim.write_text(f'#!/bin/sh\nexec {shlex.join(SCOREBOARD)} "$@"\n')
        shim.chmod(0o700)

    def _mine(self, text: str) -> str:
        for host, url in self._hosts.items():
            text = text.replace(host, url)
        return text

    async def paste(self, text: str, *, code: int = 0) -> str:
        """Paste lines into a shell; give what was printed."""
        with trio.fail_after(ALARM_SECONDS):
            done = await trio.run_process(
                ["sh", "-e", "-c", self._mine(text)], capture_stdout=True, capture_stderr=True, check=False,
                cwd=self.directory, env=self._environment,
            )  # fmt: skip
        assert done.returncode == code, done.stderr.decode()
        return (done.stdout + done.stderr).decode()

    @asynccontextmanager
    async def runs(self, line: str) -> AsyncIterator[Leader]:
        """Paste a line that runs a node, on a free port; kill it at the end."""
        stderr = self.directory / "stderr"
        arguments = shlex.split(self._mine(line))
        assert arguments[0] == "scoreboard"
        with stderr.open("ab") as file:
            process = await trio.lowlevel.open_process(
                [*SCOREBOARD, *arguments[1:], "--bind", "127.0.0.1:0"],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=file,
                cwd=self.directory, env=self._environment,
            )  # fmt: skip
        node = Leader(process, stderr)
        try:
            await node.wait_ready()
            yield node
        finally:
            with trio.CancelScope(shield=True):
                await node.kill()


async def write(url: str, token: str, action_id: str) -> int:
    """Count an action as a backend does; the status."""
    async with httpx.AsyncClient(trust_env=False) as client:
        headers = {"authorization": f"Bearer {token}"}
        answer = await client.post(
            f"{url}/scores/increment", json={"userId": "ann", "actionId": action_id}, headers=headers
        )
    return answer.status_code


async def ready(url: str, score: int) -> dict[str, Any]:
    """Wait until a node is ready and shows this score; give its readiness."""
    async with httpx.AsyncClient(trust_env=False) as client:
        with trio.fail_after(ALARM_SECONDS):
            while True:
                shown = await client.get(f"{url}/scores/ann")
                answer = await client.get(f"{url}/readyz")
                if answer.status_code == shown.status_code == 200 and shown.json()["score"] == score:
                    readiness: dict[str, Any] = answer.json()
                    return readiness
                await trio.sleep(0.05)


def line_with(text: str, words: str) -> str:
    """Give the one line with these words."""
    [line] = [line for line in text.splitlines() if words in line]
    return line


@pytest.mark.parametrize("stopped", [False, True])
async def test_the_steps_of_the_readme_work_as_pasted(tmp_path: Path, stopped: bool) -> None:
    """Neither node has an [auth] of its own. The tokens in use are good on the new leader, and after its restart."""
    hosts: dict[str, str] = {}
    old, new = Machine(tmp_path / "old", hosts), Machine(tmp_path / "new", hosts)
    follow = pasted("scoreboard replica --leader")
    take_over = pasted("scoreboard promote --data-dir")
    come_back = pasted("scoreboard demote")
    async with old.runs("scoreboard serve --data-dir data") as leader:
        hosts["http://leader:8080"] = leader.url
        await old.paste(pasted("--scope admin"))
        for name in ("replica.token", "admin.token"):
            assert (old.directory / name).stat().st_mode & 0o077 == 0
            shutil.copy(old.directory / name, new.directory / name)
        backend = (await old.paste("scoreboard token --sub shop")).strip()
        assert await write(leader.url, backend, "a1") == 200
        async with new.runs(follow) as replica:
            hosts["http://replica:8080"] = replica.url
            assert "warnings" not in await ready(replica.url, 10)
            await leader.kill()
            if not stopped:
                said = await new.paste(pasted("scoreboard promote --url"))
                assert "promoted: epoch 2" in said
                assert await write(replica.url, backend, "a2") == 200
    if stopped:
        said = await new.paste(line_with(take_over, "promote"))
        assert "promoted: epoch 2" in said
    async with new.runs(line_with(take_over, "serve")) as successor:
        hosts["http://replica:8080"] = successor.url
        assert await write(successor.url, backend, "a2") == 200
        await old.paste(line_with(come_back, "demote"))
        async with old.runs(line_with(come_back, "scoreboard replica")) as former:
            assert "warnings" not in await ready(former.url, 20)
        said = await new.paste("scoreboard token --sub shop", code=2)
        assert "only the public half of its leader's key" in said
        assert "signing.key" in said


async def test_a_replica_that_could_not_verify_its_leaders_tokens_says_so(tmp_path: Path) -> None:
    """In its log and in /readyz; it serves public reads, so it is ready."""
    hosts: dict[str, str] = {}
    old, new = Machine(tmp_path / "old", hosts), Machine(tmp_path / "new", hosts)
    await old.paste("mkdir -m 700 data; umask 077; printf '%064d\\n' 7 > data/signing.key")
    async with old.runs("scoreboard serve --data-dir data") as leader:
        hosts["http://leader:8080"] = leader.url
        await old.paste(pasted("--scope admin"))
        shutil.copy(old.directory / "replica.token", new.directory / "replica.token")
        backend = (await old.paste("scoreboard token --sub shop")).strip()
        assert await write(leader.url, backend, "a1") == 200, "a key of an earlier version goes on working"
        async with new.runs(pasted("scoreboard replica --leader")) as replica:
            [warning] = (await ready(replica.url, 10))["warnings"]
            assert "copy that file" in warning
            assert "leader_tokens_not_verified" in replica.stderr()
