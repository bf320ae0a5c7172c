"""Frames as a client makes them, the broken ones too, and a reader for those of the server."""

from __future__ import annotations

from server.http.websocket import FIN, MASKED


def client_frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, reserved: int = 0, mask: bytes = b"\x37\xfa\x21\x3d"
) -> bytes:
    """Make a masked frame."""
    length = len(payload)
    if length < 126:
        size = bytes([MASKED | length])
    elif length < 2**16:
        size = bytes([MASKED | 126]) + length.to_bytes(2, "big")
    else:
        size = bytes([MASKED | 127]) + length.to_bytes(8, "big")
    masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
    return bytes([(FIN if fin else 0) | reserved | opcode]) + size + mask + masked


def take_server_frame(data: bytearray) -> tuple[int, bytes] | None:
    """Take the first whole frame out of what the server sent: opcode and payload, None if there is none yet."""
    if len(data) < 2:
        return None
    assert data[0] & FIN, "the server does not fragment"
    assert not data[1] & MASKED, "the server does not mask"
    length, start = data[1], 2
    if length > 125:
        start = 4 if length == 126 else 10
        if len(data) < start:
            return None
        length = int.from_bytes(data[2:start], "big")
    if len(data) < start + length:
        return None
    opcode, payload = data[0] & 0x0F, bytes(data[start : start + length])
    del data[: start + length]
    return opcode, payload
