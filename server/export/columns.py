"""The columns of an export, and the cells of its rows. Pure.

    cells = board_rows(rows, users.name)          of BOARD: rank, userId, displayName, score, updatedAt, reachedSeq
    cells = event_cells(event, epoch)             of EVENTS

Rules:
- A score is an integer in every format, and every integer is exact. Times are texts, `2025-12-15T12:34:56.000Z`.
- An event gives each of its fields, whatever its type: those that have a column, and all others in `more`. So no field
  of a new type of event is left out. What an event does not have is null.
- An erased user has no row. In an event what stands for an erased userId or actionId begins with a NUL, which no text
  of an export may have: the cell is null, and `more` has the rest of it under `erased`.
- A cell of the kind `json` holds a value that each format writes as JSON.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Literal

import msgspec

from engine.erased import MARK, is_erased
from engine.events import Event, Reversed
from engine.ranking import FinalRow
from server.live.encoding import iso_ms

Kind = Literal["integer", "text", "truth", "json"]
Cells = tuple[Any, ...]


class Column(msgspec.Struct, frozen=True):
    """A column. Cells are never null where `required`."""

    name: str
    kind: Kind
    required: bool = False


BOARD = (
    Column("rank", "integer", required=True),
    Column("userId", "text", required=True),
    Column("displayName", "text"),
    Column("score", "integer", required=True),
    Column("updatedAt", "text", required=True),
    Column("reachedSeq", "integer", required=True),
)

EVENTS = (
    Column("seq", "integer", required=True),
    Column("epoch", "integer", required=True),
    Column("time", "text", required=True),
    Column("type", "text", required=True),
    Column("boardId", "text"),
    Column("userId", "text"),
    Column("actionId", "text"),
    Column("delta", "integer"),
    Column("reason", "text"),
    Column("caller", "text"),
    Column("newScore", "integer"),
    Column("value", "integer"),
    Column("chosen", "truth"),
    Column("fed", "json"),
    Column("more", "json"),
)

_COMMON = ("seq", "epoch", "time_ms")
_OWN = ("board_id", "user_id", "action_id", "delta", "reason", "caller", "new_score", "value", "chosen", "fed")
_RARE = ("held", "scores", "periods")
"""Fields that most events of their types have empty. Then they are left out."""

_KINDS: dict[str, type | tuple[type, ...]] = {"integer": int, "text": str, "truth": bool, "json": tuple}
_KIND_OF = {field: _KINDS[column.kind] for field, column in zip(_OWN, EVENTS[4:-1], strict=True)}

_WORD = re.compile(r"(?<!^)(?=[A-Z])")


class About(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What an export is of: the state after the event `seq`, which has the time `time`.

    `history` is the identity of the epoch, of a board only, and so is `period`.
    """

    kind: Literal["board", "events"]
    seq: int
    epoch: int
    time: str
    history: str | None = None
    board_id: str | None = None
    period: str | None = None


def board_cells(row: FinalRow, name: str | None) -> Cells:
    """Give the cells of a row of a board."""
    return row.rank, row.user_id, name, row.score, iso_ms(row.updated_ms), row.reached_seq


def board_rows(rows: Iterable[FinalRow], name_of: Callable[[str], str | None]) -> list[Cells]:
    """Give the cells of rows of a board, without those of erased users."""
    return [board_cells(row, name_of(row.user_id)) for row in rows if not is_erased(row.user_id)]


def event_cells(event: Event, epoch: int) -> Cells:
    """Give the cells of an event."""
    fields = msgspec.structs.asdict(event)
    for field in _RARE:
        if field in fields and not fields[field] and not isinstance(event, Reversed):
            del fields[field]
    own = [_own_cell(fields, field) for field in _OWN]
    erased = {field: fields.pop(field) for field in _OWN if _is_erased(fields.get(field))}
    more = {_camel(name): plain(value) for name, value in fields.items() if name not in _COMMON}
    if erased:
        more["erased"] = {_camel(name): text.removeprefix(MARK) for name, text in erased.items()}
    return event.seq, epoch, iso_ms(event.time_ms), type_name(event), *own, more or None


def _own_cell(fields: dict[str, Any], field: str) -> Any:
    """Take a field out that has a column. A field of another kind than its column stays, for `more`."""
    value = fields.get(field)
    if value is None:
        fields.pop(field, None)
        return None
    if not isinstance(value, _KIND_OF[field]) or _is_erased(value):
        return None
    del fields[field]
    return (plain(value) or None) if isinstance(value, tuple) else value


def _is_erased(value: Any) -> bool:
    return isinstance(value, str) and is_erased(value)


def type_name(event: Event) -> str:
    """Give the name of an event's type, as `scoreboard log dump` does: `clock_corrected`."""
    return _WORD.sub("_", type(event).__name__).lower()


def plain(value: Any) -> Any:
    """Turn structs into objects with names in camelCase, tuples into lists, and bytes into hexadecimal digits."""
    if isinstance(value, msgspec.Struct):
        return {_camel(name): plain(each) for name, each in msgspec.structs.asdict(value).items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    return value.hex() if isinstance(value, bytes) else value


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))
