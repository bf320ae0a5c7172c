"""The description of the interface: whole in itself, and true of what is really answered."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec
import pytest

from server.api import descriptions, openapi
from server.api.routes import ROUTES, find
from server.bounds import TOP_LIMIT_MAX
from tests.server.api.erasures_asked import ERASURES
from tests.server.api.feeds_asked import FEEDS
from tests.server.api.flags_asked import FLAGS
from tests.server.api.hooks_asked import HOOKS
from tests.server.api.imports_asked import IMPORTS
from tests.server.api.quorum_asked import QUORUM
from tests.server.api.shown_asked import SHOWN
from tests.server.api.support import JUDGE, KEEPER, READER, REFEREE, REGISTRAR, WRITER, Reply, both_ways, open_bench

DOCUMENT = openapi.document(public_reads=True)

TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}
KNOWN_KEYWORDS = {
    *("$ref", "title", "description", "examples", "default", "type", "enum", "anyOf", "oneOf", "items", "format"),
    *("properties", "required", "additionalProperties", "propertyNames", "minProperties", "maxProperties"),
    *("minItems", "maxItems"),
    *("minimum", "maximum", "minLength", "maxLength", "pattern"),
}


def resolve(value: Any) -> Any:
    """Follow a reference inside the document."""
    while isinstance(value, dict) and "$ref" in value:
        at: Any = DOCUMENT
        for step in value["$ref"].removeprefix("#/").split("/"):
            at = at[step]
        value = at
    return value


def faults(value: Any, schema: Any, at: str = "$") -> Iterator[str]:
    """What keeps a value from matching a schema; of JSON Schema what this document uses, and nothing else."""
    schema = resolve(schema)
    assert set(schema) <= KNOWN_KEYWORDS, set(schema) - KNOWN_KEYWORDS
    if "type" in schema and not isinstance(value, TYPES[schema["type"]]):
        yield f"{at}: {value!r} is no {schema['type']}"
        return
    if isinstance(value, bool) and schema.get("type") in ("integer", "number"):
        yield f"{at}: {value!r} is no number"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{at}: {value!r} is none of {schema['enum']}"
    for keyword, count in (("anyOf", None), ("oneOf", 1)):
        if keyword in schema:
            matching = sum(not list(faults(value, part, at)) for part in schema[keyword])
            if matching == 0 or (count is not None and matching != count):
                yield f"{at}: {value!r} matches {matching} of {keyword}"
    if isinstance(value, dict):
        yield from object_faults(value, schema, at)
    if isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            yield f"{at}: {len(value)} items"
        for number, item in enumerate(value):
            yield from faults(item, schema.get("items", {}), f"{at}[{number}]")
    if isinstance(value, str):
        if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
            yield f"{at}: {len(value)} characters"
        if "pattern" in schema and not re.search(schema["pattern"], value):
            yield f"{at}: {value!r} does not match"
        if schema.get("format") == "date-time":
            datetime.fromisoformat(value)
    if isinstance(value, int) and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        yield f"{at}: {value} is out of range"


def object_faults(value: dict[str, Any], schema: dict[str, Any], at: str) -> Iterator[str]:
    """What keeps an object from matching. Answers must not have fields that are not described."""
    properties = schema.get("properties", {})
    for name in schema.get("required", []):
        if name not in value:
            yield f"{at}: {name} is missing"
    if not schema.get("minProperties", 0) <= len(value) <= schema.get("maxProperties", len(value)):
        yield f"{at}: {len(value)} fields"
    for name in value:
        yield from faults(name, schema.get("propertyNames", {}), f"{at}, a name")
    for name, part in value.items():
        if name in properties:
            yield from faults(part, properties[name], f"{at}.{name}")
        elif properties:
            yield f"{at}: {name} is not described"
        elif isinstance(schema.get("additionalProperties"), dict):
            yield from faults(part, schema["additionalProperties"], f"{at}.{name}")


def check(method: str, path: str, reply: Reply) -> None:
    """Hold an answer against the description of its route."""
    methods, _ = find(*path.partition("?")[::2])
    described = DOCUMENT["paths"][methods[method].path][method.lower()]
    assert str(reply.status) in described["responses"], (
        f"{method} {path} answers {reply.status}, which is not described"
    )
    response = resolve(described["responses"][str(reply.status)])
    for name, header in response.get("headers", {}).items():
        found = reply.headers.get(name.lower())
        if found is None:
            assert not resolve(header).get("required", False), f"{name} is missing"
        else:
            schema = resolve(header)["schema"]
            assert list(faults(int(found) if schema["type"] == "integer" else found, schema)) == []
    if "content" not in response:
        assert reply.body == b""
        return
    media_type = reply.headers["content-type"].partition(";")[0]
    media = response["content"][media_type]
    value = reply.json if media_type == "application/json" else reply.body.decode()
    assert list(faults(value, media["schema"])) == []


# The document in itself


def test_the_description_has_exactly_the_routes_that_there_are() -> None:
    """Neither more nor fewer, each with its own operationId and with its variables described."""
    described = {(method.upper(), path) for path, item in DOCUMENT["paths"].items() for method in item}
    assert described == {(route.method, route.path) for route in ROUTES}
    for route in ROUTES:
        operation = DOCUMENT["paths"][route.path][route.method.lower()]
        assert operation["operationId"] == route.handler
        parameters = [resolve(parameter) for parameter in operation["parameters"]]
        in_path = {parameter["name"] for parameter in parameters if parameter["in"] == "path"}
        assert in_path == set(re.findall(r"\{(\w+)\}", route.path))
        assert all(parameter["required"] for parameter in parameters if parameter["in"] == "path")
        in_query = {parameter["name"] for parameter in parameters if parameter["in"] == "query"}
        assert in_query == set(route.query or ())
        assert {parameter["name"] for parameter in parameters if parameter["required"]} == in_path | set(route.ids) | (
            in_query & {"format"}
        )


def test_every_reference_leads_somewhere_and_every_component_is_used() -> None:
    """No dangling names, nothing described that nobody refers to."""
    text = msgspec.json.encode(DOCUMENT).decode()
    references = set(re.findall(r'"\$ref":"([^"]+)"', text))
    for reference in references:
        assert resolve({"$ref": reference})
    for kind in ("schemas", "parameters", "headers", "responses"):
        for name in DOCUMENT["components"][kind]:
            assert f"#/components/{kind}/{name}" in references, name


def test_who_may_is_described() -> None:
    """Open routes, public reads with and without a token, writes with their scope."""
    assert DOCUMENT["paths"]["/healthz"]["get"]["security"] == []
    reading = [{"token": ["scores:read"]}, {"token": ["scores:write"]}]
    assert DOCUMENT["paths"]["/scoreboard/top"]["get"]["security"] == [{}, *reading]
    assert DOCUMENT["paths"]["/actions/{actionId}"]["get"]["security"] == reading
    closed = openapi.document(public_reads=False)
    assert closed["paths"]["/scoreboard/top"]["get"]["security"] == reading


def test_links_lead_from_fields_of_an_answer_to_parameters_of_an_operation() -> None:
    """So that a client, and the conformance tests, can follow them."""
    operations = {one["operationId"]: one for item in DOCUMENT["paths"].values() for one in item.values()}
    followed = set()
    for operation in operations.values():
        answer = resolve(operation["responses"].get("200", {}))
        for name, link in answer.get("links", {}).items():
            fields = resolve(answer["content"]["application/json"]["schema"])["properties"]
            parameters = {resolve(one)["name"] for one in operations[link["operationId"]]["parameters"]}
            assert set(link["parameters"]) <= parameters
            assert set(link["parameters"].values()) <= {f"$response.body#/{field}" for field in fields}
            followed.add(name)
    assert followed == set(descriptions.LINKS)


def test_limits_are_described() -> None:
    """What the code checks, the description says."""
    limit = DOCUMENT["components"]["parameters"]["topLimit"]["schema"]
    assert limit == {"type": "integer", "minimum": 1, "maximum": TOP_LIMIT_MAX, "default": 10}
    body = DOCUMENT["components"]["schemas"]["IncrementBody"]
    assert (body["required"], body["additionalProperties"]) == (["userId", "actionId"], False)
    batch = DOCUMENT["paths"]["/scores/increment/batch"]["post"]["requestBody"]["content"]["application/json"]
    assert (batch["schema"]["minItems"], batch["schema"]["maxItems"]) == (1, 1_000)


@pytest.mark.parametrize(
    ("body", "good"),
    [
        ({"userId": "ann", "actionId": "a1"}, True),
        ({"userId": "ann", "actionId": "a1", "reason": "WON", "boardId": "main"}, True),
        ({"userId": "", "actionId": "a1"}, False),
        ({"userId": "x" * 129, "actionId": "a1"}, False),
        ({"userId": "a\nb", "actionId": "a1"}, False),
        ({"userId": "a\u2028b", "actionId": "a1"}, False),
        ({"userId": 5, "actionId": "a1"}, False),
        ({"userId": "ann"}, False),
        ({"userId": "ann", "actionId": "a1", "delta": 5}, False),
        ({"userId": "ann", "actionId": "a1", "value": None}, True),
        ({"userId": "ann", "actionId": "a1", "value": -1}, False),
        ({"userId": "ann", "actionId": "a1", "value": 2**53}, False),
        ({"userId": "ann", "actionId": "a1", "value": 1.5}, False),
    ],
)
async def test_a_body_is_described_as_good_if_it_is_taken(body: object, good: bool) -> None:
    """The schema and the decoder agree on what an increment is."""
    assert (list(faults(body, {"$ref": "#/components/schemas/IncrementBody"})) == []) is good
    async with open_bench() as bench:
        reply = await bench.ask("POST", "/scores/increment", body, token=WRITER)
        assert reply.status == (200 if good else 400)


# What is really answered

INCREMENT = {"userId": "ann", "actionId": "a9"}
CUP = {"points": {"WIN": 10, "LATE": -5, "LAP": {"min": 1, "max": 9}}, "period": {"every": "day"}, "feeds": ["main"]}
WITH_VALUE = {"userId": "ann", "actionId": "v1", "boardId": "cup", "reason": "LAP", "value": 5}
ANSWERS: list[tuple[str, str, object, str | None, int]] = [
    ("POST", "/scores/increment", INCREMENT, WRITER, 200),
    ("POST", "/replication/promote", None, "Bearer root admin", 409),
    ("POST", "/replication/promote", None, WRITER, 403),
    ("POST", "/scores/increment", {"userId": "ann", "actionId": "a1"}, WRITER, 200),
    ("POST", "/scores/increment", {"userId": "off", "actionId": "o1"}, WRITER, 200),
    ("POST", "/scores/increment", {"userId": "bob", "actionId": "a1"}, WRITER, 409),
    ("POST", "/scores/increment", {**INCREMENT, "delta": 1}, WRITER, 400),
    ("POST", "/scores/increment", {"userId": "ann", "actionId": "a8", "reason": "NONSENSE"}, WRITER, 400),
    ("POST", "/scores/increment", INCREMENT, None, 401),
    ("POST", "/scores/increment", INCREMENT, READER, 403),
    ("POST", "/scores/increment", INCREMENT, WRITER + " bob", 403),
    ("POST", "/scores/increment/batch", [INCREMENT, 5, {"userId": "bob", "actionId": "a1"}], WRITER, 200),
    ("POST", "/scores/increment/batch", [], WRITER, 400),
    ("POST", "/scores/increment/batch", [INCREMENT], None, 401),
    ("POST", "/scores/increment/batch", [INCREMENT], READER, 403),
    ("GET", "/scoreboard/top", None, None, 200),
    ("GET", "/scoreboard/top?boardId=weekly&limit=50", None, None, 200),
    ("GET", "/scoreboard/top?limit=x", None, None, 400),
    ("GET", "/scoreboard?limit=1", None, None, 200),
    ("GET", "/scoreboard?cursor=x", None, None, 410),
    ("GET", "/scoreboard?limit=1001", None, None, 400),
    ("POST", "/scores/query", {"userIds": ["ann", "nobody"]}, None, 200),
    ("POST", "/scores/query", {"userIds": []}, None, 400),
    ("GET", "/scores/ann", None, None, 200),
    ("GET", "/scores/off", None, READER, 200),
    ("GET", "/scores/nobody", None, None, 404),
    ("GET", "/scores/%00", None, None, 400),
    ("GET", "/scores/ann/around", None, None, 200),
    ("GET", "/scores/off/around", None, READER, 200),
    ("GET", "/scores/off/around", None, None, 404),
    ("GET", "/scores/around?userId=ann", None, None, 200),
    ("GET", "/scores/around", None, None, 404),
    ("GET", "/scores?userId=ann", None, None, 200),
    ("GET", "/scores", None, None, 400),
    ("PUT", "/users?userId=new", {"active": True}, REGISTRAR, 200),
    ("PUT", "/users/new", {"displayName": None}, REGISTRAR, 200),
    ("GET", "/actions?actionId=a1", None, READER, 200),
    ("GET", "/scores/nobody/around", None, None, 404),
    ("GET", "/scores/ann/around?limit=0", None, None, 400),
    ("PUT", "/users/new", {"active": True}, REGISTRAR, 200),
    ("PUT", "/users/new", {"displayName": "New"}, REGISTRAR, 200),
    ("PUT", "/users/new", {}, REGISTRAR, 400),
    ("PUT", "/users/new", {"active": True}, None, 401),
    ("PUT", "/users/new", {"active": True}, WRITER, 403),
    ("GET", "/actions/a1", None, READER, 200),
    ("GET", "/actions/none", None, READER, 404),
    ("POST", "/reversals", {"reversalId": "r1", "reason": "x", "actionIds": ["o1"], "preview": True}, REFEREE, 200),
    ("POST", "/reversals", {"reversalId": "r1", "reason": "x", "actionIds": ["o1"]}, REFEREE, 200),
    ("POST", "/reversals", {"reversalId": "r1", "reason": "x", "actionIds": ["o1"]}, REFEREE, 200),
    ("POST", "/reversals", {"reversalId": "r2", "reason": "x", "actionIds": ["o1"]}, REFEREE, 409),
    ("POST", "/reversals", {"reversalId": "r2"}, REFEREE, 400),
    ("POST", "/reversals", {}, WRITER, 403),
    ("POST", "/reversals", {}, None, 401),
    ("GET", "/actions/o1", None, READER, 200),
    ("GET", "/reversals/r1", None, REFEREE, 200),
    ("GET", "/users/ann/data", None, READER, 200),
    ("GET", "/users/nobody/data", None, READER, 200),
    ("GET", "/users/data?userId=a/b&limit=1", None, READER, 200),
    ("GET", "/users/ann/data?cursor=0", None, READER, 400),
    ("GET", "/users/ann/data", None, WRITER, 403),
    ("GET", "/users/ann/data", None, None, 401),
    ("GET", "/scores/ann/history", None, READER, 200),
    ("GET", "/scores/history?userId=a/b&limit=1", None, READER, 200),
    ("GET", "/scores/ann/history?cursor=0", None, READER, 400),
    ("GET", "/scores/ann/history", None, WRITER, 403),
    ("GET", "/scores/ann/history", None, None, 401),
    ("GET", "/reversals?reversalId=r1", None, READER, 200),
    ("GET", "/reversals/none", None, READER, 404),
    *ERASURES,
    *FLAGS,
    ("POST", "/reversals", {"reversalId": "r3", "reason": "x", "actionIds": ["r1"]}, REFEREE, 200),
    ("GET", "/actions/a1", None, None, 401),
    ("GET", "/actions/a1", None, REGISTRAR, 403),
    ("PUT", "/boards/cup", CUP, KEEPER, 201),
    ("PUT", "/boards/cup", CUP, KEEPER, 200),
    ("PUT", "/boards?boardId=a/b", {"points": {"WIN": 1}}, KEEPER, 201),
    ("PUT", "/boards/cup", {}, KEEPER, 400),
    ("PUT", "/boards/cup", CUP, WRITER, 403),
    ("PUT", "/boards/cup", CUP, None, 401),
    ("POST", "/scores/increment", WITH_VALUE, "Bearer judge scores:write,scores:value", 200),
    ("POST", "/scores/increment", {**WITH_VALUE, "actionId": "v2"}, WRITER, 403),
    ("POST", "/scores/increment", {"userId": "ann", "actionId": "v3", "boardId": "cup", "reason": "LATE"}, WRITER, 200),
    ("GET", "/actions/v1", None, READER, 200),
    ("GET", "/actions/v3", None, READER, 200),
    ("GET", "/boards", None, None, 200),
    ("GET", "/boards", None, READER, 200),
    ("GET", "/boards?boardId=a/b", None, None, 200),
    ("GET", "/boards/cup", None, READER, 200),
    ("GET", "/boards/nowhere", None, None, 404),
    ("POST", "/boards/cup/reset", None, KEEPER, 200),
    ("POST", "/boards/cup/reset", {"period": "2025-W01"}, KEEPER, 409),
    ("POST", "/boards/reset?boardId=a/b", {}, KEEPER, 200),
    ("POST", "/boards/nowhere/reset", None, KEEPER, 404),
    ("GET", "/boards/cup/periods", None, None, 200),
    ("GET", "/boards/cup/periods?view=live", None, None, 401),
    ("GET", "/boards/cup/periods?view=live", None, WRITER, 403),
    ("GET", "/boards/periods?boardId=a/b", None, READER, 200),
    ("GET", "/boards/nowhere/periods", None, None, 404),
    ("GET", "/boards/cup/export?format=csv", None, None, 200),
    ("GET", "/scoreboard/top?boardId=cup&asOfSeq=1", None, None, 401),
    ("GET", "/scoreboard/top?boardId=cup&asOf=0&view=live", None, READER, 400),
    ("GET", "/scoreboard/top?boardId=cup&asOf=2020-01-01T00:00:00Z", None, READER, 421),
    ("GET", "/boards/cup/export?format=ndjson&view=live", None, READER, 200),
    ("GET", "/boards/export?boardId=a/b&format=ndjson", None, None, 200),
    ("GET", "/boards/cup/export", None, None, 400),
    ("GET", "/boards/cup/export?format=csv&view=live", None, None, 401),
    ("GET", "/boards/cup/export?format=csv&view=live", None, WRITER, 403),
    ("GET", "/boards/nowhere/export?format=csv", None, None, 404),
    ("GET", "/boards/cup/export?format=csv&period=2025-W01", None, None, 404),
    ("GET", "/boards/cup/export?format=csv&period=previous", None, None, 503),
    ("GET", "/scoreboard/top?boardId=cup&period=previous", None, None, 503),
    ("GET", "/scoreboard/top?boardId=cup&period=2025-W01", None, None, 404),
    ("GET", "/scoreboard?boardId=cup&period=2025-12-15", None, None, 503),
    ("GET", "/scores/ann?boardId=cup&period=previous", None, None, 503),
    ("GET", "/scores/ann/around?boardId=cup&period=previous", None, None, 503),
    ("GET", "/scoreboard/top?boardId=a/b&period=previous", None, None, 200),
    ("GET", "/scoreboard?boardId=a/b&period=previous", None, None, 200),
    ("POST", "/boards/cup/freeze", {"at": "2025-12-16T00:00:00Z"}, KEEPER, 200),
    ("POST", "/boards/cup/freeze", {"at": "2025-12-15T00:00:00Z"}, KEEPER, 400),
    ("POST", "/scores/increment", {**WITH_VALUE, "actionId": "f1"}, "Bearer judge scores:write,scores:value", 200),
    ("POST", "/boards/cup/freeze", None, KEEPER, 200),
    ("POST", "/boards/cup/freeze", {"at": "2025-12-16T00:00:00Z"}, KEEPER, 409),
    ("POST", "/scores/increment", {**WITH_VALUE, "actionId": "f2"}, "Bearer judge scores:write,scores:value", 200),
    ("GET", "/boards", None, None, 200),
    ("GET", "/boards/cup", None, READER, 200),
    ("GET", "/scoreboard/top?boardId=cup", None, None, 200),
    ("GET", "/scoreboard/top?boardId=cup&view=live", None, READER, 200),
    ("GET", "/scoreboard/top?boardId=cup&view=live", None, WRITER, 403),
    ("GET", "/scoreboard/top?boardId=cup&view=live", None, None, 401),
    ("GET", "/scoreboard?boardId=cup&view=live", None, READER, 200),
    ("GET", "/scoreboard?boardId=cup&view=late", None, READER, 400),
    ("POST", "/scores/query?view=live", {"userIds": ["ann"], "boardId": "cup"}, READER, 200),
    ("GET", "/scores/ann?boardId=cup", None, None, 200),
    ("GET", "/scores/ann/around?boardId=cup", None, None, 200),
    ("GET", "/actions/f2", None, WRITER, 200),
    ("GET", "/actions/f2", None, "Bearer other scores:write", 200),
    ("POST", "/boards/freeze?boardId=a/b", None, KEEPER, 200),
    ("POST", "/boards/reveal?boardId=a/b", {"step": 1}, KEEPER, 200),
    ("POST", "/boards/reveal?boardId=a/b", None, KEEPER, 409),
    ("POST", "/boards/cup/reveal", {"step": 0}, KEEPER, 400),
    ("POST", "/boards/cup/unfreeze", None, KEEPER, 200),
    ("POST", "/boards/unfreeze?boardId=a/b", {}, KEEPER, 200),
    ("DELETE", "/boards/cup", None, KEEPER, 200),
    ("DELETE", "/boards?boardId=a/b", None, KEEPER, 200),
    *[
        ("POST", f"/boards/cup/{verb}", None, token, status)
        for verb in ("freeze", "unfreeze", "reveal")
        for token, status in ((None, 401), (WRITER, 403))
    ],
    ("DELETE", "/boards/nowhere", None, KEEPER, 404),
    ("PUT", "/boards/cup", CUP, KEEPER, 410),
    ("POST", "/boards/cup/reset", None, KEEPER, 410),
    ("POST", "/scores/increment", {**WITH_VALUE, "actionId": "v4"}, "Bearer judge scores:write,scores:value", 410),
    *FEEDS,
    ("GET", "/ws/scoreboard", None, None, 426),
    ("GET", "/sse/scoreboard", None, None, 400),
    ("GET", "/replication/followers", None, None, 401),
    ("GET", "/replication/followers", None, KEEPER, 403),
    ("GET", "/replication/followers", None, "Bearer replica log:read", 200),
    ("GET", "/replication/followers?limit=1", None, "Bearer replica log:read", 400),
    *QUORUM,
    ("GET", "/healthz", None, None, 200),
    ("GET", "/metrics", None, None, 200),
    ("GET", "/openapi.json", None, None, 200),
    ("GET", "/docs", None, None, 200),
    ("GET", "/console", None, None, 200),
    ("GET", "/", None, None, 200),
    ("GET", "/scoreboard.js", None, None, 200),
    *SHOWN,
]


REVIEWS: list[tuple[str, str, Any, str | None, int]] = [
    ("GET", "/reviews", None, None, 401),
    ("GET", "/reviews?boardId=fair&state=all", None, JUDGE, 200),
    ("GET", "/reviews?state=closed", None, JUDGE, 400),
    ("GET", "/reviews/SEQ-0", None, JUDGE, 200),
    ("GET", "/reviews/SEQ-1", None, JUDGE, 404),
    ("POST", "/reviews/SEQ-0", {"decision": "accept"}, READER, 403),
    ("POST", "/reviews/SEQ-0", {"decision": "accept"}, JUDGE, 200),
    ("POST", "/reviews/SEQ-1", {"decision": "accept"}, JUDGE, 404),
    ("GET", "/reviews/SEQ-0", None, JUDGE, 200),
]


@both_ways
async def test_real_answers_are_as_described(through_quart: bool) -> None:
    """Status, headers, media type and every field of every kind of answer, of every route."""
    async with open_bench(through_quart=through_quart) as bench:
        await bench.log_boards()
        await bench.ask("PUT", "/users/ann", {"displayName": "Ann"}, token=REGISTRAR)
        await bench.increment("ann", "a1")
        await bench.increment("off", "o1")
        await bench.ask("PUT", "/users/off", {"active": False}, token=REGISTRAR)
        await bench.ask("PUT", "/boards/fair", {"points": {"WIN": 9}, "watch": {"growth_per_minute": 1}}, token=KEEPER)
        won = {"userId": "ann", "actionId": "flagged-1", "boardId": "fair", "reason": "WIN"}
        flagged = (await bench.ask("POST", "/scores/increment", won, token=WRITER)).json["seq"]
        reviews = ((method, path.replace("SEQ", str(flagged)), *row) for method, path, *row in REVIEWS)
        rows = [*ANSWERS, *IMPORTS, *HOOKS, *reviews]
        for method, target, body, token, status in rows:
            reply = await bench.ask(method, target, body, token=token)
            assert reply.status == status, (method, target, reply)
            check(method, target.replace("%00", "any"), reply)
    good = [(method, target) for method, target, *_ in rows if "%00" not in target]
    asked = {find(*target.partition("?")[::2])[0][method].handler for method, target in good}
    assert asked == {route.handler for route in ROUTES}


async def test_answers_that_take_some_doing_are_as_described() -> None:
    """304, 429, 500 and 503, and a receipt that is gone."""
    async with open_bench(per_minute=(3, 600)) as bench:
        await bench.increment("ann", "a1")
        for path in ("/scoreboard/top", "/openapi.json", "/"):
            etag = (await bench.ask("GET", path)).headers["etag"]
            check("GET", path, await bench.ask("GET", path, headers={"if-none-match": etag}))
        bench.log.first_seq = 2
        check("GET", "/actions/a1", await bench.ask("GET", "/actions/a1", token=READER))
        bench.log.first_seq, bench.log.events = 1, []
        broken = await bench.ask("GET", "/actions/a1", token=READER)
        assert broken.status == 500
        check("GET", "/actions/a1", broken)
        for number in range(3):
            limited = await bench.increment("ann", f"b{number}")
        assert limited.status == 429
        check("POST", "/scores/increment", limited)
        batch = await bench.ask("POST", "/scores/increment/batch", [INCREMENT], token=WRITER)
        assert batch.headers["retry-after"] == "20"
        check("POST", "/scores/increment/batch", batch)
        bench.now_s += 60
        await bench.actor.drain()
        for method, path, body in (
            ("POST", "/scores/increment", INCREMENT),
            ("POST", "/scores/increment/batch", [INCREMENT]),
            ("PUT", "/users/ann", {"active": True}),
            ("PUT", "/boards/cup", CUP),
            ("DELETE", "/boards/cup", None),
            *[("POST", f"/boards/cup/{verb}", None) for verb in ("reset", "freeze", "unfreeze", "reveal")],
            ("GET", "/readyz", None),
        ):
            bench.now_s += 60
            reply = await bench.ask(method, path, body, token="Bearer root admin")
            assert reply.status == 503
            check(method, path, reply)


async def test_the_description_is_served_as_it_is() -> None:
    """What a client fetches is this document."""
    async with open_bench() as bench:
        assert (await bench.ask("GET", "/openapi.json")).json == DOCUMENT


def test_the_checker_finds_what_does_not_match() -> None:
    """So that a match means something."""
    top = {"$ref": "#/components/schemas/TopAnswer"}
    entry = {"userId": "ann", "score": 10, "rank": 1}
    good = {"entries": [entry], "generatedAt": "2025-12-15T12:34:56.000Z", "boardId": "main", "epoch": 1, "seq": 1}
    good["history"] = 32 * "0"
    assert list(faults(good, top)) == []
    bad: list[dict[str, object]] = [
        {**good, "extra": 1},
        {**good, "epoch": 0},
        {**good, "seq": "1"},
        {**good, "entries": [{**entry, "score": None}]},
        {**good, "entries": [{"userId": "ann"}]},
        {name: value for name, value in good.items() if name != "boardId"},
    ]
    for value in bad:
        assert list(faults(value, top))
