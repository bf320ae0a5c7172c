"""A small HTTP client on h11: one kept connection, and one exception for every way of losing it.

Why not a library: a crash test must know whether an answer came in whole, and must never have its request sent twice
behind its back. So there is no retry, no pool and no redirect here.
"""

from __future__ import annotations

import json
from types import TracebackType
from typing import Any

import h11
import trio

from tests.e2e.leader import ALARM_SECONDS


class ConnectionLost(Exception):
    """No whole answer came; the caller does not know whether the request had an effect."""


class Answer:
    """Status, headers (lower case) and body of an answer that came in whole."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


class Client:
    """One connection to a leader, made at the first request and again after it was lost or closed."""

    def __init__(self, host: str, port: int, bearer: str | None = None) -> None:
        self._host = host
        self._port = port
        self._bearer = bearer
        self._stream: trio.SocketStream | None = None
        self._connection = h11.Connection(h11.CLIENT)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def get(self, target: str, headers: dict[str, str] | None = None) -> Answer:
        """GET without a body."""
        return await self.request("GET", target, headers=headers)

    async def post(self, target: str, value: object) -> Answer:
        """POST `value` as JSON."""
        return await self.request("POST", target, json.dumps(value).encode())

    async def put(self, target: str, value: object) -> Answer:
        """PUT `value` as JSON."""
        return await self.request("PUT", target, json.dumps(value).encode())

    async def request(
        self, method: str, target: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """Send one request and read its answer, or raise ConnectionLost."""
        with trio.fail_after(ALARM_SECONDS):
            try:
                stream = await self._connected()
                head = {"host": f"{self._host}:{self._port}", **(headers or {})}
                if self._bearer is not None:
                    head["authorization"] = f"Bearer {self._bearer}"
                if body is not None:
                    head |= {"content-type": "application/json", "content-length": str(len(body))}
                await self._send(stream, h11.Request(method=method, target=target, headers=list(head.items())))
                if body is not None:
                    await self._send(stream, h11.Data(data=body))
                await self._send(stream, h11.EndOfMessage())
                answer = await self._read_answer(stream)
            except (OSError, trio.BrokenResourceError, trio.ClosedResourceError, h11.ProtocolError) as error:
                await self.aclose()
                raise ConnectionLost(repr(error)) from error
            except BaseException:
                with trio.CancelScope(shield=True):
                    await self.aclose()
                raise
        if self._connection.our_state is h11.DONE and self._connection.their_state is h11.DONE:
            self._connection.start_next_cycle()
        else:
            await self.aclose()
        return answer

    async def _connected(self) -> trio.SocketStream:
        if self._stream is None:
            self._stream = await trio.open_tcp_stream(self._host, self._port)
            self._connection = h11.Connection(h11.CLIENT)
        return self._stream

    async def _send(self, stream: trio.SocketStream, event: h11.Event) -> None:
        data = self._connection.send(event)
        if data:
            await stream.send_all(data)

    async def _read_answer(self, stream: trio.SocketStream) -> Answer:
        status, headers, body = 0, {}, b""
        while True:
            event = self._connection.next_event()
            if event is h11.NEED_DATA:
                self._connection.receive_data(await stream.receive_some())
            elif isinstance(event, h11.Response):
                status = event.status_code
                headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return Answer(status, headers, body)
            elif isinstance(event, h11.ConnectionClosed):
                raise h11.RemoteProtocolError("closed before an answer")

    async def aclose(self) -> None:
        """Close the connection; the next request makes a new one."""
        stream, self._stream = self._stream, None
        if stream is not None:
            await trio.aclose_forcefully(stream)
