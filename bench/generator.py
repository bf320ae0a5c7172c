"""The load generator in Python, for machines without a C compiler: the same arguments and results as `generator.c`.

It has one thread and one epoll, and does little for an answer: it reads the status and the length, and writes new
digits into the prepared request. That still costs several times what C takes; `python -m bench.calibrate` shows how
much. A table that was made with this generator says so.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time

RECEIVE_BYTES = 2**18
USER_DIGITS = 7
ACTION_DIGITS = 9
WAIT_SECONDS = 30.0


class Request:
    """The request that is sent again and again, each time with new digits."""

    def __init__(
        self, data: bytes, users: int, items: int, user_at: int, action_at: int, stride: int, numbers: int, step: int
    ) -> None:
        self._data = bytearray(data)
        self._users = users
        self._places = [(user_at + stride * item, action_at + stride * item) for item in range(items)]
        self._numbers, self._step, self._number = numbers, step, 0

    def next(self) -> bytes | bytearray:
        """Write the digits of the next items."""
        data = self._data
        for user_at, action_at in self._places:
            self._number = (self._number + self._step) % self._numbers
            data[user_at : user_at + USER_DIGITS] = b"%07d" % (self._number * 7919 % self._users)
            data[action_at : action_at + ACTION_DIGITS] = b"%09d" % self._number
        return data


class Connection:
    """A keep-alive connection: when its request went out, and the part of the answer that came so far."""

    __slots__ = ("_body_left", "_head", "sent_at", "socket", "status")

    def __init__(self, port: int, first: bytes) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sent_at = 0.0
        self.status = 0
        self._head = b""
        self._body_left = 0
        if first:
            self.socket.sendall(first)
            while not self.receive():
                pass
            if self.status != 200:
                sys.exit("generator: the first request of a connection was refused")

    def receive(self) -> bool:
        """Take in a part of an answer; True when the answer is whole."""
        data = self.socket.recv(RECEIVE_BYTES)
        if not data:
            sys.exit("generator: the server closed a connection")
        if not self._body_left:
            data = self._head + data
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._head = data
                return False
            self._head = b""
            self.status = int(data[9:12])
            self._body_left = length_of(data[:end]) + end + 4
        self._body_left -= len(data)
        return not self._body_left


def length_of(head: bytes) -> int:
    """The length of the body that an answer's head tells."""
    at = head.find(b"content-length:")
    if at < 0:
        head = head.lower()
        at = head.find(b"content-length:")
    return int(head[at + 15 :].partition(b"\r")[0]) if at >= 0 else 0


def run(connections: list[Connection], request: Request, warm_seconds: float, seconds: float) -> dict[str, object]:
    """Send for `seconds` after the warm-up, then wait for the last answers. Answers of the warm-up don't count."""
    clock = time.perf_counter
    poll = select.epoll()
    by_number = {connection.socket.fileno(): connection for connection in connections}
    for number in by_number:
        poll.register(number, select.EPOLLIN)
    begin = clock() + warm_seconds
    end = begin + seconds
    waits: list[float] = []
    busy: list[float] = []
    answers_all, errors, waiting = 0, 0, len(connections)
    for connection in connections:
        connection.sent_at = clock()
        connection.socket.sendall(request.next())
    while waiting:
        ready = poll.poll(WAIT_SECONDS)
        if not ready:
            sys.exit("generator: no answer came for a long time")
        for number, _ in ready:
            connection = by_number[number]
            if not connection.receive():
                continue
            now = clock()
            answers_all += 1
            if len(busy) < 2 and now >= (end if busy else begin):
                busy.append(time.process_time())
            if connection.status not in (200, 304):
                errors += 1
            elif begin <= now < end:
                waits.append(now - connection.sent_at)
            if now < end:
                connection.sent_at = now
                connection.socket.sendall(request.next())
            else:
                waiting -= 1
    waits.sort()
    return {
        "generator": "Python",
        "answers": len(waits),
        "answers_all": answers_all,
        "errors": errors,
        "seconds": seconds,
        "ms_p50": waits[len(waits) // 2] * 1000 if waits else 0.0,
        "ms_p99": waits[len(waits) * 99 // 100] * 1000 if waits else 0.0,
        "cpu_share": (busy[-1] - busy[0]) / seconds,
    }


def main() -> None:
    """Read the arguments and the request, run the load, print the result."""
    _, port, connected, warm_seconds, seconds, *numbers = sys.argv[1:]
    users, items, user_at, action_at, stride, first_bytes, different, step = map(int, numbers)
    data = sys.stdin.buffer.read()
    request = Request(data[first_bytes:], users, items, user_at, action_at, stride, different, step)
    connections = [Connection(int(port), data[:first_bytes]) for _ in range(int(connected))]
    print(json.dumps(run(connections, request, float(warm_seconds), float(seconds))))


if __name__ == "__main__":
    main()
