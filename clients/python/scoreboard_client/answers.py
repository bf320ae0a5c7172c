"""What the server answers, as values with types. Pure.

    receipt = read_receipt(body)        raises `UnexpectedAnswer`, which names the field
    top = read_top(body)

Rules:
- Times are datetimes in UTC, scores and ranks are ints. What the server leaves out is None, False or 0.
- Fields that this version does not know are passed over: a newer server may have more.
- A `Position` is the one version number of the server. A higher one is newer. Give the one of a receipt to a read
  (`min_position`), and it shows your own write, on a replica too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeVar

from scoreboard_client.errors import UnexpectedAnswer

T = TypeVar("T")


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """An event's place in the log. seq counts events; the epoch grows with each new leader."""

    epoch: int
    seq: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """What an action did. `applied` is False if it had been counted before: then `delta` is 0.

    `held`: the action is kept, and counts once somebody has decided a review. `rank` is None for an inactive user.
    """

    user_id: str
    action_id: str
    board_id: str
    new_score: int
    delta: int
    applied: bool
    rank: int | None
    previous_rank: int | None
    held: bool
    position: Position


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of a board. `change` tells the places that the user went up, by `day` and `period`, where it is known."""

    rank: int
    user_id: str
    score: int
    display_name: str | None
    change: Mapping[str, int | None]

    @property
    def name(self) -> str:
        """What to show of the user."""
        return self.display_name or self.user_id


@dataclass(frozen=True, slots=True)
class Top:
    """The first rows of a board at a position. `stale`: a replica that does not hear its leader gave it."""

    board_id: str
    entries: tuple[Entry, ...]
    position: Position
    generated_at: datetime
    title: str
    period: str | None
    ends_at: datetime | None
    over: bool
    frozen_at: datetime | None
    revealed: int
    stale: bool


@dataclass(frozen=True, slots=True)
class LiveState(Top):
    """A state of the live channel.

    `kind` is "snapshot" for the first state and after a gap, "update" for a change. It is "period" when a period ended:
    then `entries` are its last rows, `period` is its id, and the rows of the next one follow.
    """

    kind: Literal["snapshot", "update", "period"]


@dataclass(frozen=True, slots=True)
class Score:
    """One user's score. An inactive user has no `rank`, `percentile` and `gap_to_next`; the first has no gap."""

    user_id: str
    display_name: str | None
    board_id: str
    score: int
    rank: int | None
    count: int
    percentile: float | None
    gap_to_next: int | None
    updated_at: datetime
    position: Position
    stale: bool


@dataclass(frozen=True, slots=True)
class Around:
    """A user's row and the neighbours. It is empty for an inactive user."""

    user_id: str
    board_id: str
    entries: tuple[Entry, ...]
    position: Position
    generated_at: datetime
    stale: bool


@dataclass(frozen=True, slots=True)
class RankedEntry(Entry):
    """One of the users who were asked for, with the rank among them."""

    rank_among: int


@dataclass(frozen=True, slots=True)
class Ranks:
    """The users who were asked for. `unranked` have no rank on the board; `count` is how many users have one."""

    board_id: str
    entries: tuple[RankedEntry, ...]
    unranked: tuple[str, ...]
    count: int
    position: Position
    generated_at: datetime
    stale: bool


class _Fields:
    """Reads the fields of a JSON object, and names the one that is wrong."""

    def __init__(self, body: object, what: str) -> None:
        if not isinstance(body, dict):
            raise UnexpectedAnswer(f"{what} is no JSON object")
        self._body: dict[str, Any] = body
        self._what = what

    def get(self, name: str, kind: type[T]) -> T:
        value = self._body.get(name)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise UnexpectedAnswer(f"{self._what}: {name} is {value!r:.60}, not {kind.__name__}")
        return value

    def maybe(self, name: str, kind: type[T]) -> T | None:
        return None if self._body.get(name) is None else self.get(name, kind)

    def time(self, name: str) -> datetime:
        text = self.get(name, str)
        try:
            return datetime.fromisoformat(text.replace("Z", "+00:00"))
        except ValueError:
            raise UnexpectedAnswer(f"{self._what}: {name} is {text!r:.60}, which is no time") from None

    def maybe_time(self, name: str) -> datetime | None:
        return None if self._body.get(name) is None else self.time(name)

    def flag(self, name: str) -> bool:
        return bool(self.maybe(name, bool))

    def position(self) -> Position:
        return Position(self.get("epoch", int), self.get("seq", int))

    def rows(self, name: str, read: Callable[[_Fields], T]) -> tuple[T, ...]:
        rows = enumerate(self.get(name, list))
        return tuple(read(_Fields(row, f"{self._what}: {name}[{index}]")) for index, row in rows)


def read_receipt(body: object) -> Receipt:
    """Read the receipt of an increment, or of one item of a batch."""
    fields = _Fields(body, "the receipt")
    return Receipt(
        user_id=fields.get("userId", str),
        action_id=fields.get("actionId", str),
        board_id=fields.get("boardId", str),
        new_score=fields.get("newScore", int),
        delta=fields.get("delta", int),
        applied=fields.get("applied", bool),
        rank=fields.maybe("rank", int),
        previous_rank=fields.maybe("previousRank", int),
        held=fields.flag("held"),
        position=fields.position(),
    )


def receipt_of(body: object, action_id: str) -> Receipt:
    """Read the receipt of this action. Raises `UnexpectedAnswer` for that of another one."""
    receipt = read_receipt(body)
    if receipt.action_id != action_id:
        raise UnexpectedAnswer(f"the receipt is of the action {receipt.action_id!r:.60}, not of {action_id!r:.60}")
    return receipt


def _entry(fields: _Fields) -> Entry:
    return Entry(**_entry_fields(fields))


def _ranked_entry(fields: _Fields) -> RankedEntry:
    return RankedEntry(**_entry_fields(fields), rank_among=fields.get("rankAmong", int))


def _entry_fields(fields: _Fields) -> dict[str, Any]:
    return {
        "rank": fields.get("rank", int),
        "user_id": fields.get("userId", str),
        "score": fields.get("score", int),
        "display_name": fields.maybe("displayName", str),
        "change": fields.maybe("change", dict) or {},
    }


def read_top(body: object) -> Top:
    """Read GET /scoreboard/top."""
    return Top(**_top_fields(_Fields(body, "the top")))


def _top_fields(fields: _Fields) -> dict[str, Any]:
    return {
        "board_id": fields.get("boardId", str),
        "entries": fields.rows("entries", _entry),
        "position": fields.position(),
        "generated_at": fields.time("generatedAt"),
        "title": fields.maybe("title", str) or "",
        "period": fields.maybe("period", str),
        "ends_at": fields.maybe_time("endsAt"),
        "over": fields.flag("over"),
        "frozen_at": fields.maybe_time("frozenAt"),
        "revealed": fields.maybe("revealed", int) or 0,
        "stale": fields.flag("stale"),
    }


_KINDS: dict[str, Literal["snapshot", "update", "period"]] = {
    "scoreboard_snapshot": "snapshot",
    "scoreboard_update": "update",
    "scoreboard_period": "period",
}


def read_live(body: object) -> LiveState | None:
    """Read a message of the live channel; None for a type that this version does not know."""
    fields = _Fields(body, "the message")
    kind = _KINDS.get(fields.get("type", str))
    return None if kind is None else LiveState(**_top_fields(fields), kind=kind)


def polled_state(body: object) -> LiveState:
    """Make a state of a top that was polled."""
    return LiveState(**_top_fields(_Fields(body, "the top")), kind="snapshot")


def read_score(body: object) -> Score:
    """Read GET /scores."""
    fields = _Fields(body, "the score")
    percentile = fields.maybe("percentile", object)
    if percentile is not None and (isinstance(percentile, bool) or not isinstance(percentile, (int, float))):
        raise UnexpectedAnswer(f"the score: percentile is {percentile!r:.60}, not a number")
    return Score(
        user_id=fields.get("userId", str),
        display_name=fields.maybe("displayName", str),
        board_id=fields.get("boardId", str),
        score=fields.get("score", int),
        rank=fields.maybe("rank", int),
        count=fields.get("count", int),
        percentile=None if percentile is None else float(percentile),
        gap_to_next=fields.maybe("gapToNext", int),
        updated_at=fields.time("updatedAt"),
        position=fields.position(),
        stale=fields.flag("stale"),
    )


def read_around(body: object) -> Around:
    """Read GET /scores/around."""
    fields = _Fields(body, "the neighbours")
    return Around(
        user_id=fields.get("userId", str),
        board_id=fields.get("boardId", str),
        entries=fields.rows("entries", _entry),
        position=fields.position(),
        generated_at=fields.time("generatedAt"),
        stale=fields.flag("stale"),
    )


def read_ranks(body: object) -> Ranks:
    """Read POST /scores/query."""
    fields = _Fields(body, "the ranks")
    unranked = fields.get("unranked", list)
    if not all(isinstance(user_id, str) for user_id in unranked):
        raise UnexpectedAnswer("the ranks: unranked has something that is no id")
    return Ranks(
        board_id=fields.get("boardId", str),
        entries=fields.rows("entries", _ranked_entry),
        unranked=tuple(unranked),
        count=fields.get("count", int),
        position=fields.position(),
        generated_at=fields.time("generatedAt"),
        stale=fields.flag("stale"),
    )
