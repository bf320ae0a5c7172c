"""The systems of the fan-out bench: each is a server process with viewers of its own, and a way to make it send.

Every peer for the fan-out in `bench/peers` works alike: it takes a file with the message, prints its port, sends the
message at each line of standard input, and ends when standard input ends. nchan, a module of nginx, gets each message
by a POST (`bench.viewers_nchan`).
"""

from __future__ import annotations

import importlib.util
import json
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.servers import ROOT, WORK, Missing, Server
from bench.viewers import ViewerLoad
from server.live.ring import Ring

PEERS = Path(__file__).with_name("peers")
MESSAGE = WORK / "fanout-message.json"
LIVE_CONFIG = """
[live]
max_viewers = 19000
max_viewers_per_address = 19000
"""
UNWATCHED = "unwatched"
TWO_BOARDS = f"""
[boards.main]
points = {{ ACTION_COMPLETED = 10 }}
[boards.{UNWATCHED}]
points = {{ ACTION_COMPLETED = 10 }}
"""
"""A board that nobody watches, beside the first one: what is posted there costs all of a POST and no message."""
END_SECONDS_MAX = 30.0
SEND_LOOP, RING_LOOP = "C loop of send()", "C loop of io_uring"

USERS = 10
"""Users that get points: as many as the top has rows, so every increment is a change that viewers see."""

RECEIVE_BYTES = 2**16


class System:
    """A server that is running. `tell_all` makes it send, and gives the version that every viewer will get.

    `pids` are all its processes. `is_silent`: no viewer gets anything.
    """

    def __init__(
        self, name: str, pids: Sequence[int], viewers: ViewerLoad, tell_all: Callable[[], int], *,
        is_silent: bool = False,
    ) -> None:  # fmt: skip
        self.name = name
        self.pids = pids
        self.viewers = viewers
        self.tell_all = tell_all
        self.is_silent = is_silent


class Poster:
    """A backend with one connection that gives points to ten users in turn, so each increment changes the top."""

    def __init__(self, server: Server, board_id: str | None = None) -> None:
        self._where = {} if board_id is None else {"boardId": board_id}
        self._caller = Caller(server.port)
        self._token = server.token
        self._actions = secrets.token_hex(4)
        self._sent = 0

    def post(self) -> int:
        """Increment one user; give the seq."""
        self._sent += 1
        fields = {"userId": f"user-{self._sent % USERS}", "actionId": f"{self._actions}-{self._sent}"}
        body = json.dumps(fields | self._where)
        head = f"POST /scores/increment HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {self._token}\r\n"
        request = f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        answer = self._caller.ask(request)
        assert answer.startswith(b"HTTP/1.1 200 "), answer
        return int(json.loads(answer.partition(b"\r\n\r\n")[2])["seq"])


class Caller:
    """A client with one connection.

    It sends a request in one piece. `http.client` would send head and body apart, and the server would read twice.
    """

    def __init__(self, port: int) -> None:
        self._address = ("127.0.0.1", port)
        self._connection: socket.socket | None = None

    def ask(self, request: bytes) -> bytes:
        """Send a request; give the answer."""
        return self._send(request) or self._send(request)

    def _send(self, request: bytes) -> bytes:
        """Send a request; give no bytes if the server has closed the connection, as it does after a long idle time."""
        if self._connection is None:
            self._connection = socket.create_connection(self._address)
        answer = b""
        try:
            self._connection.sendall(request)
            while not _is_whole(answer):
                received = self._connection.recv(RECEIVE_BYTES)
                if not received:
                    raise ConnectionResetError
                answer += received
        except (BrokenPipeError, ConnectionResetError):
            self._connection.close()
            self._connection = None
            return b""
        return answer


def _is_whole(data: bytes) -> bool:
    """Whether these are all the bytes of an answer."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return False
    head = data[:end].lower()
    at = head.find(b"content-length: ")
    return len(data) >= end + 4 + int(head[at + 16 :].partition(b"\r")[0])


def leader_pid() -> int:
    """Give the process id of this bench's leader, from the lock file in its data directory."""
    return int((WORK / "leader" / "data" / "lock").read_text(encoding="ascii"))


@contextmanager
def websockets_peer(processor: int, load_processor: int, loop: str) -> Iterator[list[System]]:
    """The `websockets` library on asyncio's loop or uvloop. Raises `Missing`."""
    if importlib.util.find_spec("websockets") is None or importlib.util.find_spec("uvloop") is None:
        raise Missing("pip install '.[bench]'")
    command = [sys.executable, "-m", "bench.peers.websockets_broadcast", str(MESSAGE), loop]
    name = "websockets.broadcast" if loop == "asyncio" else f"websockets.broadcast, {loop}"
    with _peer(command, processor, load_processor, {name: "send"}) as systems:
        yield systems


@contextmanager
def node_peer(processor: int, load_processor: int) -> Iterator[list[System]]:
    """Node's `ws`, once with each client's frame made anew and once with one frame for all. Raises `Missing`."""
    if shutil.which("node") is None:
        raise Missing("apt-get install nodejs npm, then npm install --prefix bench/peers")
    if not (PEERS / "node_modules" / "ws").is_dir():
        raise Missing("npm install --prefix bench/peers")
    command = ["node", str(PEERS / "ws_broadcast.js"), str(MESSAGE)]
    with _peer(command, processor, load_processor, {"Node ws": "send", "Node ws, frame made once": "once"}) as systems:
        yield systems


@contextmanager
def floor_peer(processor: int, load_processor: int) -> Iterator[list[System]]:
    """Loops in C: of send(), and of requests to io_uring if this system lets us have it. Raises `Missing`."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise Missing("apt-get install gcc libc6-dev")
    program = WORK / "send_floor"
    subprocess.run([compiler, "-O2", "-Wall", "-o", str(program), str(PEERS / "send_floor.c")], check=True)
    words = {SEND_LOOP: "send"}
    if (ring := Ring.open(1)) is not None:
        ring.close()
        words[RING_LOOP] = "ring"
    with _peer([str(program), str(MESSAGE)], processor, load_processor, words) as systems:
        yield systems


@contextmanager
def _peer(command: list[str], processor: int, load_processor: int, words: dict[str, str]) -> Iterator[list[System]]:
    """Run a peer with its viewers: a system for each word that makes it send."""
    command = ["taskset", "-c", str(processor), *command]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    stdin, sent = process.stdin, 0

    def teller(word: str) -> Callable[[], int]:
        def tell_all() -> int:
            nonlocal sent
            sent += 1
            stdin.write(word.encode() + b"\n")
            stdin.flush()
            return sent

        return tell_all

    with ExitStack() as stack:
        # The `finally` below ends the peer first, while its viewers still live.
        viewers = stack.enter_context(ViewerLoad(int(process.stdout.readline()), load_processor, "ordinal"))
        try:
            yield [System(name, (process.pid,), viewers, teller(word)) for name, word in words.items()]
        finally:
            stdin.close()
            try:
                process.wait(END_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
