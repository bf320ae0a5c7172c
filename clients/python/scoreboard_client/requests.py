"""What is sent: the requests of all calls, as values. Pure.

    request = increment(Action("bob", "order-4711"))        Request("POST", "/scores/increment", b"{…}")
    request = score("main", "a/b")                          the id in the query, so that a slash in it is no trouble

Rules:
- Limits of the server are not repeated here, because they may change: its answer names the field. What cannot be sent
  at all is refused here, and the error names the field too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from scoreboard_client.answers import Position

BATCH_ITEMS_MAX = 1_000
"""What the server takes in one batch."""

DEFAULT_BOARD = "main"


@dataclass(frozen=True, slots=True)
class Request:
    """A request to any node. `target` is the path and the query. It may be sent again at any time."""

    method: str
    target: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Action:
    """Something that a user completed. Without a `reason` it is the server's ACTION_COMPLETED.

    Raises ValueError or TypeError, which name the field.
    """

    user_id: str
    action_id: str
    board_id: str = DEFAULT_BOARD
    reason: str | None = None
    value: int | None = None

    def __post_init__(self) -> None:
        checked_id("user_id", self.user_id)
        checked_id("action_id", self.action_id)
        checked_id("board_id", self.board_id)
        if self.reason is not None:
            checked_id("reason", self.reason)
        if self.value is not None and (isinstance(self.value, bool) or not isinstance(self.value, int)):
            raise TypeError(f"value must be an int, not {type(self.value).__name__}")

    def form(self) -> dict[str, Any]:
        """Give the body of the request."""
        form: dict[str, Any] = {"userId": self.user_id, "actionId": self.action_id, "boardId": self.board_id}
        if self.reason is not None:
            form["reason"] = self.reason
        if self.value is not None:
            form["value"] = self.value
        return form


def checked_id(name: str, value: object) -> str:
    """Give an id that can be sent. Raises TypeError or ValueError."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {type(value).__name__}")
    if not value:
        raise ValueError(f"{name} must not be empty")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} has half of a surrogate pair, which is no text") from None
    return value


def bearer(token: object) -> dict[str, str]:
    """Give the header of a token, which may end with a line break, as the text of a file does.

    Raises TypeError or ValueError, which do not repeat the token.
    """
    if token is None:
        return {}
    if not isinstance(token, str):
        raise TypeError(f"token must be a str, not {type(token).__name__}")
    token = token.strip()
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError("token has a character that is in no token")
    return {"authorization": f"Bearer {token}"} if token else {}


def increment(action: Action) -> Request:
    """Count one action."""
    return _post("/scores/increment", action.form())


def increment_batch(actions: Sequence[Action]) -> Request:
    """Count up to BATCH_ITEMS_MAX actions, in their order."""
    return _post("/scores/increment/batch", [action.form() for action in actions])


def top(board_id: str, limit: int | None, minimum: Position | None) -> Request:
    """Ask for the first rows of a board."""
    return _get("/scoreboard/top", {"boardId": board_id, "limit": limit}, minimum)


def score(board_id: str, user_id: str, minimum: Position | None) -> Request:
    """Ask for one user's score."""
    return _get("/scores", {"userId": checked_id("user_id", user_id), "boardId": board_id}, minimum)


def around(board_id: str, user_id: str, limit: int | None, minimum: Position | None) -> Request:
    """Ask for one user's neighbours."""
    values = {"userId": checked_id("user_id", user_id), "boardId": board_id, "limit": limit}
    return _get("/scores/around", values, minimum)


def query(board_id: str, user_ids: Sequence[str], minimum: Position | None) -> Request:
    """Ask for the ranks of some users."""
    if isinstance(user_ids, str):
        raise TypeError("user_ids must be a list of ids, not a str")
    ids = [checked_id(f"user_ids[{index}]", user_id) for index, user_id in enumerate(user_ids)]
    target = _target("/scores/query", _minimum(minimum))
    return _post(target, {"userIds": ids, "boardId": board_id})


def stream(board_id: str, last_event_id: str) -> Request:
    """Ask for the live channel."""
    headers = {"accept": "text/event-stream"}
    if last_event_id:
        headers["last-event-id"] = last_event_id
    return Request("GET", _target("/sse/scoreboard", {"boardId": board_id}), headers=headers)


def poll(board_id: str, etag: str) -> Request:
    """Ask for the first ten rows if they changed."""
    headers = {"if-none-match": etag} if etag else {}
    return Request("GET", _target("/scoreboard/top", {"boardId": board_id}), headers=headers)


def _post(target: str, value: object) -> Request:
    return Request("POST", target, json.dumps(value).encode(), {"content-type": "application/json"})


def _get(path: str, values: Mapping[str, object], minimum: Position | None) -> Request:
    return Request("GET", _target(path, {**values, **_minimum(minimum)}))


def _minimum(position: Position | None) -> dict[str, object]:
    return {} if position is None else {"minEpoch": position.epoch, "minSeq": position.seq}


def _target(path: str, values: Mapping[str, object]) -> str:
    given = {name: value for name, value in values.items() if value is not None}
    return f"{path}?{urlencode(given)}" if given else path
