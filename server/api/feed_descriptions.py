"""What the table of routes does not say of the feeds, as `server.api.descriptions` does of the other routes. Pure."""

from __future__ import annotations

from server.api.descriptions import Operation
from server.api.feed_forms import ApiInformation, ContestAccess, Standings
from server.live.clics import Contest, ContestScoreboard, ContestState, Team

_ERRORS = (400, 401, 403, 421, 500, 503)
_CONTEST_ERRORS = (400, 401, 403, 404, 421, 500, 503)
_POSITION = ("minSeq", "minEpoch")
_CONTEST = ("boardId", "view", *_POSITION)

FEEDS: dict[str, Operation] = {
    "ctftime": Operation(
        "Feeds",
        "CTFtime's JSON scoreboard feed, all ASCII. A team is a user, by name or else by id; `pos` is the rank on the "
        "board, `lastAccept` when the score last changed, in seconds since 1970. At most the first 10,000 users.",
        Standings,
        _ERRORS,
        ("boardIdDefault", "view", *_POSITION),
        etag=True,
    ),
    "clics": Operation(
        "Feeds",
        "The base address of a Contest API (ccs-specs.icpc.io). `[feeds] clics_version` chooses the version.",
        ApiInformation,
        (400, 401, 403, 500, 503),
        etag=True,
    ),
    "clics_contests": Operation(
        "Feeds",
        "Sorted by the ids of the boards. An id that the Contest API can't have is replaced by the beginning of its "
        "SHA-256, always by the same.",
        (Contest,),
        _ERRORS,
        ("view", *_POSITION),
        etag=True,
    ),
    "clics_contest": Operation(
        "Feeds",
        "The running period of a board. `boardId` is the board's own id, or that of the contest. A board without an "
        "end has a duration of a million hours.",
        Contest,
        _CONTEST_ERRORS,
        _CONTEST,
        etag=True,
    ),
    "clics_access": Operation(
        "Feeds", "Which endpoints and properties there are.", ContestAccess, _CONTEST_ERRORS, ("boardId", *_POSITION),
        etag=True,
    ),
    "clics_teams": Operation(
        "Feeds",
        "Sorted by id. `label` is the user's own id. At most the first 10,000 users of the board.",
        (Team,),
        _CONTEST_ERRORS,
        _CONTEST,
        etag=True,
    ),
    "clics_state": Operation("Feeds", "What has happened so far.", ContestState, _CONTEST_ERRORS, _CONTEST, etag=True),
    "clics_scoreboard": Operation(
        "Feeds",
        "Equal scores have equal ranks, 1, 2, 2, 4, and stand in the order of names, whatever `ranks` the board has. "
        "`score.time` is in minutes in the version 2023-06, and h:mm:ss in 2026-01. There are no problems.",
        ContestScoreboard,
        _CONTEST_ERRORS,
        _CONTEST,
        etag=True,
    ),
    "clics_event_feed": Operation(
        "Feeds",
        "NDJSON without an end. First come `contest`, `teams` and `state`, later those that changed. When scores "
        "change, `state` comes again: then read the scoreboard. `since_token` goes on behind an event; one that is "
        "wrong, or of another epoch, is refused. Within 120 s of silence comes an empty line. A reader is a viewer.",
        "application/x-ndjson",
        (400, 401, 403, 404, 421, 503),
        ("boardId", "view", "sinceToken"),
    ),
}  # fmt: skip
