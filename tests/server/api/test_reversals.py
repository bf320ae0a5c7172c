"""Reversals over HTTP: a dispute from the preview to the correction and back, past periods, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.board_rules import Rules
from tests.server.api.support import KEEPER, READER, REFEREE, WRITER, Bench, Reply, both_ways, open_bench
from tests.server.api.test_past_periods import DAY_S, NO_FILE, WEEKLY, lap, play, rows, score, top


async def reverse(bench: Bench, reversal_id: str = "undo", token: str = REFEREE, **more: object) -> Reply:
    body = {"reversalId": reversal_id, "reason": "played with a bot", **more}
    return await bench.ask("POST", "/reversals", body, token=token)


async def main(bench: Bench) -> list[tuple[str, int, int]]:
    return rows(await bench.ask("GET", "/scoreboard/top"))


@both_ways
async def test_a_dispute(through_quart: bool) -> None:
    """Preview, correction, what an action and the reversal say afterwards, and the correction of the correction."""
    async with open_bench(through_quart=through_quart) as bench:
        await bench.log_boards()
        for number in range(3):
            await bench.increment("cheat", f"c{number}")
        await bench.increment("ann", "a1")
        before = await main(bench)
        preview = await reverse(bench, actionIds=["c0", "c2"], preview=True)
        assert preview.status == 200
        seq = preview.json["seq"]
        told: dict[str, Any] = preview.json
        points = before[0][1] // 3
        assert {name: told[name] for name in ("applied", "preview", "again", "actions", "users")} == {
            "applied": False, "preview": True, "again": False, "actions": 2, "users": 1,
        }  # fmt: skip
        [change] = told["changes"]
        assert change["users"] == [
            {"userId": "cheat", "oldScore": 3 * points, "newScore": points, "delta": -2 * points}
        ]
        assert [entry["userId"] for entry in change["top"]] == ["cheat", "ann"]
        assert await main(bench) == before
        done = await reverse(bench, actionIds=["c0", "c2"])
        assert (done.json["applied"], done.json["seq"]) == (True, seq + 1)
        assert done.json["changes"] == told["changes"]
        assert (await main(bench))[0] == ("cheat", points, 1)
        again = await reverse(bench, actionIds=["c2", "c0"])
        assert (again.status, again.json["applied"], again.json["seq"]) == (200, False, seq + 1)
        action = (await bench.ask("GET", "/actions/c0", token=READER)).json
        assert (action["reversedBy"]["reversalId"], action["reversedBy"]["caller"]) == ("undo", "ref")
        assert "reversedBy" not in (await bench.ask("GET", "/actions/c1", token=READER)).json
        assert (await bench.ask("GET", "/actions/undo", token=READER)).status == 404
        logged = (await bench.ask("GET", "/reversals/undo", token=READER)).json
        assert (logged["reason"], logged["caller"], logged["actions"], logged["holding"]) == (
            "played with a bot", "ref", 2, 2,
        )  # fmt: skip
        assert logged["changes"] == [{"boardId": "main", "users": [{"userId": "cheat", "score": points}]}]
        repeated = await bench.increment("cheat", "c0")
        assert (repeated.json["applied"], repeated.json["newScore"]) == (False, points)
        taken_back = await reverse(bench, "redo", actionIds=["undo"])
        assert (taken_back.json["again"], taken_back.json["actions"]) == (True, 2)
        assert await main(bench) == before
        assert (await bench.ask("GET", "/reversals?reversalId=undo", token=READER)).json["holding"] == 0
        [line] = bench.told("actions_reversed")
        assert (line["caller"], line["reason"], line["actions"]) == ("ref", "played with a bot", 2)
        assert bench.metrics._registry.get_sample_value("scoreboard_reversed_actions_total", {"way": "back"}) == 2


async def test_all_of_a_user_or_a_caller_between_two_places() -> None:
    """By seqs and by times, both included. What is reversed already is left out."""
    async with open_bench() as bench:
        await bench.log_boards()
        seqs = []
        for number in range(4):
            seqs.append((await bench.increment("ann", f"a{number}")).json["seq"])
            bench.now_s += 60
        await bench.increment("bob", "b1")
        assert (await reverse(bench, "one", userId="ann", **{"from": seqs[1], "to": seqs[2]})).json["actions"] == 2
        assert (await reverse(bench, "two", userId="ann", to="2025-12-15T12:35:00Z")).json["actions"] == 1
        assert (await reverse(bench, "three", caller="backend")).json["actions"] == 2
        assert await main(bench) == []
        nothing = await reverse(bench, "four", caller="backend")
        assert (nothing.status, nothing.json["error"]["code"]) == (409, "CONFLICT")


async def test_a_past_period_is_corrected(tmp_path: Path) -> None:
    """Its rows, ranks, counts and pages; the list marks it. The running period keeps what it has."""
    async with open_bench(rules=NO_FILE, periods=tmp_path) as bench:
        await play(bench, ranks="shared")
        assert rows(await top(bench, "2025-W51")) == [("ann", 50, 1), ("ben", 40, 2), ("cid", 40, 2), ("dan", 5, 4)]
        done = await reverse(bench, userId="ann", to="2025-12-16T00:00:00Z")
        [change] = done.json["changes"]
        assert (change["boardId"], change["period"], change["users"][0]["newScore"]) == ("cup", "2025-W51", None)
        assert rows(await top(bench, "2025-W51")) == [("ben", 40, 1), ("cid", 40, 1), ("dan", 5, 3)]
        assert "correctedAt" in (await top(bench, "2025-W51")).json
        assert "correctedAt" not in (await top(bench, "2025-W52")).json
        assert (await score(bench, "ann", "2025-W51")).status == 404
        assert (await score(bench, "dan", "2025-W51")).json["count"] == 3
        listed = {each["period"]: each for each in (await bench.ask("GET", "/boards/cup/periods")).json["periods"]}
        assert (listed["2025-W51"]["count"], "correctedAt" in listed["2025-W51"]) == (3, True)
        assert "correctedAt" not in listed["2025-W52"]
        page = await bench.ask("GET", "/scoreboard?boardId=cup&period=2025-W51&limit=2")
        rest = await bench.ask("GET", f"/scoreboard?boardId=cup&period=2025-W51&cursor={page.json['nextCursor']}")
        assert rows(page) + rows(rest) == [("ben", 40, 1), ("cid", 40, 1), ("dan", 5, 3)]
        assert rows(await bench.ask("GET", "/scoreboard/top?boardId=cup")) == [("ann", 1, 1)]
        assert (await reverse(bench, "redo", actionIds=["undo"])).status == 200
        assert rows(await top(bench, "2025-W51")) == [("ann", 50, 1), ("ben", 40, 2), ("cid", 40, 2), ("dan", 5, 4)]


async def test_a_period_that_only_passed_is_no_corrected_one(tmp_path: Path) -> None:
    """It ended with the same event as the one before it, in which somebody played."""
    async with open_bench(rules=NO_FILE, periods=tmp_path) as bench:
        await bench.ask("PUT", "/boards/cup", WEEKLY, token=KEEPER)
        for user in ("ann", "ben"):
            await lap(bench, user, 50)
        bench.now_s += 14 * DAY_S
        await lap(bench, "ann", 1)
        assert (await reverse(bench, userId="ann", to="2025-12-16T00:00:00Z")).status == 200
        assert rows(await top(bench, "2025-W51")) == [("ben", 50, 1)]
        passed = await top(bench, "previous")
        assert (passed.json["period"], rows(passed), "correctedAt" in passed.json) == ("2025-W52", [], False)
        listed = {each["period"]: each for each in (await bench.ask("GET", "/boards/cup/periods")).json["periods"]}
        assert [(listed[week]["count"], "correctedAt" in listed[week]) for week in ("2025-W51", "2025-W52")] == [
            (1, True), (0, False),
        ]  # fmt: skip


async def test_a_frozen_board_shows_no_correction() -> None:
    """The public sees it at the end of the freeze, the referee in the answer."""
    async with open_bench(rules=NO_FILE) as bench:
        await bench.ask("PUT", "/boards/main", {"points": {"ACTION_COMPLETED": 10}}, token=KEEPER)
        await bench.increment("ann", "a1")
        await bench.increment("bob", "b1")
        await bench.ask("POST", "/boards/main/freeze", token=KEEPER)
        done = await reverse(bench, actionIds=["a1"])
        assert [entry["userId"] for entry in done.json["changes"][0]["top"]] == ["bob"]
        assert [user for user, *_ in await main(bench)] == ["ann", "bob"]
        assert (await bench.ask("GET", "/scores/ann")).status == 200
        seen = [
            ("/actions/a1", "Bearer game scores:write", False),
            ("/actions/a1", READER, True),
            ("/scores/ann/history", "Bearer ann scores:write ann", False),
            ("/scores/ann/history", READER, True),
            ("/users/ann/data", "Bearer ann scores:write ann", False),
        ]
        for path, token, tells in seen:
            reply = await bench.ask("GET", path, token=token)
            assert (reply.status, b"reversedBy" in reply.body) == (200, tells), (path, token)
        await bench.ask("POST", "/boards/main/unfreeze", token=KEEPER)
        assert [user for user, *_ in await main(bench)] == ["bob"]
        assert (await bench.ask("GET", "/scores/ann")).status == 404


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "actionIds"),
        ({"actionIds": []}, "actionIds"),
        ({"actionIds": ["a1"], "userId": "ann"}, "userId"),
        ({"actionIds": ["a1"], "from": 1}, "from"),
        ({"actionIds": ["never"]}, "actionIds"),
        ({"actionIds": ["a\u0000"]}, "actionIds"),
        ({"userId": "ann", "from": "yesterday"}, "from"),
        ({"userId": "ann", "from": 9, "to": 3}, "to"),
        ({"userId": "ann", "to": 0}, "to"),
        ({"userId": "ann", "reason": ""}, "reason"),
        ({"userId": "ann", "reversalId": ""}, "reversalId"),
        ({"userId": "ann", "delta": 5}, "delta"),
        ({"userId": 5}, "userId"),
    ],
)
async def test_a_wrong_body_names_the_field(body: dict[str, object], field: str) -> None:
    """And changes nothing."""
    async with open_bench() as bench:
        await bench.increment("ann", "a1")
        reply = await bench.ask("POST", "/reversals", {"reversalId": "undo", "reason": "x", **body}, token=REFEREE)
        assert (reply.status, reply.json["error"]["details"]["field"]) == (400, field), reply.json


async def test_who_may() -> None:
    """The scope is needed, and a token that names a user is not enough. Reading one takes either scope."""
    async with open_bench() as bench:
        await bench.increment("ann", "a1")
        assert (await reverse(bench, token=WRITER, actionIds=["a1"])).status == 403
        assert (await reverse(bench, token=f"{REFEREE} ann", actionIds=["a1"])).status == 403
        assert (await reverse(bench, actionIds=["a1"])).status == 200
        for token, status in ((REFEREE, 200), (READER, 200), (WRITER, 403)):
            assert (await bench.ask("GET", "/reversals/undo", token=token)).status == status
        for name in ("never", "a1"):
            assert (await bench.ask("GET", f"/reversals/{name}", token=READER)).status == 404
        conflict = await reverse(bench, "a1", userId="ann")
        assert (conflict.status, conflict.json["error"]["details"]["field"]) == (409, "reversalId")
        mixed = await reverse(bench, "more", actionIds=["a1", "undo"])
        assert (mixed.status, mixed.json["error"]["details"]["field"]) == (400, "actionIds")


async def test_a_log_that_begins_late() -> None:
    """What is gone is told, and what is known is done."""
    async with open_bench() as bench:
        await bench.log_boards()
        seqs = [(await bench.increment("ann", f"a{number}")).json["seq"] for number in range(3)]
        bench.log.first_seq = seqs[1]
        gone = await reverse(bench, actionIds=["a0"])
        assert (gone.status, gone.json["error"]["details"]["seq"]) == (409, seqs[0])
        late = await reverse(bench, userId="ann", **{"from": seqs[0]})
        assert (late.status, late.json["error"]["details"]["field"]) == (409, "from")
        assert (await reverse(bench, actionIds=["a2"])).status == 200
        assert (await reverse(bench, "more", actionIds=["a1"])).status == 409  # which event reached the rest is gone


async def test_many_actions_are_done_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal says where the first part ends."""
    monkeypatch.setattr("server.bounds.REVERSAL_ACTIONS_MAX", 2)
    async with open_bench() as bench:
        seqs = [(await bench.increment("ann", f"a{number}")).json["seq"] for number in range(3)]
        reply = await reverse(bench, userId="ann")
        assert (reply.status, reply.json["error"]["details"]["seq"]) == (400, seqs[1])
        assert (await reverse(bench, userId="ann", to=seqs[1])).json["actions"] == 2


async def test_a_period_that_ends_meanwhile_is_looked_up(tmp_path: Path) -> None:
    """The writer ends it before it decides, so the row is not known yet: all of it is done again."""
    async with open_bench(rules=Rules({}), periods=tmp_path) as bench:
        weekly = {"points": {"LAP": {"min": 1, "max": 90}}, "period": {"every": "week"}}
        await bench.ask("PUT", "/boards/cup", weekly, token=KEEPER)
        await lap(bench, "ann", 5)
        bench.now_s += 7 * 86_400
        done = await reverse(bench, userId="ann")
        assert done.status == 200
        assert done.json["changes"][0]["period"] == "2025-W51"
        assert rows(await top(bench, "previous")) == []
