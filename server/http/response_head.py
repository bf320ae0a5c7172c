"""The bytes of an answer: status line, headers, date, empty line, body.

    await connection.send(http_bytes(response, head_end(last=False)))

Every lane of ours ends its heads by `head_end`, so every answer has a date (RFC 9110, section 6.6.1), formatted once a
second. The rest of a head is the same for most answers, but for the length of the body. So it is made once, in two
parts around that length.
"""

from __future__ import annotations

import time
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

from server.http.messages import Headers, Response, wire_headers

HEAD_TEMPLATES_MAX = 256
"""Heads that are remembered: the few kinds of answers, and one for each ETag that is asked for now."""

_STATUS_LINES = {int(status): f"HTTP/1.1 {int(status)} {status.phrase}" for status in HTTPStatus}


def http_bytes(response: Response, end: bytes, *lines: bytes) -> bytes:
    """Give a full HTTP/1.1 answer. `end` is the end of its head (`head_end`), `lines` are more headers before that."""
    assert response.stream is None, "this lane sends no streams"
    before, after = _head_template(response.status, response.content_type, response.headers)
    if after is None:
        return b"".join((before, *lines, end))
    body = response.body
    length = b"%d" % len(body)
    return b"".join((before, length, after, *lines, end, b"" if response.omit_body else body))


def head_end(*, last: bool) -> bytes:
    """Give the bytes that end a response head now. `last`: the connection ends with this answer."""
    return head_ends()[last]


def head_ends() -> tuple[bytes, bytes]:
    """Give both ends: of an answer after which the connection goes on, and of the last one."""
    return _head_ends(int(time.time()))


@lru_cache(maxsize=HEAD_TEMPLATES_MAX)
def _head_template(status: int, content_type: str, headers: Headers) -> tuple[bytes, bytes | None]:
    """Give a head in two parts, before and after the length of the body; the second is None without a body."""
    response = Response(status, b"", content_type, headers)
    lines = [_STATUS_LINES[status], *(f"{name}: {value}" for name, value in wire_headers(response)), ""]
    head = "\r\n".join(lines).encode("latin-1")
    name = b"content-length: "
    before, found, after = head.partition(name + b"0")
    return (before + name, after) if found else (head, None)


@lru_cache(maxsize=1)
def _head_ends(second: int) -> tuple[bytes, bytes]:
    date = f"date: {formatdate(second, usegmt=True)}\r\n".encode("ascii")
    return date + b"\r\n", date + b"connection: close\r\n\r\n"
