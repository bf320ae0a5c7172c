"""What comes in on a connection, made into requests that are whole and correct, or refused. Bytes in, values out.

Theory of operation. llhttp (through httptools) reads every byte of every request, strictly. It is the only parser here
that decides where a request begins and ends; nobody behind the door parses what the client sent. What an HTTP server
behind the door gets is a request that is written anew from what was understood (`wire_request`), so there is nothing
left on which two parsers could disagree.

Rules:
- A request is refused before anything behind the door has seen any of it: with a head at fault, a body too long or a
  body that is not correctly framed, the request never happened.
- A fault is told as soon as the bytes that show it are there, and it is final: where the next request would begin is no
  longer known, so the connection ends with the answer.
- llhttp gets a head up to its empty line, and a chunked body in pieces that end where the body could end. So each
  parser sees one request and never a byte of the next, whose beginning it would not tell us.
- A parser is used for one request. Its limits and flags can't leak into the next.
- Never kept: more than a head of `head_bytes_max`, a body of `body_bytes_max` and what one read brought on top.

What llhttp lets through and HTTP/1.1 does not, or nobody here needs, is refused by us: RTSP, ICE, HTTP/0.9 and 2.0
request lines, several spaces between its words, a target that is no path, no Host, two Hosts, a Host that is none,
codings other than chunked, chunked in HTTP/1.0, CONNECT, an upgrade to HTTP/2, an upgrade with a body.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

import httptools
import msgspec

from server.bounds import BODY_BYTES_MAX, FRAMING_BODY_DIVISOR, FRAMING_BYTES_MAX, HEAD_BYTES_MAX
from server.http.messages import Refused, RequestHead

HEAD_END = b"\r\n\r\n"
"""Ends a head, and also every chunked body: its last chunk and its trailers end with an empty line."""

_REQUEST_LINE = re.compile(rb"[A-Z-]+ [\x21-\x7e]+ HTTP/1\.[01]")
_HOST = re.compile(r"[A-Za-z0-9._~%!$&'()*+,;=-]*(:[0-9]*)?|\[[0-9A-Fa-f:.]+\](:[0-9]*)?")
_NOT_PASSED_ON = frozenset(
    {
        "connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "content-length",
        "upgrade", "http2-settings", "expect",
    }
)  # fmt: skip
"""Headers about this connection and this transfer. Both end at the door; `wire_request` says its own."""


class IncomingRequest(msgspec.Struct, frozen=True):
    """A request whose head was read. `body_bytes` is None for a chunked body, whose length is not known yet.

    `keep_alive`: the client may send another one after it. `expects_continue`: it waits for a word before the body.
    """

    head: RequestHead
    keep_alive: bool = True
    body_bytes: int | None = 0
    has_length: bool = False
    expects_continue: bool = False

    @property
    def path(self) -> str:
        """The target without its query, as it was sent."""
        return self.head.path

    def header(self, name: str) -> str:
        """All lines of a header, joined by commas; empty if there is none."""
        return self.head.joined(name) or ""

    def tokens(self, name: str) -> list[str]:
        """A header that is a list of words, in lower case."""
        return _words(self.head.headers, name)


def wire_request(inbound: IncomingRequest, body: bytes, *, last: bool) -> bytes:
    """Write a request anew for a server behind the door. `last`: that server is to close after its answer."""
    head = inbound.head
    lines = [f"{head.method} {head.target} {head.version}"]
    lines += [f"{name}: {value}" for name, value in head.headers if name not in _NOT_PASSED_ON]
    if inbound.has_length:
        lines.append(f"content-length: {len(body)}")
    if last:
        lines.append("connection: close")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


class RequestParser:
    """The reading side of one connection: `receive`, `next_head`, `next_body`, `next_head` and so on."""

    __slots__ = (
        "_body_bytes_max", "_buffer", "_empty_lines", "_fed", "_head_bytes_max", "_parser", "_reading", "_tail",
    )  # fmt: skip

    def __init__(self, head_bytes_max: int = HEAD_BYTES_MAX, body_bytes_max: int = BODY_BYTES_MAX) -> None:
        self._head_bytes_max = head_bytes_max
        self._body_bytes_max = body_bytes_max
        self._buffer = bytearray()
        self._parser: _Parser | None = None
        self._fed = 0  # of the buffer in a head, of the raw body in a body: bytes that the parser has seen
        self._empty_lines = 0  # in a chunked body: places where it could have ended
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
        return len(self._buffer) + (self._parser.body_bytes if self._parser else 0)

    def receive(self, data: bytes) -> None:
        """Take in what was read from the connection."""
        self._buffer += data

    def take_rest(self) -> bytes:
        """Give what was received after the head, for a lane that goes on by itself."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        self._reading = None
        return rest

    def drop(self) -> None:
        """Forget what was received: nothing of it will be read any more."""
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
        """Give the whole body of the request whose head came last, or None while it is not there. Raises `Refused`."""
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
            if parser.body_bytes > self._body_bytes_max:
                raise _too_large(self._body_bytes_max)
            # An empty line counts as framing even if it is none, since it costs as much: the parser has to be asked.
            framing_bytes = self._fed - parser.body_bytes + self._empty_lines * len(HEAD_END)
            if framing_bytes > FRAMING_BYTES_MAX + parser.body_bytes // FRAMING_BODY_DIVISOR:
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
        # One buffer and not a list of parts: a part costs some fifty bytes, and a client can send them two bytes long.
        self.body = bytearray()
        self.complete = False

    @property
    def body_bytes(self) -> int:
        """Bytes of a chunked body so far."""
        return len(self.body)

    def feed(self, data: bytes) -> None:
        """Let llhttp read on. Raises `Refused`."""
        try:
            self._http.feed_data(data)
        except httptools.HttpParserUpgrade:
            # Raised at the end of the head, where what we fed ends too. Whether to upgrade is not llhttp's to say.
            pass
        except httptools.HttpParserError as error:
            # A callback of ours that failed is a bug of ours and not the client's.
            if isinstance(error, httptools.HttpParserCallbackError):
                raise
            reason = str(error)
            if reason == "Content-Length overflow":
                raise _too_large(self._body_bytes_max) from None
            raise _not_http(reason) from None

    def on_url(self, part: bytes) -> None:
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        # Trailers come here too; nobody needs them, so they are checked by llhttp and dropped.
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
        version = f"HTTP/{self._http.get_http_version()}"
        if method == "CONNECT":
            raise Refused(400, "INVALID_REQUEST", "This server is no proxy: it has no CONNECT.")
        target = self._target.decode("ascii")
        headers = self.headers
        if not target.startswith("/"):
            target, headers = _origin_form(target, headers)
        if "#" in target:
            raise Refused(400, "INVALID_REQUEST", "A fragment (#) is not part of a request target.")
        _check_host(headers, version)
        body_bytes = _body_bytes(headers, version)
        _check_upgrade(headers, body_bytes)
        if body_bytes is not None and body_bytes > self._body_bytes_max:
            raise _too_large(self._body_bytes_max)
        return IncomingRequest(
            RequestHead(method, target, version, headers),
            keep_alive=version == "HTTP/1.1" and "close" not in _words(headers, "connection"),
            body_bytes=body_bytes,
            has_length=body_bytes is None or any(name == "content-length" for name, _ in headers),
            expects_continue=version == "HTTP/1.1" and "100-continue" in _words(headers, "expect"),
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


def _check_host(headers: list[tuple[str, str]], version: str) -> None:
    hosts = [value for name, value in headers if name == "host"]
    if len(hosts) > 1 or (not hosts and version == "HTTP/1.1"):
        raise Refused(400, "INVALID_REQUEST", "Host must be given once.", {"field": "Host"})
    if hosts and not _HOST.fullmatch(hosts[0]):
        raise Refused(400, "INVALID_REQUEST", "Host must be a name or an address.", {"field": "Host"})


def _body_bytes(headers: list[tuple[str, str]], version: str) -> int | None:
    """The length of the body; None for chunked."""
    codings = [value for name, value in headers if name == "transfer-encoding"]
    lengths = [value for name, value in headers if name == "content-length"]
    if len(lengths) + len(codings) > 1:
        raise _not_http("the length of the body is given twice")
    if codings:
        if version != "HTTP/1.1" or codings[0].lower() != "chunked":
            message = "The only transfer coding is chunked, in HTTP/1.1."
            raise Refused(400, "INVALID_REQUEST", message, {"field": "Transfer-Encoding"})
        return None
    return int(lengths[0]) if lengths else 0


def _check_upgrade(headers: list[tuple[str, str]], body_bytes: int | None) -> None:
    upgrades = _words(headers, "upgrade")
    if "h2c" in upgrades:
        message = "This server speaks HTTP/1.1 only: send the request without Upgrade: h2c."
        raise Refused(400, "INVALID_REQUEST", message, {"field": "Upgrade"})
    if upgrades and body_bytes != 0:
        # What comes after the head would be a body to one reader and the new protocol to another.
        raise Refused(400, "INVALID_REQUEST", "An upgrade can't have a body.", {"field": "Upgrade"})


def _words(headers: list[tuple[str, str]], name: str) -> list[str]:
    joined = ",".join(value for header, value in headers if header == name)
    return [word for part in joined.split(",") if (word := part.strip(" \t").lower())] if joined else []


def _not_http(reason: str) -> Refused:
    return Refused(400, "INVALID_REQUEST", f"This is not HTTP/1.1: {reason}.")


def _too_large(limit: int) -> Refused:
    message = f"The body of a request has at most {limit} bytes."
    return Refused(413, "PAYLOAD_TOO_LARGE", message, {"maximum": limit})
