"""A service manager with a real datagram socket: what a start, a stalled event loop and an end tell it."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import structlog
import trio
from structlog.testing import capture_logs

from server.node.service_manager import ServiceManager
from tests.e2e import leader as outside
from tests.server.cli.directories import increments, make
from tests.server.node.test_start import _own_logging, config_of, serve_and_use, stop

__all__ = ["_own_logging"]

BEAT_SECONDS = 0.05
STALL_SECONDS = 1.0


class Manager:
    """Receives in a thread of its own, so that a stalled event loop does not keep it from noting when."""

    def __init__(self, address: str) -> None:
        self.messages: list[tuple[float, str]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()

    def _receive(self) -> None:
        while data := self._socket.recv(65_536):
            self.messages.append((time.monotonic(), data.decode()))

    def close(self) -> None:
        """Stop receiving."""
        self._socket.shutdown(socket.SHUT_RD)
        self._thread.join(outside.ALARM_SECONDS)
        self._socket.close()

    def lines(self) -> list[str]:
        """Every line that came, in order."""
        return [line for _, message in self.messages for line in message.split("\n")]

    def times_of(self, line: str) -> list[float]:
        """When a line came."""
        return [when for when, message in self.messages if line in message.split("\n")]


@contextmanager
def manager_at(address: str) -> Iterator[Manager]:
    """Run a service manager."""
    manager = Manager(address)
    try:
        yield manager
    finally:
        manager.close()


@pytest.fixture(params=["path", "abstract"])
def names(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """The address of the socket, and NOTIFY_SOCKET."""
    if request.param == "path":
        return str(tmp_path / "notify"), str(tmp_path / "notify")
    name = f"scoreboard-test-{os.getpid()}-{time.monotonic_ns()}"
    return f"\0{name}", f"@{name}"


def set_environment(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    """As the manager sets it for the process that it starts."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


async def until(holds: Callable[[], bool]) -> None:
    """Wait until it holds."""
    with trio.fail_after(outside.ALARM_SECONDS):
        while not holds():  # noqa: ASYNC110  # the receiver is a thread
            await trio.sleep(BEAT_SECONDS)


async def test_a_start_and_an_end_are_told(
    tmp_path: Path, names: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recovery with its progress, then the role, then READY after the ready line, then STOPPING."""
    make(tmp_path / "data", increments(50))
    address, notify_socket = names
    set_environment(monkeypatch, NOTIFY_SOCKET=notify_socket)
    with manager_at(address) as manager:
        at_ready: list[str] = []

        async def use(url: str) -> None:
            at_ready.append(url)
            await until(lambda: "READY=1" in manager.lines())
            await stop(url)

        assert await serve_and_use(config_of(tmp_path / "data"), use) == 0
    lines = manager.lines()
    (url,) = at_ready
    assert lines[0] == "STATUS=recovering"
    recovering = [number for number, line in enumerate(lines) if line.startswith("STATUS=recovering: ")]
    assert recovering
    assert lines[recovering[0] + 1] == "EXTEND_TIMEOUT_USEC=60000000"
    order = [recovering[-1], lines.index(f"STATUS=leading, {url}"), lines.index("READY=1"), lines.index("STOPPING=1")]
    assert order == sorted(order)
    assert (lines.count("READY=1"), lines.count("STOPPING=1"), lines.count("WATCHDOG=1")) == (1, 1, 0)


async def test_a_stalled_event_loop_stops_the_beats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beats come at half of WATCHDOG_USEC; none comes while the loop does nothing else than one thing."""
    address = str(tmp_path / "notify")
    usec = str(int(2_000_000 * BEAT_SECONDS))
    set_environment(monkeypatch, NOTIFY_SOCKET=address, WATCHDOG_USEC=usec, WATCHDOG_PID=str(os.getpid()))
    stalled: list[float] = []
    with manager_at(address) as manager:

        async def use(url: str) -> None:
            await until(lambda: len(manager.times_of("WATCHDOG=1")) >= 3)
            stalled.append(time.monotonic())
            time.sleep(STALL_SECONDS)  # noqa: ASYNC251  # the stall
            stalled.append(time.monotonic())
            before = len(manager.times_of("WATCHDOG=1"))
            await until(lambda: len(manager.times_of("WATCHDOG=1")) >= before + 3)
            await stop(url)

        assert await serve_and_use(config_of(tmp_path / "data"), use) == 0
    beats = manager.times_of("WATCHDOG=1")
    begin, end = stalled
    assert not [when for when in beats if begin + STALL_SECONDS / 3 < when < end]
    assert [when for when in beats if when < begin]
    assert [when for when in beats if when > end]


async def test_the_watchdog_of_another_process_gets_no_beats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """WATCHDOG_PID names the process that is watched: a child of it inherits the variables."""
    address = str(tmp_path / "notify")
    set_environment(monkeypatch, NOTIFY_SOCKET=address, WATCHDOG_USEC="1000", WATCHDOG_PID=str(os.getpid() + 1))
    with manager_at(address) as manager:

        async def use(url: str) -> None:
            await until(lambda: "READY=1" in manager.lines())
            await stop(url)

        assert await serve_and_use(config_of(tmp_path / "data"), use) == 0
    assert "WATCHDOG=1" not in manager.lines()


async def test_without_a_service_manager_nothing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable, no socket, no line in the log."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.setattr(socket.socket, "sendto", None)
    assert await serve_and_use(config_of(tmp_path / "data"), stop) == 0


def test_a_manager_that_is_gone_does_not_end_the_node(tmp_path: Path) -> None:
    """One warning for as long as it fails in the same way; then what comes arrives again."""
    structlog.reset_defaults()
    address = str(tmp_path / "notify")
    manager = ServiceManager.of({"NOTIFY_SOCKET": address}, 1)
    with capture_logs() as logged:
        manager.ready()
        manager.status("leading")
        manager.stopping()
    assert [(line["event"], line["error"], line["message"]) for line in logged] == [
        ("service_manager_not_told", "No such file or directory", "READY")
    ]
    with manager_at(address) as there:
        manager.status("a\nREADY=1")
        manager.status("a\nREADY=1")
        while not there.messages:
            time.sleep(0.01)
    assert there.lines() == ["STATUS=a READY=1"], "one line of text can't become two lines of the protocol"


@pytest.mark.parametrize(
    ("environ", "event"),
    [
        ({"NOTIFY_SOCKET": "vsock:2:1234"}, "notify_socket_refused"),
        ({"NOTIFY_SOCKET": "relative/path"}, "notify_socket_refused"),
        ({"NOTIFY_SOCKET": "@"}, "notify_socket_refused"),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "soon"}, "watchdog_refused"),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "0"}, "watchdog_refused"),
    ],
)
def test_what_is_not_understood_is_told_and_left_out(environ: dict[str, str], event: str) -> None:
    """A node starts without a service manager that it can't reach."""
    structlog.reset_defaults()
    with capture_logs() as logged:
        manager = ServiceManager.of(environ, 1)
    assert [line["event"] for line in logged] == [event]
    assert manager._beat_seconds is None
