"""Tools of the bench of replicas: wait for a replica's position, write at a steady pace, measure how late a replica is.

    wait_for(server, seq)                              until the node answers with this seq
    with SteadyWriter(leader, 5_000) as writer: ...    batches at a steady rate, from a thread
    measure_lateness(leader, replica, 5_000, 15.0)     from a receipt to the replica's answer

All of it blocks; only the writer has a thread of its own.
"""

from __future__ import annotations

import http.client
import json
import queue
import secrets
import socket
import threading
import time
from types import TracebackType
from typing import Any, Self

import msgspec

from bench.servers import Server

BEHIND_SECONDS_MAX = 300.0
AGAIN_SECONDS = 0.01
BATCH = 50
"""Increments in a request of the paced writer: 5,000 a second are a hundred requests a second."""

RECEIVE_BYTES = 2**16


class Lateness(msgspec.Struct, frozen=True):
    """How late a replica was in each read: ms from a backend's receipt to an answer that includes it.

    `header_ms` is the lag that the replica's own header told. `per_second` is the rate that the writer reached.
    """

    ms: list[float]
    header_ms: list[float]
    per_second: float


def wait_for(server: Server, seq: int) -> float:
    """Ask a node again and again until it answers with this seq; give the time of that answer."""
    deadline = time.monotonic() + BEHIND_SECONDS_MAX
    while time.monotonic() < deadline:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=BEHIND_SECONDS_MAX)
        try:
            connection.request("GET", f"/scoreboard/top?limit=1&minSeq={seq}")
            if connection.getresponse().status == http.client.OK:
                return time.monotonic()
        except OSError:
            pass  # it does not listen yet
        finally:
            connection.close()
        time.sleep(AGAIN_SECONDS)
    raise TimeoutError(f"the node on port {server.port} did not reach seq {seq}")


class Backend:
    """A backend with one kept connection: it sends a request in one piece and reads JSON."""

    def __init__(self, server: Server) -> None:
        self._socket = socket.create_connection(("127.0.0.1", server.port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._token = server.token
        self._actions = secrets.token_hex(8)
        self._sent = 0

    def increment(self, count: int, users: int) -> int:
        """Send a batch of increments; give the seq of the last one."""
        items = []
        for _ in range(count):
            self._sent += 1
            items.append({"userId": f"user-{self._sent * 7919 % users}", "actionId": f"{self._actions}-{self._sent}"})
        body = json.dumps(items).encode()
        head = f"POST /scores/increment/batch HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {self._token}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        _, _, answer = self._ask(head.encode() + body)
        assert all(receipt["status"] == 200 for receipt in answer)
        return int(answer[-1]["seq"])

    def read(self, min_seq: int) -> tuple[int, float]:
        """Ask for the top at `min_seq` or later; give the status, and the lag in ms that the answer tells."""
        request = f"GET /scoreboard/top?limit=10&minSeq={min_seq} HTTP/1.1\r\nHost: bench\r\n\r\n"
        status, headers, _ = self._ask(request.encode())
        return status, float(headers["x-scoreboard-lag-ms"])

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def _ask(self, request: bytes) -> tuple[int, dict[str, str], Any]:
        self._socket.sendall(request)
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._receive()
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        while len(body) < int(headers["content-length"]):
            body += self._receive()
        return int(first.split(" ")[1]), headers, json.loads(body)

    def _receive(self) -> bytes:
        data = self._socket.recv(RECEIVE_BYTES)
        assert data, "the server closed the connection"
        return data


class SteadyWriter:
    """Sends a batch at each beat, from a thread of its own, until the context ends.

    It makes up for a missed beat at once, so it holds the rate if the leader can. `receipts` has the seq and the time
    of each answer; the last item is None. After the end `per_second` is the rate that it reached.
    """

    def __init__(self, leader: Server, per_second: int, users: int = 10_000) -> None:
        self.receipts: queue.SimpleQueue[tuple[int, float] | None] = queue.SimpleQueue()
        self.per_second = 0.0
        self._leader = leader
        self._users = users
        self._beat = BATCH / per_second
        self._over = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End; raise what the thread failed with."""
        self._over.set()
        self._thread.join()
        if self._failure is not None and error is None:
            raise self._failure

    def end_in(self, seconds: float) -> None:
        """Let it end after this time; do not wait."""
        threading.Timer(seconds, self._over.set).start()

    def _run(self) -> None:
        try:
            self._write()
        except Exception as failure:  # __exit__ raises it
            self._failure = failure
        finally:
            self.receipts.put(None)

    def _write(self) -> None:
        backend = Backend(self._leader)
        began, sent = time.monotonic(), 0
        try:
            while not self._over.wait(max(0.0, began + sent * self._beat - time.monotonic())):
                seq = backend.increment(BATCH, self._users)
                sent += 1
                self.receipts.put((seq, time.monotonic()))
            self.per_second = sent * BATCH / (time.monotonic() - began)
        finally:
            backend.close()


def measure_lateness(leader: Server, replica: Server, per_second: int, seconds: float) -> Lateness:
    """Write at a steady pace, and ask the replica again and again for the newest acknowledged seq."""
    reader = Backend(replica)
    late, told = [], []
    try:
        with SteadyWriter(leader, per_second) as writer:
            writer.end_in(seconds)
            while (newest := _newest(writer.receipts)) is not None:
                seq, acknowledged = newest
                status, lag_ms = reader.read(seq)
                assert status == http.client.OK, f"the replica answered with {status}"
                late.append((time.monotonic() - acknowledged) * 1000)
                told.append(lag_ms)
    finally:
        reader.close()
    return Lateness(sorted(late), sorted(told), writer.per_second)


def _newest(receipts: queue.SimpleQueue[tuple[int, float] | None]) -> tuple[int, float] | None:
    newest = receipts.get()
    while newest is not None and not receipts.empty():
        newest = receipts.get()
    return newest
