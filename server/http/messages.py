"""What goes over HTTP, without any HTTP server: requests, answers, and the one shape of every error.

Pure. Every lane turns what it received into a `Request`, hands it to the service and turns the `Response` into bytes;
so a request gets the same answer whichever way it came in. Bodies are read by `server.api.decoding`.

Rules:
- An error is made by `error`, or raised as `Refused` and turned into one: there is no other way to answer with one, so
  no layer has a shape of its own.
- Header names are lower case. `content-type` and `content-length` are never among a `Response`'s headers: they come
  from its other fields, in `wire_headers`, for every lane alike.
- Query parameters that no route knows are ignored, because caches and proxies add their own; one that a route knows is
  given at most once.
- What a caller sent is quoted in an answer only where it is short.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, unquote_to_bytes

import msgspec

from engine import limits
from engine.commands import id_fault
from server import bounds

Code = Literal[
    "INVALID_REQUEST",
    "UNAUTHENTICATED",
    "UNAUTHORIZED",
    "NOT_FOUND",
    "METHOD_NOT_ALLOWED",
    "CONFLICT",
    "PAYLOAD_TOO_LARGE",
    "RATE_LIMITED",
    "INTERNAL_ERROR",
    "OVERLOADED",
    "OUTCOME_UNKNOWN",
    "NOT_LEADER",
    "WRONG_SHARD",
    "REPLICA_BEHIND",
]
"""Every code that an error can have. A caller may rely on this list; the text of a message may change."""

JSON = "application/json"
MSGPACK = "application/msgpack"
"""https://msgpack.org, registered with IANA under this name; only the batch route takes it."""

DEFAULT_BOARD = "main"

_NO_CONTROLS = r"^[^\u0000-\u001f\u007f-\u009f\u2028\u2029]*$"

# What is allowed stands in these types for the API's description only: `id_fault` is what checks, with better messages.
Id = Annotated[
    str,
    msgspec.Meta(
        extra_json_schema={"minLength": 1, "maxLength": limits.ID_CHARACTERS_MAX, "pattern": _NO_CONTROLS},
    ),
]
Name = Annotated[
    str,
    msgspec.Meta(
        extra_json_schema={"minLength": 1, "maxLength": limits.NAME_CHARACTERS_MAX, "pattern": _NO_CONTROLS},
    ),
]

Headers = tuple[tuple[str, str], ...]
Details = dict[str, Any]

_STATUS_LINES = {int(status): f"HTTP/1.1 {int(status)} {status.phrase}" for status in HTTPStatus}
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_WHOLE_NUMBER = re.compile(r"0|[1-9][0-9]{0,9}")
_ERROR_HEADERS: Headers = (("cache-control", "no-store"), ("x-content-type-options", "nosniff"))


class Request(msgspec.Struct, frozen=True):
    """One request. `path` is as it was sent (percent-encoded), `query` is what follows the `?`.

    `address` is the client's, after trusted proxies. A lane leaves `path_params` (decoded) and `request_id` empty; the
    service fills them in.
    """

    method: str
    path: str
    query: str = ""
    headers: dict[str, str] = {}
    body: bytes = b""
    address: str = ""
    path_params: dict[str, str] = {}
    request_id: str = ""


class Response(msgspec.Struct, frozen=True):
    """One answer. `code` is set on errors, for metrics and logs.

    With `omit_body`, in answer to HEAD, the body is not sent, but its length is told.
    """

    status: int
    body: bytes = b""
    content_type: str = JSON
    headers: Headers = ()
    code: Code | None = None
    omit_body: bool = False


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
    return Response(status, body, JSON, _ERROR_HEADERS + headers, code)


def invalid(field: str, message: str, **details: Any) -> Refused:
    """400 `INVALID_REQUEST` that names the field at fault."""
    return Refused(400, "INVALID_REQUEST", message, {"field": field, **details})


def json_response(value: Any, headers: Headers = ()) -> Response:
    """200 with `value` as JSON."""
    return Response(200, msgspec.json.encode(value), JSON, headers)


def wire_headers(response: Response) -> list[tuple[str, str]]:
    """All headers of an answer, framing included, in the order in which they are sent. Shared by every lane."""
    headers: list[tuple[str, str]] = []
    if response.status not in (204, 304):  # RFC 9110, 8.6 and 15.4.5: no content, so nothing to describe
        headers += [("content-type", response.content_type), ("content-length", str(len(response.body)))]
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


def http_head(response: Response) -> bytes:
    """The head of an answer as far as the service makes it: without what its connection adds, and without its end."""
    lines = [_STATUS_LINES[response.status], *(f"{name}: {value}" for name, value in wire_headers(response)), ""]
    return "\r\n".join(lines).encode("latin-1")


def http_end(*, last: bool, date: str | None = None) -> bytes:
    """The end of a head, with what its connection adds. `last`: the connection ends with the answer, and it says so."""
    lines = [] if date is None else [f"date: {date}"]
    if last:
        lines.append("connection: close")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") if lines else b"\r\n"


def http_bytes(response: Response, *, last: bool = True, date: str | None = None) -> bytes:
    """A full HTTP/1.1 answer."""
    body = b"" if response.omit_body else response.body
    return http_head(response) + http_end(last=last, date=date) + body


def _error_object(code: Code, message: str, details: Details) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "details": details}}


def quoted(text: str) -> str:
    """What a caller sent, short enough to be sent back or logged, and harmless to a terminal."""
    if len(text) > bounds.QUOTED_CHARACTERS_MAX:
        text = text[: bounds.QUOTED_CHARACTERS_MAX] + "…"
    return text if text.isprintable() else "".join(one if one.isprintable() else "\ufffd" for one in text)


# Paths, queries and conditions


def decode_path_param(name: str, raw: str) -> str:
    """One percent-encoded segment of a path as an id. A slash inside an id is sent as %2F."""
    if _BAD_PERCENT.search(raw):
        raise invalid(name, f"{name} is not correctly percent-encoded.")
    try:
        value = unquote_to_bytes(raw).decode("utf-8")
    except UnicodeDecodeError:
        raise invalid(name, f"{name} is not valid UTF-8.") from None
    if fault := id_fault(value):
        raise invalid(name, f"{name} {fault}.")
    return value


def query_values(query: str, names: tuple[str, ...]) -> dict[str, str]:
    """The named parameters of a query, each at most once. Others are ignored: caches and proxies add their own."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=bounds.QUERY_FIELDS_MAX)
    except ValueError:  # also UnicodeDecodeError
        raise invalid("query", "The query is not valid.") from None
    values: dict[str, str] = {}
    for name, value in pairs:
        if name not in names:
            continue
        if name in values:
            raise invalid(name, f"{name} is given more than once.")
        values[name] = value
    return values


def board_of(values: dict[str, str]) -> str:
    """The boardId of a query, or the default."""
    board_id = values.get("boardId", DEFAULT_BOARD)
    if fault := id_fault(board_id):
        raise invalid("boardId", f"boardId {fault}.")
    return board_id


def limit_of(values: dict[str, str], default: int, maximum: int) -> int:
    """The limit of a query, or the default."""
    text = values.get("limit")
    if text is None:
        return default
    limit = int(text) if _WHOLE_NUMBER.fullmatch(text) else 0
    if not 1 <= limit <= maximum:
        raise invalid("limit", f"limit must be a whole number from 1 to {maximum}.", minimum=1, maximum=maximum)
    return limit


def etag_matches(if_none_match: str | None, etag: str) -> bool:
    """RFC 9110, 13.1.2: weak comparison with a list of tags, or `*`."""
    if if_none_match is None:
        return False
    if if_none_match.strip() == "*":
        return True
    tags = (tag.strip().removeprefix("W/") for tag in if_none_match.split(","))
    return etag.removeprefix("W/") in tags
