"""The honest client: a backend, a poller and a viewer that the server must serve while others attack.

It checks each answer: every action counts once, the score grows by ten each time, a poll and the viewer's last message
show it. A wrong answer, or one that takes longer than ANSWER_SECONDS_MAX, is a fault. The first fault ends the client,
and `check` raises it.
"""

from __future__ import annotations

import base64
import http.client
import json
import threading
import time
from typing import Any

from server.http.websocket import CLOSE, PING, PONG, TEXT
from tests.hostile.target import HONEST, Target, wait_until
from tests.server.live.client_frames import client_frame, take_server_frame

ANSWER_SECONDS_MAX = 10.0
"""For one answer. The attackers share two processors with the server; alone it needs less than a hundredth of this."""

PAUSE_SECONDS = 0.02
POINTS = 10
POLL_EVERY = 5
KEY = base64.b64encode(bytes(16)).decode()


class Honest:
    """Runs in threads of its own from `start` to `stop`."""

    def __init__(self, target: Target, bearer: str) -> None:
        self._target = target
        self._bearer = bearer
        self._endings = threading.Event(), threading.Event()
        self._watched, self._stopping = self._endings
        self._faults: list[str] = []
        self._threads = [threading.Thread(target=self._guarded, args=(work,)) for work in (self._watch, self._post)]
        self.answered = 0
        self.slowest_seconds = 0.0
        self._last_seq = 0
        self._seen_seq = 0
        self._seen_score = 0

    def start(self) -> None:
        """Begin, and wait until the first answers are there."""
        for thread in self._threads:
            thread.start()
        self.wait_served(10)

    def stop(self) -> None:
        """End; call `check` next. The viewer ends first: it wakes by messages, and the posts cause them."""
        for thread, ending in zip(self._threads, self._endings, strict=True):
            ending.set()
            thread.join(ANSWER_SECONDS_MAX * 2)
            assert not thread.is_alive(), "the honest client hangs"

    def wait_served(self, count: int) -> None:
        """Wait until `count` more requests are answered, and the viewer has seen their effect."""
        wanted = self.answered + count
        wait_until(lambda: bool(self._faults) or self.answered >= wanted, "the honest client is served")
        seq = self._last_seq
        wait_until(lambda: bool(self._faults) or self._seen_seq >= seq, "the honest viewer sees the newest board")
        self.check()

    def check(self) -> None:
        """Fail if there was a fault."""
        assert not self._faults, self._faults[0]

    def _guarded(self, work: Any) -> None:
        try:
            work()
        except Exception as error:  # `check` raises it in the thread that judges
            self._faults.append(f"the honest client was not served: {error!r}")

    def _post(self) -> None:
        connection = http.client.HTTPConnection(
            "127.0.0.1", self._target.port, timeout=ANSWER_SECONDS_MAX, source_address=(HONEST, 0)
        )
        headers = {"Authorization": f"Bearer {self._bearer}", "Content-Type": "application/json"}
        number = 0
        while not self._stopping.wait(PAUSE_SECONDS):
            number += 1
            body = json.dumps({"userId": "honest", "actionId": f"honest-{number}"})
            receipt = self._ask(connection, "POST", "/scores/increment", body, headers)
            assert (receipt["applied"], receipt["newScore"]) == (True, number * POINTS), receipt
            self._last_seq = receipt["seq"]
            if number % POLL_EVERY == 0:
                told = self._ask(connection, "GET", "/scores/honest", None, headers)
                assert told["score"] == number * POINTS, told
        connection.close()

    def _ask(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: str | None, headers: dict[str, str]
    ) -> Any:
        began = time.monotonic()
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        value = json.loads(answer.read())
        assert answer.status == 200, (answer.status, value)
        self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - began)
        self.answered += 1
        return value

    def _watch(self) -> None:
        """Follow the live board; answer pings, as every WebSocket client does."""
        with self._target.connect(HONEST) as connection:
            request = (
                f"GET /ws/scoreboard HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
            )
            connection.sendall(request.encode())
            data = bytearray()
            while b"\r\n\r\n" not in data:
                data += self._read(connection)
            head, _, rest = bytes(data).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 101 "), head
            data = bytearray(rest)
            while not self._watched.is_set():
                frame = take_server_frame(data)
                if frame is None:
                    data += self._read(connection)
                else:
                    self._take(connection, *frame)

    def _read(self, connection: Any) -> bytes:
        part: bytes = connection.recv(65536)
        assert part, "the honest viewer was dropped"
        return part

    def _take(self, connection: Any, opcode: int, payload: bytes) -> None:
        if opcode == PING:
            connection.sendall(client_frame(PONG, payload))
            return
        assert opcode == TEXT, f"the honest viewer got a frame with opcode {opcode} ({CLOSE} is close)"
        message = json.loads(payload)
        scores = [row["score"] for row in message["entries"] if row["userId"] == "honest"]
        score = scores[0] if scores else 0
        assert message["seq"] >= self._seen_seq, "the honest viewer saw the board go back"
        assert score >= self._seen_score, "the honest viewer saw a score go back"
        self._seen_score, self._seen_seq = score, message["seq"]
