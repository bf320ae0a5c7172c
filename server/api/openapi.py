"""The description of the HTTP interface, OpenAPI 3.1, made from the code itself. Pure.

    paths, methods, scopes      from `server.api.routes`
    bodies and answers          from the structs that decode and encode them
    limits                      from the bounds that are checked
    purpose and errors          from the table OPERATIONS below, a row for each route

So it can't promise a field that is not there. A test checks real answers against it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from engine.limits import BATCH_COMMANDS_MAX, SEQ_MAX
from server import bounds
from server.api import about, answers, decoding, examples
from server.api.routes import ROUTES, Route
from server.http.messages import JSON, MSGPACK, Id
from server.http.target import DEFAULT_BOARD

Schema = dict[str, Any]

VERSION = "1.0.0"
"""Of the interface, not of the program. It grows with each change that a client can see."""

_TEXT = "text/plain"
_HTML = "text/html"
_NEEDED = "May have slashes."
_COMPONENTS = "#/components"
_SCHEMAS = _COMPONENTS + "/schemas/{name}"


class Operation(msgspec.Struct, frozen=True):
    """What the table of routes does not say of a route.

    `answer` is a struct; a tuple of structs for an array of items of these kinds; the media type of any other answer;
    or None for no body. `links` names rows of LINKS, `headers` those
    of the answer that only this route has.
    """

    tag: str
    about: str
    answer: Any
    errors: tuple[int, ...] = ()
    parameters: tuple[str, ...] = ()
    body: Any = None
    etag: bool = False
    links: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()


_BATCH = list[decoding.IncrementBody]
_BATCH_ANSWER = (answers.BatchItemAnswer, answers.BatchItemError)

LINKS: dict[str, tuple[str, tuple[str, ...]]] = {
    "receipt": ("action", ("actionId",)),
    "score": ("score", ("userId", "boardId")),
    "around": ("around", ("userId", "boardId")),
    "rename": ("put_user", ("userId",)),
}
"""An operation that an answer leads to, and the fields of the answer that are its parameters."""

OPERATIONS: dict[str, Operation] = {
    "increment": Operation(
        "Scores",
        "The reason's points come from the board's catalogue. An actionId counts once, for ever. Sent again with the "
        "same user, board and reason, the answer has `applied: false`, `delta: 0`, the original's position and the "
        "current score, and costs nothing of the user's limit: repeats have a limit for each caller (`repeats`). With "
        "others it is a conflict. A token that names a user may only increment that user.",
        answers.IncrementAnswer,
        (307, 400, 401, 403, 409, 413, 421, 429, 500, 503),
        body=decoding.IncrementBody,
        links=("receipt", "score", "around"),
    ),
    "increment_batch": Operation(
        "Scores",
        "One answer per item, in order, as if each had been sent alone. An item that is refused leaves the others "
        "alone. All of the batch is on disk before the answer. The limits count every item. Headers count the refused "
        "items; where a limit refused any, `Retry-After` has the longest wait. A batch in MessagePack is answered in "
        "MessagePack.",
        _BATCH_ANSWER,
        (307, 400, 401, 403, 413, 421, 500, 503),
        body=_BATCH,
        headers=("X-Scoreboard-Refused", "X-Scoreboard-Rate-Limited", "RetryAfter"),
    ),
    "top": Operation(
        "Boards",
        "The highest score first; of equal scores, the one that was reached first.",
        answers.TopAnswer,
        (400, 401, 403, 421, 500, 503),
        ("topLimit", "boardId", "minSeq", "minEpoch"),
        etag=True,
    ),
    "walk": Operation(
        "Boards",
        about.WALK,
        answers.WalkAnswer,
        (400, 401, 403, 410, 421, 500, 503),
        ("listLimit", "boardId", "cursor", "minSeq", "minEpoch"),
    ),
    "query": Operation(
        "Boards",
        "In the order of the board. `rank` is among all, `rankAmong` among the users that were asked for. `unranked` "
        "are those without a score, and the inactive ones.",
        answers.QueryAnswer,
        (400, 401, 403, 413, 421, 500, 503),
        ("minSeq", "minEpoch"),
        body=decoding.QueryBody,
    ),
    "score": Operation(
        "Boards",
        about.SCORE,
        answers.ScoreAnswer,
        (400, 401, 403, 404, 421, 500, 503),
        ("userId", "boardId", "minSeq", "minEpoch"),
        links=("around", "rename"),
    ),
    "around": Operation(
        "Boards",
        "`limit` counts the neighbours on each side; at the edges of the board the other side has more. An inactive "
        "user has none. Without a token that may read, the answer about one is 404.",
        answers.AroundAnswer,
        (400, 401, 403, 404, 421, 500, 503),
        ("userId", "aroundLimit", "boardId", "minSeq", "minEpoch"),
    ),
    "put_user": Operation(
        "Users",
        "Name at least one field; the other stays as it is. `displayName: null` takes the name away. A name has at "
        "least one character that can be seen. An inactive user can't be incremented and is on no board, but keeps the "
        "score.",
        answers.UserAnswer,
        (307, 400, 401, 403, 413, 421, 429, 500, 503),
        ("userId",),
        body=decoding.UserBody,
    ),
    "action": Operation(
        "Scores",
        "The receipt is read from the log. Once the log no longer goes back that far, only the position is known.",
        answers.ActionAnswer,
        (400, 401, 403, 404, 421, 500, 503),
        ("actionId", "minSeq", "minEpoch"),
    ),
    "live": Operation("Boards", about.LIVE, None, (400, 401, 403, 426, 503), ("boardId",)),
    "promote": Operation(
        "Operations",
        "Begins the next epoch here, durably, and tells the old leader if it can be reached. Only a replica that holds "
        "every board and keeps its log can be promoted.",
        answers.PromotedAnswer,
        (401, 403, 409, 500, 503),
    ),
    "healthz": Operation("Operations", "Answers while the process is alive.", answers.HealthAnswer),
    "readyz": Operation(
        "Operations",
        "503, with the reason, while stopping or behind. A leader that was replaced says `NOT_LEADER`.",
        answers.ReadyAnswer,
        (503,),
    ),
    "metrics": Operation("Operations", "For Prometheus.", _TEXT, (500,)),
    "openapi": Operation("Pages", "OpenAPI 3.1.", JSON, etag=True),
    "docs": Operation("Pages", "Loads nothing but the description.", _HTML, etag=True),
    "index": Operation("Pages", "Shows `?boardId=`; falls back to polling.", _HTML, etag=True),
}

_ERROR_HEADERS = {
    307: "Location",
    401: "WWW-Authenticate",
    403: "WWW-Authenticate",
    426: "Upgrade",
    429: "Retry-After",
    503: "Retry-After",
}


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
        "tags": [{"name": name} for name in ("Scores", "Boards", "Users", "Operations", "Pages")],
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
    handler = route.handler.removesuffix("_by_query")
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
        if operation.body is _BATCH:
            content[MSGPACK] = schema
        described["requestBody"] = {"required": True, "content": content}
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
        responses = {"200": {"description": "Done.", "headers": headers, "content": _content(operation.answer)}}
    for name in operation.headers:
        headers[name.replace("RetryAfter", "Retry-After")] = _header(name)
    if operation.links:
        responses["200"]["links"] = {name: _link(*LINKS[name]) for name in operation.links}
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
    if isinstance(answer, str):
        return {answer: {"schema": {"type": "object"} if answer == JSON else {"type": "string"}}}
    if isinstance(answer, tuple):
        schema = {"type": "array", "items": {"oneOf": [_schema_of(kind) for kind in answer]}}
        return {kind: {"schema": schema} for kind in (JSON, MSGPACK)}  # a dict for each: JSON gets an example
    return {JSON: {"schema": _schema_of(answer)}}


def _body_schema(body: Any) -> Schema:
    schema = _schema_of(body)
    return {**schema, "minItems": 1, "maxItems": BATCH_COMMANDS_MAX} if body is _BATCH else schema


def _schema_of(kind: Any) -> Schema:
    [schema], _ = msgspec.json.schema_components([kind], ref_template=_SCHEMAS)
    return schema


def _schemas() -> Schema:
    kinds: list[Any] = [answers.ErrorAnswer]
    for operation in OPERATIONS.values():
        kinds += operation.answer if isinstance(operation.answer, tuple) else [operation.answer]
        kinds.append(operation.body)
    structs = [kind for kind in kinds if kind is not None and not isinstance(kind, str)]
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
        "ETag": {"description": "The position that the answer shows.", "schema": text, "required": True},
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
        "boardId": _parameter("boardId", "query", {**_schema_of(Id), "default": DEFAULT_BOARD}, "Which board."),
        "topLimit": _parameter("limit", "query", _limit(bounds.TOP_LIMIT_DEFAULT, bounds.TOP_LIMIT_MAX), "Rows."),
        "listLimit": _parameter("limit", "query", _limit(bounds.LIST_LIMIT_DEFAULT, bounds.LIST_LIMIT_MAX), "Rows."),
        "cursor": _parameter("cursor", "query", {"type": "string", "minLength": 1}, "The `nextCursor` of a page."),
        "aroundLimit": _parameter(
            "limit", "query", _limit(bounds.AROUND_LIMIT_DEFAULT, bounds.AROUND_LIMIT_MAX), "Neighbours on each side."
        ),
        "minSeq": _parameter("minSeq", "query", _whole(0), "Wait, for a bounded time, for this seq."),
        "minEpoch": _parameter("minEpoch", "query", _whole(0), "The epoch of that position."),
        "ifNoneMatch": _parameter("If-None-Match", "header", {"type": "string"}, "The ETag of what the client has."),
    }


def _parameter(name: str, place: str, schema: Schema, about: str) -> Schema:
    return {
        "name": name,
        "in": place,
        "required": place == "path" or about == _NEEDED,
        "schema": schema,
        "description": about,
    }


def _whole(minimum: int) -> Schema:
    return {"type": "integer", "minimum": minimum, "maximum": SEQ_MAX}


def _limit(default: int, maximum: int) -> Schema:
    return {"type": "integer", "minimum": 1, "maximum": maximum, "default": default}
