"""Freezes over HTTP: what the public sees meanwhile, who sees the present, and the reveal row by row."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.board_rules import Rules
from engine.events import BoardFrozen, BoardUnfrozen, RowsRevealed
from server import bounds
from tests.server.api.support import ADMIN, KEEPER, READER, REGISTRAR, WRITER, Bench, Reply, both_ways, open_bench

DAY_S = 86_400
CUP = {"points": {"WIN": 10, "LAP": {"min": 1, "max": 90}}}
WEEKLY = {**CUP, "period": {"every": "week", "zone": "Europe/Berlin"}}
"""2025-12-15 is a Monday."""
JUDGE = "Bearer judge scores:write,scores:value"
NO_FILE = Rules({})
NOW = "2025-12-15T12:34:56.000Z"
BEFORE = [("ann", 30, 1), ("ben", 20, 2), ("cid", 10, 3)]
AFTER = [("dan", 40, 1), ("cid", 35, 2), ("ann", 30, 3), ("ben", 21, 4)]

Rows = list[tuple[str, int, int]]


async def lap(bench: Bench, user_id: str, value: int, action_id: str = "") -> Reply:
    body = {"userId": user_id, "actionId": action_id or f"{user_id} {value}", "boardId": "cup", "reason": "LAP"}
    return await bench.ask("POST", "/scores/increment", {**body, "value": value}, token=JUDGE)


async def change(bench: Bench, verb: str, body: object = None, token: str | None = KEEPER) -> Reply:
    return await bench.ask("POST", f"/boards/cup/{verb}", body, token=token)


async def begin(bench: Bench, rules: object = CUP) -> None:
    assert (await bench.ask("PUT", "/boards/cup", rules, token=KEEPER)).status == 201
    for user_id, score, _ in BEFORE:
        assert (await lap(bench, user_id, score)).status == 200


async def go_on(bench: Bench) -> None:
    """A newcomer takes the lead, the last one passes the others, the second stays behind."""
    for user_id, value in (("dan", 40), ("cid", 25), ("ben", 1)):
        assert (await lap(bench, user_id, value)).status == 200


def rows(reply: Reply) -> Rows:
    assert reply.status == 200, reply
    return [(entry["userId"], entry["score"], entry["rank"]) for entry in reply.json["entries"]]


async def shown(bench: Bench, more: str = "", token: str | None = None) -> Rows:
    """List the top. The other reads must agree with it."""
    top = rows(await bench.ask("GET", f"/scoreboard/top?boardId=cup{more}", token=token))
    walk = await bench.ask("GET", f"/scoreboard?boardId=cup{more}", token=token)
    assert (rows(walk), walk.json["count"]) == (top, len(top))
    query = {"userIds": ["ann", "ben", "cid", "dan", "eve"], "boardId": "cup"}
    assert rows(await bench.ask("POST", f"/scores/query?{more[1:]}", query, token=token)) == top
    for user_id, score, rank in top:
        one = (await bench.ask("GET", f"/scores/{user_id}?boardId=cup{more}", token=token)).json
        assert (one["score"], one["rank"], one["count"]) == (score, rank, len(top))
        assert rows(await bench.ask("GET", f"/scores/{user_id}/around?boardId=cup{more}", token=token)) == top
    return top


async def board(bench: Bench, more: str = "", token: str | None = None) -> dict[str, object]:
    found = (await bench.ask("GET", f"/boards/cup{more}", token=token)).json
    assert isinstance(found, dict)
    return found


# Freezing


@both_ways
async def test_the_public_sees_the_board_as_it_was(through_quart: bool) -> None:
    """In every read, with the position of the freeze, while actions go on counting."""
    async with open_bench(rules=NO_FILE, through_quart=through_quart) as bench:
        await begin(bench)
        frozen = await change(bench, "freeze")
        assert frozen.status == 200
        assert (frozen.json["frozenAt"], frozen.json["revealed"], frozen.json["applied"]) == (NOW, 0, True)
        await go_on(bench)
        assert await shown(bench) == BEFORE
        assert (await bench.ask("GET", "/scores/dan?boardId=cup")).status == 404
        top = await bench.ask("GET", "/scoreboard/top?boardId=cup")
        assert (top.json["frozenAt"], top.json["seq"]) == (NOW, frozen.json["seq"])
        same = await bench.ask("GET", "/scoreboard/top?boardId=cup", headers={"if-none-match": top.headers["etag"]})
        assert same.status == 304
        for path in ("/scoreboard", "/scores/ann", "/scores/ann/around"):
            reply = await bench.ask("GET", f"{path}?boardId=cup")
            assert (reply.json["frozenAt"], reply.json["seq"]) == (NOW, frozen.json["seq"]), path
        told = await board(bench)
        assert (told["frozenAt"], told["revealed"], told["count"]) == (NOW, 0, 3)
        assert len([event for event in bench.log.events if isinstance(event, BoardFrozen)]) == 1


@both_ways
async def test_the_backend_that_posts_gets_a_whole_receipt(through_quart: bool) -> None:
    """It has the score and the rank of now. Others get the receipt of a later action only where they may read."""
    async with open_bench(rules=NO_FILE, through_quart=through_quart) as bench:
        await begin(bench)
        await change(bench, "freeze")
        receipt = (await lap(bench, "dan", 40, "after")).json
        assert (receipt["newScore"], receipt["rank"], receipt["delta"]) == (40, 1, 40)
        for token, status in (
            (JUDGE, "KEPT"), (READER, "KEPT"), (ADMIN, "KEPT"), (WRITER, "FROZEN"),
        ):  # fmt: skip
            told = (await bench.ask("GET", "/actions/after", token=token)).json
            assert (told["receiptStatus"], told["receipt"] is None) == (status, status == "FROZEN"), token
            assert (await bench.ask("GET", "/actions/ann%2030", token=token)).json["receiptStatus"] == "KEPT"
        await change(bench, "unfreeze")
        assert (await bench.ask("GET", "/actions/after", token=WRITER)).json["receiptStatus"] == "KEPT"


@both_ways
async def test_the_receipt_of_a_fed_board_is_hidden_too(through_quart: bool) -> None:
    """An action on an open board that feeds a frozen one tells what it did there."""
    async with open_bench(rules=NO_FILE, through_quart=through_quart) as bench:
        await begin(bench)
        await bench.ask("PUT", "/boards/week", {**CUP, "feeds": ["cup"]}, token=KEEPER)
        await change(bench, "freeze")
        body = {"userId": "ann", "actionId": "w1", "boardId": "week", "reason": "WIN"}
        assert (await bench.ask("POST", "/scores/increment", body, token=JUDGE)).status == 200
        assert (await bench.ask("GET", "/actions/w1", token=WRITER)).json["receiptStatus"] == "FROZEN"
        assert (await bench.ask("GET", "/actions/w1", token=JUDGE)).json["receipt"]["fed"][0]["newScore"] == 40
        assert await shown(bench) == BEFORE


@both_ways
async def test_a_freeze_can_be_planned(through_quart: bool) -> None:
    """It is told, may be moved, and comes true by itself before the first event after it."""
    async with open_bench(rules=NO_FILE, through_quart=through_quart) as bench:
        await begin(bench)
        for minute in (5, 1):
            at = f"2025-12-15T13:{34 + minute}:56+01:00"
            planned = await change(bench, "freeze", {"at": at})
            assert (planned.json["freezesAt"], planned.json["applied"]) == (
                f"2025-12-15T12:{34 + minute}:56.000Z",
                True,
            )
            assert "frozenAt" not in planned.json
        assert (await change(bench, "freeze", {"at": at})).json["applied"] is False
        assert (await board(bench))["freezesAt"] == "2025-12-15T12:35:56.000Z"
        bench.now_s += 61
        await go_on(bench)
        assert await shown(bench) == BEFORE
        told = await board(bench)
        assert told["frozenAt"] == "2025-12-15T12:35:57.000Z"
        assert "freezesAt" not in told


@both_ways
async def test_a_planned_freeze_can_be_dropped(through_quart: bool) -> None:
    """By unfreeze; an immediate freeze takes its place, and leaves no plan."""
    async with open_bench(rules=NO_FILE, through_quart=through_quart) as bench:
        await begin(bench)
        await change(bench, "freeze", {"at": "2025-12-15T13:00:00Z"})
        dropped = await change(bench, "unfreeze")
        assert (dropped.json["applied"], "freezesAt" in dropped.json) == (True, False)
        await change(bench, "freeze", {"at": "2025-12-15T13:00:00Z"})
        now = await change(bench, "freeze")
        assert (now.json["frozenAt"], "freezesAt" in now.json) == (NOW, False)
        again = await change(bench, "freeze", {"at": "2025-12-15T14:00:00Z"})
        assert (again.status, again.code, again.details["field"]) == (409, "CONFLICT", "at")


@both_ways
async def test_a_time_that_can_not_be_names_its_field(through_quart: bool) -> None:
    """The past, now, no instant, an instant without an offset, and what is no text."""
    async with open_bench(rules=NO_FILE, through_quart=through_quart) as bench:
        await begin(bench)
        bodies = [{"at": at} for at in ("2025-12-15T12:00:00Z", NOW, "soon", "", "2025-12-16T00:00:00", 5, "2999")]
        for body in bodies:
            reply = await change(bench, "freeze", body)
            assert (reply.status, reply.code, reply.details["field"]) == (400, "INVALID_REQUEST", "at"), body
        others: list[tuple[object, str]] = [({"when": NOW}, "when"), ([], "body")]
        for other, field in others:
            assert (await change(bench, "freeze", other)).details["field"] == field
        assert (await change(bench, "freeze", {"at": None})).status == 200


@both_ways
async def test_a_change_that_changes_nothing_can_be_sent_again(through_quart: bool) -> None:
    """A freeze of a frozen board keeps its time; an unfreeze of an open one does nothing."""
    async with open_bench(rules=NO_FILE, through_quart=through_quart) as bench:
        await begin(bench)
        assert (await change(bench, "unfreeze")).json["applied"] is False
        first = await change(bench, "freeze")
        bench.now_s += 60
        await go_on(bench)
        again = await change(bench, "freeze")
        assert (again.json["applied"], again.json["frozenAt"]) == (False, first.json["frozenAt"])
        assert await shown(bench) == BEFORE
        assert (await change(bench, "unfreeze")).json["applied"] is True
        assert await shown(bench) == AFTER
        assert (await change(bench, "unfreeze", {"x": 1})).details["field"] == "x"
        kinds = (BoardFrozen, BoardUnfrozen)
        assert [type(event) for event in bench.log.events if isinstance(event, kinds)] == list(kinds)
        told = [line["what"] for line in bench.told("board_changed")]
        assert told == ["made", "frozen", "unfrozen"]


@both_ways
async def test_what_the_operator_does_to_users_holds_at_once(through_quart: bool) -> None:
    """A name, and who is shown. Scores stand still."""
    async with open_bench(rules=NO_FILE, through_quart=through_quart) as bench:
        await begin(bench)
        await change(bench, "freeze")
        await go_on(bench)
        await bench.ask("PUT", "/users/ben", {"active": False}, token=REGISTRAR)
        await bench.ask("PUT", "/users/cid", {"displayName": "Cid"}, token=REGISTRAR)
        top = await bench.ask("GET", "/scoreboard/top?boardId=cup")
        assert rows(top) == [("ann", 30, 1), ("cid", 10, 2)]
        assert top.json["entries"][1]["displayName"] == "Cid"


# The present


@both_ways
async def test_the_present_is_for_tokens_that_may_read(through_quart: bool) -> None:
    """401 without a token, 403 without the scope, on every route; also on a board that is not frozen."""
    async with open_bench(rules=NO_FILE, through_quart=through_quart) as bench:
        await begin(bench)
        for frozen in (False, True):
            for method, path, body in (
                ("GET", "/scoreboard/top?boardId=cup&view=live", None),
                ("GET", "/scoreboard?boardId=cup&view=live", None),
                ("GET", "/scores/ann?boardId=cup&view=live", None),
                ("GET", "/scores/ann/around?boardId=cup&view=live", None),
                ("GET", "/scores?userId=ann&boardId=cup&view=live", None),
                ("GET", "/boards?view=live", None),
                ("GET", "/boards/cup?view=live", None),
                ("GET", "/boards/cup/periods?view=live", None),
                ("POST", "/scores/query?view=live", {"userIds": ["ann"], "boardId": "cup"}),
            ):
                for token, status in ((None, 401), (WRITER, 403), (KEEPER, 403), (READER, 200), (ADMIN, 200)):
                    reply = await bench.ask(method, path, body, token=token)
                    assert reply.status == status, (path, token)
                assert (await bench.ask(method, path.replace("=live", "=late"), body)).details["field"] == "view"
            if not frozen:
                await change(bench, "freeze")
                await go_on(bench)
        assert await shown(bench, "&view=live", READER) == AFTER
        assert await shown(bench, "&view=public", READER) == await shown(bench) == BEFORE
        assert ((await board(bench))["count"], (await board(bench, "?view=live", READER))["count"]) == (3, 4)


async def test_the_present_has_a_tag_of_its_own() -> None:
    """So no cache takes one view for the other."""
    async with open_bench(rules=NO_FILE) as bench:
        await begin(bench)
        path = "/scoreboard/top?boardId=cup"
        public = await bench.ask("GET", path)
        live = await bench.ask("GET", f"{path}&view=live", token=READER)
        assert public.json["entries"] == live.json["entries"]
        assert public.headers["etag"] != live.headers["etag"]
        again = await bench.ask(
            "GET", f"{path}&view=live", token=READER, headers={"if-none-match": live.headers["etag"]}
        )
        assert again.status == 304


# The reveal


@both_ways
async def test_a_reveal_shows_row_by_row_from_the_last_place_up(through_quart: bool) -> None:
    """Newcomers first. After the last row the board is open again."""
    async with open_bench(rules=NO_FILE, through_quart=through_quart) as bench:
        await begin(bench)
        await change(bench, "freeze")
        await go_on(bench)
        assert await shown(bench) == BEFORE
        steps: list[Rows] = []
        for revealed in (1, 2, 3):
            reply = await change(bench, "reveal")
            assert (reply.json["revealed"], reply.json["frozenAt"]) == (revealed, NOW)
            steps.append(await shown(bench))
        assert steps[0] == [("dan", 40, 1), ("ann", 30, 2), ("ben", 20, 3), ("cid", 10, 4)]
        assert steps[1] == [("dan", 40, 1), ("cid", 35, 2), ("ann", 30, 3), ("ben", 20, 4)]
        assert steps[2] == [("dan", 40, 1), ("cid", 35, 2), ("ann", 30, 3), ("ben", 21, 4)]
        last = await change(bench, "reveal")
        assert (last.status, "frozenAt" in last.json, "revealed" in last.json) == (200, False, False)
        assert await shown(bench) == AFTER
        over = await change(bench, "reveal")
        assert (over.status, over.code, over.details) == (409, "CONFLICT", {"field": "boardId", "boardId": "cup"})
        assert len([event for event in bench.log.events if isinstance(event, RowsRevealed)]) == 4


@both_ways
async def test_a_reveal_of_many_rows_is_one_step(through_quart: bool) -> None:
    """More than there are end the freeze; the answer tells how many were shown while it lasts."""
    async with open_bench(rules=NO_FILE, through_quart=through_quart) as bench:
        await begin(bench)
        await change(bench, "freeze")
        await go_on(bench)
        assert (await change(bench, "reveal", {"step": 2})).json["revealed"] == 2
        done = await change(bench, "reveal", {"step": bounds.REVEAL_STEP_MAX})
        assert (done.status, "frozenAt" in done.json) == (200, False)
        assert await shown(bench) == AFTER


@both_ways
async def test_a_step_has_bounds(through_quart: bool) -> None:
    """1 to 1,000; null and nothing are one row."""
    async with open_bench(rules=NO_FILE, through_quart=through_quart) as bench:
        await begin(bench)
        await change(bench, "freeze")
        for step in (0, -1, bounds.REVEAL_STEP_MAX + 1, "1", 1.5, 2**64):
            reply = await change(bench, "reveal", {"step": step})
            assert (reply.status, reply.details["field"]) == (400, "step"), step
        assert (await change(bench, "reveal", {"steps": 1})).details["field"] == "steps"
        for shown_rows, body in enumerate(({"step": None}, {}), start=1):
            assert (await change(bench, "reveal", body)).json["revealed"] == shown_rows


@both_ways
async def test_a_frozen_period_that_ended_is_not_revealed(through_quart: bool, tmp_path: Path) -> None:
    """The public goes on seeing it; its last rows are in its file. Unfrozen, the board shows the running one."""
    async with open_bench(rules=NO_FILE, through_quart=through_quart, periods=tmp_path) as bench:
        await begin(bench, WEEKLY)
        await change(bench, "freeze")
        await go_on(bench)
        bench.now_s += 7 * DAY_S
        await lap(bench, "eve", 5)
        assert await shown(bench) == BEFORE
        refused = await change(bench, "reveal")
        assert (refused.status, refused.code, refused.details["boardId"]) == (409, "CONFLICT", "cup")
        told = await board(bench)
        assert (told["period"], told["count"]) == ("2025-W51", 3)
        past = "/scoreboard/top?boardId=cup&period=2025-W51"
        assert (await bench.ask("GET", past)).status == 404, "for the public it has not ended"
        assert (await bench.ask("GET", "/boards/cup/periods")).json["periods"] == []
        assert rows(await bench.ask("GET", f"{past}&view=live", token=READER)) == AFTER
        live = (await bench.ask("GET", "/boards/cup/periods?view=live", token=READER)).json["periods"]
        assert [each["period"] for each in live] == ["2025-W51"]
        assert (await change(bench, "unfreeze")).json["period"] == "2025-W52"
        assert rows(await bench.ask("GET", past)) == AFTER
        assert await shown(bench) == [("eve", 5, 1)]


@both_ways
async def test_a_closed_board_can_still_be_revealed(through_quart: bool) -> None:
    """It can be closed while it is frozen; the public sees its end when the operator wants."""
    async with open_bench(rules=NO_FILE, through_quart=through_quart) as bench:
        await begin(bench)
        await change(bench, "freeze")
        await go_on(bench)
        assert (await bench.ask("DELETE", "/boards/cup", token=KEEPER)).status == 200
        assert await shown(bench) == BEFORE
        assert (await change(bench, "reveal", {"step": 9})).status == 200
        assert await shown(bench) == AFTER


async def test_a_walk_of_a_frozen_board_ends_with_the_freeze() -> None:
    """Its cursor is of a board that is no longer shown, and never leads into the present."""
    async with open_bench(rules=NO_FILE) as bench:
        await begin(bench)
        await change(bench, "freeze")
        await go_on(bench)
        path = "/scoreboard?boardId=cup&limit=1"
        cursor = (await bench.ask("GET", path)).json["nextCursor"]
        assert rows(await bench.ask("GET", f"{path}&cursor={cursor}")) == BEFORE[1:2]
        live = await bench.ask("GET", f"{path}&view=live&cursor={cursor}", token=READER)
        assert (live.status, live.code) == (410, "CURSOR_EXPIRED")
        await change(bench, "unfreeze")
        assert (await bench.ask("GET", f"{path}&cursor={cursor}")).code == "CURSOR_EXPIRED"


# Ranks among the chosen ones


@both_ways
@pytest.mark.parametrize(
    ("ranks", "among"), [("unique", [1, 2, 3, 4]), ("shared", [1, 1, 3, 4]), ("dense", [1, 1, 2, 3])]
)
async def test_chosen_users_are_ranked_in_the_mode_of_the_board(
    ranks: str, among: list[int], through_quart: bool
) -> None:
    """Equal scores share a place among each other as they do among all."""
    async with open_bench(rules=NO_FILE, through_quart=through_quart) as bench:
        await bench.ask("PUT", "/boards/cup", {**CUP, "ranks": ranks}, token=KEEPER)
        for user_id, value in (("top", 90), ("ann", 30), ("ben", 30), ("cid", 20), ("dan", 10)):
            await lap(bench, user_id, value)
        body = {"userIds": ["dan", "ben", "cid", "ann"], "boardId": "cup"}
        entries = (await bench.ask("POST", "/scores/query", body)).json["entries"]
        assert [(entry["userId"], entry["rankAmong"]) for entry in entries] == list(
            zip(["ann", "ben", "cid", "dan"], among, strict=True)
        )


# Who may


async def test_a_token_without_the_scope_changes_nothing() -> None:
    """Neither one that writes scores nor one that reads them; a replica's is none either."""
    async with open_bench(rules=NO_FILE) as bench:
        await begin(bench)
        events = len(bench.log.events)
        for verb in ("freeze", "unfreeze", "reveal"):
            for token in (WRITER, READER, JUDGE, "Bearer replica log:read"):
                reply = await change(bench, verb, token=token)
                assert (reply.status, reply.details) == (403, {"anyOf": ["boards:write"]})
            assert (await change(bench, verb, token=None)).status == 401
        assert len(bench.log.events) == events
