"""A server of NATS that does as a test says: it answers, stays silent, refuses, cuts, or changes its mind.

async with fake_server() as server:
    server.answers["subject"] = b"payload"      # bytes, or a function of what came, or None for silence
    await server.cut()                          # every client
"""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

Answer = bytes | Callable[[bytes, bytes], bytes | None] | None
"""What a subject is answered with: a payload, or a function of the headers and the payload that came."""

NOBODY = b"NATS/1.0 503\r\n\r\n"
"""As an answer: the server says that nobody listens to the subject."""


class FakeServer:
    """`info` is what it says first. `introductions` are the fields of each CONNECT; `heard` all else that came."""

    def __init__(self, info: dict[str, Any], context: ssl.SSLContext | None) -> None:
        self.info = {"server_id": "F", "version": "2.15.1", "headers": True, "jetstream": True} | info
        self.answers: dict[str, Answer] = {}
        self.introductions: list[dict[str, Any]] = []
        self.heard: list[tuple[str, bytes]] = []
        self.subscriptions: list[str] = []
        self.pongs_heard = 0
        self.admits: bytes = b""
        """What is said to a CONNECT before everything else, such as an error."""
        self.answers_pings = True
        self.reads = True
        self.before_tls = b""
        self.port = 0
        self.host = "127.0.0.1"
        self._context = context
        self._open: list[trio.abc.Stream] = []
        self._sids: dict[str, int] = {}
        self._came = trio.Event()

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"nats://{host}:{self.port}"

    @property
    def connections(self) -> int:
        """How many clients it has let in so far."""
        return len(self.introductions)

    async def say(self, data: bytes) -> None:
        """Say something to every client."""
        for stream in self._open:
            await stream.send_all(data)

    async def deliver(self, subject: str, payload: bytes) -> None:
        """Send a message to whoever has subscribed to exactly this subject."""
        await self.say(b"MSG %b %d %d\r\n%b\r\n" % (subject.encode(), self._sids[subject], len(payload), payload))

    async def cut(self) -> None:
        """Cut every connection."""
        for stream in self._open:
            await trio.aclose_forcefully(stream)

    async def wait(self, reached: Callable[[], bool]) -> None:
        """Wait until something that came has made this true."""
        with trio.fail_after(30):
            while not reached():
                await self._came.wait()

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Serve one client."""
        try:
            await stream.send_all(f"INFO {json.dumps(self.info)}\r\n".encode() + self.before_tls)
            if self._context is not None:
                stream = trio.SSLStream(stream, self._context, server_side=True)
            self._open.append(stream)
            lines = _Lines(stream)
            while self.reads:
                await self._take(stream, lines, await lines.line())
            await trio.sleep_forever()
        except (trio.BrokenResourceError, trio.ClosedResourceError, EOFError):
            pass
        finally:
            if stream in self._open:
                self._open.remove(stream)
            await trio.aclose_forcefully(stream)
            self._tell()

    async def _take(self, stream: trio.abc.Stream, lines: _Lines, line: bytes) -> None:
        verb, *words = line.decode().split(" ")
        match verb:
            case "CONNECT":
                self.introductions.append(json.loads(line.partition(b" ")[2]))
                await stream.send_all(self.admits)
            case "PING" if self.answers_pings:
                await stream.send_all(b"PONG\r\n")
            case "PONG":
                self.pongs_heard += 1
            case "SUB":
                self.subscriptions.append(words[0])
                self._sids[words[0]] = int(words[1])
            case "PUB" | "HPUB":
                await self._publish(stream, lines, words, has_head=verb == "HPUB")
        self._tell()

    async def _publish(self, stream: trio.abc.Stream, lines: _Lines, words: list[str], *, has_head: bool) -> None:
        body = await lines.bytes(int(words[-1]) + 2)
        head_bytes = int(words[-2]) if has_head else 0
        head, payload = body[:head_bytes], body[head_bytes:-2]
        self.heard.append((words[0], payload))
        answer = self.answers.get(words[0])
        if callable(answer):
            answer = answer(head, payload)
        reply = words[1] if len(words) == (4 if has_head else 3) else ""
        if answer is None or not reply:
            return
        if answer == NOBODY:
            await stream.send_all(b"HMSG %b 1 16 16\r\n%b\r\n" % (reply.encode(), NOBODY))
        else:
            await stream.send_all(b"MSG %b 1 %d\r\n%b\r\n" % (reply.encode(), len(answer), answer))

    def _tell(self) -> None:
        self._came.set()
        self._came = trio.Event()


class _Lines:
    """Lines and counted bytes of a stream. Raises EOFError at its end."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._data = b""

    async def line(self) -> bytes:
        while b"\r\n" not in self._data:
            await self._more()
        line, _, self._data = self._data.partition(b"\r\n")
        return line

    async def bytes(self, count: int) -> bytes:
        while len(self._data) < count:
            await self._more()
        taken, self._data = self._data[:count], self._data[count:]
        return taken

    async def _more(self) -> None:
        data = await self._stream.receive_some(2**16)
        if not data:
            raise EOFError
        self._data += data


@asynccontextmanager
async def fake_server(
    info: dict[str, Any] | None = None, *, context: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[FakeServer]:
    """Run one on a free port. With a `context` it goes on in TLS after its INFO."""
    server = FakeServer(info or {}, context)
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host=host)
        server.host, server.port = host, listener.socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, server.serve, [listener])
        try:
            yield server
        except Exception as error:  # it leaves as it is, not in the nursery's group
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
