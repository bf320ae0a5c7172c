"""What a service manager such as systemd is told: readiness, progress, the end, and that the event loop runs.

    manager = ServiceManager.of(os.environ, os.getpid())
    manager.status("recovering: log, 40 %"); manager.ready(); manager.stopping()
    nursery.start_soon(manager.beat)

The protocol is sd_notify(3): one datagram of `NAME=value` lines to the Unix socket that NOTIFY_SOCKET names. A path
begins with `/`; a name in the abstract namespace begins with `@`. Without NOTIFY_SOCKET nothing is sent.

    READY=1       the node serves                         after the ready line
    STATUS=       one line for `systemctl status`         while recovering, and at each change of the role
    STOPPING=1    the end was asked for                   a signal or a fault
    WATCHDOG=1    the event loop runs                     at half of WATCHDOG_USEC, if WATCHDOG_PID is this process

Rules:
- The beat is a task of the event loop. While the loop is stalled no beat is sent, and the manager restarts the process.
- Nothing here ends or stops the node: a socket that is gone or full costs a line in the log and the message.
- With each progress goes EXTEND_TIMEOUT_USEC: a long recovery that makes progress is not killed by TimeoutStartSec.

`systemd-python` needs C headers and `sdnotify` had its last release in 2017; the protocol is one `sendto`.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from typing import Self

import structlog
import trio

from server import bounds

log = structlog.get_logger()


class ServiceManager:
    """`address` is the socket, None for none; `beat_seconds` the time between two beats, None for no watchdog.

    `status` and `progress` may be called from any thread.
    """

    def __init__(self, address: str | None, beat_seconds: float | None = None) -> None:
        self._address = address
        self._beat_seconds = beat_seconds if address is not None else None
        self._status = ""
        self._progress_told = -bounds.MANAGER_PROGRESS_SECONDS
        self._failure = ""

    @classmethod
    def of(cls, environ: Mapping[str, str], pid: int) -> Self:
        """Take what the manager put into the environment. What is not understood is told in the log, and left out."""
        named = environ.get("NOTIFY_SOCKET", "")
        if not named:
            return cls(None)
        if named[0] not in "/@" or len(named) < 2:
            log.warning("notify_socket_refused", address=named, allowed="/path or @name")
            return cls(None)
        beat_seconds = None
        usec = environ.get("WATCHDOG_USEC", "")
        if usec and environ.get("WATCHDOG_PID", str(pid)) == str(pid):
            if usec.isascii() and usec.isdigit() and int(usec) > 0:
                beat_seconds = int(usec) / 2_000_000
            else:
                log.warning("watchdog_refused", usec=usec, allowed="a number of microseconds")
        return cls("\0" + named[1:] if named[0] == "@" else named, beat_seconds)

    def ready(self) -> None:
        self._send("READY=1")

    def stopping(self) -> None:
        self._send("STOPPING=1\nSTATUS=stopping")

    def status(self, text: str) -> None:
        """Tell what the node does. The same text again is not sent."""
        if text != self._status:
            self._status = text
            self._send(f"STATUS={_one_line(text)}")

    def progress(self, stage: str, done: int, total: int) -> None:
        """Tell how far the start has come. Of many calls one in a while is sent."""
        now = time.monotonic()
        if now - self._progress_told < bounds.MANAGER_PROGRESS_SECONDS:
            return
        self._progress_told = now
        share = f", {100 * done // total} %" if total else ""
        self._status = f"recovering: {stage}{share}"
        self._send(f"STATUS={_one_line(self._status)}\nEXTEND_TIMEOUT_USEC={bounds.MANAGER_EXTENSION_USEC}")

    async def beat(self) -> None:
        """Tell that the event loop runs, until cancelled."""
        if self._beat_seconds is None:
            return
        while True:
            self._send("WATCHDOG=1")
            await trio.sleep(self._beat_seconds)

    def _send(self, text: str) -> None:
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.setblocking(False)  # the event loop never waits for the manager
                sock.sendto(text.encode(), self._address)
        except OSError as error:
            failure = os.strerror(error.errno) if error.errno else str(error)
            if failure != self._failure:
                log.warning("service_manager_not_told", error=failure, message=text.partition("=")[0])
            self._failure = failure
        else:
            self._failure = ""


def _one_line(text: str) -> str:
    return " ".join(text.split())
