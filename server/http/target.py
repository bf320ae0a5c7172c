"""Reads the target of a request: the variables of its path, and its query. Pure.

    check_query(request.query, ("boardId", "limit"))
    values = query_values(request.query, ("boardId", "limit"))
    board_id, limit = board_of(values), limit_of(values, default=10, maximum=100)

Rules:
- A known parameter is given at most once. An unknown one is refused: a client that sends `offset` believes that it gets
  another page. The exception is `_`, which clients add to get past caches.
- A refusal names the field at fault.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, unquote_to_bytes

from engine.texts import id_fault
from server import bounds
from server.http.messages import invalid, quoted

DEFAULT_BOARD = "main"

PUBLIC, LIVE = "public", "live"

ANY_VALUE = "_"
"""A parameter that any route takes and none reads: jQuery and others make each address a new one by it."""

_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_WHOLE_NUMBER = re.compile(r"0|[1-9][0-9]{0,9}")


def decode_path_param(name: str, raw: str) -> str:
    """Decode a percent-encoded segment of a path into an id. A slash inside an id is sent as %2F."""
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
    """The parameters `names` of a query. Others are passed over: `check_query` refuses them."""
    values: dict[str, str] = {}
    for name, value in _pairs(query):
        if name not in names:
            continue
        if name in values:
            raise invalid(name, f"{name} is given more than once.")
        values[name] = value
    return values


def check_query(query: str, names: tuple[str, ...]) -> None:
    """Refuse a query with a parameter that is none of `names`. Raises `Refused`."""
    for name, _ in _pairs(query):
        if name not in names and name != ANY_VALUE:
            known = f"known: {', '.join(names)}" if names else "there are none here"
            raise invalid(quoted(name), f"Unknown parameter {quoted(name)}; {known}.", allowed=list(names))


def _pairs(query: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=bounds.QUERY_FIELDS_MAX)
    except ValueError:  # also UnicodeDecodeError
        raise invalid("query", "The query is not valid.") from None


def ids_of(query: str, names: tuple[str, ...]) -> dict[str, str]:
    """Read ids that must be in a query. A slash needs no encoding there. Raises `Refused`."""
    values = query_values(query, names)
    for name in names:
        if name not in values:
            raise invalid(name, f"{name} is missing.")
        if fault := id_fault(values[name]):
            raise invalid(name, f"{name} {fault}.")
    return values


def board_of(values: dict[str, str]) -> str:
    """The boardId of a query, or the default."""
    board_id = values.get("boardId", DEFAULT_BOARD)
    if fault := id_fault(board_id):
        raise invalid("boardId", f"boardId {fault}.")
    return board_id


def view_of(values: dict[str, str]) -> str:
    """The view of a query: what the public sees, or what counts now, which a freeze hides. Raises `Refused`."""
    view = values.get("view", PUBLIC)
    if view not in (PUBLIC, LIVE):
        raise invalid("view", f"view must be {PUBLIC} or {LIVE}.", allowed=[PUBLIC, LIVE])
    return view


def limit_of(values: dict[str, str], default: int, maximum: int) -> int:
    """The limit of a query, or the default."""
    text = values.get("limit")
    if text is None:
        return default
    limit = int(text) if _WHOLE_NUMBER.fullmatch(text) else 0
    if not 1 <= limit <= maximum:
        raise invalid("limit", f"limit must be a whole number from 1 to {maximum}.", minimum=1, maximum=maximum)
    return limit
