"""`make run-cluster`: what a person does with it, from the first line to Ctrl-C; no process is left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.e2e.client import Client
from tests.e2e.leader import ALARM_SECONDS, environment

ROOT = Path(__file__).parents[2]
NODES = ("leader", "replica-1", "replica-2")


class Shown:
    """The demonstration, as a person at its terminal sees it."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.text = ""

    async def wait(self, text: str, times: int = 1) -> None:
        """Read until it has printed this text `times` times."""
        assert self.process.stdout is not None
        with trio.fail_after(ALARM_SECONDS):
            while self.text.count(text) < times:
                data = await self.process.stdout.receive_some()
                assert data, f"it ended without {text!r}:\n{self.text}"
                self.text += data.decode()

    async def enter(self) -> None:
        """Press Enter."""
        assert self.process.stdin is not None
        await self.process.stdin.send_all(b"\n")

    def told(self, name: str) -> tuple[int, int]:
        """Give port and pid of a node, from the last line about it."""
        port, pid = re.findall(rf"^{name} +http://127\.0\.0\.1:(\d+)  pid (\d+)", self.text, re.MULTILINE)[-1]
        return int(port), int(pid)

    def all_pids(self) -> set[int]:
        """The pids of all processes that it ever named."""
        return {int(pid) for pid in re.findall(r"  pid (\d+)", self.text)}


def alive(pids: set[int]) -> list[int]:
    """The pids that still have a process."""
    return [pid for pid in pids if os.path.exists(f"/proc/{pid}")]


@asynccontextmanager
async def shown(directory: Path) -> AsyncIterator[Shown]:
    """Start it in a process group of its own; at the end, end every process that it left."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "bench.cluster_demo"],
        cwd=ROOT,
        env=environment({"TMPDIR": str(directory)}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    seen = Shown(process)
    try:
        yield seen
    finally:
        with trio.CancelScope(shield=True):
            if process.poll() is None:
                process.kill()
                for pid in alive(seen.all_pids()):
                    os.kill(pid, signal.SIGKILL)
            await process.wait()


async def position(port: int) -> int:
    """The seq that a node shows; -1 while it shows nothing, as before it has caught up for the first time."""
    async with Client("127.0.0.1", port) as client:
        answer = await client.get("/scoreboard/top")
    return int(answer.json()["seq"]) if answer.status == 200 else -1


async def wait_traffic(port: int) -> None:
    """Wait until a node shows another seq."""
    before = await position(port)
    with trio.fail_after(ALARM_SECONDS):
        while await position(port) in {before, -1}:  # noqa: ASYNC110  # another process: there is only its answer to wait for
            await trio.sleep(0.05)


async def test_a_person_kills_a_replica_and_the_leader_and_ends_it(tmp_path: Path) -> None:
    """Points reach the page; it tells of a killed node and what to do; Enter starts the node; Ctrl-C ends all."""
    async with shown(tmp_path) as seen:
        await seen.wait("Ctrl-C ends all of it.")
        page = seen.told("replica-1")[0]
        assert f"Open http://127.0.0.1:{page}/" in seen.text
        await wait_traffic(page)

        os.kill(seen.told("replica-2")[1], signal.SIGKILL)
        await seen.wait("replica-2 was ended by SIGKILL. Enter starts it again.")
        await seen.enter()
        await seen.wait("  follows", times=3)
        await wait_traffic(seen.told("replica-2")[0])

        os.kill(seen.told("leader")[1], signal.SIGKILL)
        await seen.wait("Or promote a replica, the furthest: ")
        await seen.enter()
        await seen.wait("leader takes points again")
        await wait_traffic(page)

        os.killpg(seen.process.pid, signal.SIGINT)
        await seen.wait("all have ended")
        with trio.fail_after(ALARM_SECONDS):
            assert await seen.process.wait() == 0
        assert len(seen.all_pids()) == 5
        assert alive(seen.all_pids()) == []
        assert os.listdir(tmp_path) == []
        for name in NODES:
            with pytest.raises(OSError, match="connect"):
                await trio.open_tcp_stream("127.0.0.1", seen.told(name)[0])


async def test_a_person_promotes_a_replica(tmp_path: Path) -> None:
    """The printed command promotes; points go to the new leader; the other two are demoted and follow it."""
    async with shown(tmp_path) as seen:
        await seen.wait("Ctrl-C ends all of it.")
        await wait_traffic(seen.told("replica-1")[0])
        os.kill(seen.told("leader")[1], signal.SIGKILL)
        await seen.wait("Or promote a replica, the furthest: ")
        await seen.wait("admin.token", times=2)
        command = seen.text.rpartition("Or promote a replica, the furthest: ")[2].split()
        await trio.run_process(command, env=environment())
        await seen.wait("replica-1 was promoted")
        await seen.enter()
        await seen.wait("its directory is demoted first", times=2)
        await seen.wait("  follows", times=4)
        for name in NODES:
            await wait_traffic(seen.told(name)[0])
        seen.process.terminate()
        await seen.wait("all have ended")
        with trio.fail_after(ALARM_SECONDS):
            assert await seen.process.wait() == 0
        assert alive(seen.all_pids()) == []


async def test_make_starts_it() -> None:
    """`make run-cluster` runs that module, and a Ctrl-C reaches it."""
    # make may run these tests; then the inner make would print which directory it enters and leaves.
    command = ["make", "--no-print-directory", "-n", "run-cluster"]
    done = await trio.run_process(command, cwd=ROOT, capture_stdout=True)
    assert done.stdout.decode().splitlines()[-1].strip() == ".venv/bin/python -m bench.cluster_demo"
