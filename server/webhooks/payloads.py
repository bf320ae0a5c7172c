"""The bodies of deliveries, and their ids. Pure.

    body = envelope("period.ended", time_ms, data)          {"type", "timestamp", "data"}
    webhook_id = id_of(1, 42, "top.changed", "main")        "1-42-top_changed-main"

Rules:
- An id has the position, the kind, and what tells apart the deliveries of one event: the board, or the place of a
  review. So a repeat has the same id, also from another leader, and no two deliveries share one.
- An id has no full stop: it stands before one where it is signed. Other characters of a board's name are escaped as in
  a URL, because it stands in a header.
- What is told of a board is what the public sees: rows, names, positions.
- A repeat may say less: of a user who was erased since it says nothing.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import msgspec

from engine.board_rules import PastPeriod
from engine.events import PeriodChanged
from engine.reviews import Review
from server.live.encoding import Entry, Rows, iso_ms, iso_or_none

_encode = msgspec.json.Encoder().encode


class _Envelope(msgspec.Struct, frozen=True):
    type: str
    timestamp: str
    data: Any


class PeriodData(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A period ended. `next` is the one that runs now. `over`: it was a season, and its last rows stay.

    Without `entries` they are no longer kept, or can't be read.
    """

    board_id: str
    period: str
    starts_at: str
    ends_at: str | None
    next: str | None
    epoch: int
    seq: int
    over: bool = False
    count: int | msgspec.UnsetType = msgspec.UNSET
    entries: Rows | msgspec.UnsetType = msgspec.UNSET


class ReviewData(msgspec.Struct, frozen=True, rename="camel"):
    """A user was flagged, as GET /reviews told it then."""

    review_id: str
    board_id: str
    user_id: str
    rule: str
    value: int
    limit: int
    score: int
    since: str
    time: str
    epoch: int
    seq: int


class ErasedData(msgspec.Struct, frozen=True, rename="camel"):
    """A user was erased. `user_id` is null once the files of the leader have forgotten it."""

    user_id: str | None
    epoch: int
    seq: int


class Overtaking(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A user came past others. The row is that of then, the name that of now."""

    user_id: str
    rank: int
    score: int
    overtook: tuple[str, ...]
    display_name: str | None = None


class OvertakenData(msgspec.Struct, frozen=True, rename="camel"):
    """Users overtook others among the first ten rows, the best first."""

    board_id: str
    overtakings: tuple[Overtaking, ...]
    epoch: int
    seq: int


def id_of(epoch: int, seq: int, kind: str, what: str = "") -> str:
    """Give the id of a delivery."""
    parts = [str(epoch), str(seq), kind.replace(".", "_")]
    if what:
        parts.append(quote(what, safe="").replace(".", "%2E"))
    return "-".join(parts)


def envelope(kind: str, time_ms: int, data: object) -> bytes:
    """Give the body of a delivery about what happened at a time."""
    return _encode(_Envelope(kind, iso_ms(time_ms), data))


def period_data(event: PeriodChanged, epoch: int, past: PastPeriod | None, count: int, rows: Rows | None) -> PeriodData:
    """Say that a period ended. `past` is what the board keeps of it, `rows` are its first ones, if they are known."""
    return PeriodData(
        event.board_id,
        event.ended.id,
        iso_ms(event.ended.begins_ms),
        iso_or_none(event.ended.ends_ms),
        None if event.following is None else event.following.id,
        epoch,
        event.seq,
        over=event.over,
        count=msgspec.UNSET if past is None else count,
        entries=msgspec.UNSET if rows is None else rows,
    )


def review_data(review: Review, epoch: int) -> ReviewData:
    """Say that a user was flagged."""
    return ReviewData(
        review.review_id, review.board_id, review.user_id, review.rule, review.value, review.limit, review.score,
        iso_ms(review.since_ms), iso_ms(review.time_ms), epoch, review.seq,
    )  # fmt: skip


def row_texts(rows: Rows) -> list[tuple[str, str | None, int, int]]:
    """Give what a change of the first rows is judged by: all but `change`, which days alter too."""
    return [(row.user_id, row.display_name, row.score, row.rank) for row in rows]


__all__ = ["Entry", "ErasedData", "OvertakenData", "Overtaking", "PeriodData", "ReviewData", "envelope", "id_of",
           "period_data", "review_data", "row_texts"]  # fmt: skip
