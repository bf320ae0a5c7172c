"""The shape of GET /users/{userId}/data. Pure."""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from server.api.answers import AgeMs, Epoch, PeriodId, Rank, Score, SeqOrNone, Time
from server.api.history_forms import HistoryEntry
from server.api.review_forms import ReviewObject
from server.http.messages import Id, Name


class KeptScore(msgspec.Struct, frozen=True, rename="camel"):
    """A score. With `period` it is that of a past period. The rank of an inactive user is null."""

    board_id: Id
    score: Score
    rank: Rank | None
    updated_at: Time
    period: PeriodId | UnsetType = UNSET


class UserDataAnswer(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """GET /users/{userId}/data. `registered` is null for a user who only scored, or of whom nothing is known."""

    user_id: Id
    registered: Registration | None
    scores: list[KeptScore]
    past_scores: list[KeptScore]
    reviews: list[ReviewObject]
    entries: tuple[HistoryEntry, ...]
    next_cursor: str | None
    complete: bool
    oldest_seq: SeqOrNone
    epoch: Epoch
    seq: SeqOrNone
    stale: Literal[True] | UnsetType = UNSET
    age_ms: AgeMs | UnsetType = UNSET


class Registration(msgspec.Struct, frozen=True, rename="camel"):
    """What the registry has of a user."""

    display_name: Name | None
    active: bool
