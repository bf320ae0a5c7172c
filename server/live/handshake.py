"""The opening handshake of a viewer (RFC 6455, section 4.2): a request head in, an `Upgrade` or a refusal out. Pure.

A refusal is an ordinary HTTP answer in the shape of every other error, so the reasons are checked in the order in which
they help: first whether this is a WebSocket handshake at all, then whether it is a correct one, then whether this page
may open one, then what it wants to watch.

Two things are done with subprotocols: choosing the format of the messages, and bringing a token, because a browser's
WebSocket takes no headers. A token is never selected, so it is never sent back; a browser that brings one must offer a
format beside it, because it insists on one of its offers being selected.

No extension is ever accepted: inflating what viewers send is the classic way to fill a server's memory.
"""

from __future__ import annotations

import base64
import binascii
import hashlib

import msgspec

from server.http import messages
from server.http.messages import Refused
from server.http.websocket import RequestHead

FULL = "scoreboard.v1"
DELTA = "scoreboard.delta.v1"
TOKEN_PREFIX = "scoreboard.token."  # noqa: S105  # announces a token, is none

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_VERSION = "13"
_DEFAULT_PORTS = {"http": "80", "https": "443"}
_UPGRADE_HEADERS = (("upgrade", "websocket"), ("connection", "upgrade"), ("sec-websocket-version", _VERSION))


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
    _check_is_websocket(head)
    _check_framing(head)
    key = _single(head, "sec-websocket-key")
    if not _is_key(key):
        raise messages.invalid("Sec-WebSocket-Key", "Sec-WebSocket-Key must be given once, 16 bytes in base64.")
    offered = _tokens(head, "sec-websocket-protocol")
    token = next((offer.removeprefix(TOKEN_PREFIX) for offer in offered if offer.startswith(TOKEN_PREFIX)), None)
    authorization = _joined(head, "authorization")
    if authorization is None and token is not None:
        authorization = f"Bearer {token}"
    return Upgrade(
        accept=accept_value(key),
        subprotocol=next((offer for offer in offered if offer in (FULL, DELTA)), None),
        authorization=authorization,
        origin=_joined(head, "origin"),
        board_id=messages.board_of(messages.query_values(head.target.partition("?")[2], ("boardId",))),
    )


def accept_value(key: str) -> str:
    """Give what proves that the server understood a key (RFC 6455, 4.2.2)."""
    # SHA-1 is what the RFC prescribes; nothing secret hangs on it.
    return base64.b64encode(hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()).decode()


def check_origin(origin: str | None, allowed: frozenset[str] | None) -> None:
    """Refuse a page that is not on the allow-list; None allows every page, `allowed` is in the form of `_comparable`.

    Whoever sends no Origin is no browser, and so is not made to act for its user by somebody else's page.
    """
    if origin is None or allowed is None or _comparable(origin) in allowed:
        return
    message = "Pages of this origin may not open the live channel."
    raise Refused(403, "UNAUTHORIZED", message, {"origin": messages.quoted(origin)})


def _check_is_websocket(head: RequestHead) -> None:
    if head.method != "GET":
        message = "The live channel is opened with GET."
        raise Refused(405, "METHOD_NOT_ALLOWED", message, headers=(("allow", "GET"),))
    if head.version != "HTTP/1.1":
        raise Refused(400, "INVALID_REQUEST", "The live channel needs HTTP/1.1.")
    for name, wanted in (("Upgrade", "websocket"), ("Connection", "upgrade")):
        if wanted not in (token.lower() for token in _tokens(head, name.lower())):
            message = f"This is a WebSocket: the request needs the header {name}: {wanted}."
            raise Refused(426, "INVALID_REQUEST", message, {"field": name}, _UPGRADE_HEADERS)
    if _single(head, "sec-websocket-version") != _VERSION:
        message = f"The only WebSocket version here is {_VERSION}."
        raise Refused(426, "INVALID_REQUEST", message, {"field": "Sec-WebSocket-Version"}, _UPGRADE_HEADERS)


def _check_framing(head: RequestHead) -> None:
    if not _single(head, "host"):
        raise messages.invalid("Host", "Host must be given once.")
    # What follows the head is frames. If a proxy in front could read it as a body, the two would not agree on where
    # the request ends.
    if _values(head, "transfer-encoding") or any(value != "0" for value in _values(head, "content-length")):
        raise messages.invalid("Content-Length", "A WebSocket handshake has no body.")


def _is_key(key: str) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):  # ValueError: not ASCII
        return False


def _comparable(origin: str) -> str:
    """Scheme and host in lower case, without the scheme's own port, which browsers leave out (RFC 6454, 6.2)."""
    origin = origin.lower()
    scheme, _, host = origin.partition("://")
    return origin.removesuffix(f":{_DEFAULT_PORTS[scheme]}") if host and scheme in _DEFAULT_PORTS else origin


def _values(head: RequestHead, name: str) -> list[str]:
    return [value for header, value in head.headers if header == name]


def _single(head: RequestHead, name: str) -> str:
    """Give the value of a header that must be there exactly once, and nothing if it is not."""
    values = _values(head, name)
    return values[0] if len(values) == 1 else ""


def _joined(head: RequestHead, name: str) -> str | None:
    """Give a header, None if it is not there; one that came twice as a list, which is no valid token and no origin."""
    values = _values(head, name)
    return ", ".join(values) if values else None


def _tokens(head: RequestHead, name: str) -> list[str]:
    words = ",".join(_values(head, name)).split(",")
    return [stripped for word in words if (stripped := word.strip())]
