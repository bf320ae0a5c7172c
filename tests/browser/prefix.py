"""A reverse proxy that serves a leader below a path: `/board/…` outside is `/…` inside.

It does just enough to show whether the pages use relative addresses only: it rewrites the first line of each
connection's first request, then passes bytes both ways. It tells requests other than upgrades to close, so no
connection has a second request.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import trio

HEAD_BYTES_MAX = 64 * 1024


@asynccontextmanager
async def below_prefix(prefix: str, port: int) -> AsyncIterator[str]:
    """Run the proxy for the leader at `port`; gives the address that ends in `prefix` and a slash."""
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(
            partial(trio.serve_tcp, partial(_serve, prefix=prefix, port=port), port=0, host="127.0.0.1")
        )
        yield f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}{prefix}/"
        nursery.cancel_scope.cancel()


async def _serve(outside: trio.SocketStream, *, prefix: str, port: int) -> None:
    try:
        head = await _read_head(outside)
        if head is None:
            return
        lines = head.split(b"\r\n")
        method, path, version = lines[0].decode("latin-1").split(" ")
        if not path.startswith(f"{prefix}/"):
            await outside.send_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        lines[0] = f"{method} {path.removeprefix(prefix)} {version}".encode("latin-1")
        if not any(line.lower().startswith(b"upgrade: websocket") for line in lines):
            lines = [line for line in lines if not line.lower().startswith(b"connection:")]
            lines.insert(1, b"Connection: close")
        inside = await trio.open_tcp_stream("127.0.0.1", port)
        async with inside, trio.open_nursery() as nursery:
            await inside.send_all(b"\r\n".join(lines))
            nursery.start_soon(_pass_on, outside, inside, nursery.cancel_scope)
            nursery.start_soon(_pass_on, inside, outside, nursery.cancel_scope)
    except* (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
        pass  # one of the two hung up


async def _read_head(stream: trio.SocketStream) -> bytes | None:
    """The bytes up to the empty line and those that came with them; None when there is no request."""
    head = b""
    while b"\r\n\r\n" not in head:
        data = await stream.receive_some()
        if not data or len(head) > HEAD_BYTES_MAX:
            return None
        head += data
    return head


async def _pass_on(source: trio.SocketStream, sink: trio.SocketStream, both: trio.CancelScope) -> None:
    async for data in source:
        await sink.send_all(data)
    both.cancel()
