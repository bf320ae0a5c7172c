"""The page of the API's description: it shows all of it, can be searched, and fits every screen."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.browser import scripts
from tests.browser.cdp import Page
from tests.browser.test_page import LAPTOP, PHONE, SMALL_PHONE, WALL, overflow
from tests.e2e.leader import Leader

SHOWN = "document.documentElement.dataset.state === 'shown'"
ROUTES = """
[...document.querySelectorAll("article.operation:not([hidden])")]
  .map((one) => `${one.dataset.method} ${one.dataset.path}`)
""".strip()


def description_script(description: dict[str, Any]) -> str:
    """A script that replaces the server's description."""
    return f"window.fetch = () => Promise.resolve(Response.json({json.dumps(description)}))"


async def open_docs(page: Page, leader: Leader) -> dict[str, Any]:
    """Open the page; gives the description that it shows."""
    url = f"http://127.0.0.1:{leader.port}"
    await page.open(f"{url}/docs")
    await page.wait(SHOWN)
    async with httpx.AsyncClient(trust_env=False) as http:
        description: dict[str, Any] = (await http.get(f"{url}/openapi.json")).json()
    return description


async def type_search(page: Page, text: str) -> None:
    """Type into the search field, key by key."""
    await page.evaluate("document.getElementById('search').focus(), document.getElementById('search').select()")
    await page.call("Input.insertText", text=text)


async def test_every_route_is_shown(page: Page, leader: Leader) -> None:
    """Each method and path of the description is there with its summary, every one of its answers, and its fields."""
    description = await open_docs(page, leader)
    expected = {
        f"{method.upper()} {path}": operation
        for path, item in description["paths"].items()
        for method, operation in item.items()
        if method in {"get", "put", "post", "patch", "delete", "head", "options"}
    }
    assert len(expected) >= 10
    assert sorted(await page.evaluate(ROUTES)) == sorted(expected)
    for name, operation in expected.items():
        method, path = name.split(" ")
        text = await page.evaluate(
            f"document.querySelector('article[data-method={method}][data-path={json.dumps(path)}]').innerText"
        )
        assert operation["summary"] in text
        for status in operation["responses"]:
            assert status in text
        for parameter in operation.get("parameters", []):
            shared = description["components"]["parameters"].get(parameter.get("$ref", "").rsplit("/", 1)[-1], {})
            assert {**parameter, **shared}["name"] in text


async def test_a_route_shows_a_request_its_answer_and_an_error(page: Page, leader: Leader) -> None:
    """Those of the description's story, so that a reader sees real values."""
    await open_docs(page, leader)
    text = await page.evaluate("document.querySelector('article[data-path=\"/scores/increment\"]').innerText")
    for part in ("quest-7-alice", '"newScore": 10', "Error 409", '"code": "CONFLICT"'):
        assert part in text
    assert "/actions/quest-7-alice" in await page.evaluate(
        "document.querySelector('article[data-path=\"/actions/{actionId}\"]').innerText"
    )


async def test_typing_finds_routes(page: Page, leader: Leader) -> None:
    """The routes that hold every typed word stay; nothing typed shows all again."""
    await open_docs(page, leader)
    everything = await page.evaluate(ROUTES)
    await type_search(page, "increment batch")
    await page.wait(f"{ROUTES}.includes('POST /scores/increment/batch') && {ROUTES}.length < {len(everything)}")
    assert await page.evaluate("document.getElementById('count').textContent") == (
        f"{len(await page.evaluate(ROUTES))} of {len(everything)} routes"
    )
    await type_search(page, "no-such-thing")
    await page.wait(f"{ROUTES}.length === 0")
    await page.call("Input.dispatchKeyEvent", type="keyDown", key="Escape", code="Escape", windowsVirtualKeyCode=27)
    await page.wait(f"{ROUTES}.length === {len(everything)}")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_every_screen_in_light_and_dark(page: Page, leader: Leader, dark: bool) -> None:
    """No screen scrolls sideways, and every text has contrast to its background."""
    await page.show_as(*LAPTOP, dark=dark)
    await open_docs(page, leader)
    assert await page.evaluate(scripts.WORST_CONTRAST) >= 4.5
    for size in (SMALL_PHONE, PHONE, LAPTOP, WALL):
        await page.show_as(*size, dark=dark)
        assert await overflow(page) == 0


def every_kind() -> dict[str, Any]:
    """A description with every kind of shape in one operation."""
    fields: dict[str, Any] = {
        "nullable": {"type": ["integer", "null"], "minimum": 1, "maximum": 50},
        "eitherNull": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "either": {"oneOf": [{"$ref": "#/components/schemas/Leaf"}, {"$ref": "#/components/schemas/Tree"}]},
        "fixed": {"const": "scoreboard_update"},
        "choice": {"enum": ["KEPT", "GONE"]},
        "map": {"type": "object", "additionalProperties": {"type": "integer"}},
        "list": {"type": "array", "items": {"$ref": "#/components/schemas/Leaf"}, "maxItems": 1000},
        "parts": {"allOf": [{"$ref": "#/components/schemas/Leaf"}, {"properties": {"more": {"type": "boolean"}}}]},
        "when": {"type": "string", "format": "date-time", "description": "<b>When</b> `it` was."},
        "open": {},
    }
    trees = {"type": "array", "items": {"$ref": "#/components/schemas/Tree"}}
    tree = {"type": "object", "properties": {"children": trees}}
    leaf = {"type": "object", "properties": {"leafName": {"type": "string", "minLength": 1, "maxLength": 128}}}
    body = {"type": "object", "properties": fields, "required": ["fixed"]}
    parts = {"maybe": {"type": "boolean"}, "always": {"const": 1}}
    done = {"type": "object", "properties": parts, "required": ["always"]}
    answer = {"description": "Fine.", "content": {"application/json": {"schema": done}}}
    lost = {"description": "Gone.", "content": {"application/json": {"example": {"error": {"code": "NOT_FOUND"}}}}}
    operation = {
        "summary": "Everything.",
        "parameters": [{"$ref": "#/components/parameters/Count"}],
        "requestBody": {"content": {"application/json": {"schema": body}}},
        "responses": {"200": answer, "404": {"$ref": "#/components/responses/Lost"}},
    }
    unused = {"type": "object", "description": "Shown at the end.", "properties": {"lonely": {"type": "null"}}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "T", "version": "9", "description": "One.\n\n- two\n- three"},
        "paths": {"/everything": {"put": operation}},
        "components": {
            "schemas": {"Leaf": leaf, "Tree": tree, "Unused": unused},
            "parameters": {"Count": {"name": "count", "in": "query", "required": True, "schema": {"type": "integer"}}},
            "responses": {"Lost": lost},
        },
    }


async def test_shapes_of_every_kind(page: Page, leader: Leader) -> None:
    """References, alternatives, null, constants, maps, arrays, parts and a shape that contains itself are all shown in
    words, and texts of the description stay text.
    """
    await page.before_scripts(description_script(every_kind()))
    await page.open(f"http://127.0.0.1:{leader.port}/docs")
    await page.wait(SHOWN)
    shown = await page.evaluate(
        "Object.fromEntries([...document.querySelectorAll('.operation dl.fields > div')].toReversed()"
        ".map((one) => [one.querySelector('code').textContent, one.innerText.replaceAll(/\\s+/g, ' ')]))"
    )
    assert shown["nullable"].startswith("nullable integer or null")
    assert "1 to 50." in shown["nullable"]
    assert shown["eitherNull"].startswith("eitherNull string or null")
    assert shown["either"].startswith("either Leaf or Tree")
    assert "leafName" in shown["either"]
    assert "children array of Tree" in shown["either"]
    assert shown["fixed"].startswith('fixed "scoreboard_update" required')
    assert shown["choice"].startswith('choice "KEPT" or "GONE"')
    assert shown["map"].startswith("map map to integer")
    assert shown["list"].startswith("list array of Leaf")
    assert "At most 1,000 items." in shown["list"]
    assert "leafName" in shown["parts"]
    assert "more boolean" in shown["parts"]
    assert shown["when"].startswith("when string (date-time)")
    assert "<b>When</b> it was." in shown["when"]
    assert shown["open"].startswith("open anything")
    assert shown["maybe"] == "maybe boolean optional"
    assert shown["always"] == "always 1"
    assert shown["count"].startswith("count integer required in query")
    text = await page.evaluate("document.querySelector('main').innerText")
    assert "NOT_FOUND" in text
    assert "lonely" in text
    assert await page.evaluate("document.querySelector('#about ul').innerText") == "two\nthree"
    assert await page.evaluate("document.querySelector('.operation pre').textContent.includes('/everything?count=1')")


async def test_a_description_that_cannot_be_read(page: Page, leader: Leader) -> None:
    """If openapi.json is missing, the page says so, and what to do."""
    await page.before_scripts("window.fetch = () => Promise.resolve(new Response('', { status: 503 }))")
    await page.open(f"http://127.0.0.1:{leader.port}/docs")
    await page.wait("document.documentElement.dataset.state === 'failed'")
    assert "it answered 503" in await page.evaluate("document.getElementById('problem').innerText")
