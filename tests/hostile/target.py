"""The server under attack: a real process, and what an attack and its judge need to know of it.

Rules:
- Attacks come from 127.0.0.1 unless they say otherwise, and the honest client comes from 127.0.0.2: a bound for one
  address must stop the attackers and not the honest client.
- Waiting for all deadlines of a server takes minutes. The slice in `make test` has shorter ones, set in the process
  before it starts; the code that keeps them is the same. The long form has the real ones.
- Every wait has an end (`ALARM_SECONDS`), so generous that only a hanging test reaches it.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from server import bounds
from server.settings.http import HttpConfig
from tests.e2e.leader import ALARM_SECONDS, COMMAND, READY, SECRET, environment
from tests.hostile.issuer import Issuer
from tests.measuring import open_files, peak_rss_bytes, rss_bytes

LONG = "HOSTILE_LONG" in os.environ
ATTACKER = "127.0.0.1"
HONEST = "127.0.0.2"
ORIGIN = "https://board.example"

SHORT_SECONDS: Mapping[str, float] = {
    "VIEWER_PING_SECONDS": 1.0,
    "VIEWER_SILENCE_SECONDS_MAX": 3.0,
    "VIEWER_DRAIN_SECONDS_MAX": 3.0,
}
"""The deadlines of the slice, instead of those in `server.bounds`."""

SHORT_HTTP: Mapping[str, int] = (
    {} if LONG else {"head_seconds": 2, "body_seconds": 3, "send_seconds": 2, "idle_seconds": 3}
)
"""The deadlines of `[http]` in the slice; the long form has the default ones."""

CONFIG = f"""
[http]
{"".join(f"{name} = {seconds}{chr(10)}" for name, seconds in SHORT_HTTP.items())}
[limits]
caller_per_minute = 1000000000
user_per_minute = 1000000000
[live]
allowed_origins = ["{ORIGIN}"]
"""


@dataclass
class Reply:
    """One HTTP answer: its status, its headers (lower case) and its body."""

    status: int
    headers: dict[str, str]
    body: bytes


class Target:
    """A running server: connections to it, and its memory, files and log."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, stderr_path: Path) -> None:
        self.pid = process.pid
        self.port = port
        self.issuer: Issuer | None = None
        self._process = process
        self._stderr_path = stderr_path

    def seconds(self, name: str) -> float:
        """A deadline of this server, by its key in `[http]` or its name in `server.bounds`."""
        if name in SHORT_HTTP:
            return float(SHORT_HTTP[name])
        value = getattr(HttpConfig(), name) if name in HttpConfig.__struct_fields__ else getattr(bounds, name)
        return float(value if LONG else SHORT_SECONDS.get(name, value))

    def is_running(self) -> bool:
        """Whether the process is alive."""
        return self._process.poll() is None

    def kill(self) -> None:
        """Kill it, and wait for its end."""
        self._process.kill()
        self._process.wait()

    def rss_bytes(self) -> int:
        """Memory in use."""
        return rss_bytes(self.pid)

    def peak_rss_bytes(self) -> int:
        """The most memory since the peak was reset."""
        return peak_rss_bytes(self.pid)

    def open_files(self) -> int:
        """Files and connections that it has open."""
        return open_files(self.pid)

    def stderr(self) -> str:
        """What it logged so far."""
        return self._stderr_path.read_text(encoding="utf-8", errors="replace")

    def connect(self, source: str = ATTACKER, *, receive_buffer: int | None = None) -> socket.socket:
        """A connection, whose every wait ends with TimeoutError after ALARM_SECONDS."""
        connection = socket.socket()
        try:
            if receive_buffer is not None:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            connection.settimeout(ALARM_SECONDS)
            connection.bind((source, 0))
            connection.connect(("127.0.0.1", self.port))
        except BaseException:
            connection.close()
            raise
        return connection

    def wait_accepted(self) -> None:
        """Wait until every earlier connection is accepted: the server accepts them in order."""
        [reply] = self.ask(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", source=HONEST)
        assert reply.status == 200, reply

    def ask(self, *parts: bytes, source: str = ATTACKER) -> list[Reply]:
        """Send this on a connection of its own, end the sending side, and give all answers."""
        with self.connect(source) as connection:
            for part in parts:
                if not send(connection, part):
                    break
            finish(connection)
            return replies_in(read_to_end(connection))


def send(connection: socket.socket, data: bytes) -> bool:
    """Send all of it; False if the server has closed the connection."""
    try:
        connection.sendall(data)
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


def finish(connection: socket.socket) -> None:
    """End the sending side; ignore that the server may have closed the connection."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_WR)


def read_to_end(connection: socket.socket) -> bytes:
    """Everything up to the end of the connection, however it ends."""
    data = bytearray()
    try:
        while part := connection.recv(65536):
            data += part
    except ConnectionResetError:
        pass
    return bytes(data)


def replies_in(data: bytes) -> list[Reply]:
    """Split the data into answers. Every answer of this server has a length or, as 1xx, 204 and 304, no body."""
    replies = []
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        version, status, *_ = first.split(" ")
        assert version == "HTTP/1.1", first
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        length = int(headers.get("content-length", "0"))
        assert len(data) >= length, f"the answer {first!r} was cut off"
        replies.append(Reply(int(status), headers, data[:length]))
        data = data[length:]
    return replies


def wait_until(holds: Callable[[], bool], what: str, seconds: float = ALARM_SECONDS) -> None:
    """Wait until something holds; AssertionError with `what` if it does not in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"after {seconds:.0f} s still not: {what}"
        time.sleep(0.05)


@contextmanager
def serving(directory: Path, extra: Mapping[str, str] | None = None) -> Iterator[Target]:
    """Run a server that is ready; kill it at the end."""
    directory.mkdir(parents=True, exist_ok=True)
    config, stderr_path = directory / "scoreboard.toml", directory / "stderr"
    config.write_text(CONFIG, encoding="utf-8")
    command = [COMMAND]
    if not LONG:
        shorter = "; ".join(f"bounds.{name} = {value}" for name, value in SHORT_SECONDS.items())
        program = f"from server import bounds; {shorter}; from server.cli.main import main; main()"
        command = [sys.executable, "-c", program]
    command += ["serve", "--bind", "127.0.0.1:0", "--data-dir", str(directory / "data"), "--config", str(config)]
    with stderr_path.open("wb") as stderr:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=environment(extra or {"SCOREBOARD_AUTH_JWT_SECRET": SECRET}),
        )
    try:
        yield Target(process, _port_of(process, stderr_path), stderr_path)
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _port_of(process: subprocess.Popen[bytes], stderr_path: Path) -> int:
    """Read the ready line. The alarm is a kill, which ends the reading."""
    alarm = threading.Timer(ALARM_SECONDS, process.kill)
    alarm.start()
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.decode().startswith(READY):
                return int(line.decode().rpartition(":")[2])
    finally:
        alarm.cancel()
    raise AssertionError(f"the server did not start:\n{stderr_path.read_text(encoding='utf-8', errors='replace')}")
