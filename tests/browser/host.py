"""A site of its own that shows the board on its page: another port, and so another origin than the server's.

    async with hosting() as site:
        site.page = '<live-scoreboard src=…></live-scoreboard>'
        await page.open(site.url)

It answers every request with `page`, under the policy `policy` if there is one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import trio

HEAD_BYTES_MAX = 64 * 1024


class Site:
    """The site at `origin`; `page` and `policy` may be set until it is asked."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.origin = f"http://127.0.0.1:{port}"
        self.url = f"{self.origin}/"
        self.page = ""
        self.policy = ""

    def show(self, board_url: str, *elements: str, root: str = "<html>") -> None:
        """Show elements of the server at `board_url`, as its documentation says, under the strictest policy."""
        module = f'<script type="module" src="{board_url}/scoreboard.js"></script>'
        self.page = f"<!doctype html>{root}<title>A site</title><body>{module}{''.join(elements)}"
        sockets = board_url.replace("http", "ws", 1)
        self.policy = f"default-src 'none'; script-src {board_url}; connect-src {board_url} {sockets}"

    async def serve(self, stream: trio.SocketStream) -> None:
        """Answer the one request of a connection."""
        head = b""
        try:
            while b"\r\n\r\n" not in head and len(head) < HEAD_BYTES_MAX:
                data = await stream.receive_some()
                if not data:
                    return
                head += data
            body = self.page.encode()
            lines = ["HTTP/1.1 200 OK", "Content-Type: text/html; charset=utf-8", f"Content-Length: {len(body)}"]
            lines += ["Connection: close", *([f"Content-Security-Policy: {self.policy}"] if self.policy else [])]
            await stream.send_all("\r\n".join([*lines, "", ""]).encode() + body)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the browser hung up


@asynccontextmanager
async def hosting() -> AsyncIterator[Site]:
    """Run a site."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    site = Site(listener.socket.getsockname()[1])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(trio.serve_listeners, site.serve, [listener]))
        yield site
        nursery.cancel_scope.cancel()
