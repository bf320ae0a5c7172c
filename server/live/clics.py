"""A board as a contest of the CLICS Contest API (ccs-specs.icpc.io): what is read, and what its events have. Pure.

    users = contestants(board, names)
    times = times_of(board.definition)
    state_of(board.definition, now_ms), contest_of(board.board_id, board.definition), teams_of(users)
    score_rows(users, times, "2026-01"), scoreboard_times(users, times, now_ms)

A user is a team, and the running period is the contest. Points are its score (`scoreboard_type: score`). There are no
problems and no submissions, so nothing is said of any.

Rules:
- Two versions are served. In "2023-06" the time of a score is whole minutes of the contest, in "2026-01" it is h:mm:ss.
- Users with equal scores have equal ranks (1, 2, 2, 4), whatever the ranks of the board are, and stand in the order of
  their names. Accents and case decide only between names that are otherwise equal.
- A user without a name has the id as name. At most FEED_USERS_MAX users are shown, the first ones of the board.
- A time that is not known is null, or left out where that may be. A duration must be there: ENDLESS stands for none.
- TIMEs have milliseconds, RELTIMEs none: the specification wants each in one form.
- The time of a scoreboard is that of the last change among its rows. So it shows nothing that a freeze hides.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from itertools import groupby
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import UNSET, Meta, UnsetType

from engine.board import Board
from engine.board_rules import BoardDefinition
from engine.limits import SCORE_MAX
from server.live.clics_ids import CHARACTERS_MAX, PATTERN, clics_id
from server.live.encoding import iso_ms, iso_or_none
from server.live.names import Names

Version = Literal["2023-06", "2026-01"]

ENDLESS = "1000000:00:00"
"""The duration of a contest without an end: more than a century."""

FEED_USERS_MAX = 10_000
"""Users in a feed: more teams than any contest has had, some 20 ms of work and a megabyte."""

_MINUTE_MS = 60_000

Identifier = Annotated[str, Meta(pattern=PATTERN, max_length=CHARACTERS_MAX)]
Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
RelativeTime = Annotated[str, Meta(pattern="^-?([1-9][0-9]*)?[0-9]:[0-5][0-9]:[0-5][0-9]$")]
Minutes = Annotated[int, Meta(ge=0, description="In the version 2023-06")]
Points = Annotated[int, Meta(ge=0, le=SCORE_MAX)]


class ContestState(msgspec.Struct, frozen=True):
    """…/state. `thawed` is not known after a freeze, and results are never final: a reversal may still come."""

    started: Time | None
    ended: Time | None
    frozen: Time | None
    thawed: None = None
    finalized: None = None
    end_of_updates: None = None


class Contest(msgspec.Struct, frozen=True):
    """…/contests/{boardId}: the running period of a board, or the board if it has none."""

    id: Identifier
    name: str
    start_time: Time | None
    duration: RelativeTime
    scoreboard_type: Literal["score"] = "score"
    scoreboard_freeze_duration: RelativeTime | UnsetType = UNSET


class Team(msgspec.Struct, frozen=True, gc=False):
    """One of …/teams: a user who is ranked."""

    id: Identifier
    name: str
    label: str


class TeamScore(msgspec.Struct, frozen=True, gc=False):
    """`time` is when the score last changed: minutes of the contest, or h:mm:ss. Left out if its start is not known."""

    score: Points
    time: Minutes | RelativeTime | UnsetType = UNSET


class ScoreRow(msgspec.Struct, frozen=True, gc=False):
    rank: Annotated[int, Meta(ge=1)]
    team_id: Identifier
    score: TeamScore


class ContestScoreboard(msgspec.Struct, frozen=True):
    """…/scoreboard."""

    time: Time
    contest_time: RelativeTime
    state: ContestState
    rows: list[ScoreRow]


class Contestant(NamedTuple):
    """A user who is shown: the name, when the score last changed (ms since 1970 UTC), and the rank on the board."""

    user_id: str
    name: str
    score: int
    updated_ms: int
    rank: int


class Times(NamedTuple):
    """When a contest begins and ends, in ms since 1970 UTC; None where that is not known."""

    begins_ms: int | None
    ends_ms: int | None


def contestants(board: Board, names: Names) -> list[Contestant]:
    """List the first users of a board in its order, at one moment: 6 ms for FEED_USERS_MAX."""
    name = names.name
    return [
        Contestant(row.user_id, name(row.user_id) or row.user_id, row.score, row.updated_ms, row.rank)
        for row in board.final_rows(0, FEED_USERS_MAX)
    ]


def times_of(definition: BoardDefinition | None) -> Times:
    """Give the times of the running period, or since when the board is there."""
    if definition is None:
        return Times(None, None)
    if definition.period is None:
        return Times(definition.begun_ms or None, None)
    return Times(definition.period.begins_ms, definition.period.ends_ms)


def has_started(times: Times, now_ms: int) -> bool:
    """Whether a contest has begun."""
    return times.begins_ms is not None and times.begins_ms <= now_ms


def state_of(definition: BoardDefinition | None, now_ms: int) -> ContestState:
    """Say what has happened to a contest so far."""
    times = times_of(definition)
    started_ms = times.begins_ms if has_started(times, now_ms) else None
    over = definition is not None and definition.over and started_ms is not None
    frozen = None if definition is None else definition.frozen
    return ContestState(
        started=iso_or_none(started_ms),
        ended=iso_or_none(times.ends_ms if over else None),
        frozen=None if frozen is None else iso_ms(frozen.time_ms),
    )


def contest_of(board_id: str, definition: BoardDefinition | None) -> Contest:
    """Describe a board as a contest."""
    begins_ms, ends_ms = times_of(definition)
    return Contest(
        clics_id(board_id),
        (definition.rules.title if definition is not None else "") or board_id,
        iso_or_none(begins_ms),
        ENDLESS if begins_ms is None or ends_ms is None else relative(ends_ms - begins_ms),
        scoreboard_freeze_duration=_freeze_duration(definition, ends_ms),
    )


def _freeze_duration(definition: BoardDefinition | None, ends_ms: int | None) -> str | UnsetType:
    if definition is None or ends_ms is None:
        return UNSET
    frozen_ms = definition.freeze_at_ms if definition.frozen is None else definition.frozen.time_ms
    return UNSET if frozen_ms is None or frozen_ms > ends_ms else relative(ends_ms - frozen_ms)


def teams_of(users: Sequence[Contestant]) -> list[Team]:
    """List users as teams, by their ids: so it is the same list as long as they only change their places."""
    ordered = sorted((clics_id(user.user_id), user.name, user.user_id) for user in users)
    return [Team(team_id, name, label) for team_id, name, label in ordered]


def score_rows(users: Sequence[Contestant], times: Times, version: Version) -> list[ScoreRow]:
    """Rank users, who come in the order of the board."""
    rows: list[ScoreRow] = []
    for _, equals in groupby(users, key=lambda user: user.score):
        tied = list(equals)
        if len(tied) > 1:
            tied.sort(key=lambda user: (*name_order(user.name), user.user_id))
        rank = len(rows) + 1
        rows += [
            ScoreRow(rank, clics_id(user.user_id), TeamScore(user.score, _reached(user.updated_ms, times, version)))
            for user in tied
        ]
    return rows


def _reached(updated_ms: int, times: Times, version: Version) -> int | str | UnsetType:
    if times.begins_ms is None:
        return UNSET
    since_ms = max(0, updated_ms - times.begins_ms)  # an import may have brought it from before
    return since_ms // _MINUTE_MS if version == "2023-06" else relative(since_ms)


def name_order(name: str) -> tuple[str, str]:
    """Give what names are sorted by: without accents and case, then with them, small letters first."""
    if name.isascii():
        return name.lower(), name.swapcase()
    plain = "".join(letter for letter in unicodedata.normalize("NFKD", name) if not unicodedata.combining(letter))
    return plain.casefold(), name.swapcase()


def scoreboard_times(users: Sequence[Contestant], times: Times, now_ms: int) -> tuple[str, str]:
    """Give the time of a scoreboard, and that in its contest."""
    last_ms = max((user.updated_ms for user in users), default=0)
    time_ms = min(now_ms, max(last_ms, times.begins_ms or 0) or now_ms)
    return iso_ms(time_ms), relative(0 if times.begins_ms is None else time_ms - times.begins_ms)


def relative(ms: int) -> str:
    """Write a time of a contest as h:mm:ss, without what is less than a second."""
    seconds = abs(ms) // 1000
    minutes, second = divmod(seconds, 60)
    hours, minute = divmod(minutes, 60)
    return f"{'-' if ms < 0 < seconds else ''}{hours}:{minute:02}:{second:02}"
