"""The msgpack records of a snapshot in each version of its format: `snapshots.format` draws where they stand."""

from __future__ import annotations

from typing import Annotated

import msgspec

from engine.board_rules import BoardDefinition
from engine.history import HISTORY_BYTES
from engine.past_ranks import NOTHING, PastRanks

VERSION = 1
VERSION_WITH_HISTORIES = 2
VERSION_WITH_DEFINITIONS = 3
VERSION_WITH_PAST_RANKS = 4
VERSION_WITH_PARTS = 5
VERSIONS = tuple(range(VERSION, VERSION_WITH_PARTS + 1))

Count = Annotated[int, msgspec.Meta(ge=0)]
History = Annotated[bytes, msgspec.Meta(min_length=HISTORY_BYTES, max_length=HISTORY_BYTES)]


class Stat(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    epoch: int
    seq: int
    time_ms: int
    epochs: list[tuple[int, int]]
    boards: Count
    users: Count
    actions: Count


class StatWithHistories(Stat, array_like=True, forbid_unknown_fields=True):
    histories: Annotated[list[tuple[int, History]], msgspec.Meta(min_length=1)]


class StatWithDefinitions(Stat, array_like=True, forbid_unknown_fields=True):
    histories: list[tuple[int, History]]


class StatWithPastRanks(StatWithDefinitions, array_like=True, forbid_unknown_fields=True):
    noted: tuple[int, int]


class StatWithParts(StatWithPastRanks, array_like=True, forbid_unknown_fields=True):
    parts: Annotated[list[tuple[str, Count]], msgspec.Meta(min_length=1)]


class BoardHead(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    board_id: str
    seq: int
    count: Count


class BoardHeadWithDefinition(BoardHead, array_like=True, forbid_unknown_fields=True):
    definition: BoardDefinition | None = None


class BoardHeadWithPastRanks(BoardHeadWithDefinition, array_like=True, forbid_unknown_fields=True):
    past_ranks: PastRanks = NOTHING


STATS: dict[int, msgspec.msgpack.Decoder[Stat]] = {
    version: msgspec.msgpack.Decoder(stat)
    for version, stat in zip(
        VERSIONS, (Stat, StatWithHistories, StatWithDefinitions, StatWithPastRanks, StatWithParts), strict=True
    )
}
BOARD_WITH_PAST_RANKS = msgspec.msgpack.Decoder(BoardHeadWithPastRanks)
BOARD_WITH_DEFINITION = msgspec.msgpack.Decoder(BoardHeadWithDefinition)
BOARD = msgspec.msgpack.Decoder(BoardHead)
IDS = msgspec.msgpack.Decoder(list[str])
NAMES = msgspec.msgpack.Decoder(list[str | None])
