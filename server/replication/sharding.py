"""Sharding: which boards a replica holds. Pure.

A hash of the boardId assigns each board to one of N shards. It never changes, so a gateway can route by it too:

    shard of a board = CRC32C(boardId in UTF-8) mod N, + 1                       1 … N, as in `--shard K/N`

CRC32C, because every language has it. It need not be cryptographic: an attacker gains nothing from boards in one shard.
"""

from __future__ import annotations

import re

import google_crc32c
import msgspec

from engine.events import BoardEvent, Event, ImportEvent, Incremented
from server import bounds

_SHARD = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")


class Shard(msgspec.Struct, frozen=True):
    """The `number`-th of `count` shards."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def holds(self, board_id: str) -> bool:
        return shard_of(board_id, self.count) == self.number

    def wants(self, event: Event) -> bool:
        """Tell whether this shard needs an event. Every shard needs the events of users and epochs."""
        if isinstance(event, Incremented):
            return self.holds(event.board_id) or any(self.holds(fed.board_id) for fed in event.fed)
        return not isinstance(event, BoardEvent | ImportEvent) or self.holds(event.board_id)


def shard_of(board_id: str, count: int) -> int:
    """Give the number, 1 … count, of the shard that holds a board."""
    return int(google_crc32c.value(board_id.encode())) % count + 1


def parse_shard(text: str) -> Shard:
    """Read "K/N". Raises ValueError with a sentence that says what is wrong."""
    match = _SHARD.fullmatch(text)
    if match is None:
        raise ValueError("a shard is written K/N, for example 2/4")
    number, count = int(match[1]), int(match[2])
    if not 1 <= count <= bounds.SHARDS_MAX:
        raise ValueError(f"there can be 1 to {bounds.SHARDS_MAX} shards, not {count}")
    if not 1 <= number <= count:
        raise ValueError(f"the shards of {count} are numbered 1 to {count}, so there is no shard {number}")
    return Shard(number, count)
