"""The end of a response head: its date, and whether the connection ends with it. Made anew once a second.

    await connection.send(http_bytes(response, head_end(last=False)))

Every lane ends its heads here, so every answer has a date (RFC 9110, section 6.6.1) and none formats it twice.
"""

from __future__ import annotations

import time
from email.utils import formatdate


class _HeadEnds:
    """The two ends of this second."""

    __slots__ = ("_ends", "_second")

    def __init__(self) -> None:
        self._second = -1
        self._ends = (b"", b"")

    def end(self, last: bool) -> bytes:
        second = int(time.time())
        if second != self._second:
            date = formatdate(second, usegmt=True)
            self._ends = (
                f"date: {date}\r\n\r\n".encode("ascii"),
                f"date: {date}\r\nconnection: close\r\n\r\n".encode("ascii"),
            )
            self._second = second
        return self._ends[last]


_head_ends = _HeadEnds()


def head_end(*, last: bool) -> bytes:
    """Give the bytes that end a response head now. `last`: the connection ends with this answer."""
    return _head_ends.end(last)
