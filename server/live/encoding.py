"""The JSON of a board's top rows: the body of GET /scoreboard/top and the messages of the live channel. Pure.

The four have the same entries, made by `entries_of`:

    top       {entries, generatedAt, boardId, epoch, seq}
    snapshot  {type: scoreboard_snapshot, entries, generatedAt, boardId, epoch, seq}   the first message
    update    {type: scoreboard_update,   entries, generatedAt, boardId, epoch, seq}   every later one
    delta     {type: scoreboard_delta, boardId, epoch, baseSeq, seq, changed, left, generatedAt}
    entry     {userId, displayName?, score, rank}

Rules:
- `(epoch, seq)` is the position that the entries show: a higher one is newer, equal ones show the same entries.
- A viewer that takes deltas gets a snapshot again whenever it missed something.
- A delta applies to exactly the rows of `baseSeq` in the same epoch: drop the users in `left`, replace or add the rows
  in `changed`, sort by rank. Whoever has other rows than these must not apply it.
- A name that nobody knows is left out, not null, as in the specification's "optional".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import msgspec

from engine.board import Row


class Names(Protocol):
    """Who knows display names: the engine's users."""

    def name(self, user_id: str) -> str | None:
        """Give a user's display name, None if there is none."""


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """One row as it is sent."""

    user_id: str
    display_name: str | None = None
    score: int
    rank: int


Rows = tuple[Entry, ...]


class Delta(msgspec.Struct, frozen=True):
    """What makes one set of rows out of another: rows that are new or differ, and users who are no longer there."""

    changed: Rows
    left: tuple[str, ...]


class _Top(msgspec.Struct, frozen=True, rename="camel"):
    entries: Rows
    generated_at: str
    board_id: str
    epoch: int
    seq: int


class _Snapshot(_Top, frozen=True, rename="camel", tag="scoreboard_snapshot", tag_field="type"):
    pass


class _Update(_Top, frozen=True, rename="camel", tag="scoreboard_update", tag_field="type"):
    pass


class _Delta(msgspec.Struct, frozen=True, rename="camel", tag="scoreboard_delta", tag_field="type"):
    board_id: str
    epoch: int
    base_seq: int
    seq: int
    changed: Rows
    left: tuple[str, ...]
    generated_at: str


_encode = msgspec.json.Encoder().encode


def iso_ms(ms: int) -> str:
    """Write a time in ms since 1970 UTC (not before it) as `2025-12-15T12:34:56.000Z`."""
    days, ms = divmod(ms, 86_400_000)
    seconds, ms = divmod(ms, 1000)
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    year, month, day = _date(days)
    return f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z"


def _date(days: int) -> tuple[int, int, int]:
    """Give year, month and day of a number of days since 1970-01-01.

    Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms": in years that begin in March the leap day comes last,
    so what lies before a month does not depend on the year.
    """
    era, day_of_era = divmod(days + 719_468, 146_097)
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month_from_march = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * month_from_march + 2) // 5 + 1
    month = month_from_march + 3 if month_from_march < 10 else month_from_march - 9
    return year_of_era + era * 400 + (month <= 2), month, day


def entries_of(standings: Iterable[Row], names: Names) -> Rows:
    """Make the rows that are sent out of a board's."""
    return tuple(
        Entry(user_id=row.user_id, display_name=names.name(row.user_id), score=row.score, rank=row.rank)
        for row in standings
    )


def delta(before: Rows, after: Rows) -> Delta:
    """Say what changed from one set of rows to another. In each, a user has at most one row."""
    old = {row.user_id: row for row in before}
    changed = tuple(row for row in after if old.pop(row.user_id, None) != row)
    return Delta(changed, tuple(old))


def top_body(standings: Iterable[Row], names: Names, board_id: str, epoch: int, seq: int, generated_ms: int) -> bytes:
    """Encode the body of GET /scoreboard/top."""
    return _encode(_Top(entries_of(standings, names), iso_ms(generated_ms), board_id, epoch, seq))


def snapshot_message(rows: Rows, board_id: str, epoch: int, seq: int, generated_ms: int) -> bytes:
    """Encode the message that a viewer begins with."""
    return _encode(_Snapshot(rows, iso_ms(generated_ms), board_id, epoch, seq))


def update_message(rows: Rows, board_id: str, epoch: int, seq: int, generated_ms: int) -> bytes:
    """Encode the message that tells all rows anew."""
    return _encode(_Update(rows, iso_ms(generated_ms), board_id, epoch, seq))


def delta_message(
    before: Rows, after: Rows, board_id: str, epoch: int, base_seq: int, seq: int, generated_ms: int
) -> bytes:
    """Encode the message that tells only what changed since `base_seq`."""
    difference = delta(before, after)
    generated_at = iso_ms(generated_ms)
    return _encode(_Delta(board_id, epoch, base_seq, seq, difference.changed, difference.left, generated_at))
