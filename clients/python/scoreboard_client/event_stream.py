r"""Reads server-sent events (HTML standard, section 9.2): bytes in, events out. Pure.

    reader = EventReader()
    for event in reader.feed(b"id: 1-7-9f86\ndata: {…}\n\n"): …
    reader.last_id, reader.retry_s          what to say, and how long to wait, before coming back

Rules:
- Lines end with LF, CR or CRLF, also if the pieces cut one in two.
- Comments and fields that are not known are passed over. So is an event without data.
- An event has at most EVENT_BYTES_MAX bytes, or `UnexpectedAnswer` is raised.
"""

from __future__ import annotations

import re

from scoreboard_client.errors import UnexpectedAnswer

EVENT_BYTES_MAX = 2**20
"""A state of ten rows has about 1 KiB."""

_LINE_END = re.compile(rb"\r\n|\n|\r")


class EventReader:
    """One stream. `last_id` is that of the last event; `retry_s` is None until the server has said one."""

    def __init__(self, last_id: str = "") -> None:
        self.last_id = last_id
        self.retry_s: float | None = None
        self._rest = b""
        self._id = last_id
        self._data: list[bytes] = []
        self._size = 0
        self._begins = True

    def feed(self, piece: bytes) -> list[str]:
        """Take the next bytes; give the data of the events that they make whole."""
        buffer = self._rest + piece
        if self._begins and len(buffer) >= 3:
            self._begins = False
            buffer = buffer.removeprefix(b"\xef\xbb\xbf")
        events: list[str] = []
        at = 0
        while (end := _LINE_END.search(buffer, at)) is not None:
            if end.end() == len(buffer) and end.group() == b"\r":
                break  # the LF that belongs to it may come with the next piece
            self._line(buffer[at : end.start()], events)
            at = end.end()
        self._rest = buffer[at:]
        if len(self._rest) + self._size > EVENT_BYTES_MAX:
            raise UnexpectedAnswer(f"an event has more than {EVENT_BYTES_MAX} bytes")
        return events

    def _line(self, line: bytes, events: list[str]) -> None:
        if not line:
            self.last_id = self._id
            if self._data:
                events.append(b"\n".join(self._data).decode("utf-8", "replace"))
            self._data, self._size = [], 0
            return
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
            self._size += len(value) + 1
        elif name == b"id" and b"\0" not in value:
            self._id = value.decode("utf-8", "replace")
        elif name == b"retry" and value.isdigit() and len(value) < 9:
            self.retry_s = int(value) / 1000
