"""Another node, as `promote` and `demote` see it: an HTTP server on a free port that gives set answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Node(ThreadingHTTPServer):
    """Answers each request with `status` and `body`; `asked` has method, path and authorization of each."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = 200
        self.body = b"{}"
        self.asked: list[tuple[str, str, str | None]] = []

    @property
    def url(self) -> str:
        """Give its URL."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def says(self, status: int, value: object) -> None:
        """Set the next answers."""
        self.status, self.body = status, value if isinstance(value, bytes) else json.dumps(value).encode()


class _Handler(BaseHTTPRequestHandler):
    server: Node

    def do_GET(self) -> None:
        self.server.asked.append((self.command, self.path, self.headers["authorization"]))
        self.send_response(self.server.status)
        self.send_header("content-length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    do_POST = do_GET  # noqa: N815  # the name is the base class's

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@contextmanager
def answering() -> Iterator[Node]:
    """Run such a node."""
    with Node() as node:
        thread = threading.Thread(target=node.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield node
        finally:
            node.shutdown()
            thread.join()
