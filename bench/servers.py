"""The servers that the benches measure: each is a process on one processor, started here and stopped at the end.

    with leader(processor=0) as server:                  ready, with a token that may increment
        with replica(server, 1, "replica-1") as other:   started; `wait_ready(other.port)` waits until it listens
            ...

Each server has a directory of its own under `bench/work`, removed at the end.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import jwt
import msgspec

ROOT = Path(__file__).parents[1]
WORK = Path(__file__).with_name("work")
COMMAND = [sys.executable, "-m", "server.cli.main"]
START_SECONDS_MAX = 120.0
STOP_SECONDS_MAX = 60.0

CONFIG = """
[limits]
caller_per_minute = 100000000
user_per_minute = 100000000
[logging]
level = "warning"
"""


class Missing(Exception):
    """A peer is missing on this machine; the text says what to install."""


class Server(msgspec.Struct, frozen=True):
    """A server that is ready; `token` may increment.

    `pids` are all its processes; the first is the one that answers. `redis_port` is the port of the peer's Redis.
    `secret` signs more tokens for it; the peer has none here.
    """

    port: int
    token: str
    pids: tuple[int, ...]
    redis_port: int = 0
    secret: str = ""

    def metric(self, name: str) -> float:
        """Read one sample of /metrics."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics") as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith(f"{name} "):
                    return float(line.split(" ")[1])
        raise KeyError(name)


@contextmanager
def fresh_directory(name: str) -> Iterator[Path]:
    """An empty directory, removed at the end."""
    path = WORK / name
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def running(
    command: list[str], processor: int, environment: dict[str, str] | None = None, directory: Path = ROOT, *,
    kill: bool = False,
) -> Iterator[int]:  # fmt: skip
    """Run a process on one processor and give its id; at the end SIGTERM, and SIGKILL if that is not enough.

    `kill`: SIGKILL at once, so that nothing is written at the end.
    """
    environment = {**os.environ, **(environment or {})}
    process = subprocess.Popen(
        ["taskset", "-c", str(processor), *command],
        cwd=directory,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process.pid  # taskset becomes the command, so this is the command's pid
    finally:
        process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def command_of(checkout: Path) -> list[str]:
    """The command `scoreboard` of a checkout."""
    return COMMAND if checkout == ROOT else [str(checkout / ".venv/bin/python"), *COMMAND[1:]]


@contextmanager
def leader(
    processor: int,
    config_more: str = "",
    *,
    name: str = "leader",
    fill: Callable[[str], None] = lambda _directory: None,
    checkout: Path = ROOT,
    kill: bool = False,
) -> Iterator[Server]:
    """The leader of this project, with limits that no load reaches; `config_more` is added to its configuration.

    `fill` may write to its data directory before it starts; `name` tells several leaders apart. The code of `checkout`
    runs, with the `.venv` of that checkout. `kill`: it ends without a last snapshot.
    """
    with fresh_directory(name) as path:
        secret, port = secrets.token_hex(32), free_port()
        config = path / "scoreboard.toml"
        config.write_text(CONFIG + config_more)
        fill(str(path / "data"))
        command = [*command_of(checkout), "serve", "--config", str(config)]
        command += ["--bind", f"127.0.0.1:{port}", "--data-dir", str(path / "data")]
        with running(command, processor, {"SCOREBOARD_AUTH_JWT_SECRET": secret}, checkout, kill=kill) as pid:
            wait_ready(port)
            yield Server(port, token(secret), (pid,), secret=secret)


@contextmanager
def replica(of: Server, processor: int, name: str, config_more: str = "", *, durable: bool = True) -> Iterator[Server]:
    """A replica that is starting: `wait_ready` waits until it listens. `durable`: with a data directory."""
    with fresh_directory(name) as path:
        port = free_port()
        config, token_file = path / "scoreboard.toml", path / "token"
        config.write_text(CONFIG + config_more)
        token_file.write_text(token(of.secret, "log:read"))
        command = [*COMMAND, "replica", "--leader", f"http://127.0.0.1:{of.port}", "--token-file", str(token_file)]
        command += ["--config", str(config), "--bind", f"127.0.0.1:{port}"]
        command += ["--data-dir", str(path / "data")] if durable else []
        with running(command, processor, {"SCOREBOARD_AUTH_JWT_SECRET": of.secret}) as pid:
            yield Server(port, of.token, (pid,), secret=of.secret)


@contextmanager
def fastapi_redis(processor: int) -> Iterator[Server]:
    """FastAPI on uvicorn with Redis, both on one processor. Raises `Missing`."""
    lacking = [name for name in ("fastapi", "uvicorn", "redis", "uvloop") if importlib.util.find_spec(name) is None]
    if lacking:
        raise Missing("pip install '.[bench]'")
    if shutil.which("redis-server") is None:
        raise Missing("apt-get install redis-server")
    with fresh_directory("redis") as path:
        secret, port, redis_port = secrets.token_hex(32), free_port(), free_port()
        redis = ["redis-server", "--port", str(redis_port), "--bind", "127.0.0.1", "--dir", str(path)]
        redis += ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
        peer = [sys.executable, "-m", "uvicorn", "bench.peers.fastapi_redis:app", "--port", str(port)]
        peer += ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
        environment = {"PEER_SECRET": secret, "PEER_REDIS_PORT": str(redis_port)}
        with running(redis, processor) as redis_pid:
            wait_ready(redis_port)
            with running(peer, processor, environment) as pid:
                wait_ready(port)
                yield Server(port, token(secret), (pid, redis_pid), redis_port)


def token(secret: str, scope: str = "scores:write") -> str:
    """A token with the given scope, good for a day."""
    claims = {"sub": "bench", "aud": "scoreboard", "scope": scope, "exp": int(time.time()) + 86_400}
    return jwt.encode(claims, secret, algorithm="HS256")


def free_port() -> int:
    """A port that no process listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_ready(port: int) -> None:
    """Wait until a process listens on the port."""
    end = time.monotonic() + START_SECONDS_MAX
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
        else:
            return
