"""What schemathesis must know of this API, and two checks that are stricter than its own. Its command loads this file.

- MessagePack, which it does not speak.
- Boards and reasons: the operator chooses them, so the description can't list them. A good request names existing ones.
- Values: the reasons of that board have fixed points. So a good request has no value.
- Whole numbers: to a schema 5.0 is one, and to this API it is none.
- Boards that are made: what a zone is, and which fields of a period go together, no schema can say. So a good request
  has a good period, and feeds no board. The board of the other routes is never closed: good requests close others.
- Imports: `total` counts what other requests bring, and a board with scores needs `merge`. So all good ones are alike.
- Freezes: `at` must be in the future. So good requests name a far one.
- Names: one that shows nothing is refused, and which characters show something no schema can say.
- Cursors: only the server makes them. So a good request has none.
- Codes: `base` must be on the host of the request. So a good request has none.
- The past: which parameters contradict `asOf` no schema can say, nor which seqs and times have passed.
- Positions: a read of a position that has not come waits, and gets 503.
- Active users: an inactive user can't be incremented, which no schema can say. So good requests deactivate one user and
  increment all others.
- The live channel: while it is off, it refuses good requests. So it stays on.
- Erased users: those whom other requests need are not erased.
- `status_is_named`: the description has a `default` for refusals before a request is whole. With it alone, any status
  would count as described.
- `bad_items_are_told`: a batch is answered item by item (see the exception in schemathesis.toml). So if an item is
  wrong, an item of the answer, or the whole answer, must say so.
"""

from __future__ import annotations

from typing import Any

import hypothesis
import msgspec
import schemathesis
from schemathesis.core.parameters import ParameterLocation

from engine.texts import name_fault

BOARD = "main"
REASON = "ACTION_COMPLETED"
ACTIVE, INACTIVE, SCORED = "active-user", "inactive-user", "alice"
OPEN_BOARD, CLOSED_BOARD = "cup", "closed-cup"
PERIODS = ({"every": "week", "zone": "Europe/Berlin", "at": "monday 06:00"}, {"starts": "2020-01-01T00:00:00Z"}, None)
BOARD_CHANGES = ("put_board", "reset_board", "freeze_board", "unfreeze_board", "reveal_board")
PASTS = {"asOfSeq": 1, "asOf": "2026-01-01T00:00:00Z"}
NOT_OF_THE_PAST = ("period", "view", "minSeq", "minEpoch")
FAR = "2999-01-01T00:00:00Z"
REFUSED_BY_THE_CONNECTION = {400, 408, 431}
METHOD_NOT_ALLOWED = 405


@schemathesis.serializer("application/msgpack")
def pack(_context: Any, value: Any) -> bytes:
    """Write a body. What MessagePack can't hold makes no case."""
    try:
        return msgspec.msgpack.encode(narrowed(value))
    except (OverflowError, ValueError, TypeError):
        hypothesis.reject()


def narrowed(value: Any) -> Any:
    """Give a value without integers of more than 64 bits, which MessagePack has not. No field takes the largest."""
    if isinstance(value, int):
        return min(max(value, -(2**63)), 2**64 - 1)
    if isinstance(value, list):
        return [narrowed(each) for each in value]
    return {name: narrowed(each) for name, each in value.items()} if isinstance(value, dict) else value


@schemathesis.deserializer("application/msgpack")
def unpack(_context: Any, response: Any) -> Any:
    """Read an answer."""
    return msgspec.msgpack.decode(response.content)


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: Any) -> None:
    """Make good requests name an existing board and reason, and an active user; make all name an existing position."""
    if isinstance(case.query, dict):
        for name in ("minSeq", "minEpoch"):
            if str(case.query.get(name, "")).isdecimal():
                case.query[name] = 0
    if is_positive(case):
        make_good(case)
    keep_boards_open(case)
    keep_users(case)
    keep_live_on(case)


def make_good(case: Any) -> None:
    """Change what no schema can say."""
    if isinstance(case.query, dict) and "boardId" in case.query:
        case.query["boardId"] = BOARD
    if isinstance(case.query, dict):
        case.query.pop("cursor", None)
        case.query.pop("base", None)
        ask_for_one_past(case.query)
    make_good_board(case)
    make_good_correction(case)
    make_good_import(case)
    if isinstance(case.body, dict):
        name, step = case.body.get("displayName"), case.body.get("step")
        if isinstance(name, str) and name_fault(name):
            case.body["displayName"] = "Name"
        if isinstance(step, float):
            case.body["step"] = int(step)
        if "at" in case.body:
            case.body["at"] = FAR
    if isinstance(case.body, dict) and case.body.get("active") is False:
        case.path_parameters["userId"] = INACTIVE
    for item in case.body if isinstance(case.body, list) else [case.body]:
        if isinstance(item, dict) and "boardId" in item:
            item["boardId"] = BOARD
        if isinstance(item, dict) and "reason" in item:
            item["reason"] = REASON
        if isinstance(item, dict) and "actionId" in item:
            item.pop("value", None)
        if isinstance(item, dict) and item.get("userId") == INACTIVE:
            item["userId"] = ACTIVE


def make_good_correction(case: Any) -> None:
    """Name actions in one way, and look only: others count on the scores. Accept a review without a reversal."""
    if isinstance(case.path_parameters, dict) and "reviewId" in case.path_parameters:
        case.path_parameters["reviewId"] = "1-0"
    if not isinstance(case.body, dict):
        return
    if "decision" in case.body:
        case.body = {"decision": "accept", "note": None}
    elif "reversalId" in case.body:
        case.body = {"reversalId": "dispute", "reason": "looked wrong", "userId": ACTIVE, "preview": True}


def make_good_import(case: Any) -> None:
    """Send the one row of one import, again and again: `total`, `firstRow` and the board's scores must fit."""
    if isinstance(case.body, dict) and "importId" in case.body:
        name_board(case, BOARD)
        row = {"userId": ACTIVE, "score": 1, "reachedAt": None}
        case.body = {"importId": "season-1", "digest": "one row", "total": 1, "merge": True, "rows": [row]}


def ask_for_one_past(query: dict[str, Any]) -> None:
    """Ask for the present, or for one moment that has passed and for nothing that contradicts it."""
    asked = [name for name in PASTS if name in query]
    if asked:
        for name in (*PASTS, *NOT_OF_THE_PAST):
            query.pop(name, None)
        query[asked[0]] = PASTS[asked[0]]


def name_board(case: Any, board_id: str) -> None:
    """Put the board where the operation names one."""
    for place in (case.path_parameters, case.query):
        if isinstance(place, dict) and "boardId" in place:
            place["boardId"] = board_id


def keep_boards_open(case: Any) -> None:
    """Close no board that others need. Also a case that is wrong elsewhere may be carried out."""
    named = [place.get("boardId") for place in (case.path_parameters, case.query) if isinstance(place, dict)]
    if case.method.upper() == "DELETE" and (is_positive(case) or {BOARD, OPEN_BOARD} & {str(name) for name in named}):
        name_board(case, CLOSED_BOARD)


def keep_users(case: Any) -> None:
    """Erase nobody whom others need."""
    for place in (case.path_parameters, case.query):
        named = place.get("userId") if isinstance(place, dict) and case.method.upper() == "DELETE" else None
        if named is not None and (is_positive(case) or named in (ACTIVE, INACTIVE, SCORED)):
            place["userId"] = "goner"


def keep_live_on(case: Any) -> None:
    """Let no request switch the live channel off, which others ask for."""
    if isinstance(case.body, dict) and case.body.get("enabled") is False:
        case.body["enabled"] = True


def make_good_board(case: Any) -> None:
    """Make a good request about boards name a board of its own, with a form that is good as a whole."""
    if case.operation.definition.raw["operationId"].removesuffix("_by_query") in BOARD_CHANGES:
        name_board(case, OPEN_BOARD)
    if isinstance(case.body, dict) and "points" in case.body:
        case.body["points"] = {"WIN": 10, "LATE": -5, "LAP": {"min": 1, "max": 90}}
        case.body.update(title="Cup", feeds=[], keep_periods=52, period=PERIODS[len(str(case.body)) % len(PERIODS)])
        if case.body.get("watch") is not None:
            case.body["watch"] = {"callers_per_user": 3}


@schemathesis.check
def status_is_named(_context: Any, response: Any, case: Any) -> None:
    """Each status must be one that the operation names or one of the connection's; another method gets 405."""
    operation, method = case.operation, case.method.upper()
    allowed = {int(status) for status in operation.definition.raw["responses"] if status != "default"}
    if method == "OPTIONS":
        allowed = {204}
    elif method != operation.method.upper() and method != "HEAD":
        allowed = {METHOD_NOT_ALLOWED}
    allowed |= REFUSED_BY_THE_CONNECTION
    assert response.status_code in allowed, f"{response.status_code} is none of {sorted(allowed)}"


@schemathesis.check
def bad_items_are_told(_context: Any, response: Any, case: Any) -> None:
    """The answer to a batch with a wrong item must say so."""
    if case.operation.definition.raw["operationId"] != "increment_batch" or response.status_code != 200:
        return
    body = None if case.meta is None else case.meta.components.get(ParameterLocation.BODY)
    if body is not None and body.mode.is_negative:
        told = (
            response.json()
            if "json" in response.headers["content-type"][0]
            else msgspec.msgpack.decode(response.content)
        )
        assert any(item["status"] >= 400 for item in told), told


def is_positive(case: Any) -> bool:
    """Whether everything in a case is valid."""
    return case.meta is not None and bool(case.meta.generation.mode.is_positive)
