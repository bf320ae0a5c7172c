"""A receiver of webhooks on the loopback: it answers as it is told to, and keeps what came.

    async with receiving() as receiver:
        receiver.answers.append(Reply(500))         then 204 again
        first = await receiver.next()               the next delivery that was answered, or is hung on to

Rules:
- Each delivery is verified with the `standardwebhooks` package, but for its age: clocks of tests stand still.
- It speaks HTTP by h11, so that no framework of ours hides a mistake of the sender.
"""

from __future__ import annotations

import base64
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import h11
import msgspec
import trio
from standardwebhooks import Webhook

from tests.e2e.leader import ALARM_SECONDS

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()
OTHER_SECRET = "whsec_" + base64.b64encode(b"another-secret-for-tests").decode()


class Reply(msgspec.Struct, frozen=True):
    """An answer: its status, further headers and body. `hang`: none comes. `raw`: these bytes instead."""

    status: int = 204
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    hang: bool = False
    raw: bytes = b""


class Delivery(msgspec.Struct, frozen=True):
    """What came: headers (lower case) and body."""

    headers: Mapping[str, str]
    body: bytes

    @property
    def id(self) -> str:
        """Its webhook-id."""
        return self.headers["webhook-id"]

    @property
    def data(self) -> Any:
        """What it tells."""
        return msgspec.json.decode(self.body)["data"]

    @property
    def kind(self) -> str:
        """Its type."""
        kind: str = msgspec.json.decode(self.body)["type"]
        return kind

    def is_signed_by(self, secret: str) -> bool:
        """Whether one of the signatures is of this secret."""
        moment = datetime.fromtimestamp(int(self.headers["webhook-timestamp"]), UTC)
        signature = Webhook(secret).sign(self.id, moment, self.body.decode())
        return signature in self.headers["webhook-signature"].split(" ")


class Receiver:
    """See above. `url` is its address; `got` has all that came, in order."""

    def __init__(self) -> None:
        self.port = 0
        self.answers: deque[Reply] = deque()
        self.always = Reply()
        self.got: list[Delivery] = []
        self._seen = 0
        self._came = trio.Event()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}/hooks?from=board"

    async def next(self) -> Delivery:
        """Give the next delivery, in the order in which they came."""
        with trio.fail_after(ALARM_SECONDS):
            while self._seen == len(self.got):
                self._came = trio.Event()
                await self._came.wait()
        self._seen += 1
        return self.got[self._seen - 1]

    async def take(self, count: int) -> list[Delivery]:
        """Give the next deliveries."""
        return [await self.next() for _ in range(count)]

    async def until(self, kind: str) -> Delivery:
        """Pass over deliveries until one of a kind."""
        while (found := await self.next()).kind != kind:
            pass
        return found

    async def serve(self, stream: trio.SocketStream) -> None:
        """Serve one connection."""
        connection = h11.Connection(h11.SERVER)
        async with stream:
            try:
                while await self._answer(connection, stream):
                    connection.start_next_cycle()
            except (trio.BrokenResourceError, h11.RemoteProtocolError):
                pass

    async def _answer(self, connection: h11.Connection, stream: trio.SocketStream) -> bool:
        request, body = None, b""
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await stream.receive_some(65_536))
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                break
            else:
                return False
        assert request is not None
        assert (request.method, request.target) == (b"POST", b"/hooks?from=board")
        self.got.append(Delivery({name.decode(): value.decode() for name, value in request.headers}, body))
        self._came.set()
        reply = self.answers.popleft() if self.answers else self.always
        if reply.hang:
            await trio.sleep_forever()
        if reply.raw:
            await stream.send_all(reply.raw)
            return False
        headers = [*reply.headers, ("content-length", str(len(reply.body)))]
        for part in (
            h11.Response(status_code=reply.status, headers=headers), h11.Data(data=reply.body), h11.EndOfMessage()
        ):  # fmt: skip
            await stream.send_all(connection.send(part) or b"")
        return True


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """A receiver that listens to the end of the block."""
    receiver = Receiver()
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(_listen, receiver.serve)
        receiver.port = listeners[0].socket.getsockname()[1]
        yield receiver
        nursery.cancel_scope.cancel()


async def _listen(serve: Any, *, task_status: trio.TaskStatus[Any]) -> None:
    await trio.serve_tcp(serve, 0, host="127.0.0.1", task_status=task_status)
