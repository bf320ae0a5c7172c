"""The systems of `bench.quorum`: each keeps an increment on three nodes, all on one processor of this machine.

    with quorum_three(processor=0) as server:
    with redis_three(processor=0, waits=(1, 2)) as (majority, all_three):
    with etcd_three(processor=0) as server:

`Server.port` takes increments: of ours, the leader. `Server.pids` are all processes of the system: a service and its
three stores; ours are three nodes and three servers of NATS.
"""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import trio

from bench.servers import (
    COMMAND,
    CONFIG,
    ROOT,
    START_SECONDS_MAX,
    Missing,
    Server,
    free_port,
    fresh_directory,
    running,
    token,
    wait_ready,
)
from tests.quorum import servers as nats

NODES = 3


@contextmanager
def quorum_three(processor: int) -> Iterator[Server]:
    """Three nodes of a quorum, on three servers of NATS that sync each frame (`sync_interval: always`).

    Raises `Missing`.
    """
    if not Path(nats.COMMAND).exists():
        raise Missing("pip install '.[quorum]'")
    with fresh_directory("quorum") as path, ExitStack() as stack:
        cluster = nats.Cluster(path / "nats")
        stack.callback(cluster.end)
        usual = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {processor})  # what is started inherits it
        try:
            cluster.start()
        finally:
            os.sched_setaffinity(0, usual)
        trio.run(cluster.wait_ready)
        secret = secrets.token_hex(32)
        environment = {"SCOREBOARD_AUTH_JWT_SECRET": secret, "SCOREBOARD_QUORUM_SERVERS": ",".join(cluster.urls)}
        config = path / "scoreboard.toml"
        config.write_text(CONFIG)
        of_config = ["--config", str(config)]
        subprocess.run(
            [*COMMAND, "quorum", "init", *of_config], env={**os.environ, **environment}, cwd=ROOT, check=True,
            capture_output=True,
        )  # fmt: skip
        pids = {}
        for number in range(NODES):
            port = free_port()
            command = [*COMMAND, "serve", "--quorum", *of_config, "--bind", f"127.0.0.1:{port}"]
            command += ["--data-dir", str(path / f"node-{number}")]
            pids[port] = stack.enter_context(running(command, processor, environment))
        for port in pids:
            wait_ready(port)
        _until(lambda: any(map(_leads, pids)), "the nodes of the quorum")
        port = next(filter(_leads, pids))
        servers = [server.process.pid for server in cluster.servers.values() if server.process is not None]
        others = [pid for other, pid in pids.items() if other != port]
        yield Server(port, token(secret), (pids[port], *others, *servers), secret=secret)


@contextmanager
def redis_three(processor: int, waits: tuple[int, ...]) -> Iterator[list[Server]]:
    """Redis with two replicas, `appendfsync always` on each; for each of `waits` a service that waits for so many.

    Raises `Missing`.
    """
    _want("fastapi", "uvicorn", "redis", "uvloop")
    if shutil.which("redis-server") is None:
        raise Missing("apt-get install redis-server")
    import redis  # noqa: PLC0415  # it may be missing

    with fresh_directory("redis-three") as path, ExitStack() as stack:
        ports = [free_port() for _ in range(NODES)]
        pids = []
        for number, port in enumerate(ports):
            (directory := path / str(port)).mkdir()
            command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory)]
            command += [
                "--appendonly",
                "yes",
                "--appendfsync",
                "always",
                "--save",
                "",
                "--repl-diskless-sync-delay",
                "0",
            ]
            command += ["--replicaof", "127.0.0.1", str(ports[0])] if number else []
            pids.append(stack.enter_context(running(command, processor)))
            wait_ready(port)
        main = redis.Redis(port=ports[0])
        _until(lambda: _online(main.info("replication")) == NODES - 1, "the replicas of Redis")
        main.close()
        environments = [{"PEER_REDIS_PORT": str(ports[0]), "PEER_WAIT": str(replicas)} for replicas in waits]
        yield [stack.enter_context(_service("fastapi_redis", processor, each, pids)) for each in environments]


@contextmanager
def etcd_three(processor: int) -> Iterator[Server]:
    """FastAPI and etcd with three members; the service talks to their leader. Raises `Missing`."""
    _want("fastapi", "uvicorn", "aetcd", "uvloop")
    if shutil.which("etcd") is None:
        raise Missing("apt-get install etcd-server")
    with fresh_directory("etcd") as path, ExitStack() as stack:
        clients, peers = ([free_port() for _ in range(NODES)] for _ in range(2))
        cluster = ",".join(f"e{number}=http://127.0.0.1:{port}" for number, port in enumerate(peers))
        pids = []
        for number, (client, peer) in enumerate(zip(clients, peers, strict=True)):
            own, other = f"http://127.0.0.1:{client}", f"http://127.0.0.1:{peer}"
            command = ["etcd", "--name", f"e{number}", "--data-dir", str(path / str(number)), "--log-level", "error"]
            command += ["--listen-client-urls", own, "--advertise-client-urls", own, "--listen-peer-urls", other]
            command += ["--initial-advertise-peer-urls", other, "--initial-cluster", cluster]
            pids.append(stack.enter_context(running(command, processor)))
        _until(lambda: _leader_of(clients) is not None, "the members of etcd")
        environment = {"PEER_ETCD_PORT": str(_leader_of(clients))}
        yield stack.enter_context(_service("fastapi_etcd", processor, environment, pids))


@contextmanager
def _service(module: str, processor: int, environment: dict[str, str], pids: list[int]) -> Iterator[Server]:
    """Run the HTTP service of a peer over its stores."""
    secret, port = secrets.token_hex(32), free_port()
    command = [sys.executable, "-m", "uvicorn", f"bench.peers.{module}:app", "--port", str(port), "--loop", "uvloop"]
    command += ["--http", "httptools", "--no-access-log", "--log-level", "warning"]
    with running(command, processor, {"PEER_SECRET": secret, **environment}) as pid:
        wait_ready(port)
        yield Server(port, token(secret), (pid, *pids))


def _want(*modules: str) -> None:
    if any(importlib.util.find_spec(module) is None for module in modules):
        raise Missing("pip install '.[bench]'")


def _online(replication: dict[str, Any]) -> int:
    """How many replicas get what is written."""
    found = [value for name, value in replication.items() if name.startswith("slave") and isinstance(value, dict)]
    return sum(each["state"] == "online" for each in found)


def _leader_of(ports: list[int]) -> int | None:
    """The client port of the member that leads, if all members answer and agree."""
    told = {}
    for port in ports:
        request = urllib.request.Request(f"http://127.0.0.1:{port}/v3/maintenance/status", b"{}")
        try:
            with urllib.request.urlopen(request, timeout=1) as answer:
                status = json.load(answer)
        except OSError:
            return None
        told[status["header"]["member_id"]] = (port, status.get("leader"))
    leaders = {leader for _, leader in told.values()}
    leader = leaders.pop()
    return told[leader][0] if not leaders and leader in told else None


def _leads(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz?role=leader", timeout=1):
            return True
    except OSError:
        return False


def _until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + START_SECONDS_MAX
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"{what} do not get ready")
        time.sleep(0.05)
