"""A leader and a replica as the compose file starts them, with traffic: one pair for all tests."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.deploy.files import compose, exec_form, image_environment, last_stage, only
from tests.e2e import leader as outside

TOKEN_PATH = "/run/scoreboard/replica.token"
COMMAND = [sys.executable, "-m", "server.cli.main"]


@dataclass
class Pair:
    """Their addresses, a backend's token, and what /metrics of each said after the traffic."""

    leader: str
    replica: str
    token: str
    scrapes: dict[str, str]


def free_port() -> int:
    """A port that is free now. The commands of the compose file name theirs, so the system can't choose later."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def running(arguments: list[str], directory: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Run a node until the end of the block, then as `docker stop` ends it: SIGTERM, and the exit code is 0.

    The block may kill it before. `directory` gets what it writes to standard error.
    """
    with (directory / "stderr").open("wb") as stderr:
        process = subprocess.Popen(
            [*COMMAND, *arguments],
            env=outside.environment(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    try:
        assert process.stdout is not None
        ready = process.stdout.readline()
        assert ready.startswith("scoreboard ready on "), (directory / "stderr").read_text()
        yield process
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            assert process.wait(outside.ALARM_SECONDS) == 0
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Start both by the image's environment and the compose file's commands; only ports and paths are others."""
    services = compose()["services"]
    image = image_environment()
    tmp_path = tmp_path_factory.mktemp("compose")
    ports = {"leader": free_port(), "replica-1": free_port()}
    made = Pair(
        leader=f"http://127.0.0.1:{ports['leader']}",
        replica=f"http://127.0.0.1:{ports['replica-1']}",
        token="",
        scrapes={},
    )
    token_path = tmp_path / "replica.token"

    def environment(name: str) -> dict[str, str]:
        own = {
            "SCOREBOARD_BIND": image["SCOREBOARD_BIND"].replace("0.0.0.0:8080", f"127.0.0.1:{ports[name]}"),
            "SCOREBOARD_DATA_DIR": str(tmp_path / name / "data"),
        }
        return {**own, **services[name].get("environment", {})}

    def command(name: str) -> list[str]:
        replaced = {"http://leader:8080": made.leader, TOKEN_PATH: str(token_path)}
        return [replaced.get(word, word) for word in services[name]["command"]]

    assert exec_form(only("ENTRYPOINT", last_stage())) == ["scoreboard"]
    with ExitStack() as stack:
        for name in ports:
            (tmp_path / name).mkdir()
        stack.enter_context(running(command("leader"), tmp_path / "leader", environment("leader")))
        assert not token_path.exists()
        (script,) = services["token"]["command"]
        script = script.replace("scoreboard token", f"{' '.join(COMMAND)} token").replace(TOKEN_PATH, str(token_path))
        shell = services["token"]["entrypoint"]
        subprocess.run([*shell, script], env=outside.environment(environment("leader")), check=True)
        assert token_path.stat().st_mode & 0o077 == 0
        stack.enter_context(running(command("replica-1"), tmp_path / "replica-1", environment("replica-1")))
        use(made, tmp_path / "leader" / "data")
        yield made


def use(pair: Pair, data: Path) -> None:
    """Make the traffic that shows the metrics which appear only with their first value, then scrape both nodes."""
    pair.token = subprocess.run(
        [*COMMAND, "token", "--sub", "shop", "--data-dir", str(data)],
        env=outside.environment(), capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    with httpx.Client(trust_env=False, timeout=outside.ALARM_SECONDS) as client:
        body = {"userId": "ann", "actionId": "a1"}
        headers = {"Authorization": f"Bearer {pair.token}"}
        answer = client.post(f"{pair.leader}/scores/increment", json=body, headers=headers)
        position = {"minSeq": answer.json()["seq"], "minEpoch": answer.json()["epoch"]}
        for url in (pair.leader, pair.replica):
            top = client.get(f"{url}/scoreboard/top", params=position)
            assert [row["userId"] for row in top.json()["entries"]] == ["ann"], top.text
            client.get(f"{url}/boards/main/export", params={"format": "csv"})
            with client.stream("GET", f"{url}/sse/scoreboard") as stream:
                next(stream.iter_lines())
            pair.scrapes[url] = client.get(f"{url}/metrics").text
