"""The description of the HTTP interface, OpenAPI 3.1, made from the code itself. Pure.

    paths, methods, scopes      from `server.api.routes`
    bodies and answers          from the structs that decode and encode them
    limits                      from the bounds that are checked
    purpose and errors          from the table in `server.api.descriptions`, a row for each route

So it can't promise a field that is not there. A test checks real answers against it.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec

from engine.limits import BATCH_COMMANDS_MAX, ID_CHARACTERS_MAX, SEQ_MAX
from server import bounds
from server.api import about, answers, examples
from server.api.descriptions import BATCH, LINKS, Either, Operation
from server.api.descriptions import OPERATIONS as SCORES
from server.api.feed_descriptions import FEEDS
from server.api.page_descriptions import PAGES
from server.api.quorum_descriptions import QUORUM
from server.api.review_forms import STATES
from server.api.routes import BY_QUERY, ROUTES, Route
from server.api.webhook_forms import WebhookName
from server.http.messages import JSON, MSGPACK, Id
from server.http.target import DEFAULT_BOARD

Schema = dict[str, Any]

VERSION = "1.2.0"
"""Of the interface, not of the program. It grows with each change that a client can see."""

OPERATIONS: dict[str, Operation] = {**SCORES, **FEEDS, **PAGES, **QUORUM}

TAGS = ("Scores", "Boards", "Feeds", "Corrections", "Users", "Operations", "Pages")

_NEEDED = "May have slashes."
_BASE = "https://board.example/live/"
_THEN = "2026-11-28T18:00:00Z"
_FORMAT = "The format of the file."
_COMPONENTS = "#/components"
_SCHEMAS = _COMPONENTS + "/schemas/{name}"


_ERROR_HEADERS = {
    307: "Location",
    401: "WWW-Authenticate",
    403: "WWW-Authenticate",
    426: "Upgrade",
    429: "Retry-After",
    503: "Retry-After",
}


@cache
def encoded(*, public_reads: bool) -> bytes:
    """Give the description as JSON. It is made once in the life of a process."""
    return msgspec.json.encode(document(public_reads=public_reads))


def document(*, public_reads: bool) -> Schema:
    """Make the description."""
    paths: dict[str, Schema] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, public_reads)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Live scoreboard",
            "version": VERSION,
            "description": about.ABOUT,
            "license": {"name": "MIT"},
        },
        "servers": [{"url": "."}],
        "tags": [{"name": name} for name in TAGS],
        "paths": paths,
        "components": {
            "schemas": _schemas(),
            "parameters": _parameters(),
            "headers": _headers(),
            "responses": {name: _error_response(status, text) for status, (name, text) in about.ERRORS.items()},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
    }


def _operation(route: Route, public_reads: bool) -> Schema:
    handler = route.handler.removesuffix(BY_QUERY)
    operation = OPERATIONS[handler]
    names = (f"{name}Query" if name in route.ids else name for name in operation.parameters)
    described: Schema = {
        "operationId": route.handler,
        "tags": [operation.tag],
        "summary": route.summary,
        "description": operation.about,
        "parameters": [{"$ref": f"{_COMPONENTS}/parameters/{name}"} for name in names],
        "responses": _responses(operation),
        "security": [{"token": [scope]} for scope in route.scopes],
    }
    if route.public_read and route.scopes and public_reads:
        described["security"].insert(0, {})
    if operation.etag:
        described["parameters"].append({"$ref": f"{_COMPONENTS}/parameters/ifNoneMatch"})
    if operation.body is not None:
        schema = {"schema": _body_schema(operation.body)}
        content = {JSON: {**schema, "example": examples.REQUESTS[handler]}}
        if operation.packed:
            content[MSGPACK] = schema
        described["requestBody"] = {"required": operation.needs_body, "content": content}
    if handler in examples.ANSWERS:
        described["responses"]["200"]["content"][JSON]["example"] = examples.ANSWERS[handler]
    return described


def _responses(operation: Operation) -> Schema:
    headers: Schema = {"X-Request-Id": _header("X-Request-Id")}
    if operation.etag:
        headers["ETag"] = _header("ETag")
    if "minSeq" in operation.parameters:
        headers |= {name: _header(name) for name in ("X-Scoreboard-Lag-Records", "X-Scoreboard-Lag-Ms")}
    if operation.answer is None:
        responses: Schema = {"101": {"description": "The connection is a WebSocket from here on."}}
    else:
        content = _content(operation.answer)
        if operation.packed:
            content[MSGPACK] = {**content[JSON]}  # a dict for each: JSON gets an example
        responses = {"200": {"description": "Done.", "headers": headers, "content": content}}
    for name in operation.headers:
        headers[name.replace("RetryAfter", "Retry-After")] = _header(name)
    if operation.links:
        responses["200"]["links"] = {name: _link(*LINKS[name]) for name in operation.links}
    if operation.made:
        responses["201"] = {**responses["200"], "description": "Made."}
    if operation.etag:
        responses["304"] = {"description": "The client has the newest already.", "headers": headers}
    for status in operation.errors:
        responses[str(status)] = {"$ref": f"{_COMPONENTS}/responses/{about.ERRORS[status][0]}"}
    # The connection may refuse a request before its route is known: with 400, 408 or 431.
    responses["default"] = {"description": "Any other refusal.", "content": _content(answers.ErrorAnswer)}
    return responses


def _link(operation_id: str, fields: tuple[str, ...]) -> Schema:
    return {"operationId": operation_id, "parameters": {name: f"$response.body#/{name}" for name in fields}}


def _content(answer: Any) -> Schema:
    if isinstance(answer, frozenset):
        return {kind: {"schema": {"type": "string"}} for kind in sorted(answer)}
    if isinstance(answer, str):
        return {answer: {"schema": {"type": "object"} if answer == JSON else {"type": "string"}}}
    if isinstance(answer, tuple):
        schema = {"type": "array", "items": {"oneOf": [_schema_of(kind) for kind in answer]}}
        return {JSON: {"schema": schema}}
    if isinstance(answer, Either):
        return {JSON: {"schema": {"oneOf": [_schema_of(answer.one), _schema_of(answer.other)]}}}
    return {JSON: {"schema": _schema_of(answer)}}


def _body_schema(body: Any) -> Schema:
    schema = _schema_of(body)
    return {**schema, "minItems": 1, "maxItems": BATCH_COMMANDS_MAX} if body is BATCH else schema


@cache
def _schema_of(kind: Any) -> Schema:
    """Describe a type. Two thirds of all answers are described by the same few."""
    [schema], _ = msgspec.json.schema_components([kind], ref_template=_SCHEMAS)
    return schema


def _schemas() -> Schema:
    kinds: list[Any] = [answers.ErrorAnswer]
    for operation in OPERATIONS.values():
        answer = operation.answer
        answer = (answer.one, answer.other) if isinstance(answer, Either) else answer
        kinds += answer if isinstance(answer, tuple) else [answer]
        kinds.append(operation.body)
    structs = [kind for kind in kinds if kind is not None and not isinstance(kind, str | frozenset)]
    _, schemas = msgspec.json.schema_components(structs, ref_template=_SCHEMAS)
    # At least one of the two; a null of `active` is as if it was left out.
    active = {"required": ["active"], "properties": {"active": {"type": "boolean"}}}
    schemas["UserBody"]["anyOf"] = [{"required": ["displayName"]}, active]
    del schemas["UserBody"]["required"]  # empty, which says nothing
    schemas["UserBody"]["examples"] = [examples.REQUESTS["put_user"]]
    for field in ("reason", "boardId"):
        properties = schemas["IncrementBody"]["properties"]
        default = properties[field].pop("default")
        properties[field] = {"anyOf": [properties[field], {"type": "null"}], "default": default}
    schemas["IncrementBody"]["examples"] = [examples.REQUESTS["increment"]]
    # Points are never 0.
    worths = schemas["BoardForm"]["properties"]["points"]["additionalProperties"]["anyOf"]
    points = next(worth for worth in worths if worth.get("type") == "integer")
    worths[worths.index(points)] = {**points, "minimum": 1}
    worths.append({**points, "maximum": -1})
    return schemas


def _error_response(status: int, about: str) -> Schema:
    headers = {"X-Request-Id": _header("X-Request-Id")}
    if status in _ERROR_HEADERS:
        headers[_ERROR_HEADERS[status]] = _header(_ERROR_HEADERS[status])
    content = _content(answers.ErrorAnswer)
    content[JSON]["example"] = examples.ERRORS[status]
    return {"description": about, "headers": headers, "content": content}


def _header(name: str) -> Schema:
    return {"$ref": f"{_COMPONENTS}/headers/{name}"}


def _headers() -> Schema:
    text = {"type": "string"}
    lag = {"type": "string", "pattern": "^([0-9]+|unknown)$"}
    return {
        "X-Request-Id": {"description": "The request's id in the server's logs.", "schema": text},
        "ETag": {"description": "The position that the answer shows. A past period has none.", "schema": text},
        "X-Scoreboard-Lag-Records": {
            "description": "On a replica: the leader's events that are not applied here; `unknown` until it is heard.",
            "schema": lag,
        },
        "X-Scoreboard-Lag-Ms": {
            "description": "On a replica: how long it has known of an event that it does not show. Until the leader "
            "is heard: the age of its last event, `unknown` if there is none.",
            "schema": lag,
        },
        "Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}, "required": True},
        "RetryAfter": {
            "description": "Seconds until the items that a limit refused may be sent again.",
            "schema": {"type": "integer", "minimum": 1},
        },
        "X-Scoreboard-Refused": {"description": "How many items were refused, if any were.", "schema": _whole(1)},
        "X-Scoreboard-Rate-Limited": {
            "description": "How many of the refused items a limit refused.",
            "schema": _whole(0),
        },
        "Content-Disposition": {"description": "A name for the file.", "schema": text},
        "X-Scoreboard-Epoch": {"description": "The epoch of the rows.", "schema": _whole(1)},
        "X-Scoreboard-Seq": {"description": "The last event that changed the board.", "schema": _whole(0)},
        "WWW-Authenticate": {"description": "Always with 401; with 403 if a scope is missing.", "schema": text},
        "Location": {"description": "The same path at the leader.", "schema": text, "required": True},
        "Upgrade": {"description": "What the connection must become.", "schema": text, "required": True},
    }


def _parameters() -> Schema:
    return {
        "userId": _parameter(
            "userId", "path", {**_schema_of(Id), "examples": [examples.USER_ID]}, "A slash is sent as %2F."
        ),
        "actionId": _parameter(
            "actionId", "path", {**_schema_of(Id), "examples": [examples.ACTION_ID]}, "A slash is sent as %2F."
        ),
        "userIdQuery": _parameter("userId", "query", {**_schema_of(Id), "examples": ["a/b"]}, _NEEDED),
        "actionIdQuery": _parameter("actionId", "query", {**_schema_of(Id), "examples": ["a/b"]}, _NEEDED),
        "reversalId": _parameter(
            "reversalId", "path", {**_schema_of(Id), "examples": ["dispute-17"]}, "A slash is sent as %2F."
        ),
        "reversalIdQuery": _parameter("reversalId", "query", {**_schema_of(Id), "examples": ["a/b"]}, _NEEDED),
        "boardId": _parameter(
            "boardId", "path", {**_schema_of(Id), "examples": [examples.BOARD_ID]}, "A slash is sent as %2F."
        ),
        "boardIdQuery": _parameter("boardId", "query", {**_schema_of(Id), "examples": ["a/b"]}, _NEEDED),
        "importId": _parameter(
            "importId", "path", {**_schema_of(Id), "examples": [examples.IMPORT_ID]}, "A slash is sent as %2F."
        ),
        "importIdFilter": _parameter("importId", "query", _schema_of(Id), "Only this import. May have slashes."),
        "boardIdFilter": _parameter("boardId", "query", _schema_of(Id), "Only this board. May have slashes."),
        "boardIdDefault": _parameter("boardId", "query", {**_schema_of(Id), "default": DEFAULT_BOARD}, "Which board."),
        "topLimit": _parameter("limit", "query", _limit(bounds.TOP_LIMIT_DEFAULT, bounds.TOP_LIMIT_MAX), "Rows."),
        "listLimit": _parameter("limit", "query", _limit(bounds.LIST_LIMIT_DEFAULT, bounds.LIST_LIMIT_MAX), "Rows."),
        "cursor": _parameter("cursor", "query", {"type": "string", "minLength": 1}, "The `nextCursor` of a page."),
        "aroundLimit": _parameter(
            "limit", "query", _limit(bounds.AROUND_LIMIT_DEFAULT, bounds.AROUND_LIMIT_MAX), "Neighbours on each side."
        ),
        "period": _parameter(
            "period",
            "query",
            {"type": "string", "minLength": 1, "maxLength": ID_CHARACTERS_MAX, "examples": ["previous", "2026-W48"]},
            "A period that has ended: its id, or `previous`.",
        ),
        "view": _parameter(
            "view",
            "query",
            {"type": "string", "enum": ["public", "live"], "default": "public"},
            "`live`: the present of a board that may be frozen. It needs a token with `scores:read`.",
        ),
        "format": _parameter("format", "query", {"type": "string", "enum": ["csv", "ndjson"]}, _FORMAT),
        "asOfSeq": _parameter("asOfSeq", "query", _whole(1), "The board as it was after this event."),
        "asOf": _parameter("asOf", "query", {"type": "string", "examples": [_THEN]}, "The same, at this time."),
        "reviewId": _parameter("reviewId", "path", {"type": "string", "examples": [examples.REVIEW_ID]}, "Its id."),
        "reviewState": _parameter(
            "state", "query", {"type": "string", "enum": [*STATES], "default": "open"}, "Only reviews in this state."
        ),
        "webhookName": _parameter("name", "path", {**_schema_of(WebhookName), "examples": ["shop"]}, "Of the hook."),
        "minSeq": _parameter("minSeq", "query", _whole(0), "Wait, for a bounded time, for this seq."),
        "minEpoch": _parameter("minEpoch", "query", _whole(0), "The epoch of that position."),
        "sinceToken": _parameter("since_token", "query", {"type": "string"}, "The token of the last event that came."),
        "base": _parameter("base", "query", {"type": "string", "examples": [_BASE]}, "Where the page is seen."),
        "readyRole": _parameter("role", "query", {"type": "string", "enum": ["leader"]}, "Ready only if it leads."),
        "lastEventId": _parameter("Last-Event-ID", "header", {"type": "string"}, "The id of the last event that came."),
        "ifNoneMatch": _parameter("If-None-Match", "header", {"type": "string"}, "The ETag of what the client has."),
    }


def _parameter(name: str, place: str, schema: Schema, about: str) -> Schema:
    return {
        "name": name,
        "in": place,
        "required": place == "path" or about in (_NEEDED, _FORMAT),
        "schema": schema,
        "description": about,
    }


def _whole(minimum: int) -> Schema:
    return {"type": "integer", "minimum": minimum, "maximum": SEQ_MAX}


def _limit(default: int, maximum: int) -> Schema:
    return {"type": "integer", "minimum": 1, "maximum": maximum, "default": default}
