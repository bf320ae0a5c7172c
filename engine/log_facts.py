"""What the log tells of itself: the result of an append, its segments, its figures. Pure."""

from __future__ import annotations

import msgspec

Bytes = bytes
"""`Synced` has a field of that name."""


class Synced(msgspec.Struct, frozen=True, gc=False):
    """The result of an append: the frame, its length in bytes, and the seconds until it was durable."""

    bytes: int
    seconds: float
    frame: Bytes = b""


class SegmentInfo(msgspec.Struct, frozen=True):
    """A segment of an open log. `bytes` is its length on disk. Nothing is written to a `sealed` one."""

    path: str
    first_seq: int
    last_seq: int
    sealed: bool
    compressed: bool
    bytes: int


class LogStatistics(msgspec.Struct, frozen=True):
    """`appends` and `records` are counted since the opening. `bytes` is the length of all segments on disk."""

    segments: int
    bytes: int
    appends: int
    records: int
    first_seq: int
    last_seq: int
