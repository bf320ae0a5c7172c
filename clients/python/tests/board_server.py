"""A real leader as a process, for tests that are not async. It keeps its port and its directory when it is killed.

    with Server(tmp_path) as server:
        server.kill()           kill -9
        server.start()          the same port, the same directory

Rules:
- The process is ended in any case.
- Every wait has an end (`ALARM_SECONDS`), so generous that only a hanging test reaches it.
"""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlencode

import httpx

from tests.e2e.leader import ALARM_SECONDS, COMMAND, READY, SECRET, environment, token

BACKENDS = ("asyncio", "trio")

CLIENT = Path(__file__).parents[1]
"""Where the package lies, for processes of their own."""

CONFIG = """
[boards.main.points]
ACTION_COMPLETED = 10
BONUS = 25
[limits]
caller_per_minute = 10000000
user_per_minute = 10000000
"""


def free_port() -> int:
    """Give a port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """A leader. `config` replaces that above."""

    def __init__(self, root: Path, config: str = CONFIG, arguments: Sequence[str] = ()) -> None:
        self.port = free_port()
        self.directory = root / "data"
        self._stderr = root / "server.stderr"
        self._config = root / "scoreboard.toml"
        self._config.write_text(config)
        self._arguments = list(arguments)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def bearer(self, *scopes: str) -> str:
        """Make a token, for writes and reads unless `scopes` says otherwise."""
        return token(*(scopes or ("scores:write", "scores:read")))

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        bind = ["--bind", f"127.0.0.1:{self.port}", "--data-dir", str(self.directory), "--config", str(self._config)]
        with self._stderr.open("ab") as stderr:
            self._process = subprocess.Popen(
                [COMMAND, "serve", *bind, *self._arguments],
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=environment({"SCOREBOARD_AUTH_JWT_SECRET": SECRET}),
            )
        assert self._process.stdout is not None
        alarm = threading.Timer(ALARM_SECONDS, self._process.kill)
        alarm.start()
        try:
            line = self._process.stdout.readline().decode()
        finally:
            alarm.cancel()
        assert line.startswith(READY), (line, self._stderr.read_text())

    def kill(self) -> None:
        """`kill -9`, and wait until it is gone."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()

    def make_board(self, board_id: str) -> None:
        """Make a board whose reasons are those of the board `main`."""
        answer = httpx.put(
            f"{self.url}/boards?{urlencode({'boardId': board_id})}",
            json={"points": {"ACTION_COMPLETED": 10, "BONUS": 25}},
            headers={"authorization": f"Bearer {self.bearer('boards:write')}"},
        )
        assert answer.is_success, answer.text

    def counted(self) -> list[dict[str, Any]]:
        """Give the increments of the log, in their order."""
        return log_of(self.directory)


def log_of(directory: Path) -> list[dict[str, Any]]:
    """Give the increments of a directory's log, in their order. A server may use it meanwhile."""
    command = [COMMAND, "log", "dump", "--data-dir", str(directory)]
    done = subprocess.run(command, capture_output=True, check=True, env=environment(), timeout=ALARM_SECONDS)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return [row for row in rows if row["type"] == "incremented"]
