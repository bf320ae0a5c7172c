"""The protocol between a client and a server of NATS: bytes in, events out, and the lines that a client sends. Pure.

    parser.feed(data)
    while (event := parser.next_event()) is not None: …

    INFO {…}␍␊                                  the server's settings; again whenever they change
    MSG subject sid [reply] bytes␍␊payload␍␊
    HMSG subject sid [reply] bytes-of-headers bytes-of-both␍␊headers payload␍␊
    PING␍␊  PONG␍␊  +OK␍␊  -ERR 'text'␍␊

    headers = "NATS/1.0" [" " status [" " description]] ␍␊ (name ":" value ␍␊)* ␍␊

Rules:
- A length is compared with its bound before anything of that length is kept.
- Any bytes give events or raise `ProtocolFault`, nothing else. After a fault the connection is of no use.
- What is sent holds no line break but our own: a subject or header with one is our bug, and an assert says so.

Source: https://docs.nats.io/reference/reference-protocols/nats-protocol
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from engine.errors import ScoreboardError
from server.quorum.nats_limits import HEADERS_BYTES_MAX, LINE_BYTES_MAX, MESSAGE_BYTES_MAX

NO_RESPONDERS = 503
"""The status of an answer that the server gives in the name of nobody: no one listens to the subject."""

PING = b"PING\r\n"
PONG = b"PONG\r\n"

_SUBJECT = re.compile(r"[^\s\x00-\x1f\x7f]+")
_HEADER = re.compile(r"[^\x00-\x1f\x7f]+")


class ProtocolFault(ScoreboardError):
    """The server sent what the protocol does not know."""


class Info(msgspec.Struct, frozen=True):
    """What a server says of itself. `ldm`: it will go soon, and clients should leave it (lame duck mode)."""

    server_id: str = ""
    server_name: str = ""
    version: str = ""
    max_payload: int = 1_048_576
    headers: bool = False
    jetstream: bool = False
    tls_required: bool = False
    tls_available: bool = False
    auth_required: bool = False
    nonce: str = ""
    ldm: bool = False


class Message(msgspec.Struct, frozen=True, gc=False):
    """A message of a subscription. `head`: its headers as they came, empty if there are none."""

    subject: str
    sid: int
    reply: str
    head: bytes
    payload: bytes

    @property
    def status(self) -> int:
        """The status that its headers begin with, 0 without one."""
        words = self.head[:64].split(b"\r\n", 1)[0].split(b" ")
        return int(words[1]) if len(words) > 1 and words[1].isdigit() else 0


class Ping(msgspec.Struct, frozen=True):
    """Is to be answered by a PONG."""


class Pong(msgspec.Struct, frozen=True):
    """The answer to our PING: everything that we sent before was read."""


class Error(msgspec.Struct, frozen=True):
    """The server refuses something. Most errors end the connection; a violated permission does not."""

    text: str


Event = Info | Message | Ping | Pong | Error


class Parser:
    """Turns what came from a server into events. `+OK` is none."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._searched = 0
        self._message: tuple[str, int, str, int, int] | None = None
        """The line of a message whose body is still coming: subject, sid, reply, bytes of headers, of both."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left that was fed and not given as an event."""
        return not self._data and self._message is None

    def feed(self, data: bytes) -> None:
        self._data += data

    def next_event(self) -> Event | None:
        """Give the next event; None if more bytes are needed. Raises `ProtocolFault`."""
        while True:
            if self._message is not None:
                return self._body(self._message)
            line = self._line()
            if line is None:
                return None
            event = self._read(line)
            if event is not None:
                return event

    def _line(self) -> bytes | None:
        """Take a whole line, without its end."""
        end = self._data.find(b"\r\n", self._searched)
        if end > LINE_BYTES_MAX or (end < 0 and len(self._data) > LINE_BYTES_MAX):
            raise ProtocolFault(f"a line of the server has more than {LINE_BYTES_MAX} bytes")
        if end < 0:
            self._searched = max(len(self._data) - 1, 0)
            return None
        line = bytes(self._data[:end])
        del self._data[: end + 2]
        self._searched = 0
        return line

    def _read(self, line: bytes) -> Event | None:
        """Read a line. None: it is the beginning of a message, or says nothing."""
        verb, _, rest = line.partition(b" ")
        match verb.upper():
            case b"MSG":
                self._message = _message_line(rest, fields=1)
                return None
            case b"HMSG":
                self._message = _message_line(rest, fields=2)
                return None
            case b"PING":
                return Ping()
            case b"PONG":
                return Pong()
            case b"+OK":
                return None
            case b"-ERR":
                return Error(rest.strip().strip(b"'").decode("utf-8", "replace"))
            case b"INFO":
                try:
                    return msgspec.json.decode(rest, type=Info)
                except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                    raise ProtocolFault(f"the server's INFO is not readable: {error}") from error
        raise ProtocolFault(f"the server sent a line that is none of NATS: {line[:32]!r}")

    def _body(self, message: tuple[str, int, str, int, int]) -> Message | None:
        """Take the headers and the payload of a message, as soon as both are there."""
        subject, sid, reply, headers, total = message
        if len(self._data) < total + 2:
            return None
        if self._data[total : total + 2] != b"\r\n":
            raise ProtocolFault("a message of the server does not end where it should")
        head, payload = bytes(self._data[:headers]), bytes(self._data[headers:total])
        del self._data[: total + 2]
        self._message = None
        return Message(subject, sid, reply, head, payload)


def _message_line(rest: bytes, *, fields: int) -> tuple[str, int, str, int, int]:
    """Read the line of a message, with one number at its end, or with two."""
    words = rest.split()
    if not fields + 2 <= len(words) <= fields + 3:
        raise ProtocolFault("a message of the server has too few or too many fields")
    sid, *numbers = (_number(word) for word in (words[1], *words[-fields:]))
    headers, total = (0, numbers[0]) if fields == 1 else (numbers[0], numbers[1])
    if headers > HEADERS_BYTES_MAX or total > MESSAGE_BYTES_MAX or headers > total:
        raise ProtocolFault(f"a message of the server has {headers} bytes of headers and {total} in all")
    reply = words[2].decode("utf-8", "replace") if len(words) == fields + 3 else ""
    return words[0].decode("utf-8", "replace"), sid, reply, headers, total


def _number(word: bytes) -> int:
    if not word.isdigit() or len(word) > 18:
        raise ProtocolFault(f"a message of the server has {word[:32]!r} where a number belongs")
    return int(word)


def connect(options: Mapping[str, Any]) -> bytes:
    """Make the line that begins a connection. It may hold secrets."""
    return b"CONNECT " + msgspec.json.encode(options) + b"\r\n"


def subscribe(subject: str, sid: int) -> bytes:
    """Make the line that asks for all messages of a subject."""
    return f"SUB {_subject(subject)} {sid}\r\n".encode()


def publish(subject: str, payload: bytes, *, reply: str = "", headers: Sequence[tuple[str, str]] = ()) -> bytes:
    """Make a message to a subject, with headers or without any."""
    to = f"{_subject(subject)} {_subject(reply)}" if reply else _subject(subject)
    if not headers:
        return b"".join((f"PUB {to} {len(payload)}\r\n".encode(), payload, b"\r\n"))
    head = head_of(headers)
    return b"".join((f"HPUB {to} {len(head)} {len(head) + len(payload)}\r\n".encode(), head, payload, b"\r\n"))


def head_of(headers: Sequence[tuple[str, str]]) -> bytes:
    """Make the headers of a message."""
    for text in (text for header in headers for text in header):
        assert _HEADER.fullmatch(text), "a header holds a line break"
    return f"NATS/1.0\r\n{''.join(f'{name}: {value}' + chr(13) + chr(10) for name, value in headers)}\r\n".encode()


def _subject(subject: str) -> str:
    assert _SUBJECT.fullmatch(subject), f"{subject!r} is no subject"
    return subject
