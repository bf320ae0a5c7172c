"""The JSON of a board's top rows: the body of GET /scoreboard/top and the messages of the live channel. Pure.

    body = top_body(board.top(10), scoreboard.users, "main", epoch, seq, now_ms, history)

All of them have the same entries, made by `entries_of`:

    top       {entries, generatedAt, boardId, epoch, seq, history}
    snapshot  {type: scoreboard_snapshot, entries, generatedAt, boardId, epoch, seq, history}   the first message
    update    {type: scoreboard_update,   entries, generatedAt, boardId, epoch, seq}   every later one
    delta     {type: scoreboard_delta, boardId, epoch, baseSeq, seq, changed, left, generatedAt}
    user      {type: scoreboard_user, boardId, userId, displayName?, rank, score, count, gapToNext, overtaken,
               overtakenMore?, epoch, seq, generatedAt}
    entry     {userId, displayName?, score, rank}

Rules:
- `(epoch, seq)` is the position that the entries show: a higher one is newer, equal ones show the same entries.
  That holds within one history. Of two leaders of one epoch each has rows of its own at a position. So a top and the
  first message on a connection name the epoch's identity (`engine.history`). Later messages on a connection leave it
  out: they are of the same node.
- A viewer that takes deltas gets a new snapshot after it missed something.
- A delta applies only to the rows of `baseSeq` in the same epoch. A client drops the users in `left`, replaces or adds
  the rows in `changed`, and sorts by rank.
- A user without a name has no `displayName`; it is not null.
- A user message is about one user, for one viewer (`server.live.lines`). `rank`, `score` and `gapToNext` may be null.
  `overtakenMore` is there if it is true. On a stale replica all messages have `stale` and `ageMs`.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from engine.board import Row
from engine.users import Users


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """One row as it is sent."""

    user_id: str
    display_name: str | None = None
    score: int
    rank: int


Rows = tuple[Entry, ...]


class _Top(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    entries: Rows
    generated_at: str
    board_id: str
    epoch: int
    seq: int
    history: str = ""


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


class UserLine(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", tag="scoreboard_user",
    tag_field="type",
):  # fmt: skip
    """The message about one user. `overtaken` are those who passed this user, the nearest first."""

    board_id: str
    user_id: str
    display_name: str | None = None
    rank: int | None
    score: int | None
    count: int
    gap_to_next: int | None
    overtaken: Rows
    overtaken_more: bool = False
    epoch: int
    seq: int
    generated_at: str
    stale: bool = False
    age_ms: int | None = None


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

    Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms": a year that begins in March has its leap day last, so
    the days before a month do not depend on the year.
    """
    era, day_of_era = divmod(days + 719_468, 146_097)
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month_from_march = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * month_from_march + 2) // 5 + 1
    month = month_from_march + 3 if month_from_march < 10 else month_from_march - 9
    return year_of_era + era * 400 + (month <= 2), month, day


def entries_of(rows: Iterable[Row], users: Users) -> Rows:
    """Make entries of a board's rows."""
    return tuple(
        Entry(user_id=row.user_id, display_name=users.name(row.user_id), score=row.score, rank=row.rank) for row in rows
    )


def delta(before: Rows, after: Rows) -> tuple[Rows, tuple[str, ...]]:
    """Give the rows that are new or changed, and the users that left. A user has at most one row."""
    old = {row.user_id: row for row in before}
    changed = tuple(row for row in after if old.pop(row.user_id, None) != row)
    return changed, tuple(old)


def top_body(
    rows: Iterable[Row], users: Users, board_id: str, epoch: int, seq: int, generated_ms: int, history: str = ""
) -> bytes:
    return _encode(_Top(entries_of(rows, users), iso_ms(generated_ms), board_id, epoch, seq, history))


def snapshot_message(rows: Rows, board_id: str, epoch: int, seq: int, generated_ms: int, history: str = "") -> bytes:
    """Encode the first message to a viewer."""
    return _encode(_Snapshot(rows, iso_ms(generated_ms), board_id, epoch, seq, history))


def update_message(rows: Rows, board_id: str, epoch: int, seq: int, generated_ms: int) -> bytes:
    """Encode a later message with all rows."""
    return _encode(_Update(rows, iso_ms(generated_ms), board_id, epoch, seq))


def delta_message(
    before: Rows, after: Rows, board_id: str, epoch: int, base_seq: int, seq: int, generated_ms: int
) -> bytes:
    """Encode a message with what changed since `base_seq`."""
    changed, left = delta(before, after)
    return _encode(_Delta(board_id, epoch, base_seq, seq, changed, left, iso_ms(generated_ms)))


def user_message(line: UserLine) -> bytes:
    """Encode the message about one user."""
    return _encode(line)
