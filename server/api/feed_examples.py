"""The answers of the feeds in the story of `server.api.examples`: the board of the import, read as a contest. Pure."""

from __future__ import annotations

from typing import Any

_TIME = "2025-12-15T12:34:56.000Z"
_ENDLESS = "1000000:00:00"
_STATE = {
    "started": _TIME, "ended": None, "frozen": None, "thawed": None, "finalized": None, "end_of_updates": None,
}  # fmt: skip


def _contest(board_id: str, name: str, duration: str = _ENDLESS) -> dict[str, Any]:
    return {"id": board_id, "name": name, "start_time": _TIME, "duration": duration, "scoreboard_type": "score"}


FEEDS: dict[str, Any] = {
    "ctftime": {
        "standings": [
            {"pos": 1, "team": "Alice", "score": 4711, "lastAccept": 1_764_525_600},
            {"pos": 2, "team": "Eve", "score": 4711, "lastAccept": 1_765_802_096},
        ]
    },
    "clics": {
        "version": "2023-06",
        "version_url": "https://ccs-specs.icpc.io/2023-06/contest_api",
        "provider": {"name": "Live scoreboard"},
    },
    "clics_contests": [
        _contest("classic", "classic"), _contest("cup", "Winter cup", "160:25:04"), _contest("fair", "fair"),
    ],
    "clics_contest": _contest("classic", "classic"),
    "clics_access": {
        "capabilities": [],
        "endpoints": [
            {
                "type": "contest",
                "properties": [
                    "id", "name", "start_time", "duration", "scoreboard_type", "scoreboard_freeze_duration",
                ],
            },
            {"type": "teams", "properties": ["id", "name", "label"]},
            {"type": "state", "properties": ["started", "ended", "frozen", "thawed", "finalized", "end_of_updates"]},
            {"type": "scoreboard", "properties": ["time", "contest_time", "state", "rows"]},
        ],
    },
    "clics_teams": [
        {"id": "alice", "name": "Alice", "label": "alice"}, {"id": "eve", "name": "Eve", "label": "eve"},
    ],
    "clics_state": _STATE,
    "clics_scoreboard": {
        "time": _TIME,
        "contest_time": "0:00:00",
        "state": _STATE,
        "rows": [
            {"rank": 1, "team_id": "alice", "score": {"score": 4711, "time": 0}},
            {"rank": 1, "team_id": "eve", "score": {"score": 4711, "time": 0}},
        ],
    },
}  # fmt: skip
"""By handler."""
