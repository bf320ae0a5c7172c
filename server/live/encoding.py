"""The JSON of a board's top rows: the body of GET /scoreboard/top and the messages of the live channel. Pure.

    body = top_body(entries_of(board.top(10), scoreboard.users), Moment("main", epoch, seq, now_ms))

All of them have the same entries, made by `entries_of`:

    top       {entries, generatedAt, boardId, epoch, seq, history}
    snapshot  {type: scoreboard_snapshot, entries, generatedAt, boardId, epoch, seq, history}   the first message
    update    {type: scoreboard_update,   entries, generatedAt, boardId, epoch, seq}   every later one
    delta     {type: scoreboard_delta, boardId, epoch, baseSeq, seq, changed, left, generatedAt}
    user      {type: scoreboard_user, boardId, userId, displayName?, rank, score, count, gapToNext, overtaken,
               overtakenMore?, epoch, seq, generatedAt}
    period    {type: scoreboard_period, period, startsAt, endsAt, next, count, entries, boardId, epoch, seq,
               generatedAt}
    entry     {userId, displayName?, score, rank, change?: {day?, period?}}

All but the last two also have what is not the default of: title, period, endsAt, over, frozenAt, revealed.

Rules:
- `(epoch, seq)` is the position that the entries show: a higher one is newer, equal ones show the same entries.
  That holds within one history. Of two leaders of one epoch each has rows of its own at a position. So a top and the
  first message on a connection name the epoch's identity (`engine.history`). Later messages on a connection leave it
  out: they are of the same node.
- A viewer that takes deltas gets a new snapshot after it missed something.
- A delta applies only to the rows of `baseSeq` in the same epoch. A client takes out the users in `left` and in
  `changed`, adds the rows in `changed` at the end, and sorts by rank; the sort keeps the order of equal ranks.
- The rows of a shared rank are all in `changed`, or none. So their order is that of `changed`, or it stayed. Without
  this rule a client could not place a user who comes back between two with equal scores.
- A user without a name has no `displayName`; it is not null. `engine.past_ranks` says what `change` tells.
- A user message is about one user, for one viewer (`server.live.lines`). `rank`, `score` and `gapToNext` may be null.
  `overtakenMore` is there if it is true. On a stale replica all messages have `stale` and `ageMs`.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from operator import attrgetter
from typing import Any

import msgspec
from msgspec.structs import astuple

from engine.board_rules import BoardDefinition, PastPeriod
from engine.dates import date_of
from engine.erased import is_erased
from engine.past_ranks import Change
from engine.ranking import FinalRow, Row
from server.live.names import Names


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """One row as it is sent."""

    user_id: str
    display_name: str | None = None
    score: int
    rank: int
    change: Change | None = None


Rows = tuple[Entry, ...]


class _Top(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    entries: Rows
    generated_at: str
    board_id: str
    epoch: int
    seq: int
    history: str = ""
    title: str = ""
    period: str | None = None
    ends_at: str | None = None
    over: bool = False
    frozen_at: str | None = None
    revealed: int = 0


class _Snapshot(_Top, frozen=True, rename="camel", tag="scoreboard_snapshot", tag_field="type"):
    pass


class _Update(_Top, frozen=True, rename="camel", tag="scoreboard_update", tag_field="type"):
    pass


class _Delta(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, tag="scoreboard_delta", tag_field="type"):
    board_id: str
    epoch: int
    base_seq: int
    seq: int
    changed: Rows
    left: tuple[str, ...]
    generated_at: str
    title: str = ""
    period: str | None = None
    ends_at: str | None = None
    over: bool = False
    frozen_at: str | None = None
    revealed: int = 0


class _Period(msgspec.Struct, frozen=True, rename="camel", tag="scoreboard_period", tag_field="type"):
    period: str
    starts_at: str
    ends_at: str | None
    next: str | None
    count: int
    entries: Rows
    board_id: str
    epoch: int
    seq: int
    generated_at: str


class About(msgspec.Struct, frozen=True):
    """What messages say of a board beside its rows; what is not so is left out of them.

    The title, the running period and its end, whether a season is over, since when the board is frozen, and how many
    of its rows were revealed since.
    """

    title: str = ""
    period: str | None = None
    ends_at: str | None = None
    over: bool = False
    frozen_at: str | None = None
    revealed: int = 0


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
_rank_of = attrgetter("rank")


def iso_ms(ms: int) -> str:
    """Write a time in ms since 1970 UTC (not before it) as `2025-12-15T12:34:56.000Z`."""
    days, ms = divmod(ms, 86_400_000)
    seconds, ms = divmod(ms, 1000)
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    year, month, day = date_of(days)
    return f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z"


def iso_or_none(ms: int | None) -> str | None:
    """Write a time as `iso_ms` does; None stays None."""
    return None if ms is None else iso_ms(ms)


def entries_of(rows: Iterable[Row | FinalRow], names: Names) -> Rows:
    """Make entries of a board's rows. `names` are those that are shown (`server.live.names`).

    What an erased user has left in a past period, or at an earlier moment, is no row: the ranks have a gap there.
    """
    return tuple(
        Entry(
            user_id=row.user_id,
            display_name=names.name(row.user_id),
            score=row.score,
            rank=row.rank,
            change=row.change if isinstance(row, Row) else None,
        )
        for row in rows
        if not is_erased(row.user_id)
    )


def delta(before: Rows, after: Rows) -> tuple[Rows, tuple[str, ...]]:
    """Give the rows that are new or changed, and the users that left. A user has at most one row.

    A rank is told as a whole. Of b and c at rank 2, [a 1, b 2] before, both are changed: [b 2, c 2].
    """
    same = set(before).intersection(after)
    stayed = [row for row in before if row in same]
    changed: list[Entry] = []
    for rank, group in groupby(after, key=_rank_of):
        rows = list(group)
        if rows != [row for row in stayed if row.rank == rank]:
            changed += rows
    present = {row.user_id for row in after}
    return tuple(changed), tuple(row.user_id for row in before if row.user_id not in present)


def about(definition: BoardDefinition | None) -> About:
    """Say what messages tell of a board."""
    if definition is None:
        return About()
    period, frozen = definition.period, definition.frozen
    return About(
        definition.rules.title,
        None if period is None else period.id,
        None if period is None else iso_or_none(period.ends_ms),
        definition.over,
        None if frozen is None else iso_ms(frozen.time_ms),
        0 if frozen is None else frozen.revealed,
    )


class Moment(msgspec.Struct, frozen=True):
    """What a message shows beside its rows: a board at a position."""

    board_id: str
    epoch: int
    seq: int
    generated_ms: int
    about: About = About()
    history: str = ""


def top_body(rows: Rows, moment: Moment) -> bytes:
    """Encode the body of GET /scoreboard/top."""
    return _encode(_Top(*_fields(rows, moment, moment.history)))


def snapshot_message(rows: Rows, moment: Moment) -> bytes:
    """Encode the first message to a viewer."""
    return _encode(_Snapshot(*_fields(rows, moment, moment.history)))


def update_message(rows: Rows, moment: Moment) -> bytes:
    """Encode a later message with all rows."""
    return _encode(_Update(*_fields(rows, moment, "")))


def delta_message(before: Rows, after: Rows, base_seq: int, moment: Moment) -> bytes:
    """Encode a message with what changed since `base_seq`."""
    changed, left = delta(before, after)
    generated_at = iso_ms(moment.generated_ms)
    return _encode(
        _Delta(moment.board_id, moment.epoch, base_seq, moment.seq, changed, left, generated_at, *astuple(moment.about))
    )


def period_message(past: PastPeriod, rows: Rows, following: str | None, moment: Moment) -> bytes:
    """Encode the message that a period has ended, with its last rows."""
    period = past.period
    return _encode(
        _Period(
            period.id, iso_ms(period.begins_ms), iso_or_none(period.ends_ms), following, past.count, rows,
            moment.board_id, moment.epoch, past.seq, iso_ms(moment.generated_ms),
        )
    )  # fmt: skip


def _fields(rows: Rows, moment: Moment, history: str) -> tuple[Any, ...]:
    generated_at = iso_ms(moment.generated_ms)
    return (rows, generated_at, moment.board_id, moment.epoch, moment.seq, history, *astuple(moment.about))


def user_message(line: UserLine) -> bytes:
    """Encode the message about one user."""
    return _encode(line)
