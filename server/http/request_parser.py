"""Makes whole and correct requests of the bytes of a connection, or refuses them. Bytes in, values out.

    parser.receive(data)
    inbound = parser.next_head()            # None: not complete yet
    body = parser.next_body()               # the same; then next_head() again

Theory of operation. llhttp (through httptools) reads every byte of every request, strictly. It alone decides where a
request begins and ends. The Hypercorn lane gets a request that `wire_request` wrote anew from what was understood, so
there is nothing on which two parsers could disagree.

Rules:
- A request is refused before any lane has seen a byte of it: because of its head, the length of its body or the framing
  of its body.
- A fault is raised as soon as the bytes that show it are there. It is final: the beginning of the next request is no
  longer known, so the connection ends with the answer.
- llhttp gets a head up to its empty line, and a chunked body in pieces that end where the body could end. So it never
  sees a byte of the next request, whose beginning it would not tell us.
- An llhttp parser is used for one request. Its limits and flags can't leak into the next.
- At most these are kept: a head of `head_bytes_max`, a body of `body_bytes_max` and the rest of the last read.

We refuse what llhttp lets through although HTTP/1.1 forbids it or no route needs it: request lines of RTSP, ICE,
HTTP/0.9 and 2.0, several spaces between its words, a target that is no path, no Host, two Hosts, a malformed Host,
codings other than chunked, chunked in HTTP/1.0, CONNECT, an upgrade to HTTP/2, an upgrade with a body.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

import httptools
import msgspec

from server.bounds import BODY_BYTES_MAX, FRAMING_BODY_DIVISOR, FRAMING_BYTES_MAX, HEAD_BYTES_MAX
from server.http.messages import Refused, RequestHead, invalid

HEAD_END = b"\r\n\r\n"
"""Ends a head, and also every chunked body: its last chunk and its trailers end with an empty line."""

_REQUEST_LINE = re.compile(rb"[A-Z-]+ [\x21-\x7e]+ HTTP/1\.[01]")
_HOST = re.compile(r"[A-Za-z0-9._~%!$&'()*+,;=-]*(:[0-9]*)?|\[[0-9A-Fa-f:.]+\](:[0-9]*)?")
_NOT_PASSED_ON = {
    "connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "content-length",
    "upgrade", "http2-settings", "expect",
}  # fmt: skip
"""Headers about this connection and this transfer, both of which end here. `wire_request` writes its own."""


class IncomingRequest(msgspec.Struct, frozen=True):
    """A request whose head was read. `body_bytes` is None for a chunked body, whose length is not known yet.

    `keep_alive`: the client may send another request. `expects_continue`: it waits for `100 Continue` before the body.
    """

    head: RequestHead
    keep_alive: bool = True
    body_bytes: int | None = 0
    has_length: bool = False
    expects_continue: bool = False

    @property
    def path(self) -> str:
        return self.head.path

    def header(self, name: str) -> str:
        """All lines of a header, joined by commas; empty if there is none."""
        return self.head.joined(name) or ""


def wire_request(inbound: IncomingRequest, body: bytes, *, last: bool) -> bytes:
    """Write a request anew for another HTTP server. `last`: that server is to close after its answer."""
    head = inbound.head
    lines = [f"{head.method} {head.target} {head.version}"]
    lines += [f"{name}: {value}" for name, value in head.headers if name not in _NOT_PASSED_ON]
    if inbound.has_length:
        lines.append(f"content-length: {len(body)}")
    if last:
        lines.append("connection: close")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


class RequestParser:
    """The reading side of one connection."""

    __slots__ = (
        "_body_bytes_max", "_buffer", "_empty_lines", "_fed", "_head_bytes_max", "_parser", "_reading", "_tail",
    )  # fmt: skip

    def __init__(self, head_bytes_max: int = HEAD_BYTES_MAX, body_bytes_max: int = BODY_BYTES_MAX) -> None:
        self._head_bytes_max = head_bytes_max
        self._body_bytes_max = body_bytes_max
        self._buffer = bytearray()
        self._parser: _Parser | None = None
        self._fed = 0  # bytes that llhttp has seen: of the buffer in a head, of the raw body in a body
        self._empty_lines = 0  # places where a chunked body could have ended
        self._tail = b""
        self._reading: IncomingRequest | None = None

    @property
    def begun(self) -> bool:
        """Whether a byte of the next request is here. Empty lines before a request line don't count (RFC 9112, 2.2)."""
        if self._fed == 0 and self._reading is None:
            while self._buffer.startswith(b"\r\n"):
                del self._buffer[:2]
        return bytes(self._buffer[:2]) not in (b"", b"\r")

    @property
    def held(self) -> int:
        """Bytes that are kept now."""
        return len(self._buffer) + (len(self._parser.body) if self._parser else 0)

    def receive(self, data: bytes) -> None:
        """Take in what was read from the connection."""
        self._buffer += data

    def take_rest(self) -> bytes:
        """Give what was received after the head, for a lane that reads on by itself."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        self._reading = None
        return rest

    def drop(self) -> None:
        """Forget what was received."""
        self._buffer = bytearray()
        self._parser = None
        self._tail = b""

    def next_head(self) -> IncomingRequest | None:
        """Give the next request's head, or None while it is not complete. Raises `Refused`."""
        assert self._reading is None, "the body of the request before comes first"
        if not self.begun:
            return None
        if self._parser is None:
            self._parser = _Parser(self._body_bytes_max)
        end = self._buffer.find(HEAD_END, max(0, self._fed - len(HEAD_END) + 1))
        length = len(self._buffer) if end < 0 else end + len(HEAD_END)
        if length > self._head_bytes_max:
            message = f"The request line and the headers are longer than {self._head_bytes_max} bytes."
            raise Refused(431, "INVALID_REQUEST", message, {"maximum": self._head_bytes_max})
        self._parser.feed(bytes(self._buffer[self._fed : length]))
        self._fed = length
        if end < 0:
            # Without the empty line a head is complete only in HTTP/0.9.
            if self._parser.head_complete:
                raise _not_http("the version is missing")
            return None
        inbound = self._parser.inbound(bytes(self._buffer[:end]))
        del self._buffer[:length]
        self._fed = 0
        self._reading = inbound
        return inbound

    def next_body(self) -> bytes | None:
        """Give the body that belongs to the last head, or None while it is not complete. Raises `Refused`."""
        assert self._reading is not None, "the head comes first"
        assert self._parser is not None
        if self._reading.body_bytes is None:
            self._feed_chunks(self._parser)
            if not self._parser.complete:
                return None
            body = bytes(self._parser.body)
        else:
            length = self._reading.body_bytes
            if len(self._buffer) < length:
                return None
            body = bytes(self._buffer[:length])
            del self._buffer[:length]
        self._parser = None
        self._reading = None
        self._fed = self._empty_lines = 0
        self._tail = b""
        return body

    def _feed_chunks(self, parser: _Parser) -> None:
        data = self._tail + self._buffer
        start = len(self._tail)
        search = 0
        while not parser.complete and start < len(data):
            end = data.find(HEAD_END, search)
            stop = len(data) if end < 0 else end + len(HEAD_END)
            search = len(data) if end < 0 else end + 1
            self._empty_lines += end >= 0
            parser.feed(data[start:stop])
            self._fed += stop - start
            start = stop
            body_bytes = len(parser.body)
            if body_bytes > self._body_bytes_max:
                raise _too_large(self._body_bytes_max)
            # An empty line in the body's data counts as framing too: it costs as much, one call of llhttp.
            framing_bytes = self._fed - body_bytes + self._empty_lines * len(HEAD_END)
            if framing_bytes > FRAMING_BYTES_MAX + body_bytes // FRAMING_BODY_DIVISOR:
                message = "The body is sent in chunks that are too small, or has too many empty lines."
                raise Refused(413, "PAYLOAD_TOO_LARGE", message)
        self._tail = data[max(0, start - len(HEAD_END) + 1) : start]
        self._buffer = bytearray(data[start:])


class _Parser:
    """One request, read by llhttp: the callbacks, and what they collected."""

    __slots__ = ("_body_bytes_max", "_http", "_target", "body", "complete", "head_complete", "headers")

    def __init__(self, body_bytes_max: int) -> None:
        self._body_bytes_max = body_bytes_max
        self._http: Any = httptools.HttpRequestParser(self)
        self._target = b""
        self.headers: list[tuple[str, str]] = []
        self.head_complete = False
        # Not a list of parts: a part costs some fifty bytes, and a client can send parts of one byte.
        self.body = bytearray()
        self.complete = False

    def feed(self, data: bytes) -> None:
        """Let llhttp read on. Raises `Refused`."""
        try:
            self._http.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # raised at the end of the head, where our data ends too; llhttp does not decide about an upgrade
        except httptools.HttpParserError as error:
            if isinstance(error, httptools.HttpParserCallbackError):
                raise  # a callback failed: our bug, not the client's
            reason = str(error)
            if reason == "Content-Length overflow":
                raise _too_large(self._body_bytes_max) from None
            raise _not_http(reason) from None

    def on_url(self, part: bytes) -> None:
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        # Trailers come here too. llhttp has checked them; nothing needs them.
        if not self.head_complete:
            self.headers.append((name.decode("ascii").lower(), value.decode("latin-1").strip(" \t")))

    def on_headers_complete(self) -> None:
        self.head_complete = True

    def on_body(self, part: bytes) -> None:
        self.body += part

    def on_message_complete(self) -> None:
        self.complete = True

    def inbound(self, raw_head: bytes) -> IncomingRequest:
        """Check what llhttp let through. Raises `Refused`."""
        if not self.head_complete or not _REQUEST_LINE.fullmatch(raw_head.partition(b"\r\n")[0]):
            raise _not_http("a request line is METHOD TARGET HTTP/1.1 with one space between")
        method = self._http.get_method().decode("ascii")
        if method == "CONNECT":
            raise Refused(400, "INVALID_REQUEST", "This server is no proxy: it has no CONNECT.")
        target = self._target.decode("ascii")
        headers = self.headers
        if not target.startswith("/"):
            target, headers = _origin_form(target, headers)
        if "#" in target:
            raise Refused(400, "INVALID_REQUEST", "A fragment (#) is not part of a request target.")
        head = RequestHead(method, target, f"HTTP/{self._http.get_http_version()}", headers)
        is_http_11 = head.version == "HTTP/1.1"
        _check_host(head.values("host"), must_have_one=is_http_11)
        body_bytes = _body_bytes(head)
        _check_upgrade(head, body_bytes)
        if body_bytes is not None and body_bytes > self._body_bytes_max:
            raise _too_large(self._body_bytes_max)
        return IncomingRequest(
            head,
            keep_alive=is_http_11 and "close" not in head.tokens("connection"),
            body_bytes=body_bytes,
            has_length=body_bytes is None or bool(head.values("content-length")),
            expects_continue=is_http_11 and "100-continue" in head.tokens("expect"),
        )


def _origin_form(target: str, headers: list[tuple[str, str]]) -> tuple[str, list[tuple[str, str]]]:
    """Turn `http://host/path` into `/path` and the Host that it names, as every server must (RFC 9112, 3.2.2)."""
    try:
        url = urlsplit(target)
    except ValueError:
        url = urlsplit("")
    if url.scheme not in ("http", "https") or not url.netloc or "@" in url.netloc:
        raise Refused(400, "INVALID_REQUEST", "A request target is a path (/...) or a full http:// address.")
    path = target.partition("://")[2][len(url.netloc) :]
    named = [(name, url.netloc if name == "host" else value) for name, value in headers]
    return path if path.startswith("/") else "/" + path, named


def _check_host(hosts: list[str], *, must_have_one: bool) -> None:
    if len(hosts) > 1 or (not hosts and must_have_one):
        raise invalid("Host", "Host must be given once.")
    if hosts and not _HOST.fullmatch(hosts[0]):
        raise invalid("Host", "Host must be a name or an address.")


def _body_bytes(head: RequestHead) -> int | None:
    """The length of the body; None for chunked."""
    codings, lengths = head.values("transfer-encoding"), head.values("content-length")
    if len(lengths) + len(codings) > 1:
        raise _not_http("the length of the body is given twice")
    if codings:
        if head.version != "HTTP/1.1" or codings[0].lower() != "chunked":
            raise invalid("Transfer-Encoding", "The only transfer coding is chunked, in HTTP/1.1.")
        return None
    return int(lengths[0]) if lengths else 0


def _check_upgrade(head: RequestHead, body_bytes: int | None) -> None:
    upgrades = head.tokens("upgrade")
    if "h2c" in upgrades:
        raise invalid("Upgrade", "This server speaks HTTP/1.1 only: send the request without Upgrade: h2c.")
    if upgrades and body_bytes != 0:
        # One reader would take what follows the head for a body, another for the new protocol.
        raise invalid("Upgrade", "An upgrade can't have a body.")


def _not_http(reason: str) -> Refused:
    return Refused(400, "INVALID_REQUEST", f"This is not HTTP/1.1: {reason}.")


def _too_large(limit: int) -> Refused:
    message = f"The body of a request has at most {limit} bytes."
    return Refused(413, "PAYLOAD_TOO_LARGE", message, {"maximum": limit})
