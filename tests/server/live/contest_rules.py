"""The rules of the published JSON schemas (github.com/icpc/ccs-specs, json-schema) for what is served, as assertions.

    check_scoreboard(value, "2026-01")        raises AssertionError where a validator would complain

Each object has exactly the properties that a strict validator lets it have, and all that are required.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from server.live.clics import Version

ID = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,34}[A-Za-z0-9_-])?")
TIME = re.compile(
    r"[12][0-9]{3}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9](\.[0-9]{3})?([+-][0-1][0-9](:[0-5][0-9])?|Z)"
)
RELATIVE = re.compile(r"-?([1-9][0-9]*)?[0-9]:[0-5][0-9]:[0-5][0-9](\.[0-9]{3})?")
STATES = ("started", "ended", "frozen", "thawed", "finalized", "end_of_updates")
EVENT_TYPES = ("contest", "teams", "state")


def check_id(value: Any) -> None:
    """An identifier."""
    assert isinstance(value, str)
    assert ID.fullmatch(value), value
    assert len(value) <= 36


def check_time(value: Any, *, nullable: bool = False) -> None:
    """A TIME, or null where that may be."""
    if value is None and nullable:
        return
    assert isinstance(value, str)
    assert TIME.fullmatch(value), value


def check_relative(value: Any, *, negative: bool = False) -> None:
    """A RELTIME."""
    assert isinstance(value, str)
    assert RELATIVE.fullmatch(value), value
    assert negative or not value.startswith("-")


def check_contest(value: Any) -> None:
    """contest.json. A contest with scores has no penalty time."""
    required = {"id", "name", "start_time", "duration", "scoreboard_type"}
    assert required <= set(value) <= required | {"scoreboard_freeze_duration"}
    check_id(value["id"])
    assert isinstance(value["name"], str)
    check_time(value["start_time"], nullable=True)
    check_relative(value["duration"])
    assert value["scoreboard_type"] == "score"
    if "scoreboard_freeze_duration" in value:
        check_relative(value["scoreboard_freeze_duration"])


def check_state(value: Any) -> None:
    """state.json, and the order in which states follow each other."""
    assert list(value) == list(STATES)
    for name in STATES:
        check_time(value[name], nullable=True)
    assert value["ended"] is None or value["started"] < value["ended"]
    assert value["thawed"] is None or value["frozen"] is not None
    assert value["finalized"] is None or value["ended"] is not None


def check_teams(value: Any) -> None:
    """teams.json: no two are the same."""
    assert len({team["id"] for team in value}) == len(value)
    for team in value:
        assert set(team) == {"id", "name", "label"}
        check_id(team["id"])
        assert team["name"]
        assert team["label"]


def check_scoreboard(value: Any, version: Version) -> None:
    """scoreboard.json, with the times of a version. Ranks are duplicate in case of ties, and count who is ahead."""
    assert list(value) == ["time", "contest_time", "state", "rows"]
    check_time(value["time"])
    check_relative(value["contest_time"], negative=True)
    check_state(value["state"])
    for row in value["rows"]:
        assert set(row) == {"rank", "team_id", "score"}
        check_id(row["team_id"])
        assert set(row["score"]) <= {"score", "time"}
        assert isinstance(row["score"]["score"], int | float)
        if "time" in row["score"]:
            check_score_time(row["score"]["time"], version)
    check_ranks([(row["rank"], row["score"]["score"]) for row in value["rows"]])


def check_score_time(value: Any, version: Version) -> None:
    """Whole minutes in the older version, a RELTIME in the newer one."""
    if version == "2026-01":
        check_relative(value)
    else:
        assert type(value) is int
        assert value >= 0


def check_ranks(rows: Iterable[tuple[int, int]]) -> None:
    """1, 2, 2, 4 by score."""
    rank, last = 0, None
    for place, (given, score) in enumerate(rows, 1):
        if score != last:
            rank, last = place, score
        assert given == rank


def check_event(value: Any) -> None:
    """event-feed.json: of whole collections and single objects, whose id is null."""
    assert set(value) == {"type", "id", "data", "token"}
    assert value["type"] in EVENT_TYPES
    assert value["id"] is None
    assert isinstance(value["token"], str)
    {"contest": check_contest, "teams": check_teams, "state": check_state}[value["type"]](value["data"])
