"""The table of routes, for the pipeline, the lanes and the OpenAPI document. Pure.

    methods, params = find("/scores/alice")      {"GET": Route(...)}, {"userId": "alice"}; raises `Refused`

Rules:
- Paths are matched as they were sent, and decoded afterwards by segment. So an id may hold a slash (%2F).
- A path without a variable wins, as in OpenAPI: /scores/increment and /scores/query are routes, and the users of those
  names are at /scores/%69ncrement and /scores/%71uery.
- Where an id may hold a slash, its route has a second path, with the id in the query: proxies decode %2F on the way.
  /scores/around is such a path only with `userId`. Without it, it is the score of the user `around`. So are
  /scores/history, and /boards/reset with `boardId`. GET /boards lists the boards where it has no id.
- HEAD is allowed wherever GET is, OPTIONS everywhere. Neither is in the table.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from server.http.messages import Refused
from server.http.target import decode_path_param, query_values
from server.live.event_feed import CONTEST_PATH, FEED_PATH
from server.live.event_feed import PARAMETERS as FEED_QUERY
from server.live.events import STREAM_PATH
from server.live.handshake import LIVE_PATH
from server.replication.messages import PROMOTE_PATH

Method = Literal["GET", "POST", "PUT", "DELETE"]


class Route(msgspec.Struct, frozen=True):
    """One operation. It needs a token with one of `scopes`; without any it is open to all.

    `public_read`: it needs no token either while reads are public, and pages of other sites may read the answer.
    `writes`: only a leader does it. `shows_state`: the answer depends on the node's position. `express`: the express
    lane takes it. `query` names the parameters that it takes; None: any, because callers of pages and probes add their
    own. `ids` names the parameters that it needs.
    """

    method: Method
    path: str
    handler: str
    summary: str
    scopes: tuple[str, ...] = ()
    public_read: bool = False
    writes: bool = False
    shows_state: bool = False
    express: bool = False
    query: tuple[str, ...] | None = ()
    ids: tuple[str, ...] = ()


BOARD_CHANGES = ("put_board", "close_board", "reset_board", "freeze_board", "unfreeze_board", "reveal_board")
"""The handlers that change a board itself."""

BY_QUERY = "_by_query"
"""The end of a handler's name that has the id in the query. The handler is the one without it."""

POSITION = ("minSeq", "minEpoch")
USER_QUERY = ("boardId", "period", "view", *POSITION)
HISTORY_QUERY = ("boardId", "limit", "cursor", *POSITION)
AROUND_QUERY = ("limit", *USER_QUERY)
CONTEST_QUERY = ("view", *POSITION)
DATA_QUERY = ("limit", "cursor", *POSITION)
WRITE = ("scores:write",)
READ = ("scores:read", "scores:write")
LIVE_VIEW = ("scores:read",)
"""Those who may see the present of a frozen board."""
WHOLE_NAMES = ("scores:read",)
"""Those who see display names that are not shown to the public."""
USERS = ("users:write",)
BOARDS = ("boards:write",)
BOARD_READ = (*READ, *BOARDS)
RULES_READ = ("boards:write", "scores:read")
"""Those who see the rules of a board, and not only what is public of it."""
CORRECT = ("scores:correct",)
ERASE = ("users:erase",)
REVIEW = ("scores:review",)
ADMIN = ("admin",)
STEP_DOWN_PATH = "/quorum/step-down"
VALUE = ("scores:value",)
"""The scope of an increment that carries a value, beside that of its route."""

ROUTES: tuple[Route, ...] = (
    Route("POST", "/scores/increment", "increment", "Count one action for one user.", WRITE,
          writes=True, express=True),
    Route("POST", "/scores/increment/batch", "increment_batch", "Count up to 1,000 actions.", WRITE,
          writes=True, express=True),
    Route("GET", "/scoreboard/top", "top", "The first rows of a board.", READ,
          public_read=True, shows_state=True, express=True,
          query=("boardId", "limit", "period", "view", "asOfSeq", "asOf", *POSITION)),
    Route("GET", "/scoreboard", "walk", "A whole board, page by page.", READ,
          public_read=True, shows_state=True, query=("boardId", "limit", "cursor", "period", "view", *POSITION)),
    Route("POST", "/scores/query", "query", "The ranks of up to 1,000 users.", READ,
          public_read=True, shows_state=True, query=("view", *POSITION)),
    Route("GET", "/scores/{userId}", "score", "One user's score and rank.", READ,
          public_read=True, shows_state=True, query=USER_QUERY),
    Route("GET", "/scores", "score_by_query", "The same, with the id in the query.", READ,
          public_read=True, shows_state=True, query=("userId", *USER_QUERY), ids=("userId",)),
    Route("GET", "/scores/{userId}/around", "around", "A user and the neighbours.", READ,
          public_read=True, shows_state=True, query=AROUND_QUERY),
    Route("GET", "/scores/around", "around_by_query", "The same, with the id in the query.", READ,
          public_read=True, shows_state=True, query=("userId", *AROUND_QUERY), ids=("userId",)),
    Route("GET", "/scores/{userId}/history", "history", "What the log says of a user, the newest first.", READ,
          shows_state=True, query=HISTORY_QUERY),
    Route("GET", "/scores/history", "history_by_query", "The same, with the id in the query.", READ,
          shows_state=True, query=("userId", *HISTORY_QUERY), ids=("userId",)),
    Route("PUT", "/users/{userId}", "put_user", "Register a user, or change a name or whether active.", USERS,
          writes=True),
    Route("PUT", "/users", "put_user_by_query", "The same, with the id in the query.", USERS,
          writes=True, query=("userId",), ids=("userId",)),
    Route("DELETE", "/users/{userId}", "erase_user", "Erase a user.", ERASE, writes=True),
    Route("DELETE", "/users", "erase_user_by_query", "The same, with the id in the query.", ERASE,
          writes=True, query=("userId",), ids=("userId",)),
    Route("GET", "/users/{userId}/data", "user_data", "All that is kept about a user.", READ,
          shows_state=True, query=DATA_QUERY),
    Route("GET", "/users/data", "user_data_by_query", "The same, with the id in the query.", READ,
          shows_state=True, query=("userId", *DATA_QUERY), ids=("userId",)),
    Route("GET", "/boards", "boards", "All boards; with `boardId`, that one.", BOARD_READ,
          public_read=True, shows_state=True, query=("boardId", "view", *POSITION)),
    Route("PUT", "/boards", "put_board_by_query", "The same as below, with the id in the query.", BOARDS,
          writes=True, query=("boardId",), ids=("boardId",)),
    Route("DELETE", "/boards", "close_board_by_query", "The same as below, with the id in the query.", BOARDS,
          writes=True, query=("boardId",), ids=("boardId",)),
    Route("GET", "/boards/{boardId}", "board", "A board and its running period.", BOARD_READ,
          public_read=True, shows_state=True, query=("view", *POSITION)),
    Route("PUT", "/boards/{boardId}", "put_board", "Make a board, or replace its rules.", BOARDS,
          writes=True),
    Route("DELETE", "/boards/{boardId}", "close_board", "Close a board: it can only be read.", BOARDS,
          writes=True),
    Route("POST", "/boards/{boardId}/reset", "reset_board", "End the running period.", BOARDS,
          writes=True),
    Route("POST", "/boards/reset", "reset_board_by_query", "The same, with the id in the query.", BOARDS,
          writes=True, query=("boardId",), ids=("boardId",)),
    Route("GET", "/boards/{boardId}/periods", "periods", "The periods of a board that have ended.", BOARD_READ,
          public_read=True, shows_state=True, query=("view", *POSITION)),
    Route("GET", "/boards/periods", "periods_by_query", "The same, with the id in the query.", BOARD_READ,
          public_read=True, shows_state=True, query=("boardId", "view", *POSITION), ids=("boardId",)),
    Route("GET", "/boards/{boardId}/export", "export", "Every row of a board, as a file.", READ,
          public_read=True, shows_state=True, query=("format", "period", "view", *POSITION)),
    Route("GET", "/boards/export", "export_by_query", "The same, with the id in the query.", READ,
          public_read=True, shows_state=True, query=("boardId", "format", "period", "view", *POSITION),
          ids=("boardId",)),
    Route("GET", "/boards/{boardId}/imports", "imports", "The imports of a board; with `importId`, that one.", ADMIN,
          shows_state=True, query=("importId", *POSITION)),
    Route("GET", "/boards/imports", "imports_by_query", "The same, with the id in the query.", ADMIN,
          shows_state=True, query=("boardId", "importId", *POSITION), ids=("boardId",)),
    Route("POST", "/boards/{boardId}/imports", "import_rows", "Take in rows of an import.", ADMIN, writes=True),
    Route("POST", "/boards/imports", "import_rows_by_query", "The same, with the id in the query.", ADMIN,
          writes=True, query=("boardId",), ids=("boardId",)),
    Route("GET", "/boards/{boardId}/imports/{importId}", "import", "How far an import is.", ADMIN,
          shows_state=True, query=POSITION),
    Route("POST", "/boards/{boardId}/freeze", "freeze_board", "Let the public see a board as it is now.", BOARDS,
          writes=True),
    Route("POST", "/boards/freeze", "freeze_board_by_query", "The same, with the id in the query.", BOARDS,
          writes=True, query=("boardId",), ids=("boardId",)),
    Route("POST", "/boards/{boardId}/unfreeze", "unfreeze_board", "Let the public see what counts again.", BOARDS,
          writes=True),
    Route("POST", "/boards/unfreeze", "unfreeze_board_by_query", "The same, with the id in the query.", BOARDS,
          writes=True, query=("boardId",), ids=("boardId",)),
    Route("POST", "/boards/{boardId}/reveal", "reveal_board", "Show the next rows of a frozen board.", BOARDS,
          writes=True),
    Route("POST", "/boards/reveal", "reveal_board_by_query", "The same, with the id in the query.", BOARDS,
          writes=True, query=("boardId",), ids=("boardId",)),
    Route("GET", "/actions/{actionId}", "action", "Whether an action was applied, and its receipt.", READ,
          shows_state=True, query=POSITION),
    Route("GET", "/actions", "action_by_query", "The same, with the id in the query.", READ,
          shows_state=True, query=("actionId", *POSITION), ids=("actionId",)),
    Route("POST", "/reversals", "reverse", "Take actions back, or say what that would change.", CORRECT, writes=True),
    Route("GET", "/reversals/{reversalId}", "reversal", "What a reversal did.", (*CORRECT, "scores:read"),
          shows_state=True, query=POSITION),
    Route("GET", "/reversals", "reversal_by_query", "The same, with the id in the query.", (*CORRECT, "scores:read"),
          shows_state=True, query=("reversalId", *POSITION), ids=("reversalId",)),
    Route("GET", "/reviews", "reviews", "Users whom a board's watch flagged.", REVIEW,
          shows_state=True, query=("state", "boardId", "cursor", "limit", *POSITION)),
    Route("GET", "/reviews/{reviewId}", "review", "One review.", REVIEW, shows_state=True, query=POSITION),
    Route("POST", "/reviews/{reviewId}", "decide_review", "Decide a review.", REVIEW, writes=True),
    Route("GET", "/flags/live", "live_flag", "Whether the live channel is on.", ADMIN,
          shows_state=True, query=POSITION),
    Route("PUT", "/flags/live", "put_live_flag", "Switch the live channel off, or on again, on every node.", ADMIN,
          writes=True),
    Route("GET", "/feeds/ctftime.json", "ctftime", "The standings of a board for CTFtime.", READ,
          public_read=True, shows_state=True, query=("boardId", "view", *POSITION)),
    Route("GET", "/feeds/clics", "clics", "Which version of the CLICS Contest API is below this address.", READ,
          public_read=True),
    Route("GET", "/feeds/clics/contests", "clics_contests", "All boards as contests.", READ,
          public_read=True, shows_state=True, query=CONTEST_QUERY),
    Route("GET", CONTEST_PATH, "clics_contest", "A board as a contest.", READ,
          public_read=True, shows_state=True, query=CONTEST_QUERY),
    Route("GET", f"{CONTEST_PATH}/access", "clics_access", "What there is of a contest.", READ,
          public_read=True, shows_state=True, query=POSITION),
    Route("GET", f"{CONTEST_PATH}/teams", "clics_teams", "The users of a board as teams.", READ,
          public_read=True, shows_state=True, query=CONTEST_QUERY),
    Route("GET", f"{CONTEST_PATH}/state", "clics_state", "Whether a contest runs, is frozen, has ended.", READ,
          public_read=True, shows_state=True, query=CONTEST_QUERY),
    Route("GET", f"{CONTEST_PATH}/scoreboard", "clics_scoreboard", "The rows of a board, ranked as CLICS does.", READ,
          public_read=True, shows_state=True, query=CONTEST_QUERY),
    Route("GET", "/webhooks", "webhooks", "The webhooks, and how far each is.", ADMIN, writes=True),
    Route("POST", "/webhooks/{name}/enable", "enable_webhook", "Have a webhook deliver again.", ADMIN, writes=True),
    Route("GET", FEED_PATH, "clics_event_feed", "What changes of a contest, line by line.", query=FEED_QUERY),
    Route("GET", LIVE_PATH, "live", "The live channel (WebSocket).", query=("boardId", "view")),
    Route("GET", STREAM_PATH, "stream", "The live channel (server-sent events).", public_read=True,
          query=("boardId", "view")),
    Route("POST", PROMOTE_PATH, "promote", "Make this replica the leader.", ADMIN),
    Route("GET", "/replication/followers", "followers", "The replicas that follow this node, and their lag.",
          ("log:read",)),
    Route("GET", "/quorum", "quorum", "The nodes of a quorum, and its stream, as this node sees them.", ("log:read",)),
    Route("POST", STEP_DOWN_PATH, "step_down", "Let another node of the quorum lead.", ADMIN),
    Route("GET", "/viewers", "viewers", "How many watch a board at this node.", READ,
          public_read=True, query=("boardId",)),
    Route("GET", "/healthz", "healthz", "Whether the process is alive.", query=None),
    Route("GET", "/readyz", "readyz", "Whether requests should be sent here.", query=("role",)),
    Route("GET", "/metrics", "metrics", "Metrics in Prometheus' text format.", query=None),
    Route("GET", "/openapi.json", "openapi", "This description.", public_read=True, query=None),
    Route("GET", "/docs", "docs", "A page that shows the description.", query=None),
    Route("GET", "/console", "console", "A page for operators.", query=None),
    Route("GET", "/", "index", "The live page.", query=None),
    Route("GET", "/embed", "embed", "A page for a frame in another page.", query=None),
    Route("GET", "/wall", "wall", "A page for a projector or a stream.", query=None),
    Route("GET", "/qr.svg", "qr", "A QR code that leads to the page.", query=("boardId", "base")),
    Route("GET", "/scoreboard.js", "element", "The element <live-scoreboard>, an ES module.", public_read=True,
          query=None),
)  # fmt: skip

EXPRESS: dict[tuple[str, str], Route] = {(route.method, route.path): route for route in ROUTES if route.express}

_BY_PATH: dict[str, dict[str, Route]] = {}
for _route in ROUTES:
    _BY_PATH.setdefault(_route.path, {})[_route.method] = _route
_ONLY_WITH = {
    "/scores/around": "userId",
    "/scores/history": "userId",
    "/users/data": "userId",
    **dict.fromkeys((f"/boards/{name}" for name in ("reset", "periods", "export", "imports")), "boardId"),
    **dict.fromkeys((f"/boards/{name}" for name in ("freeze", "unfreeze", "reveal")), "boardId"),
}
"""Paths that are such only with this parameter. Without it the end of the path is an id for the methods that take one,
and the parameter is missing for the others."""
FIXED = {path: methods for path, methods in _BY_PATH.items() if "{" not in path and path not in _ONLY_WITH}
_TEMPLATES = [(path.split("/"), methods) for path, methods in _BY_PATH.items() if "{" in path]


def find(path: str, query: str = "") -> tuple[dict[str, Route], dict[str, str]]:
    """Give the routes of a path by method, and its decoded variables. Raises `Refused` with 404 or 400."""
    fixed = FIXED.get(path)
    if fixed is not None:
        return fixed, {}
    if path in _ONLY_WITH and query_values(query, (_ONLY_WITH[path],)):
        return _BY_PATH[path], {}
    segments = path.split("/")
    for template, methods in _TEMPLATES:
        if len(template) == len(segments) and all(
            part == segment or part.startswith("{") for part, segment in zip(template, segments, strict=True)
        ):
            params = {
                part[1:-1]: decode_path_param(part[1:-1], segment)
                for part, segment in zip(template, segments, strict=True)
                if part.startswith("{")
            }
            return ({**_BY_PATH[path], **methods} if path in _ONLY_WITH else methods), params
    raise Refused(404, "NOT_FOUND", "There is nothing at this address.")


def allowed(methods: dict[str, Route]) -> str:
    """Give the value of an Allow header."""
    names = [*methods, "HEAD"] if "GET" in methods else [*methods]
    return ", ".join([*names, "OPTIONS"])
