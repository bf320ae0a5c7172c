"""The live channel as server-sent events (HTML standard, section 9.2): a request head in, bytes of a stream out.

    opening = read_stream(head)                        the board, the token, and what the client has already
    socket.send(opening.response(headers))             the head of the answer; it ends with the connection
    socket.send(event(identity, message))              a message of `server.live.encoding`

    id: 1-4711-9f86d081884c7d65          the position: epoch, seq, and the beginning of the epoch's identity
    data: {"type":"scoreboard_update", …}

Rules:
- The messages are those of a WebSocket without deltas. An event is the same bytes for every viewer of a board.
- A client that comes back says the last id that it got (`Last-Event-ID`). If the board has not moved since, it gets no
  snapshot.
- A message that is not about a position has no id, so a client that comes back names the position before it.
- A comment every PING_SECONDS keeps proxies from cutting a silent stream.
- Each client is told a time of its own to wait before it comes back (`retry`), so that not all come at once.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from server.http.messages import Headers, RequestHead, invalid
from server.http.response_head import head_end
from server.http.target import LIVE, board_of, check_query, query_values, view_of
from server.live.board_view import BoardView

STREAM_PATH = "/sse/scoreboard"
PARAMETERS = ("boardId", "view")
MEDIA_TYPE = "text/event-stream"

PING_SECONDS = 15.0
"""Between two comments."""

RETRY_MS = (1_000, 5_000)
"""A client comes back after a time within these bounds when its connection broke."""

RESTART_RETRY_MS = (500, 10_000)
"""The same after a restart, which all clients notice at once."""

HISTORY_DIGITS = 16
"""Digits of an epoch's identity in an id: 64 bits, so two identities never look alike by chance."""

COMMENT = b":\n\n"


class EventStream(msgspec.Struct, frozen=True):
    """A correct request for a stream. `known` is the id of the last event that the client got, None for none."""

    view: BoardView
    authorization: str | None
    origin: str | None
    known: str | None

    media_type: ClassVar[str] = MEDIA_TYPE

    def response(self, headers: Headers) -> bytes:
        """Give the head of the answer."""
        lines = [
            "HTTP/1.1 200 OK",
            f"content-type: {self.media_type}",
            "cache-control: no-store",
            "x-accel-buffering: no",  # a proxy must not collect events
            *(f"{name}: {value}" for name, value in headers),
        ]
        return "\r\n".join([*lines, ""]).encode("latin-1") + head_end(last=True)


def read_stream(head: RequestHead) -> EventStream:
    """Check a request for a stream. Raises `Refused`."""
    check_no_body(head)
    check_query(head.query, PARAMETERS)
    values = query_values(head.query, PARAMETERS)
    return EventStream(
        view=BoardView(board_of(values), live=view_of(values) == LIVE),
        authorization=head.joined("authorization"),
        origin=head.joined("origin"),
        known=ids[-1] if (ids := head.values("last-event-id")) else None,
    )


def check_no_body(head: RequestHead) -> None:
    """Refuse a request for a stream that has a body. Raises `Refused`."""
    if head.values("transfer-encoding") or any(value != "0" for value in head.values("content-length")):
        raise invalid("Content-Length", "A request for a stream has no body.")


def identity(epoch: int, seq: int, history: str) -> str:
    """Give the id of the event that shows a position."""
    return f"{epoch}-{seq}-{history[:HISTORY_DIGITS]}"


def event(message: bytes, name: str = "") -> bytes:
    """Make the event of a message, which has no line break. `name` is its id, empty for none."""
    line = f"id: {name}\n".encode("ascii") if name else b""
    return b"%bdata: %b\n\n" % (line, message)


def comment(text: str) -> bytes:
    """Make a comment, which a client does not see."""
    return f": {text}\n\n".encode()


def retry(milliseconds: float) -> bytes:
    """Say how long to wait before coming back."""
    return b"retry: %d\n\n" % milliseconds
