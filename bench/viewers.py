"""Viewers for the benches: one process, one epoll, thousands of viewers that take messages in and count them.

A viewer is a WebSocket, or with `events` a stream of server-sent events.

The process does little for a message, so the bench measures the server: one read, a look at the frame's header, the
version of the message. It has a processor of its own. The process that started it reads how busy it was
(`processor_seconds`).

A version is the `seq` of a scoreboard message. With `ordinal` it is the number of the message, for servers that always
send the same bytes. As soon as every viewer has a version, or a newer one (latest wins), a line tells the version and
the time, on the clock that all processes of a machine share (`time.monotonic`).

The process looks at its sockets once a millisecond. Otherwise many a `send` of the server would wake this process, and
the waking would count as the server's time; real viewers are woken by their own machines.

It reads commands from standard input, one a line. It answers each with a JSON line on standard output, and writes a
line for each version:

    connect N      open viewers until there are N         {"connected": N}
    statistics     counts so far                          {"messages", "viewers", "closed", "sample"}
    (a version)                                           {"version", "at"}
"""

from __future__ import annotations

import json
import os
import queue
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).parents[1]

RECEIVE_BYTES = 2**16
CONNECTING_MAX = 200
"""Handshakes at the same time: fewer than every server's backlog."""

FILES = 19_600
"""Open files that a process with 19,000 viewers needs."""

VIEWERS_PER_ADDRESS = 5_000
"""Viewers from one source address (127.0.0.1, 127.0.0.2, …): a fifth of the ephemeral ports of an address."""

BIND_ADDRESS_NO_PORT = 24
"""IP_BIND_ADDRESS_NO_PORT of Linux: connect chooses the port, and may choose one that another server's viewer has."""

LOOK_SECONDS = 0.001
"""Between two looks at the sockets; the time of a version may be late by this much."""

ANSWER_SECONDS_MAX = 60.0

TEXT, CLOSE, PING = 0x81, 0x88, 0x89
PONG, MASKED, NO_MASK = 0x8A, 0x80, bytes(4)


EVENT_END = b"\n\n"


def stream_request(host: str) -> bytes:
    """Make the request of a viewer of server-sent events."""
    lines = ["GET /sse/scoreboard HTTP/1.1", f"Host: {host}", "Accept: text/event-stream", "", ""]
    return "\r\n".join(lines).encode()


def handshake(host: str) -> bytes:
    """Make the request of a viewer by WebSocket."""
    lines = ["GET /ws/scoreboard HTTP/1.1", f"Host: {host}", "Upgrade: websocket", "Connection: Upgrade"]
    lines += ["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "", ""]
    return "\r\n".join(lines).encode()


class _Crowd:
    """All viewers of one server. `newest` is the version that each has, by file descriptor."""

    begun = b"HTTP/1.1 101 "
    """How the answer to a viewer begins."""
    request = staticmethod(handshake)

    def __init__(self, port: int, *, ordinal: bool) -> None:
        self.port = port
        self.ordinal = ordinal
        self.poll = select.epoll()
        self.sockets: dict[int, socket.socket] = {}
        self.newest: dict[int, int] = {}
        self.partial: dict[int, bytes] = {}
        self.counts: dict[int, int] = {}  # by version that not every viewer has: how many have it or a newer one
        self.highest = 0
        self.messages = 0
        self.closed = 0
        self.sample = b""
        self._buffer = bytearray(RECEIVE_BYTES)
        self._request = self.request(f"127.0.0.1:{port}")

    def connect(self, count: int) -> None:
        """Open viewers until there are `count`."""
        while len(self.sockets) < count:
            opened = [self._open() for _ in range(min(CONNECTING_MAX, count - len(self.sockets)))]
            for viewer in opened:
                self._read_head(viewer)
                viewer.setblocking(False)
                self.poll.register(viewer.fileno(), select.EPOLLIN)
        self.counts.clear()

    def _open(self) -> socket.socket:
        viewer = socket.socket()
        viewer.setsockopt(socket.IPPROTO_IP, BIND_ADDRESS_NO_PORT, 1)
        viewer.bind((f"127.0.0.{1 + len(self.sockets) // VIEWERS_PER_ADDRESS}", 0))
        viewer.settimeout(ANSWER_SECONDS_MAX)
        viewer.connect(("127.0.0.1", self.port))
        viewer.sendall(self._request)
        self.sockets[viewer.fileno()] = viewer
        self.newest[viewer.fileno()] = self.highest if self.ordinal else 0
        return viewer

    def _read_head(self, viewer: socket.socket) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            received = viewer.recv(RECEIVE_BYTES)
            assert received, "the server closed a connection during the handshake"
            data += received
        head, _, rest = data.partition(b"\r\n\r\n")
        assert head.startswith(self.begun), head
        self._take(viewer.fileno(), rest)

    def _receive(self, number: int) -> int:
        """Read into the buffer; give the number of bytes, 0 if the connection has ended."""
        try:
            return self.sockets[number].recv_into(self._buffer)
        except ConnectionError:
            return 0

    def read(self, number: int) -> None:
        """Take in what came for a viewer."""
        buffer = self._buffer
        count = self._receive(number)
        if not count:
            self._close(number)
        elif (
            # Nearly always: one whole message of the usual length.
            buffer[0] == TEXT
            and buffer[1] == 126
            and buffer[2] * 256 + buffer[3] + 4 == count
            and number not in self.partial
        ):
            version = 0 if self.ordinal else int(buffer[buffer.rfind(b'"seq":', 0, count) + 6 : count - 1])
            self._have(number, version)
        else:
            self._take(number, self.partial.pop(number, b"") + bytes(buffer[:count]))

    def _take(self, number: int, data: bytes) -> None:
        """Take in whole frames, and keep the beginning of the next one."""
        while len(data) >= 2:
            length, start = data[1], 2
            if length > 125:
                start = 4 if length == 126 else 10
                length = int.from_bytes(data[2:start], "big") if len(data) >= start else RECEIVE_BYTES
            if len(data) < start + length:
                break
            opcode, payload, data = data[0], data[start : start + length], data[start + length :]
            if opcode == TEXT:
                self.sample = payload
                # The first message has more fields after the seq.
                seq = payload[payload.rfind(b'"seq":') + 6 : -1].partition(b",")[0]
                self._have(number, 0 if self.ordinal else int(seq))
            elif opcode == PING:
                self.sockets[number].send(bytes((PONG, MASKED | length)) + NO_MASK + payload)
            elif opcode == CLOSE:
                self._close(number)
                return
        if data:
            self.partial[number] = data

    def _have(self, number: int, version: int) -> None:
        """Note that a viewer has a version; if it is the last viewer to get it, tell the time."""
        self.messages += 1
        had = self.newest[number]
        if self.ordinal:
            version = had + 1
        self.newest[number] = version
        counts = self.counts
        if version > self.highest:
            self.highest = version
            counts[version] = 0
        elif version not in counts and version > had:
            # It came after a newer version. Viewers with the newer one have this too; this viewer is counted below.
            counts[version] = sum(version <= other for other in self.newest.values()) - 1
        for wanted in list(counts):
            if had < wanted <= version:
                counts[wanted] += 1
                if counts[wanted] == len(self.sockets):
                    del counts[wanted]
                    tell({"version": wanted, "at": time.monotonic()})

    def _close(self, number: int) -> None:
        self.closed += 1
        self.poll.unregister(number)
        self.sockets.pop(number).close()
        del self.newest[number]

    def statistics(self) -> dict[str, Any]:
        """Give the counts so far."""
        sample = self.sample.decode()
        return {"messages": self.messages, "viewers": len(self.sockets), "closed": self.closed, "sample": sample}


class _EventCrowd(_Crowd):
    """Viewers that get server-sent events."""

    begun = b"HTTP/1.1 200 "
    request = staticmethod(stream_request)

    def read(self, number: int) -> None:
        """Take in what came for a viewer."""
        count = self._receive(number)
        if count:
            self._take(number, self.partial.pop(number, b"") + bytes(self._buffer[:count]))
        else:
            self._close(number)

    def _take(self, number: int, data: bytes) -> None:
        """Take in whole events, and keep the beginning of the next one."""
        *events, rest = data.split(EVENT_END)
        for event in events:
            if event.startswith(b"id: "):
                self.sample = event.partition(b"\ndata: ")[2]
                self._have(number, int(event.partition(b"-")[2].partition(b"-")[0]))
        if rest:
            self.partial[number] = rest


def tell(line: dict[str, Any]) -> None:
    """Write a line to standard output."""
    os.write(1, json.dumps(line).encode() + b"\n")


def main() -> None:
    """Connect, count and tell until standard input ends."""
    port, processor, kind = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    os.sched_setaffinity(0, {processor})
    crowd = _EventCrowd(port, ordinal=False) if kind == "events" else _Crowd(port, ordinal=kind == "ordinal")
    crowd.poll.register(0, select.EPOLLIN)
    while True:
        for number, _ in crowd.poll.poll():
            if number:
                crowd.read(number)
                continue
            words = os.read(0, 4_096).decode().split()  # one command at a time: each waits for its answer
            if not words:
                return
            if words[0] == "connect":
                crowd.connect(int(words[1]))
                tell({"connected": len(crowd.sockets)})
            else:
                tell(crowd.statistics())
        time.sleep(LOOK_SECONDS)


# ---- the process that starts them ------------------------------------------------------------------------------------


class TooLate(Exception):
    """Not every viewer had the version in time."""


class ViewerLoad:
    """A context manager for the process with the viewers of one server."""

    def __init__(self, port: int, processor: int, kind: str = "seq") -> None:
        """`kind`: `seq` and `ordinal` are WebSockets, with versions as above; `events` are server-sent events."""
        self._command = [sys.executable, "-m", "bench.viewers", str(port), str(processor), kind]
        self._answers: queue.Queue[dict[str, Any]] = queue.Queue()
        self._versions: queue.Queue[tuple[int, float]] = queue.Queue()

    def __enter__(self) -> Self:
        """Start it."""
        self._process = subprocess.Popen(self._command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.pid = self._process.pid
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        with suppress(BrokenPipeError):
            self._process.communicate()
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(60)

    def connect(self, count: int) -> None:
        """Open viewers until there are `count`."""
        assert self._ask(f"connect {count}", 20 * ANSWER_SECONDS_MAX) == {"connected": count}

    def statistics(self) -> dict[str, Any]:
        """Ask for the counts so far."""
        return self._ask("statistics", ANSWER_SECONDS_MAX)

    def forget_versions(self) -> None:
        """Drop the versions that the process has told so far."""
        while not self._versions.empty():
            self._versions.get_nowait()

    def wait_version(self, version: int, seconds: float = ANSWER_SECONDS_MAX) -> float:
        """Wait until every viewer has this version or a newer one; give the time of that. Raises `TooLate`."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                seen, at = self._versions.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise TooLate(f"version {version} did not reach every viewer in {seconds:.0f} s") from None
            if seen >= version:
                return at

    def _ask(self, word: str, seconds: float) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(word.encode() + b"\n")
        self._process.stdin.flush()
        return self._answers.get(timeout=seconds)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with suppress(ValueError):  # __exit__ closes the pipe while we read
            for text in self._process.stdout:
                line = json.loads(text)
                if "version" in line:
                    self._versions.put((line["version"], line["at"]))
                else:
                    self._answers.put(line)


def allow_files() -> None:
    """Let this process, and those that it starts, have so many files open as 19,000 viewers need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, FILES)), hard))


def processor_seconds(*pids: int) -> float:
    """Give the processor time of processes so far: all their threads, user and kernel mode together.

    This reads the clock of another process, as clock_getcpuclockid(3) makes it: in nanoseconds, where /proc/PID/stat
    has steps of 10 ms.
    """
    return sum(time.clock_gettime((~pid << 3) | 2) for pid in pids)


def resident_bytes(*pids: int) -> int:
    """Give the resident memory of processes now; what two of them share counts twice."""
    pages = sum(int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) for pid in pids)
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
