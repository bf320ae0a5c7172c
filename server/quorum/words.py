"""The words of a quorum's nodes: what each says of itself, about once a beat. JSON, told by the stream to all. Pure.

A leader's word is its beat. A standby's word tells the leader how far its disk is, and operators that it lives.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from server import bounds

Url = Annotated[str, Meta(max_length=bounds.NODE_URL_CHARACTERS_MAX)]
Name = Annotated[str, Meta(max_length=bounds.NODE_URL_CHARACTERS_MAX)]
Count = Annotated[int, Meta(ge=0, le=2**53)]


class Word(msgspec.Struct, frozen=True, kw_only=True):
    """`epoch`, `seq`, `place`: the end of what this node applied and has on its own disk.

    `node_id` names the process. `url` is where it listens, `public_url` where clients find it. `confirmed_ms` is the
    time since a majority last answered a leader. `said_ms` is when the word was said, by a clock of its process alone.
    `has_room`: the node's disk is not full. `resigns`: the leader steps down, and the standbys need not wait.
    """

    node_id: Name
    name: Name
    url: Url
    public_url: Url | None
    role: str
    leads: bool
    epoch: Count
    seq: Count
    place: Count
    confirmed_ms: Count = 0
    resigns: bool = False
    said_ms: Count = 0
    has_room: bool = True


_decoder = msgspec.json.Decoder(Word)


def encode(word: Word) -> bytes:
    return msgspec.json.encode(word)


def decode(data: bytes) -> Word | None:
    """Read a word; None if it is none, such as that of a newer version."""
    try:
        return _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
