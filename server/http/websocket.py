"""WebSocket frames (RFC 6455): bytes in, values out. Pure.

    socket.send(text_frame(text))           # or close_frame(code, reason), server_frame(PONG, payload)
    for event in parser.feed(data): ...     # a parser for each client

A frame:

    byte 0    FIN  RSV1 RSV2 RSV3  opcode (4 bits)        RSV must be 0: no extension is ever agreed on
    byte 1    MASK length (7 bits)                        0..125, or
              126, then the length in 2 bytes, or
              127, then the length in 8 bytes             big endian, always in the shortest of the three forms
    4 bytes   the mask, only if MASK is set
    payload   XORed with the mask, over and over

A server's frames are never masked, so a frame is the same bytes for every viewer and is made once. A client's frames
are always masked.

Rules of `FrameParser`:
- A fault is given once, as soon as the bytes that show it are there; nothing after it is read. So the pieces in which
  the bytes come make no difference.
- A length is checked before its payload is waited for. So the parser keeps at most one frame and a message up to
  VIEWER_MESSAGE_BYTES_MAX. Between messages it keeps nothing.
"""

from __future__ import annotations

import msgspec

from server.bounds import VIEWER_MESSAGE_BYTES_MAX

CONTINUATION = 0x0
TEXT = 0x1
BINARY = 0x2
CLOSE = 0x8
PING = 0x9
PONG = 0xA

FIN = 0x80
RESERVED = 0x70
OPCODE = 0x0F
MASKED = 0x80
LENGTH = 0x7F

EMPTY_PONG = bytes([FIN | PONG, MASKED])
"""The answer to our pings, without the mask that follows."""

CONTROL_BYTES_MAX = 125
CLOSE_REASON_BYTES_MAX = CONTROL_BYTES_MAX - 2

NORMAL_CLOSURE = 1000
PROTOCOL_ERROR = 1002
INVALID_DATA = 1007
POLICY_VIOLATION = 1008
MESSAGE_TOO_BIG = 1009
SERVICE_RESTART = 1012
TRY_AGAIN_LATER = 1013


def server_frame(opcode: int, payload: bytes) -> bytes:
    """Make a whole, unmasked frame. The payload of a control frame has at most CONTROL_BYTES_MAX bytes."""
    length = len(payload)
    assert opcode < CLOSE or length <= CONTROL_BYTES_MAX
    first = bytes([FIN | opcode])
    if length < 126:
        return first + bytes([length]) + payload
    if length < 2**16:
        return first + b"\x7e" + length.to_bytes(2, "big") + payload
    return first + b"\x7f" + length.to_bytes(8, "big") + payload


def text_frame(text: bytes) -> bytes:
    """Make a text message of one frame; `text` is UTF-8."""
    return server_frame(TEXT, text)


def close_frame(code: int | None, reason: str = "") -> bytes:
    """Make a close frame. `None` answers a close that had no code; a reason that is too long is cut."""
    if code is None:
        return server_frame(CLOSE, b"")
    words = reason.encode()[:CLOSE_REASON_BYTES_MAX].decode(errors="ignore").encode()
    return server_frame(CLOSE, code.to_bytes(2, "big") + words)


class Message(msgspec.Struct, frozen=True, gc=False):
    """A whole message, all its fragments joined. `opcode` is TEXT or BINARY; a text is valid UTF-8."""

    opcode: int
    payload: bytes


class Ping(msgspec.Struct, frozen=True, gc=False):
    """Asks for a pong with the same payload."""

    payload: bytes


class Pong(msgspec.Struct, frozen=True, gc=False):
    """Answers a ping, or comes unasked."""

    payload: bytes


class Closed(msgspec.Struct, frozen=True, gc=False):
    """The client closes, and sends nothing more. `code` is None if it gave none."""

    code: int | None
    reason: str


class Fault(msgspec.Struct, frozen=True, gc=False):
    """The client broke the protocol. `code` is to be in our close frame."""

    code: int
    reason: str


FrameEvent = Message | Ping | Pong | Closed | Fault


class _Header(msgspec.Struct, frozen=True, gc=False):
    """What precedes a payload. `length` is the payload's, `size` the header's own with its mask."""

    fin: bool
    opcode: int
    length: int
    mask: bytes
    size: int


class FrameParser:
    """Reads the frames of one client. After `Closed` or `Fault` it drops what comes.

    `_buffer` is the beginning of an incomplete frame. `_fragments` is the beginning of an incomplete message, and
    `_opcode` its kind, CONTINUATION if there is none.
    """

    __slots__ = ("_buffer", "_ended", "_fragments", "_opcode")

    def __init__(self) -> None:
        self._buffer = b""
        self._fragments = b""
        self._opcode = CONTINUATION
        self._ended = False

    def feed(self, data: bytes) -> list[FrameEvent]:
        """Take in what was received and give what it completes."""
        events: list[FrameEvent] = []
        if self._ended:
            return events
        if len(data) == 6 and data.startswith(EMPTY_PONG) and not self._buffer:
            return [Pong(b"")]  # the answer to our ping: nearly all that viewers ever send
        data = self._buffer + data
        offset = 0
        while True:
            header = self._header(data, offset)
            if isinstance(header, Fault):
                events.append(header)
                break
            if header is None or len(data) < offset + header.size + header.length:
                self._buffer = data[offset:]
                return events
            start = offset + header.size
            offset = start + header.length
            event = self._frame(header, _unmask(data[start:offset], header.mask))
            if event is not None:
                events.append(event)
                if isinstance(event, Closed | Fault):
                    break
        self._ended = True
        self._buffer = self._fragments = b""
        return events

    def _header(self, data: bytes, offset: int) -> _Header | Fault | None:
        """Read the header at `offset`, None if it is incomplete. Bytes are checked in their order."""
        available = len(data) - offset
        if available < 1:
            return None
        fin, opcode = bool(data[offset] & FIN), data[offset] & OPCODE
        if fault := self._opcode_fault(data[offset] & RESERVED, fin, opcode):
            return fault
        if available < 2:
            return None
        if not data[offset + 1] & MASKED:
            return Fault(PROTOCOL_ERROR, "a client's frames must be masked")
        length, size = data[offset + 1] & LENGTH, 2
        if opcode >= CLOSE and length > CONTROL_BYTES_MAX:
            return Fault(PROTOCOL_ERROR, "a control frame must not be longer than 125 bytes")
        if length > 125:
            extended, shortest = (2, 126) if length == 126 else (8, 2**16)
            if available < size + extended:
                return None
            length = int.from_bytes(data[offset + size : offset + size + extended], "big")
            size += extended
            if length < shortest:
                return Fault(PROTOCOL_ERROR, "a length must have its shortest form")
        if opcode < CLOSE and len(self._fragments) + length > VIEWER_MESSAGE_BYTES_MAX:
            return Fault(MESSAGE_TOO_BIG, f"a message must not be longer than {VIEWER_MESSAGE_BYTES_MAX} bytes")
        if available < size + 4:
            return None
        return _Header(fin, opcode, length, data[offset + size : offset + size + 4], size + 4)

    def _opcode_fault(self, reserved: int, fin: bool, opcode: int) -> Fault | None:
        if reserved:
            return Fault(PROTOCOL_ERROR, "reserved bits must be 0: no extension was agreed on")
        if opcode in (CLOSE, PING, PONG):
            return None if fin else Fault(PROTOCOL_ERROR, "a control frame must not be fragmented")
        if opcode not in (CONTINUATION, TEXT, BINARY):
            return Fault(PROTOCOL_ERROR, f"unknown opcode {opcode}")
        if CONTINUATION not in (opcode, self._opcode):
            return Fault(PROTOCOL_ERROR, "a message must not begin before the last one ended")
        if opcode == self._opcode == CONTINUATION:
            return Fault(PROTOCOL_ERROR, "nothing was begun that could be continued")
        return None

    def _frame(self, header: _Header, payload: bytes) -> FrameEvent | None:
        """Take a frame with a correct header. None: its message goes on."""
        if header.opcode == PING:
            return Ping(payload)
        if header.opcode == PONG:
            return Pong(payload)
        if header.opcode == CLOSE:
            return _closed(payload)
        opcode = header.opcode or self._opcode
        message = self._fragments + payload
        if not header.fin:
            self._opcode, self._fragments = opcode, message
            return None
        self._opcode, self._fragments = CONTINUATION, b""
        if opcode == TEXT and _text(message) is None:
            return Fault(INVALID_DATA, "a text message must be UTF-8")
        return Message(opcode, message)


def _unmask(payload: bytes, mask: bytes) -> bytes:
    # As two long integers: a hundred times quicker than byte by byte.
    repeated = (mask * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")).to_bytes(len(payload), "big")


def _closed(payload: bytes) -> Closed | Fault:
    if not payload:
        return Closed(None, "")
    if len(payload) == 1:
        return Fault(PROTOCOL_ERROR, "a close code has two bytes")
    code = int.from_bytes(payload[:2], "big")
    if not _is_sendable(code):
        return Fault(PROTOCOL_ERROR, f"{code} is not a close code that may be sent")
    reason = _text(payload[2:])
    if reason is None:
        return Fault(INVALID_DATA, "a close reason must be UTF-8")
    return Closed(code, reason)


def _is_sendable(code: int) -> bool:
    """RFC 6455, 7.4, and the codes registered since: 1004 to 1006 and 1015 are never sent."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def _text(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None
