"""Increments that carry a value: who may choose one, what a value may be, and what a repeat of it is."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from engine.board_rules import BoardRules, Range, Rules
from engine.limits import SCORE_MAX
from tests.server.api.support import ADMIN, WRITER, Reply, both_ways, open_bench

BATCH = "/scores/increment/batch"
JUDGE = "Bearer judge scores:write,scores:value"
RULES = Rules({"main": BoardRules({"LAP": Range(0, SCORE_MAX), "SHORT": Range(1, 9), "WON": 100, "LATE": -5})})
LAP = {"userId": "ann", "actionId": "a1", "reason": "LAP", "value": 40}


@both_ways
async def test_a_value_counts_for_whoever_may_choose_one(through_quart: bool) -> None:
    """Also 0 and the largest score; `admin` may do all."""
    async with open_bench(through_quart=through_quart, rules=RULES) as bench:
        for token, value in ((JUDGE, 0), (ADMIN, 41), (JUDGE, SCORE_MAX - 41)):
            body = {**LAP, "actionId": f"a{value}", "value": value}
            reply = await bench.ask("POST", "/scores/increment", body, token=token)
            assert (reply.status, reply.json["delta"]) == (200, value)
            assert "value" not in reply.json


@both_ways
async def test_without_the_scope_no_request_chooses_a_number(through_quart: bool) -> None:
    """403 names field and scope. It costs nothing, and is the same whether or not the reason takes a value."""
    async with open_bench(through_quart=through_quart, rules=RULES, per_minute=(1, 600)) as bench:
        for body in (LAP, {**LAP, "reason": "WON"}, {**LAP, "boardId": "nowhere"}):
            reply = await bench.ask("POST", "/scores/increment", body, token=WRITER)
            assert (reply.status, reply.code) == (403, "UNAUTHORIZED")
            assert reply.details == {"field": "value", "anyOf": ["scores:value"]}
            assert 'scope="scores:value"' in reply.headers["www-authenticate"]
        good = {"userId": "ann", "actionId": "a2", "reason": "WON"}
        items = (await bench.ask("POST", BATCH, [LAP, good, {**good, "value": None}], token=WRITER)).json
        assert [item["status"] for item in items] == [403, 200, 200]
        assert items[0]["error"]["details"]["field"] == "value"


@both_ways
async def test_a_value_alone_is_no_right_to_write(through_quart: bool) -> None:
    """The scope of the route is needed beside it."""
    async with open_bench(through_quart=through_quart, rules=RULES) as bench:
        reply = await bench.ask("POST", "/scores/increment", LAP, token="Bearer x scores:value")
        assert (reply.status, reply.details) == (403, {"anyOf": ["scores:write"]})


NO_VALUES: list[tuple[bytes, str]] = [
    (b"true", "value must be a whole number, not true or false."),
    (b"1.0", "value must be a whole number, not a number with a fraction or an exponent."),
    (b'"5"', "value must be a whole number, not a string."),
    (b"[]", "value must be a whole number, not an array."),
    (b"-1", f"value must be a whole number from 0 to {SCORE_MAX}."),
    (b"9007199254740992", f"value must be a whole number from 0 to {SCORE_MAX}."),
    (b"123456789012345678901234567890", f"value must be a whole number from 0 to {SCORE_MAX}."),
    (b"1" * 5_000, "value is out of range."),
    (b"1e999", "value is out of range."),
]


@both_ways
@pytest.mark.parametrize(("value", "message"), NO_VALUES, ids=lambda each: each[:12] if isinstance(each, bytes) else "")
async def test_what_is_no_value_names_the_field(value: bytes, message: str, through_quart: bool) -> None:
    """In a batch the neighbours are counted."""
    body = b'{"userId":"ann","actionId":"a1","reason":"LAP","value":%b}' % value
    async with open_bench(through_quart=through_quart, rules=RULES) as bench:
        alone = await bench.ask("POST", "/scores/increment", raw=body, token=JUDGE)
        assert (alone.status, alone.details["field"]) == (400, "value")
        assert alone.json["error"]["message"] == message
        good = b'{"userId":"ann","actionId":"%d","reason":"WON","boardId":null}'
        raw = b"[" + b",".join([good % 1, body, good % 2]) + b"]"
        items = (await bench.ask("POST", BATCH, raw=raw, token=JUDGE)).json
        assert [item["status"] for item in items] == [200, 400, 200]
        assert items[1]["error"] == alone.json["error"]


@both_ways
async def test_values_may_be_packed(through_quart: bool) -> None:
    """MessagePack has the same rules."""
    values: list[Any] = [5, 0, None, True, 1.0, "5", -1, 2**53, 2**64 - 1]
    items = [{**LAP, "actionId": f"a{n}", "value": value} for n, value in enumerate(values)]
    async with open_bench(through_quart=through_quart, rules=RULES) as bench:
        packed = {"content-type": "application/msgpack"}
        reply = await bench.ask("POST", BATCH, raw=msgspec.msgpack.encode(items), token=JUDGE, headers=packed)
        told = msgspec.msgpack.decode(reply.body)
    assert [item["status"] for item in told] == [200, 200] + 7 * [400]
    assert {item["error"]["details"]["field"] for item in told[2:]} == {"value"}


@both_ways
async def test_the_rules_of_the_board_decide_about_the_value(through_quart: bool) -> None:
    """Missing, outside, or not wanted: each is named."""
    async with open_bench(through_quart=through_quart, rules=RULES) as bench:
        for more, told in (
            ({"reason": "LAP"}, "value is missing"),
            ({"reason": "SHORT", "value": 10}, "takes 1 to 9"),
            ({"reason": "WON", "value": 5}, "has fixed points"),
        ):
            body = {"userId": "ann", "actionId": "a1", **more}
            reply = await bench.ask("POST", "/scores/increment", body, token=JUDGE)
            assert (reply.status, reply.details) == (400, {"field": "value"})
            assert told in reply.json["error"]["message"]


@both_ways
async def test_a_repeat_has_the_same_value(through_quart: bool) -> None:
    """With another one it is a conflict, and charged as one; so it is while the first is in flight."""
    async with open_bench(through_quart=through_quart, rules=RULES, per_minute=(2, 600)) as bench:

        async def ask(value: int | None) -> Reply:
            return await bench.ask("POST", "/scores/increment", {**LAP, "value": value}, token=JUDGE)

        assert (await ask(40)).json["applied"] is True
        assert ((await ask(40)).json["applied"], (await ask(40)).json["delta"]) == (False, 0)
        assert (await ask(41)).code == "CONFLICT"
        assert (await ask(None)).code == "RATE_LIMITED"
        bench.now_s += 60
        items = [{**LAP, "actionId": "b", "value": value} for value in (1, 1, 2)]
        told = (await bench.ask("POST", BATCH, items, token=JUDGE)).json
        assert [item["status"] for item in told] == [200, 200, 409]


@both_ways
async def test_points_below_0_take_away_what_is_there(through_quart: bool) -> None:
    """`delta` is what was really taken; the receipt of the action tells what it was worth."""
    async with open_bench(through_quart=through_quart, rules=RULES) as bench:
        await bench.increment("ann", "a1", reason="WON")
        for n, (delta, score) in enumerate([(-5, 95), (-5, 90)]):
            reply = await bench.increment("ann", f"late-{n}", reason="LATE")
            assert (reply.json["delta"], reply.json["newScore"]) == (delta, score)
        first = await bench.increment("bob", "late", reason="LATE")
        assert (first.json["delta"], first.json["newScore"], first.json["rank"]) == (0, 0, 2)
        receipt = (await bench.ask("GET", "/actions/late", token=WRITER)).json["receipt"]
        assert (receipt["delta"], receipt["value"]) == (0, -5)
        assert "value" not in (await bench.ask("GET", "/actions/late-0", token=WRITER)).json["receipt"]
