"""Limits per caller and per user: what is refused, what is told, what is charged."""

from __future__ import annotations

import random

import pytest

from server.api import increments as increments_module
from tests.server.api.support import WRITER, both_ways, open_bench

BATCH = "/scores/increment/batch"


@both_ways
async def test_a_user_over_the_limit_is_told_which_and_when_to_come_back(through_quart: bool) -> None:
    """429 names the limit; after the time that it names, one more is let in."""
    async with open_bench(through_quart=through_quart, per_minute=(60_000, 3)) as bench:
        for number in range(3):
            assert (await bench.increment("ann", f"a{number}")).status == 200
        reply = await bench.increment("ann", "a3")
        assert (reply.status, reply.code) == (429, "RATE_LIMITED")
        assert reply.details == {"limit": "user", "limitPerMinute": 3, "retryAfterSeconds": 20, "userId": "ann"}
        assert reply.headers["retry-after"] == "20"
        assert (await bench.increment("bob", "b1")).status == 200, "another user is not concerned"
        bench.now_s += 20
        assert (await bench.increment("ann", "a3")).status == 200
        assert (await bench.increment("ann", "a4")).status == 429
        assert bench.metrics.value("scoreboard_rate_limit_hits_total", limit="user") == 2
        assert [line["details"]["limit"] for line in bench.told("rate_limited")] == ["user", "user"]


@both_ways
async def test_a_caller_over_the_limit_is_told_so_for_whatever_user(through_quart: bool) -> None:
    """The caller's limit counts over all users, and a user change counts too."""
    async with open_bench(through_quart=through_quart, per_minute=(2, 600)) as bench:
        both = "Bearer backend scores:write,users:write"
        assert (await bench.increment("ann", "a1")).status == 200
        assert (await bench.ask("PUT", "/users/ann", {"active": True}, token=both)).status == 200
        for reply in (
            await bench.increment("bob", "b1"),
            await bench.ask("PUT", "/users/ann", {"active": True}, token=both),
        ):
            assert (reply.status, reply.details["limit"], reply.details["limitPerMinute"]) == (429, "caller", 2)
            assert reply.headers["retry-after"] == str(reply.details["retryAfterSeconds"]) == "30"


@both_ways
async def test_what_is_refused_is_not_charged(through_quart: bool) -> None:
    """Neither a limit that was hit nor a request that was wrong uses up any of the other limit."""
    async with open_bench(through_quart=through_quart, per_minute=(3, 1)) as bench:
        assert (await bench.increment("ann", "a1")).status == 200
        for _ in range(5):
            assert (await bench.increment("ann", "a2")).details["limit"] == "user"
            assert (await bench.increment("", "a2")).status == 400
        assert (await bench.increment("bob", "b1")).status == 200
        assert (await bench.increment("cid", "c1")).status == 200
        assert (await bench.increment("dan", "d1")).details["limit"] == "caller"
        assert len(bench.logged()) == 3


@both_ways
async def test_a_batch_counts_every_item(through_quart: bool) -> None:
    """Items are let in as far as the limits reach; the rest get their own 429, and others in the batch go on."""
    async with open_bench(through_quart=through_quart, per_minute=(4, 2)) as bench:
        items: list[object] = [{"userId": user, "actionId": f"x{number}"} for number, user in enumerate("aaabbcc")]
        reply = await bench.ask("POST", BATCH, items, token=WRITER)
        assert reply.status == 200
        assert [item["status"] for item in reply.json] == [200, 200, 429, 200, 200, 429, 429]
        limits = [item["error"]["details"]["limit"] for item in reply.json if "error" in item]
        assert limits == ["user", "caller", "caller"]
        assert len(bench.logged()) == 4
        [line] = bench.told("rate_limited")
        assert line["items"] == {"RATE_LIMITED": 3}


async def test_the_longer_of_two_waits_is_told() -> None:
    """Whoever comes back when told to is let in, not told to wait for the other limit."""
    requests = [("one", "ann"), ("one", "ann"), ("two", "ann"), ("one", "bob"), ("one", "ann")]
    for per_minute, expected in (((2, 3), ("caller", 30)), ((3, 2), ("user", 30))):
        async with open_bench(per_minute=per_minute) as bench:
            for number, (caller, user) in enumerate(requests):
                body = {"userId": user, "actionId": f"a{number}"}
                reply = await bench.ask("POST", "/scores/increment", body, token=f"Bearer {caller} scores:write")
            assert (reply.details["limit"], reply.details["retryAfterSeconds"]) == expected


async def test_a_large_batch_is_charged_as_its_items_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """New and repeated actions, users and callers over their limits: the same answers, and the same is left."""
    told: list[list[object]] = []
    for many in (2, 10**9):
        monkeypatch.setattr(increments_module, "MANY", many)
        chance, answers = random.Random(3), list[object]()
        async with open_bench(per_minute=(90, 6)) as bench:
            for first in range(0, 300, 30):
                numbers = [
                    chance.randrange(first, first + 40) if first % 60 else number + first for number in range(30)
                ]
                users = [f"u{chance.randrange(20)}" for _ in numbers]
                items = [{"userId": user, "actionId": f"x{each}"} for user, each in zip(users, numbers, strict=True)]
                answers.append((await bench.ask("POST", BATCH, items, token=WRITER)).json)
                bench.now_s += 9.5
            answers.append(len(bench.logged()))
        told.append(answers)
    assert told[0] == told[1]
    statuses = [item["status"] for answer in told[0][:-1] for item in answer]  # type: ignore[attr-defined]
    assert {200, 409, 429} == set(statuses)
