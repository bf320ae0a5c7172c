"""The opening handshake of a WebSocket (RFC 6455, section 4.2.1), the same for viewers and for replicas. Pure.

    key = check_upgrade(head, "The live channel")
    ... accept_value(key) ...

A refusal is an ordinary HTTP error. It first says whether this is a WebSocket handshake at all, then what is wrong
with it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib

from server.http.messages import Refused, RequestHead, invalid

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_VERSION = "13"
UPGRADE_HEADERS = (("upgrade", "websocket"), ("connection", "upgrade"), ("sec-websocket-version", _VERSION))
"""The headers that a refused client must send."""


def check_upgrade(head: RequestHead, what: str) -> str:
    """Check the handshake that opens `what`, and give its key. Raises `Refused`."""
    _check_is_websocket(head, what)
    if not single(head, "host"):
        raise invalid("Host", "Host must be given once.")
    # Frames follow the head. A proxy in front could read them as a body, and see another end of the request than we.
    if head.values("transfer-encoding") or any(value != "0" for value in head.values("content-length")):
        raise invalid("Content-Length", "A WebSocket handshake has no body.")
    key = single(head, "sec-websocket-key")
    if not _is_key(key):
        raise invalid("Sec-WebSocket-Key", "Sec-WebSocket-Key must be given once, 16 bytes in base64.")
    return key


def accept_value(key: str) -> str:
    """Give the value that proves that the server understood a key (RFC 6455, 4.2.2)."""
    # The RFC prescribes SHA-1; no secret depends on it.
    return base64.b64encode(hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()).decode()


def _check_is_websocket(head: RequestHead, what: str) -> None:
    if head.method != "GET":
        raise Refused(405, "METHOD_NOT_ALLOWED", f"{what} is opened with GET.", headers=(("allow", "GET"),))
    if head.version != "HTTP/1.1":
        raise Refused(400, "INVALID_REQUEST", f"{what} needs HTTP/1.1.")
    for name, wanted in (("Upgrade", "websocket"), ("Connection", "upgrade")):
        if wanted not in head.tokens(name.lower()):
            message = f"This is a WebSocket: the request needs the header {name}: {wanted}."
            raise Refused(426, "INVALID_REQUEST", message, {"field": name}, UPGRADE_HEADERS)
    if single(head, "sec-websocket-version") != _VERSION:
        message = f"The only WebSocket version here is {_VERSION}."
        raise Refused(426, "INVALID_REQUEST", message, {"field": "Sec-WebSocket-Version"}, UPGRADE_HEADERS)


def single(head: RequestHead, name: str) -> str:
    """Give the value of a header that must be there exactly once, empty if it is not."""
    values = head.values(name)
    return values[0] if len(values) == 1 else ""


def _is_key(key: str) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):  # ValueError: not ASCII
        return False
