"""The live channel as its clients see it: a server around a real scoreboard on a loopback port, and viewers of it.

Rules:
- Nothing here waits for time to pass. What a test waits for is told by the server's own metrics (`Told.wait`) or comes
  over the socket; where a deadline matters the clock is Trio's mock clock, which the test moves.
- Whatever hangs fails after ALARM_SECONDS of real time; the mock clock would stand still for ever.
- The accept loop stands for the listener and does no more than the live channel is promised.
"""

from __future__ import annotations

import base64
import socket
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, MutableMapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Self

import msgspec
import trio
import trio_websocket
from structlog.testing import capture_logs
from trio.testing import MockClock

from engine.board import Board
from engine.board_rules import rules_of_points
from engine.commands import Command
from engine.scoreboard import Scoreboard
from server.access.lease import Lease
from server.http.messages import Details, Refused, Request, RequestHead, Response
from server.http.websocket import CLOSE, PING, PONG, TEXT
from server.live.handshake import LIVE_PATH
from server.live.live import Authorize, Identify, Live
from server.live.names import NameForm
from server.live.viewers import Viewer
from server.settings.config import LiveConfig
from tests.engine.model import increment, perform, put
from tests.server.live.client_frames import client_frame, take_server_frame

ALARM_SECONDS = 60.0

KEY = base64.b64encode(bytes(16)).decode()
RULES = rules_of_points({"main": {"ACTION_COMPLETED": 10, "BIG": 1000}, "weekly": {"ACTION_COMPLETED": 1}})
NOW_MS = 1_765_802_096_000


def apply_delta(rows: list[dict[str, Any]], message: dict[str, Any]) -> list[dict[str, Any]]:
    """Apply a delta as a client does: take out who left or changed, add changed rows at the end, sort by rank."""
    out = {*message["left"], *(row["userId"] for row in message["changed"])}
    kept = [row for row in rows if row["userId"] not in out]
    return sorted(kept + message["changed"], key=lambda row: int(row["rank"]))


class Told:
    """Takes down what the live channel tells its metrics and its audit, and lets tests wait for it."""

    def __init__(self) -> None:
        self.count = 0
        self.subscribed = 0
        self.messages: Counter[str] = Counter()
        self.ticks: list[tuple[float, float]] = []
        self.dropped: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.refusals: list[tuple[Request, Response, Details]] = []
        self.faults: list[Exception] = []
        self._news = trio.Event()

    def viewers(self, count: int) -> None:
        self.count = count
        self._tell()

    def subscriptions(self, count: int) -> None:
        self.subscribed = count
        self._tell()

    def live_messages(self, count: int, kind: str) -> None:
        self.messages[kind] += count
        self._tell()

    def live_tick(self, seconds: float, interval_seconds: float) -> None:
        self.ticks.append((seconds, interval_seconds))
        self._tell()

    def viewers_dropped(self, reason: str) -> None:
        self.dropped[reason] += 1
        self._tell()

    def failed(self, code: str) -> None:
        self.failures[code] += 1
        self._tell()

    def refused(self, request: Request, refusal: Response, details: Details, caller: str | None) -> None:
        assert caller is None
        self.refusals.append((request, refusal, details))

    def fault(self, request: Request, error: Exception) -> None:
        self.faults.append(error)

    async def wait(self, holds: Callable[[Told], bool]) -> None:
        """Wait until something holds."""
        while not holds(self):
            self._news = trio.Event()
            await self._news.wait()

    def _tell(self) -> None:
        self._news.set()


class Site:
    """A scoreboard, its live channel, and the port where it is served.

    `clients` are kept until the end, so that no connection closes just because a test forgot it. `scope` is that in
    which the channel runs, `lines` what was logged. `read_too_much` is what the listener read after a head:
    it is given to the live channel with each head, so no test sends it behind an upgrade.
    """

    def __init__(self, live: Live, scoreboard: Scoreboard, told: Told, port: int) -> None:
        self.live = live
        self.scoreboard = scoreboard
        self.told = told
        self.port = port
        self.actions = 0
        self.clients: list[trio.SocketStream] = []
        self.scope = trio.CancelScope()
        self.lines: list[MutableMapping[str, Any]] = []
        self.read_too_much = b""
        self.admitted = 0
        self.left = 0

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Run the channel."""
        with self.scope:
            await self.live.run(task_status=task_status)

    def leave(self) -> None:
        """Take down that a viewer left, as the listener does."""
        self.left += 1

    @property
    def board(self) -> Board:
        """The board `main`."""
        return self.scoreboard.boards["main"]

    @property
    def viewers(self) -> list[Viewer]:
        """The server's side of the connected viewers."""
        return self.live._viewers.everyone()

    def change(self, commands: Sequence[Command]) -> None:
        """Apply commands as one batch, and tell the live channel as the actor's listener does."""
        perform(self.scoreboard, list(commands))
        self.live.board_changed(self.scoreboard.boards)

    def score(self, *users: str, board: str = "main", reason: str = "ACTION_COMPLETED") -> None:
        """Give each user points, all in one batch."""
        commands = []
        for user in users:
            self.actions += 1
            commands.append(increment(user, f"action-{self.actions}", reason, board))
        self.change(commands)

    def name(self, user: str, name: str) -> None:
        """Give a user a display name."""
        self.change([put(user, name)])

    def shown(self) -> list[dict[str, Any]]:
        """What the first ten rows of `main` are, read without any of the code under test."""
        rows = []
        for row in self.board.top(10):
            name = self.scoreboard.users.name(row.user_id)
            named = {} if name is None else {"displayName": name}
            rows.append({"userId": row.user_id, **named, "score": row.score, "rank": row.rank})
        return rows

    def check(self) -> None:
        """Check the invariants of what the server keeps."""
        self.live._viewers._check()
        self.live._broadcast.lines._check()
        assert self.admitted - self.left == len(self.live._viewers)


async def nobody(_authorization: str) -> str | None:
    """Know no token."""
    return None


async def refuse(_authorization: str | None) -> Response | Lease:
    """Let nobody see the present of a frozen board."""
    return Refused(403, "UNAUTHORIZED", "Not here.").response()


@asynccontextmanager
async def open_site(
    config: LiveConfig | None = None,
    *,
    authorize: Authorize | None = None,
    authorize_live: Authorize | None = None,
    identify: Identify = nobody,
    check: Callable[[str], None] = lambda _board_id: None,
    files_max: int | None = None,
    scoreboard: Scoreboard | None = None,
    form: NameForm = "shown",
) -> AsyncIterator[Site]:
    """Serve a live channel on a free port of 127.0.0.1 until the block ends."""
    scoreboard = scoreboard or Scoreboard(RULES)
    told = Told()
    live = Live(
        scoreboard,
        config or LiveConfig(),
        told,
        told,
        now_ms=lambda: NOW_MS,
        files_max=files_max,
        authorize=authorize,
        authorize_live=authorize_live or refuse,
        identify=identify,
        check=check,
        form=form,
    )
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]

    site = Site(live, scoreboard, told, listener.socket.getsockname()[1])

    async def serve(stream: trio.SocketStream) -> None:
        try:
            head = await _read_head(stream)
            head = msgspec.structs.replace(head, rest=head.rest + site.read_too_much)
            as_events = head.path != LIVE_PATH
            address = stream.socket.getpeername()[0]
            if await live.serve_viewer(stream, head, address, site.leave, as_events=as_events):
                site.admitted += 1
        finally:
            await trio.aclose_forcefully(stream)

    with alarm(), capture_logs() as site.lines:
        async with trio.open_nursery() as nursery:
            await nursery.start(site.run)
            nursery.start_soon(trio.serve_listeners, serve, [listener])
            yield site
            site.check()
            nursery.cancel_scope.cancel()
    assert not errors_in(site.lines)
    for client in site.clients:
        client.socket.close()


@contextmanager
def alarm() -> Iterator[None]:
    """Cancel the block and fail if it takes ALARM_SECONDS of real time."""
    token, scope, rang = trio.lowlevel.current_trio_token(), trio.CancelScope(), threading.Event()

    def ring() -> None:
        rang.set()
        with suppress(trio.RunFinishedError):
            token.run_sync_soon(scope.cancel)

    timer = threading.Timer(ALARM_SECONDS, ring)
    timer.daemon = True
    timer.start()
    try:
        with scope:
            yield
    finally:
        timer.cancel()
    assert not rang.is_set(), "this test hangs"


def errors_in(lines: Iterable[MutableMapping[str, Any]]) -> list[MutableMapping[str, Any]]:
    """Pick what was logged as a fault of ours."""
    return [line for line in lines if line["log_level"] in ("error", "critical")]


async def _read_head(stream: trio.SocketStream) -> RequestHead:
    data = b""
    while b"\r\n\r\n" not in data:
        received = await stream.receive_some()
        assert received, "the client closed before its head was complete"
        data += received
    text, _, rest = data.partition(b"\r\n\r\n")
    request_line, *lines = text.decode("latin-1").split("\r\n")
    method, target, version = request_line.split(" ")
    headers = []
    for line in lines:
        name, _, value = line.partition(":")
        headers.append((name.lower(), value.strip()))
    return RequestHead(method, target, version, headers, rest)


# Clients


@asynccontextmanager
async def watch(
    site: Site, *, board: str | None = None, offers: Iterable[str] = (), headers: Iterable[tuple[str, str]] = ()
) -> AsyncIterator[Watcher]:
    """Connect with trio-websocket, as `scoreboard watch` does."""
    resource = "/ws/scoreboard" if board is None else f"/ws/scoreboard?boardId={board}"
    async with trio_websocket.open_websocket(
        "127.0.0.1",
        site.port,
        resource,
        use_ssl=False,
        subprotocols=list(offers) or None,
        extra_headers=[(name.encode(), value.encode()) for name, value in headers],
    ) as connection:
        yield Watcher(connection)


class Watcher:
    """A well-behaved viewer, which keeps its rows up to date from whatever it is sent."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.rows: list[dict[str, Any]] = []
        self.position = (0, 0)

    async def next(self) -> dict[str, Any]:
        """Take the next message in and give it."""
        message: dict[str, Any] = msgspec.json.decode(await self.connection.get_message())
        if message["type"] == "scoreboard_delta":
            assert self.position == (message["epoch"], message["baseSeq"]), "a delta that does not apply"
            self.rows = apply_delta(self.rows, message)
        else:
            self.rows = message["entries"]
        position = (message["epoch"], message["seq"])
        assert position > self.position
        self.position = position
        return message

    async def catch_up(self, board: Board) -> None:
        """Take messages in until they tell the board's newest top."""
        while self.position[1] < board.top10_seq:
            await self.next()


class BareViewer:
    """A viewer that is no library: it does only what the test says, and reads only when the test says so."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.received = bytearray()

    @classmethod
    async def connect(cls, site: Site, *, receive_buffer: int | None = None) -> Self:
        """Connect without sending anything. A small receive buffer makes the server's side fill up soon."""
        client = trio.socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if receive_buffer is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await client.connect(("127.0.0.1", site.port))
        stream = trio.SocketStream(client)
        site.clients.append(stream)
        return cls(stream)

    @classmethod
    async def open(cls, site: Site, *more: tuple[str, str], receive_buffer: int | None = None) -> Self:
        """Connect and shake hands."""
        viewer = await cls.connect(site, receive_buffer=receive_buffer)
        await viewer.stream.send_all(handshake_bytes(*more))
        status, _, _ = await viewer.answer()
        assert status == 101
        return viewer

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Read the answer to a handshake: status, headers, and the body of a refusal."""
        while b"\r\n\r\n" not in self.received:
            await self._receive()
        head, _, rest = bytes(self.received).partition(b"\r\n\r\n")
        status_line, *lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        self.received = bytearray(rest)
        length = int(headers.get("content-length", "0"))
        while len(self.received) < length:
            await self._receive()
        body = bytes(self.received[:length])
        del self.received[:length]
        return int(status_line.split()[1]), headers, body

    async def send(self, opcode: int, payload: bytes = b"") -> None:
        """Send a masked frame."""
        await self.stream.send_all(client_frame(opcode, payload))

    async def frame(self) -> tuple[int, bytes]:
        """Read the next frame: opcode and payload."""
        while (frame := take_server_frame(self.received)) is None:
            await self._receive()
        return frame

    async def message(self) -> dict[str, Any]:
        """Read the next frame, which must be a text, and decode it."""
        opcode, payload = await self.frame()
        assert opcode == TEXT
        message: dict[str, Any] = msgspec.json.decode(payload)
        return message

    async def heard(self) -> None:
        """Return when the server has heard everything that was sent so far: it answers a ping."""
        await self.send(PING, b"heard?")
        while await self.frame() != (PONG, b"heard?"):
            pass

    async def closed(self) -> int | None:
        """Read on to a close frame and then to the end of the connection; the code of the close frame."""
        while True:
            opcode, payload = await self.frame()
            if opcode == CLOSE:
                break
        assert not self.received
        assert await self.stream.receive_some() == b""
        return int.from_bytes(payload[:2], "big") if payload else None

    async def cut_off(self) -> bool:
        """Read everything up to the end; whether that was without a close frame, by a reset or an end."""
        try:
            while data := await self.stream.receive_some():
                self.received += data
        except trio.BrokenResourceError:
            pass
        opcodes = []
        while frame := take_server_frame(self.received):
            opcodes.append(frame[0])
        return CLOSE not in opcodes

    async def _receive(self) -> None:
        data = await self.stream.receive_some()
        assert data, "the server closed the connection"
        self.received += data


def handshake_bytes(*more: tuple[str, str], target: str = "/ws/scoreboard") -> bytes:
    """Make the request of a correct handshake, with some more headers."""
    headers = [
        ("Host", "game.example"),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", KEY),
        *more,
    ]
    lines = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode()


# Changes that fill sockets


def crowd(site: Site, round_number: int) -> None:
    """Change all of the first ten rows, whose long names make a message of some 5 KB."""
    site.change([put(f"user-{number}", f"{round_number:08}" + "€" * 120) for number in range(10)])


async def stall(site: Site, clock: MockClock, witness: BareViewer) -> int:
    """Let ticks pass until one viewer's socket is full; the number of rounds. The witness reads all of them."""
    rounds = 0
    while not any(viewer.busy for viewer in site.viewers):
        rounds += 1
        crowd(site, rounds)
        clock.jump(0.25)
        await witness.message()
        assert rounds < 10_000, "the socket never filled up"
    return rounds
