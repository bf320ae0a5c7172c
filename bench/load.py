"""A load generator: one thread, one epoll, keep-alive connections that each have one request on its way.

It does as little per answer as can be done, so that what is measured is the server: a prepared request goes out, the
status line and the length of the answer are looked at, the next request follows. It runs in a process of its own,
pinned to a processor of its own, and tells how busy that was (`cpu_share`): near 1 it would be the bottleneck itself.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

RECEIVE_BYTES = 2**18
ROOT = Path(__file__).parents[1]


class Workload(msgspec.Struct, frozen=True):
    """What to send. `batch` 0 is a single increment; `first` is sent once on each connection before the measuring."""

    port: int
    connections: int
    seconds: float
    token: str
    prefix: str
    method: str = "POST"
    path: str = "/scores/increment"
    batch: int = 0
    users: int = 10_000
    first: str = ""


class Load(msgspec.Struct, frozen=True):
    """What came of it. Latencies in ms; `answers` had status 200 (or 304), `errors` any other."""

    answers: int
    errors: int
    seconds: float
    ms_p50: float
    ms_p99: float
    cpu_share: float

    @property
    def per_second(self) -> float:
        """Answers in a second."""
        return self.answers / self.seconds


def run_load(workload: Workload, processor: int) -> Load:
    """Run a load in a process of its own, on the given processor."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.load", str(processor)],
        input=msgspec.json.encode(workload),
        capture_output=True,
        check=True,
        cwd=ROOT,
    )
    return msgspec.json.decode(done.stdout, type=Load)


def requests_of(workload: Workload) -> Callable[[], bytes]:
    """Give a function that makes the next request: every action is a new one, users come in turn."""
    head = f"{workload.method} {workload.path} HTTP/1.1\r\nHost: bench\r\n"
    if workload.method == "GET":
        request = f"{head}\r\n".encode()
        return lambda: request
    head += f"Authorization: Bearer {workload.token}\r\nContent-Type: application/json\r\nContent-Length: "
    start = head.encode()
    number = 0

    def item() -> str:
        nonlocal number
        number += 1
        user = number * 7_919 % workload.users
        return f'{{"userId":"user-{user:07d}","actionId":"{workload.prefix}-{number:09d}"}}'

    def make() -> bytes:
        body = f"[{','.join(item() for _ in range(workload.batch))}]" if workload.batch else item()
        return b"%s%d\r\n\r\n%s" % (start, len(body), body.encode())

    return make


class _Connections:
    """The connections, each with the time at which its request went out and what came of the answer so far."""

    def __init__(self, workload: Workload) -> None:
        self._make = requests_of(workload)
        self._poll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._sent_at: dict[int, float] = {}
        self._partial: dict[int, bytes] = {}
        self.waits: list[float] = []
        self.errors = 0
        for _ in range(workload.connections):
            client = socket.create_connection(("127.0.0.1", workload.port))
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if workload.first:
                client.sendall(workload.first.encode())
                answer = client.recv(RECEIVE_BYTES)
                while not is_whole(answer):
                    answer += client.recv(RECEIVE_BYTES)
                assert answer.startswith(b"HTTP/1.1 200")
            self._sockets[client.fileno()] = client
            self._poll.register(client.fileno(), select.EPOLLIN)

    def run(self, seconds: float) -> None:
        """Send for so long, then wait for the last answers."""
        clock = time.perf_counter
        end = clock() + seconds
        for number, client in self._sockets.items():
            self._sent_at[number] = clock()
            client.sendall(self._make())
        waiting = len(self._sockets)
        while waiting:
            for number, _ in self._poll.poll():
                client = self._sockets[number]
                if not self._take(number, client.recv(RECEIVE_BYTES)):
                    continue
                now = clock()
                self.waits.append(now - self._sent_at[number])
                if now < end:
                    self._sent_at[number] = now
                    client.sendall(self._make())
                else:
                    waiting -= 1

    def _take(self, number: int, data: bytes) -> bool:
        """Take in a part of an answer; True when the answer is whole."""
        assert data, "the server closed a connection"
        data = self._partial.pop(number, b"") + data
        if is_whole(data):
            self.errors += data[9:12] not in (b"200", b"304")
            return True
        self._partial[number] = data
        return False


def is_whole(data: bytes) -> bool:
    """Whether these are all the bytes of an answer."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return False
    at = data.find(b"content-length: ")
    length = int(data[at + 16 : data.find(b"\r", at)]) if 0 <= at < end else 0
    return len(data) >= end + 4 + length


def main() -> None:
    """Read a workload from standard input, run it, write the load to standard output."""
    workload = msgspec.json.decode(sys.stdin.buffer.read(), type=Workload)
    os.sched_setaffinity(0, {int(sys.argv[1])})
    connections = _Connections(workload)
    began, busy = time.perf_counter(), time.process_time()
    connections.run(workload.seconds)
    seconds, busy = time.perf_counter() - began, time.process_time() - busy
    waits = sorted(connections.waits)
    load = {
        "answers": len(waits) - connections.errors,
        "errors": connections.errors,
        "seconds": seconds,
        "ms_p50": waits[len(waits) // 2] * 1000,
        "ms_p99": waits[len(waits) * 99 // 100] * 1000,
        "cpu_share": busy / seconds,
    }
    print(json.dumps(load))


if __name__ == "__main__":
    main()
