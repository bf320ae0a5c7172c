"""HTTP requests and answers as values, and the one shape of every error. Pure.

    raise invalid("limit", "limit must be a whole number.")     # a Refused; any other: Refused(404, "NOT_FOUND", ...)
    response = json_response({"status": "ok"})

Every lane turns what it received into a `Request`, hands it to the pipeline and turns the `Response` into bytes. So a
request gets the same answer in every lane. Bodies are read by `server.api.decoding`, the bytes of an answer are made by
`server.http.response_head`.

Rules:
- An error answer is made by `error`, or raised as `Refused`. There is no other way, so every error has the same shape.
- Header names are lower case. A `Response`'s headers never contain `content-type` and `content-length`: `wire_headers`
  adds them from its other fields.
- What a caller sent is quoted in an answer only after `quoted` has shortened it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal, Protocol

import msgspec

from engine import limits
from server import bounds

Code = Literal[
    "INVALID_REQUEST", "UNAUTHENTICATED", "UNAUTHORIZED", "NOT_FOUND", "METHOD_NOT_ALLOWED", "CONFLICT",
    "PAYLOAD_TOO_LARGE", "RATE_LIMITED", "INTERNAL_ERROR", "OVERLOADED", "OUTCOME_UNKNOWN", "DISK_FULL",
    "NOT_LEADER", "WRONG_SHARD", "REPLICA_BEHIND", "KEYS_UNAVAILABLE", "CURSOR_EXPIRED", "BOARD_CLOSED",
    "BOARD_NOT_OPEN", "PERIOD_UNAVAILABLE", "NO_LONGER_KEPT", "PAST_UNAVAILABLE", "ERASED",
    "NO_QUORUM",
]  # fmt: skip
"""Every code that an error can have. A caller may rely on this list; the text of a message may change."""

JSON = "application/json"
MSGPACK = "application/msgpack"
"""The name that IANA has registered for msgpack; only the batch route takes it."""

_NO_CONTROLS = r"^[^\u0000-\u001f\u007f-\u009f\u2028\u2029]*$"

# These types only describe the API. `id_fault` does the checking, with better messages.
Id = Annotated[
    str,
    msgspec.Meta(extra_json_schema={"minLength": 1, "maxLength": limits.ID_CHARACTERS_MAX, "pattern": _NO_CONTROLS}),
]
Name = Annotated[
    str,
    msgspec.Meta(extra_json_schema={"minLength": 1, "maxLength": limits.NAME_CHARACTERS_MAX, "pattern": _NO_CONTROLS}),
]

Headers = tuple[tuple[str, str], ...]
Details = dict[str, Any]

RETRY_SOON: Headers = (("retry-after", str(bounds.RETRY_AFTER_SECONDS)),)
"""The header of every answer that asks the client to retry soon."""

RETRY_WITH_ROOM: Headers = (("retry-after", str(bounds.DISK_FULL_RETRY_SECONDS)),)
"""The header of an answer that could not be given for want of room on the disk."""

NO_SNIFF = ("x-content-type-options", "nosniff")
NO_STORE: Headers = (("cache-control", "no-store"), NO_SNIFF)
NO_CACHE: Headers = (("cache-control", "no-cache"), NO_SNIFF)
"""What caches may do with an answer: nothing, or keep it and ask each time whether it still holds."""


class Request(msgspec.Struct, frozen=True):
    """One request. `path` is that of `path_of`, still percent-encoded; `query` is what follows the `?`.

    `address` is the client's, after trusted proxies. The pipeline fills in `path_params` (decoded) and `request_id`.
    """

    method: str
    path: str
    query: str = ""
    headers: dict[str, str] = {}
    body: bytes = b""
    address: str = ""
    path_params: dict[str, str] = {}
    request_id: str = ""


class RequestHead(msgspec.Struct, frozen=True):
    """The head of a request as it came in. `rest` is what was read after it.

    The request line is `method target version`. Header names are in lower case, values are stripped of white space; a
    header that came twice is listed twice.
    """

    method: str
    target: str
    version: str
    headers: list[tuple[str, str]]
    rest: bytes = b""

    @property
    def path(self) -> str:
        return path_of(self.target)

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]

    def values(self, name: str) -> list[str]:
        """Give the values of all lines of a header."""
        return [value for header, value in self.headers if header == name]

    def joined(self, name: str) -> str | None:
        """Give all lines of a header, joined by commas (RFC 9110, section 5.3); None without one."""
        values = self.values(name)
        return ", ".join(values) if values else None

    def words(self, name: str) -> list[str]:
        """Give a header that is a list of words, as it was sent."""
        return [word for part in ",".join(self.values(name)).split(",") if (word := part.strip(" \t"))]

    def tokens(self, name: str) -> list[str]:
        """Give a header that is a list of words, in lower case."""
        return [word.lower() for word in self.words(name)]


class Stream(Protocol):
    """A body that is made while it is sent, part by part. Its length is not known before."""

    async def part(self) -> bytes:
        """Give the next part, empty after the last one. After an exception the connection is cut."""

    def close(self) -> None:
        """Free what it holds. Called once the answer was sent, or could not be."""


class Response(msgspec.Struct, frozen=True):
    """One answer. Errors have a `code`. With `omit_body`, in answer to HEAD, only the length of the body is sent.

    `stream` stands in the place of `body`. Only the Hypercorn lane sends streams: no route of another lane has any.
    """

    status: int
    body: bytes = b""
    content_type: str = JSON
    headers: Headers = ()
    code: Code | None = None
    omit_body: bool = False
    stream: Stream | None = None


class Refused(Exception):
    """A request, or one item of a batch, that is answered with an error."""

    def __init__(
        self, status: int, code: Code, message: str, details: Details | None = None, headers: Headers = ()
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code: Code = code
        self.message = message
        self.details: Details = details or {}
        self.headers = headers

    def response(self) -> Response:
        """The answer to a whole request."""
        return error(self.status, self.code, self.message, self.details, self.headers)

    def item(self) -> dict[str, Any]:
        """The answer to one item of a batch."""
        return {"status": self.status, **_error_object(self.code, self.message, self.details)}


def error(status: int, code: Code, message: str, details: Details | None = None, headers: Headers = ()) -> Response:
    """An error in the one shape that every layer uses."""
    body = msgspec.json.encode(_error_object(code, message, details or {}))
    return Response(status, body, JSON, NO_STORE + headers, code)


def invalid(field: str, message: str, **details: Any) -> Refused:
    """400 `INVALID_REQUEST` that names the field at fault."""
    return Refused(400, "INVALID_REQUEST", message, {"field": field, **details})


def json_response(value: Any, headers: Headers = ()) -> Response:
    """200 with `value` as JSON."""
    return Response(200, msgspec.json.encode(value), JSON, headers)


def wire_headers(response: Response) -> list[tuple[str, str]]:
    """All headers of an answer in the order in which they are sent, those that describe the body included."""
    headers: list[tuple[str, str]] = []
    if response.status not in (204, 304):  # RFC 9110, 8.6 and 15.4.5: no content, so nothing to describe
        headers.append(("content-type", response.content_type))
        if response.stream is None:
            headers.append(("content-length", str(len(response.body))))
    for name, value in response.headers:
        assert "\n" not in value, name  # or the value would become a header of its own
        assert "\r" not in value, name
        headers.append((name, value))
    return headers


def joined_headers(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The headers of a request by name (in lower case); the values of one that came more than once are joined."""
    headers: dict[str, str] = {}
    for name, value in pairs:
        headers[name] = f"{headers[name]}, {value}" if name in headers else value  # RFC 9110, section 5.3
    return headers


def overloaded(message: str) -> Refused:
    """503 `OVERLOADED`, with Retry-After."""
    return Refused(503, "OVERLOADED", message, headers=RETRY_SOON)


def no_quorum(message: str) -> Refused:
    """503 `NO_QUORUM`, with Retry-After."""
    return Refused(503, "NO_QUORUM", message, headers=RETRY_SOON)


def disk_full() -> Refused:
    """503 `DISK_FULL`, with Retry-After."""
    message = "Nothing was done, because the disk of the server is full. Send it again later."
    return Refused(503, "DISK_FULL", message, headers=RETRY_WITH_ROOM)


def _error_object(code: Code, message: str, details: Details) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "details": details}}


def path_of(target: str) -> str:
    """Give the path of a request's target, percent-encoded. One slash at its end makes no difference, so it is gone."""
    path = target.partition("?")[0]
    return path[:-1] if path.endswith("/") and len(path) > 1 and path[-2] != "/" else path


def quoted(text: str) -> str:
    """What a caller sent, short enough to send back or to log, and without control characters."""
    if len(text) > bounds.QUOTED_CHARACTERS_MAX:
        text = text[: bounds.QUOTED_CHARACTERS_MAX] + "…"
    return text if text.isprintable() else "".join(one if one.isprintable() else "\ufffd" for one in text)


def etag_matches(if_none_match: str | None, etag: str) -> bool:
    """RFC 9110, 13.1.2: weak comparison with a list of tags, or `*`."""
    if if_none_match is None:
        return False
    if if_none_match.strip() == "*":
        return True
    tags = (tag.strip().removeprefix("W/") for tag in if_none_match.split(","))
    return etag.removeprefix("W/") in tags
