"""The headers that let a page of another site read an answer (CORS, in the Fetch standard). Pure."""

from __future__ import annotations

from collections.abc import Container

from server.http.messages import Headers

EXPOSED = (
    "access-control-expose-headers",
    (
        "content-disposition, etag, retry-after, x-request-id, x-scoreboard-epoch, x-scoreboard-lag-ms, "
        "x-scoreboard-lag-records, x-scoreboard-seq"
    ),
)
"""The headers of an answer that such a page may read, beside the usual ones."""


def with_one_vary(headers: Headers) -> Headers:
    """Join the values of all Vary headers: an answer may depend on the origin and on something else."""
    values = [value for name, value in headers if name == "vary"]
    if len(values) < 2:
        return headers
    return (*(header for header in headers if header[0] != "vary"), ("vary", ", ".join(values)))


def origin_headers(allowed: Container[str] | None, origin: str) -> Headers:
    """Let a page of this origin read, if it is allowed. `allowed` None: every page may, whatever its origin."""
    if allowed is None:
        return (("access-control-allow-origin", "*"),)
    if origin in allowed:
        return (("access-control-allow-origin", origin), ("vary", "Origin"))
    return (("vary", "Origin"),)
