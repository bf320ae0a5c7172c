"""What the server asks the reader of the past, and what that answers: a line of JSON each. Pure.

{"dataDirectory":"/var/scores","rules":{…}}                         first, once
{"boardId":"main","limit":10,"seq":4711,"timeMs":null}             ►
◄ {"kind":"top","seq":4711,"body":{"entries":[…],…}}
"""

from __future__ import annotations

import msgspec

from engine.board_rules import Rules


class Start(msgspec.Struct, frozen=True, rename="camel"):
    """Where the reader reads, and what the operator's file says of boards."""

    data_directory: str
    rules: Rules


class Question(msgspec.Struct, frozen=True, rename="camel"):
    """The first rows of a board after the last event that has at most this seq, or that happened at this time.

    `erased` are users who were erased by an event of this seq, and may still be in the files. They are left out before.
    """

    board_id: str
    limit: int
    seq: int | None = None
    time_ms: int | None = None
    erased: tuple[tuple[str, int], ...] = ()


class Top(msgspec.Struct, frozen=True, tag_field="kind", tag="top"):
    """The body of the answer, and the seq of the state that it shows."""

    seq: int
    body: msgspec.Raw


class NotKept(msgspec.Struct, frozen=True, tag_field="kind", tag="notKept"):
    """Neither snapshots nor log go back so far."""


class NoBoard(msgspec.Struct, frozen=True, tag_field="kind", tag="noBoard"):
    """There was no such board at this seq."""

    seq: int


class Failed(msgspec.Struct, frozen=True, tag_field="kind", tag="failed"):
    """The directory can't be read: why, in a sentence for the operator."""

    reason: str


Reply = Top | NotKept | NoBoard | Failed

decode_start = msgspec.json.Decoder(Start).decode
decode_question = msgspec.json.Decoder(Question).decode
_decode_reply = msgspec.json.Decoder(Reply).decode
_encode = msgspec.json.Encoder().encode


def line(value: Start | Question | Reply) -> bytes:
    """Encode a line."""
    return _encode(value) + b"\n"


def decode_reply(data: bytes) -> Reply:
    """Decode a reply. Raises `msgspec.DecodeError`."""
    reply: Reply = _decode_reply(data)
    return reply
