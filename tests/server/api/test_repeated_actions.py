"""A retry is not charged: what was applied, or is in flight, costs its user nothing. Repeats have their own limit."""

from __future__ import annotations

import msgspec
import trio.testing

from engine.actions import key_of
from engine.scoreboard import Scoreboard
from server.api.increments import Increments
from tests.engine.model import increment, perform
from tests.server.api.support import RULES, WRITER, Bench, Reply, both_ways, open_bench
from tests.server.lanes.setting import Gate, one, open_setting, post

BATCH = "/scores/increment/batch"


async def batch(bench: Bench, *items: tuple[str, str], **headers: str) -> Reply:
    """Send a batch of users and actions."""
    body = [{"userId": user, "actionId": action} for user, action in items]
    return await bench.ask("POST", BATCH, body, token=WRITER, headers=headers)


def increments_of(bench: Bench) -> Increments:
    return bench.pipeline._increments


@both_ways
async def test_a_retry_costs_the_user_nothing(through_quart: bool) -> None:
    """With two a minute: two actions, and the second again and again. A third one is refused as ever."""
    async with open_bench(through_quart=through_quart, per_minute=(60_000, 2)) as bench:
        await bench.increment("ann", "a1")
        await bench.increment("ann", "a2")
        for _ in range(50):
            again = await bench.increment("ann", "a2")
            assert (again.status, again.json["applied"], again.json["newScore"]) == (200, False, 20)
        assert (await bench.increment("ann", "a3")).details["limit"] == "user"
        assert len(bench.logged()) == 2
        assert len(increments_of(bench)._in_flight) == 0


@both_ways
async def test_a_batch_that_is_sent_again_is_answered(through_quart: bool) -> None:
    """600 actions of a user who may have 600 a minute, by a caller who may send as many."""
    items = [("ann", f"a{number}") for number in range(600)]
    async with open_bench(through_quart=through_quart, per_minute=(600, 600)) as bench:
        first, second = await batch(bench, *items), await batch(bench, *items)
        assert [item["applied"] for item in first.json] == [True] * 600
        assert [item["applied"] for item in second.json] == [False] * 600
        assert "retry-after" not in second.headers
        assert "x-scoreboard-refused" not in second.headers


@both_ways
async def test_repeats_leave_the_room_to_new_actions(through_quart: bool) -> None:
    """In one batch, before and after them; also what is twice in one batch is charged once."""
    async with open_bench(through_quart=through_quart, per_minute=(60_000, 2)) as bench:
        await bench.increment("ann", "a1")
        reply = await batch(bench, *(("ann", action) for action in ("a1", "a1", "a2", "a2", "a3", "a1", "a3")))
        assert [item["status"] for item in reply.json] == [200, 200, 200, 200, 429, 200, 429]
        assert [item.get("applied") for item in reply.json] == [False, False, True, False, None, False, None]


@both_ways
async def test_a_caller_may_not_repeat_without_end(through_quart: bool) -> None:
    """Repeats have a limit of their own, which is told apart; new actions go on meanwhile, and later repeats too."""
    async with open_bench(through_quart=through_quart, per_minute=(3, 600)) as bench:
        await bench.increment("ann", "a1")
        for _ in range(3):
            assert (await bench.increment("ann", "a1")).status == 200
        refused = await bench.increment("ann", "a1")
        assert refused.status == 429
        assert refused.details == {"limit": "repeats", "limitPerMinute": 3, "retryAfterSeconds": 20}
        assert refused.headers["retry-after"] == "20"
        mixed = await batch(bench, ("ann", "a1"), ("ann", "a2"))
        assert [item["status"] for item in mixed.json] == [429, 200]
        assert bench.metrics.value("scoreboard_rate_limit_hits_total", limit="repeats") == 2
        bench.now_s += 20
        assert (await bench.increment("ann", "a1")).json["applied"] is False


@both_ways
async def test_a_conflict_is_charged_as_a_new_action(through_quart: bool) -> None:
    """Another user, board or reason for a known action: neither free, nor told apart by somebody over the limit."""
    async with open_bench(through_quart=through_quart, per_minute=(60_000, 3)) as bench:
        await bench.increment("ann", "a1")
        for more in ({}, {"reason": "WON"}, {"boardId": "weekly"}):
            assert (await bench.increment("ben", "a1", **more)).status == 409
        known, unknown = await bench.increment("ben", "a1"), await bench.increment("ben", "b1")
        assert known.status == unknown.status == 429
        assert known.json == unknown.json
        assert [item["status"] for item in (await batch(bench, ("ben", "a1"), ("ann", "a1"))).json] == [429, 200]


@both_ways
async def test_refused_items_are_counted_in_the_headers(through_quart: bool) -> None:
    """How many were refused, how many of them by a limit, and when to send those again: after the longest wait."""
    async with open_bench(through_quart=through_quart, per_minute=(60_000, 1)) as bench:
        reply = await batch(bench, ("ann", "a1"), ("ann", "a2"), ("", "a3"), ("ben", "a1"), ("ann", "a4"))
        assert [item["status"] for item in reply.json] == [200, 429, 400, 409, 429]
        headers = {name: reply.headers[name] for name in ("retry-after", "x-scoreboard-refused")}
        assert headers == {"retry-after": "60", "x-scoreboard-refused": "4"}
        assert reply.headers["x-scoreboard-rate-limited"] == "2"
        wrong = await batch(bench, ("", "a3"))
        assert (wrong.headers["x-scoreboard-refused"], wrong.headers["x-scoreboard-rate-limited"]) == ("1", "0")
        assert "retry-after" not in wrong.headers


async def test_an_action_in_flight_is_known_already() -> None:
    """A client that gives up early sends it again before it is applied: two in flight are charged once."""
    async with open_setting(per_minute=(60_000, 1)) as setting:
        gate = Gate(setting.bench)
        clients = [await setting.parked() for _ in range(3)]
        for client in clients[:2]:
            await client.send(post(one("ann", "a1")))
            await trio.testing.wait_all_tasks_blocked(0.01)
        assert (await clients[2].ask(post(one("ann", "a2")))).status == 429
        gate.open()
        answers = [await client.answer() for client in clients[:2]]
        assert [msgspec.json.decode(answer.body)["applied"] for answer in answers] == [True, False]
        assert len(increments_of(setting.bench)._in_flight) == 0


async def test_what_was_not_applied_is_forgotten() -> None:
    """After a refusal by the rules, by a limit and by a full inbox, the same action is a new one again."""
    async with open_bench(per_minute=(60_000, 3)) as bench:
        assert (await bench.increment("ann", "a1", reason="NONE")).status == 400
        bench.actor._waiting = 10**6
        assert (await bench.increment("ann", "a1")).status == 503
        assert (await batch(bench, ("ann", "a1"))).status == 503
        bench.actor._waiting = 0
        assert (await bench.increment("ann", "a1")).status == 429
        assert len(increments_of(bench)._in_flight) == 0


def test_many_keys_are_found_as_each_is_alone() -> None:
    """Whatever part of them is known, and however full the table is."""
    scoreboard = Scoreboard(RULES)
    for start in range(0, 24_000, 1_000):
        perform(scoreboard, [increment("ann", f"a{number}") for number in range(start, start + 1_000)])
        find = scoreboard.actions.find
        for first, last in ((start, start + 40), (start + 500, start + 1_500), (start + 980, start + 1_015)):
            keys = [key_of(f"a{number}") for number in range(first, last)]
            assert scoreboard.actions.find_all(keys) == [find(key) for key in keys]
