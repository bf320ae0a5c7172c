"""What pages of other sites may do (CORS, in the Fetch standard): read the answers to public reads. Pure.

    cross_origin = CrossOrigin(origins)
    headers = cross_origin.headers(request)                  of every answer to a public read
    response = cross_origin.options(request, methods)        the answer to OPTIONS, a browser's preflight among them

Rules:
- Pages may read if their origin is on the live channel's list. A page may send any header with a read: tracing adds
  some, and none of them does any harm here.
- Pages can never write: tokens for writing do not belong in a browser, so no preflight allows a route that writes.
"""

from __future__ import annotations

import re
from collections.abc import Container

from server import bounds
from server.api.routes import Route, allowed
from server.http.messages import Headers, Request, Response
from server.http.origins import EXPOSED, origin_headers, with_one_vary

_HEADER_NAMES = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:[ \t]*,[ \t]*[!#$%&'*+.^_`|~0-9A-Za-z-]+)*")
_ANY_HEADER = "*, authorization"
"""Some old browsers do not know this, and `*` alone does not mean the header Authorization."""


class CrossOrigin:
    """Pages of `origins` (None: all) may read."""

    def __init__(self, origins: Container[str] | None) -> None:
        self._origins = origins

    def change(self, origins: Container[str] | None) -> None:
        """Let pages of other origins read from now on."""
        self._origins = origins

    def options(self, request: Request, methods: dict[str, Route]) -> Response:
        """Tell the allowed methods, and tell a browser what a page of another site may send."""
        headers: Headers = (("allow", allowed(methods)),)
        wanted = request.headers.get("access-control-request-method", "")
        route = methods.get("GET" if wanted == "HEAD" else wanted)
        if route is not None and route.public_read:
            headers += (
                ("access-control-allow-methods", "GET, HEAD" if route.method == "GET" else route.method),
                ("access-control-allow-headers", _headers_allowed(request)),
                ("access-control-max-age", str(bounds.PREFLIGHT_SECONDS)),
                *origin_headers(self._origins, request.headers.get("origin", "")),
            )
        return Response(204, headers=headers)

    def headers(self, request: Request) -> Headers:
        """Let pages of allowed origins read the answer to a public read."""
        return (*origin_headers(self._origins, request.headers.get("origin", "")), EXPOSED)

    def add(self, headers: Headers, request: Request) -> Headers:
        """The same, behind the other headers of the answer."""
        return with_one_vary((*headers, *self.headers(request)))


def _headers_allowed(request: Request) -> str:
    """Give the headers that a page asks for. A list that is malformed or too long gets the general answer."""
    asked = request.headers.get("access-control-request-headers", "")
    if len(asked) <= bounds.PREFLIGHT_HEADERS_CHARACTERS_MAX and _HEADER_NAMES.fullmatch(asked):
        return asked
    return _ANY_HEADER
