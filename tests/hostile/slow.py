"""Clients that are slow, silent, or gone: the server must free by itself what they hold.

They all keep their ends open until the server has closed its own, so these attacks test the server's deadlines.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress

from server.bounds import BODIES_PER_ADDRESS_BYTES_MAX, BODY_BYTES_MAX
from tests.e2e.leader import ALARM_SECONDS, token
from tests.hostile.attack import Attack, head
from tests.hostile.target import Reply, Target, read_to_end, replies_in, wait_until

DRIP_SECONDS = 0.1
CONNECTIONS = 200
RESETS = 2_000
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def slow_head(target: Target) -> None:
    """Each client sends its head byte by byte, for ever."""
    replies = _drip(target, b"GET /scoreboard/top HTTP/1.1\r\nHost: x\r\nX: ", "head_seconds")
    assert {reply.status for reply in replies} == {408}


def slow_body(target: Target) -> None:
    """Each client sends a good head, and its body byte by byte."""
    begin = head("POST /scores/increment HTTP/1.1", f"Authorization: Bearer {token('admin')}", "Content-Length: 9999")
    replies = _drip(target, begin, "body_seconds")
    assert {reply.status for reply in replies} == {408}


def slow_chunks(target: Target) -> None:
    """Each client sends a chunk of one byte, and the head of the next chunk byte by byte."""
    begin = head("POST /scores/increment/batch HTTP/1.1", "Transfer-Encoding: chunked") + b"1\r\nx\r\n1;"
    replies = _drip(target, begin, "body_seconds")
    assert {reply.status for reply in replies} == {408}


def _drip(target: Target, begin: bytes, deadline: str) -> list[Reply]:
    """Open CONNECTIONS, begin a request on each, and send a byte at a time until the server ends them all."""
    began = time.monotonic()
    connections = [target.connect() for _ in range(CONNECTIONS)]
    try:
        for connection in connections:
            connection.sendall(begin)
        going = list(connections)
        while going:
            assert time.monotonic() < began + target.seconds(deadline) + ALARM_SECONDS, f"{len(going)} are still open"
            time.sleep(DRIP_SECONDS)
            ended = _readable(going)
            going = [connection for connection in going if connection not in ended]
            for connection in going:
                with suppress(OSError):  # its end will be readable
                    connection.send(b"x")
        return [reply for connection in connections for reply in replies_in(read_to_end(connection))]
    finally:
        _close(connections)


def _readable(connections: list[socket.socket]) -> set[socket.socket]:
    poll = select.poll()
    by_number = {connection.fileno(): connection for connection in connections}
    for number in by_number:
        poll.register(number, select.POLLIN)
    return {by_number[number] for number, _ in poll.poll(0)}


def silence(target: Target) -> None:
    """Some send nothing, some send a little and stop, some close their sending side in the middle of a head."""
    said = [b"", b"\r\n\r\n", b"GET /scor", b"POST /scores/increment HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n{"]
    before = target.open_files()
    connections = []
    for number in range(CONNECTIONS):
        connection = target.connect()
        connections.append(connection)
        connection.sendall(said[number % len(said)])
        if number % 8 >= 4:
            connection.shutdown(socket.SHUT_WR)
    longest = max(target.seconds(name) for name in ("idle_seconds", "head_seconds", "body_seconds"))
    _let_go(target, connections, before, longest)


def reads_nothing(target: Target) -> None:
    """Each client asks for a large page again and again, and reads no answer."""
    asks = head("GET /openapi.json HTTP/1.1") * 400
    _stall(target, asks)


def reads_nothing_of_the_express_lane(target: Target) -> None:
    """The same with the hot route: the express loop writes these answers."""
    _stall(target, head("GET /scoreboard/top?limit=50 HTTP/1.1") * 4_000)


def _stall(target: Target, asks: bytes) -> None:
    before = target.open_files()
    connections = []
    for _ in range(20):
        connection = target.connect(receive_buffer=4096)
        connections.append(connection)
        connection.setblocking(False)
        try:
            while True:
                connection.send(asks)
        except BlockingIOError:
            pass  # the server has stopped reading, as it should
    _let_go(target, connections, before, target.seconds("send_seconds"))


def _let_go(target: Target, connections: list[socket.socket], files: int, seconds: float) -> None:
    """Keep all ends here open, and wait until the server has no more files than before."""
    try:
        target.wait_accepted()
        wait_until(lambda: target.open_files() <= files, "the server has let go of them", seconds + ALARM_SECONDS)
    finally:
        _close(connections)


def many_large_bodies(target: Target) -> None:
    """Forty bodies of the largest size at once, each without its last byte: most are refused, none is kept for long."""
    statuses = _send_bodies(target, f"Content-Length: {BODY_BYTES_MAX}", b" " * (BODY_BYTES_MAX - 1))
    # 408 for bodies whose last byte never came, 503 for bodies without room.
    assert set(statuses) == {408, 503}, statuses
    assert statuses.count(408) <= BODIES_PER_ADDRESS_BYTES_MAX // BODY_BYTES_MAX, statuses


def tiny_chunks(target: Target) -> None:
    """Forty bodies in a million chunks of two bytes, none with an end: the server must keep nothing for each chunk."""
    statuses = _send_bodies(target, "Transfer-Encoding: chunked", b"2\r\nxx\r\n" * 1_000_000)
    assert set(statuses) == {413}, statuses


def empty_lines(target: Target) -> None:
    """Forty bodies that are only line breaks, in one chunk: any of them might be the end, and none is."""
    statuses = _send_bodies(target, "Transfer-Encoding: chunked", b"600000\r\n" + b"\r\n" * 3_000_000)
    assert set(statuses) == {413}, statuses


def _send_bodies(target: Target, framing: str, body: bytes) -> list[int]:
    """Send the body on forty connections at once; give the statuses of the answers."""
    data = head("POST /scores/increment/batch HTTP/1.1", f"Authorization: Bearer {token('admin')}", framing) + body
    connections = [target.connect() for _ in range(40)]
    try:
        for connection in connections:
            connection.setblocking(False)
        left = {connection: memoryview(data) for connection in connections}
        deadline = time.monotonic() + ALARM_SECONDS
        while left and time.monotonic() < deadline:
            _, writable, _ = select.select([], list(left), [], 1.0)
            for connection in writable:
                try:
                    left[connection] = left[connection][connection.send(left[connection][: 2**18]) :]
                except BlockingIOError:
                    continue
                except OSError:
                    left[connection] = left[connection][:0]  # it was refused
                if not left[connection]:
                    del left[connection]
        for connection in connections:
            connection.settimeout(ALARM_SECONDS)
        return [reply.status for connection in connections for reply in replies_in(read_to_end(connection))]
    finally:
        _close(connections)


def resets(target: Target) -> None:
    """Each client sends a part of a request, or a whole one, and resets the connection."""
    whole = head("GET /scores/honest HTTP/1.1")
    hot = head("GET /scoreboard/top HTTP/1.1")
    for number in range(RESETS):
        connection = target.connect()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        data = hot if number % 2 else whole
        connection.send(data[: number % (len(data) + 1)] if number % 3 else data)
        connection.close()


def _close(connections: list[socket.socket]) -> None:
    for connection in connections:
        connection.close()


_RUNS: list[tuple[str, Callable[[Target], None]]] = [
    ("slow head", slow_head),
    ("slow body", slow_body),
    ("slow chunks", slow_chunks),
    ("silence", silence),
    ("reads nothing", reads_nothing),
    ("reads nothing of the express lane", reads_nothing_of_the_express_lane),
    ("many large bodies", many_large_bodies),
    ("tiny chunks", tiny_chunks),
    ("empty lines", empty_lines),
    ("resets", resets),
]

SLOW = tuple(Attack(name, run.__doc__ or "", run) for name, run in _RUNS)
