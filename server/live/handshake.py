"""The opening handshake of a viewer: a request head in, an `Upgrade` or a refusal out. Pure.

`server.http.handshake` checks the handshake itself. This file reads the board and the format that the viewer asks for,
and checks whether its page may open the channel.

A subprotocol chooses the format of the messages, or carries a token, because a browser's WebSocket takes no headers.
A token is never selected, so it is never sent back. A browser with a token must also offer a format: it fails unless
one of its offers is selected.

No extension is ever accepted: a few compressed bytes could fill the server's memory.
"""

from __future__ import annotations

from collections.abc import Container

import msgspec

from server.http.handshake import accept_value, check_upgrade
from server.http.messages import Headers, Refused, RequestHead, quoted
from server.http.target import LIVE, board_of, check_query, query_values, view_of
from server.live.board_view import BoardView

LIVE_PATH = "/ws/scoreboard"
FULL = "scoreboard.v1"
DELTA = "scoreboard.delta.v1"
TOKEN_PREFIX = "scoreboard.token."  # noqa: S105  # precedes a token

PARAMETERS = ("boardId", "view")
"""What the query of a handshake may have."""


class Upgrade(msgspec.Struct, frozen=True):
    """A correct handshake. `authorization` is the Authorization header, or made of the token in a subprotocol.

    `subprotocol` is the selected one. None: the client offered none that is known, and gets the full messages.
    """

    accept: str
    subprotocol: str | None
    authorization: str | None
    origin: str | None
    view: BoardView

    def response(self, headers: Headers = ()) -> bytes:
        """Give the answer."""
        lines = [
            "HTTP/1.1 101 Switching Protocols",
            "upgrade: websocket",
            "connection: Upgrade",
            f"sec-websocket-accept: {self.accept}",
        ]
        if self.subprotocol is not None:
            lines.append(f"sec-websocket-protocol: {self.subprotocol}")
        lines += [f"{name}: {value}" for name, value in headers]
        return "\r\n".join([*lines, "", ""]).encode("ascii")


def read_upgrade(head: RequestHead) -> Upgrade:
    """Check a handshake. Raises `Refused`."""
    key = check_upgrade(head, "The live channel")
    check_query(head.query, PARAMETERS)
    values = query_values(head.query, PARAMETERS)
    offered = head.words("sec-websocket-protocol")
    token = next((offer.removeprefix(TOKEN_PREFIX) for offer in offered if offer.startswith(TOKEN_PREFIX)), None)
    authorization = head.joined("authorization")
    if authorization is None and token is not None:
        authorization = f"Bearer {token}"
    return Upgrade(
        accept=accept_value(key),
        subprotocol=next((offer for offer in offered if offer in (FULL, DELTA)), None),
        authorization=authorization,
        origin=head.joined("origin"),
        view=BoardView(board_of(values), live=view_of(values) == LIVE),
    )


def check_origin(origin: str | None, allowed: Container[str] | None, host: str | None = None) -> None:
    """Refuse a page that is not on the allow-list (`server.settings.origins`). None allows every page.

    A client without Origin is allowed: it is no browser, so no other site's page can make it act for its user. So are
    this server's own pages, /embed in a frame among them: their origin has the `host` of the request. A name that was
    bent to this address gains nothing by that: no browser sends a token by itself.
    """
    if origin is None or allowed is None or origin in allowed:
        return
    if host and origin.partition("://")[2].lower() == host.lower():
        return
    message = "Pages of this origin may not open the live channel."
    raise Refused(403, "UNAUTHORIZED", message, {"origin": quoted(origin)})
