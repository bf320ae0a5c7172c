"""The opening handshake of a viewer: a request head in, an `Upgrade` or a refusal out. Pure.

`server.http.handshake` checks that this is a correct handshake. This file reads what the viewer wants to watch, and in
which format, and checks whether its page may open the channel.

Two things are done with subprotocols: choosing the format of the messages, and bringing a token, because a browser's
WebSocket takes no headers. A token is never selected, so it is never sent back; a browser that brings one must offer a
format beside it, because it insists on one of its offers being selected.

No extension is ever accepted: inflating what viewers send is the classic way to fill a server's memory.
"""

from __future__ import annotations

import msgspec

from server.http.handshake import accept_value, check_upgrade
from server.http.messages import Refused, RequestHead, quoted
from server.http.target import board_of, query_values

FULL = "scoreboard.v1"
DELTA = "scoreboard.delta.v1"
TOKEN_PREFIX = "scoreboard.token."  # noqa: S105  # announces a token, is none

_DEFAULT_PORTS = {"http": "80", "https": "443"}


class Upgrade(msgspec.Struct, frozen=True):
    """A correct handshake. `authorization` is what an Authorization header says, or would say of the token brought.

    `subprotocol` is the selected one, None for a client that offered none that is known: it gets the full messages.
    """

    accept: str
    subprotocol: str | None
    authorization: str | None
    origin: str | None
    board_id: str

    def response(self) -> bytes:
        """Make the answer that turns the connection into a WebSocket."""
        lines = [
            "HTTP/1.1 101 Switching Protocols",
            "upgrade: websocket",
            "connection: Upgrade",
            f"sec-websocket-accept: {self.accept}",
        ]
        if self.subprotocol is not None:
            lines.append(f"sec-websocket-protocol: {self.subprotocol}")
        return "\r\n".join([*lines, "", ""]).encode("ascii")


def read_upgrade(head: RequestHead) -> Upgrade:
    """Check a handshake. Raises `Refused` with the answer to give instead."""
    key = check_upgrade(head, "The live channel")
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
        board_id=board_of(query_values(head.query, ("boardId",))),
    )


def check_origin(origin: str | None, allowed: frozenset[str] | None) -> None:
    """Refuse a page that is not on the allow-list; None allows every page, `allowed` is in the form of `_comparable`.

    Whoever sends no Origin is no browser, and so is not made to act for its user by somebody else's page.
    """
    if origin is None or allowed is None or _comparable(origin) in allowed:
        return
    message = "Pages of this origin may not open the live channel."
    raise Refused(403, "UNAUTHORIZED", message, {"origin": quoted(origin)})


def _comparable(origin: str) -> str:
    """Scheme and host in lower case, without the scheme's own port, which browsers leave out (RFC 6454, 6.2)."""
    origin = origin.lower()
    scheme, _, host = origin.partition("://")
    return origin.removesuffix(f":{_DEFAULT_PORTS[scheme]}") if host and scheme in _DEFAULT_PORTS else origin
