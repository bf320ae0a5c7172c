"""The event feed of the CLICS Contest API: a request head in, lines of a stream out. Pure.

    opening = read_feed(head, board_of)                the board, the token, and where the client wants to go on
    socket.send(opening.response(headers))             the head of the answer; it ends with the connection
    socket.send(line("state", state, token))           an event

    {"type":"contest","id":null,"data":{…},"token":"1-0-9f86d081884c7d65-1c3a5b7d-0"}
    {"type":"teams","id":null,"data":[…],"token":"1-0-…"}
    {"type":"state","id":null,"data":{…},"token":"1-4711-9f86d081884c7d65-1c3a5b7d-1"}

Rules:
- It is a form of the live channel, as `server.live.events` is: `server.live.feed_editions` says what is sent when.
- An empty line every PING_SECONDS keeps the connection: the specification wants one within 120 s.
- A token is a position: epoch, seq, the beginning of the epoch's identity, what is watched (`source_of`), and whether
  the contest had begun. A client that says it (`since_token`) gets all that changed since, or more.
- A token of another source or identity, or of a position that is not here yet, is refused with 400, as the
  specification has it. The client then begins anew.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from hashlib import sha256
from typing import ClassVar, NamedTuple

from server.http.messages import RequestHead, invalid
from server.http.target import LIVE, check_query, decode_path_param, query_values, view_of
from server.live.board_view import BoardView
from server.live.events import HISTORY_DIGITS, EventStream, check_no_body

PARAMETERS = ("view", "since_token")
SINCE = "since_token"

CONTEST_PATH = "/feeds/clics/contests/{boardId}"
FEED_PATH = f"{CONTEST_PATH}/event-feed"
_PATH = re.compile(r"/feeds/clics/contests/([^/]+)/event-feed")
_TOKEN = re.compile(r"([1-9][0-9]{0,15})-(0|[1-9][0-9]{0,15})-([0-9a-f]{0,16})-([0-9a-f]{8})-([01])")

EMPTY_LINE = b"\n"

SOURCE_DIGITS = 8
"""It tells boards and views apart for honest clients: a token opens nothing."""


class FeedStream(EventStream, frozen=True):
    """A correct request for an event feed. `known` is the token of the last event that the client got."""

    media_type: ClassVar[str] = "application/x-ndjson"


def is_feed(path: str) -> bool:
    """Whether a path, percent-encoded, is that of an event feed."""
    return _PATH.fullmatch(path) is not None


def read_feed(head: RequestHead, board_of: Callable[[str], str]) -> FeedStream:
    """Check a request for an event feed. `board_of` gives the board of a contest's id. Raises `Refused`."""
    check_no_body(head)
    check_query(head.query, PARAMETERS)
    values = query_values(head.query, PARAMETERS)
    found = _PATH.fullmatch(head.path)
    assert found is not None
    board_id = board_of(decode_path_param("boardId", found[1]))
    return FeedStream(
        view=BoardView(board_id, live=view_of(values) == LIVE, as_contest=True),
        authorization=head.joined("authorization"),
        origin=head.joined("origin"),
        known=values.get(SINCE),
    )


class Position(NamedTuple):
    """What an edition shows: a board at a position of a history, and whether its contest has begun."""

    epoch: int
    seq: int
    history: str
    started: bool


def source_of(view: BoardView, *form: str) -> str:
    """Give the digest of what is watched, in which form. Tokens of another source mean nothing here."""
    return sha256(repr((view.board_id, view.live, *form)).encode()).hexdigest()[:SOURCE_DIGITS]


def token_of(position: Position, source: str) -> str:
    """Write a position as a token."""
    epoch, seq, history, started = position
    return f"{epoch}-{seq}-{history[:HISTORY_DIGITS]}-{source}-{started:d}"


def is_newest(token: str, position: Position, source: str) -> bool:
    """Whether a client with this token has what is shown at a position; else it has something older. Raises `Refused`.

    A token that is none of this source, or of a later position, is refused.
    """
    found = _TOKEN.fullmatch(token)
    if found is not None:
        seq, started = int(found[2]), found[5] == "1"
        same = (int(found[1]), found[3], found[4]) == (position.epoch, position.history[:HISTORY_DIGITS], source)
        if same and seq <= position.seq:
            return (seq, started) == (position.seq, position.started)
    raise invalid(SINCE, f"{SINCE} is none of this feed, or is not known here. Begin again without it.")


def line(kind: str, data: bytes, token: str) -> bytes:
    """Write an event about a whole object or collection. `data` is JSON."""
    return b'{"type":"%b","id":null,"data":%b,"token":"%b"}\n' % (kind.encode(), data, token.encode())
