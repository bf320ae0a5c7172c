"""The end of a response head: its date, and whether the connection ends with it. Made anew once a second.

    await connection.send(http_bytes(response, head_end(last=False)))

Every lane ends its heads here, so every answer has a date (RFC 9110, section 6.6.1), formatted once a second.
"""

from __future__ import annotations

import time
from email.utils import formatdate
from functools import lru_cache


def head_end(*, last: bool) -> bytes:
    """Give the bytes that end a response head now. `last`: the connection ends with this answer."""
    return _head_ends(int(time.time()))[last]


@lru_cache(maxsize=1)
def _head_ends(second: int) -> tuple[bytes, bytes]:
    date = f"date: {formatdate(second, usegmt=True)}\r\n".encode("ascii")
    return date + b"\r\n", date + b"connection: close\r\n\r\n"
