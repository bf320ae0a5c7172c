"""Requests for the feeds, and the status of each answer."""

from __future__ import annotations

from typing import Any

from tests.server.api.support import READER, REGISTRAR, WRITER

_CONTEST = "/feeds/clics/contests/fair"

FEEDS: list[tuple[str, str, Any, str | None, int]] = [
    ("GET", "/feeds/ctftime.json", None, None, 200),
    ("GET", "/feeds/ctftime.json?boardId=fair", None, REGISTRAR, 200),
    ("GET", "/feeds/ctftime.json?boardId=fair&view=live", None, READER, 200),
    ("GET", "/feeds/ctftime.json?boardId=nowhere", None, None, 400),
    ("GET", "/feeds/clics", None, None, 200),
    ("GET", "/feeds/clics/contests", None, None, 200),
    ("GET", "/feeds/clics/contests?view=live", None, WRITER, 403),
    ("GET", _CONTEST, None, None, 200),
    ("GET", "/feeds/clics/contests/nowhere", None, None, 404),
    *(("GET", f"{_CONTEST}/{name}", None, None, 200) for name in ("access", "teams", "state", "scoreboard")),
    *(("GET", f"{_CONTEST}/{name}?view=live", None, None, 401) for name in ("teams", "state", "scoreboard")),
    ("GET", f"{_CONTEST}/event-feed", None, None, 400),
    ("GET", f"{_CONTEST}/scoreboard?view=live", None, READER, 200),
    ("GET", f"{_CONTEST}/scoreboard?group_id=1", None, None, 400),
]
