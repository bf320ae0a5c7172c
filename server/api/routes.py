"""The table of routes, for the pipeline, the lanes and the OpenAPI document. Pure.

    methods, params = find("/scores/alice")      {"GET": Route(...)}, {"userId": "alice"}; raises `Refused`

Rules:
- Paths are matched as they were sent, and decoded afterwards by segment. So an id may hold a slash (%2F).
- A path without a variable wins, as in OpenAPI: /scores/increment is the route, and the user of that name is at
  /scores/%69ncrement.
- HEAD is allowed wherever GET is, OPTIONS everywhere. Neither is in the table.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from server.http.messages import Refused
from server.http.target import decode_path_param
from server.live.handshake import LIVE_PATH
from server.replication.messages import PROMOTE_PATH

Method = Literal["GET", "POST", "PUT"]


class Route(msgspec.Struct, frozen=True):
    """One operation. It needs a token with one of `scopes`; without any it is open to all.

    `public_read`: it needs no token either while reads are public, and pages of other sites may read the answer.
    `writes`: only a leader does it. `shows_state`: the answer depends on the node's position. `express`: the express
    lane takes it.
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


WRITE = ("scores:write",)
READ = ("scores:read", "scores:write")
USERS = ("users:write",)

ROUTES: tuple[Route, ...] = (
    Route("POST", "/scores/increment", "increment", "Count one action for one user.", WRITE,
          writes=True, express=True),
    Route("POST", "/scores/increment/batch", "increment_batch", "Count up to 1,000 actions.", WRITE,
          writes=True, express=True),
    Route("GET", "/scoreboard/top", "top", "The first rows of a board.", READ,
          public_read=True, shows_state=True, express=True),
    Route("GET", "/scores/{userId}", "score", "One user's score and rank.", READ,
          public_read=True, shows_state=True),
    Route("GET", "/scores/{userId}/around", "around", "A user and the neighbours.", READ,
          public_read=True, shows_state=True),
    Route("PUT", "/users/{userId}", "put_user", "Register a user, or change a name or whether active.", USERS,
          writes=True),
    Route("GET", "/actions/{actionId}", "action", "Whether an action was applied, and its receipt.", READ,
          shows_state=True),
    Route("GET", LIVE_PATH, "live", "The live channel (WebSocket)."),
    Route("POST", PROMOTE_PATH, "promote", "Make this replica the leader.", ("admin",)),
    Route("GET", "/healthz", "healthz", "Whether the process is alive."),
    Route("GET", "/readyz", "readyz", "Whether requests should be sent here."),
    Route("GET", "/metrics", "metrics", "Metrics in Prometheus' text format."),
    Route("GET", "/openapi.json", "openapi", "This description."),
    Route("GET", "/docs", "docs", "A page that shows the description."),
    Route("GET", "/", "index", "The live page."),
)  # fmt: skip

EXPRESS: dict[tuple[str, str], Route] = {(route.method, route.path): route for route in ROUTES if route.express}

_BY_PATH: dict[str, dict[str, Route]] = {}
for _route in ROUTES:
    _BY_PATH.setdefault(_route.path, {})[_route.method] = _route
FIXED = {path: methods for path, methods in _BY_PATH.items() if "{" not in path}
_TEMPLATES = [(path.split("/"), methods) for path, methods in _BY_PATH.items() if "{" in path]


def find(path: str) -> tuple[dict[str, Route], dict[str, str]]:
    """Give the routes of a path by method, and its decoded variables. Raises `Refused` with 404 or 400."""
    fixed = FIXED.get(path)
    if fixed is not None:
        return fixed, {}
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
            return methods, params
    raise Refused(404, "NOT_FOUND", "There is nothing at this address.")


def allowed(methods: dict[str, Route]) -> str:
    """Give the value of an Allow header."""
    names = [*methods, "HEAD"] if "GET" in methods else [*methods]
    return ", ".join([*names, "OPTIONS"])
